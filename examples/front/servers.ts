// One front behind servers with Web requests, and behind `node:http`.
//
//     npx node --conditions=@sluice/source examples/front/servers.ts
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import OpenAI from "openai"
import * as Front from "@sluice/ai/Front"
import * as Turn from "@sluice/ai/testing/Turn"
import { provider } from "./provider.ts"

const local = await provider([Turn.answer("from a Web handler"), Turn.answer("from node:http")])
const front = await Front.make({
  targets: [{ name: "local", url: local.url, speaks: "openai", apiKey: local.apiKey }]
})

const allowed = new Set(["Bearer a-key-of-yours"])
const isAllowed = (authorization: string | null | undefined) => allowed.has(authorization ?? "")

// Next:       export const POST = handle        in app/v1/[...path]/route.ts
// Hono:       app.all("/v1/*", (c) => handle(c.req.raw))
// Bun, Deno:  Bun.serve({ fetch: handle }), Deno.serve(handle)
const handle = (request: Request): Promise<Response> | Response =>
  isAllowed(request.headers.get("authorization")) ? front.handler(request) : new Response(null, { status: 401 })

// Express:    app.all("/v1/*path", front.listener)     before express.json(), which would take the body
const server = createServer((request, response) => {
  if (isAllowed(request.headers.authorization)) front.listener(request, response)
  else response.writeHead(401).end()
})
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
const { port } = server.address() as AddressInfo

const ask = async (client: OpenAI): Promise<string | null | undefined> => {
  const { choices } = await client.chat.completions.create({
    model: "gpt-5-mini",
    messages: [{ role: "user", content: "Where are you?" }]
  })
  return choices[0]?.message.content
}
const apiKey = "a-key-of-yours"
const overWeb: typeof fetch = async (url, init) => handle(new Request(url, init))

console.log(await ask(new OpenAI({ baseURL: "http://web/v1", apiKey, fetch: overWeb, maxRetries: 0 })))
// => from a Web handler
console.log(await ask(new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey, maxRetries: 0 })))
// => from node:http

await new Promise((resolve) => server.close(resolve))
await front.close()
await local.close()
