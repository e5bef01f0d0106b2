// Hono, on Node with `@hono/node-server`.
//
//     npx node --conditions=@sluice/source examples/front/hono.ts
import { serve } from "@hono/node-server"
import { Hono } from "hono"
import { bearerAuth } from "hono/bearer-auth"
import * as Front from "@sluice/ai/Front"
import * as Turn from "@sluice/ai/testing/Turn"
import { apiKey, askTwice, baseOf } from "./asking.ts"
import { provider } from "./provider.ts"

const local = await provider([Turn.answer("from Hono"), Turn.answer("and streamed")])
const front = await Front.make({
  targets: [{ name: "local", url: local.url, speaks: "openai", apiKey: local.apiKey }]
})

const app = new Hono()
app.use("/v1/*", bearerAuth({ token: apiKey }))
app.all("/v1/*", (context) => front.handler(context.req.raw))

const server = serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" })
console.log(await askTwice({ baseURL: await baseOf(server) })) // => from Hono, and streamed

server.close()
await front.close()
await local.close()
