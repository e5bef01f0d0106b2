/**
 * Batches on one machine: a worker and a feeder in this process.
 *
 * **When to use**
 *
 * With a SQLite file, or while one process is enough. For several, run `Worker.layer` and `Feeder.layerCluster` in each.
 *
 * @since 0.1.0
 */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import type { TablesOutdated } from "@sluice/sql/Migrations"
import * as Layer from "effect/Layer"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Asker } from "./Asker.ts"
import * as Batches from "./Batches.ts"
import * as Feeder from "./Feeder.ts"
import * as Worker from "./Worker.ts"

/**
 * Options for both parts.
 *
 * @since 0.1.0
 * @category models
 */
export interface BatchMachineOptions extends Worker.WorkerOptions {
  readonly feeder?: Feeder.FeederOptions | undefined
}

/**
 * Provides `Batches`, and works on them until the scope closes.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  { feeder, ...worker }: BatchMachineOptions
): Layer.Layer<Batches.Batches, InvalidOptions | TablesOutdated | SqlError, Asker | SqlClient> =>
  Layer.merge(Worker.layer(worker), Feeder.layer(feeder)).pipe(Layer.provideMerge(Batches.layer))
