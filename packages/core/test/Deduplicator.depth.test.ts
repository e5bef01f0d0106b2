import { assert, describe, it, vi } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import * as Deduplicator from "../src/Deduplicator.ts"

// Ten thousand nested flights take seconds on a busy machine.
vi.setConfig({ testTimeout: 40_000 })

const Ask = Deduplicator.operation<string>()("ask", { key: (depth: number) => String(depth) })

/** Flights that each wait for the next one, with a counter of the interrupted calls. */
const nested = (deduplicator: Deduplicator.Deduplicator["Service"], depth: number) => {
  let stopped = 0
  const call = (left: number): Effect.Effect<string> =>
    Effect.suspend(() => left === 0 ? Effect.never : Effect.orDie(deduplicator.dedupe(call(left - 1), Ask(left)))).pipe(
      Effect.onInterrupt(() => Effect.sync(() => stopped++))
    )
  return { call: call(depth), stopped: () => stopped }
}

describe("Deduplicator with nested flights", () => {
  for (const depth of [40, 2_000, 10_000]) {
    it.live(`interrupting the outermost caller stops all of ${depth} nested flights before it returns`, () =>
      Effect.gen(function*() {
        const deduplicator = yield* Deduplicator.make({ timeToLive: 0 })
        const { call, stopped } = nested(deduplicator, depth)
        const fiber = yield* Effect.forkChild(call)
        while ((yield* deduplicator.stats).flights < depth) yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        const { flights, waiting } = yield* deduplicator.stats
        assert.deepStrictEqual({ flights, waiting, stopped: stopped() }, { flights: 0, waiting: 0, stopped: depth + 1 })
        assert.strictEqual(yield* Effect.orDie(deduplicator.dedupe(Effect.succeed("an answer"), Ask(1))), "an answer")
        assert.isTrue(Exit.isFailure(yield* Fiber.await(fiber)))
      }))
  }
})
