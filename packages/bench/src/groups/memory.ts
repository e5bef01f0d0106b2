import * as Backpressure from "@sluice/core/Backpressure"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as Cache from "effect/Cache"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { LRUCache } from "lru-cache"
import { Effort, type Hold } from "../measure.ts"
import { answer, call } from "./bodies.ts"
import type { Builders } from "./builders.ts"

type WithPermit = (self: Effect.Effect<never>) => Effect.Effect<never, unknown>

/** Fibers that wait for a single permit, which is never given back. */
const waiters = (make: Effect.Effect<WithPermit, unknown, Scope.Scope>): Hold => (count) =>
  Effect.map(make, (withPermit) => {
    const fibers = [Effect.runFork(withPermit(Effect.never))]
    while (fibers.length <= count) fibers.push(Effect.runFork(withPermit(Effect.never)))
    return { withPermit, fibers }
  })

const waiting = 10_000

const timeToLive = "1 hour"
const ttl = 3_600_000

export const builders: Builders<"memory"> = {
  "permit-memory": Effect.succeed({
    _tag: "Held",
    count: waiting,
    holds: {
      "a fiber that never resumes": waiters(Effect.succeed(identity)),
      "Sluice": waiters(Effect.map(
        Backpressure.make({ capacity: 1, queue: waiting }),
        ({ withPermit }) => withPermit
      )),
      "Effect": waiters(Effect.map(Semaphore.make(1), ({ withPermit }) => withPermit))
    }
  }),

  // Without the key, which the caller has made, and without the value, which is a number.
  "dedupe-memory": Effect.map(Effort, ({ manyKeys }) => {
    const Request = Deduplicator.operation<number>()("request", { key: (n: number) => n })
    const numbers = Array.from({ length: manyKeys }, (_, index) => index)
    const keys = numbers.map((n) => Request(n))
    const ids = keys.map(({ id }) => id)
    const sluice = <A>(list: ReadonlyArray<A>, keyOf: (a: A) => Deduplicator.Key<number, never>): Hold =>
      Effect.fnUntraced(function*(capacity) {
        const deduplicator = yield* Deduplicator.make({ capacity, timeToLive })
        yield* Effect.forEach(list, (a) => deduplicator.dedupe(call, keyOf(a)), { discard: true })
        return deduplicator
      })
    return {
      _tag: "Held",
      count: manyKeys,
      holds: {
        "Map": () => Effect.sync(() => new Map(ids.map((id) => [id, answer]))),
        "Sluice": sluice(keys, identity),
        "Sluice, and its key": sluice(numbers, Request),
        "Effect": Effect.fnUntraced(function*(capacity) {
          const cache = yield* Cache.make({ capacity, timeToLive, lookup: (_: string) => call })
          yield* Effect.forEach(ids, (id) => Cache.get(cache, id), { discard: true })
          return cache
        }),
        "lru-cache": (capacity) =>
          Effect.sync(() => {
            const cache = new LRUCache<string, number>({ max: capacity, ttl })
            for (const id of ids) cache.set(id, answer)
            return cache
          })
      }
    }
  })
}
