import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as HttpClientError from "effect/http/HttpClientError"
import type * as Pull from "effect/Pull"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { StreamLimits } from "../stream/limits.ts"
import type { EventReader } from "./eventReader.ts"
import * as Failure from "./failure.ts"

/**
 * How long a complete response waits for the end of its body. That is enough for the last bytes of a chunked body,
 * which make the connection reusable. A server that keeps it open does not hold up the call.
 */
export const lingerMillis = 100

/**
 * How long to wait after the finish reason for more content, the token counts, or the end of the stream.
 *
 * A finish reason is not always the last one. Gateways have sent more text 700 ms after it, and an answer 1.5 s after the
 * thoughts. This is three times that. A server that keeps the connection open and sends no end delays the finish part by
 * this time. The text before it was emitted already.
 */
export const endingMillis = 5000

/** The wait ends this long before a limit of the call, so that a complete answer does not fail as late or silent. */
export const marginMillis = 100

/** Reads a streamed response from its bytes. */
export const make = (
  bytes: Stream.Stream<Uint8Array, HttpClientError.HttpClientError>,
  reader: EventReader
): Stream.Stream<Response.StreamPartEncoded, AiError.AiError> =>
  Stream.transformPull(bytes, (pull) =>
    Effect.map(StreamLimits, (limits) => {
      type Step = Pull.Pull<Arr.NonEmptyReadonlyArray<Response.StreamPartEncoded>, AiError.AiError>

      const next: Step = Effect.suspend((): Step => {
        const parts = reader.take()
        if (Arr.isReadonlyArrayNonEmpty(parts)) return Effect.succeed(parts)
        if (reader.failure !== undefined) return Effect.fail(reader.failure)
        if (isOver) return Cause.done()
        if (reader.isComplete) return linger
        return reader.isEnding ? readEnding : read
      })

      const pulled = {
        onSuccess: (chunks: Arr.NonEmptyReadonlyArray<Uint8Array>): Step => {
          for (const chunk of chunks) reader.feed(chunk)
          return next
        },
        onFailure: (cause: Cause.Cause<HttpClientError.HttpClientError | Cause.Done>): Step => {
          if (Cause.hasDies(cause)) return Effect.failCause(Cause.fromReasons(cause.reasons.filter(Cause.isDieReason)))
          const error = Cause.findError(cause)
          if (Result.isFailure(error)) return Effect.failCause(error.failure)
          reader.end(Cause.isDone(error.success) ? undefined : Failure.lostBy(error.success))
          return next
        }
      }

      const read: Step = Effect.matchCauseEffect(pull, pulled)

      // One time budget for each end, since a server can send keep-alives without end. When it is used up, the pull is
      // interrupted, and nothing is pulled after it.
      let ending = 0
      let endsAt = 0
      let isOver = false
      const readEnding: Step = Effect.flatMap(Clock.currentTimeMillis, (now) => {
        if (ending !== reader.ending) {
          ending = reader.ending
          endsAt = now + endingMillis
        }
        const failsAt = limits?.failsAt ?? Number.POSITIVE_INFINITY
        const bounded = Effect.timeoutOrElse(pull, {
          duration: Math.max(0, Math.min(endsAt, failsAt - marginMillis) - now),
          orElse: () => {
            isOver = true
            return Cause.done()
          }
        })
        return Effect.matchCauseEffect(bounded, pulled)
      })

      const linger: Step = Effect.forever(pull, { disableYield: true }).pipe(
        Effect.timeoutOrElse({ duration: lingerMillis, orElse: () => Cause.done() }),
        // The response is complete. A connection that is lost now changes nothing.
        Effect.catch(() => Cause.done())
      )

      return next
    }))
