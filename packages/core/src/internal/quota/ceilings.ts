import type { Learned, QuotaStore } from "../../QuotaStore.ts"
import type { KeyLimits } from "./account.ts"
import type { Dimension } from "./dimension.ts"
import { byHand, sharedName } from "./names.ts"

type LimitRequest = Parameters<QuotaStore["Service"]["limit"]>[0]

/** The name under which processes share the Retry-After of a key. */
const restName = "rest"

const nameOf = ({ spec: { name, windowMillis } }: Dimension): string => sharedName(name, windowMillis)

// The time of a request to the store makes the age of a limit uncertain by as much.
const sameMillis = 1_000
const sameRestMillis = 50

/**
 * What processes share of a provider: lowered limits and the Retry-After. A lowered limit is shared with its time, and each process
 * computes its recovery from that. So the limit rises once, and not once for each process.
 */
export class Ceilings {
  private readonly now: () => number
  private readonly send: (request: LimitRequest) => void
  private readonly heard = new WeakMap<Dimension, { readonly limit: number; readonly at: number }>()

  constructor(now: () => number, send: (request: LimitRequest) => void) {
    this.now = now
    this.send = send
  }

  /** Shares limits that this process has lowered, and a rest that it has set. */
  share({ key }: KeyLimits, lowered: ReadonlyArray<Dimension>, restMillis: number): void {
    for (const dimension of lowered) {
      const seen = dimension.limit.current
      this.heard.set(dimension, { limit: seen, at: this.now() })
      this.send({ target: key, dimension: nameOf(dimension), seen })
    }
    if (restMillis > 0) this.send({ target: key, dimension: restName, restMillis })
  }

  /** Follows what other processes have shared. Returns whether it was news, so that a request before it was for too much. */
  heed(limits: KeyLimits, learned: ReadonlyArray<Learned>): boolean {
    let isNews = false
    const now = this.now()
    for (const { ageMillis, dimension: name, limit, restMillis } of learned) {
      if (name === restName) {
        if (restMillis === 0 || now + restMillis <= limits.restUntil + sameRestMillis) continue
        limits.restUntil = now + restMillis
        isNews = true
      } else if (limit < Number.POSITIVE_INFINITY) {
        const dimension = limits.dimensions.find((one) => nameOf(one) === name)
        if (dimension !== undefined && this.follow(dimension, now, limit, now - ageMillis)) isNews = true
        if (restMillis === 0) continue
        const held = limits.dimensions.find((one) => byHand(nameOf(one)) === name)
        if (held?.hold(now, limit, now + restMillis) === true) isNews = true
      }
    }
    return isNews
  }

  private follow(dimension: Dimension, now: number, limit: number, at: number): boolean {
    const heard = this.heard.get(dimension)
    if (heard?.limit === limit && Math.abs(heard.at - at) < sameMillis) return false
    this.heard.set(dimension, { limit, at })
    return dimension.follow(now, limit, at)
  }
}
