/**
 * The moment by which an answer is needed, visible to every policy inside it.
 *
 * Set a deadline once, where the call comes in. A retry does not sleep past it, an attempt gets no more time than is left,
 * and a queue refuses a call whose time is over. A nested deadline can shorten the outer one, never extend it.
 *
 * **When to use**
 *
 * Around a whole call, with all its attempts and waits. To bound one attempt, use the `attemptTimeout` of `Sluice`, or
 * `Effect.timeout` inside the breaker.
 *
 * **Gotchas**
 *
 * - `within` interrupts the effect. An uninterruptible region in the effect delays it, as it delays `Effect.timeout`.
 * - The deadline is a fiber reference: forked fibers inherit it, daemons included.
 * - A budget that is not a duration, such as NaN, is a defect with `InvalidOptions`. A negative budget counts as 0, and an infinite
 *   one sets no limit.
 *
 * **Example** (An answer that takes too long)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Deadline from "@sluice/core/Deadline"
 *
 * const program = Effect.never.pipe(
 *   Deadline.within("20 millis"),
 *   Effect.catchTag("DeadlineExceeded", (exceeded) => Effect.succeed(exceeded.message))
 * )
 *
 * console.log(await Effect.runPromise(program)) // => no answer within 20ms: the attempt was running
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { isMoving, type MovingDeadline } from "./internal/deadline/shared.ts"
import { failAt, type Limit, start } from "./internal/deadline/timeout.ts"
import { InvalidOptions } from "./InvalidOptions.ts"
import { toMillis } from "./OptionsReader.ts"
import * as Refusal from "./Refusal.ts"

/**
 * The deadline of a call passed.
 *
 * @since 0.1.0
 * @category errors
 */
export class DeadlineExceeded extends Schema.Error<DeadlineExceeded>("@sluice/core/DeadlineExceeded")({
  _tag: Schema.tag("DeadlineExceeded"),
  /**
   * The step in which the call was, or its last one: not started (`Start`), queued for a permit (`Queue`), waiting for an open
   * circuit (`Circuit`), backing off between attempts (`Backoff`), or running an attempt (`Attempt`).
   */
  at: Schema.Literals(["Start", "Queue", "Circuit", "Backoff", "Attempt"]),
  /** The time that the whole call had. */
  budget: Schema.DurationFromMillis,
  /** The name of the policy. Absent if `within` ended the call. */
  policy: Schema.optionalKey(Schema.String)
}) {
  get [Refusal.TypeId](): true {
    return true
  }
  override get message(): string {
    const { at, budget, policy } = this
    return `${policy === undefined ? "" : `${policy}: `}no answer within ${Duration.format(budget)}: ${inWords[at]}`
  }
}

const inWords = {
  Start: "the deadline had passed before the first attempt",
  Queue: "the call was queued",
  Circuit: "the call was waiting for an open circuit",
  Backoff: "the call was backing off between attempts",
  Attempt: "the attempt was running"
}

/**
 * A moment, and the budget it was computed from.
 *
 * @since 0.1.0
 * @category models
 */
export interface Deadline {
  /** Epoch milliseconds of the `Clock`. Read it each time: in a shared run it moves as callers join and leave. */
  readonly at: number
  readonly budgetMillis: number
}

/**
 * The deadline of the running fiber. Default `undefined`: none is set.
 *
 * @since 0.1.0
 * @category references
 */
export const Deadline: Context.Reference<Deadline | undefined> = Context.Reference<Deadline | undefined>(
  "@sluice/core/Deadline",
  { defaultValue: () => undefined }
)

/**
 * The time left until the deadline, at least zero. `undefined` if no deadline is set.
 *
 * @since 0.1.0
 * @category accessors
 */
export const remaining: Effect.Effect<Duration.Duration | undefined> = Effect.withFiber((fiber) => {
  const deadline = fiber.getRef(Deadline)
  if (deadline === undefined) return Effect.undefined
  return Effect.succeed(Duration.millis(Math.max(0, deadline.at - fiber.getRef(Clock.Clock).currentTimeMillisUnsafe())))
})

/**
 * Builds the error for a deadline that has passed.
 *
 * **When to use**
 *
 * In a policy of your own that waits, and so has to give up at the `Deadline` of the running fiber.
 *
 * @since 0.1.0
 * @category constructors
 */
export const exceeded = (deadline: Deadline, at: DeadlineExceeded["at"], policy?: string): DeadlineExceeded =>
  Refusal.withoutStack(() =>
    new DeadlineExceeded({
      at,
      budget: Duration.millis(deadline.budgetMillis),
      ...(policy === undefined ? undefined : { policy })
    })
  )

/** The earlier of two deadlines. It moves with the outer one. */
class Nested implements Deadline {
  private readonly outer: Deadline
  private readonly own: Deadline

  constructor(outer: Deadline, own: Deadline) {
    this.outer = outer
    this.own = own
  }

  get at(): number {
    return Math.min(this.outer.at, this.own.at)
  }

  get budgetMillis(): number {
    return this.outer.at <= this.own.at ? this.outer.budgetMillis : this.own.budgetMillis
  }
}

