/**
 * Runs each primitive with a canary as key, input, tenant and reason. Searches logs, spans, metrics and errors for it.
 * The privacy run (`npm run test:privacy`) does the same for all other tests.
 */
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as Pipeline from "@sluice/core/Pipeline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Exit, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { observe } from "../../../test/privacy/observers.ts"
import { canary, counts, leaks } from "../../../test/privacy/secrets.ts"
import { faultyStore } from "./support/stores.ts"

const { CircuitBreaker: Breaker } = CircuitBreaker

/** Runs an effect and asserts that no observer saw the canary. Calls have spans, so that their errors are seen. */
const withoutLeaks = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.gen(function*() {
    leaks()
    const result = yield* observe(self)
    assert.isAbove(counts().shown, 0)
    assert.deepStrictEqual(leaks(), [])
    return result
  })

/** The error of a call, in a span. */
const failureOf = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.flip(Effect.withSpan(self, "call"))

const guarded = (breaker: CircuitBreaker.CircuitBreaker["Service"], self: Effect.Effect<string, string>) =>
  breaker.guard(self, { key: canary })

const breakAndRefuse = Effect.gen(function*() {
  const breaker = yield* Breaker
  yield* failureOf(guarded(breaker, Effect.fail("503")))
  const refusals = [yield* failureOf(guarded(breaker, Effect.succeed("an answer")))]
  yield* breaker.control({ key: canary, mode: "ForcedOpen", reason: canary })
  refusals.push(yield* failureOf(guarded(breaker, Effect.succeed("an answer"))))
  yield* breaker.reset(canary, canary)
  assert.strictEqual(yield* guarded(breaker, Effect.succeed("an answer")), "an answer")
  for (const refusal of refusals) assert.propertyVal(refusal, "key", canary)
})

const breakerOptions = { trip: CircuitBreaker.consecutive(1), storeTimeout: "100 millis" } as const

