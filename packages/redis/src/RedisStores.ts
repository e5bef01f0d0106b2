/**
 * All of Sluice's stores on Redis, in one layer: those of circuits, of quotas and of flights.
 *
 * **When to use**
 *
 * In place of `Sluice.layerStoresMemory`, to share a policy's state with other processes. To set the options of a single store,
 * use its own module, such as `RedisCircuitBreakerStore`.
 *
 * **Details**
 *
 * Needs Effect's `Redis` service. On Node that is `NodeRedis` of `@effect/platform-node`; the `redis` client has to be installed
 * beside it. Works with Redis 5 or later, or a compatible server. Tested on 7.0.
 *
 * **Gotchas**
 *
 * - A Redis that cannot be reached when the program starts fails the layer of its client, and so the program. Use
 *   `layerInBackground` to start without it.
 * - See also the gotchas of `RedisCircuitBreakerStore`.
 *
 * **Example** (A policy with shared circuits)
 *
 * ```ts
 * import * as NodeRedis from "@effect/platform-node/NodeRedis"
 * import { Config, Layer } from "effect"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 * import * as Sluice from "@sluice/core/Sluice"
 * import * as RedisStores from "@sluice/redis/RedisStores"
 *
 * class Gpt extends Sluice.Service<Gpt>()("app/Gpt", {
 *   name: "gpt",
 *   breaker: { trip: CircuitBreaker.consecutive(5), openFor: "30 seconds" }
 * }) {}
 *
 * const Redis = NodeRedis.layerConfig({ url: Config.String("REDIS_URL"), disableOfflineQueue: Config.succeed(true) })
 *
 * export const layer = Gpt.layerStore.pipe(Layer.provide(RedisStores.layer()), Layer.provide(Redis))
 * ```
 *
 * @since 0.1.0
 */
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import type { FlightStore } from "@sluice/core/FlightStore"
import type { QuotaStore } from "@sluice/core/QuotaStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Layer from "effect/Layer"
import type * as Redis from "effect/persistence/Redis"
import { redisInBackground } from "./internal/redisInBackground.ts"
import * as RedisCircuitBreakerStore from "./RedisCircuitBreakerStore.ts"
import * as RedisFlightStore from "./RedisFlightStore.ts"
import * as RedisQuotaStore from "./RedisQuotaStore.ts"

/**
 * Options for all stores.
 *
 * @since 0.1.0
 * @category models
 */
export interface RedisStoresOptions extends RedisCircuitBreakerStore.RedisCircuitBreakerStoreOptions {}

/**
 * Provides all of Sluice's stores, kept in Redis. They share the prefix; each store adds its own word.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: RedisStoresOptions
): Layer.Layer<CircuitBreakerStore | FlightStore | QuotaStore, InvalidOptions, Redis.Redis> =>
  // The store of circuits has checked the same options.
  Layer.mergeAll(
    RedisCircuitBreakerStore.layer(options),
    RedisFlightStore.layer({ prefix: options?.prefix }),
    RedisQuotaStore.layer({ prefix: options?.prefix })
  )

/**
 * Provides all of Sluice's stores, and connects to Redis in the background if Redis cannot be reached at the start.
 *
 * **When to use**
 *
 * To start a program while Redis is down. `layer` needs a connection to be built.
 *
 * **Details**
 *
 * - The start waits for the first attempt to connect, at most one second. If it fails, a warning is logged. Further attempts
 *   follow after 100 ms, then with a growing delay of at most five seconds.
 * - Until Redis is connected, the stores fail with `StoreError`. Breakers use circuits of their own process, and the shared ones
 *   from then on.
 * - Only a `RedisError` is retried. Other errors of the layer, such as a `ConfigError`, fail the start.
 *
 * **Gotchas**
 *
 * - A wrong password or port counts as a Redis that is down. The warning names a code, and the program runs without shared
 *   state.
 * - The connection belongs to the stores. To share it with others, provide `connectInBackground` to both.
 * - `NodeRedis` logs a warning with the address for each failed attempt.
 *
 * **Example** (A call without a reachable Redis)
 *
 * ```ts
 * import * as NodeRedis from "@effect/platform-node/NodeRedis"
 * import { Effect, Layer, Logger } from "effect"
 * import * as Sluice from "@sluice/core/Sluice"
 * import * as RedisStores from "@sluice/redis/RedisStores"
 *
 * class Gpt extends Sluice.Service<Gpt>()("app/Gpt", { name: "gpt", breaker: { openFor: "30 seconds" } }) {}
 *
 * const Redis = NodeRedis.layer({ url: "redis://127.0.0.1:1", disableOfflineQueue: true })
 * const layer = Gpt.layerStore.pipe(Layer.provide(RedisStores.layerInBackground(Redis)))
 *
 * const program = Gpt.use((gpt) => gpt.protect(Effect.succeed("an answer"))).pipe(Effect.provide(layer))
 *
 * console.log(await Effect.runPromise(program.pipe(Effect.provide(Logger.layer([]))))) // => an answer
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerInBackground = <E, R>(
  redis: Layer.Layer<Redis.Redis, E, R>,
  options?: RedisStoresOptions
): Layer.Layer<CircuitBreakerStore | FlightStore | QuotaStore, InvalidOptions | Exclude<E, Redis.RedisError>, R> =>
  Layer.provide(layer(options), connectInBackground(redis))

/**
 * Provides a `Redis` that is connected in the background, as `layerInBackground` does it.
 *
 * **When to use**
 *
 * To give the stores and other parts of a program one connection.
 *
 * @since 0.1.0
 * @category layers
 */
export const connectInBackground: <E, R>(
  redis: Layer.Layer<Redis.Redis, E, R>
) => Layer.Layer<Redis.Redis, Exclude<E, Redis.RedisError>, R> = redisInBackground
