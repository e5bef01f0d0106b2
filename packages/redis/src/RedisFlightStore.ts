/**
 * Shares flights between processes through Redis: one process runs a call, and the others get its result.
 *
 * **When to use**
 *
 * With `Deduplicator.layerStore`, or the option `shared` of a policy's deduplicator. `RedisStores.layer` provides this store and all
 * others.
 *
 * **Details**
 *
 * | option | default | why this default |
 * |---|---|---|
 * | `prefix` | `"sluice:"` | shows the owner of the keys in a shared Redis |
 *
 * - A call that no other process makes costs three round trips. It waits for two of them. The result of another process costs one.
 * - An entry is the hash `sluice:flight:{HASH}`. Its result is in clear text, and its key is a hash of the input.
 * - `sluice:flights:operation:{HASH}` and `sluice:flights:tenant:{HASH}` list the entries of an operation or a tenant, for `purge`.
 * - The end of a flight that others follow is published on the channel `sluice:flights`. Each process opens one connection for it.
 *   Without it, as after a lost connection, followers ask every second.
 * - Times are the server's. Every key has an expiry: the time to live of the result and a minute.
 *
 * **Gotchas**
 *
 * - Keys with an expiry are the first to be evicted. An evicted entry costs another call.
 * - A user of an access list needs the channel too: `resetchannels &sluice:flights`. A user that may not publish makes followers ask
 *   every second.
 * - `purge` may miss a call that has been running for more than an hour.
 *
 * **Example** (A deduplicator of several processes)
 *
 * ```ts
 * import * as NodeRedis from "@effect/platform-node/NodeRedis"
 * import { Config, Layer } from "effect"
 * import * as Deduplicator from "@sluice/core/Deduplicator"
 * import * as RedisFlightStore from "@sluice/redis/RedisFlightStore"
 *
 * const Redis = NodeRedis.layerConfig({ url: Config.String("REDIS_URL"), disableOfflineQueue: Config.succeed(true) })
 *
 * export const Shared = Deduplicator.layerStore({ timeToLive: "1 hour" }).pipe(
 *   Layer.provide(RedisFlightStore.layer({ prefix: "billing:" })),
 *   Layer.provide(Redis)
 * )
 * ```
 *
 * @since 0.1.0
 */
import { StoreError } from "@sluice/core/CircuitBreakerStore"
import { type Claimed, type Flight, FlightStore } from "@sluice/core/FlightStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import { decodeKey, encodeKey, maxMillis } from "@sluice/core/StoreCodec"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redis from "effect/persistence/Redis"
import * as Stream from "effect/Stream"
import { describeError } from "./internal/describeError.ts"
import * as Scripts from "./internal/flightScripts.ts"

/**
 * Options for `RedisFlightStore.make`.
 *
 * @since 0.1.0
 * @category models
 */
export interface RedisFlightStoreOptions {
  /**
   * The beginning of all keys: at most 200 characters, without braces. Default `"sluice:"`. Processes with the same prefix share
   * their flights.
   */
  readonly prefix?: string | undefined
}

/**
 * Builds the store on a `Redis` service. It has no state in the process: two stores with the same prefix are the same.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options?: RedisFlightStoreOptions
): Effect.Effect<FlightStore["Service"], InvalidOptions, Redis.Redis> =>
  Effect.flatMap(
    readOptions(options),
    (prefix) => Effect.map(Redis.Redis, (redis) => FlightStore.of(storeOn(redis, prefix)))
  )

/**
 * Provides a `FlightStore` in Redis.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: RedisFlightStoreOptions
): Layer.Layer<FlightStore, InvalidOptions, Redis.Redis> => Layer.effect(FlightStore, make(options))

type Service = FlightStore["Service"]
type Verb = keyof Service

/** How many entries `purge` deletes at a time. */
const pageSize = 1_000

/** How long an entry is listed while its call runs. */
const listedMillis = 3_600_000

