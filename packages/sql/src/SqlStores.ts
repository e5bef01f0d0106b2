/**
 * All of Sluice's stores on Postgres or SQLite, in one layer.
 *
 * @since 0.1.0
 */
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { SqlClient } from "effect/sql/SqlClient"
import { needed } from "./internal/tables.ts"
import type { MigrationFailed, TablesOutdated } from "./Migrations.ts"
import * as SqlCircuitBreakerStore from "./SqlCircuitBreakerStore.ts"

/**
 * Options for all stores.
 *
 * @since 0.1.0
 * @category models
 */
export interface SqlStoresOptions extends SqlCircuitBreakerStore.SqlCircuitBreakerStoreOptions {}

/**
 * Provides all of Sluice's stores, kept in Postgres or SQLite.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: SqlStoresOptions
): Layer.Layer<CircuitBreakerStore, InvalidOptions | TablesOutdated, SqlClient> => SqlCircuitBreakerStore.layer(options)

/**
 * Makes the tables and functions of the stores, and returns the names of the steps that it ran.
 *
 * @since 0.1.0
 * @category migrations
 */
export const migrate = (
  options?: Pick<SqlStoresOptions, "functions">
): Effect.Effect<ReadonlyArray<string>, MigrationFailed, SqlClient> =>
  Effect.flatMap(SqlClient, (sql) => {
    const dialect = sql.onDialectOrElse({ pg: () => "pg" as const, orElse: () => "sqlite" as const })
    const steps = Effect.forEach(needed(dialect, options?.functions ?? true), ({ migrate }) => migrate)
    return Effect.map(steps, (steps) => steps.flat())
  })

/**
 * Provides all of Sluice's stores, after it has made their tables.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMigrate = (
  options?: SqlStoresOptions
): Layer.Layer<CircuitBreakerStore, InvalidOptions | TablesOutdated | MigrationFailed, SqlClient> =>
  Layer.unwrap(Effect.as(migrate(options), layer(options)))
