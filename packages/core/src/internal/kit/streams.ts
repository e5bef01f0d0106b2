import type * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

type Chunk<A> = readonly [A, ...Array<A>]

/**
 * A stream that can be opened several times before its first element. Each attempt has a scope of its own, which is closed
 * before its failure is handled. The first element commits to its attempt.
 */
export const reopenUntilFirst = <A, E, R>(options: {
  readonly open: (attempt: number) => Stream.Stream<A, E, R>
  /** Succeeds when it is time for another attempt. Its failure is the stream's. */
  readonly onFailure: (cause: Cause.Cause<E>, attempt: number) => Effect.Effect<void, E, R>
}): Stream.Stream<A, E, R> =>
  Stream.fromChannel(Channel.fromTransformBracket((_, __, scope) => {
    let committed: Pull.Pull<Chunk<A>, E, void, R> | undefined

    const attemptFrom = (attempt: number): Pull.Pull<Chunk<A>, E, void, R> =>
      Effect.suspend(() => {
        const own = Scope.forkUnsafe(scope)
        return Effect.flatMap(
          Channel.toPullScoped(Stream.toChannel(options.open(attempt)), own),
          (pull) =>
            Effect.matchCauseEffect(pull, {
              onSuccess: (chunk) => {
                committed = pull
                return Effect.succeed(chunk)
              },
              onFailure: (cause): Pull.Pull<Chunk<A>, E, void, R> =>
                Pull.isDoneCause(cause)
                  ? Effect.failCause(cause)
                  : Effect.andThen(Scope.close(own, Exit.failCause(cause)), again(withoutDone(cause), attempt))
            })
        )
      })

    const again = (cause: Cause.Cause<E>, attempt: number): Pull.Pull<Chunk<A>, E, void, R> =>
      Effect.andThen(options.onFailure(cause, attempt), Effect.suspend(() => attemptFrom(attempt + 1)))

    return Effect.succeed(Effect.suspend(() => committed ?? attemptFrom(1)))
  }))

// Only for a cause that `Pull.isDoneCause` has ruled out as the end of a stream, which the type cannot say.
export const withoutDone = <E>(cause: Cause.Cause<E | Cause.Done<void>>): Cause.Cause<E> => cause as Cause.Cause<E>

/** Opens something before the stream, in a scope that is closed before the stream's end or failure is returned. */
export const bracketed = <A, E, R, E2, R2>(
  self: Stream.Stream<A, E, R>,
  open: (scope: Scope.Scope) => Effect.Effect<void, E2, R2>
): Stream.Stream<A, E | E2, R | R2> =>
  Stream.fromChannel(
    Channel.fromTransformBracket((_, __, scope) =>
      Effect.andThen(open(scope), Channel.toPullScoped(Stream.toChannel(self), scope))
    )
  )
