/**
 * The models and errors of batches: requests, results, states.
 *
 * **When to use**
 *
 * To name the types of `Batches`, and to match its errors.
 *
 * **Example** (How a batch ended)
 *
 * ```ts
 * import * as Batch from "@sluice/batch/Batch"
 *
 * const describe = ({ failed, ok, state, total }: Batch.Status): string =>
 *   Batch.isEnded(state) ? `${state}: ${ok} answered, ${failed} failed` : `${ok + failed} of ${total}`
 *
 * export const lines = (batches: ReadonlyArray<Batch.Status>): ReadonlyArray<string> => batches.map(describe)
 * ```
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { diskFull } from "./internal/reason.ts"

/**
 * One request of a batch.
 *
 * **Details**
 *
 * - `key` names the request within its batch: 1 to 512 characters. Its result has the same key.
 * - `body` is a text that `Asker` understands, such as a JSON object, of up to 1 MiB. It is stored and handed over unchanged.
 *
 * @since 0.1.0
 * @category models
 */
export interface Request {
  readonly key: string
  readonly body: string
}

/**
 * How a request ended.
 *
 * | kind | meaning |
 * |---|---|
 * | `ok` | it was answered |
 * | `failed` | the provider or the asker refused it for good |
 * | `worker_lost` | processes died while they asked it; it is not asked again |
 * | `rounds_exhausted` | it was put back too often |
 * | `cancelled`, `expired`, `capped` | it has no answer, because the batch ended first |
 *
 * @since 0.1.0
 * @category models
 */
export const Kind: Schema.Literals<
  readonly ["ok", "failed", "worker_lost", "rounds_exhausted", "cancelled", "expired", "capped"]
> = Schema.Literals(["ok", "failed", "worker_lost", "rounds_exhausted", "cancelled", "expired", "capped"])

/**
 * How a request ended: the type of the schema `Kind`.
 *
 * @since 0.1.0
 * @category models
 */
export type Kind = typeof Kind.Type

/**
 * The result of one request.
 *
 * **Details**
 *
 * - `seq` is the place of the request in its batch, from 0.
 * - `body` is the text of the answer or failure, as `Asker` returned it. It is empty if the batch ended first.
 * - `micros` is the cost in millionths of a dollar.
 * - `at` is when the result was stored, in epoch milliseconds of the database.
 *
 * @since 0.1.0
 * @category models
 */
export interface Result {
  readonly seq: number
  readonly key: string
  readonly kind: Kind
  readonly body: string
  readonly inputTokens: number
  readonly outputTokens: number
  readonly micros: number
  readonly at: number
  /** Continues a list of results after this one. */
  readonly cursor: string
}

/**
 * The state of a batch.
 *
 * | state | meaning |
 * |---|---|
 * | `validating` | requests are being added. It expires if its time is over before they are |
 * | `in_progress` | requests are asked |
 * | `cancelling`, `expiring`, `capping` | no request is asked any more; the calls that run are awaited |
 * | `completed` | every request has a result of its own |
 * | `cancelled`, `expired`, `capped` | ended early; every request has a result, or says why it has no answer |
 * | `failed` | the file of requests has problems, and none was asked |
 *
 * @since 0.1.0
 * @category models
 */
export type State =
  | "validating"
  | "in_progress"
  | "cancelling"
  | "expiring"
  | "capping"
  | "completed"
  | "cancelled"
  | "expired"
  | "capped"
  | "failed"

/**
 * Returns whether a batch has ended for good. Only `retry` starts it again.
 *
 * @since 0.1.0
 * @category models
 */
export const isEnded = (state: State): boolean =>
  state === "completed" || state === "cancelled" || state === "expired" || state === "capped" || state === "failed"

/**
 * Why a batch makes no progress. `until` is in epoch milliseconds, where it is known.
 *
 * @since 0.1.0
 * @category models
 */
export interface Waiting {
  /** In words: `no worker runs`, or what the workers say: `circuit of main is open`. */
  readonly for: string
  readonly until: number | undefined
}

/**
 * How far a batch is. Times are epoch milliseconds of the database.
 *
 * @since 0.1.0
 * @category models
 */
export interface Status {
  readonly id: string
  /** Whose batch it is, as the submitter said. */
  readonly owner: string | undefined
  readonly name: string | undefined
  readonly state: State
  /** 0 until every request was added. */
  readonly total: number
  readonly ok: number
  readonly failed: number
  /** Requests without an answer, because the batch was cancelled, expired or reached its cap. */
  readonly marked: number
  readonly inputTokens: number
  readonly outputTokens: number
  /** Spent so far, in millionths of a dollar. Includes failed requests that cost money. */
  readonly micros: number
  readonly maxMicros: number | undefined
  readonly priority: number
  /** Its share of the workers beside batches of the same priority. */
  readonly weight: number
  readonly createdAt: number
  readonly startedAt: number | undefined
  readonly expiresAt: number | undefined
  readonly stoppingAt: number | undefined
  readonly endedAt: number | undefined
  /** Results a second in the last seconds. `undefined` while nothing was measured. */
  readonly rate: number | undefined
  /** The time that is left at this rate, in milliseconds. */
  readonly etaMillis: number | undefined
  readonly waiting: Waiting | undefined
  /** What the batch is asked at, such as `/v1/chat/completions`. `undefined` for prompts of Sluice. */
  readonly endpoint: string | undefined
  /** Where the requests come from, such as the id of a file. */
  readonly source: string | undefined
  readonly metadata: { readonly [name: string]: string }
  /** Why the batch `failed`, as the submitter stored it: a JSON text. */
  readonly error: string | undefined
}

