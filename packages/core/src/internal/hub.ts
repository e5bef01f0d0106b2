import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

/**
 * Hands values to whoever reads at that moment. It can be told synchronously, costs nothing while nobody reads, and holds a
 * bounded number of values for each reader: one that falls behind misses the oldest, and they are counted. (A sliding PubSub
 * drops the newest where it is told synchronously.)
 */
export class Hub<A> {
  /** Values that some reader missed. */
  dropped = 0
  private readonly capacity: number
  private readonly readers = new Set<Queue.Queue<A, Cause.Done>>()
  private isOpen = true

  constructor(capacity = 256) {
    this.capacity = capacity
  }

  get hasReaders(): boolean {
    return this.readers.size > 0
  }

  publish(value: A): void {
    for (const queue of this.readers) {
      if (Queue.sizeUnsafe(queue) >= this.capacity) this.dropped++
      Queue.offerUnsafe(queue, value)
    }
  }

  /** From the moment of subscribing. It ends when the hub is closed, after what was told before. */
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

  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.isOpen = false
    const queues = [...this.readers]
    this.readers.clear()
    return Effect.forEach(queues, (queue) => Queue.end(queue), { discard: true })
  })
}
