/**
 * Hands out the requests of batches as tickets, and ends batches: one feeder for all workers.
 *
 * **When to use**
 *
 * - `layer` on one machine. `BatchMachine` includes it.
 * - `layerCluster` in every process of several machines. Effect's cluster runs it in one of them at a time, and in another one within
 *   6 seconds if that process dies.
 *
 * **Details**
 *
 * | option | default | why this default |
 * |---|---|---|
 * | `window` | 4 for each slot of the live workers | no worker waits, and a small batch starts soon |
 * | `ticket` | 100 requests | one row of the queue for each; small batches have smaller ones |
 * | `every` | 200 ms | a small batch waits this long to start |
 * | `grace` | 10 minutes | how long calls of a cancelled or expired batch are awaited before the rest is marked |
 *
 * - Batches of a higher priority go first. Batches of equal priority share the window.
 * - Two feeders at once do no harm: each change is made once.
 *
 * **Example** (A feeder that starts small batches sooner)
 *
 * ```ts
 * import * as Feeder from "@sluice/batch/Feeder"
 *
 * export const layer = Feeder.layerCluster({ every: "50 millis" })
 * ```
 *
 * @since 0.1.0
 */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import type { TablesOutdated } from "@sluice/sql/Migrations"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as MessageStorage from "effect/cluster/MessageStorage"
import * as RunnerAddress from "effect/cluster/RunnerAddress"
import * as RunnerHealth from "effect/cluster/RunnerHealth"
import * as Runners from "effect/cluster/Runners"
import * as Sharding from "effect/cluster/Sharding"
import * as ShardingConfig from "effect/cluster/ShardingConfig"
import * as Singleton from "effect/cluster/Singleton"
import * as Option from "effect/Option"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Engine from "./internal/engine.ts"
import * as Internal from "./internal/feeder.ts"
import { identity } from "./internal/identity.ts"
import * as Queue from "./internal/queue.ts"
import * as Db from "./internal/tables/db.ts"
import { withTables } from "./internal/withTables.ts"

/**
 * Options for a feeder. The page of this module has the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface FeederOptions {
  readonly window?: number | undefined
  readonly ticket?: number | undefined
  readonly every?: Duration.Input | undefined
  readonly grace?: Duration.Input | undefined
}

const known: { readonly [K in keyof FeederOptions]-?: true } = { window: true, ticket: true, every: true, grace: true }

const read = (input: FeederOptions): Effect.Effect<Internal.Options, InvalidOptions> => {
  const reader = new OptionsReader("Feeder")
  const options = reader.object("options", input, known)
  return reader.check({
    window: options.window === undefined ? undefined : reader.integer("window", options.window, 1),
    ticket: reader.integer("ticket", options.ticket ?? 100, 1, 1_000),
    everyMillis: reader.millis("every", options.every ?? "200 millis", 10, 60_000),
    graceMillis: reader.millis("grace", options.grace ?? "10 minutes", 0, 86_400_000)
  })
}

const make = (options: FeederOptions) =>
  Effect.gen(function*() {
    return new Internal.Feeder(yield* read(options), yield* Db.make, yield* Queue.make)
  })

/**
 * Feeds from this process until the scope closes. Fails if the tables are missing or outdated.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: FeederOptions = {}
): Layer.Layer<never, InvalidOptions | SqlError | TablesOutdated, SqlClient> =>
  withTables(
    Layer.merge(
      Layer.effectDiscard(Effect.flatMap(make(options), (feeder) => Effect.forkScoped(feeder.run))),
      Queue.cleanup
    ).pipe(Layer.provide(Queue.layer))
  )

/** A process that died is replaced within the time of a lease. The cluster's own times are half a minute. */
const cluster = Sharding.layer.pipe(
  Layer.provide(Runners.layerNoop),
  Layer.provide(MessageStorage.layerNoop),
  Layer.provide([Engine.runners, RunnerHealth.layerNoop]),
  Layer.provide(Layer.unwrap(Effect.map(Queue.Times, ({ lease, refresh }) =>
    ShardingConfig.layer({
      // An identity only: no port is opened.
      runnerAddress: Option.some(RunnerAddress.make(identity(), 1)),
      // Rows of the cluster's table instead. Advisory locks belong to the whole database, so the feeders of two schemas would share one.
      shardLockDisableAdvisory: true,
      refreshAssignmentsInterval: "500 millis",
      shardLockExpiration: lease,
      shardLockRefreshInterval: refresh,
      shardsPerGroup: 16
    })))),
  Layer.provide(Queue.untraced)
)

/**
 * Feeds from one process of those that share the database, chosen by Effect's cluster. Fails if the tables are missing or outdated.
 *
 * **Details**
 *
 * Opens no port. The processes find each other in tables of the cluster, whose names begin with `sluice_batch_`, and lease its locks
 * there. So batches in two schemas of a database have two feeders, and a cluster of the application is another one.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerCluster = (
  options: FeederOptions = {}
): Layer.Layer<never, InvalidOptions | SqlError | TablesOutdated, SqlClient> =>
  withTables(
    Layer.merge(
      Layer.unwrap(
        Effect.map(make(options), (feeder) => Singleton.make("sluice/batch/feeder", feeder.run))
      ).pipe(Layer.provide(cluster)),
      Queue.cleanup
    ).pipe(Layer.provide(Queue.layer))
  )
