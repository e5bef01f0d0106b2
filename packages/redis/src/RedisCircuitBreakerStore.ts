/**
 * Keeps circuits in Redis, so that all processes that call a dependency know together whether it may be called.
 *
 * Each verb of the store is one script: one round trip, and it happens in one go. A call of a closed circuit costs one, after
 * it; a refused call costs none.
 *
 * **When to use**
 *
 * When several processes call the same dependency. For one process `CircuitBreakerStore.layerMemory` does the same without
 * a round trip. `RedisStores.layer` has this store and all others.
 *
 * **Details**
 *
 * | option | default | reason |
 * |---|---|---|
 * | `prefix` | `"sluice:"` | says whose keys these are where a Redis is shared |
 * | `idle` | 1 hour | longer than nearly every window and pause, and what nobody needs is soon gone |
 *
 * - Two keys per circuit and one for each window, in one slot of a cluster: `sluice:circuit:{openai}` has what stands, `...:leases`
 *   the probes, `...:seen:` and a window the evidence. Two more are the index for `list`.
 * - Times are the server's: the clocks of the processes need not agree.
 * - No key is without an expiry. A circuit is kept for `idle` after its last use, or after the end of its opening, ramp, force or
 *   window, the lapse of its last lease, or the time at which the dependency wanted to be called again, whichever is latest.
 * - A circuit that is forced until somebody lifts it is kept for a year, and for another one whenever it is used in the second
 *   half of that, be it by a look. So one is forgotten for which nobody has asked in half a year.
 * - A circuit is put into the index when it is made, when it has moved, and once an hour while it is used. Only then a verb
 *   takes two round trips more.
 * - Whatever Redis says is decoded before it is believed. What makes no sense is a `StoreError`, and so is a Redis that
 *   cannot be reached; it tells neither a key nor an address.
 *
 * **Gotchas**
 *
 * - Keys with an expiry are the first to be evicted. Give circuits a Redis with `noeviction`, or accept that an open one may
 *   be forgotten when memory runs out.
 * - Nobody may send `MULTI` through the same `Redis` service: until `EXEC` all verbs would be queued with it, and fail.
 * - A Redis that cannot be reached when the program starts fails the layer of its client: `RedisStores.layerInBackground` starts
 *   without it.
 * - A node-redis client that has lost its connection keeps what it is asked, and asks it late. With `disableOfflineQueue` a
 *   verb fails at once, and the breaker goes on locally.
 *
 * **Example** (A breaker whose circuits are shared)
 *
 * ```ts
 * import * as NodeRedis from "@effect/platform-node/NodeRedis"
 * import { Config, Layer } from "effect"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 * import * as RedisCircuitBreakerStore from "@sluice/redis/RedisCircuitBreakerStore"
 *
 * const Redis = NodeRedis.layerConfig({ url: Config.String("REDIS_URL"), disableOfflineQueue: Config.succeed(true) })
 *
 * export const Breaker = CircuitBreaker.layerStore({ trip: CircuitBreaker.consecutive(5) }).pipe(
 *   Layer.provide(RedisCircuitBreakerStore.layer({ prefix: "billing:" })),
 *   Layer.provide(Redis)
 * )
 * ```
 *
 * @since 0.1.0
 */
import {
  type Answer,
  CircuitBreakerStore,
  type Snapshot,
  StoreError,
  type Window
} from "@sluice/core/CircuitBreakerStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import { areSamples, isGeneration, isWindow } from "./internal/circuitGiven.ts"
import { type Decoded, decodePage, decodeReply } from "./internal/circuitReply.ts"
import * as Scripts from "./internal/circuitScripts.ts"
import { mostMillis, untouchedJson, wishOf } from "./internal/circuitTarget.ts"
import { describe } from "./internal/describe.ts"
import { decodeKey, encodeKey } from "./internal/keyCode.ts"

/**
 * Where in Redis circuits are kept, and for how long.
 *
 * @since 0.1.0
 * @category models
 */
