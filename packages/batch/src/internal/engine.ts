/** The tables of Effect's queue and cluster. */
import * as SqlRunnerStorage from "effect/cluster/SqlRunnerStorage"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Queue from "./queue.ts"

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
  const isSqlite = sql.onDialectOrElse({ sqlite: () => true, orElse: () => false })
  return isSqlite ? queue : queue.pipe(Effect.andThen(cluster), Effect.andThen(rights), Effect.asVoid)
})
