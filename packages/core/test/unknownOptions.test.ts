import * as Admission from "@sluice/core/Admission"
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deduplicator from "@sluice/core/Deduplicator"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Pipeline from "@sluice/core/Pipeline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, type Scope, Stream } from "effect"

type Refusing = Effect.Effect<unknown, unknown, Scope.Scope | CircuitBreakerStore.CircuitBreakerStore>

// The compiler lets options of an unknown name through when they are in a variable.
const spelled = { name: "gpt", maxWaitt: 5 }
const { maxWaitt: _, ...named } = spelled
const unknown: object = { maxWaitt: 5 }
const misspelled = { mode: "Auto", reason: "a test", reasn: "" } as const
const retry = { maxAttempts: 2, maxAttemps: 5 }
const rate = { rate: 0.5, minimum: 1, calls: 10, minimun: 5 }
const trips = { failures: 2, _tag: "Consecutive", failure: 3 } as const

const sluice = (options: object): Refusing => Sluice.make({ ...named, ...options })
const pipeline = (options: object): Refusing =>
  Pipeline.validate(
    Pipeline.make<string>("p").pipe(Pipeline.stage("ask", Effect.succeed, options as Pipeline.StageOptions))
  )

const cases: ReadonlyArray<readonly [option: string, refusing: Refusing]> = [
  ["attemptTimout", sluice({ attemptTimout: "1 second" })],
  ["retry.maxAttemps", sluice({ retry: RetryPolicy.exponential(retry) })],
  ["breaker.opnFor", sluice({ breaker: { opnFor: "5 seconds" } })],
  ["breaker.trip.minimun", sluice({ breaker: { trip: CircuitBreaker.failureRate(rate) } })],
  ["breaker.trip[1].failure", sluice({ breaker: { trip: [CircuitBreaker.consecutive(1), trips] } })],
  ["backpressure.maxWaitt", sluice({ backpressure: { maxWaitt: 5 } })],
  ["deduplicator.ttl", sluice({ deduplicator: { ttl: "1 hour" } })],
  ["maxWaitt", Backpressure.make(spelled)],
  ["maxWaitt", Effect.flatMap(Backpressure.make(), (permits) => permits.withPermits(Effect.void, unknown))],
  ["maxWaitt", CircuitBreaker.make(spelled)],
  [
    "reasn",
    Effect.flatMap(
      CircuitBreaker.make(),
      ({ control }) => control(misspelled)
    )
  ],
  ["trip.minimun", CircuitBreaker.make({ trip: CircuitBreaker.slowCallRate(rate) })],
  ["maxWaitt", Deduplicator.make(spelled)],
  [
    "ttl",
    Effect.suspend(() =>
      Effect.flatMap(Deduplicator.make(), ({ dedupe }) => {
        const options = { key: (text: string) => text, ttl: "1 hour" }
        return dedupe(Effect.succeed("an answer"), Deduplicator.operation<string>()("summary", options)("x"))
      })
    )
  ],
  ["maxWaitt", Admission.make(unknown)],
  ["maxAttemps", RetryPolicy.validate(RetryPolicy.exponential(retry))],
  ["maxAttemps", RetryPolicy.validate(RetryPolicy.constant(retry))],
  ["ask.timout", pipeline({ timout: "1 second" })],
  ["ask.retry.nestd", pipeline({ retry: { policy: RetryPolicy.none, nestd: "own" } })],
  ["ask.retry.policy.maxAttemps", pipeline({ retry: { policy: RetryPolicy.exponential(retry) } })],
  ["maxWaitt", Stream.runDrain(Pipeline.runStream(Stream.make("a"), Pipeline.make<string>("p"), unknown))]
]

describe("options of unknown names", () => {
  it.effect.each(cases)(
    "the unknown option %s is refused, with the names that are known",
    ([option, refusing]) =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(
          refusing.pipe(Effect.scoped, Effect.provide(Layer.fresh(CircuitBreakerStore.layerMemory)))
        )
        assert(Exit.isFailure(exit))
        // A defect where the options are of one call.
        const { _tag, issues } = Cause.squash(exit.cause) as InvalidOptions
        assert.strictEqual(_tag, "InvalidOptions")
        assert.deepStrictEqual(issues.map((issue) => issue.option), [option])
        assert.match(issues[0].requirement, /^must be one of \w+, \w+/)
      })
  )
})
