/**
 * The log of one call of a resilient model: its attempts, their times, outcomes and tokens, and the targets that it
 * skipped.
 *
 * **When to use**
 *
 * To see why a call was slow, which target answered, or why it failed. `ResilientModel.withLogs` returns the logs of an
 * effect. `ResilientModel.calls` has those of a layer. A log is data, and its schema encodes it for a file.
 *
 * **Details**
 *
 * A log has no prompt, no answer and no key. Times are epoch milliseconds.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { Unavailable } from "./internal/rejection/rejection.ts"

/**
 * The tokens that were paid. `estimated`: the provider did not report all counts, and four characters count as one
 * token.
 *
 * @since 0.1.0
 * @category models
 */
export const Usage = Schema.Struct({
  inputTokens: Schema.Finite,
  outputTokens: Schema.Finite,
  estimated: Schema.Boolean
})

/**
 * @since 0.1.0
 * @category models
 */
export type Usage = typeof Usage.Type

/**
 * Why an attempt or a call failed.
 *
 * @since 0.1.0
 * @category models
 */
export const Fault = Schema.Struct({
  /** The tag of the rejection or of the reason, such as `IdleTimeout` or `RateLimitError`. */
  type: Schema.String,
  /** The message of the error, without text of the provider. */
  message: Schema.String,
  /** The HTTP status, if there was one. */
  status: Schema.optionalKey(Schema.Int),
  /** The retryAfter of the error. */
  retryAfterMillis: Schema.optionalKey(Schema.Finite)
})

/**
 * @since 0.1.0
 * @category models
 */
export type Fault = typeof Fault.Type

/**
 * One attempt at one target.
 *
 * | next | meaning |
 * |---|---|
 * | `Done` | the attempt has the answer |
 * | `Retry` | the same target is tried again |
 * | `Fallback` | another target is tried |
 * | `Reask` | the answer was complete but unusable, and another is requested |
 * | `Restart` | the stream failed with partial output, and the answer starts over |
 * | `Continue` | the stream failed with partial output, and the answer is continued |
 * | `Stop` | the call ends with this fault |
 *
 * @since 0.1.0
 * @category models
 */
export const Attempt = Schema.TaggedStruct("Attempt", {
  /** The number of the attempt, from 1. */
  n: Schema.Int,
  target: Schema.String,
  /** How long the call waited before the attempt: for the backoff, a permit and its quota. */
  waitedMillis: Schema.Finite,
  /**
   * The part of this wait in the queue of the quota, and the limit that it waited for. Absent if it did not wait for the
   * quota.
   */
  quota: Schema.optionalKey(Schema.Struct({ dimension: Schema.String, waitedMillis: Schema.Finite })),
  startedAt: Schema.Finite,
  /** When the first output of a stream arrived. */
  firstTokenAt: Schema.optionalKey(Schema.Finite),
  endedAt: Schema.Finite,
  outcome: Schema.Literals(["Success", "Failure", "Throttled", "Ignored"]),
  fault: Schema.optionalKey(Fault),
  usage: Schema.optionalKey(Usage),
  /** How many events of its stream were not JSON and were skipped, with `malformedEvent: "skip"`. Absent if none was. */
  skippedEvents: Schema.optionalKey(Schema.Int),
  next: Schema.Literals(["Done", "Retry", "Fallback", "Reask", "Restart", "Continue", "Stop"])
})

/**
 * @since 0.1.0
 * @category models
 */
export type Attempt = typeof Attempt.Type

/**
 * A target that was skipped, and why.
 *
 * @since 0.1.0
 * @category models
 */
export const Skipped = Schema.TaggedStruct("Skipped", {
  at: Schema.Finite,
  ...Unavailable.fields
})

/**
 * @since 0.1.0
 * @category models
 */
export type Skipped = typeof Skipped.Type

/**
 * One call that has ended.
 *
 * @since 0.1.0
 * @category models
 */
export const CallLog = Schema.Struct({
  /** Unique within the layer. The idempotency keys of its attempts begin with it, unless the caller set a key. */
  id: Schema.String,
  method: Schema.Literals(["generateText", "generateObject", "streamText", "embed"]),
  startedAt: Schema.Finite,
  endedAt: Schema.Finite,
  result: Schema.Literals(["Success", "Failure", "Interrupted"]),
  /** The target that answered. */
  answeredBy: Schema.optionalKey(Schema.String),
  /** Why it failed. */
  fault: Schema.optionalKey(Fault),
  /** In order of time. */
  steps: Schema.Array(Schema.Union([Attempt, Skipped])),
  /** The sum of all attempts. */
  usage: Usage
})

/**
 * @since 0.1.0
 * @category models
 */
export type CallLog = typeof CallLog.Type
