/**
 * Files of requests in the form of OpenAI's Batch API, kept in the database of batches.
 *
 * **Details**
 *
 * - A line is `{"custom_id": ..., "method": "POST", "url": "/v1/...", "body": {...}}`. All lines have the same `url`, and each its own
 *   `custom_id`.
 * - Lines are checked when they are uploaded. What is wrong is kept with the file, and a batch of it is `failed`.
 * - The results of an ended batch are files too, with the purpose `batch_output`: `file-output-ID` has the answers, `file-error-ID` all
 *   others. Their lines are read with `Batches.results`.
 * - The lines are stored once, however many batches use them.
 * - A file expires after 30 days by default. Its lines are deleted when no batch uses them.
 *
 * **Gotchas**
 *
 * - A line of more than 1 MiB is a problem of the file. A reader of lines has to bound their length itself before.
 *
 * **Example** (A file whose second line is wrong)
 *
 * ```ts
 * import { Effect, Layer, Stream } from "effect"
 * import * as Batches from "@sluice/batch/Batches"
 * import * as Files from "@sluice/batch/Files"
 * import * as SqlDatabase from "@sluice/sql/SqlDatabase"
 *
 * const line = (id: string, method: string) =>
 *   JSON.stringify({ custom_id: id, method, url: "/v1/chat/completions", body: { model: "gpt-5-mini", messages: [] } })
 *
 * const program = Effect.gen(function*() {
 *   const files = yield* Files.Files
 *   const file = yield* files.upload({ name: "in.jsonl", purpose: "batch" }, Stream.make(line("a", "POST"), line("b", "GET")))
 *   console.log(file.problems.map(({ code, line }) => `line ${line}: ${code}`))
 * })
 *
 * const Database = SqlDatabase.layer({ url: "sqlite::memory:" })
 * const Live = Files.layer.pipe(Layer.provide(Batches.migrations.layer), Layer.provide(Database))
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Live)))
 * // => [ 'line 2: invalid_method' ]
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Stream from "effect/Stream"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import type { TablesOutdated } from "@sluice/sql/Migrations"
import type { BatchStoreError, FileInUse, FileNotFound } from "./Batch.ts"
import { migrations } from "./Batches.ts"
import * as Internal from "./internal/files.ts"

/**
 * A problem of a file.
 *
 * **Details**
 *
 * - `code` is one of `duplicate_custom_id`, `empty_file`, `invalid_body`, `invalid_custom_id`, `invalid_json_line`, `invalid_method`,
 *   `invalid_url`, `line_too_large`, `mixed_endpoints` and `stream_not_supported`.
 * - `line` counts from 1. It is `undefined` for a problem of the whole file.
 * - `param` names the field of the line, such as `body.stream`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Problem {
  readonly code: string
  readonly line: number | undefined
  readonly message: string
  readonly param: string | undefined
}

/**
 * A file. Times are epoch milliseconds of the database.
 *
 * @since 0.1.0
 * @category models
 */
export interface File {
  readonly id: string
  readonly owner: string | undefined
  /** What the file is for, as the uploader said. A batch takes a file of any purpose. */
  readonly purpose: string
  readonly name: string
  /** The size of the lines with their ends. */
  readonly bytes: number
  /** The lines that are not blank. */
  readonly lines: number
  /** At most 100, by their line. */
  readonly problems: ReadonlyArray<Problem>
  /** The batch whose results it has. `undefined` for an upload. Its `bytes` are 0, since its lines are made when they are read. */
  readonly results: { readonly batch: string; readonly kind: "output" | "error" } | undefined
  readonly createdAt: number
  /** `undefined` for results, which stay as long as their batch. */
  readonly expiresAt: number | undefined
}

/**
 * Options for a new file.
 *
 * **Details**
 *
 * - `name` and `purpose` are kept with the file and not used.
 * - `owner`: the client that may see the file, as for a batch. None by default.
 * - `expires`: from now, an hour to ten years. 30 days by default, which is OpenAI's time.
 *
 * @since 0.1.0
 * @category models
 */
export interface UploadOptions {
  readonly name: string
  readonly purpose: string
  readonly owner?: string | undefined
  readonly expires?: Duration.Input | undefined
}

/**
 * Which files, in which order.
 *
 * **Details**
 *
 * - `owner`: the files of this owner. All by default.
 * - `purpose`: uploads with this purpose, or results with `batch_output`. All by default.
 * - `order`: `desc` starts with the newest, which is the default, and `asc` with the oldest.
 * - `after`: the id of the last file of the page before. `FileNotFound` if there is no such file, as when it was removed meanwhile.
 * - `limit`: at least 1, 100 by default.
 *
 * @since 0.1.0
 * @category models
 */
export interface ListOptions {
  readonly owner?: string | undefined
  readonly purpose?: string | undefined
  readonly order?: "asc" | "desc" | undefined
  readonly after?: string | undefined
  readonly limit?: number | undefined
}

/**
 * Keeps files of requests.
 *
 * **Details**
 *
 * - `upload` removes what it has stored if it fails.
 * - `find`, `lines` and `remove` fail with `FileNotFound` if no file has the id, or if it has expired. `lines` reads uploads only.
 * - `bytesOf` sums the uploads of an owner that have not expired, without those that are still being uploaded.
 * - `expire` sets the time of an upload from its creation, an hour to ten years, and returns the file.
 * - `remove` fails with `FileInUse` while a batch that has not ended uses the file. The lines stay as long as the results of a batch
 *   need them.
 * - `remove` of results erases their bodies. The counts of the batch stay. A `retry` of the batch makes new files, which have only the
 *   lines that were not removed.
 *
 * @since 0.1.0
 * @category services
 */
export class Files extends Context.Service<Files, {
  readonly upload: <E, R>(
    options: UploadOptions,
    lines: Stream.Stream<string, E, R>
  ) => Effect.Effect<File, InvalidOptions | BatchStoreError | E, R>
  readonly find: (id: string) => Effect.Effect<File, FileNotFound | BatchStoreError>
  readonly list: (
    options?: ListOptions
  ) => Effect.Effect<ReadonlyArray<File>, BatchStoreError | FileNotFound | InvalidOptions>
  readonly bytesOf: (owner: string) => Effect.Effect<number, BatchStoreError>
  readonly lines: (id: string) => Stream.Stream<string, FileNotFound | BatchStoreError>
  readonly expire: (
    id: string,
    expires: Duration.Input
  ) => Effect.Effect<File, FileNotFound | BatchStoreError | InvalidOptions>
  readonly remove: (id: string) => Effect.Effect<void, FileInUse | FileNotFound | BatchStoreError>
}>()("@sluice/batch/Files") {}

/**
 * Provides `Files`. The tables are those of `Batches.migrations`. Fails if they are missing or outdated.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Files, TablesOutdated | SqlError, SqlClient> = Layer.effect(
  Files,
  Effect.andThen(migrations.check, Internal.make)
)
