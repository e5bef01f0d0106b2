import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, References } from "effect"
import * as Front from "@sluice/ai/Front"
import type * as Http from "node:http"
import { rawServer } from "../support/rawServer.ts"
import { fetched, frontOf, node, until, within } from "./edges.ts"
import { anthropic, chat, wires } from "./wires.ts"

const asking = { path: chat.path, body: chat.stream }

/** A provider that holds each answer after its first word, until it is told to finish. */
const holding = Effect.gen(function*() {
  const held: Array<Http.ServerResponse> = []
  const provider = yield* rawServer((response, { path }) => {
    const wire = wires.find((each) => each.path === path) ?? chat
    response.writeHead(200, { "content-type": "text/event-stream" })
    response.write(wire.head + wire.word("one "))
    held.push(response)
  })
  const finish = () => {
    for (const response of held) response.end(chat.word("two") + chat.finish + chat.end)
  }
  return { provider, finish, held }
})

const whole = chat.head + chat.word("one ") + chat.word("two") + chat.finish + chat.end
/** A little more than the machine needs for what must not happen. */
const began = Effect.sleep("150 millis")

describe("identical requests in flight", () => {
  it.live("share one call on all edges, and one that joins late reads from the beginning", () =>
    Effect.gen(function*() {
      const { finish, provider } = yield* holding
      const front = yield* frontOf([{ name: "a", url: provider.url, speaks: "openai" }], {
        dedupe: true,
        idleTimeout: "10 seconds"
      })
      const first = yield* Effect.forkScoped(node.ask(front, asking), { startImmediately: true })
      yield* until(() => provider.requests.length === 1)
      const late = yield* Effect.forkScoped(
        Effect.all([node.ask(front, asking), fetched.ask(front, asking)], { concurrency: 2 }),
        { startImmediately: true }
      )
      yield* Effect.sleep("400 millis")
      finish()
      const led = yield* Fiber.join(first)
      const joined = yield* Fiber.join(late)
      assert.deepStrictEqual([led, ...joined].map(({ text }) => text), [whole, whole, whole])
      assert.strictEqual(provider.requests.length, 1)
      assert.deepStrictEqual([led, ...joined].map(({ headers }) => headers["x-sluice-shared"]), [
        undefined,
        "true",
        "true"
      ])
      assert.strictEqual(new Set([led, ...joined].map(({ headers }) => headers["x-sluice-call"])).size, 1)
      yield* Effect.forkScoped(node.ask(front, asking), { startImmediately: true })
      yield* until(() => provider.requests.length === 2)
      assert.strictEqual(provider.requests.length, 2)
    }).pipe(Effect.scoped, within))

  it.live("other bodies, keys or APIs have calls of their own", () =>
    Effect.gen(function*() {
      const { provider } = yield* holding
      const front = yield* frontOf(
        [{ name: "a", url: provider.url, speaks: "openai" }, { name: "b", url: provider.url, speaks: "anthropic" }],
        { dedupe: true }
      )
      const requests = [
        asking,
        { ...asking, body: chat.stream.replace("Hello", "Bye") },
        { ...asking, headers: { authorization: "Bearer other" } },
        { ...asking, headers: { "x-stainless-retry-count": "1" } },
        { path: anthropic.path, body: anthropic.stream },
        { path: anthropic.path, body: anthropic.stream, headers: { "anthropic-beta": "x" } }
      ]
      for (const each of requests) yield* Effect.forkScoped(fetched.ask(front, each), { startImmediately: true })
      yield* until(() => provider.requests.length >= 5)
      yield* began
      assert.strictEqual(provider.requests.length, 5)
    }).pipe(Effect.scoped, within))

  it.live("the call goes on while one client is left, and is closed with the last", () =>
    Effect.gen(function*() {
      const { provider } = yield* holding
      const front = yield* frontOf(
        [{ name: "a", url: provider.url, speaks: "openai", backpressure: { capacity: 1 } }],
        { dedupe: true, idleTimeout: "10 seconds" }
      )
      const one = yield* Effect.forkScoped(node.ask(front, asking), { startImmediately: true })
      const two = yield* Effect.forkScoped(fetched.ask(front, asking), { startImmediately: true })
      yield* until(() => provider.requests.length === 1)
      yield* began
      yield* Fiber.interrupt(one)
      yield* began
      const [running] = yield* front.targets
      assert.strictEqual(running?.permits?.running, 1)
      const closed = yield* Effect.forkScoped(provider.nextClose, { startImmediately: true })
      yield* Fiber.interrupt(two)
      yield* Fiber.join(closed)
      const [left] = yield* front.targets
      assert.strictEqual(left?.permits?.running, 0)
    }).pipe(Effect.scoped, within))

  it.live("a client that can take more before the call waits for it gets the rest", () =>
    Effect.gen(function*() {
      const words = Array.from({ length: 20 }, (_, n) => chat.word(`${n} `))
      const provider = yield* rawServer((response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write(chat.head)
        for (const [n, word] of words.entries()) setTimeout(() => response.write(word), 5 * n)
        setTimeout(() => response.end(chat.finish + chat.end), 5 * words.length)
      })
      const front = yield* frontOf([{ name: "a", url: provider.url, speaks: "openai" }], { dedupe: true })
      const headers = { "content-type": "application/json" }
      const text = yield* Effect.callback<string>((resume) => {
        let text = ""
        let onDrained = () => {}
        front.exchange({ method: "POST", path: chat.path, headers, body: Buffer.from(chat.stream) }, {
          head: () => {},
          write: (bytes) => {
            text += Buffer.from(bytes).toString()
            queueMicrotask(() => onDrained())
            return false
          },
          end: (bytes) => resume(Effect.succeed(text + Buffer.from(bytes ?? "").toString())),
          abort: () => resume(Effect.succeed("aborted")),
          onDrain: (listener) => {
            onDrained = listener
          },
          onLeave: () => {}
        })
      })
      assert.strictEqual(text, chat.head + words.join("") + chat.finish + chat.end)
    }).pipe(
      Effect.scoped,
      // Its fibers yield after every third step, so also between a write and the wait.
      Effect.provideService(References.MaxOpsBeforeYield, 3),
      within
    ))

  it.live("a front that closes ends shared streams with an error", () =>
    Effect.gen(function*() {
      const { provider } = yield* holding
      const target = { name: "a", url: provider.url, speaks: "openai" } as const
      const front = yield* Effect.promise(() => Front.make({ targets: [target], dedupe: true }))
      const init = { method: "POST", headers: { "content-type": "application/json" }, body: chat.stream }
      const response = yield* Effect.promise(() => front.fetch(`http://x${chat.path}`, init))
      yield* Effect.promise(() => front.close())
      assert.include(yield* Effect.promise(() => response.text()), "data: {\"error\"")
    }).pipe(Effect.scoped, within))
})
