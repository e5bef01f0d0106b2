import * as Context from "effect/Context"
import type { Refusal } from "../../Refusal.ts"

/**
 * Why a retry stopped, as an annotation of the cause that it failed with. Read it with `stopped`.
 *
 * | why | meaning |
 * |---|---|
 * | `Final` | the outcome is not retryable |
 * | `Attempts` | this retry, with those nested in it, has used its attempts |
 * | `OuterAttempts` | a retry around this one has no attempt left |
 * | `Deadline` | the next attempt would begin after the deadline |
 * | `RetryAfterTooLong` | the Retry-After of the dependency is longer than `maxRetryAfter` |
 * | `Refused` | a policy refused the next attempt: an open circuit, a full queue, a deadline, draining. `refusal` says which |
 *
 * @since 0.1.0
 * @category models
 */
export class RetryStopped extends Context.Service<RetryStopped, {
  readonly why: "Final" | "Attempts" | "OuterAttempts" | "Deadline" | "RetryAfterTooLong" | "Refused"
  /** Attempts that were made, with those of nested retries. */
  readonly attempts: number
  /** The refusal of the next attempt. Absent if none was refused. */
  readonly refusal?: Refusal
}>()("@sluice/core/RetryPolicy/RetryStopped") {}

export type Why = RetryStopped["Service"]["why"]

/**
 * The attempt that the running fiber is in, from the second on. `undefined` in a first attempt that is not nested.
 *
 * **Details**
 *
 * A nested retry continues the outer one's numbers, as it spends its attempts: inside the second of three it begins with
 * `{ attempt: 2, maxAttempts: 3 }`.
 *
 * @since 0.1.0
 * @category references
 */
export const CurrentAttempt: Context.Reference<
  { readonly attempt: number; readonly maxAttempts: number } | undefined
> = Context.Reference<{ readonly attempt: number; readonly maxAttempts: number } | undefined>(
  "@sluice/core/RetryPolicy/CurrentAttempt",
  { defaultValue: () => undefined }
)