const storeOn = (redis: Redis.Redis["Service"], prefix: string): Service => {
  const scripts = {
    claim: redis.eval(Scripts.claim),
    renew: redis.eval(Scripts.renew),
    complete: redis.eval(Scripts.complete),
    release: redis.eval(Scripts.release),
    addToIndex: redis.eval(Scripts.addToIndex)
  }
  const channel = `${prefix}flights`
  const entryOf = (key: string) => `${prefix}flight:{${encodeKey(key)}}`
  const indexOf = (by: "operation" | "tenant", hash: string) => `${channel}:${by}:{${encodeKey(hash)}}`

  const send = <A>(operation: Verb, reply: Effect.Effect<A, Redis.RedisError>): Effect.Effect<A, StoreError> =>
    Effect.mapError(reply, (error) => new StoreError({ operation, description: describeError(error) }))

  /** Decodes a reply. A reply of another form than the script's is a `StoreError`. */
  const answer = <A>(
    operation: Verb,
    reply: Effect.Effect<unknown, Redis.RedisError>,
    decode: (reply: unknown) => A | undefined
  ): Effect.Effect<A, StoreError> =>
    Effect.flatMap(send(operation, reply), (reply) => {
      const decoded = decode(reply)
      return decoded === undefined
        ? Effect.fail(new StoreError({ operation, description: "Redis returned an invalid reply" }))
        : Effect.succeed(decoded)
    })

  /** Lists the entry under its operation and its tenant. */
  const list = (verb: Verb, { key, operation, tenant }: Flight, forMillis: number): Effect.Effect<void, StoreError> => {
    const indexes = [indexOf("operation", operation), ...tenant === "" ? [] : [indexOf("tenant", tenant)]]
    const add = (index: string) => send(verb, scripts.addToIndex(index, encodeKey(key), forMillis))
    return Effect.forEach(indexes, add, { concurrency: 2, discard: true })
  }

  const claim: Service["claim"] = (request) => {
    const { following = -1, id, key, leaseMillis } = request
    const millis = inMillis(leaseMillis)
    if (millis === undefined) return invalid("claim", "leaseMillis is invalid")
    const args = { id: encodeKey(id), leaseMillis: millis, following }
    // Before the call starts: a purge has to find every entry.
    return Effect.tap(
      answer("claim", scripts.claim(entryOf(key), args), claimedIn),
      ({ _tag }) => _tag === "Lead" ? list("claim", request, Math.max(millis, listedMillis)) : Effect.void
    )
  }

  const complete: Service["complete"] = (request) => {
    const { id, key, result } = request
    const [freshMillis, keepMillis] = [inMillis(request.freshMillis), inMillis(request.keepMillis)]
    if (freshMillis === undefined || keepMillis === undefined) return invalid("complete", "a duration is invalid")
    const member = encodeKey(key)
    const args = { id: encodeKey(id), result, freshMillis, keepMillis, channel, key: member }
    const completed = answer("complete", scripts.complete(entryOf(key), args), flagIn)
    return freshMillis + keepMillis < listedMillis / 2
      ? completed
      : Effect.andThen(list("complete", request, Math.max(freshMillis, keepMillis)), completed)
  }

  const remove = (keys: ReadonlyArray<string>): Effect.Effect<number, StoreError> =>
    Effect.map(
      // One by one, since keys in different slots cannot share a command.
      Effect.forEach(keys, (key) => answer("purge", redis.send("DEL", `${prefix}flight:{${key}}`), numberIn), {
        concurrency: 100
      }),
      (removed) => removed.reduce((sum, one) => sum + one, 0)
    )

  const purgeIndex = Effect.fnUntraced(function*(index: string) {
    let purged = 0
    for (;;) {
      const page = yield* answer("purge", redis.send("ZRANGE", index, "0", String(pageSize - 1)), textsIn)
      if (page.length === 0) return purged
      purged += yield* remove(page)
      yield* send("purge", redis.send("ZREM", index, ...page))
      // A call that has started since then is no longer listed.
      purged += yield* remove(page)
    }
  })

  return {
    claim,
    complete,
    renew: ({ id, key, leaseMillis }) => {
      const millis = inMillis(leaseMillis)
      return millis === undefined
        ? invalid("renew", "leaseMillis is invalid")
        : answer("renew", scripts.renew(entryOf(key), { id: encodeKey(id), leaseMillis: millis }), flagIn)
    },
    release: ({ id, key }) =>
      answer("release", scripts.release(entryOf(key), { id: encodeKey(id), channel, key: encodeKey(key) }), flagIn),
    purge: ({ by, hash }) => by === "key" ? remove([encodeKey(hash)]) : purgeIndex(indexOf(by, hash)),
    finished: Stream.unwrap(Effect.map(redis.subscribe(channel), (messages) => Stream.fromQueue(messages))).pipe(
      Stream.mapError((error) => new StoreError({ operation: "finished", description: describeError(error) })),
      Stream.map(({ message }) => decodeKey(message)),
      Stream.filter((key) => key !== undefined)
    )
  }
}

/** Whole milliseconds that a script can count with. */
const inMillis = (millis: number): number | undefined =>
  millis >= 0 ? Math.min(Math.ceil(millis), maxMillis) : undefined

const claimedIn = (reply: unknown): Claimed | undefined => {
  if (!Array.isArray(reply)) return undefined
  const [tag, generation, millis] = [reply[0], Number(reply[1]), Number(reply[2])]
  const result: unknown = reply[3]
  if (!Number.isSafeInteger(generation) || !Number.isFinite(millis)) return undefined
  if (tag === "Lead") return { _tag: "Lead", generation }
  if (tag === "Follow") return { _tag: "Follow", generation, leaseMillis: millis }
  if (tag !== "Result" || typeof result !== "string") return undefined
  return { _tag: "Result", generation, result, freshMillis: millis }
}

const flagIn = (reply: unknown): boolean | undefined => reply === 1 || reply === 0 ? reply === 1 : undefined

const numberIn = (reply: unknown): number | undefined => typeof reply === "number" ? reply : undefined

const textsIn = (reply: unknown): ReadonlyArray<string> | undefined =>
  Array.isArray(reply) ? reply.map(String) : undefined

const invalid = (operation: Verb, description: string): Effect.Effect<never, StoreError> =>
  Effect.suspend(() => Effect.fail(new StoreError({ operation, description })))

const readOptions = (input: RedisFlightStoreOptions = {}): Effect.Effect<string, InvalidOptions> => {
  const options = new OptionsReader("RedisFlightStore")
  const { prefix = "sluice:" } = options.object("options", input, { prefix: true })
  if (typeof prefix !== "string" || prefix.length > 200 || /[{}]/.test(prefix)) {
    options.refuse("prefix", prefix, "must be a string of at most 200 characters, without braces")
  }
  return options.check(prefix)
}
