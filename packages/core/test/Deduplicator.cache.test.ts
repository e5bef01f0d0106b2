import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import { KeyHash, sha256 } from "@sluice/core/KeyHash"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Exit, Fiber, Logger, Metric, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { fork, range } from "./support/effects.ts"
import { Ask, Cached, counts, key, makeCall, withDeduplicator, zeroCounts } from "./support/flights.ts"

describe("Deduplicator", () => {
  describe("time to live", () => {
    it.effect("a cached result is served until the exact end of its time to live", () =>
      Effect.gen(function*() {
        const { dedupe, stats } = yield* Deduplicator.Deduplicator
        let runs = 0
        const ask = dedupe(Effect.sync(() => `answer ${++runs}`), Cached("x"))
        yield* ask
        yield* TestClock.adjust("59999 millis")
        assert.strictEqual(yield* ask, "answer 1")
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* ask, "answer 2")
        assert.strictEqual((yield* stats).hits, 1)
      }).pipe(withDeduplicator()))

    it.effect("nothing is cached by default, and the service's timeToLive applies where the operation has none", () =>
      Effect.gen(function*() {
        let runs = 0
        const twice = Deduplicator.Deduplicator.use(({ dedupe }) => {
          const ask = dedupe(Effect.sync(() => `answer ${++runs}`), key)
          return Effect.andThen(ask, ask)
        })
        assert.strictEqual(yield* twice.pipe(withDeduplicator()), "answer 2")
        assert.strictEqual(yield* twice.pipe(withDeduplicator({ timeToLive: "1 second" })), "answer 3")
      }))

    it.effect("the service's timeToLive keeps no failure", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        let runs = 0
        const ask = dedupe(
          Effect.suspend(() => Effect.fail("busy" as const).pipe(Effect.tapError(() => Effect.sync(() => runs++)))),
          key
        )
        assert.strictEqual(yield* Effect.flip(ask), "busy")
        assert.strictEqual(yield* Effect.flip(ask), "busy")
        assert.strictEqual(runs, 2)
        assert.deepStrictEqual(yield* counts, zeroCounts)
      }).pipe(withDeduplicator({ timeToLive: "1 hour" })))

    it.effect("a result that the Classifier calls a failure is not cached, and neither is one on which it throws", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const answers = ["refused", "throttled", "unclear", "ignored", "answered", "never"]
        let runs = 0
        const ask = dedupe(Effect.sync(() => answers[runs++]!), Cached("x"))
        const got: Array<string> = []
        for (let i = 0; i < 6; i++) {
          got.push(yield* ask)
          if (got.at(-1) === "ignored") {
            yield* Deduplicator.Deduplicator.use(({ invalidate }) => invalidate(Cached("x")))
          }
        }
        assert.deepStrictEqual(got, ["refused", "throttled", "unclear", "ignored", "answered", "answered"])
      }).pipe(
        Effect.provideService(Outcome.Classifier, (exit) => {
          switch (Exit.isSuccess(exit) ? exit.value : undefined) {
            case "refused":
              return Outcome.failure()
            case "throttled":
              return Outcome.throttled()
            case "unclear":
              throw new Error("unclear")
            case "ignored":
              return Outcome.ignored
            default:
              return Outcome.success
          }
        }),
        withDeduplicator()
      ))

    it.effect("a failure is cached only if the operation's timeToLive function says so", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const ByExit = Deduplicator.operation<string, "busy">()("by exit", {
          key: (text: string) => text,
          timeToLive: (exit) => Exit.isSuccess(exit) ? 0 : "10 seconds"
        })
        let runs = 0
        const fail = Effect.suspend(() => {
          runs++
          return Effect.fail("busy" as const)
        })
        const runsOf = (key: Deduplicator.Key<string, "busy">) =>
          Effect.gen(function*() {
            runs = 0
            yield* Effect.exit(dedupe(fail, key))
            yield* Effect.exit(dedupe(fail, key))
            return runs
          })
        assert.strictEqual(yield* runsOf(Cached("fails")), 2)
        assert.strictEqual(yield* runsOf(ByExit("fails")), 1)
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* runsOf(ByExit("fails")), 1)
      }).pipe(withDeduplicator({ timeToLive: "1 hour" })))

    it.effect("interruptions and refusals are never cached", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const Always = Deduplicator.operation<string, Deadline.DeadlineExceeded>()("always", {
          key: (text: string) => text,
          timeToLive: () => "1 hour"
        })
        yield* Effect.exit(dedupe(Deadline.within(Effect.never, 0), Always("refused")))
        yield* Effect.exit(dedupe(Effect.interrupt, Always("interrupted")))
        assert.deepStrictEqual(yield* counts, zeroCounts)
        yield* Effect.exit(dedupe(Effect.die("bug"), Always("died")))
        assert.deepStrictEqual(yield* counts, { cached: 1, flights: 0, waiting: 0 })
      }).pipe(withDeduplicator()))

    it.effect("a timeToLive that throws or is no finite duration is not cached, and is warned about once", () => {
      const warnings: Array<unknown> = []
      const logger = Logger.make(({ message }) => warnings.push(message))
      return Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const boom = () => {
          throw new Error("boom")
        }
        const nonsense: ReadonlyArray<readonly [name: string, timeToLive: () => unknown]> = [
          ["throwing", boom],
          ["NaN", () => Number.NaN],
          ["below zero", () => "-1 seconds"],
          ["endless", () => "Infinity"],
          ["no duration", () => ({})],
          ["nothing", () => undefined]
        ]
        for (const [name, timeToLive] of nonsense) {
          const Invalid = Deduplicator.operation<string>()(name, {
            key: (text: string) => text,
            timeToLive: timeToLive as () => Duration.Input // as a JavaScript caller can
          })
          let runs = 0
          const call = Effect.sync(() => `answer ${++runs}`)
          assert.strictEqual(yield* dedupe(call, Invalid("x")), "answer 1", name)
          assert.strictEqual(yield* dedupe(call, Invalid("x")), "answer 2", name)
        }
        assert.deepStrictEqual(yield* counts, zeroCounts)
        yield* Effect.yieldNow
        assert.deepStrictEqual(
          warnings.map(String),
          nonsense.map(([name]) =>
            `deduplicator chat: timeToLive of operation ${name} threw, or returned no finite duration; such results are not cached`
          )
        )
      }).pipe(withDeduplicator({ name: "chat" }), Effect.provide(Logger.layer([logger])))
    })

    it.effect("the least recently used result is evicted, and never a flight", () =>
      Effect.gen(function*() {
        const { dedupe, stats } = yield* Deduplicator.Deduplicator
        const runs: Array<string> = []
        const ask = (text: string) => dedupe(Effect.sync(() => (runs.push(text), text)), Cached(text))
        const { call, runs: flightRuns } = makeCall()
        const flying = yield* fork(dedupe(call, Cached("flight")))
        yield* Effect.forEach(["a", "b", "c", "a", "d"], ask)
        assert.deepStrictEqual(yield* counts, { cached: 3, flights: 1, waiting: 1 })
        yield* Effect.forEach(["a", "c", "d"], ask)
        assert.deepStrictEqual([runs, (yield* stats).evicted], [["a", "b", "c", "d"], 1])
        yield* ask("b")
        assert.deepStrictEqual([runs.at(-1), (yield* stats).evicted], ["b", 2])
        yield* Effect.forEach(range(100), (i) => ask(`more ${i}`))
        const joiner = yield* fork(dedupe(call, Cached("flight")))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual([yield* Fiber.join(flying), yield* Fiber.join(joiner)], ["answer 1", "answer 1"])
        assert.strictEqual(flightRuns.started, 1)
      }).pipe(withDeduplicator({ capacity: 3 })))

    it.effect("expired results are removed as new ones are cached, without a call for their keys", () =>
      Effect.gen(function*() {
        const { dedupe, stats } = yield* Deduplicator.Deduplicator
        const ask = (text: string) => dedupe(Effect.succeed(text), Cached(text))
        yield* Effect.forEach(range(100), (i) => ask(`old ${i}`))
        yield* TestClock.adjust("1 minute")
        yield* Effect.forEach(range(100), (i) => ask(`new ${i}`))
        assert.deepStrictEqual([yield* counts, (yield* stats).evicted], [{ cached: 100, flights: 0, waiting: 0 }, 0])
      }).pipe(withDeduplicator()))

    it.effect("invalidateOperation drops the results and the flights of one operation only", () =>
      Effect.gen(function*() {
        const { dedupe, dedupeStream, invalidateOperation, stats } = yield* Deduplicator.Deduplicator
        const { call, runs } = makeCall()
        for (const text of ["a", "b", "c"]) yield* dedupe(Effect.succeed("old"), Cached(text))
        const Other = Deduplicator.operation<string>()("other", { key: (text: string) => text, timeToLive: "1 minute" })
        yield* dedupe(Effect.succeed("other"), Other("a"))
        const before = yield* fork(dedupe(call, Cached("flying")))
        yield* fork(Stream.runDrain(dedupeStream(Stream.never, Cached("flying"))))
        yield* invalidateOperation(Cached)
        assert.deepStrictEqual(yield* counts, { cached: 1, flights: 2, waiting: 2 })
        const after = yield* fork(dedupe(call, Cached("flying")))
        yield* fork(Stream.runDrain(dedupeStream(Stream.never, Cached("flying"))))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual([yield* Fiber.join(before), yield* Fiber.join(after)], ["answer 1", "answer 2"])
        assert.strictEqual(yield* dedupe(call, Cached("flying")), "answer 2")
        assert.strictEqual(yield* dedupe(Effect.die("it was cached"), Other("a")), "other")
        assert.deepStrictEqual([runs.started, (yield* stats).led], [2, 8])
      }).pipe(withDeduplicator()))

    it.effect("invalidate drops a result, and a flight that began before does not restore it", () =>
      Effect.gen(function*() {
        const { dedupe, invalidate } = yield* Deduplicator.Deduplicator
        const { call } = makeCall()
        yield* dedupe(Effect.succeed("old"), Cached("x"))
        yield* invalidate(Cached("x"))
        const before = yield* fork(dedupe(call, Cached("x")))
        yield* invalidate(Cached("x"))
        const after = yield* fork(dedupe(Effect.delay(call, "1 second"), Cached("x")))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(before), "answer 1")
        assert.deepStrictEqual(yield* counts, { cached: 0, flights: 1, waiting: 1 })
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(after), "answer 2")
        assert.strictEqual(yield* dedupe(call, Cached("x")), "answer 2")
      }).pipe(withDeduplicator()))
  })

  describe("dump and restore", () => {
    const Dated = Deduplicator.operation<Date, "busy">()("dated", {
      key: (text: string) => text,
      success: Schema.DateFromString,
      error: Schema.Literal("busy"),
      timeToLive: () => "1 minute"
    })
    const throughJson = (dump: unknown): ReadonlyArray<unknown> => JSON.parse(JSON.stringify(dump))
    const date = (day: number) => new Date(Date.UTC(2026, 0, day))
    const neverRun = Effect.die("it was cached")

    it.effect("dump and restore carry cached results into another process for their remaining time", () =>
      Effect.gen(function*() {
        const first = yield* Deduplicator.make({ name: "first" })
        yield* first.dedupe(Effect.succeed(date(1)), Dated("a"))
        yield* Effect.exit(first.dedupe(Effect.fail("busy" as const), Dated("b")))
        yield* Effect.exit(first.dedupe(Effect.die("bug"), Dated("c")))
        yield* first.dedupe(Effect.succeed("another operation's"), Cached("d"))
        yield* fork(first.dedupe(Effect.never, Dated("e")))
        yield* TestClock.adjust("30 seconds")
        const dump = throughJson(yield* first.dump(Dated))
        assert.deepStrictEqual(dump, [
          {
            operation: "dated",
            key: Dated("a").id,
            expiresAt: 60_000,
            exit: { _tag: "Success", value: date(1).toISOString() }
          },
          {
            operation: "dated",
            key: Dated("b").id,
            expiresAt: 60_000,
            exit: { _tag: "Failure", cause: [{ _tag: "Fail", error: "busy" }] }
          }
        ])

        const second = yield* Deduplicator.make({ name: "second" })
        assert.deepStrictEqual(yield* second.restore(Dated, dump), {
          restored: 2,
          present: 0,
          expired: 0,
          undecodable: 0
        })
        assert.deepStrictEqual(yield* second.dedupe(neverRun, Dated("a")), date(1))
        assert.strictEqual(yield* Effect.flip(second.dedupe(neverRun, Dated("b"))), "busy")
        yield* TestClock.adjust("30 seconds")
        assert.deepStrictEqual(yield* second.dedupe(Effect.succeed(date(2)), Dated("a")), date(2))
      }).pipe(Effect.scoped))

    it.effect("restore skips results that are present, expired or undecodable", () =>
      Effect.gen(function*() {
        const { dedupe, dump, restore, stats } = yield* Deduplicator.Deduplicator
        yield* dedupe(Effect.succeed(date(1)), Dated("kept"))
        yield* fork(dedupe(Effect.never, Dated("flying")))
        const [good] = yield* dump(Dated)
        const of = (text: string, overrides?: object) => ({ ...good, key: Dated(text).id, ...overrides })
        const result = yield* restore(Dated, [
          of("kept"),
          of("flying"),
          of("over", { expiresAt: 0 }),
          of("another", { operation: "cached" }),
          of("wrong", { exit: { _tag: "Success", value: 7 } }),
          of("odd", { exit: { _tag: "__proto__" } }),
          of("never", { expiresAt: "soon" }),
          of("keyless", { key: undefined }),
          null,
          "junk",
          of("__proto__"),
          of("toString", { key: "toString" })
        ])
        assert.deepStrictEqual(result, { restored: 2, present: 2, expired: 1, undecodable: 7 })
        assert.deepInclude(yield* stats, { cached: 3, flights: 1, undecodable: 7 })
        for (const text of ["over", "another", "wrong", "odd"]) {
          assert.deepStrictEqual(yield* dedupe(Effect.succeed(date(9)), Dated(text)), date(9))
        }
        assert.deepStrictEqual(yield* dedupe(neverRun, Dated("__proto__")), date(1))
        // An expired result does not block a restored one.
        yield* TestClock.adjust("1 minute")
        const later = of("kept", { expiresAt: 120_000 })
        assert.deepInclude(yield* restore(Dated, [later, later]), { restored: 1, present: 1 })
        assert.deepStrictEqual(yield* dedupe(neverRun, Dated("kept")), date(1))
      }).pipe(withDeduplicator()))

    it.effect("dump and restore keep the order of use and respect the capacity", () =>
      Effect.gen(function*() {
        const { dedupe, dump } = yield* Deduplicator.Deduplicator
        for (const text of ["a", "b", "c", "a"]) yield* dedupe(Effect.succeed(date(1)), Dated(text))
        const written = yield* dump(Dated)
        assert.deepStrictEqual(written.map(({ key }) => key), ["b", "c", "a"].map((text) => Dated(text).id))
        const smaller = yield* Deduplicator.make({ capacity: 2 })
        yield* smaller.restore(Dated, written)
        assert.deepStrictEqual((yield* smaller.dump(Dated)).map(({ key }) => key), [Dated("c").id, Dated("a").id])
      }).pipe(Effect.scoped, withDeduplicator()))

    it.effect("dump and restore work with the keys of any KeyHash", () =>
      Effect.gen(function*() {
        const hashes: ReadonlyArray<(bytes: Uint8Array) => string> = [
          sha256,
          (bytes) => `v1:${bytes.length}:${sha256(bytes)}`,
          (bytes) => sha256(bytes).slice(0, 31),
          (bytes) => sha256(bytes).slice(0, 32),
          (bytes) => sha256(bytes).slice(0, 33),
          (bytes) => sha256(bytes).toUpperCase()
        ]
        for (const hash of hashes) {
          const key = yield* Effect.sync(() => Dated("a")).pipe(Effect.provideService(KeyHash, hash))
          const first = yield* Deduplicator.make()
          const second = yield* Deduplicator.make()
          yield* first.dedupe(Effect.succeed(date(1)), key)
          const dump = yield* first.dump(Dated)
          assert.deepStrictEqual(dump.map((dumped) => dumped.key), [key.id])
          yield* second.restore(Dated, throughJson(dump))
          assert.deepStrictEqual(yield* second.dedupe(neverRun, key), date(1))
        }
      }).pipe(Effect.scoped))

    it.effect("dump leaves out failures when the operation has no codec for errors", () =>
      Effect.gen(function*() {
        const { dedupe, dump } = yield* Deduplicator.Deduplicator
        const Texts = Deduplicator.operation<string, "busy">()("texts", {
          key: (text: string) => text,
          success: Schema.String,
          timeToLive: () => "1 minute"
        })
        yield* Effect.exit(dedupe(Effect.fail("busy" as const), Texts("a")))
        yield* dedupe(Effect.succeed("an answer"), Texts("b"))
        assert.deepStrictEqual((yield* dump(Texts)).map(({ key }) => key), [Texts("b").id])
      }).pipe(withDeduplicator()))
  })

  describe("metrics", () => {
    const seriesAfter = (keys: number) =>
      Effect.gen(function*() {
        const { dedupe, dedupeStream } = yield* Deduplicator.make({ name: "chat", timeToLive: "1 hour", maxWaiters: 2 })
        for (let i = 0; i < keys; i++) yield* dedupe(Effect.succeed("answer"), Ask(`prompt ${i}`))
        yield* dedupe(Effect.die("it was cached"), Ask("prompt 0"))
        for (const _ of range(3)) yield* fork(Effect.exit(dedupe(Effect.never, Ask("flying"))))
        yield* fork(Stream.runDrain(dedupeStream(Stream.never, Ask("flying"))))
        const snapshot = yield* Metric.snapshot
        return snapshot.map(({ attributes, id, state }) => ({
          id,
          attributes,
          value: "count" in state ? Number(state.count) : "value" in state ? Number(state.value) : undefined
        }))
      }).pipe(Effect.scoped, Effect.provideService(Metric.MetricRegistry, new Map()))

    it.effect("the metrics show the counters, labelled with the policy's name", () =>
      Effect.gen(function*() {
        const series = yield* seriesAfter(10)
        assert.deepStrictEqual(
          Object.fromEntries(series.map(({ id, value }) => [id.replace("sluice_deduplicator_", ""), value])),
          {
            flights: 2,
            waiting: 3,
            cached: 10,
            led_total: 12,
            joined_total: 1,
            hits_total: 1,
            evicted_total: 0,
            refused_total: 1,
            undecodable_total: 0,
            followed_total: 0,
            store_errors_total: 0
          }
        )
        for (const { attributes } of series) assert.deepStrictEqual(attributes, { policy: "chat" })
      }))

    it.effect("10,000 keys make as many metric series as 10", () =>
      Effect.gen(function*() {
        const ids = (series: ReadonlyArray<{ readonly id: string }>) => series.map(({ id }) => id)
        assert.deepStrictEqual(ids(yield* seriesAfter(10_000)), ids(yield* seriesAfter(10)))
      }))
  })
})
