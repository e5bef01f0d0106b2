/**
 * Asks the requests of batches: takes tickets from the queue, calls the `Asker`, and stores the results.
 *
 * **When to use**
 *
 * On each machine that shares the work. With a single process, use `BatchMachine`, which includes a worker.
 *
 * **Details**
 *
 * | option | default | why this default |
 * |---|---|---|
 * | `inFlight` | required | how many calls run at once in this process |
 * | `name` | host, process and a random part | must differ between workers; shown in the status |
 * | `drain` | 30 seconds | how long calls may finish when the scope closes; longer ones are asked again elsewhere |
 * | `stopNow` | never | an effect whose end cuts the drain short, such as a second signal |
 * | `maxRounds` | 5 | a request that is put back this often gets a result `rounds_exhausted` |
 * | `onLost` | `"ask-again"` | `"fail"` for providers that ignore idempotency keys: a request is not paid twice, but may get no answer |
 *
 * - A request has one result, whatever happens. A process that dies loses no stored answer; what it was asking is asked again after
 *   6 seconds, with the same idempotency key.
 * - The worker stores a result before it settles its ticket. While the database is down it keeps the results and waits.
 * - While the `Asker` says that calls make no sense, the worker takes no tickets and starts no calls.
 * - Calls have spans, if the `Asker` makes some. The statements of worker, feeder and queue have none.
 * - When the scope closes, the worker starts no further call. Another worker can ask the requests that were not started at once.
 * - A ticket that is delivered a third time may hold a request that kills the process. Its requests are then asked one by one, and one
 *   that was asked twice without a result gets `worker_lost`.
 *
 * **Gotchas**
 *
 * - `onLost: "fail"` stores a row before each group of calls. A request that had been started when its process died gets `worker_lost`.
 *   A process that is frozen, or without its database, for 6 seconds counts as dead. Answers that reach it later are dropped, since
 *   the result may have been read by then.
 *   When the worker stops, the rest of a ticket goes back with its last call, not before.
 * - A worker that is killed while its calls finish may have other requests asked twice: those of the same tickets that it gave back and that
 *   are in flight elsewhere. Give the process more time than `drain` before it is killed.
 * - A worker without a feeder gets no tickets. Run `Feeder.layerCluster` beside each worker.
 *
 * **Example** (One machine of several)
 *
 * ```ts
 * import * as Asker from "@sluice/batch/Asker"
 * import * as Batches from "@sluice/batch/Batches"
 * import * as Feeder from "@sluice/batch/Feeder"
 * import * as Worker from "@sluice/batch/Worker"
 * import * as SqlDatabase from "@sluice/sql/SqlDatabase"
 * import { Config, Effect, Layer } from "effect"
 *
 * export const machine = (ask: (body: string) => Effect.Effect<Asker.Answer, Asker.AskLater>) => {
 *   const worker = Worker.layer({ inFlight: 100 }).pipe(
 *     Layer.provide(Layer.succeed(Asker.Asker, { ask: ({ body }) => ask(body), waiting: Effect.undefined }))
 *   )
 *   return Layer.merge(worker, Feeder.layerCluster()).pipe(
 *     Layer.provideMerge(Batches.layer),
 *     Layer.provide(SqlDatabase.layerConfig({ url: Config.Redacted("DATABASE_URL") }))
 *   )
 * }
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
import * as References from "effect/References"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { Asker } from "./Asker.ts"
import * as Queue from "./internal/queue.ts"
import * as Db from "./internal/tables/db.ts"
import { identity } from "./internal/identity.ts"
import { isStorable } from "./internal/text.ts"
import { withTables } from "./internal/withTables.ts"
import * as Loop from "./internal/worker/loop.ts"

/**
 * Options for a worker. The page of this module has the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface WorkerOptions {
  readonly inFlight: number
  readonly name?: string | undefined
  readonly drain?: Duration.Input | undefined
  readonly stopNow?: Effect.Effect<unknown> | undefined
  readonly maxRounds?: number | undefined
  readonly onLost?: "ask-again" | "fail" | undefined
}

const known: { readonly [K in keyof WorkerOptions]-?: true } = {
  inFlight: true,
  name: true,
  drain: true,
  stopNow: true,
  maxRounds: true,
  onLost: true
}

const read = (input: WorkerOptions): Effect.Effect<Loop.Options, InvalidOptions> => {
  const reader = new OptionsReader("Worker")
  const options = reader.object("options", input, known)
  if (typeof options.name === "string" && !isStorable(options.name)) {
    reader.refuse("name", options.name, "must have no NUL and no half of a surrogate pair")
  }
  return reader.check({
    inFlight: reader.integer("inFlight", options.inFlight ?? NaN, 1, 100_000),
    name: options.name === undefined ? identity() : reader.nonEmptyString("name", options.name),
    drainMillis: reader.millis("drain", options.drain ?? "30 seconds", 0, 3_600_000),
    stopNow: options.stopNow ?? Effect.never,
    maxRounds: reader.integer("maxRounds", options.maxRounds ?? 5, 1, 1_000),
    onLost: reader.oneOf("onLost", options.onLost ?? "ask-again", ["ask-again", "fail"])
  })
}

/**
 * Runs a worker until the scope closes. Then takes no more tickets, and lets calls finish for `drain`. Fails if the tables are missing or
 * outdated.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options: WorkerOptions
): Layer.Layer<never, InvalidOptions | SqlError | TablesOutdated, Asker | SqlClient> =>
  withTables(
    Layer.effectDiscard(
      Effect.gen(function*() {
        const checked = yield* read(options)
        const asker = yield* Asker
        const isTraced = yield* References.TracerEnabled
        const working = Loop.run(checked, {
          asker: { ...asker, ask: (asked) => Effect.withTracerEnabled(asker.ask(asked), isTraced) },
          db: yield* Db.make,
          queue: yield* Queue.make
        })
        // Statements that belong to no call would fill the traces.
        yield* Effect.withTracerEnabled(working, false)
      })
    ).pipe(Layer.provide(Queue.layer))
  )
