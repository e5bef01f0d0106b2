import * as Duration from "effect/Duration"
import type { DeduplicatorOptions } from "../../Deduplicator.ts"
import type { Known, OptionsReader } from "../../OptionsReader.ts"
import { none, type RetryPolicy } from "../../RetryPolicy.ts"
import type { Classify } from "../../Outcome.ts"
import type { SluiceOptions } from "../../Sluice.ts"
import { type CheckedBreaker, checkSlowAfter, readBreaker } from "../circuit/options.ts"
import { readDeduplicator } from "../dedupe/options.ts"
import { readBackpressure, type Settings as BackpressureSettings } from "../permits/options.ts"
import { checkRetryPolicy } from "../retry/options.ts"

/** An attempt that the deadline ends after less time than this is no evidence about the service. */
export const defaultMinTimeout: Duration.Duration = Duration.seconds(1)

/** What the calls of a policy read of its options. */
export interface Settings {
  readonly name: string
  readonly retry: RetryPolicy
  readonly attemptTimeoutMillis: number | undefined
  readonly minTimeoutMillis: number
  readonly deadline: Duration.Input | undefined
  readonly classify: Classify<unknown, unknown> | undefined
}

/** The checked options of a policy. */
export interface CheckedPolicy {
  readonly settings: Settings
  readonly breaker: CheckedBreaker | undefined
  readonly backpressure: BackpressureSettings | undefined
  readonly deduplicator: DeduplicatorOptions
}

const policyOptions: Known<SluiceOptions> = {
  name: true,
  retry: true,
  breaker: true,
  backpressure: true,
  deduplicator: true,
  attemptTimeout: true,
  minTimeout: true,
  deadline: true,
  classify: true
}

/** Reads options. */
export const readPolicy = (options: OptionsReader, input: SluiceOptions): CheckedPolicy => {
  const given = options.object("options", input, policyOptions)
  const { attemptTimeout, backpressure, breaker, classify, deadline, deduplicator } = given
  // Not `??`: null, which JSON can contain, is refused and not a default.
  const { minTimeout = defaultMinTimeout, retry = none } = given
  const name = options.nonEmptyString("name", given.name)
  options.optionalFunction("classify", classify)
  checkRetryPolicy(options, retry, "retry.")
  const checkedBreaker = breaker === undefined ? undefined : { ...readBreaker(options, breaker, "breaker."), name }
  if (deduplicator !== undefined) readDeduplicator(options, deduplicator, "deduplicator.")
  if (deadline !== undefined) options.millis("deadline", deadline, 1)
  const attemptTimeoutMillis = attemptTimeout === undefined
    ? undefined
    : options.millis("attemptTimeout", attemptTimeout, 1)
  if (checkedBreaker !== undefined && attemptTimeoutMillis !== undefined) {
    checkSlowAfter(options, "breaker.slowAfter", checkedBreaker.slowMillis, attemptTimeoutMillis)
  }
  return {
    settings: {
      name,
      retry,
      attemptTimeoutMillis,
      minTimeoutMillis: options.millis("minTimeout", minTimeout, 0),
      deadline,
      classify
    },
    breaker: checkedBreaker,
    backpressure: backpressure === undefined
      ? undefined
      : { ...readBackpressure(options, backpressure, "backpressure."), name },
    deduplicator: { ...deduplicator, name }
  }
}
