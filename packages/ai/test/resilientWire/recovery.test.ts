import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, Option, Stream } from "effect"
import { LanguageModel } from "effect/ai"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as Turn from "@sluice/ai/testing/Turn"
import { ask, endings, methods, provider, resilient, settled, target, wireNames } from "./support.ts"

/** The real clock, which a test can put forward: so that what is open for a minute is open for as long as the test needs. */
const clockAhead = Effect.map(Clock.Clock, (real) => {
  let ahead = 0
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => real.currentTimeMillisUnsafe() + ahead,
    currentTimeMillis: Effect.sync(() => real.currentTimeMillisUnsafe() + ahead),
    currentTimeNanosUnsafe: () => real.currentTimeNanosUnsafe() + BigInt(ahead) * 1_000_000n,
    currentTimeNanos: Effect.sync(() => real.currentTimeNanosUnsafe() + BigInt(ahead) * 1_000_000n),
    monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe() + BigInt(ahead) * 1_000_000n,
    monotonicTimeNanos: Effect.sync(() => real.monotonicTimeNanosUnsafe() + BigInt(ahead) * 1_000_000n),
    sleep: (duration) => real.sleep(duration)
  }
  return { clock, putForward: (by: Duration.Input) => void (ahead += Duration.toMillis(Duration.fromInputUnsafe(by))) }
})

const breaker = {
  trip: CircuitBreaker.consecutive(3),
  openFor: "1 minute",
  openJitter: 0,
  probes: 1,
  probesToClose: 1
} as const

const circuits = Effect.flatMap(
  ResilientModel.ResilientModel,
  ({ targets }) => Effect.map(targets, (each) => each.map(({ circuit }) => circuit?._tag))
)

