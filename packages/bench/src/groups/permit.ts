import * as Backpressure from "@sluice/core/Backpressure"
import * as Cockatiel from "cockatiel"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Semaphore from "effect/Semaphore"
import pLimit from "p-limit"
import { ofEffect, ofPromise, type Run, timed } from "../measure.ts"
import { body, call } from "./bodies.ts"
import type { Builders } from "./builders.ts"

const capacity = 100
const waiting = 10_000

type WithPermit = (self: Effect.Effect<void>) => Effect.Effect<void, unknown>

/** Concurrent calls, spread over the limiters. Each yields once while it holds its permit. */
const concurrentCalls = (limiters: ReadonlyArray<WithPermit>): Run => (operations) => {
  const calls = Array.from({ length: operations }, (_, index) => limiters[index % limiters.length] ?? identity)
  return Effect.runPromise(
    Effect.forEach(calls, (withPermit) => withPermit(Effect.yieldNow), { concurrency: "unbounded", discard: true })
  )
}

const resolved = (): Promise<void> => Promise.resolve()

export const builders: Builders<"permit"> = {
  "permit-free": Effect.gen(function*() {
    const { withPermit } = yield* Backpressure.make({ capacity })
    const semaphore = yield* Semaphore.make(capacity)
    const bulkhead = Cockatiel.bulkhead(capacity)
    const limit = pLimit(capacity)
    return timed({
      "the effect alone": ofEffect(() => call),
      "Sluice": ofEffect(() => withPermit(call)),
      "Effect": ofEffect(() => semaphore.withPermit(call)),
      "cockatiel": ofPromise(() => bulkhead.execute(body)),
      "p-limit": ofPromise(() => limit(body))
    })
  }),

  "permit-waiting": Effect.gen(function*() {
    const one = yield* Backpressure.make({ capacity, queue: waiting })
    // As many calls run and queue as with one limiter. Only the length of a queue differs.
    const many = yield* Effect.forEach(
      Array.from({ length: capacity }),
      () => Backpressure.make({ capacity: 1, queue: waiting / capacity })
    )
    const semaphore = yield* Semaphore.make(capacity)
    const limit = pLimit(capacity)
    return {
      _tag: "Batch",
      operations: capacity + waiting,
      runs: {
        "no limiter": concurrentCalls([identity]),
        "Sluice": concurrentCalls([one.withPermit]),
        "100 waiting": concurrentCalls(many.map(({ withPermit }) => withPermit)),
        "Effect": concurrentCalls([semaphore.withPermit]),
        "p-limit": (operations) => Promise.all(Array.from({ length: operations }, () => limit(resolved)))
      }
    }
  })
}
