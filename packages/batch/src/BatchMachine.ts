/**
 * Batches on one machine: a worker and a feeder in this process.
 *
 * **When to use**
 *
 * With a SQLite file, or while one process is enough. For several, run `Worker.layer` and `Feeder.layerCluster` in each.
 *
 * **Example** (A budget of a cent)
 *
 * ```ts
 * import * as Asker from "@sluice/batch/Asker"
 * import * as Batches from "@sluice/batch/Batches"
 * import * as BatchMachine from "@sluice/batch/BatchMachine"
 * import { Effect, Layer, Stream } from "effect"
 * import * as SqlDatabase from "@sluice/sql/SqlDatabase"
 *
 * // Each answer costs 4,000 millionths of a dollar.
 * const Echo = Layer.succeed(
 *   Asker.Asker,
 *   Asker.Asker.of({
 *     ask: ({ body }) => Effect.succeed({ kind: "ok", body, inputTokens: 1, outputTokens: 1, micros: 4_000 }),
 *     waiting: Effect.succeed(undefined)
 *   })
 * )
 *
 * const program = Effect.gen(function*() {
 *   const batches = yield* Batches.Batches
 *   const requests = Stream.make("a", "b", "c").pipe(Stream.map((key) => ({ key, body: key })))
 *   const id = yield* batches.submit({ maxCost: { micros: 10_000, estimate: 4_000 } }, requests)
 *   const results = yield* Stream.runCollect(batches.results(id, { follow: true }))
 *   console.log(results.map(({ key, kind }) => `${key} ${kind}`))
 * })
 *
 * const Machine = BatchMachine.layer({ inFlight: 8 }).pipe(
 *   Layer.provide(Echo),
 *   Layer.provide(Batches.migrations.layer),
 *   Layer.provide(SqlDatabase.layer({ url: "sqlite::memory:" }))
 * )
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Machine))) // => [ 'a ok', 'b ok', 'c capped' ]
 * ```
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
 * Options for `BatchMachine.layer`: those of the worker, and in `feeder` those of the feeder.
 *
 * @since 0.1.0
 * @category models
 */
export interface BatchMachineOptions extends Worker.WorkerOptions {
  readonly feeder?: Feeder.FeederOptions | undefined
}

/**
 * Provides `Batches`, and works on them until the scope closes. Fails if the tables are missing or outdated.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  { feeder, ...worker }: BatchMachineOptions
): Layer.Layer<Batches.Batches, InvalidOptions | TablesOutdated | SqlError, Asker | SqlClient> =>
  Layer.merge(Worker.layer(worker), Feeder.layer(feeder)).pipe(Layer.provideMerge(Batches.layer))