for (const wire of wireNames) {
  describe(`an outage over ${wire}'s wire`, () => {
    for (const method of methods) {
      it.live(`opens the circuit, is left alone, and ends with a probe, ${method}`, () =>
        Effect.gen(function*() {
          const { clock, putForward } = yield* clockAhead
          // Down for its first five requests.
          const a = yield* provider(({ n }) =>
            n <= 5 ? Turn.status(503) : Turn.answer("well", { firstTokenMillis: 20 })
          )
          const requests = Effect.map(a.journal, ({ length }) => length)

          yield* Effect.gen(function*() {
            for (let n = 1; n <= 3; n++) {
              assert.deepStrictEqual((yield* ask(method)).attempts, ["InternalProviderError"])
            }
            assert.deepStrictEqual(yield* circuits, ["Open"])

            // Refused, with the time when to come back, and without a request.
            for (let n = 1; n <= 20; n++) {
              const { error } = yield* ask(method)
              if (error?.reason._tag !== "RateLimitError") return assert.fail(error?.reason._tag)
              assert.isAtMost(Duration.toMillis(error.reason.retryAfter ?? Duration.infinity), 60_000)
              const rejection = Option.getOrThrow(AiRejection.fromAiError(error))
              if (rejection._tag !== "CircuitOpen") return assert.fail(rejection._tag)
              assert.deepStrictEqual([rejection.failures, rejection.calls], [3, 3])
            }
            assert.strictEqual(yield* requests, 3)

            // One probe a minute, which fails twice.
            for (const n of [4, 5]) {
              putForward("1 hour")
              assert.deepStrictEqual((yield* ask(method)).attempts, ["InternalProviderError"])
              assert.deepStrictEqual((yield* ask(method)).attempts, [])
              assert.strictEqual(yield* requests, n)
            }

            // It is well. Of ten callers one finds out, and the others are not let through until it has.
            putForward("1 hour")
            const told = yield* Effect.forEach(Array.from({ length: 10 }), () => ask(method), {
              concurrency: "unbounded"
            })
            assert.strictEqual(told.filter(({ text }) => text === "well").length, 1)
            assert.strictEqual(yield* requests, 6)
            assert.deepStrictEqual(yield* circuits, ["Closed"])
            assert.strictEqual((yield* ask(method)).text, "well")
          }).pipe(
            Effect.provide(resilient([target("A", wire, a, { breaker })], { retry: RetryPolicy.none })),
            Effect.provideService(Clock.Clock, clock)
          )
          assert.strictEqual((yield* settled(a)).length, 7)
        }).pipe(Effect.scoped))

      it.live(`costs nobody an answer where there is another target, ${method}`, () =>
        Effect.gen(function*() {
          const { clock, putForward } = yield* clockAhead
          const a = yield* provider([Turn.answer("from A")])
          const b = yield* provider([Turn.answer("from B")])
          const requests = (of: typeof a) => Effect.map(of.journal, ({ length }) => length)

          yield* Effect.gen(function*() {
            yield* a.down
            for (let n = 1; n <= 20; n++) assert.strictEqual((yield* ask(method)).text, "from B")
            // Three calls found out; the others did not go there.
            assert.deepStrictEqual([yield* requests(a), yield* requests(b)], [3, 20])
            assert.deepStrictEqual(yield* circuits, ["Open", "Closed"])

            yield* a.up
            assert.strictEqual((yield* ask(method)).text, "from B")
            putForward("1 hour")
            for (let n = 1; n <= 5; n++) assert.strictEqual((yield* ask(method)).text, "from A")
            assert.deepStrictEqual([yield* requests(a), yield* requests(b)], [8, 21])
            assert.deepStrictEqual(yield* circuits, ["Closed", "Closed"])
          }).pipe(
            Effect.provide(resilient([target("A", wire, a, { breaker }), target("B", wire, b)])),
            Effect.provideService(Clock.Clock, clock)
          )
        }).pipe(Effect.scoped))
    }

    it.live("with a stream that breaks off counts as one: half an answer closes no circuit", () =>
      Effect.gen(function*() {
        const { clock } = yield* clockAhead
        const a = yield* provider([Turn.cut({ content: "one two three", afterTokens: 2 })])
        yield* Effect.gen(function*() {
          for (let n = 1; n <= 3; n++) assert.deepStrictEqual((yield* ask("streamText")).attempts, ["TruncatedStream"])
          assert.deepStrictEqual(yield* circuits, ["Open"])
          assert.deepStrictEqual((yield* ask("streamText")).attempts, [])
        }).pipe(
          Effect.provide(resilient([target("A", wire, a, { breaker })])),
          Effect.provideService(Clock.Clock, clock)
        )
        assert.strictEqual((yield* settled(a)).length, 3)
      }).pipe(Effect.scoped))

    it.live("is not what an interruption says, nor a consumer that stops", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.stall()])
        const requests = Effect.map(a.journal, ({ length }) => length)
        const arrives = (n: number): Effect.Effect<void> =>
          Effect.flatMap(requests, (seen) => seen >= n ? Effect.void : Effect.andThen(Effect.sleep(2), arrives(n)))
        yield* Effect.gen(function*() {
          for (let n = 1; n <= 10; n++) {
            const fiber = yield* Effect.forkChild(ask(n % 2 === 0 ? "generateText" : "streamText"))
            yield* arrives(n)
            yield* Fiber.interrupt(fiber)
          }
          for (let n = 1; n <= 5; n++) {
            yield* LanguageModel.streamText({ prompt: "hi" }).pipe(
              Stream.filter(({ type }) => type === "text-delta"),
              Stream.take(1),
              Stream.runDrain
            )
          }
          assert.deepStrictEqual(yield* circuits, ["Closed"])
        }).pipe(Effect.provide(resilient([target("A", wire, a, { breaker })])))
        const seen = yield* settled(a)
        assert.deepStrictEqual(endings(seen), Array.from({ length: 15 }, () => "clientClosed"))
      }).pipe(Effect.scoped))

    it.live("tries the least bad, if told to", () =>
      Effect.gen(function*() {
        const { clock } = yield* clockAhead
        const a = yield* provider(({ n }) => n <= 3 ? Turn.status(503) : Turn.answer("well"))
        yield* Effect.gen(function*() {
          for (let n = 1; n <= 3; n++) yield* ask("generateText")
          assert.deepStrictEqual(yield* circuits, ["Open"])
          for (const method of methods) assert.strictEqual((yield* ask(method)).text, "well")
        }).pipe(
          Effect.provide(resilient([target("A", wire, a, { breaker })], {
            retry: RetryPolicy.none,
            whenAllOpen: "leastBad"
          })),
          Effect.provideService(Clock.Clock, clock)
        )
        assert.strictEqual((yield* settled(a)).length, 5)
      }).pipe(Effect.scoped))
  })
}
