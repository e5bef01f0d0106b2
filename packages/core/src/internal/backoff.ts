import * as Duration from "effect/Duration"
import type { RetryPolicy } from "../RetryPolicy.ts"

// What nobody can count with, in a policy that nobody checked, waits for the cap, and a cap of that kind is the default:
// rubbish must not be no wait at all.
const defaultCapMillis = 60_000

/** Milliseconds of what is a duration, else NaN. Effect reads a NaN as no time, also one inside of an object. */
export const millisOf = (input: Duration.Input): number => {
  if (Number.isNaN(input)) return Number.NaN
  if (typeof input === "object" && input !== null && !Duration.isDuration(input)) {
    if (Object.values(input).some((value) => value !== undefined && !(typeof value === "number" && value === value))) {
      return Number.NaN
    }
  }
  try {
    return Duration.toMillis(input)
  } catch {
    return Number.NaN
  }
}

/** The longest back-off of a policy: a finite number, whatever it says. */
const capMillis = (policy: RetryPolicy): number => {
  const cap = millisOf(policy.maxDelay)
  return cap >= 0 ? Math.min(cap, Number.MAX_SAFE_INTEGER) : defaultCapMillis
}

/** `baseDelay * factor^(attempt - 1)`, at most the cap: a finite number for every input. */
export const backoffMillis = (policy: RetryPolicy, attempt: number): number => {
  const cap = capMillis(policy)
  const base = millisOf(policy.baseDelay)
  const exponent = attempt > 1 ? attempt - 1 : 0
  // 0 * Infinity is NaN and means 0. A factor below 1 would end in no wait at all.
  const growth = exponent === 0 || base === 0 ? 1 : policy.factor >= 1 ? policy.factor ** exponent : Number.NaN
  const raw = base * growth
  return raw >= 0 && raw < cap ? raw : cap
}

/** The waits of one call of a retry, one after the other. */
export class Backoff {
  private readonly policy: RetryPolicy
  private previous: number | undefined

  constructor(policy: RetryPolicy) {
    this.policy = policy
  }

  /**
   * The wait after the given attempt, where `hint` is the least that the dependency asks for: 0 for nothing. Without a hint
   * it is never above the cap.
   */
  next(attempt: number, hint: number, random: { nextDoubleUnsafe(): number }): number {
    const { jitter } = this.policy
    const longest = jitter === "decorrelated" ? this.decorrelated() : backoffMillis(this.policy, attempt)
    if (jitter === "none") return Math.max(hint, longest)
    const least = this.least(longest)
    const spread = random.nextDoubleUnsafe() * (longest - least)
    this.previous = Math.min(least + spread, longest)
    // Above a hint stands only the part that is chance, so that those who were sent away together do not return together.
    return hint > least ? hint + spread : this.previous
  }

  private least(longest: number): number {
    switch (this.policy.jitter) {
      case "equal":
        return longest / 2
      case "decorrelated":
        return backoffMillis(this.policy, 1)
      // "full", and whatever an unchecked policy says.
      default:
        return 0
    }
  }

  // Drawn below the cap, where the source draws first and cuts off then: cut off, two of three who have come to the cap wait
  // exactly as long.
  private decorrelated(): number {
    const base = backoffMillis(this.policy, 1)
    return Math.min(3 * (this.previous ?? base), capMillis(this.policy))
  }
}
