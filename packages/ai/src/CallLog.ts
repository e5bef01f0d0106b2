/**
 * What became of one call of a resilient model, step by step: what was tried, when, what came of it, what was passed over and
 * why, and what it cost.
 *
 * **When to use**
 *
 * To see why a call took as long as it did, went where it went, or failed. `ResilientModel.withLogs` returns them; every log of
 * a layer is in `ResilientModel.calls`. It is a value that its schema can carry into a file.
 *
 * **Details**
 *
 * It holds no prompt, no answer and no key. Times are epoch milliseconds.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { Unavailable } from "./AiRejection.ts"

/**
 * Tokens that were paid for. `estimated` where the provider did not say: four characters to a token.
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
 * Why an attempt was no answer.
 *
 * @since 0.1.0
 * @category models
 */
export const Fault = Schema.Struct({
  /** The rejection's or the reason's tag: `IdleTimeout`, `RateLimitError`. */
  type: Schema.String,
  /** What the error says; a provider's own words are left out. */
  message: Schema.String,
  /** The HTTP status, if there was one. */
  status: Schema.optionalKey(Schema.Int),
  /** How long the provider asks to be left alone. */
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
 * | next | |
 * |---|---|
 * | `Done` | it is the answer |
 * | `Retry` | the same target is asked again |
 * | `Fallback` | another target is asked |
 * | `Reask` | the answer was complete and of no use: it is paid for once more |
 * | `Restart` | the answer had begun, and begins anew |
 * | `Stop` | the call ends with this fault |
 *
 * @since 0.1.0
 * @category models
 */
export const Attempt = Schema.TaggedStruct("Attempt", {
  /** Counts the attempts of the call from 1. */
  n: Schema.Int,
  target: Schema.String,
  /** How long the call had waited right before: for its back-off, and for a permit. */
  waitedMillis: Schema.Finite,
  startedAt: Schema.Finite,
  /** When the first part of the answer came, where it is a stream. */
  firstTokenAt: Schema.optionalKey(Schema.Finite),
  endedAt: Schema.Finite,
  outcome: Schema.Literals(["Success", "Failure", "Throttled", "Ignored"]),
  fault: Schema.optionalKey(Fault),
  usage: Schema.optionalKey(Usage),
  next: Schema.Literals(["Done", "Retry", "Fallback", "Reask", "Restart", "Stop"])
})

/**
 * @since 0.1.0
 * @category models
 */
export type Attempt = typeof Attempt.Type

/**
 * A target that was passed over, and why.
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
 * One call, when it is over.
 *
 * @since 0.1.0
 * @category models
 */
export const CallLog = Schema.Struct({
  /** Unique within the layer; the idempotency key of its attempts begins with it. */
  id: Schema.String,
  /** `generateText`, `generateObject`, `streamText` or `embed`. */
  method: Schema.Literals(["generateText", "generateObject", "streamText", "embed"]),
  startedAt: Schema.Finite,
  endedAt: Schema.Finite,
  result: Schema.Literals(["Success", "Failure", "Interrupted"]),
  /** The target that answered. */
  answeredBy: Schema.optionalKey(Schema.String),
  /** What it failed with. */
  fault: Schema.optionalKey(Fault),
  /** In the order of time. */
  steps: Schema.Array(Schema.Union([Attempt, Skipped])),
  /** Of all attempts. */
  usage: Usage
})

/**
 * @since 0.1.0
 * @category models
 */
export type CallLog = typeof CallLog.Type
