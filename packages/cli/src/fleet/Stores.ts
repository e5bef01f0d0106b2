/** The stores of circuits and limits: in this process, or in a database that gateways share. */
import type { NodeRedis } from "@effect/platform-node/NodeRedis"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as QuotaStore from "@sluice/core/QuotaStore"
import type { MigrationFailed, TablesOutdated } from "@sluice/sql/Migrations"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import type { SqlClient } from "effect/sql/SqlClient"
import * as Run from "../run/Settings.ts"
import * as Sqlite from "../Sqlite.ts"
import * as Terminal from "../Terminal.ts"
import * as UrlSecrets from "../UrlSecrets.ts"
import * as Audit from "./Audit.ts"

export type Stores = Audit.Audit | CircuitBreakerStore.CircuitBreakerStore | QuotaStore.QuotaStore

/** Loads the client of a database only if it is used. Also starts while the database is down. */
export const layer = (url: string | undefined): Layer.Layer<Stores, Run.SettingsError> =>
  url === undefined
    ? Layer.mergeAll(CircuitBreakerStore.layerMemory, QuotaStore.layerMemory, Audit.layerMemory)
    : Layer.unwrap(Effect.promise(() => /^rediss?:/.test(url) ? redis(url) : sql(url)))

/** Makes the tables of a file of SQLite, but not those of a server: the role may not be allowed to. */
const sql = async (url: string): Promise<Layer.Layer<Stores, Run.SettingsError>> => {
  const [SqlDatabase, SqlStores] = await Promise.all([
    import("@sluice/sql/SqlDatabase"),
    import("@sluice/sql/SqlStores")
  ])
  const isFile = url.startsWith("sqlite:")
  // Before the client loads it, with a warning on Node 22.
  if (isFile) Sqlite.load()
  const tables: Layer.Layer<never, MigrationFailed | TablesOutdated, SqlClient> = isFile
    ? Audit.migrations.layer
    : Layer.effectDiscard(Effect.catchTag(Audit.migrations.check, "SqlError", () => Effect.void))
  return Layer.merge(
    isFile ? SqlStores.layerMigrate() : SqlStores.layer(),
    Layer.provide(Audit.layerSql, tables)
  ).pipe(
    Layer.provide(SqlDatabase.layer({ url: Redacted.make(url) })),
    Layer.catch((error) =>
      Layer.effectContext(
        Run.refuseAll([`cannot use the store in ${Terminal.escape(UrlSecrets.shown(url))}: ${error.message}`])
      )
    )
  )
}

const closeMillis = 1_000

const redis = async (url: string): Promise<Layer.Layer<Stores>> => {
  const [Redis, RedisStores] = await Promise.all([
    import("@effect/platform-node/NodeRedis"),
    import("@sluice/redis/RedisStores")
  ])
  // The client would wait without an end for the replies of a server that hangs.
  const leave = ({ client }: NodeRedis["Service"]) =>
    Effect.promise(() => client.ping()).pipe(
      Effect.timeout(closeMillis),
      Effect.catchCause(() => Effect.sync(() => client.isOpen && client.destroy()))
    )
  // A command to a server that is down must fail at once, and not wait for the next connection.
  const connection = Layer.provideMerge(
    Layer.effectDiscard(
      Effect.flatMap(Redis.NodeRedis, (redis) => Effect.addFinalizer(() => Effect.interruptible(leave(redis))))
    ),
    // Its client logs each failed connection without a reason. The store logs the first one, with it.
    Layer.provide(Redis.layer({ url, disableOfflineQueue: true }), Layer.succeed(References.MinimumLogLevel, "Error"))
  )
  // The options are valid.
  return Layer.orDie(
    Layer.provide(Layer.merge(RedisStores.layer(), Audit.layerRedis), RedisStores.connectInBackground(connection))
  )
}
