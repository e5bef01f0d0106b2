import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import type * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { StreamLimits } from "../stream/limits.ts"
import type { RequestConfig } from "./config.ts"
import { toStream } from "./partsForms.ts"
import type { Ready } from "./sending.ts"

type Part = Response.StreamPartEncoded

interface Observed<C extends RequestConfig> extends Ready<C> {
  /** Called with the parts before they are emitted. */
  readonly observe: (parts: ReadonlyArray<Part>) => void
}

/** Sends a request when the stream is first pulled, and emits the parts of the response as they arrive. */
export const streamed = <C extends RequestConfig, R>(
  ready: Effect.Effect<Observed<C>, AiError.AiError, R>
): Stream.Stream<Part, AiError.AiError, R> =>
  Stream.fromChannel(Channel.fromTransform((_, scope) =>
    Effect.flatMap(ready, ({ fiber, observe, send }) => {
      const limits = fiber.getRef(StreamLimits)
      let wake: (() => void) | undefined
      const reception = send({
        joinsDeltas: false,
        failsAt: () => limits?.failsAt ?? Number.POSITIVE_INFINITY,
        onChange: () => wake?.()
      })
      type Step = Pull.Pull<Arr.NonEmptyReadonlyArray<Part>, AiError.AiError>
      const next: Step = Effect.suspend((): Step => {
        const parts = reception.whole === undefined ? reception.take() : toStream(reception.takeWhole())
        if (Arr.isReadonlyArrayNonEmpty(parts)) {
          observe(parts)
          return Effect.succeed(parts)
        }
        if (reception.failed !== undefined) return reception.failed
        return reception.isOver ? Cause.done() : waiting
      })
      const waiting: Step = Effect.callback((resume) => {
        wake = () => {
          if (!reception.isOver && !reception.hasParts) return
          wake = undefined
          resume(next)
        }
        reception.awaitMore()
        return Effect.sync(() => {
          wake = undefined
        })
      })
      return Effect.as(Scope.addFinalizer(scope, Effect.sync(() => reception.close())), next)
    })
  ))
