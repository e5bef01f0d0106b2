import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import { type Known, OptionsReader } from "../../OptionsReader.ts"
import type { StageOptions } from "../../Pipeline.ts"
import type { RetryCallOptions, RetryPolicy } from "../../RetryPolicy.ts"
import type { AnyEffect } from "../kit/primitive.ts"
import { checkRetryPolicy } from "../retry/options.ts"

export type Recover = (error: unknown, input: unknown) => AnyEffect

export interface Retry extends RetryCallOptions<unknown, unknown> {
  readonly policy: RetryPolicy
}

/**
 * Reads the options of a stage. Untyped callers can pass anything: what cannot be read is left out here, and `checkStage`
 * refuses it before the first run. So the casts are safe.
 */
export const readStage = (input: unknown) => {
  const { recover, retry, timeout } = Predicate.isObject(input) ? input : {}
  const policy = policyOf(retry)
  return {
    timeout: Option.getOrUndefined(Duration.fromInput(timeout as Duration.Input)),
    retry: policy === undefined ? undefined : { ...(policy === retry ? undefined : retry as object), policy } as Retry,
    recover: typeof recover === "function" ? recover as Recover : undefined
  }
}

const policyOf = (retry: unknown): RetryPolicy | undefined => {
  const policy = Predicate.hasProperty(retry, "policy") ? retry.policy : retry
  return Predicate.isObject(policy) ? policy as unknown as RetryPolicy : undefined
}

const stageOptions: Known<StageOptions> = { timeout: true, retry: true, recover: true }

export const checkStage = (options: OptionsReader, path: string, input: unknown): void => {
  if (input === undefined) return
  if (!Predicate.isObject(input)) return options.refuse(`${path}.options`, input, "must be an object")
  options.onlyKnown(`${path}.`, input, stageOptions)
  const { recover, retry, timeout } = input
  if (timeout !== undefined) options.millis(`${path}.timeout`, timeout as Duration.Input, 1)
  if (retry !== undefined) checkRetry(options, `${path}.retry`, retry)
  if (recover !== undefined && typeof recover !== "function") {
    options.refuse(`${path}.recover`, recover, "must be a function that returns an Effect")
  }
}

const retryOptions: Known<Retry> = { policy: true, classify: true, delay: true, nested: true, onAttempt: true }

const checkRetry = (options: OptionsReader, path: string, retry: unknown): void => {
  const policy = policyOf(retry)
  if (policy === undefined) return options.refuse(path, retry, "must be a RetryPolicy or { policy, ... }")
  if (policy === retry || !Predicate.isObject(retry)) return checkRetryPolicy(options, policy, `${path}.`)
  options.onlyKnown(`${path}.`, retry, retryOptions)
  checkRetryPolicy(options, policy, `${path}.policy.`)
  const { classify, delay, nested, onAttempt } = retry
  options.optionalFunction(`${path}.classify`, classify)
  options.optionalFunction(`${path}.delay`, delay)
  if (nested !== undefined) options.oneOf(`${path}.nested`, nested as string, ["share", "own"])
  options.optionalFunction(`${path}.onAttempt`, onAttempt)
}

/** Reads the options of a stream. Invalid options are a defect. */
export const readStreamOptions = (
  input: unknown = {}
): Effect.Effect<{ readonly concurrency: number; readonly unordered: boolean }> => {
  const options = new OptionsReader("Pipeline")
  if (!Predicate.isObject(input)) options.refuse("options", input, "must be an object")
  else options.onlyKnown("", input, { concurrency: true, unordered: true })
  const { concurrency = 1, unordered = false } = Predicate.isObject(input) ? input : {}
  const isWhole = typeof concurrency === "number" && Number.isSafeInteger(concurrency) && concurrency >= 1
  if (!isWhole && concurrency !== "unbounded") {
    options.refuse("concurrency", concurrency, "must be a whole number of at least 1, or \"unbounded\"")
  }
  if (typeof unordered !== "boolean") options.refuse("unordered", unordered, "must be true or false")
  return Effect.orDie(options.check({
    concurrency: isWhole ? concurrency : Number.MAX_SAFE_INTEGER,
    unordered: unordered === true
  }))
}
