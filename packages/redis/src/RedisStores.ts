/**
 * All stores of Sluice on Redis, in one layer: today the circuit breaker's.
 *
 * **When to use**
 *
 * Where a policy needs `Sluice.layerStoresMemory`, to share its state with other processes. To give one store a prefix or
 * expiry of its own, use its module, as `RedisCircuitBreakerStore`.
 *
 * **Details**
 *
 * It needs Effect's `Redis` service: `NodeRedis` of `@effect/platform-node` on Node, with the client that this package does
 * not bring. Redis 5 or later, or a server that speaks its language; tested on 7.0.
 *
 * **Gotchas**
 *
 * - A Redis that cannot be reached when the program starts fails the layer of its client, and so the program. To start all the
 *   same, use `layerInBackground`.
 * - Those of each store hold: see `RedisCircuitBreakerStore`.
 *
 * **Example** (A policy that shares its circuits)
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
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Layer from "effect/Layer"
import type * as Redis from "effect/persistence/Redis"
import { redisInBackground } from "./internal/redisInBackground.ts"
import * as RedisCircuitBreakerStore from "./RedisCircuitBreakerStore.ts"

/**
 * What all stores have in common.
 *
 * @since 0.1.0
 * @category models
 */
export interface RedisStoresOptions extends RedisCircuitBreakerStore.RedisCircuitBreakerStoreOptions {}

/**
 * Provides every store that Sluice has, kept in Redis. The prefix is one for all: each store adds a word of its own.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: RedisStoresOptions
): Layer.Layer<CircuitBreakerStore, InvalidOptions, Redis.Redis> => RedisCircuitBreakerStore.layer(options)

/**
 * Provides every store that Sluice has, kept in the Redis of that layer, which need not be there yet.
 *
 * **When to use**
 *
 * So that a program starts although Redis is down. `layer` does not: it needs a connection, and without one it is not built.
 *
 * **Details**
 *
 * - The start waits until Redis is connected or has failed for the first time, and for a second at most. Then it goes on, with a
 *   warning, and the connection is tried again: after a tenth of a second, then ever less often, at last every five seconds.
 * - Until it is there each store fails as one that is down: breakers go on with circuits of their own process, and take up the
 *   shared ones when they come.
 * - Only a `RedisError` is tried again. Whatever else the layer fails with, as a `ConfigError`, it fails with at the start.
 *
 * **Gotchas**
 *
 * - A wrong password or a wrong port is a Redis that is down: the warning names a code, and the program runs without it.
 * - The connection is the stores' own: another user of the same layer opens a second one.
 * - `NodeRedis` warns of each attempt that fails, with the address.
 *
 * **Example** (Nobody listens, and the call is made)
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
): Layer.Layer<CircuitBreakerStore, InvalidOptions | Exclude<E, Redis.RedisError>, R> =>
  Layer.provide(layer(options), redisInBackground(redis))
