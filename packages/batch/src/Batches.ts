/**
 * Batches of requests that outlive the process: submitted once, worked on by any number of workers, with one result for each request.
 *
 * **When to use**
 *
 * - For a file that takes hours, or that several machines share. `sluice run` is simpler for one process.
 *
 * **Details**
 *
 * - The requests, results and progress are in tables of a SQL database: PostgreSQL or SQLite. `migrations` makes them.
 * - `submit` with an `id` continues where an earlier one stopped. The same `id` with other requests is refused.
 * - The batch starts when all its requests are stored.
 * - `maxCost` stops a batch before it costs more. It is exact if no request costs more than `estimate`, or more than the dearest so far.
 *   Otherwise, and if attempts that fail are charged, calls that are in flight when it is spent can exceed it.
 *
 * **Gotchas**
 *
 * - A program builds each layer once, also if it is provided with different layers. For the batches of two databases, wrap each of the
 *   complete layers in `Layer.fresh`. Otherwise both would work on the first.
 *
 * **Example** (A batch on one machine)
 *
 * ```ts
 * import * as Asker from "@sluice/batch/Asker"
 * import * as Batches from "@sluice/batch/Batches"
 * import * as BatchMachine from "@sluice/batch/BatchMachine"
 * import { Effect, Layer, Stream } from "effect"
 * import * as SqlDatabase from "@sluice/sql/SqlDatabase"
 *
 * const Echo = Layer.succeed(
 *   Asker.Asker,
 *   Asker.Asker.of({
 *     ask: ({ body }) => Effect.succeed({ kind: "ok", body, inputTokens: 1, outputTokens: 1, micros: 0 }),
 *     waiting: Effect.succeed(undefined)
 *   })
 * )
 *
 * const program = Effect.gen(function*() {
 *   const batches = yield* Batches.Batches
 *   const id = yield* batches.submit({ name: "greetings" }, Stream.make({ key: "a", body: "Hello" }, { key: "b", body: "Bye" }))
 *   return yield* Stream.runCollect(batches.results(id, { follow: true }))
 * })
 *
 * const Database = SqlDatabase.layer({ url: "sqlite::memory:" })
 * const Machine = BatchMachine.layer({ inFlight: 8 }).pipe(
 *   Layer.provide(Echo),
 *   Layer.provide(Batches.migrations.layer),
 *   Layer.provide(Database)
 * )
 *
 * const results = await Effect.runPromise(program.pipe(Effect.provide(Machine)))
 * console.log(results.map(({ body, key }) => `${key}: ${body}`)) // => [ 'a: Hello', 'b: Bye' ]
 * ```
 *
 * @since 0.1.0
 */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Migrations from "@sluice/sql/Migrations"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Stream from "effect/Stream"
import type {
  BatchNotFound,
  BatchRunning,
  BatchStoreError,
  BudgetSpent,
  FileNotFound,
  InvalidRequest,
  Request,
  Result,
  Status
} from "./Batch.ts"
import * as Internal from "./internal/batches.ts"
import * as Engine from "./internal/engine.ts"
import * as Schema from "./internal/tables/schema.ts"

/**
 * Options for a new batch.
 *
 * **Details**
 *
 * - `id`: 1 to 64 letters, digits, `_` and `-`. A random one by default. Use your own to continue after an interruption.
 * - `name`, `source`, `metadata`: kept with the batch and returned in its status. None by default.
 * - `priority`: a whole number, 0 by default. Higher ones go first.
 * - `weight`: 1 to 1,000, 1 by default, so that batches of one priority have equal shares of the workers. A batch of weight 3 has three
 *   times the requests in flight of one of weight 1 that runs beside it.
 * - `maxCost`: in whole millionths of a dollar, no limit by default. `estimate` is the most that one request costs; without it, the
 *   batch begins with one request, and the rest follows when its cost is known.
 * - `expires`: from now, up to ten years. No request is asked later, and a batch whose requests are not all stored by then is `expired`.
 *   Never by default.
 * - `endpoint`: the API that the requests are for, which `Asker` gets, such as `/v1/chat/completions`. None by default.
 * - `file`: the id of a file of `Files` whose lines are the requests; the stream is not read. A batch whose file has problems, or whose
 *   lines ask another `endpoint`, is `failed`, and its `error` lists them.
 * - `owner`: whose batch it is, such as the name of a client. Not used here, and returned in the status.
 * - `attempt`: for clients that repeat a request without an answer: 0 for the first request, more for a repeated one. A first request
 *   and its repetitions make one batch, in whatever order they arrive within 10 minutes. They have the same `file`, `endpoint`, `owner`
 *   and `metadata`. Needs `file`, and no `id`. Without it, each call makes a batch.
 *
 * @since 0.1.0
 * @category models
 */
export interface SubmitOptions {
  readonly id?: string | undefined
  readonly name?: string | undefined
  readonly priority?: number | undefined
  readonly weight?: number | undefined
  readonly maxCost?: { readonly micros: number; readonly estimate?: number | undefined } | undefined
  readonly expires?: Duration.Input | undefined
  readonly endpoint?: string | undefined
  readonly source?: string | undefined
  readonly file?: string | undefined
  readonly owner?: string | undefined
  readonly metadata?: { readonly [name: string]: string } | undefined
  readonly attempt?: number | undefined
}

