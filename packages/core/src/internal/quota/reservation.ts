import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Reservation } from "../../Quota.ts"
import type { Hold } from "./hold.ts"

/** The reservation of a hold that has its amounts. */
export const reservationOf = (hold: Hold): Reservation => ({
  waited: hold.waited === undefined
    ? undefined
    : { dimension: hold.waited.dimension, duration: Duration.millis(hold.waited.millis) },
  settle: (actual, arrivedBy) => Effect.sync(() => hold.settle(actual, arrivedBy)),
  refund: Effect.sync(() => hold.refund()),
  throttled: (retryAfter) =>
    Effect.sync(() => hold.throttled(retryAfter === undefined ? undefined : Duration.toMillis(retryAfter)))
})
