import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, Option, Stream } from "effect"
import { LanguageModel } from "effect/ai"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as Turn from "@sluice/ai/testing/Turn"
import { waitForJournal } from "../support/provider.ts"
import { callModel, endings, methods, provider, resilient, settled, target, wireNames } from "../support/wireCalls.ts"

/** The real clock, which a test can advance. A circuit stays open until the test advances the clock. */
const advancingClock = Effect.map(Clock.Clock, (real) => {
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
  return { clock, advance: (by: Duration.Input) => void (ahead += Duration.toMillis(Duration.fromInputUnsafe(by))) }
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
  describe(`outages over the ${wire} wire`, () => {
    for (const method of methods) {
      it.live(
        `an outage opens the circuit, gets only probes, and ends with a successful probe, ${method}`,
        () =>
          Effect.gen(function*() {
            const { clock, advance } = yield* advancingClock
            // The first five requests fail.
            const a = yield* provider(({ n }) =>
              n <= 5 ? Turn.status(503) : Turn.answer("well", { firstTokenMillis: 20 })
            )
            const requests = Effect.map(a.journal, ({ length }) => length)

            yield* Effect.gen(function*() {
              for (let n = 1; n <= 3; n++) {
                assert.deepStrictEqual((yield* callModel(method)).attempts, ["InternalProviderError"])
              }
              assert.deepStrictEqual(yield* circuits, ["Open"])

              // Calls are refused with a Retry-After and without a request.
              for (let n = 1; n <= 20; n++) {
                const { error } = yield* callModel(method)
                if (error?.reason._tag !== "RateLimitError") return assert.fail(error?.reason._tag)
                assert.isAtMost(Duration.toMillis(error.reason.retryAfter ?? Duration.infinity), 60_000)
                const rejection = Option.getOrThrow(AiRejection.fromAiError(error))
                if (rejection._tag !== "CircuitOpen") return assert.fail(rejection._tag)
                assert.deepStrictEqual([rejection.failures, rejection.calls], [3, 3])
              }
              assert.strictEqual(yield* requests, 3)

              // One probe is admitted per open time. The first two fail.
              for (const n of [4, 5]) {
                advance("1 hour")
                assert.deepStrictEqual((yield* callModel(method)).attempts, ["InternalProviderError"])
                assert.deepStrictEqual((yield* callModel(method)).attempts, [])
                assert.strictEqual(yield* requests, n)
              }

              // The provider has recovered. One of ten callers is the probe, and the others are refused until it succeeds.
              advance("1 hour")
              const results = yield* Effect.forEach(Array.from({ length: 10 }), () => callModel(method), {
                concurrency: "unbounded"
              })
              assert.strictEqual(results.filter(({ text }) => text === "well").length, 1)
              assert.strictEqual(yield* requests, 6)
              assert.deepStrictEqual(yield* circuits, ["Closed"])
              assert.strictEqual((yield* callModel(method)).text, "well")
            }).pipe(
              Effect.provide(resilient([target("A", wire, a, { breaker })], { retry: RetryPolicy.none })),
              Effect.provideService(Clock.Clock, clock)
            )
            assert.strictEqual((yield* settled(a)).length, 7)
          }).pipe(Effect.scoped),
        20_000
      )

      it.live(`an outage fails no call if there is another target, ${method}`, () =>
        Effect.gen(function*() {
          const { clock, advance } = yield* advancingClock
          const a = yield* provider([Turn.answer("from A")])
          const b = yield* provider([Turn.answer("from B")])
          const requests = (of: typeof a) => Effect.map(of.journal, ({ length }) => length)

          yield* Effect.gen(function*() {
            yield* a.down
            for (let n = 1; n <= 20; n++) assert.strictEqual((yield* callModel(method)).text, "from B")
            // Three calls reach A and open its circuit. The others skip it.
            assert.deepStrictEqual([yield* requests(a), yield* requests(b)], [3, 20])
            assert.deepStrictEqual(yield* circuits, ["Open", "Closed"])

            yield* a.up
            assert.strictEqual((yield* callModel(method)).text, "from B")
            advance("1 hour")
            for (let n = 1; n <= 5; n++) assert.strictEqual((yield* callModel(method)).text, "from A")
            assert.deepStrictEqual([yield* requests(a), yield* requests(b)], [8, 21])
            assert.deepStrictEqual(yield* circuits, ["Closed", "Closed"])
          }).pipe(
            Effect.provide(resilient([target("A", wire, a, { breaker }), target("B", wire, b)])),
            Effect.provideService(Clock.Clock, clock)
          )
        }).pipe(Effect.scoped), 20_000)
    }

    it.live("cut streams open the circuit, although part of the answer arrived", () =>
      Effect.gen(function*() {
        const { clock } = yield* advancingClock
        const a = yield* provider([Turn.cut({ content: "one two three", afterTokens: 2 })])
        yield* Effect.gen(function*() {
          for (let n = 1; n <= 3; n++) {
            assert.deepStrictEqual((yield* callModel("streamText")).attempts, ["TruncatedStream"])
          }
          assert.deepStrictEqual(yield* circuits, ["Open"])
          assert.deepStrictEqual((yield* callModel("streamText")).attempts, [])
        }).pipe(
          Effect.provide(resilient([target("A", wire, a, { breaker })])),
          Effect.provideService(Clock.Clock, clock)
        )
        assert.strictEqual((yield* settled(a)).length, 3)
      }).pipe(Effect.scoped))

    it.live("interruptions and consumers that stop do not open the circuit", () =>
      Effect.gen(function*() {
        const a = yield* provider([Turn.stall()])
        yield* Effect.gen(function*() {
          for (let n = 1; n <= 10; n++) {
            const fiber = yield* Effect.forkChild(callModel(n % 2 === 0 ? "generateText" : "streamText"))
            yield* waitForJournal(a, ({ length }) => length >= n)
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
        const requests = yield* settled(a)
        assert.deepStrictEqual(endings(requests), Array.from({ length: 15 }, () => "clientClosed"))
      }).pipe(Effect.scoped))

    it.live("whenAllOpen \"leastBad\" calls the target although its circuit is open", () =>
      Effect.gen(function*() {
        const { clock } = yield* advancingClock
        const a = yield* provider(({ n }) => n <= 3 ? Turn.status(503) : Turn.answer("well"))
        yield* Effect.gen(function*() {
          for (let n = 1; n <= 3; n++) yield* callModel("generateText")
          assert.deepStrictEqual(yield* circuits, ["Open"])
          for (const method of methods) assert.strictEqual((yield* callModel(method)).text, "well")
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
