/** Files and batches as the objects of OpenAI's API. Times are epoch seconds. */
import * as Batch from "@sluice/batch/Batch"
import type { File } from "@sluice/batch/Files"

const seconds = (millis: number | undefined): number | undefined =>
  millis === undefined ? undefined : Math.floor(millis / 1_000)

/** The only time that a batch can be given, as at OpenAI. */
export const completionWindow = { name: "24h", duration: "24 hours" } as const

/** The ids of the files with a batch's results, as `Files` gives them. */
const outputFile = (batch: string): string => `file-output-${batch}`
const errorFile = (batch: string): string => `file-error-${batch}`

export const fileObject = (file: File): object => ({
  id: file.id,
  object: "file",
  bytes: file.bytes,
  created_at: seconds(file.createdAt),
  expires_at: seconds(file.expiresAt),
  filename: file.name,
  purpose: file.purpose,
  status: "processed",
  status_details: null
})

const states: { readonly [state in Batch.State]: string } = {
  validating: "validating",
  in_progress: "in_progress",
  // OpenAI has no states for the time in which the last calls are awaited.
  expiring: "in_progress",
  capping: "in_progress",
  cancelling: "cancelling",
  completed: "completed",
  // What was not asked is in the error file, with the code `cost_cap`.
  capped: "completed",
  cancelled: "cancelled",
  expired: "expired",
  failed: "failed"
}

/** Requests that are in the error file. */
const failedOf = ({ failed, marked }: Batch.Status): number => failed + marked

export const batchObject = (batch: Batch.Status): object => {
  const { endedAt, id, inputTokens, ok, outputTokens, startedAt, state } = batch
  const isEnded = Batch.isEnded(state)
  const ended = (...in_: ReadonlyArray<Batch.State>) => in_.includes(state) ? seconds(endedAt) ?? null : null
  return {
    id,
    object: "batch",
    endpoint: batch.endpoint,
    errors: batch.error === undefined
      ? null
      : {
        object: "list",
        data: problemsOf(batch.error).map(({ code, line, message, param }) => ({
          code,
          line: line ?? null,
          message,
          param: param ?? null
        }))
      },
    input_file_id: batch.source,
    completion_window: completionWindow.name,
    status: states[state],
    output_file_id: isEnded && ok > 0 ? outputFile(id) : null,
    error_file_id: isEnded && failedOf(batch) > 0 ? errorFile(id) : null,
    created_at: seconds(batch.createdAt),
    in_progress_at: seconds(startedAt) ?? null,
    expires_at: seconds(batch.expiresAt) ?? null,
    finalizing_at: ended("completed", "capped"),
    completed_at: ended("completed", "capped"),
    failed_at: ended("failed"),
    expired_at: ended("expired"),
    cancelling_at: state === "cancelling" || state === "cancelled" ? seconds(batch.stoppingAt) ?? null : null,
    cancelled_at: ended("cancelled"),
    request_counts: {
      total: batch.total,
      completed: ok,
      // Requests that expired or were cancelled did not fail.
      failed: state === "capped" || state === "capping" ? failedOf(batch) : batch.failed
    },
    usage: {
      input_tokens: inputTokens,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: outputTokens,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: inputTokens + outputTokens
    },
    metadata: metadataOf(batch.metadata)
  }
}

const metadataOf = (metadata: Batch.Status["metadata"]): object | null =>
  Object.keys(metadata).length === 0 ? null : metadata

interface Problem {
  readonly code: string
  readonly line?: number
  readonly message: string
  readonly param?: string
}

// It was stored by `Batches.submit`.
const problemsOf = (error: string): ReadonlyArray<Problem> => JSON.parse(error) as ReadonlyArray<Problem>

/** One page of a list. */
export const listObject = (data: ReadonlyArray<object>, ids: ReadonlyArray<string>, hasMore: boolean): object => ({
  object: "list",
  data,
  first_id: ids[0] ?? null,
  last_id: ids.at(-1) ?? null,
  has_more: hasMore
})
