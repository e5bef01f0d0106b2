/**
 * Resilience for calls to slow, flaky and rate-limited services: circuit breaker, retry, deduplication, backpressure, quotas,
 * deadlines, pipelines, and the policies of `Sluice`, which combine them.
 *
 * **When to use**
 *
 * Import from here if load time does not matter, since it loads every module. Otherwise import by path, such as
 * `@sluice/core/Sluice`.
 *
 * **Gotchas**
 *
 * - `EffectCircuitBreaker` is exported only by its path, `@sluice/core/EffectCircuitBreaker`, since it imports an
 *   experimental module of Effect.
 *
 * @since 0.1.0
 */
export * as Admission from "./Admission.ts"
export * as Backpressure from "./Backpressure.ts"
export * as BoundedJson from "./BoundedJson.ts"
export * as CircuitBreaker from "./CircuitBreaker.ts"
export * as CircuitBreakerStore from "./CircuitBreakerStore.ts"
export * as Deadline from "./Deadline.ts"
export * as Deduplicator from "./Deduplicator.ts"
export * as FlightStore from "./FlightStore.ts"
export * as Hub from "./Hub.ts"
export * as InvalidOptions from "./InvalidOptions.ts"
export * as KeyHash from "./KeyHash.ts"
export * as OptionsReader from "./OptionsReader.ts"
export * as Outcome from "./Outcome.ts"
export * as Pipeline from "./Pipeline.ts"
export * as Quota from "./Quota.ts"
export * as QuotaStore from "./QuotaStore.ts"
export * as Refusal from "./Refusal.ts"
export * as RetryPolicy from "./RetryPolicy.ts"
export * as Sluice from "./Sluice.ts"
export * as StoreCodec from "./StoreCodec.ts"
export * as Timer from "./Timer.ts"
