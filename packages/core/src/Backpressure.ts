/**
 * Bounds how many calls run at once, and what becomes of the others: refused at once, or kept in a bounded line.
 *
 * A call holds a permit while it runs and gives it back exactly once, however it ends: success, failure, defect,
 * interruption. At capacity a call is refused with `BackpressureShed`, unless a `queue` is configured: then that many may
 * wait, first come, first served.
 *
 * **When to use**
 *
 * In front of a service that gets slower the more is asked of it, or that bills for concurrency. To be told when a service
 * is down, use a circuit breaker. To keep a rate per second, use a rate limiter: a permit bounds how many, not how often.
 *
 * **Details**
 *
 * | option | default | reason |
 * |---|---|---|
 * | `capacity` | 16 | enough to hide the latency of a model, few enough for the concurrency limit of a small account |
 * | `queue` | 0 | work that waits invisibly is the start of an overload: waiting is asked for |
 * | `softLimit` | none | |
 *
 * **Gotchas**
 *
 * - A permit belongs to a call, not to a number: there is no `release` that could be forgotten or run twice.
 * - A call that takes a permit inside another permit of the same service can wait for itself.
 * - A stream holds its permit until it ends, fails, or its consumer leaves, not only until it is opened.
 *
 * **Example** (One runs, one waits, one is shed)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Backpressure from "@sluice/core/Backpressure"
 *
 * const program = Effect.gen(function*() {
 *   const { withPermit } = yield* Backpressure.Backpressure
 *   const call = Effect.delay(Effect.succeed("answered"), "10 millis").pipe(
 *     withPermit,
 *     Effect.catchTag("BackpressureShed", (shed) => Effect.succeed(shed.message))
 *   )
 *   return yield* Effect.all([call, call, call], { concurrency: "unbounded" })
 * }).pipe(Effect.provide(Backpressure.layer({ capacity: 1, queue: 1 })))
 *
 * console.log((await Effect.runPromise(program)).join(", ")) // => answered, answered, shed: 1 of 1 running, 1 waiting
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Options } from "./internal/options.ts"
import { granted, Permits } from "./internal/permits.ts"
import { RefusalTypeId } from "./internal/refusal.ts"
import { stackless } from "./internal/stackless.ts"
import { bracketed } from "./internal/streams.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"

/**
 * There was no permit for the call, and no place in the line.
 *
 * @since 0.1.0
 * @category errors
 */
export class BackpressureShed extends Schema.Error<BackpressureShed>("@sluice/core/BackpressureShed")({
  _tag: Schema.tag("BackpressureShed"),
  /** The name of the policy that refused. */
  policy: Schema.String,
  /** Calls that were running. */
  depth: Schema.Int,
  /** Calls that were waiting. */
  queued: Schema.Int,
  /** How many may run at once. */
  capacity: Schema.Int
}) {
  get [RefusalTypeId](): true {
    return true
  }
  override get message(): string {
    return `shed: ${this.depth} of ${this.capacity} running, ${this.queued} waiting`
  }
}

/**
 * What backpressure is built from.
 *
 * @since 0.1.0
 * @category models
 */
export interface BackpressureOptions {
  /** Named in refusals. Default `"backpressure"`. */
  readonly name?: string | undefined
  /** How many calls run at once. Default 16. */
  readonly capacity?: number | undefined
  /** How many more may wait, first come, first served. Default 0: a call that cannot run is shed. */
  readonly queue?: number | undefined
  /** From this depth on `pressure` says `Soft`. At least 1 and below `capacity`. Default none. */
  readonly softLimit?: number | undefined
}

/**
 * How full it is: below the soft limit, at or above it, at capacity.
 *
 * @since 0.1.0
 * @category models
 */
export interface Pressure {
  readonly level: "Normal" | "Soft" | "Full"
  readonly depth: number
  /** Epoch milliseconds. */
  readonly at: number
}

/**
 * Bounds how many calls run at once.
 *
 * @since 0.1.0
 * @category services
 */
export class Backpressure extends Context.Service<Backpressure, {
  /** Runs the effect with a permit: at once, after a wait in the line, or not at all (`BackpressureShed`). */
  readonly withPermit: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | BackpressureShed, R>
  /** Runs the stream with a permit, which it holds until it ends, fails, or its consumer leaves. */
  readonly withPermitStream: <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | BackpressureShed, R>
  /** Takes a permit for as long as the scope lives. Never waits. */
  readonly tryAcquire: Effect.Effect<void, BackpressureShed, Scope.Scope>
  /** How many hold a permit. */
  readonly depth: Effect.Effect<number>
  /** How many wait for one. */
  readonly queued: Effect.Effect<number>
  /** Depth over soft limit: above 1 when the soft limit is exceeded, 0 when there is none. */
  readonly softDepthRatio: Effect.Effect<number>
  /** Every change of level, up and down, from the moment of subscribing. A slow reader misses the oldest ones. */
  readonly pressure: Stream.Stream<Pressure>
  /** Changes the capacity. What runs goes on; a larger capacity lets waiters in at once. */
  readonly resize: (capacity: number) => Effect.Effect<void, InvalidOptions>
}>()("@sluice/core/Backpressure") {}