/**
 * Which results, in which order.
 *
 * **Details**
 *
 * - `order`: `completion` by default, in the order in which results were stored. `input` ends at the first request without a result.
 *   Results that `Files.remove` erased are left out.
 * - `after`: the `cursor` of a result of the same order, to continue after it. Another text is refused with `InvalidOptions`.
 * - `follow`: waits for further results until the batch has ended.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResultsOptions {
  readonly order?: "input" | "completion" | undefined
  readonly after?: string | undefined
  readonly follow?: boolean | undefined
}

/**
 * Options for `retry`.
 *
 * **Details**
 *
 * - `which`: `failed` by default, or `unasked`: what was left by a cancel, an expiry or a cap.
 * - `maxCost`: a new budget for the whole batch, as that of `submit`. The old one stays by default.
 *
 * @since 0.1.0
 * @category models
 */
export interface RetryOptions {
  readonly which?: "failed" | "unasked" | undefined
  readonly maxCost?: SubmitOptions["maxCost"]
}

/**
 * Which batches.
 *
 * **Details**
 *
 * - `owner`: the batches of this owner. All by default.
 * - `endedWithin`: batches that ended earlier are left out. All are in by default.
 * - `after`: the id of the last batch of the page before. `BatchNotFound` if there is no such batch, as when it was removed meanwhile.
 * - `limit`: at least 1, 100 by default.
 *
 * @since 0.1.0
 * @category models
 */
export interface ListOptions {
  readonly owner?: string | undefined
  readonly endedWithin?: Duration.Input | undefined
  readonly after?: string | undefined
  readonly limit?: number | undefined
}

/**
 * Submits batches, and says how far they are.
 *
 * **Details**
 *
 * - `submit` returns the id. It fails with the error of the stream, with `InvalidRequest` for an unusable request, and with
 *   `InvalidOptions`. After the first two it can be called again with the same `id`.
 * - `watch` emits the status now, and then every second by default. It ends with the batch.
 * - `cancel` stops asking. By default calls that run are finished, and their answers are kept; `"interrupt"` ends them,
 *   also those of a batch that was cancelled before. Without a worker, `cancel` itself ends the batch.
 * - `retry` asks again what `failed`, the default, or with `which` what was left `unasked` by a cancel, an expiry or a cap. Failed
 *   requests get a new idempotency key, unasked ones keep theirs. Returns how many. Only for ended batches. `maxCost` replaces the
 *   budget and includes the costs so far. Without it the budget stays, and a batch that has spent it is refused with `BudgetSpent`.
 * - `list` starts with the newest.
 * - `remove` deletes an ended batch with its requests and results.
 *
 * @since 0.1.0
 * @category services
 */
export class Batches extends Context.Service<Batches, {
  readonly submit: <E, R>(
    options: SubmitOptions,
    requests: Stream.Stream<Request, E, R>
  ) => Effect.Effect<string, InvalidOptions | InvalidRequest | BatchNotFound | FileNotFound | BatchStoreError | E, R>
  readonly status: (id: string) => Effect.Effect<Status, BatchNotFound | BatchStoreError>
  readonly watch: (
    id: string,
    every?: Duration.Input
  ) => Stream.Stream<Status, BatchNotFound | BatchStoreError | InvalidOptions>
  readonly results: (
    id: string,
    options?: ResultsOptions
  ) => Stream.Stream<Result, BatchNotFound | BatchStoreError | InvalidOptions>
  readonly cancel: (
    id: string,
    options?: { readonly inFlight?: "finish" | "interrupt" | undefined }
  ) => Effect.Effect<Status, BatchNotFound | BatchStoreError>
  readonly retry: (
    id: string,
    options?: RetryOptions
  ) => Effect.Effect<number, BatchNotFound | BatchRunning | BatchStoreError | BudgetSpent | InvalidOptions>
  readonly list: (
    options?: ListOptions
  ) => Effect.Effect<ReadonlyArray<Status>, BatchNotFound | BatchStoreError | InvalidOptions>
  readonly remove: (id: string) => Effect.Effect<void, BatchNotFound | BatchRunning | BatchStoreError>
}>()("@sluice/batch/Batches") {}

/**
 * The tables of batches, of the queue and of the cluster. Run `migrations.migrate` in a deployment, with a role that may create tables;
 * `migrations.layer` does so at the start of a program.
 *
 * @since 0.1.0
 * @category migrations
 */
export const migrations: Migrations.Migrations = Migrations.make({
  name: "batch",
  command: "sluice migrate URL",
  steps: { "0001_batches": Schema.make, "0002_engine": Engine.make }
})

/**
 * Provides `Batches`. Fails if the tables are missing or outdated.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Batches, Migrations.TablesOutdated | SqlError, SqlClient> = Layer.effect(
  Batches,
  Effect.andThen(migrations.check, Internal.make)
)
