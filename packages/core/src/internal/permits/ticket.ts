import type { Why } from "./permits.ts"

/**
 * What a request needs besides permits: an amount of a quota. Permits ask it in the step in which they would grant the request,
 * so that nothing is reserved while a call waits, and no permit is held while a call waits for its quota.
 */
export interface Ticket {
  /** Requests of one lane share limits. A full lane holds up no other. */
  readonly lane: string
  /** Requests of one row keep their order. Rows of a lane take turns. */
  readonly row: string
  /** What it asks for, as a share of the limit that it needs most of. */
  readonly size: number
  /** How much of its size others may take while it waits at the head. */
  readonly overtake: number
  /** Whether only limits of its row had no room when it was asked last. */
  readonly isRowBlocked: boolean
  /** Whether it waits for an answer, and not for room. Then it may queue, however short it may wait. */
  readonly isPending: boolean
  /**
   * Reserves its amounts and returns 0. Otherwise returns the milliseconds until there may be room, at least 1; Infinity if
   * only something that is given back can make room; -1 if there will never be room.
   */
  tryTake(): number
  /** Why it must not queue. `undefined` if it may. */
  outlook(maxWaitMillis: number | undefined): Why | undefined
  /** It joined or left the queue. */
  queued(): void
  left(): void
  /** Its permits were given back, or it never had any: what is still reserved for a call that did not begin is given back. */
  ended(): void
}
