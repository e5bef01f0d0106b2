/**
 * Broadcasts events from synchronous code to the readers of that moment.
 *
 * **When to use**
 *
 * For the events of a primitive of your own: transitions, decisions, logs of calls. `publish` is a plain function, costs
 * nothing without readers, and never blocks. To deliver every event, use a `Queue`.
 *
 * **Details**
 *
 * Each reader has a queue of `capacity` events (default 256). A reader that falls behind loses the oldest events, and
 * `dropped` counts them. Effect's sliding `PubSub` drops the newest event when it is published synchronously.
 *
 * **Gotchas**
 *
 * - A reader gets the events from the moment at which it subscribes. Events without a reader are lost and not counted.
 * - `Stream.merge` subscribes a moment later than it is run. Merge the streams of hubs with `Hub.merge`.
 *
 * **Example** (Two events for a reader)
 *
 * ```ts
 * import { Effect, Fiber, Stream } from "effect"
 * import { Hub } from "@sluice/core/Hub"
 *
 * const program = Effect.gen(function*() {
 *   const hub = new Hub<string>()
 *   const reader = yield* Effect.forkChild(Stream.runCollect(hub.stream), { startImmediately: true })
 *   hub.publish("opened")
 *   hub.publish("closed")
 *   yield* hub.close
 *   return yield* Fiber.join(reader)
 * })
 *
 * console.log((await Effect.runPromise(program)).join(", ")) // => opened, closed
 * ```
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { merged } from "./internal/kit/merged.ts"

/**
 * A synchronous broadcast with a bounded queue for each reader.
 *
 * @since 0.1.0
 * @category models
 */
export class Hub<A> {
  /**
   * Merges the streams of several hubs, also mapped or filtered. Subscribes to all of them before it yields, so it misses no
   * event. `Stream.merge` and `Stream.mergeAll` subscribe later, and miss events before. Ends when all streams have ended.
   */
  static readonly merge: <A>(streams: ReadonlyArray<Stream.Stream<A>>) => Stream.Stream<A> = merged
  private lost = 0
  private readonly capacity: number
  private readonly readers = new Set<Queue.Queue<A, Cause.Done>>()
  private isOpen = true

  /** `capacity`: events that each reader may be behind. Default 256. */
  constructor(capacity = 256) {
    this.capacity = capacity
  }

  get hasReaders(): boolean {
    return this.readers.size > 0
  }

  /** How many events readers have lost by falling behind. */
  get dropped(): number {
    return this.lost
  }

  /** Hands an event to every reader. */
  publish(event: A): void {
    for (const queue of this.readers) {
      if (Queue.sizeUnsafe(queue) >= this.capacity) this.lost++
      Queue.offerUnsafe(queue, event)
    }
  }

  /** The events from the moment of subscribing. Ends when the hub is closed, after the events published before. */
  readonly stream: Stream.Stream<A> = Stream.unwrap(Effect.suspend(() => {
    if (!this.isOpen) return Effect.succeed(Stream.empty)
    return Effect.map(
      Effect.acquireRelease(
        Effect.tap(Queue.sliding<A, Cause.Done>(this.capacity), (queue) => Effect.sync(() => this.readers.add(queue))),
        (queue) => {
          this.readers.delete(queue)
          return Queue.shutdown(queue)
        }
      ),
      (queue): Stream.Stream<A> => Stream.fromQueue(queue)
    )
  }))

  /** Ends the streams of all readers. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.isOpen = false
    const queues = [...this.readers]
    this.readers.clear()
    return Effect.forEach(queues, (queue) => Queue.end(queue), { discard: true })
  })
}
