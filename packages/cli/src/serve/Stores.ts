/** The stores of circuits and limits: in this process, or in a database that gateways share. */
import type { NodeRedis } from "@effect/platform-node/NodeRedis"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as QuotaStore from "@sluice/core/QuotaStore"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

type Stores = CircuitBreakerStore.CircuitBreakerStore | QuotaStore.QuotaStore

/** Loads the client of a database only if it is used. */
export const layer = (url: string | undefined): Layer.Layer<Stores> =>
  url === undefined
    ? Layer.merge(CircuitBreakerStore.layerMemory, QuotaStore.layerMemory)
    : Layer.unwrap(Effect.promise(() => redis(url)))

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
