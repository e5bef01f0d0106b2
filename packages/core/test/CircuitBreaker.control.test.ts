import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Layer, Metric, Schema, Stream } from "effect"
import { TestClock, TestConsole } from "effect/testing"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"
import { remoteStore } from "./support/stores.ts"

type Breaker = CircuitBreaker.CircuitBreaker["Service"]

const oneFailure = { trip: CircuitBreaker.consecutive(1), openFor: "30 seconds" } as const

const tagOf = (breaker: Breaker, key?: string) => Effect.map(breaker.state(key), (state) => state._tag)

/** What a stream of the breaker's tells from now on. */
const heard = <A>(stream: Stream.Stream<A>) => {
  const values: Array<A> = []
  return Effect.as(
    Effect.forkScoped(Stream.runForEach(stream, (value) => Effect.sync(() => values.push(value))), {
      startImmediately: true
    }),
    values
  )
}

// Whatever holds of circuits in this process holds of those in a store elsewhere.
const stores = {
  "in this process": CircuitBreakerStore.layerMemory,
  "in a store elsewhere": remoteStore(0)
}

for (const [where, store] of Object.entries(stores)) {
  const withBreaker = <A, E>(
    options: CircuitBreaker.CircuitBreakerOptions | undefined,
    test: (breaker: Breaker) => Effect.Effect<A, E>
  ) =>
    CircuitBreaker.CircuitBreaker.use(test).pipe(
      Effect.provide(Layer.provide(CircuitBreaker.layerStore(options), Layer.fresh(store)))
    )

  describe(`CircuitBreaker by hand, ${where}`, () => {
    it.effect("forced open refuses every call, and says so until it is lifted", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* breaker.control({ mode: "ForcedOpen", reason: "moving house" })
          const refused = yield* Effect.flip(succeedCall(breaker))
          assert.deepInclude(refused, { state: "ForcedOpen", reason: "moving house" })
          assert.deepStrictEqual(refused.retryAfter, Duration.seconds(30), "when to look again")
          assert.notInclude(refused.message, "moving house")
          yield* TestClock.adjust("1 day")
          assert.deepInclude(yield* breaker.state(), {
            _tag: "ForcedOpen",
            reason: "moving house",
            liftedIn: undefined
          })
          yield* breaker.control({ mode: "Auto", reason: "moved" })
          assert.strictEqual(yield* succeedCall(breaker), "an answer")
        })))

    it.effect("forced open for a time is lifted by itself", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* breaker.control({ mode: "ForcedOpen", reason: "maintenance", for: "10 minutes" })
          yield* TestClock.adjust("4 minutes")
          assert.deepStrictEqual((yield* Effect.flip(succeedCall(breaker))).retryAfter, Duration.minutes(6))
          yield* TestClock.adjust("6 minutes")
          assert.strictEqual(yield* succeedCall(breaker), "an answer")
          assert.strictEqual(yield* tagOf(breaker), "Closed")
        })))

    it.effect("forced closed lets every call through, whatever they meet", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* breaker.control({ mode: "ForcedClosed", reason: "the probe is wrong" })
          yield* failCalls(breaker, 9)
          assert.strictEqual(yield* succeedCall(breaker), "an answer")
          assert.deepInclude((yield* breaker.state()).evidence, { calls: 10, failures: 9 })
        })))

    it.effect("disabled lets every call through and counts nothing", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* breaker.control({ mode: "Disabled", reason: "load test" })
          yield* failCalls(breaker, 9)
          assert.deepInclude((yield* breaker.state()).evidence, { calls: 0, failures: 0 })
          yield* breaker.control({ mode: "Auto", reason: "done" })
          assert.strictEqual(yield* tagOf(breaker), "Closed")
        })))

    it.effect("only observed lets every call through, and tells where it would have opened", () =>
      withBreaker({ trip: CircuitBreaker.consecutive(3) }, (breaker) =>
        Effect.gen(function*() {
          yield* breaker.control({ mode: "ObserveOnly", reason: "a new policy" })
          const told = yield* heard(breaker.decisions)
          yield* failCalls(breaker, 3)
          yield* TestClock.adjust(0)
          assert.deepStrictEqual(told.filter((decision) => decision._tag === "WouldOpen"), [
            { _tag: "WouldOpen", key: "default", evidence: { calls: 3, failures: 3, slow: 0 }, at: 0 }
          ])
        }).pipe(Effect.scoped)))

    it.effect("`Auto` leaves alone what was not forced", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* breaker.control({ mode: "Auto", reason: "to be sure" })
          assert.strictEqual(yield* tagOf(breaker), "Open")
        })))

    it.effect("a call that was let in before it changes nothing any more", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const before = yield* startCall(breaker)
          yield* breaker.control({ mode: "ForcedClosed", reason: "a test" })
          yield* before.fail
          assert.deepInclude((yield* breaker.state()).evidence, { calls: 0 })
        })))

    it.effect("a reset tells its reason, to who looks and to who listens", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          const told = yield* heard(breaker.transitions)
          yield* breaker.reset(undefined, "the provider says it is back")
          yield* TestClock.adjust(0)
          assert.deepInclude(yield* breaker.state(), { _tag: "Closed", reason: "the provider says it is back" })
          assert.deepStrictEqual(
            told.map(({ from, reason, to }) => ({ from, to, reason })),
            [{ from: "Open", to: "Closed", reason: "the provider says it is back" }]
          )
        }).pipe(Effect.scoped)))

    it.effect("names what is wrong with a wish", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const wish = { mode: "Open", reason: 5, for: "soon" } as unknown as CircuitBreaker.ControlOptions
          const invalid = yield* Effect.flip(breaker.control(wish))
          assert.strictEqual(invalid._tag, "InvalidOptions")
          if (invalid._tag === "InvalidOptions") {
            assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), ["mode", "for", "reason"])
          }
        })))

    it.effect("tells how all circuits stand, page by page", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          for (const key of ["d", "b", "a", "c"]) yield* succeedCall(breaker, key)
          yield* failCalls(breaker, 1, "b")
          const first = yield* breaker.states({ limit: 3 })
          assert.deepStrictEqual(first.map(({ key, state }) => [key, state._tag]), [
            ["a", "Closed"],
            ["b", "Open"],
            ["c", "Closed"]
          ])
          assert.deepStrictEqual((yield* breaker.states({ after: "c" })).map(({ key }) => key), ["d"])
        })))

    it.effect("tells every decision to who listens", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const told = yield* heard(breaker.decisions)
          const late = yield* startCall(breaker, { key: "a" })
          yield* failCalls(breaker, 1, "a")
          yield* Effect.exit(succeedCall(breaker, "a"))
          yield* late.succeed
          yield* TestClock.adjust("30 seconds")
          yield* succeedCall(breaker, "a")
          yield* TestClock.adjust(0)
          const line = (decision: CircuitBreaker.Decision) => {
            switch (decision._tag) {
              case "Admitted":
                return decision.isProbe ? "probe" : "admitted"
              case "Counted":
                return `${decision.outcome} ${decision.counted ? "counted" : "too late"}`
              case "Refused":
                return `refused: ${decision.state}, ${Duration.format(decision.retryAfter)}`
              case "WouldOpen":
                return "would open"
            }
          }
          assert.deepStrictEqual(told.map(line), [
            "admitted",
            "admitted",
            "Failure counted",
            "refused: Open, 30s",
            "Success too late",
            "probe",
            "Success counted"
          ])
        }).pipe(Effect.scoped)))

    it.effect("counts what it did", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* succeedCall(breaker)
          yield* failCalls(breaker, 1)
          yield* Effect.exit(succeedCall(breaker))
          yield* TestClock.adjust("30 seconds")
          const probe = yield* startCall(breaker)
          yield* probe.interrupt
          assert.deepInclude(yield* breaker.stats, {
            outcomes: { Success: 1, Failure: 1, Throttled: 0, Ignored: 1 },
            refused: 1,
            missed: 0,
            storeFailures: 0
          })
          assert.deepInclude((yield* breaker.stats).moves, { Open: 1, HalfOpen: 1, Closed: 0 })
        })))

    it.effect("shows as metrics, in as many series for a thousand keys as for one", () =>
      Effect.gen(function*() {
        const registry = new Map()
        const context = Context.make(Metric.MetricRegistry, registry)
        yield* withBreaker({ ...oneFailure, name: "gpt" }, (breaker) =>
          Effect.gen(function*() {
            yield* failCalls(breaker, 1, "first")
            const series = registry.size
            for (let i = 0; i < 999; i++) yield* failCalls(breaker, 1, `key ${i}`)
            yield* Effect.exit(succeedCall(breaker, "first"))
            assert.strictEqual(registry.size, series)
            const shown = Metric.snapshotUnsafe(context)
            const value = (id: string, words: Record<string, string>) =>
              shown.find((metric) =>
                metric.id === id && JSON.stringify(metric.attributes) === JSON.stringify({ policy: "gpt", ...words })
              )?.state
            assert.deepInclude(value("sluice_circuit_calls_total", { outcome: "Failure" }), { count: 1_000 })
            assert.deepInclude(value("sluice_circuit_transitions_total", { to: "Open" }), { count: 1_000 })
            assert.deepInclude(value("sluice_circuit_refused_total", {}), { count: 1 })
          })).pipe(Effect.provideService(Metric.MetricRegistry, registry))
        assert.strictEqual(registry.size, 0, "gone with the breaker")
      }))

    it.effect("two breakers of one name add up in one series", () =>
      Effect.gen(function*() {
        const registry = new Map()
        const refused = () =>
          Metric.snapshotUnsafe(Context.make(Metric.MetricRegistry, registry)).find((metric) =>
            metric.id === "sluice_circuit_refused_total"
          )?.state
        const options = { ...oneFailure, name: "gpt" }
        yield* withBreaker(options, (one) =>
          Effect.gen(function*() {
            yield* failCalls(one, 1)
            yield* Effect.exit(succeedCall(one))
            yield* withBreaker(options, (other) =>
              Effect.gen(function*() {
                yield* failCalls(other, 1)
                yield* Effect.exit(succeedCall(other))
                assert.deepInclude(refused(), { count: 2 })
              }))
            assert.deepInclude(refused(), { count: 2 }, "a counter never goes back")
          })).pipe(Effect.provideService(Metric.MetricRegistry, registry))
      }))

    it.effect("logs nothing while its store answers", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* Effect.exit(succeedCall(breaker))
          yield* breaker.control({ mode: "ForcedOpen", reason: "quiet" })
          yield* breaker.reset()
          assert.deepStrictEqual(yield* TestConsole.logLines, [])
        })))
  })
}

it.effect("a refusal survives the wire, with all that it may carry", () =>
  Effect.sync(() => {
    const refusal = new CircuitBreaker.CircuitOpen({
      policy: "gpt",
      key: "openai",
      state: "ForcedOpen",
      retryAfter: Duration.minutes(1),
      hint: Duration.days(1),
      calls: 20,
      failures: 3,
      slow: 9,
      reason: "moving house"
    })
    const wire: unknown = JSON.parse(JSON.stringify(Schema.encodeSync(CircuitBreaker.CircuitOpen)(refusal)))
    assert.deepStrictEqual(Schema.decodeUnknownSync(CircuitBreaker.CircuitOpen)(wire), refusal)
  }))
