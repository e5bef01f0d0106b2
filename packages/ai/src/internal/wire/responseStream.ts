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
import type { EventReader } from "./eventReader.ts"
import * as Failure from "./failure.ts"

/**
 * How long a complete response waits for the end of its body. That is enough for the last bytes of a chunked body,
 * which make the connection reusable. A server that keeps it open does not hold up the call.
 */
const lingerMillis = 100

/**
 * How long to wait for token counts after the finish reason. They follow at once, if at all. A server that keeps the
 * connection open costs the call this second, and not its timeout.
 */
const endingMillis = 1000

/** Reads a streamed response from its bytes. */
export const make = (
  bytes: Stream.Stream<Uint8Array, HttpClientError.HttpClientError>,
  reader: EventReader,
  origin: Failure.Origin
): Stream.Stream<Response.StreamPartEncoded, AiError.AiError> =>
  Stream.transformPull(bytes, (pull) =>
    Effect.sync(() => {
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
          return Effect.flatMap(Clock.currentTimeMillis, (now) => {
            reader.end(Cause.isDone(error.success) ? undefined : Failure.transport(origin, error.success, now))
            return next
          })
        }
      }

      const read: Step = Effect.matchCauseEffect(pull, pulled)

      // One budget for all that follows, since a server can send keep-alives for ever. When it is used up, the pull is
      // interrupted, and nothing is pulled after it.
      let endsAt: number | undefined
      let isOver = false
      const readEnding: Step = Effect.flatMap(Clock.currentTimeMillis, (now) => {
        endsAt ??= now + endingMillis
        const bounded = Effect.timeoutOrElse(pull, {
          duration: Math.max(0, endsAt - now),
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
