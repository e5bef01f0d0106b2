/**
 * The moment by which an answer is of use, known to every policy below it.
 *
 * A deadline is set once, where the call comes in. Retry does not sleep past it, an attempt is not given more time than is
 * left of it, and a queue does not keep who has none left. Nested deadlines never extend: the earlier one counts.
 *
 * **When to use**
 *
 * Around a call as a whole, with all its attempts and waits. To bound a single attempt, use the attempt timeout of
 * `Sluice`, or `Effect.timeout` inside the breaker.
 *
 * **Gotchas**
 *
 * - `within` interrupts what it runs. A body that is uninterruptible delays it, as it delays `Effect.timeout`.
 * - The deadline is a reference: a fiber forked inside inherits it, a daemon included.
 *
 * **Example** (An answer that comes too late)
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
 * console.log(await Effect.runPromise(program)) // => no answer within 20ms: it was under way
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
import { RefusalTypeId } from "./internal/refusal.ts"
import { stackless } from "./internal/stackless.ts"
import { alarm, type Limit, start } from "./internal/timeout.ts"
import { InvalidOptions } from "./InvalidOptions.ts"

/**
 * The deadline passed.
 *
 * @since 0.1.0
 * @category errors
 */
export class DeadlineExceeded extends Schema.Error<DeadlineExceeded>("@sluice/core/DeadlineExceeded")({
  _tag: Schema.tag("DeadlineExceeded"),
  /** What the call was doing: waiting for a permit, sleeping between attempts, or being tried. */
  at: Schema.Literals(["Queue", "Backoff", "Attempt"]),
  /** The time that the call was given as a whole. */
  budget: Schema.DurationFromMillis,
  /** The name of the policy that the call was made under; absent where `within` ended it. */
  policy: Schema.optionalKey(Schema.String)
}) {
  get [RefusalTypeId](): true {
    return true
  }
  override get message(): string {
    const { at, budget, policy } = this
    return `${policy === undefined ? "" : `${policy}: `}no answer within ${Duration.format(budget)}: ${inWords[at]}`
  }
}

const inWords = {
  Queue: "it was waiting for its turn",
  Backoff: "it was waiting between two attempts",
  Attempt: "it was under way"
}

/**
 * A moment, and the budget that led to it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Deadline {
  /** Epoch milliseconds of the `Clock`. Read it anew each time: a shared flight's moves as callers join and leave. */
  readonly at: number
  readonly budgetMillis: number
}

/**
 * The deadline of the running fiber; `undefined` where none was set.
 *
 * @since 0.1.0
 * @category references
 */
export const Deadline: Context.Reference<Deadline | undefined> = Context.Reference<Deadline | undefined>(
  "@sluice/core/Deadline",
  { defaultValue: () => undefined }
)

/**
 * The time that is left, never below zero; `undefined` where no deadline was set.
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
 * The error for the deadline that is given.
 *
 * @internal
 */
export const exceeded = (deadline: Deadline, at: DeadlineExceeded["at"], policy?: string): DeadlineExceeded =>
  stackless(() =>
    new DeadlineExceeded({
      at,
      budget: Duration.millis(deadline.budgetMillis),
      ...(policy === undefined ? undefined : { policy })
    })
  )

/**
 * A deadline that comes nearer at times, and tells: that of a run which several callers share.
 *
 * @internal
 */
export interface Moving extends Deadline {
  /** Calls back whenever the moment may have come nearer, until it is told to stop. */
  watch(nearer: () => void): () => void
}

/**
 * Whether a deadline tells when it comes nearer.
 *
 * @internal
 */
export const isMoving = (deadline: Deadline): deadline is Moving => "watch" in deadline

/** What is asked for inside another deadline: the earlier of the two at the moment of asking, since the outer one may move. */
class Nested implements Moving {
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

  watch(nearer: () => void): () => void {
    return isMoving(this.outer) ? this.outer.watch(nearer) : () => {}
  }
}

const begin = (fiber: Fiber.Fiber<unknown, unknown>, budget: Duration.Input): Deadline => {
  const budgetMillis = Math.max(0, toMillis(budget))
  const own = { at: fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() + budgetMillis, budgetMillis }
  const outer = fiber.getRef(Deadline)
  return outer === undefined ? own : new Nested(outer, own)
}

// What is no duration is thrown as a defect that says what it is: `Invalid Input` alone names neither option nor policy.
const toMillis = (budget: Duration.Input): number => {
  try {
    return Duration.toMillis(budget)
  } catch {
    const issue = { option: "deadline", actual: budget, allowed: `a duration, as in "5 seconds"` }
    throw new InvalidOptions({ module: "Deadline", issues: [issue] })
  }
}

class Expiry implements Limit<DeadlineExceeded> {
  private readonly deadline: Deadline

  constructor(deadline: Deadline) {
    this.deadline = deadline
  }

  at(): number {
    return this.deadline.at
  }

  error(): DeadlineExceeded {
    return exceeded(this.deadline, "Attempt")
  }

  watch(nearer: () => void): () => void {
    return isMoving(this.deadline) ? this.deadline.watch(nearer) : () => {}
  }
}

/**
 * Runs an effect with a deadline, and fails with `DeadlineExceeded` when it passes.
 *
 * **Details**
 *
 * The effect is interrupted, and its finalizers are waited for, before the failure is handed on.
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
      // Whoever runs an effect is a fiber.
      const fiber = Fiber.getCurrent() as Fiber.Fiber<unknown, unknown>
      const deadline = begin(fiber, budget)
      // The fiber's context has what the effect asks for: it is provided where the fiber runs.
      const context = Context.add(fiber.context as Context.Context<R>, Deadline, deadline)
      return start(fiber, self, new Expiry(deadline), context, resume)
    })
)

/**
 * Runs a stream with a deadline for the whole of it, and fails with `DeadlineExceeded` when it passes.
 *
 * **Gotchas**
 *
 * The clock also runs while the consumer is busy with what it was handed: the deadline is for the answer as a whole.
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
        Stream.interruptWhen(Stream.provideService(self, Deadline, deadline), alarm(new Expiry(deadline)))
      )
    }))
)

/**
 * Sets the deadline without enforcing it: for whoever honours it in every wait of its own.
 *
 * @internal
 */
export const provide = <A, E, R>(self: Effect.Effect<A, E, R>, budget: Duration.Input): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => Effect.provideService(self, Deadline, begin(fiber, budget)))

/**
 * Sets the deadline of a stream without enforcing it.
 *
 * @internal
 */
export const provideStream = <A, E, R>(self: Stream.Stream<A, E, R>, budget: Duration.Input): Stream.Stream<A, E, R> =>
  Stream.unwrap(
    Effect.withFiber((fiber) => Effect.succeed(Stream.provideService(self, Deadline, begin(fiber, budget))))
  )
