/**
 * Sluice's stores on Redis.
 *
 * @since 0.1.0
 */
export * as RedisCircuitBreakerStore from "./RedisCircuitBreakerStore.ts"
export * as RedisFlightStore from "./RedisFlightStore.ts"
export * as RedisQuotaStore from "./RedisQuotaStore.ts"
export * as RedisStores from "./RedisStores.ts"
