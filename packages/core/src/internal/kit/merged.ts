import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

/**
 * Merges streams of events into one that subscribes to all of them before it yields. `Stream.merge` starts its streams in
 * fibers that have yet to run, and misses events in between. Ends when all streams have ended. Without streams it ends at once.
 */
export const merged = <A>(streams: ReadonlyArray<Stream.Stream<A>>): Stream.Stream<A> =>
  streams.length === 0 ? Stream.empty : Stream.unwrap(Effect.gen(function*() {
    // Small and with backpressure, so that a slow reader's events pile up in the hubs, which count what they drop.
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
