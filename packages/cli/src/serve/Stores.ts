/** The stores of circuits and limits: in this process, or in a database that gateways share. */
import type { NodeRedis } from "@effect/platform-node/NodeRedis"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as QuotaStore from "@sluice/core/QuotaStore"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Run from "../run/Settings.ts"
import * as Terminal from "../Terminal.ts"
import * as UrlSecrets from "../UrlSecrets.ts"

type Stores = CircuitBreakerStore.CircuitBreakerStore | QuotaStore.QuotaStore

/** Loads the client of a database only if it is used. Also starts while the database is down. */
export const layer = (url: string | undefined): Layer.Layer<Stores, Run.SettingsError> =>
  url === undefined
    ? Layer.merge(CircuitBreakerStore.layerMemory, QuotaStore.layerMemory)
    : Layer.unwrap(Effect.promise(() => /^rediss?:/.test(url) ? redis(url) : postgres(url)))

const postgres = async (url: string): Promise<Layer.Layer<Stores, Run.SettingsError>> => {
  const [SqlDatabase, SqlStores] = await Promise.all([
    import("@sluice/sql/SqlDatabase"),
    import("@sluice/sql/SqlStores")
  ])
  return SqlStores.layer().pipe(
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
    Redis.layer({ url, disableOfflineQueue: true })
  )
  // The options are valid.
  return Layer.orDie(RedisStores.layerInBackground(connection))
}
