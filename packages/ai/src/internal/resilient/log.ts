import * as AiError from "effect/ai/AiError"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as AiRejection from "../../AiRejection.ts"
import type { Attempt, CallLog, Fault, Skipped, Usage } from "../../CallLog.ts"
import * as RetryAfter from "../../RetryAfter.ts"

type Mutable<A> = { -readonly [Key in keyof A]: A[Key] }

/** An attempt that may still run. */
export type OpenAttempt = Mutable<Attempt>

export const make = (
  call: Pick<CallLog, "id" | "method" | "startedAt" | "endedAt">,
  steps: ReadonlyArray<OpenAttempt | Skipped>,
  exit: Exit.Exit<unknown, unknown>
): CallLog => {
  const attempts = steps.filter((step): step is OpenAttempt => step._tag === "Attempt")
  attempts.forEach((attempt, at) => {
    const following = attempts[at + 1]
    if (following === undefined) {
      // The next attempt was not made: none was left, or the caller was interrupted.
      if (attempt.next !== "Done") attempt.next = "Stop"
      return
    }
    if (attempt.next === "Reask" || attempt.next === "Restart" || attempt.next === "Continue") return
    attempt.next = following.target === attempt.target ? "Retry" : "Fallback"
  })
  const last = attempts.at(-1)
  const isAnswered = last?.next === "Done"
  const error = isAnswered || Exit.isSuccess(exit) ? undefined : exit.cause.reasons.find(Cause.isFailReason)?.error
  return {
    ...call,
    result: isAnswered
      ? "Success"
      : Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)
      ? "Interrupted"
      : "Failure",
    ...(isAnswered ? { answeredBy: last.target } : {}),
    ...(AiError.isAiError(error) ? { fault: faultOf(error) } : {}),
    steps,
    usage: attempts.reduce(sum, noUsage)
  }
}

const noUsage: Usage = { inputTokens: 0, outputTokens: 0, estimated: false }

const sum = (total: Usage, { usage }: Attempt): Usage =>
  usage === undefined ? total : {
    inputTokens: total.inputTokens + usage.inputTokens,
    outputTokens: total.outputTokens + usage.outputTokens,
    estimated: total.estimated || usage.estimated
  }

/** The usage of an unusable answer, if its error has it. */
export const usageIn = ({ reason }: AiError.AiError): Usage | undefined => {
  const { completionTokens, promptTokens } = "usage" in reason && reason.usage !== undefined
    ? reason.usage
    : { completionTokens: undefined, promptTokens: undefined }
  return completionTokens === undefined || promptTokens === undefined
    ? undefined
    : { inputTokens: promptTokens, outputTokens: completionTokens, estimated: false }
}

/** How many characters an unusable answer has, if its error has it. Otherwise 0. */
export const lengthIn = ({ reason }: AiError.AiError): number =>
  reason._tag === "StructuredOutputError" ? reason.responseText.length : 0

/** The part of an error that can be shown. A provider's message can quote the prompt. */
export const faultOf = (error: AiError.AiError): Fault => {
  const rejection = Option.getOrUndefined(AiRejection.fromAiError(error))
  const status = "http" in error.reason ? error.reason.http?.response?.status : undefined
  const retryAfter = RetryAfter.fromAiError(error)
  const type = rejection?._tag ?? error.reason._tag
  return {
    type,
    message: rejection?.message ?? (status === undefined ? type : `HTTP ${status}`),
    ...(status === undefined ? {} : { status }),
    ...(retryAfter === undefined ? {} : { retryAfterMillis: Duration.toMillis(retryAfter) })
  }
}
