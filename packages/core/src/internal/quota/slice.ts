import type { Ask } from "../../QuotaStore.ts"
import type { Dimension } from "./dimension.ts"

/**
 * Amounts of the rates of an account that a shared store has granted together, for the calls of the next moments. Its calls start
 * while it is open. When it closes, the rest is given back, and when the last call has ended, the store learns their use.
 */
export class Slice {
  readonly target: string
  readonly id: string
  readonly asks: ReadonlyArray<Ask>
  /** When its last call may start. The store counts all of it as arriving a guard after this time. */
  readonly until: number
  isOpen = true
  cancelTimer: (() => void) | undefined = undefined
  /** Calls that have not ended. */
  calls = 0
  /** By when all of its calls had reached the provider. */
  arrivedBy = Number.NEGATIVE_INFINITY
  /** The sum of the amounts of its calls, also of those that were given back. */
  readonly taken: Array<number>
  private readonly openedAt: number
  private readonly granted: ReadonlyArray<number>
  /** Negative if calls used more than they reserved. */
  private readonly left: Array<number>
  private readonly modes: ReadonlyArray<string>
  private readonly rates: ReadonlyArray<Dimension>

  constructor(options: {
    readonly target: string
    readonly id: string
    readonly asks: ReadonlyArray<Ask>
    readonly rates: ReadonlyArray<Dimension>
    readonly granted: ReadonlyArray<number>
    readonly openedAt: number
    readonly until: number
  }) {
    this.target = options.target
    this.id = options.id
    this.asks = options.asks
    this.rates = options.rates
    this.granted = options.granted
    this.openedAt = options.openedAt
    this.until = options.until
    this.left = [...options.granted]
    this.taken = options.granted.map(() => 0)
    this.modes = options.rates.map(({ mode }) => mode)
  }

  /** Whether a call with these amounts may start. A sum of another mode is another sum. */
  fits(now: number, amounts: ReadonlyArray<number>): boolean {
    if (!this.isOpen || now >= this.until) return false
    for (let index = 0; index < amounts.length; index++) {
      const amount = amounts[index] as number
      if (amount > (this.left[index] as number) && amount > 0) return false
      if (this.rates[index]?.mode !== this.modes[index]) return false
    }
    return true
  }

  take(amounts: ReadonlyArray<number>): void {
    this.calls++
    for (let index = 0; index < amounts.length; index++) {
      this.left[index] = (this.left[index] as number) - (amounts[index] as number)
      this.taken[index] = (this.taken[index] as number) + (amounts[index] as number)
    }
  }

  /** Records the use of a call that has ended. `undefined`: it was not sent. */
  end(amounts: ReadonlyArray<number>, used: ReadonlyArray<number> | undefined, arrivedBy: number): void {
    this.calls--
    if (used !== undefined) this.arrivedBy = Math.max(this.arrivedBy, arrivedBy)
    for (let index = 0; index < amounts.length; index++) {
      this.left[index] = (this.left[index] as number) + (amounts[index] as number) - (used?.[index] ?? 0)
    }
  }

  /** The share of the grant that is not used, for the limit where it is largest. */
  get rest(): number {
    let rest = 0
    for (const [index, granted] of this.granted.entries()) {
      if (granted > 0) rest = Math.max(rest, (this.left[index] as number) / granted)
    }
    return rest
  }

  /** What `lifeMillis` of calls like these would use. */
  usesIn(lifeMillis: number, now: number): ReadonlyArray<number> {
    // A slice that was used up at once shows that there is more to do, not how much.
    const lasted = Math.max(lifeMillis / maxGrowth, Math.min(now, this.until) - this.openedAt)
    return this.taken.map((amount) => amount * lifeMillis / lasted)
  }

  /** The use of its calls, and the reserved amounts of those that have not ended. */
  get actual(): ReadonlyArray<{ readonly scope: string; readonly dimension: string; readonly amount: number }> {
    return this.asks.map(({ dimension, scope }, index) => ({
      dimension,
      scope,
      amount: (this.granted[index] as number) - (this.left[index] as number)
    }))
  }
}

const maxGrowth = 8