/**
 * Builds backpressure with state of its own.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = Effect.fnUntraced(function*(options?: BackpressureOptions) {
  const { capacity, name, queue, softLimit } = yield* readOptions(options)
  const clock = yield* Clock.Clock
  const changes = yield* PubSub.sliding<Pressure>(64)
  yield* Effect.addFinalizer(() => PubSub.shutdown(changes))

  const levelNow = (): Pressure["level"] => {
    if (permits.running >= permits.capacity) return "Full"
    return softLimit !== undefined && permits.running >= softLimit ? "Soft" : "Normal"
  }
  let level: Pressure["level"] = "Normal"
  const onChange = (): void => {
    const now = levelNow()
    if (now === level) return
    level = now
    // On a full sliding hub `publishUnsafe` drops the newest, and a slow reader would end on a level that is long past.
    Effect.runSync(PubSub.publish(changes, { level, depth: permits.running, at: clock.currentTimeMillisUnsafe() }))
  }
  const permits = new Permits(capacity, queue, onChange)
  const shed = Effect.suspend(() => Effect.fail(shedError(name, permits)))

  const withPermit = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | BackpressureShed, R> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.withFiber((fiber): Effect.Effect<A, E | BackpressureShed, R> => {
        if (!permits.enter()) return shed
        const request = permits.request(fiber, "Tail")
        return Effect.onExitPrimitive(restore(Effect.andThen(granted(request), self)), () => {
          permits.settle(request)
          permits.leave()
          return undefined
        })
      })
    )

  // The finalizer stands before the wait begins, and the wait alone is interruptible.
  const acquireInScope = (scope: Scope.Scope): Effect.Effect<void, BackpressureShed> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.withFiber((fiber): Effect.Effect<void, BackpressureShed> => {
        if (!permits.enter()) return shed
        const request = permits.request(fiber, "Tail")
        const release = Effect.sync(() => {
          permits.settle(request)
          permits.leave()
        })
        return Effect.andThen(Scope.addFinalizer(scope, release), restore(granted(request)))
      })
    )

  const withPermitStream = <A, E, R>(self: Stream.Stream<A, E, R>): Stream.Stream<A, E | BackpressureShed, R> =>
    bracketed(self, acquireInScope)

  const tryAcquire = Effect.flatMap(
    Effect.scope,
    (scope) => Effect.suspend(() => permits.running < permits.capacity ? acquireInScope(scope) : shed)
  )

  return Backpressure.of({
    withPermit,
    withPermitStream,
    tryAcquire,
    depth: Effect.sync(() => permits.running),
    queued: Effect.sync(() => permits.queued),
    softDepthRatio: Effect.sync(() => softLimit === undefined ? 0 : permits.running / softLimit),
    pressure: Stream.fromPubSub(changes),
    resize: (capacity) =>
      Effect.map(readCapacity(capacity), (read) => {
        permits.resize(read)
      })
  })
})

const readCapacity = (capacity: number): Effect.Effect<number, InvalidOptions> => {
  const options = new Options("Backpressure")
  return options.check(options.integer("capacity", capacity, 1))
}

const readOptions = (input: BackpressureOptions = {}) => {
  const options = new Options("Backpressure")
  const capacity = options.integer("capacity", input.capacity ?? 16, 1)
  const queue = options.integer("queue", input.queue ?? 0, 0)
  const { softLimit } = input
  if (softLimit !== undefined && !(Number.isInteger(softLimit) && softLimit >= 1 && softLimit < capacity)) {
    options.refuse("softLimit", softLimit, `a whole number from 1 to below the capacity of ${capacity}`)
  }
  return options.check({ capacity, queue, softLimit, name: input.name ?? "backpressure" })
}

/**
 * The refusal of a call that finds these permits taken.
 *
 * @internal
 */
export const shedError = (policy: string, permits: Permits): BackpressureShed =>
  stackless(() =>
    new BackpressureShed({ policy, depth: permits.running, queued: permits.queued, capacity: permits.capacity })
  )

/**
 * Provides `Backpressure`.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options?: BackpressureOptions): Layer.Layer<Backpressure, InvalidOptions> =>
  Layer.effect(Backpressure, make(options))

/**
 * Lets everything run at once, for tests and for switching the policy off.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerNoop: Layer.Layer<Backpressure> = Layer.succeed(
  Backpressure,
  Backpressure.of({
    withPermit: (self) => self,
    withPermitStream: (self) => self,
    tryAcquire: Effect.void,
    depth: Effect.succeed(0),
    queued: Effect.succeed(0),
    softDepthRatio: Effect.succeed(0),
    pressure: Stream.empty,
    resize: () => Effect.void
  })
)
