/**
 * Sluice's stores on Postgres and SQLite.
 *
 * @since 0.1.0
 */
export * as Migrations from "./Migrations.ts"
export * as SqlCircuitBreakerStore from "./SqlCircuitBreakerStore.ts"
export * as SqlDatabase from "./SqlDatabase.ts"
export * as SqlFlightStore from "./SqlFlightStore.ts"
export * as SqlQuotaStore from "./SqlQuotaStore.ts"
export * as SqlStores from "./SqlStores.ts"
