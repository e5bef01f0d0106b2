/**
 * A provider of chat completions. Sends its URL to its parent. Each delta of a stream is a write of its own. A stream of the model
 * "held" never ends.
 */
import { createServer, type ServerResponse } from "node:http"
import { delta, pieces, whole } from "./answer.ts"

/** One piece in 4 ms. Pieces of one turn would arrive together, and cost a proxy almost nothing. */
const send = (response: ServerResponse, at: number): void => {
  if (at === pieces.length) {
    response.end()
    return
  }
  response.write(pieces[at])
  setTimeout(send, 4, response, at + 1)
}

const server = createServer((request, response) => {
  let body = ""
  request.setEncoding("utf8").on("data", (text: string) => {
    body += text
  })
  request.on("end", () => {
    if (!body.includes(`"stream":true`)) {
      response.writeHead(200, { "content-type": "application/json", "content-length": whole.length })
      response.end(whole)
      return
    }
    response.writeHead(200, { "content-type": "text/event-stream" })
    if (body.includes(`"held"`)) response.write(delta)
    else send(response, 0)
  })
})
server.listen(0, "127.0.0.1", () => {
  const address = server.address()
  if (typeof address === "object") process.send?.(`http://127.0.0.1:${address?.port}/v1`)
})
