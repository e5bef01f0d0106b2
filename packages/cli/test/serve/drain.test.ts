import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect, Fiber } from "effect"
import { folder } from "../support/files.ts"
import { ask, type Gateway, logsOf, over, send, start } from "../support/gateway.ts"
import { requests, says } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"
import { snapshot, until } from "../support/witness.ts"

const slow = (firstTokenMillis: number, tokenMillis: number) => ({ pace: { firstTokenMillis, tokenMillis } })

const openGateway = Effect.fnUntraced(
  function*(pace: LoopbackProvider.Options, flags: ReadonlyArray<string>, text = "one two three four five six") {
    const provider = yield* LoopbackProvider.make({ ...pace, answer: () => Effect.succeed({ text }) })
    const { args, env } = over(provider)
    return { provider, gateway: yield* start(yield* folder, [...args, ...flags], env) }
  }
)

const ended = ({ command }: Gateway) => Effect.promise(() => command.ended)

describe("sluice serve at SIGTERM", { timeout: processTimeout }, () => {
  it.live("a stream that runs is finished, and then the gateway ends", () =>
    Effect.gen(function*() {
      const { gateway, provider } = yield* openGateway(slow(300, 200), [])
      const answer = yield* Effect.forkChild(ask(gateway, gateway.token, { stream: true }))
      yield* requests(provider, 1)
      gateway.command.process.kill("SIGTERM")
      const { headers, text } = yield* Fiber.join(answer)
      assert.include(text, "data: [DONE]")
      assert.strictEqual(headers["x-sluice-target"], "a")
      const { code, stderr } = yield* ended(gateway)
      assert.strictEqual(code, 0, stderr)
      const [, ...events] = logsOf(stderr).map(({ event }) => event)
      assert.deepStrictEqual(events, ["draining", "request", "stopped"])
      assert.isTrue(yield* Effect.isFailure(Effect.sandbox(send(gateway, "/health"))), "the port is still open")
    }))

  it.live("a stream that takes longer than --drain-timeout ends with an error event", () =>
    Effect.gen(function*() {
      const { gateway, provider } = yield* openGateway(slow(0, 400), ["--drain-timeout", "1s"], "word ".repeat(200))
      const answer = yield* Effect.forkChild(ask(gateway, gateway.token, { stream: true }))
      yield* requests(provider, 1)
      yield* until("it streams", Effect.map(snapshot(gateway), ({ head }) => head.phases.streaming === 1))
      gateway.command.process.kill("SIGTERM")
      const { status, text } = yield* Fiber.join(answer)
      assert.strictEqual(status, 200)
      assert.match(text, /data: \{"error":\{[^\n]*"code":"[a-z_]+"[^\n]*\}\}\n\n$/)
      assert.notInclude(text, "[DONE]")
      const { code, stderr } = yield* ended(gateway)
      assert.strictEqual(code, 0, stderr)
      assert.include(stderr, "ending requests that still run")
    }))

  it.live("during --drain-delay it answers, says that it is not ready, and closes connections", () =>
    Effect.gen(function*() {
      const { gateway } = yield* openGateway({}, ["--drain-delay", "15s"])
      const probe = (path: string) => Effect.map(send(gateway, path), ({ status }) => status)
      assert.deepStrictEqual([yield* probe("/health"), yield* probe("/ready")], [200, 200])
      gateway.command.process.kill("SIGTERM")
      yield* says(gateway.command, "draining")
      assert.deepStrictEqual([yield* probe("/health"), yield* probe("/ready")], [503, 503])
      const { headers, status } = yield* ask(gateway, gateway.token)
      assert.deepStrictEqual([status, headers["connection"]], [200, "close"])
      assert.strictEqual((yield* ended(gateway)).code, 0)
    }))

  it.live("a second signal ends it at once", () =>
    Effect.gen(function*() {
      const { gateway, provider } = yield* openGateway(slow(600_000, 0), [])
      const answer = yield* Effect.forkChild(Effect.sandbox(ask(gateway, gateway.token)))
      yield* requests(provider, 1)
      gateway.command.process.kill("SIGINT")
      yield* says(gateway.command, "draining")
      gateway.command.process.kill("SIGINT")
      assert.strictEqual((yield* ended(gateway)).code, 0)
      yield* Fiber.await(answer)
    }))
})