export interface RedisCircuitBreakerStoreOptions {
  /**
   * What all keys begin with: at most 200 characters, none of them a brace, since what stands between braces decides about the
   * slot in a cluster. Default `"sluice:"`: it says whose keys these are where a Redis is shared. Processes with one prefix
   * share their circuits.
   */
  readonly prefix?: string | undefined
  /**
   * How long a circuit is kept that nobody uses, 1 second to 365 days. Default 1 hour: longer than nearly every window of
   * evidence and pause between calls, and short enough that circuits which nobody needs are soon gone.
   */
  readonly idle?: Duration.Input | undefined
}

/**
 * Builds the store on a `Redis` service. It keeps nothing in the process: two of one prefix are the same.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options?: RedisCircuitBreakerStoreOptions
): Effect.Effect<CircuitBreakerStore["Service"], InvalidOptions, Redis.Redis> =>
  Effect.flatMap(
    readOptions(options),
    (settings) => Effect.map(Redis.Redis, (redis) => CircuitBreakerStore.of(onRedis(redis, settings)))
  )

/**
 * Provides `CircuitBreakerStore`, kept in Redis.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: RedisCircuitBreakerStoreOptions
): Layer.Layer<CircuitBreakerStore, InvalidOptions, Redis.Redis> => Layer.effect(CircuitBreakerStore, make(options))

interface Settings {
  readonly prefix: string
  readonly idleMillis: number
}

type Verb = keyof CircuitBreakerStore["Service"]
type Asked<V extends Verb> = Parameters<CircuitBreakerStore["Service"][V]>[0]
type Circuit = { readonly key: string; readonly window: Window }

const onRedis = (
  redis: Redis.Redis["Service"],
  { idleMillis, prefix }: Settings
): CircuitBreakerStore["Service"] => {
  const run = {
    read: redis.eval(Scripts.read),
    lease: redis.eval(Scripts.lease),
    record: redis.eval(Scripts.record),
    transition: redis.eval(Scripts.transition),
    enlist: redis.eval(Scripts.enlist),
    noteListed: redis.eval(Scripts.noteListed)
  }
  const keysOf = ({ key, window: { bucketMillis, buckets, calls } }: Circuit): Scripts.Keys => {
    const control = `${prefix}circuit:{${encodeKey(key)}}`
    return [control, `${control}:leases`, `${control}:seen:${calls}/${bucketMillis}x${buckets}`]
  }
  // With braces of their own: these two share a slot with each other, not with circuits.
  const index: Scripts.Index = [`${prefix}circuits:{index}`, `${prefix}circuits:{index}:times`]

  const settle = (
    operation: Verb,
    circuit: Circuit,
    reply: Effect.Effect<unknown, Redis.RedisError>
  ): Effect.Effect<Decoded, StoreError> =>
    Effect.matchEffect(reply, {
      onFailure: (error) => refused(operation, describe(error)),
      onSuccess: (reply) => {
        const decoded = decodeReply(reply, circuit)
        if (decoded === undefined) return refused(operation, "Redis gave an answer that makes no sense")
        return decoded.dueMillis === 0
          ? Effect.succeed(decoded)
          : Effect.as(enlist(circuit, decoded.dueMillis), decoded)
      }
    })

  // The circuit notes that it is listed once it is: whoever dies or loses Redis on the way leaves it to the next call.
  const enlist = (circuit: Circuit, dueMillis: number): Effect.Effect<void> =>
    run.enlist(index, encodeKey(circuit.key), dueMillis).pipe(
      Effect.andThen(run.noteListed(keysOf(circuit))),
      Effect.ignore
    )

  const answer = (operation: Verb, circuit: Circuit, reply: Effect.Effect<unknown, Redis.RedisError>) =>
    Effect.map(settle(operation, circuit, reply), ({ ok, snapshot }): Answer => ({ ok, snapshot }))

  const look = (operation: Verb, circuit: Circuit): Effect.Effect<Snapshot, StoreError> =>
    Effect.map(settle(operation, circuit, run.read(keysOf(circuit))), ({ snapshot }) => snapshot)

  /** Keys as they are encoded, from an end of the index that is told in Redis' own words. */
  const pageOf = (from: string, size: number): Effect.Effect<ReadonlyArray<string>, StoreError> =>
    Effect.matchEffect(redis.send("ZRANGEBYLEX", index[0], from, "+", "LIMIT", "0", String(size)), {
      onFailure: (error) => refused("list", describe(error)),
      onSuccess: (page) => {
        const decoded = decodePage(page)
        return decoded === undefined ? refused("list", "the index of circuits makes no sense") : Effect.succeed(decoded)
      }
    })

  const list = Effect.fnUntraced(function*({ after, limit, window }: Asked<"list">) {
    const most = Math.floor(limit)
    const found: Array<Snapshot> = []
    let from = after === undefined ? "-" : `(${encodeKey(after)}`
    while (found.length < most) {
      const size = Math.min(most - found.length, mostAtOnce)
      const page = yield* pageOf(from, size)
      const seen = yield* Effect.forEach(page, (member) => {
        const key = decodeKey(member)
        return key === undefined
          ? refused("list", "the index of circuits makes no sense")
          : look("list", { key, window })
      }, { concurrency: "unbounded" })
      // One that has expired stays in the index for a while.
      found.push(...seen.filter(({ generation }) => generation !== 0))
      if (page.length < size) break
      from = `(${page[page.length - 1]}`
    }
    return found
  })

  return {
    read: (circuit) => look("read", circuit),
    lease: (asked) => {
      const { generation, id, limit, ttlMillis, window } = asked
      if (!isWindow(window) || Number.isNaN(ttlMillis)) return refused("lease", "what was asked makes no sense")
      const ask = { idleMillis, span: spanOf(window), generation, id, limit, ttlMillis: millisOf(ttlMillis) }
      return answer("lease", asked, run.lease(keysOf(asked), ask))
    },
    record: (given) => {
      const { generation, lease, samples, window } = given
      if (!isWindow(window) || !isGeneration(generation) || !areSamples(samples)) {
        return refused("record", "what was given makes no sense")
      }
      return answer(
        "record",
        given,
        run.record(keysOf(given), { idleMillis, window, generation, samples, lease, untouched: untouchedJson })
      )
    },
    transition: (asked) => {
      const wish = wishOf(asked.to)
      if (wish === undefined || !isWindow(asked.window) || !isGeneration(asked.generation)) {
        return refused("transition", "what was wished makes no sense")
      }
      const { by, generation, window } = asked
      const args = { ...wish, idleMillis, span: spanOf(window), generation, by }
      return answer("transition", asked, run.transition(keysOf(asked), args))
    },
    list
  }
}

/** Circuits that `list` asks for in one go. */
const mostAtOnce = 100

const spanOf = ({ bucketMillis, buckets }: Window): number => bucketMillis * buckets

// No lease without an end: Redis would keep its key for ever.
const millisOf = (millis: number): number => Math.min(Math.max(Math.ceil(millis), 1), mostMillis)

const refused = (operation: Verb, description: string): Effect.Effect<never, StoreError> =>
  Effect.suspend(() => Effect.fail(new StoreError({ operation, description })))

const readOptions = (
  input: RedisCircuitBreakerStoreOptions = {}
): Effect.Effect<Settings, InvalidOptions> => {
  const options = new OptionsReader("RedisCircuitBreakerStore")
  const { idle = "1 hour", prefix = "sluice:" } = options.object("options", input)
  if (typeof prefix !== "string" || prefix.length > 200 || /[{}]/.test(prefix)) {
    options.refuse("prefix", prefix, "must be a string of at most 200 characters, without braces")
  }
  const idleMillis = options.millis("idle", idle, 1_000, 365 * 24 * 3_600_000)
  return options.check({ prefix, idleMillis: Math.ceil(idleMillis) })
}
