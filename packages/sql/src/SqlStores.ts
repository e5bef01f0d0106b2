/**
 * All of Sluice's stores on Postgres or SQLite, in one layer: those of circuits, of quotas and of flights.
 *
 * **When to use**
 *
 * In place of `Sluice.layerStoresMemory`, to share a policy's state with other processes, where there is a database but no Redis. To set
 * the options of a single store, use its own module, such as `SqlCircuitBreakerStore`.
 *
 * **Details**
 *
 * - Needs a `SqlClient`. `SqlDatabase` makes one from a URL. Works with Postgres 12 or later, and with a file of SQLite for the processes of
 *   one machine. Tested on Postgres 15, and on the SQLite in Node.
 * - `migrate` makes the tables and functions. `layer` only checks that they are there, so a running process needs no right to create tables.
 *   The role needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on the tables whose names begin with `sluice_`.
 * - Statements of the stores have no spans. Most of them run in the background, where each would be a trace of its own.
 *
 * **Gotchas**
 *
 * - See the gotchas of `SqlCircuitBreakerStore`.
 *
 * **Example** (A policy with shared circuits)
 *
 * ```ts
 * import { Config, Layer } from "effect"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 * import * as Sluice from "@sluice/core/Sluice"
 * import * as SqlDatabase from "@sluice/sql/SqlDatabase"
 * import * as SqlStores from "@sluice/sql/SqlStores"
 *
 * class Gpt extends Sluice.Service<Gpt>()("app/Gpt", {
 *   name: "gpt",
 *   breaker: { trip: CircuitBreaker.consecutive(5), openFor: "30 seconds" }
 * }) {}
 *
 * export const layer = Gpt.layerStore.pipe(
 *   Layer.provide(SqlStores.layer()),
 *   Layer.provide(SqlDatabase.layerConfig({ url: Config.Redacted("DATABASE_URL") }))
 * )
 * ```
 *
 * @since 0.1.0
 */
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import type { FlightStore } from "@sluice/core/FlightStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import type { QuotaStore } from "@sluice/core/QuotaStore"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { SqlClient } from "effect/sql/SqlClient"
import { needed } from "./internal/tables.ts"
import type { MigrationFailed, TablesOutdated } from "./Migrations.ts"
import * as SqlCircuitBreakerStore from "./SqlCircuitBreakerStore.ts"
import * as SqlFlightStore from "./SqlFlightStore.ts"
import * as SqlQuotaStore from "./SqlQuotaStore.ts"

/**
 * Options for all stores.
 *
 * @since 0.1.0
 * @category models
 */
export interface SqlStoresOptions extends SqlCircuitBreakerStore.SqlCircuitBreakerStoreOptions {}

/**
 * Provides all of Sluice's stores, kept in Postgres or SQLite. Fails with `TablesOutdated` if their tables are missing or too old.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: SqlStoresOptions
): Layer.Layer<CircuitBreakerStore | FlightStore | QuotaStore, InvalidOptions | TablesOutdated, SqlClient> =>
  // The store of circuits checks the other options.
  Layer.mergeAll(
    SqlCircuitBreakerStore.layer(options),
    SqlFlightStore.layer(),
    SqlQuotaStore.layer({ functions: options?.functions })
  )

/**
 * Makes the tables and functions of the stores, and returns the names of the steps that it ran.
 *
 * **Details**
 *
 * It needs a role that may create tables. It can run while other processes use the stores, and if several processes run it, each step
 * runs once. With `functions: false` it makes no functions, for stores with that option.
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
 * Provides all of Sluice's stores, after it has made their tables. For tests, and for a file of SQLite.
 *
 * **Example** (Stores in memory)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
 * import * as SqlDatabase from "@sluice/sql/SqlDatabase"
 * import * as SqlStores from "@sluice/sql/SqlStores"
 *
 * const Stores = Layer.provide(SqlStores.layerMigrate(), SqlDatabase.layer({ url: "sqlite::memory:" }))
 *
 * const program = Effect.gen(function*() {
 *   const store = yield* CircuitBreakerStore
 *   const window = { calls: 10, bucketMillis: 0, buckets: 0 }
 *   yield* store.record({ key: "openai", window, generation: 0, samples: "X0" })
 *   return (yield* store.read({ key: "openai", window })).evidence.ring
 * })
 *
 * console.log(await Effect.runPromise(Effect.provide(program, Stores))) // => X0
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMigrate = (
  options?: SqlStoresOptions
): Layer.Layer<
  CircuitBreakerStore | FlightStore | QuotaStore,
  InvalidOptions | TablesOutdated | MigrationFailed,
  SqlClient
> => Layer.unwrap(Effect.as(migrate(options), layer(options)))
