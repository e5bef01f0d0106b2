import * as Duration from "effect/Duration"
import type { DeduplicatorOptions } from "../../Deduplicator.ts"
import type { Known, OptionsReader } from "../../OptionsReader.ts"
import { none, type RetryPolicy } from "../../RetryPolicy.ts"
import type { Classify } from "../../Outcome.ts"
import type { Quota, QuotaOptions } from "../../Quota.ts"
import type { SluiceOptions } from "../../Sluice.ts"
import { type CheckedBreaker, checkSlowAfter, readBreaker } from "../circuit/options.ts"
import { readDeduplicator } from "../dedupe/options.ts"
import { readBackpressure, type Settings as BackpressureSettings } from "../permits/options.ts"
import { readQuota, type Settings as QuotaSettings } from "../quota/options.ts"
import { quotasOf } from "../quota/quotas.ts"
import { checkRetryPolicy } from "../retry/options.ts"

/** An attempt that the deadline ends after less time than this is no evidence about the service. */
export const defaultMinTimeout: Duration.Duration = Duration.seconds(1)

/** The options of a policy that its calls read. */
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
  readonly quota: CheckedQuota | undefined
  readonly deduplicator: DeduplicatorOptions
}

/** The quota of a policy: one of its own, or a service that it shares. */
export type CheckedQuota =
  | { readonly _tag: "Own"; readonly settings: QuotaSettings; readonly options: QuotaOptions }
  | { readonly _tag: "Shared"; readonly settings: QuotaSettings; readonly service: Quota["Service"] }

const policyOptions: Known<SluiceOptions> = {
  name: true,
  retry: true,
  breaker: true,
  backpressure: true,
  quota: true,
  deduplicator: true,
  attemptTimeout: true,
  minTimeout: true,
  deadline: true,
  classify: true
}

/** Reads options. */
export const readPolicy = (options: OptionsReader, input: SluiceOptions): CheckedPolicy => {
  const given = options.object("options", input, policyOptions)
  const { attemptTimeout, backpressure, breaker, classify, deadline, deduplicator, quota } = given
  // Without `??`: null, which JSON can contain, is refused and does not mean the default.
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
    quota: quota === undefined ? undefined : readPolicyQuota(options, quota, name),
    deduplicator: { ...deduplicator, name }
  }
}

const readPolicyQuota = (
  options: OptionsReader,
  quota: NonNullable<SluiceOptions["quota"]>,
  name: string
): CheckedQuota => {
  const shared = typeof quota === "object" && quota !== null ? quotasOf(quota) : undefined
  // `quotasOf` knows the services that `Quota` made.
  if (shared !== undefined) return { _tag: "Shared", settings: shared.settings, service: quota as Quota["Service"] }
  const given = quota as QuotaOptions
  return { _tag: "Own", settings: { ...readQuota(options, given, "quota."), name }, options: { ...given, name } }
}
