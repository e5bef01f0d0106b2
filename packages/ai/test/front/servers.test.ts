import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import { serve } from "@hono/node-server"
import { Deferred, Effect, type Scope } from "effect"
import express from "express"
import fastify from "fastify"
import { Hono } from "hono"
import type * as Http from "node:http"
import type { AddressInfo } from "node:net"
import OpenAI, { APIError } from "openai"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { delta, json, rawServer } from "../support/rawServer.ts"
import { frontOf, type Service, within } from "./edges.ts"

/** Starts a server with the front. `reads`: whether something before the front reads the bodies. */
type Start = (front: Service, reads: boolean) => Promise<Http.Server>

const listening = (server: Http.Server): Promise<Http.Server> =>
  new Promise((resolve) => server.listening ? resolve(server) : server.once("listening", () => resolve(server)))

const servers: ReadonlyArray<readonly [name: string, start: Start]> = [
  ["Express", (front, reads) => {
    const app = express()
    if (reads) app.use(express.json())
    app.all("/v1/*path", front.listener)
    return listening(app.listen(0, "127.0.0.1"))
  }],
  ["Fastify", async (front, reads) => {
    const app = fastify()
    app.register(async (scope) => {
      if (!reads) {
        scope.removeAllContentTypeParsers()
        scope.addContentTypeParser("*", (_request, _body, done) => done(null))
      }
      scope.all("/v1/*", async (request, reply) => {
        reply.hijack()
        front.listener(request.raw, reply.raw)
      })
    })
    await app.listen({ port: 0, host: "127.0.0.1" })
    return app.server
  }],
  ["Hono", (front, reads) => {
    const app = new Hono()
    app.all("/v1/*", async ({ req }) => {
      if (reads && req.method === "POST") await req.json()
      return front.handler(req.raw)
    })
    return listening(serve({ fetch: app.fetch, port: 0, hostname: "127.0.0.1" }) as Http.Server)
  }]
]

/** Starts a server, until the scope closes. Returns its origin. */
const started = (start: Start, front: Service, reads = false): Effect.Effect<string, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(() => start(front, reads)),
      (server) =>
        Effect.sync(() => {
          server.close()
          server.closeAllConnections()
        })
    ),
    (server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  )

const openAi = (origin: string) =>
  new OpenAI({ baseURL: `${origin}/v1`, apiKey: "client", maxRetries: 0, timeout: 40_000 })
const question = { model: "m", messages: [{ role: "user" as const, content: "Hello" }] }

describe("servers of others with the front", () => {
  for (const [name, start] of servers) {
    it.live(`${name} passes on answers and streams to the official clients`, () =>
      Effect.gen(function*() {
        const turns = ["one", "two", "three", "four"].map((text) => Turn.answer(text))
        const { apiKey, url } = yield* LoopbackProvider.make({ turns })
        const front = yield* frontOf([{ name: "a", url, speaks: "openai", apiKey }])
        const origin = yield* started(start, front)
        const texts = yield* Effect.promise(async () => {
          const texts: Array<string | null | undefined> = []
          const { completions } = openAi(origin).chat
          texts.push((await completions.create(question)).choices[0]?.message.content)
          let streamed = ""
          for await (const { choices } of await completions.create({ ...question, stream: true })) {
            streamed += choices[0]?.delta.content ?? ""
          }
          texts.push(streamed)
          const { messages } = new Anthropic({ baseURL: origin, apiKey: "client", maxRetries: 0 })
          const [block] = (await messages.create({ ...question, max_tokens: 100 })).content
          texts.push(block?.type === "text" ? block.text : undefined)
          texts.push(await messages.stream({ ...question, max_tokens: 100 }).finalText())
          return texts
        })
        assert.deepStrictEqual(texts, ["one", "two", "three", "four"])
      }).pipe(Effect.scoped, within))

    it.live(`a client that leaves ${name} closes the connection to the provider, and its permit is free`, () =>
      Effect.gen(function*() {
        const closed = yield* Deferred.make<void>()
        const provider = yield* rawServer((response, _, n) => {
          if (n > 1) return json(response, 200, { choices: [{ message: { content: "again" }, finish_reason: "stop" }] })
          response.writeHead(200, { "content-type": "text/event-stream" })
          response.write(delta("Hello"))
          response.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
        })
        const front = yield* frontOf(
          [{ name: "a", url: provider.url, speaks: "openai", backpressure: { capacity: 1 } }],
          // Only the client ends this stream.
          { idleTimeout: "1 minute" }
        )
        const client = openAi(yield* started(start, front))
        yield* Effect.promise(async () => {
          // To leave the loop aborts the request.
          for await (const _ of await client.chat.completions.create({ ...question, stream: true })) break
        })
        yield* Deferred.await(closed)
        const answer = yield* Effect.promise(() => client.chat.completions.create(question))
        assert.strictEqual(answer.choices[0]?.message.content, "again")
      }).pipe(Effect.scoped, within))

    it.live(`a body that ${name} has read before the front is refused with the remedy, and a request without a body passes`, () =>
      Effect.gen(function*() {
        const provider = yield* rawServer((response) => json(response, 200, { data: [] }))
        const front = yield* frontOf([{ name: "a", url: provider.url, speaks: "openai" }])
        const client = openAi(yield* started(start, front, true))
        const error = yield* Effect.promise(() =>
          client.chat.completions.create(question).then(() => undefined, (error: unknown) => error)
        )
        assert.instanceOf(error, APIError)
        assert.deepStrictEqual([error.status, error.code], [500, "body_was_read"])
        assert.match(error.message, /before every middleware that reads bodies, such as express\.json\(\)/)
        assert.deepStrictEqual((yield* Effect.promise(() => client.models.list())).data, [])
        assert.strictEqual(provider.requests.length, 1)
      }).pipe(Effect.scoped, within))
  }
})
