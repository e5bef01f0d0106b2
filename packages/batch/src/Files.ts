/**
 * Files of requests in the form of OpenAI's Batch API, kept in the database of batches.
 *
 * **Details**
 *
 * - A line is `{"custom_id": ..., "method": "POST", "url": "/v1/...", "body": {...}}`. All lines have the same `url`, and each its own
 *   `custom_id`.
 * - Lines are checked when they are uploaded. What is wrong is kept with the file, and a batch of it is `failed`.
 * - The lines are stored once, however many batches use them.
 * - A file expires after 30 days by default. Its lines are deleted when no batch uses them.
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
import type { TablesOutdated } from "@sluice/sql/Migrations"
import type { BatchStoreError, FileInUse, FileNotFound } from "./Batch.ts"
import { migrations } from "./Batches.ts"
import * as Internal from "./internal/files.ts"

/**
 * What is wrong with a file. `line` counts from 1, and is absent for the whole file.
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
  readonly purpose: string
  readonly name: string
  readonly bytes: number
  readonly lines: number
  /** The first hundred. */
  readonly problems: ReadonlyArray<Problem>
  readonly createdAt: number
  readonly expiresAt: number
}

/**
 * Options for a new file. `expires` is 30 days by default.
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
 * Keeps files of requests.
 *
 * **Details**
 *
 * - `upload` removes what it has stored if it fails.
 * - `list` starts with the newest.
 * - `remove` fails with `FileInUse` while a batch that has not ended uses the file. The lines stay as long as the results of a batch
 *   need them.
 *
 * @since 0.1.0
 * @category services
 */
export class Files extends Context.Service<Files, {
  readonly upload: <E, R>(
    options: UploadOptions,
    lines: Stream.Stream<string, E, R>
  ) => Effect.Effect<File, BatchStoreError | E, R>
  readonly find: (id: string) => Effect.Effect<File, FileNotFound | BatchStoreError>
  readonly list: (page?: {
    readonly owner?: string | undefined
    readonly after?: string | undefined
    readonly limit?: number | undefined
  }) => Effect.Effect<ReadonlyArray<File>, BatchStoreError>
  readonly lines: (id: string) => Stream.Stream<string, FileNotFound | BatchStoreError>
  readonly remove: (id: string) => Effect.Effect<void, FileInUse | FileNotFound | BatchStoreError>
}>()("@sluice/batch/Files") {}

/**
 * Provides `Files`. The tables are those of `Batches.migrations`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer: Layer.Layer<Files, TablesOutdated | SqlError, SqlClient> = Layer.effect(
  Files,
  Effect.andThen(migrations.check, Internal.make)
)
