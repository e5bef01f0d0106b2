// Express 5.
//
//     npx node --conditions=@sluice/source examples/front/express.ts
import express from "express"
import * as Front from "@sluice/ai/Front"
import * as Turn from "@sluice/ai/testing/Turn"
import { askTwice, baseOf, isAllowed } from "./asking.ts"
import { provider } from "./provider.ts"

const local = await provider([Turn.answer("from Express"), Turn.answer("and streamed")])
const front = await Front.make({
  targets: [{ name: "local", url: local.url, speaks: "openai", apiKey: local.apiKey }]
})

const app = express()
// Not `app.use("/v1", ...)`, which removes the path from the URL.
app.all("/v1/*path", (request, response, next) => {
  if (isAllowed(request.get("authorization"))) next()
  else response.sendStatus(401)
}, front.listener)
// After the front, which reads the body itself.
app.use(express.json())

const server = app.listen(0, "127.0.0.1")
console.log(await askTwice({ baseURL: await baseOf(server) })) // => from Express, and streamed

server.close()
await front.close()
await local.close()
