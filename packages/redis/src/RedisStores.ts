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
 * Those of each store hold: see `RedisCircuitBreakerStore`.
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
 * export const layer = Gpt.layer.pipe(Layer.provide(RedisStores.layer()), Layer.provide(Redis))
 * ```
 *
 * @since 0.1.0
 */
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import type * as Layer from "effect/Layer"
import type * as Redis from "effect/persistence/Redis"
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