describe("logs, spans, metrics and errors contain no key, input or reason", () => {
  it.effect("CircuitBreaker in memory leaks nothing", () =>
    withoutLeaks(breakAndRefuse.pipe(Effect.provide(CircuitBreaker.layer(breakerOptions)))))

  it.effect("CircuitBreaker over a shared store leaks nothing, also while the store is down", () =>
    withoutLeaks(Effect.gen(function*() {
      const { breakDown, recover, store } = yield* faultyStore
      const shared = Layer.succeed(CircuitBreakerStore.CircuitBreakerStore, store)
      yield* Effect.gen(function*() {
        yield* breakAndRefuse
        breakDown("read", "record", "lease", "transition")
        const breaker = yield* Breaker
        yield* failureOf(guarded(breaker, Effect.fail("503")))
        yield* failureOf(guarded(breaker, Effect.succeed("an answer")))
        yield* failureOf(breaker.state(canary))
        recover()
        yield* TestClock.adjust("2 seconds")
        yield* breaker.state(canary)
      }).pipe(Effect.provide(Layer.provide(CircuitBreaker.layerStore(breakerOptions), shared)))
    })))

  it.effect("Deduplicator leaks neither input nor tenant nor key", () =>
    withoutLeaks(Effect.gen(function*() {
      const { claim, dedupe } = yield* Deduplicator.make({ timeToLive: "1 minute", maxWaiters: 1 })
      const Answer = Deduplicator.operation<string, string>()("answer", {
        key: (input: { readonly text: unknown }) => input,
        tenant: () => canary
      })
      const key = Answer({ text: canary })
      const running = yield* Effect.forkChild(dedupe(Effect.delay(Effect.succeed("an answer"), "1 second"), key), {
        startImmediately: true
      })
      const refused = yield* failureOf(dedupe(Effect.succeed("another"), key))
      assert.propertyVal(refused, "_tag", "TooManyWaiters")
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(running)
      assert.strictEqual(yield* dedupe(Effect.succeed("another"), key), "an answer")

      const unnamable = Answer({ text: { [canary]: () => canary } })
      assert.isTrue(Exit.hasDies(yield* Effect.exit(Effect.withSpan(dedupe(Effect.succeed(""), unnamable), "call"))))

      const abandoned = yield* Effect.scoped(Effect.gen(function*() {
        const other = Answer({ text: `${canary} too` })
        yield* claim(other)
        const found = yield* claim(other)
        if (found._tag !== "InProgress") return yield* Effect.die(`the second claim is ${found._tag}`)
        return yield* Effect.forkDetach(failureOf(found.await), { startImmediately: true })
      }))
      assert.propertyVal(yield* Fiber.join(abandoned), "_tag", "FlightAbandoned")
    })))

  it.effect("Backpressure and Deadline leak nothing", () =>
    withoutLeaks(Effect.gen(function*() {
      const { withPermits } = yield* Backpressure.make({ capacity: 1, queue: 1 })
      yield* Effect.forkChild(withPermits(Effect.never, { permits: 1 }), { startImmediately: true })
      const ask = withPermits(Effect.succeed(canary), { maxWait: 0 })
      assert.propertyVal(yield* failureOf(ask), "_tag", "BackpressureShed")
      const late = yield* Effect.forkChild(failureOf(Deadline.within(Effect.never, "1 second")), {
        startImmediately: true
      })
      yield* TestClock.adjust("1 second")
      assert.propertyVal(yield* Fiber.join(late), "_tag", "DeadlineExceeded")
    })))

  it.effect("Pipeline leaks nothing of stages that succeed, are retried, fail, time out and recover", () =>
    withoutLeaks(Effect.gen(function*() {
      let attempts = 0
      const failsOnce = (input: string) => ++attempts === 1 ? Effect.fail("503" as const) : Effect.succeed(input)
      const pipeline = Pipeline.make<string>("answer").pipe(
        Pipeline.stage("retried", failsOnce, {
          retry: RetryPolicy.constant({ baseDelay: "1 second", jitter: "none" })
        }),
        Pipeline.stage("recovered", () => Effect.fail("404" as const), {
          recover: (_, input) => Effect.succeed(input)
        }),
        Pipeline.stage("slow", () => Effect.never, { timeout: "1 second" })
      )
      const failing = Pipeline.make<string>("fails").pipe(
        Pipeline.stage("ask", (input) => Effect.fail(`no answer to ${input}`))
      )
      assert.isTrue(Exit.isFailure(yield* Effect.exit(failing(canary))))
      const fiber = yield* Effect.forkChild(failureOf(pipeline(canary)), { startImmediately: true })
      yield* TestClock.adjust("10 seconds")
      assert.propertyVal(yield* Fiber.join(fiber), "_tag", "StageTimeout")
    })))

  it.effect("Sluice leaks nothing of calls that time out, are retried, and are refused for every reason", () =>
    withoutLeaks(
      Effect.gen(function*() {
        const { drain, protect } = yield* Sluice.make({
          name: "policy",
          retry: RetryPolicy.constant({ maxAttempts: 2, baseDelay: "1 second", jitter: "none" }),
          breaker: { trip: CircuitBreaker.consecutive(2), openFor: "1 minute" },
          backpressure: { capacity: 1 },
          attemptTimeout: "2 seconds"
        })
        const Answer = Deduplicator.operation<string, string>()("answer", {
          key: (text: string) => text,
          tenant: () => canary
        })
        const call = (self: Effect.Effect<string, string>, deadline: Duration.Input = "1 hour") =>
          failureOf(protect(self, { key: canary, dedupe: Answer(canary), deadline })).pipe(
            Effect.forkChild({ startImmediately: true })
          )
        const ended = (fiber: Fiber.Fiber<string | Sluice.Rejected | Sluice.AttemptTimeout, string>) =>
          Effect.map(
            Effect.andThen(TestClock.adjust("10 minutes"), Fiber.join(fiber)),
            (error) =>
              error instanceof Sluice.Rejected ? error.reason._tag : typeof error === "string" ? error : error._tag
          )

        const late = yield* call(Effect.never, "1 second")
        const shed = yield* Effect.forkChild(failureOf(protect(Effect.succeed(""), { key: `${canary} too` })), {
          startImmediately: true
        })
        assert.deepStrictEqual([yield* ended(late), yield* ended(shed)], ["DeadlineExceeded", "BackpressureShed"])
        assert.strictEqual(yield* ended(yield* call(Effect.never)), "AttemptTimeout")
        const failing = yield* call(Effect.fail("503"), "5 seconds")
        yield* TestClock.adjust("1 second")
        const refused = yield* call(Effect.succeed(""), "5 seconds")
        assert.deepStrictEqual([yield* ended(failing), yield* ended(refused)], ["503", "CircuitOpen"])
        yield* drain
        assert.strictEqual(yield* ended(yield* call(Effect.succeed(""))), "BackpressureShed")
      }).pipe(Effect.provide(CircuitBreakerStore.layerMemory))
    ))
})
