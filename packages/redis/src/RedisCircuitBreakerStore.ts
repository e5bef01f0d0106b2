/**
 * Keeps circuits in Redis, so that all processes that call a dependency share its circuit.
 *
 * Each verb of the store is one atomic script, and so one round trip. A call of a closed circuit costs one round trip, after the
 * call. A refused call costs none.
 *
 * **When to use**
 *
 * When several processes call the same dependency. For a single process use `CircuitBreakerStore.layerMemory`, which needs no
 * round trip. `RedisStores.layer` provides this store and all others.
 *
 * **Details**
 *
 * | option | default | why this default |
 * |---|---|---|
 * | `prefix` | `"sluice:"` | shows the owner of the keys in a shared Redis |
 * | `idle` | 1 hour | longer than nearly every window and `openFor`; unused circuits soon expire |
 *
 * - A circuit has two keys, and one for each window, in one slot of a cluster. `sluice:circuit:{openai}` holds the control,
 *   `...:leases` the probes, `...:seen:` and a window the evidence. Two more keys are the index for `list`.
 * - Times are the server's, so the clocks of the processes do not matter. If the server's clock is set back, the times of a
 *   circuit are shifted by as much when it is used next.
 * - Every key has an expiry. A circuit is kept for `idle` after its last use. It is also kept for `idle` after the end of its
 *   opening, ramp, force or window, after its last lease expires, and after the time that the dependency asked to wait for.
 * - A circuit that is forced without an end is kept for a year. Any use in the second half of that year, also a read, keeps it
 *   for another one. So it expires after half a year to a year without use.
 * - The index is updated when a circuit is made, when it has moved, and once an hour while it is used. Such a verb takes two more
 *   round trips.
 * - Replies of Redis are validated. An invalid reply and an unreachable Redis are a `StoreError`, which contains no key and no
 *   address.
 *
 * **Gotchas**
 *
 * - Keys with an expiry are the first to be evicted. Use a Redis with `noeviction`, or accept that an open circuit may be evicted
 *   when memory runs out.
 * - Do not send `MULTI` through the same `Redis` service. Until `EXEC`, the store's requests would be queued with it, and fail.
 * - A Redis that cannot be reached when the program starts fails the layer of its client. Use `RedisStores.layerInBackground` to
 *   start without it.
 * - A node-redis client that has lost its connection queues requests and sends them late. With `disableOfflineQueue` a verb fails
 *   at once, and the breaker uses a circuit of its own process.
 *
 * **Example** (A breaker with shared circuits)
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
import {
  decodeKey,
  encodeKey,
  isValidGeneration,
  isValidSamples,
  isValidWindow,
  maxMillis,
  transitionFields,
  untouchedJson
} from "@sluice/core/StoreCodec"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import { type Decoded, decodePage, decodeReply } from "./internal/circuitReply.ts"
import * as Scripts from "./internal/circuitScripts.ts"
import { describeError } from "./internal/describeError.ts"

/**
 * Options for `RedisCircuitBreakerStore.make`.
 *
 * @since 0.1.0
 * @category models
 */
export interface RedisCircuitBreakerStoreOptions {
  /**
   * The beginning of all keys: at most 200 characters, without braces, since braces decide about the slot in a cluster. Default
   * `"sluice:"`, which shows the owner of the keys in a shared Redis. Processes with the same prefix share their circuits.
   */
  readonly prefix?: string | undefined
  /**
   * How long an unused circuit is kept, 1 second to 365 days. Default 1 hour: longer than nearly every window and `openFor`, and
   * unused circuits soon expire.
   */
  readonly idle?: Duration.Input | undefined
}

