/** A provider that answers every request at once, with as many deltas as its argument says. Sends its URL to its parent. */
import { createServer } from "node:http"

const event = (data: unknown): string => `data: ${JSON.stringify(data)}\n\n`

const common = { id: "chatcmpl-1", object: "chat.completion.chunk", created: 1_700_000_000, model: "m1" }

const chunk = (delta: object, finish_reason: string | null = null): string =>
  event({ ...common, choices: [{ index: 0, delta, logprobs: null, finish_reason }] })

const deltas = Number(process.argv[2])
const body = [
  chunk({ role: "assistant", content: "", refusal: null }),
  ...Array.from({ length: deltas }, () => chunk({ content: "word " })),
  chunk({}, "stop"),
  event({ ...common, choices: [], usage: { prompt_tokens: 12, completion_tokens: deltas, total_tokens: 12 + deltas } }),
  "data: [DONE]\n\n"
].join("")

const server = createServer((request, response) => {
  request.resume()
  request.on("end", () => {
    response.writeHead(200, { "content-type": "text/event-stream" })
    response.end(body)
  })
})
server.listen(0, "127.0.0.1", () => {
  const address = server.address()
  if (typeof address === "object") process.send?.(`http://127.0.0.1:${address?.port}/v1`)
})
process.once("disconnect", () => process.exit())
