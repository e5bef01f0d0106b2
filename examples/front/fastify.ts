// Fastify 5.
//
//     npx node --conditions=@sluice/source examples/front/fastify.ts
import fastify from "fastify"
import * as Front from "@sluice/ai/Front"
import * as Turn from "@sluice/ai/testing/Turn"
import { askTwice, baseOf, isAllowed } from "./asking.ts"
import { provider } from "./provider.ts"

const local = await provider([Turn.answer("from Fastify"), Turn.answer("and streamed")])
const front = await Front.make({
  targets: [{ name: "local", url: local.url, speaks: "openai", apiKey: local.apiKey }]
})

const app = fastify()
app.register(async (scope) => {
  // The front reads the body itself. Routes outside of this function have their parsers.
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser("*", (_request, _body, done) => done(null))
  scope.all("/v1/*", async (request, reply) => {
    if (!isAllowed(request.headers.authorization)) return reply.code(401).send()
    reply.hijack()
    front.listener(request.raw, reply.raw)
  })
})

await app.listen({ port: 0, host: "127.0.0.1" })
console.log(await askTwice({ baseURL: await baseOf(app.server) })) // => from Fastify, and streamed

await app.close()
await front.close()
await local.close()
