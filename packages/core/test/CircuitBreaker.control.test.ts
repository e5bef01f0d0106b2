import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Layer, Metric, Schema, Stream } from "effect"
import { TestClock, TestConsole } from "effect/testing"
import { type Breaker, oneFailure, stateTag } from "./support/breakers.ts"
import { failCalls, startCall, succeedCall } from "./support/calls.ts"
import { remoteStore } from "./support/stores.ts"

/** Collects the values of a stream from now on. */
const collect = <A>(stream: Stream.Stream<A>) => {
  const values: Array<A> = []
  return Effect.as(
    Effect.forkScoped(Stream.runForEach(stream, (value) => Effect.sync(() => values.push(value))), {
      startImmediately: true
    }),
    values
  )
}

// Circuits in this process and in a remote store behave alike.
const stores = {
  "in this process": CircuitBreakerStore.layerMemory,
  "in a remote store": remoteStore(0)
}

for (const [where, store] of Object.entries(stores)) {
  const withBreaker = <A, E>(
    options: CircuitBreaker.CircuitBreakerOptions | undefined,
    test: (breaker: Breaker) => Effect.Effect<A, E>
  ) =>
    CircuitBreaker.CircuitBreaker.use(test).pipe(
      Effect.provide(Layer.provide(CircuitBreaker.layerStore(options), Layer.fresh(store)))
    )

  describe(`CircuitBreaker.control and observation, ${where}`, () => {
    it.effect("a circuit forced open refuses every call until the mode is lifted", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* breaker.control({ mode: "ForcedOpen", reason: "moving house" })
          const refused = yield* Effect.flip(succeedCall(breaker))
          assert.deepInclude(refused, { state: "ForcedOpen", reason: "moving house" })
          assert.deepStrictEqual(refused.retryAfter, Duration.seconds(30), "retryAfter")
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

    it.effect("a circuit forced open for a time is lifted after it", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* breaker.control({ mode: "ForcedOpen", reason: "maintenance", for: "10 minutes" })
          yield* TestClock.adjust("4 minutes")
          assert.deepStrictEqual((yield* Effect.flip(succeedCall(breaker))).retryAfter, Duration.minutes(6))
          yield* TestClock.adjust("6 minutes")
          // Also before the next call: a caller that checks first would never make it.
          yield* breaker.check()
          assert.deepInclude(yield* breaker.state(), { _tag: "Closed", rampsFor: undefined, reason: "" })
          assert.strictEqual(yield* succeedCall(breaker), "an answer")
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("a circuit forced closed admits every call and stays closed on failures", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* breaker.control({ mode: "ForcedClosed", reason: "the probe is wrong" })
          yield* failCalls(breaker, 9)
          assert.strictEqual(yield* succeedCall(breaker), "an answer")
          assert.deepInclude((yield* breaker.state()).evidence, { calls: 10, failures: 9 })
        })))

    it.effect("a disabled circuit admits every call and counts none", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* breaker.control({ mode: "Disabled", reason: "load test" })
          yield* failCalls(breaker, 9)
          assert.deepInclude((yield* breaker.state()).evidence, { calls: 0, failures: 0 })
          yield* breaker.control({ mode: "Auto", reason: "done" })
          assert.strictEqual(yield* stateTag(breaker), "Closed")
        })))

    it.effect("an ObserveOnly circuit admits every call and reports when it would open", () =>
      withBreaker({ trip: CircuitBreaker.consecutive(3) }, (breaker) =>
        Effect.gen(function*() {
          yield* breaker.control({ mode: "ObserveOnly", reason: "a new policy" })
          const reported = yield* collect(breaker.decisions)
          yield* failCalls(breaker, 3)
          yield* TestClock.adjust(0)
          assert.deepStrictEqual(reported.filter((decision) => decision._tag === "WouldOpen"), [
            { _tag: "WouldOpen", key: "default", evidence: { calls: 3, failures: 3, slow: 0 }, at: 0 }
          ])
        }).pipe(Effect.scoped)))

    it.effect("Auto leaves a circuit alone that was not forced", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          yield* breaker.control({ mode: "Auto", reason: "to be sure" })
          assert.strictEqual(yield* stateTag(breaker), "Open")
        })))

    it.effect("an outcome admitted before control does not count", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const before = yield* startCall(breaker)
          yield* breaker.control({ mode: "ForcedClosed", reason: "a test" })
          yield* before.fail
          assert.deepInclude((yield* breaker.state()).evidence, { calls: 0 })
        })))

    it.effect("the reason of a reset is in the state and in the transition", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          yield* failCalls(breaker, 1)
          const reported = yield* collect(breaker.transitions)
          yield* breaker.reset(undefined, "the provider says it is back")
          yield* TestClock.adjust(0)
          assert.deepInclude(yield* breaker.state(), { _tag: "Closed", reason: "the provider says it is back" })
          assert.deepStrictEqual(
            reported.map(({ from, reason, to }) => ({ from, to, reason })),
            [{ from: "Open", to: "Closed", reason: "the provider says it is back" }]
          )
        }).pipe(Effect.scoped)))

    it.effect("control refuses invalid options, all at once", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const invalidOptions = { mode: "Open", reason: 5, for: "soon" } as unknown as CircuitBreaker.ControlOptions
          const invalid = yield* Effect.flip(breaker.control(invalidOptions))
          assert.strictEqual(invalid._tag, "InvalidOptions")
          if (invalid._tag === "InvalidOptions") {
            assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), ["mode", "for", "reason"])
          }
        })))

    it.effect("states returns all circuits, page by page", () =>
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

    it.effect("every decision is reported to readers of decisions", () =>
      withBreaker(oneFailure, (breaker) =>
        Effect.gen(function*() {
          const reported = yield* collect(breaker.decisions)
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
          assert.deepStrictEqual(reported.map(line), [
            "admitted",
            "admitted",
            "Failure counted",
            "refused: Open, 30s",
            "Success too late",
            "probe",
            "Success counted"
          ])
        }).pipe(Effect.scoped)))

    it.effect("stats count outcomes, refusals and transitions", () =>
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
            dropped: 0,
            storeFailures: 0
          })
          assert.deepInclude((yield* breaker.stats).moves, { Open: 1, HalfOpen: 1, Closed: 0 })
        })))

    it.effect("a thousand keys make as many metric series as one", () =>
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
            const value = (id: string, labels: Record<string, string>) =>
              shown.find((metric) =>
                metric.id === id && JSON.stringify(metric.attributes) === JSON.stringify({ policy: "gpt", ...labels })
              )?.state
            assert.deepInclude(value("sluice_circuit_calls_total", { outcome: "Failure" }), { count: 1_000 })
            assert.deepInclude(value("sluice_circuit_transitions_total", { to: "Open" }), { count: 1_000 })
            assert.deepInclude(value("sluice_circuit_refused_total", {}), { count: 1 })
          })).pipe(Effect.provideService(Metric.MetricRegistry, registry))
        assert.strictEqual(registry.size, 0, "removed with the breaker")
      }))

    it.effect("two breakers of one name share their metric series", () =>
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
            assert.deepInclude(refused(), { count: 2 }, "a counter never decreases")
          })).pipe(Effect.provideService(Metric.MetricRegistry, registry))
      }))

    it.effect("a breaker logs nothing while its store works", () =>
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

it.effect("a refusal with every field survives encoding and decoding", () =>
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
    const json: unknown = JSON.parse(JSON.stringify(Schema.encodeSync(CircuitBreaker.CircuitOpen)(refusal)))
    assert.deepStrictEqual(Schema.decodeUnknownSync(CircuitBreaker.CircuitOpen)(json), refusal)
  }))
