/** The tables of Effect's queue and cluster. */
import * as SqlRunnerStorage from "effect/cluster/SqlRunnerStorage"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Queue from "./queue.ts"
import type { Db } from "./tables/db.ts"

/** Begins the names of the cluster's tables, so that a cluster of the application in the same schema stays apart. */
const names = { prefix: "sluice_batch" }

export const runners = SqlRunnerStorage.layerStorage(names)

/** The cluster runs on PostgreSQL only: on SQLite there is one machine. */
export const make: Effect.Effect<void, SqlError, SqlClient.SqlClient> = Effect.flatMap(SqlClient.SqlClient, (sql) => {
  const queue = Effect.asVoid(Effect.scoped(Layer.build(Queue.layer)))
  const cluster = Effect.scoped(Layer.build(SqlRunnerStorage.layerMigrations(names)))
  // A right to a table does not include its sequence, and a runner that cannot register says nothing.
  const rights =
    sql`grant usage on sequence sluice_batch_runners_machine_id_seq, sluice_batch_queue_sequence_seq to public`
  // The engine compares local times of sessions. Two time zones, or the end of summer time, would make a lease that is held look lapsed.
  const zoned = Effect.forEach(
    localTimes,
    ([table, ...columns]) =>
      sql.unsafe(`alter table ${table} ${columns.map((column) => `alter ${column} type timestamptz`).join(", ")}`)
  )
  const isSqlite = sql.onDialectOrElse({ sqlite: () => true, orElse: () => false })
  return isSqlite
    ? queue
    : queue.pipe(Effect.andThen(cluster), Effect.andThen(zoned), Effect.andThen(rights), Effect.asVoid)
})

const localTimes = [
  ["sluice_batch_queue", "visible_at", "acquired_at", "created_at", "updated_at"],
  ["sluice_batch_runners", "last_heartbeat"],
  ["sluice_batch_locks", "acquired_at"]
] as const

/** Forgets processes that were silent for a day. The cluster keeps each that was killed. */
export const forgetDead = ({ isSqlite, sql }: Db): Effect.Effect<unknown, SqlError> =>
  isSqlite ? Effect.void : sql`delete from sluice_batch_runners where last_heartbeat < now() - interval '1 day'`
