/**
 * Shares flights between processes through Postgres or SQLite: one process runs a call, and the others get its result.
 *
 * Each verb of the store is one statement, and so one round trip.
 *
 * **When to use**
 *
 * With `Deduplicator.layerStore`, or the option `shared` of a policy's deduplicator. `SqlStores.layer` provides this store and all
 * others.
 *
 * **Details**
 *
 * - A call that no other process makes costs three statements. It waits for one of them. The result of another process costs one.
 * - The tables have to be there, see `SqlStores.migrate`. If they are missing or too old, the layer fails with `TablesOutdated`. If the
 *   database cannot be reached, the layer logs a warning and builds: each process shares flights by itself until it can.
 * - Results are in clear text, and keys are hashes. The table is not logged by Postgres: a crash of the server and a failover empty it,
 *   and its calls are made again.
 * - Postgres notifies the processes of calls that others wait for, by `LISTEN`. Each process that shares flights keeps one connection of
 *   its pool for it. With a `PgClient` whose options name no `maxConnections` above 1, behind a pooler that does not support `LISTEN`, and
 *   on SQLite, followers ask again instead: every second, or every quarter of a second where the store knows that it cannot be notified.
 * - On Postgres times are the server's, so the clocks of the processes do not matter. Expired results are deleted at the end of other
 *   flights, a minute after their time to live or later.
 *
 * **Gotchas**
 *
 * - On SQLite times are those of the process. Use it for processes of one machine.
 * - See also the gotchas of `SqlCircuitBreakerStore`.
 *
 * **Example** (A deduplicator of several processes)
 *
 * ```ts
 * import { Config, Layer } from "effect"
 * import * as Deduplicator from "@sluice/core/Deduplicator"
 * import * as SqlDatabase from "@sluice/sql/SqlDatabase"
 * import * as SqlFlightStore from "@sluice/sql/SqlFlightStore"
 *
 * export const Shared = Deduplicator.layerStore({ timeToLive: "1 hour" }).pipe(
 *   Layer.provide(SqlFlightStore.layer()),
 *   Layer.provide(SqlDatabase.layerConfig({ url: Config.Redacted("DATABASE_URL") }))
 * )
 * ```
 *
 * @since 0.1.0
 */
import type { PgClient, PgPoolConfig } from "@effect/sql-pg/PgClient"
import { StoreError } from "@sluice/core/CircuitBreakerStore"
import { FlightStore } from "@sluice/core/FlightStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { decodeKey, maxMillis } from "@sluice/core/StoreCodec"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Stream from "effect/Stream"
import { describeError } from "./internal/describeError.ts"
import { channel, type Verbs, verbsOn } from "./internal/flight/statements.ts"
import { open, type Session } from "./internal/session.ts"
import { needed } from "./internal/tables.ts"
import type { TablesOutdated } from "./Migrations.ts"

/**
 * Builds the store on a `SqlClient`. It has no state in the process: two stores on the same tables are the same.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = Effect.fnUntraced(
  function*(): Effect.fn.Return<FlightStore["Service"], InvalidOptions | TablesOutdated, SqlClient> {
    const sql = yield* SqlClient
    const session = yield* open("SqlFlightStore", (dialect) => needed(dialect, false))
    return FlightStore.of(storeOn(session, verbsOn(session), canListen(sql) ? listen(sql) : undefined))
  }
)

/**
 * Provides a `FlightStore` in Postgres or SQLite.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (): Layer.Layer<FlightStore, InvalidOptions | TablesOutdated, SqlClient> =>
  Layer.effect(FlightStore, make())

type Service = FlightStore["Service"]
type Verb = keyof Service

const storeOn = (session: Session, verbs: Verbs, finished: Service["finished"]): Service => ({
  claim: (request) =>
    isDuration(request.leaseMillis)
      ? session.verb(
        "claim",
        Effect.flatMap(
          verbs.claim(request),
          (claimed) =>
            claimed === undefined ? failWith("claim", "a row of the flights is invalid") : Effect.succeed(claimed)
        )
      )
      : failWith("claim", invalidDuration),
  renew: (request) =>
    isDuration(request.leaseMillis) ? session.verb("renew", verbs.renew(request)) : failWith("renew", invalidDuration),
  complete: (request) =>
    isDuration(request.freshMillis) && isDuration(request.keepMillis)
      ? session.verb("complete", verbs.complete(request))
      : failWith("complete", invalidDuration),
  release: (flight) => session.verb("release", verbs.release(flight)),
  purge: (request) => session.verb("purge", verbs.purge(request)),
  finished
})

const canListen = (sql: SqlClient): sql is PgClient => {
  if (!("listen" in sql) || typeof sql.listen !== "function" || !("config" in sql)) return false
  // A listener keeps its connection, and the only one would be missing to all statements. A client without a pool names no limit. A pooler
  // that keeps no prepared statements keeps no listener either.
  const { maxConnections = 1, prepare } = sql.config as PgPoolConfig
  return maxConnections > 1 && prepare !== false
}

const listen = (sql: PgClient): Stream.Stream<string, StoreError> =>
  Stream.unwrap(Effect.map(sql.listen(channel), (notifications) => Stream.fromQueue(notifications))).pipe(
    Stream.mapError((error: SqlError) => new StoreError({ operation: "finished", description: describeError(error) })),
    Stream.map(({ payload }) => decodeKey(payload)),
    Stream.filter((key) => key !== undefined)
  )

const isDuration = (millis: number): boolean => millis >= 0 && millis <= maxMillis

const invalidDuration = "a duration is invalid"

const failWith = (operation: Verb, description: string): Effect.Effect<never, StoreError> =>
  Effect.suspend(() => Effect.fail(new StoreError({ operation, description })))
