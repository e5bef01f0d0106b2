import type { Why } from "./permits.ts"

/**
 * The quota that a request needs besides its permits. The permits call `tryTake` in the step in which they would grant the request.
 * So a waiting call reserves no quota, and a call that waits for its quota holds no permit.
 */
export interface Ticket {
  /** Requests of one lane share limits. A full lane delays no other. */
  readonly lane: string
  /** Requests of one row keep their order. Rows of a lane take turns. */
  readonly row: string
  /** The requested amount as a share of its limit, for the limit where that share is largest. */
  readonly size: number
  /** How much others may take while it waits at the head, as a share of its size. */
  readonly overtake: number
  /** Whether only the limits of its row had no room at the last `tryTake`. */
  readonly isRowBlocked: boolean
  /** Whether it waits for the answer of a store, and not for room. Then it may queue even with a `maxWait` of 0. */
  readonly isPending: boolean
  /**
   * Reserves its amounts and returns 0. Otherwise returns the milliseconds until there may be room, at least 1; Infinity if
   * only an amount that is given back can make room; -1 if there will never be room.
   */
  tryTake(): number
  /** The reason why it must not queue. `undefined` if it may. */
  outlook(maxWaitMillis: number | undefined): Why | undefined
  /** Called when it joined the queue, and when it left. */
  queued(): void
  left(): void
  /** Called when its permits were given back, or were never granted. Gives back the reservation of a call that did not begin. */
  ended(): void
}