class WatchedNested extends Nested implements MovingDeadline {
  readonly watch: MovingDeadline["watch"]

  constructor(outer: MovingDeadline, own: Deadline) {
    super(outer, own)
    this.watch = (onEarlier) => outer.watch(onEarlier)
  }
}

const begin = (fiber: Fiber.Fiber<unknown, unknown>, budget: Duration.Input): Deadline => {
  const budgetMillis = Math.max(0, readBudget(budget))
  const own = { at: fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() + budgetMillis, budgetMillis }
  const outer = fiber.getRef(Deadline)
  if (outer === undefined) return own
  return isMoving(outer) ? new WatchedNested(outer, own) : new Nested(outer, own)
}

// An invalid budget is a defect. Effect's own message, `Invalid Input`, names neither the option nor the module, and Effect
// converts NaN and an empty object to zero.
const readBudget = (budget: Duration.Input): number => {
  const millis = toMillis(budget)
  if (!Number.isNaN(millis)) return millis
  const issue = { option: "deadline", actual: budget, requirement: `must be a duration, such as "5 seconds"` }
  throw new InvalidOptions({ module: "Deadline", issues: [issue] })
}

class DeadlineLimit implements Limit<DeadlineExceeded> {
  readonly watch: Limit<DeadlineExceeded>["watch"]
  private readonly deadline: Deadline

  constructor(deadline: Deadline) {
    this.deadline = deadline
    this.watch = isMoving(deadline) ? (onEarlier) => deadline.watch(onEarlier) : undefined
  }

  at(): number {
    return this.deadline.at
  }

  error(): DeadlineExceeded {
    return exceeded(this.deadline, "Attempt")
  }
}

/**
 * Runs an effect with a deadline, and fails with `DeadlineExceeded` when it passes.
 *
 * **Details**
 *
 * The effect is interrupted. Its finalizers finish before the error is returned.
 *
 * @since 0.1.0
 * @category combinators
 */
export const within: {
  (budget: Duration.Input): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | DeadlineExceeded, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, budget: Duration.Input): Effect.Effect<A, E | DeadlineExceeded, R>
} = dual(
  2,
  <A, E, R>(self: Effect.Effect<A, E, R>, budget: Duration.Input): Effect.Effect<A, E | DeadlineExceeded, R> =>
    Effect.callback((resume) => {
      // `Effect.callback` runs in a fiber.
      const fiber = Fiber.getCurrent() as Fiber.Fiber<unknown, unknown>
      const deadline = begin(fiber, budget)
      // The effect's requirements are in the fiber's context.
      const context = Context.add(fiber.context as Context.Context<R>, Deadline, deadline)
      return start(fiber, self, new DeadlineLimit(deadline), context, resume)
    })
)

/**
 * Runs a stream with a deadline for the whole of it, and fails with `DeadlineExceeded` when it passes.
 *
 * **Gotchas**
 *
 * The time that the consumer takes between two pulls counts as well.
 *
 * @since 0.1.0
 * @category combinators
 */
export const withinStream: {
  (budget: Duration.Input): <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | DeadlineExceeded, R>
  <A, E, R>(self: Stream.Stream<A, E, R>, budget: Duration.Input): Stream.Stream<A, E | DeadlineExceeded, R>
} = dual(
  2,
  <A, E, R>(self: Stream.Stream<A, E, R>, budget: Duration.Input): Stream.Stream<A, E | DeadlineExceeded, R> =>
    Stream.unwrap(Effect.withFiber((fiber) => {
      const deadline = begin(fiber, budget)
      return Effect.succeed(
        Stream.interruptWhen(Stream.provideService(self, Deadline, deadline), failAt(new DeadlineLimit(deadline)))
      )
    }))
)

/**
 * Sets a deadline without enforcing it.
 *
 * **When to use**
 *
 * Around an effect that ends by itself at its `Deadline`, as a call under a `Sluice` policy does. Everything else needs
 * `within`.
 *
 * @since 0.1.0
 * @category combinators
 */
export const provide: {
  (budget: Duration.Input): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, budget: Duration.Input): Effect.Effect<A, E, R>
} = dual(
  2,
  <A, E, R>(self: Effect.Effect<A, E, R>, budget: Duration.Input): Effect.Effect<A, E, R> =>
    Effect.withFiber((fiber) => Effect.provideService(self, Deadline, begin(fiber, budget)))
)

/**
 * Sets the deadline of a stream without enforcing it. See `provide`.
 *
 * @since 0.1.0
 * @category combinators
 */
export const provideStream: {
  (budget: Duration.Input): <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E, R>
  <A, E, R>(self: Stream.Stream<A, E, R>, budget: Duration.Input): Stream.Stream<A, E, R>
} = dual(2, <A, E, R>(self: Stream.Stream<A, E, R>, budget: Duration.Input): Stream.Stream<A, E, R> =>
  Stream.unwrap(
    Effect.withFiber((fiber) => Effect.succeed(Stream.provideService(self, Deadline, begin(fiber, budget))))
  ))
