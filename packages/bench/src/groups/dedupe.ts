import * as Deduplicator from "@sluice/core/Deduplicator"
import * as Cache from "effect/Cache"
import * as Effect from "effect/Effect"
import { LRUCache } from "lru-cache"
import { createHash } from "node:crypto"
import { type Contenders, Effort, ofEffect, ofFunction, ofPromise, timed } from "../measure.ts"
import { answer, call } from "./bodies.ts"
import type { Builders } from "./builders.ts"

const Request = Deduplicator.operation<number>()("request", { key: (n: number) => n })

const timeToLive = "1 hour"
const ttl = 3_600_000

const stores = Effect.fnUntraced(function*(capacity: number) {
  return {
    map: new Map<string, number>(),
    deduplicator: yield* Deduplicator.make({ capacity, timeToLive }),
    cache: yield* Cache.make({ capacity, timeToLive, lookup: (_: string) => call }),
    lru: new LRUCache<string, number>({ max: capacity, ttl, fetchMethod: () => Promise.resolve(answer) })
  }
})

/** Returns indices in a random order, so that CPU caches do not help. The order is the same for every contender. */
const shuffled = (length: number): () => number => {
  const order = Uint32Array.from({ length }, (_, index) => index)
  let seed = 1
  for (let index = length - 1; index > 0; index--) {
    seed = Math.imul(seed, 1_664_525) + 1_013_904_223 >>> 0
    const other = seed % (index + 1)
    const [a = 0, b = 0] = [order[index], order[other]]
    order[index] = b
    order[other] = a
  }
  let next = 0
  return () => order[next === length - 1 ? (next = 0) : ++next] ?? 0
}

/** Every key is cached. Keys are made before, since their cost is another row. */
const hit = Effect.fnUntraced(function*(size: number) {
  const keys = Array.from({ length: size }, (_, index) => Request(index))
  const ids = keys.map(({ id }) => id)
  const { cache, deduplicator, lru, map } = yield* stores(size)
  for (const key of keys) yield* Effect.orDie(deduplicator.dedupe(call, key))
  for (const id of ids) {
    map.set(id, answer)
    lru.set(id, answer)
    yield* Cache.get(cache, id)
  }
  const [first, second, third, fourth] = [shuffled(size), shuffled(size), shuffled(size), shuffled(size)]
  return timed({
    "Map.get": ofEffect(() => Effect.succeed(map.get(at(ids, first())))),
    "Sluice": ofEffect(() => deduplicator.dedupe(call, at(keys, second()))),
    "Effect": ofEffect(() => Cache.get(cache, at(ids, third()))),
    "lru-cache": ofPromise(() => lru.fetch(at(ids, fourth())))
  })
})

const at = <A>(list: ReadonlyArray<A>, index: number): A => {
  const found = list[index]
  if (found === undefined) throw new RangeError(`index ${index} is out of range for length ${list.length}`)
  return found
}

const capacity = 10_000

/** Four times as many keys as the capacity, in turn, so that every key has been evicted before it comes again. */
const miss = Effect.gen(function*() {
  const keys = Array.from({ length: 4 * capacity }, (_, index) => Request(index))
  const ids = keys.map(({ id }) => id)
  const { cache, deduplicator, lru } = yield* stores(capacity)
  const [first, second, third] = [inTurn(keys), inTurn(ids), inTurn(ids)]
  // Full from the start, since a miss without an eviction costs less.
  for (let kept = 0; kept < capacity; kept++) {
    yield* Effect.orDie(deduplicator.dedupe(call, first()))
    yield* Cache.get(cache, second())
    lru.set(third(), answer)
  }
  return {
    _tag: "Batch" as const,
    // All keys in each round, since the cost of an eviction in Effect's Cache grows up to sevenfold until its Map is rebuilt.
    operations: keys.length,
    runs: {
      "Sluice": ofEffect(() => deduplicator.dedupe(call, first())),
      "Effect": ofEffect(() => Cache.get(cache, second())),
      "lru-cache": ofPromise(() => lru.fetch(third()))
    }
  }
})

const inTurn = <A>(list: ReadonlyArray<A>): () => A => {
  let next = 0
  return () => at(list, next === list.length - 1 ? (next = 0) : ++next)
}

const oneKilobyte = {
  model: "small",
  temperature: 0.2,
  messages: [{ role: "system", content: "Answer briefly." }, { role: "user", content: "word ".repeat(180) }],
  tools: []
}

const requestKey = Effect.sync((): Contenders<"Sluice" | "JSON.stringify" | "JSON and node:crypto"> => {
  const operation = Deduplicator.operation<number>()("ask", { key: (request: typeof oneKilobyte) => request })
  return timed({
    "Sluice": ofFunction(() => operation(oneKilobyte)),
    "JSON.stringify": ofFunction(() => JSON.stringify(oneKilobyte)),
    "JSON and node:crypto": ofFunction(() => createHash("sha256").update(JSON.stringify(oneKilobyte)).digest("hex"))
  })
})

export const builders: Builders<"dedupe"> = {
  "hit-1": hit(1),
  "hit-10000": hit(10_000),
  "hit-many": Effect.flatMap(Effort, ({ manyKeys }) => hit(manyKeys)),
  "miss": miss,
  "request-key": requestKey
}
