import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { withoutStack } from "../../Refusal.ts"
import { StoreError } from "./storeError.ts"

/** The rest after a failure: no request for this long, so that an outage costs one timeout a second and not one a call. */
const restMillis = 1_000

/** With this many requests that neither end nor can be interrupted, no new request is sent before one of them ends. */
const maxAbandoned = 16

/**
 * Sends requests to a store. A request takes at most the timeout, or less if its call has less time left. After a failure one
 * caller a second tries again, and all others fail at once. One warning is logged for each outage.
 */
export class StoreClient {
  private readonly name: string
  private readonly timeoutMillis: number
  private readonly clock: Clock.Clock
  private readonly context: Context.Context<never>
  private readonly onFailure: () => void
  private isFailing = false
  /** The start of the outage, which is logged. A read-only store answers reads, so only a write ends it. */
  private downSince: number | undefined = undefined
  private restsUntil = 0
  /** Requests that timed out and have not ended. */
  private abandoned = 0

  constructor(options: {
    /** Of the breaker, for the log. */
    readonly name: string
    readonly timeoutMillis: number
    readonly clock: Clock.Clock
    readonly context: Context.Context<never>
    readonly onFailure: () => void
  }) {
    this.name = options.name
    this.timeoutMillis = options.timeoutMillis
    this.clock = options.clock
    this.context = options.context
    this.onFailure = options.onFailure
  }

  get isDown(): boolean {
    return this.isFailing
  }

  /** Whether a request would fail at once. */
  get isResting(): boolean {
    if (!this.isFailing) return false
    const left = this.restsUntil - this.now()
    // More than the longest rest is left only if the clock was set back.
    return left > 0 && left <= restMillis
  }

  /** Ends the rest: the next request is sent. */
  wake(): void {
    this.restsUntil = 0
  }

  request<A>(
    operation: string,
    verb: () => Effect.Effect<A, StoreError>,
    isValid: (answer: A) => boolean,
    leftMillis: number = this.timeoutMillis
  ): Effect.Effect<A, StoreError> {
    return Effect.suspend(() => {
      if (leftMillis <= 0) return Effect.fail(outOfTime)
      if (this.isFailing) {
        if (this.isResting || this.abandoned >= maxAbandoned) return Effect.fail(resting)
        // This caller tries. The others continue without the store.
        this.restsUntil = this.now() + restMillis
      }
      const timeout = Effect.flatMap(
        Effect.sleep(Duration.millis(Math.min(leftMillis, this.timeoutMillis))),
        () => Effect.fail(leftMillis < this.timeoutMillis ? outOfTime : tooSlow(operation, this.timeoutMillis))
      )
      const answered = Effect.flatMap(
        Effect.raceFirst(this.fork(verb), timeout),
        (answer) => isValid(answer) ? Effect.succeed(answer) : Effect.fail(invalidAnswer(operation))
      )
      return Effect.matchCauseEffect(answered, {
        onSuccess: (answer) => Effect.as(this.answered(operation), answer),
        onFailure: (cause) => {
          const error = errorOf(operation, cause)
          // The store had less than its timeout, so this does not show that it is down.
          if (error === outOfTime) {
            this.onFailure()
            return Effect.fail(error)
          }
          return Effect.andThen(this.failed(error), Effect.fail(error))
        }
      })
    })
  }

  // In a fiber that nothing waits for, so that a store that cannot be interrupted does not hold up the call.
  private fork<A>(verb: () => Effect.Effect<A, StoreError>): Effect.Effect<A, StoreError> {
    return Effect.callback<A, StoreError>((resume) => {
      const fiber = Effect.runForkWith(this.context)(Effect.suspend(verb))
      fiber.addObserver(resume)
      return Effect.sync(() => {
        fiber.interruptUnsafe()
        if (fiber.pollUnsafe() !== undefined) return
        this.abandoned++
        fiber.addObserver(() => {
          this.abandoned--
        })
      })
    })
  }

  private answered(operation: string): Effect.Effect<void> {
    this.isFailing = false
    if (this.downSince === undefined || operation === "read" || operation === "list") return Effect.void
    const outage = Duration.format(Duration.millis(this.now() - this.downSince))
    this.downSince = undefined
    return Effect.logInfo(`circuit breaker ${this.name}: the store answers again, after ${outage}`)
  }

  // The store's message goes into the log. The call's prompt and key never do.
  private failed(error: StoreError): Effect.Effect<void> {
    this.onFailure()
    const now = this.now()
    this.restsUntil = now + restMillis
    this.isFailing = true
    if (this.downSince !== undefined) return Effect.void
    this.downSince = now
    return Effect.logWarning(
      `circuit breaker ${this.name}: the store failed, using circuits of this process.`,
      error.message
    )
  }

  private now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }
}

const tooSlow = (operation: string, millis: number): StoreError =>
  withoutStack(() =>
    new StoreError({ operation, description: `no answer within ${Duration.format(Duration.millis(millis))}` })
  )

const invalidAnswer = (operation: string): StoreError =>
  withoutStack(() => new StoreError({ operation, description: "the store returned an invalid answer" }))

/** The error of a request whose call had too little time left. */
export const outOfTime = withoutStack(() =>
  new StoreError({ operation: "any", description: "no answer within what was left of the call's `storeTimeout`" })
)

/** The error of a request that was not sent. */
export const resting = withoutStack(() =>
  new StoreError({
    operation: "any",
    description: "the store failed within the last second, so the request was not sent"
  })
)

// A defect of the store counts as a failure.
const errorOf = (operation: string, cause: Cause.Cause<StoreError>): StoreError => {
  const error = Cause.squash(cause)
  return error instanceof StoreError
    ? error
    : withoutStack(() => new StoreError({ operation, description: "the store failed with a defect", cause: error }))
}
