import * as Deduplicator from "@sluice/core/Deduplicator"
import { describe, vi } from "@effect/vitest"
import { Clock, Effect, Exit, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { fork, timed } from "../support/effects.ts"
import { countRuns, fault } from "./fault.ts"
import { seedDedupe, SeedDeduplicator } from "./port.ts"

// D5 fills caches of 20,000 results, which takes seconds on a busy machine.
vi.setConfig({ testTimeout: 40_000 })

describe("faults of the seed: Deduplicator", () => {
  const Ask = Deduplicator.operation<string, string>()("ask", {
    key: (prompt: string) => prompt,
    timeToLive: "1 minute"
  })
  const seed = Effect.map(Clock.Clock, (clock) => new SeedDeduplicator(60_000, clock))
  const answer = Effect.delay(Effect.succeed("an answer"), "1 second")

  fault("D1", "a failed run does not block its key", {
    wanted: "an answer",
    ours: Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.make()
      yield* Effect.exit(dedupe(Effect.fail("503"), Ask("hello")))
      return yield* dedupe(Effect.succeed("an answer"), Ask("hello"))
    }),
    faulty: undefined,
    seed: Effect.gen(function*() {
      const deduplicator = yield* seed
      yield* Effect.exit(seedDedupe(deduplicator, "hello", Effect.fail("503")))
      return yield* seedDedupe(deduplicator, "hello", Effect.succeed("an answer"))
    })
  })

  const threeAtOnce = (
    dedupe: (
      run: Effect.Effect<string, string>
    ) => Effect.Effect<string | undefined, string | Deduplicator.TooManyWaiters, Scope.Scope>
  ) =>
    Effect.gen(function*() {
      const { counting, runs } = countRuns()
      const call = dedupe(counting(answer))
      const [exit] = yield* timed(Effect.all([call, call, call], { concurrency: 3 }))
      return { runs: runs(), answers: Exit.isSuccess(exit) ? exit.value : [] }
    })

  fault("D2", "callers that come during a run wait for its result and get it", {
    wanted: { runs: 1, answers: ["an answer", "an answer", "an answer"] },
    ours: Effect.flatMap(Deduplicator.make(), ({ dedupe }) => threeAtOnce((run) => dedupe(run, Ask("hello")))),
    faulty: { runs: 1, answers: ["an answer", undefined, undefined] },
    seed: Effect.flatMap(seed, (deduplicator) => threeAtOnce((run) => seedDedupe(deduplicator, "hello", run)))
  })

  const runsWhileSlow = (
    dedupe: (
      run: Effect.Effect<string, string>
    ) => Effect.Effect<string | undefined, string | Deduplicator.TooManyWaiters, Scope.Scope>
  ) =>
    Effect.gen(function*() {
      const { counting, runs } = countRuns()
      const slow = dedupe(counting(Effect.delay(answer, "10 minutes")))
      yield* fork(slow)
      yield* TestClock.adjust("2 minutes")
      yield* fork(slow)
      yield* TestClock.adjust("1 hour")
      return runs()
    })

  fault("D3", "a run longer than the time to live is not made twice", {
    wanted: 1,
    ours: Effect.flatMap(Deduplicator.make(), ({ dedupe }) => runsWhileSlow((run) => dedupe(run, Ask("hello")))),
    faulty: 2,
    seed: Effect.flatMap(seed, (deduplicator) => runsWhileSlow((run) => seedDedupe(deduplicator, "hello", run)))
  })

  fault("D4", "only the holder of the lease can complete it, and only once", {
    wanted: "the right answer",
    ours: Effect.gen(function*() {
      const { claim } = yield* Deduplicator.make()
      const first = yield* claim(Ask("hello"))
      if (first._tag !== "New") return first._tag
      yield* first.lease.complete("the right answer")
      yield* first.lease.complete("a late overwrite")
      const later = yield* claim(Ask("hello"))
      return later._tag === "Cached" && Exit.isSuccess(later.exit) ? later.exit.value : later._tag
    }),
    faulty: "a late overwrite",
    seed: Effect.map(seed, (deduplicator) => {
      deduplicator.checkAndRegister("hello")
      deduplicator.complete("hello", "the right answer")
      deduplicator.complete("hello", "a late overwrite")
      const later = deduplicator.checkAndRegister("hello")
      return later._tag === "Cached" ? later.result : later._tag
    })
  })

  /** Compares the cost of a lookup with 20 and with 20,000 cached results: the best of many runs, to exclude load. */
  const growth = (
    filled: (entries: number) => Effect.Effect<Effect.Effect<unknown, unknown>, unknown, Scope.Scope>
  ) =>
    Effect.gen(function*() {
      const cost = (check: Effect.Effect<unknown, unknown>) =>
        Effect.gen(function*() {
          let best = Infinity
          for (let i = 0; i < 50; i++) {
            const startedAt = performance.now()
            yield* check
            best = Math.min(best, performance.now() - startedAt)
          }
          return best
        })
      const [few, many] = [yield* filled(20), yield* filled(20_000)]
      yield* cost(few)
      return (yield* cost(many)) / (yield* cost(few)) > 10 ? "grows with the cache" : "stays the same"
    })

  fault("D5", "a lookup costs the same, however many results are cached", {
    wanted: "stays the same",
    ours: growth((entries) =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.make({ capacity: 100_000 })
        for (let i = 0; i < entries; i++) yield* dedupe(Effect.succeed("an answer"), Ask(`prompt ${i}`))
        return Effect.repeat(dedupe(Effect.succeed("an answer"), Ask("prompt 0")), { times: 9 })
      })
    ),
    faulty: "grows with the cache",
    seed: growth((entries) =>
      Effect.map(seed, (deduplicator) => {
        // Not by `seedDedupe`, since each check scans the whole cache, which would take seconds.
        for (let i = 0; i < entries; i++) deduplicator.complete(`prompt ${i}`, "an answer")
        return Effect.repeat(seedDedupe(deduplicator, "prompt 0", Effect.succeed("an answer")), { times: 9 })
      })
    )
  })

  fault("D6", "the cache has a capacity", {
    wanted: 100,
    ours: Effect.gen(function*() {
      const { dedupe, stats } = yield* Deduplicator.make({ capacity: 100 })
      for (let i = 0; i < 1_000; i++) yield* dedupe(Effect.succeed("an answer"), Ask(`prompt ${i}`))
      return (yield* stats).cached
    }),
    faulty: 1_000,
    seed: Effect.gen(function*() {
      const deduplicator = yield* seed
      for (let i = 0; i < 1_000; i++) yield* seedDedupe(deduplicator, `prompt ${i}`, Effect.succeed("an answer"))
      return deduplicator.cache.size
    })
  })

  const request = { prompt: `my name is Ada ${"and so on ".repeat(1_000)}`, temperature: 0 }
  const reordered = { temperature: 0, prompt: request.prompt }

  fault("D7", "a key is a hash of a canonical form, without the prompt, and tenants can have different keys", {
    wanted: { holdsPrompt: false, sameForReorderedFields: true, sameForTwoTenants: false },
    ours: Effect.sync(() => {
      const keyOf = (tenant: string, input: typeof request) =>
        Deduplicator.operation<string>()("ask", { key: (input: typeof request) => input, tenant: () => tenant })(input)
      const key = keyOf("a", request)
      return {
        holdsPrompt: JSON.stringify(key).includes("Ada") || key.id.length > 100,
        sameForReorderedFields: key.id === keyOf("a", reordered).id,
        sameForTwoTenants: key.id === keyOf("b", request).id
      }
    }),
    faulty: { holdsPrompt: true, sameForReorderedFields: false, sameForTwoTenants: true },
    seed: Effect.map(seed, (deduplicator) => {
      // A key is any string, and users wrote the request into it.
      deduplicator.complete(JSON.stringify(request), "an answer")
      const found = (input: typeof request) => deduplicator.cache.has(JSON.stringify(input))
      return {
        holdsPrompt: [...deduplicator.cache.keys()].some((key) => key.includes("Ada")),
        sameForReorderedFields: found(reordered),
        sameForTwoTenants: found(request)
      }
    })
  })

  fault(
    "D8",
    "the operation decides how long a failure is cached, and results are counted",
    {
      wanted: { runs: 1, led: 1, hits: 2 },
      ours: Effect.gen(function*() {
        const Refusable = Deduplicator.operation<string, string>()("refusable", {
          key: (prompt: string) => prompt,
          timeToLive: (exit) => Exit.isSuccess(exit) ? "1 hour" : "1 minute"
        })
        const { dedupe, stats } = yield* Deduplicator.make()
        const { counting, runs } = countRuns()
        for (let i = 0; i < 3; i++) yield* Effect.exit(dedupe(counting(Effect.fail("refused")), Refusable("hello")))
        const { hits, led } = yield* stats
        return { runs: runs(), led, hits }
      }),
      faulty: { runs: 3, led: undefined, hits: undefined },
      seed: Effect.gen(function*() {
        const { counting, runs } = countRuns()
        // The seed caches no failures. To call again, users drop the marker by making a new deduplicator.
        for (let i = 0; i < 3; i++) {
          yield* Effect.exit(seedDedupe(yield* seed, "hello", counting(Effect.fail("refused"))))
        }
        return { runs: runs(), led: undefined, hits: undefined }
      })
    }
  )
})
