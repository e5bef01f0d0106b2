// One front behind `node:http`, and behind servers with Web requests: Next, Bun, Deno.
//
//     npx node --conditions=@sluice/source examples/front/servers.ts
import { createServer } from "node:http"
import * as Front from "@sluice/ai/Front"
import * as Turn from "@sluice/ai/testing/Turn"
import { askTwice, baseOf, isAllowed } from "./asking.ts"
import { provider } from "./provider.ts"

const answers = ["from node:http", "and streamed", "from Next", "and streamed", "from Bun", "and streamed"]
const local = await provider(answers.map((text) => Turn.answer(text)))
const front = await Front.make({
  targets: [{ name: "local", url: local.url, speaks: "openai", apiKey: local.apiKey }]
})

const server = createServer((request, response) => {
  if (isAllowed(request.headers.authorization)) front.listener(request, response)
  else response.writeHead(401).end()
})
server.listen(0, "127.0.0.1")
console.log(await askTwice({ baseURL: await baseOf(server) })) // => from node:http, and streamed

const handle = (request: Request): Promise<Response> | Response =>
  isAllowed(request.headers.get("authorization")) ? front.handler(request) : new Response(null, { status: 401 })

// Next: app/v1/[...path]/route.ts has these two lines.
export const GET = handle
export const POST = handle

// Bun: `bun run` serves the default export of a file. Deno: `deno serve` does.
const bun = { fetch: handle }
export default bun

// As these servers call them.
const inNext: typeof fetch = async (url, init) => POST(new Request(url, init))
console.log(await askTwice({ baseURL: "http://next/v1", fetch: inNext })) // => from Next, and streamed
const inBun: typeof fetch = async (url, init) => bun.fetch(new Request(url, init))
console.log(await askTwice({ baseURL: "http://bun/v1", fetch: inBun })) // => from Bun, and streamed

server.close()
await front.close()
await local.close()
