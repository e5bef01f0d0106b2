/** A server between clients and the provider: a front, or a proxy that only copies. Sends its URL to its parent. */
import * as Front from "@sluice/ai/Front"
import { Agent, createServer, request, type RequestListener } from "node:http"
import { bareHandler, webServer } from "./web.ts"

const bare = (upstream: string): RequestListener => {
  const agent = new Agent({ keepAlive: true })
  const { hostname, port } = new URL(upstream)
  return (received, response) => {
    const { headers, method, url } = received
    const sent = request({ agent, hostname, port, method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    sent.on("error", () => response.destroy())
    response.on("close", () => {
      if (!response.writableFinished) sent.destroy()
    })
    received.pipe(sent)
  }
}

const front = (url: string) => Front.make({ targets: [{ name: "provider", url, speaks: "openai" }] })

const listenerOf = async (kind: string | undefined, upstream: string): Promise<RequestListener> => {
  switch (kind) {
    case "front":
      return (await front(upstream)).listener
    case "front-web":
      return webServer((await front(upstream)).handler)
    case "bare-web":
      return webServer(bareHandler(upstream))
    default:
      return bare(upstream)
  }
}

const [kind, upstream = ""] = process.argv.slice(2)
const server = createServer(await listenerOf(kind, upstream))
server.listen(0, "127.0.0.1", () => {
  const address = server.address()
  if (typeof address === "object") process.send?.(`http://127.0.0.1:${address?.port}/v1`)
})