/**
 * No batch has this id.
 *
 * @since 0.1.0
 * @category errors
 */
export class BatchNotFound extends Schema.Error<BatchNotFound>("@sluice/batch/BatchNotFound")({
  _tag: Schema.tag("BatchNotFound"),
  id: Schema.String
}) {
  override get message(): string {
    return `No batch has the id ${this.id}. It may have been removed; list the batches`
  }
}

/**
 * No file has this id, or it has expired.
 *
 * @since 0.1.0
 * @category errors
 */
export class FileNotFound extends Schema.Error<FileNotFound>("@sluice/batch/FileNotFound")({
  _tag: Schema.tag("FileNotFound"),
  id: Schema.String
}) {
  override get message(): string {
    return `No file has the id ${this.id}. It may have expired; list the files, or upload it again`
  }
}

/**
 * A batch that has not ended uses the file. Cancel the batch first, or wait.
 *
 * @since 0.1.0
 * @category errors
 */
export class FileInUse extends Schema.Error<FileInUse>("@sluice/batch/FileInUse")({
  _tag: Schema.tag("FileInUse"),
  id: Schema.String
}) {
  override get message(): string {
    return `A batch that has not ended uses the file ${this.id}. Cancel the batch first, or wait until it has ended`
  }
}

/**
 * The batch has not ended, so it cannot be removed or retried. Cancel it first, or wait.
 *
 * @since 0.1.0
 * @category errors
 */
export class BatchRunning extends Schema.Error<BatchRunning>("@sluice/batch/BatchRunning")({
  _tag: Schema.tag("BatchRunning"),
  id: Schema.String,
  state: Schema.String
}) {
  override get message(): string {
    return `Batch ${this.id} is ${this.state}. Cancel it first, or wait until it has ended`
  }
}

/**
 * The batch has spent its budget, so a retry would ask nothing. Retry it with a larger `maxCost`.
 *
 * @since 0.1.0
 * @category errors
 */
export class BudgetSpent extends Schema.Error<BudgetSpent>("@sluice/batch/BudgetSpent")({
  _tag: Schema.tag("BudgetSpent"),
  id: Schema.String,
  /** Spent so far, and the budget, in millionths of a dollar. */
  micros: Schema.Number,
  maxMicros: Schema.Number
}) {
  override get message(): string {
    return `Batch ${this.id} has spent ${dollars(this.micros)} of its budget of ${
      dollars(this.maxMicros)
    }, and the rest is too small for one request. Retry it with a larger budget, which includes what is spent`
  }
}

const dollars = (micros: number): string => `$${(micros / 1e6).toFixed(6).replace(/(\.\d\d\d*?)0+$/, "$1")}`

/**
 * A request of a submitted batch is unusable. The requests before it are stored, and the batch stays `validating`.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidRequest extends Schema.Error<InvalidRequest>("@sluice/batch/InvalidRequest")({
  _tag: Schema.tag("InvalidRequest"),
  /** The place of the request, from 0. */
  seq: Schema.Number,
  why: Schema.Literals(["DuplicateKey", "InvalidKey", "InvalidBody", "TooLarge", "Changed"])
}) {
  override get message(): string {
    return `Request ${this.seq + 1} ${words[this.why]}`
  }
}

const words: { readonly [K in InvalidRequest["why"]]: string } = {
  DuplicateKey: "has the key of another request. Give each request its own key",
  InvalidKey: "needs a key of 1 to 512 characters, without NUL and half of a surrogate pair",
  InvalidBody: "has a NUL or half of a surrogate pair, which databases do not store. Remove it",
  TooLarge: "is larger than 1 MiB. Make it smaller",
  Changed: "differs from what was submitted under this id before. Submit it as a new batch"
}

/**
 * The database refused or did not answer. Contains no statement, address or value.
 *
 * @since 0.1.0
 * @category errors
 */
export class BatchStoreError extends Schema.Error<BatchStoreError>("@sluice/batch/BatchStoreError")({
  _tag: Schema.tag("BatchStoreError"),
  operation: Schema.String,
  /** The kind of failure: `ConnectionError`, `AuthorizationError`, `DiskFull`, ... */
  reason: Schema.String,
  isRetryable: Schema.Boolean
}) {
  override get message(): string {
    const advice = this.reason === diskFull
      ? "Free space on the disk of the database"
      : this.isRetryable
      ? "Try again"
      : "Check the database and its permissions"
    return `The database failed to ${this.operation} (${this.reason}). ${advice}`
  }
}
