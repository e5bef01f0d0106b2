/** The tables of Effect's queue and cluster, which make them when they are built. */
import * as SqlRunnerStorage from "effect/cluster/SqlRunnerStorage"
import * as ShardingConfig from "effect/cluster/ShardingConfig"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Queue from "./queue.ts"

/** The cluster runs on PostgreSQL only: on SQLite there is one machine. */
export const make: Effect.Effect<void, SqlError, SqlClient.SqlClient> = Effect.flatMap(SqlClient.SqlClient, (sql) => {
  const queue = Effect.scoped(Layer.build(Queue.layer))
  const cluster = Effect.scoped(
    Layer.build(SqlRunnerStorage.layer.pipe(Layer.provide(ShardingConfig.layer())))
  )
  const isSqlite = sql.onDialectOrElse({ sqlite: () => true, orElse: () => false })
  return isSqlite ? Effect.asVoid(queue) : Effect.asVoid(Effect.andThen(queue, cluster))
})
