import { toMillis } from "../../OptionsReader.ts"
import type { RetryPolicy } from "../../RetryPolicy.ts"

// In a policy that was not validated, an invalid number falls back to the maximum delay, and an invalid maximum to this. It
// must never mean no delay at all.
const defaultMaxMillis = 60_000

const maxMillis = (policy: RetryPolicy): number => {
  const max = toMillis(policy.maxDelay)
  return max >= 0 ? Math.min(max, Number.MAX_SAFE_INTEGER) : defaultMaxMillis
}

/** `baseDelay * factor^(attempt - 1)`, at most `maxDelay`. Finite for every input. */
export const backoffMillis = (policy: RetryPolicy, attempt: number): number => {
  const max = maxMillis(policy)
  const base = toMillis(policy.baseDelay)
  const exponent = attempt > 1 ? attempt - 1 : 0
  // 0 * Infinity is NaN, and means 0. A factor below 1 would end in no delay.
  const growth = exponent === 0 || base === 0 ? 1 : policy.factor >= 1 ? policy.factor ** exponent : Number.NaN
  const delay = base * growth
  return delay >= 0 && delay < max ? delay : max
}

/** The delays of one retry. */
export class Backoff {
  private readonly policy: RetryPolicy
  private previous: number | undefined

  constructor(policy: RetryPolicy) {
    this.policy = policy
  }

  /** The delay after an attempt. `retryAfterMillis` is the dependency's Retry-After, or 0. */
  next(attempt: number, retryAfterMillis: number, random: { nextDoubleUnsafe(): number }): number {
    const { jitter } = this.policy
    const longest = jitter === "decorrelated" ? this.decorrelated() : backoffMillis(this.policy, attempt)
    if (jitter === "none") return Math.max(retryAfterMillis, longest)
    const shortest = this.shortest(longest)
    const spread = random.nextDoubleUnsafe() * (longest - shortest)
    this.previous = Math.min(shortest + spread, longest)
    // Only the random part is added to a Retry-After, so that clients which were throttled together do not return together.
    return retryAfterMillis > shortest ? retryAfterMillis + spread : this.previous
  }

  private shortest(longest: number): number {
    switch (this.policy.jitter) {
      case "equal":
        return longest / 2
      case "decorrelated":
        return backoffMillis(this.policy, 1)
      // "full", and any other value of a policy that was not validated.
      default:
        return 0
    }
  }

  // The maximum is applied before drawing. Applied after, as in the source, two of three delays at the maximum are equal.
  private decorrelated(): number {
    const base = backoffMillis(this.policy, 1)
    return Math.min(3 * (this.previous ?? base), maxMillis(this.policy))
  }
}