/**
 * Builds the store on a `Redis` service. It has no state in the process: two stores with the same prefix are the same.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options?: RedisCircuitBreakerStoreOptions
): Effect.Effect<CircuitBreakerStore["Service"], InvalidOptions, Redis.Redis> =>
  Effect.flatMap(
    readOptions(options),
    (settings) => Effect.map(Redis.Redis, (redis) => CircuitBreakerStore.of(storeOn(redis, settings)))
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
type RequestOf<V extends Verb> = Parameters<CircuitBreakerStore["Service"][V]>[0]
type Circuit = { readonly key: string; readonly window: Window }

const storeOn = (
  redis: Redis.Redis["Service"],
  { idleMillis, prefix }: Settings
): CircuitBreakerStore["Service"] => {
  const scripts = {
    read: redis.eval(Scripts.read),
    lease: redis.eval(Scripts.lease),
    record: redis.eval(Scripts.record),
    transition: redis.eval(Scripts.transition),
    addToIndex: redis.eval(Scripts.addToIndex),
    markListed: redis.eval(Scripts.markListed)
  }
  const keysOf = ({ key, window: { bucketMillis, buckets, calls } }: Circuit): Scripts.Keys => {
    const control = `${prefix}circuit:{${encodeKey(key)}}`
    return [control, `${control}:leases`, `${control}:seen:${calls}/${bucketMillis}x${buckets}`]
  }
  // The braces put these two keys into one slot. It is another one than the circuits'.
  const index: Scripts.Index = [`${prefix}circuits:{index}`, `${prefix}circuits:{index}:times`]

  /** Decodes the reply of a verb's script, and updates the index if that is due. */
  const decode = (
    operation: Verb,
    circuit: Circuit,
    reply: Effect.Effect<unknown, Redis.RedisError>
  ): Effect.Effect<Decoded, StoreError> =>
    Effect.matchEffect(reply, {
      onFailure: (error) => failWith(operation, describeError(error)),
      onSuccess: (reply) => {
        const decoded = decodeReply(reply, circuit)
        if (decoded === undefined) return failWith(operation, "Redis returned an invalid reply")
        return decoded.dueMillis === 0
          ? Effect.succeed(decoded)
          : Effect.as(updateIndex(circuit, decoded.dueMillis), decoded)
      }
    })

  // The circuit is marked after it is listed. If the process or Redis fails in between, the next call lists it.
  const updateIndex = (circuit: Circuit, dueMillis: number): Effect.Effect<void> =>
    scripts.addToIndex(index, encodeKey(circuit.key), dueMillis).pipe(
      Effect.andThen(scripts.markListed(keysOf(circuit))),
      Effect.ignore
    )

  const answer = (operation: Verb, circuit: Circuit, reply: Effect.Effect<unknown, Redis.RedisError>) =>
    Effect.map(decode(operation, circuit, reply), ({ ok, snapshot }): Answer => ({ ok, snapshot }))

  const read = (operation: Verb, circuit: Circuit): Effect.Effect<Snapshot, StoreError> =>
    Effect.map(decode(operation, circuit, scripts.read(keysOf(circuit))), ({ snapshot }) => snapshot)

  /** Returns encoded keys of the index. `from` is a bound of ZRANGEBYLEX. */
  const readPage = (from: string, size: number): Effect.Effect<ReadonlyArray<string>, StoreError> =>
    Effect.matchEffect(redis.send("ZRANGEBYLEX", index[0], from, "+", "LIMIT", "0", String(size)), {
      onFailure: (error) => failWith("list", describeError(error)),
      onSuccess: (page) => {
        const decoded = decodePage(page)
        return decoded === undefined ? failWith("list", invalidIndex) : Effect.succeed(decoded)
      }
    })

  const list = Effect.fnUntraced(function*({ after, limit, window }: RequestOf<"list">) {
    const max = Math.floor(limit)
    const found: Array<Snapshot> = []
    let from = after === undefined ? "-" : `(${encodeKey(after)}`
    while (found.length < max) {
      const size = Math.min(max - found.length, maxPageSize)
      const page = yield* readPage(from, size)
      const snapshots = yield* Effect.forEach(page, (member) => {
        const key = decodeKey(member)
        return key === undefined ? failWith("list", invalidIndex) : read("list", { key, window })
      }, { concurrency: "unbounded" })
      // An expired circuit stays in the index for a while.
      found.push(...snapshots.filter(({ generation }) => generation !== 0))
      if (page.length < size) break
      from = `(${page[page.length - 1]}`
    }
    return found
  })

  return {
    read: (circuit) => read("read", circuit),
    lease: (request) => {
      const { generation, id, limit, ttlMillis, window } = request
      if (!isValidWindow(window) || Number.isNaN(ttlMillis)) {
        return failWith("lease", "the window or ttlMillis is invalid")
      }
      const args = { idleMillis, span: spanOf(window), generation, id, limit, ttlMillis: finiteMillis(ttlMillis) }
      return answer("lease", request, scripts.lease(keysOf(request), args))
    },
    record: (request) => {
      const { generation, lease, samples, window } = request
      if (!isValidWindow(window) || !isValidGeneration(generation) || !isValidSamples(samples)) {
        return failWith("record", "the window, the generation or a sample is invalid")
      }
      const args = { idleMillis, window, generation, samples, lease, untouched: untouchedJson }
      return answer("record", request, scripts.record(keysOf(request), args))
    },
    transition: (request) => {
      const { by, generation, to, window } = request
      const fields = transitionFields(to)
      if (fields === undefined || !isValidWindow(window) || !isValidGeneration(generation)) {
        return failWith("transition", "the target, the window or the generation is invalid")
      }
      const args = { ...fields, idleMillis, span: spanOf(window), generation, by }
      return answer("transition", request, scripts.transition(keysOf(request), args))
    },
    list
  }
}

/** How many circuits `list` reads at a time. */
const maxPageSize = 100

const invalidIndex = "the index of circuits is invalid"

const spanOf = ({ bucketMillis, buckets }: Window): number => bucketMillis * buckets

// With an infinite lease the key would never expire.
const finiteMillis = (millis: number): number => Math.min(Math.max(Math.ceil(millis), 1), maxMillis)

const failWith = (operation: Verb, description: string): Effect.Effect<never, StoreError> =>
  Effect.suspend(() => Effect.fail(new StoreError({ operation, description })))

const readOptions = (
  input: RedisCircuitBreakerStoreOptions = {}
): Effect.Effect<Settings, InvalidOptions> => {
  const options = new OptionsReader("RedisCircuitBreakerStore")
  const { idle = "1 hour", prefix = "sluice:" } = options.object("options", input, { prefix: true, idle: true })
  if (typeof prefix !== "string" || prefix.length > 200 || /[{}]/.test(prefix)) {
    options.refuse("prefix", prefix, "must be a string of at most 200 characters, without braces")
  }
  const idleMillis = options.millis("idle", idle, 1_000, 365 * 24 * 3_600_000)
  return options.check({ prefix, idleMillis: Math.ceil(idleMillis) })
}
