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
 * How long to wait for the connection to end after the answer has: time enough for the last bytes of a chunked body, so
 * that the connection can be used again, and no hostage to a server that keeps it open.
 */
const lingerMillis = 100

/**
 * How long to wait for the token counts once the provider said why the answer ends. They come right after it, if at all, so
 * that a server that keeps the connection open costs the call a second and not its timeout.
 */
const endingMillis = 1000

/** The parts of an answer whose bytes arrive in `bytes`. */
export const make = (
  bytes: Stream.Stream<Uint8Array, HttpClientError.HttpClientError>,
  answer: EventReader,
  origin: Failure.Origin
): Stream.Stream<Response.StreamPartEncoded, AiError.AiError> =>
  Stream.transformPull(bytes, (pull) =>
    Effect.sync(() => {
      type Step = Pull.Pull<Arr.NonEmptyReadonlyArray<Response.StreamPartEncoded>, AiError.AiError>

      const next: Step = Effect.suspend((): Step => {
        const parts = answer.take()
        if (Arr.isReadonlyArrayNonEmpty(parts)) return Effect.succeed(parts)
        if (answer.failure !== undefined) return Effect.fail(answer.failure)
        if (isOver) return Cause.done()
        if (answer.isComplete) return linger
        return answer.isEnding ? readEnding : read
      })

      const pulled = {
        onSuccess: (chunks: Arr.NonEmptyReadonlyArray<Uint8Array>): Step => {
          for (const chunk of chunks) answer.feed(chunk)
          return next
        },
        onFailure: (cause: Cause.Cause<HttpClientError.HttpClientError | Cause.Done>): Step => {
          if (Cause.hasDies(cause)) return Effect.failCause(Cause.fromReasons(cause.reasons.filter(Cause.isDieReason)))
          const error = Cause.findError(cause)
          if (Result.isFailure(error)) return Effect.failCause(error.failure)
          return Effect.flatMap(Clock.currentTimeMillis, (now) => {
            answer.end(Cause.isDone(error.success) ? undefined : Failure.transport(origin, error.success, now))
            return next
          })
        }
      }

      const read: Step = Effect.matchCauseEffect(pull, pulled)

      // One budget for all that follows, since a server that sends keep-alives does not come to an end either. A pull that
      // ran out of it is interrupted, and nothing is pulled after it.
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
        // The answer is complete; a connection that is lost after it changes nothing.
        Effect.catch(() => Cause.done())
      )

      return next
    }))
