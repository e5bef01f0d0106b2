import type * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"

export interface Concurrency {
  /** At least 2. */
  readonly concurrency: number
  /** Emits results as they complete, instead of in the order of the inputs. */
  readonly unordered: boolean
}

/**
 * `Stream.mapEffect` whose work has ended by the time that an interruption of its consumer returns.
 *
 * An input is read only when a slot is free. Work that runs and results that wait for the consumer never exceed
 * `concurrency`. A failed input ends the stream at once. A failure or the end of the inputs comes after all results.
 *
 * `Stream.mapEffect` reads one more input when it keeps the order. On interruption it stops the running effects one after the
 * other, and meanwhile reads and starts inputs that it does not wait for. In 30 of 1,952 tested interruption points a
 * finalizer was still running when the interruption returned. Here all work runs in children of one fiber, which end with it.
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
  Effect.flatMap(Queue.unbounded<Fiber.Fiber<B, E2>>(), (fibers) => {
    const slots = Semaphore.makeUnsafe(concurrency)
    let started = 0
    const run = (input: A) => Effect.suspend(() => f(input, started++))
    const fail = (cause: Cause.Cause<E | E2>) => Queue.failCause(results, cause)
    const emit = (result: B) => Effect.andThen(Queue.offer(results, result), slots.release(1))

    const start = (input: A): Effect.Effect<unknown, never, R2> =>
      unordered
        ? fork(Effect.matchCauseEffect(run(input), { onFailure: fail, onSuccess: emit }))
        : Effect.flatMap(fork(Effect.tapCause(run(input), fail)), (fiber) => Queue.offer(fibers, fiber))
    // One fiber emits for all. If each fiber waited for the one before it, a thousand of them would overflow the stack.
    const emitInOrder = Queue.take(fibers).pipe(
      Effect.flatMap(Fiber.join),
      Effect.flatMap(emit),
      Effect.forever({ disableYield: true })
    )

    // The slot of the next input is taken before it is read. When the other slots are free too, all results are emitted.
    const allEmitted = slots.take(concurrency - 1)
    return (unordered ? Effect.void : fork(emitInOrder)).pipe(
      Effect.andThen(slots.take(1)),
      Effect.andThen(Stream.runForEach(inputs, (input) => Effect.andThen(start(input), slots.take(1)))),
      Effect.matchCauseEffect({
        onFailure: (cause) => Effect.andThen(allEmitted, fail(cause)),
        onSuccess: () => Effect.andThen(allEmitted, Queue.end(results))
      })
    )
  })

const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })
