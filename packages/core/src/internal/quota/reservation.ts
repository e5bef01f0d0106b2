import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Reservation } from "../../Quota.ts"
import type { Hold } from "./hold.ts"

/** The reservation of a hold that has its amounts. `onEnd` is called when it is settled, refunded or throttled. */
export const reservationOf = (hold: Hold, onEnd?: () => void): Reservation => {
  const end = (how: () => void) =>
    Effect.sync(() => {
      how()
      onEnd?.()
    })
  return {
    waited: hold.waited === undefined
      ? undefined
      : { dimension: hold.waited.dimension, duration: Duration.millis(hold.waited.millis) },
    settle: (actual, arrivedBy) => end(() => hold.settle(actual, arrivedBy)),
    refund: end(() => hold.refund()),
    throttled: (retryAfter) =>
      end(() => hold.throttled(retryAfter === undefined ? undefined : Duration.toMillis(retryAfter)))
  }
}
