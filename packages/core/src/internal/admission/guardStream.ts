import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { ignored } from "../../Outcome.ts"
import type { CircuitOpen } from "../circuit/circuitOpen.ts"
import { CurrentProbe, probeOf } from "../circuit/probe.ts"
import type { AnyEffect } from "../kit/primitive.ts"
import { withoutDone } from "../kit/streams.ts"
import { type AdmissionRequest, Attempt } from "./attempt.ts"

/**
 * A stream that has to be admitted. It reports to the circuit how upstream ended, or that `isComplete` held, and keeps its
 * permits until it is closed. If its consumer ends first, the attempt is settled here: as `Ignored` if the consumer succeeded,
 * and with an interruption, which the classifiers read, if it failed or was interrupted.
 */
export const guardStream = <A, E, R, E2>(
  request: AdmissionRequest<E2>,
  self: Stream.Stream<A, E, R>,
  isComplete: ((part: A) => boolean) | undefined
): Stream.Stream<A, E | E2 | CircuitOpen, R> =>
  Stream.fromChannel(Channel.fromTransformBracket((_, __, scope) =>
    Effect.withFiber((fiber) => {
      const opened = Effect.suspend(() => {
        const inside = attempt.isProbe ? Stream.provideService(self, CurrentProbe, probeOf(attempt)) : self
        return Effect.map(Channel.toPullScoped(Stream.toChannel(inside), scope), watch)
      })
      const attempt: Attempt<E2> = new Attempt(request, opened as AnyEffect, fiber)
      const reportExit = (exit: Exit.Exit<void, E>): Effect.Effect<void> =>
        Effect.uninterruptible(Effect.suspend(() => attempt.reportExit(exit) ?? Effect.void))

      const watch = (pull: Pull.Pull<readonly [A, ...Array<A>], E, void, R>) =>
        Effect.matchCauseEffect(pull, {
          onFailure: (cause) =>
            Effect.andThen(
              reportExit(Pull.isDoneCause(cause) ? Exit.void : Exit.failCause(withoutDone(cause))),
              Effect.failCause(cause)
            ),
          onSuccess: (parts) => {
            attempt.progress()
            return isComplete !== undefined && parts.some(isComplete)
              ? Effect.as(reportExit(Exit.void), parts)
              : Effect.succeed(parts)
          }
        })

      // A consumer that leaves is no evidence. If it failed or was interrupted, the classifiers get an interruption. By default
      // that is no evidence either, but a classifier may count it as slow.
      const closing = Scope.addFinalizerExit(scope, (exit) =>
        Effect.suspend(() =>
          (exit._tag === "Success" ? attempt.settle(ignored) : attempt.settleExit(Exit.interrupt())) ?? Effect.void
        ))
      // The attempt fails as its admission does, and succeeds with what it opened.
      return Effect.andThen(closing, attempt) as Effect.Effect<
        Pull.Pull<readonly [A, ...Array<A>], E, void, R>,
        E2 | CircuitOpen,
        R
      >
    })
  ))
