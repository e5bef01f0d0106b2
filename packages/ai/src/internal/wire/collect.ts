import { callAfter } from "@sluice/core/Timer"
import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { OnContent } from "../../TextModel.ts"
import { CurrentCollectLimits, StreamLimits } from "../stream/limits.ts"
import type { RequestConfig } from "./config.ts"
import type { Reception } from "./reception.ts"
import type { Ready } from "./sending.ts"

export type Part = Response.PartEncoded | Response.StreamPartEncoded

/** Sends a request and reads the response to its end. For a stream, within the limits of silence. */
export const collect = <C extends RequestConfig>(
  { fiber, request, send }: Ready<C>
): Effect.Effect<ReadonlyArray<Part>, AiError.AiError> =>
  Effect.callback((resume) => {
    const { context } = fiber
    const attempt = fiber.getRef(StreamLimits)
    const limits = request.streams ? fiber.getRef(CurrentCollectLimits) : undefined
    const notify = fiber.getRef(OnContent)
    const clock = fiber.getRef(Clock.Clock)
    // Never set back, since the limits are about elapsed time.
    const now = (): number => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
    const startedAt = now()
    let length = 0
    let lastAt = startedAt
    const millisLeft = (): number => {
      if (limits === undefined) return Number.POSITIVE_INFINITY
      return (length === 0 ? startedAt + limits.firstTokenMillis : lastAt + limits.idleMillis) - now()
    }

    let cancel: (() => void) | undefined
    let firesAt = Number.POSITIVE_INFINITY
    // Content that arrives moves no timer. A timer that fires too early is set again.
    const watch = (millis: number): void => {
      cancel?.()
      if (millis === Number.POSITIVE_INFINITY) return
      firesAt = now() + millis
      cancel = callAfter(context, millis, onTimer)
    }
    const onTimer = (): void => {
      if (limits === undefined) return
      const left = millisLeft()
      if (left > 0) return watch(left)
      // The reception waits for the end, and stops in time.
      if (reception.reader?.isEnding === true) return watch(limits.idleMillis)
      reception.close()
      resume(Effect.fail(limits.silent(length === 0 ? "first" : "idle", reception.reader?.made ?? 0)))
    }

    const onContent = (content: number): void => {
      const isFirst = length === 0
      length = content
      notify?.(content)
      if (limits === undefined) return
      lastAt = now()
      if (isFirst) {
        limits.onFirst()
        if (lastAt + limits.idleMillis < firesAt) watch(limits.idleMillis)
      }
      limits.onContent(content)
    }

    watch(millisLeft())
    const reception: Reception<C> = send({
      joinsDeltas: true,
      failsAt: () =>
        Math.min(attempt?.failsAt ?? Number.POSITIVE_INFINITY, clock.currentTimeMillisUnsafe() + millisLeft()),
      onChange: (reception) => {
        const content = reception.reader?.contentLength ?? 0
        if (content > length) onContent(content)
        if (!reception.isOver) return
        cancel?.()
        resume(reception.failed ?? Effect.succeed(reception.whole ?? reception.take()))
      }
    })
    return Effect.sync(() => {
      cancel?.()
      reception.close()
    })
  })
