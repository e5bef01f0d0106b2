import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

/**
 * Several streams of events as one. All are subscribed to when it is opened: nothing that happens afterwards is missed, as it
 * would be by a merge, which begins its streams in fibers that have yet to run. It ends when all of them have ended.
 */
export const merged = <A>(streams: ReadonlyArray<Stream.Stream<A>>): Stream.Stream<A> =>
  Stream.unwrap(Effect.gen(function*() {
    // Small, and whoever fills it waits: a slow reader's events pile up where they are counted.
    const queue = yield* Queue.bounded<A, Cause.Done>(16)
    let left = streams.length
    const ended = Effect.suspend(() => --left === 0 ? Queue.end(queue) : Effect.void)
    for (const stream of streams) {
      yield* Stream.runForEach(stream, (event) => Queue.offer(queue, event)).pipe(
        Effect.andThen(ended),
        Effect.forkScoped({ startImmediately: true })
      )
    }
    return Stream.fromQueue(queue)
  }))
