import type { PermitOptions } from "@sluice/core/Backpressure"
import type { CircuitOpen } from "@sluice/core/CircuitBreaker"
import type { Deadline, DeadlineExceeded } from "@sluice/core/Deadline"
import { type Classify, failure, ignored, type Outcome, success } from "@sluice/core/Outcome"
import type * as AiError from "effect/ai/AiError"
import type { Service as ResponseIdTracker } from "effect/ai/ResponseIdTracker"
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as AiOutcome from "../../AiOutcome.ts"
import * as AiRejection from "../../AiRejection.ts"
import type { Attempt, CallLog, Skipped, Usage } from "../../CallLog.ts"
import * as RetryAfter from "../../RetryAfter.ts"
import { type Refusal, replaceFail, translated } from "./errors.ts"
import * as Log from "./log.ts"
import type * as Parts from "./parts.ts"
import type { Settings } from "./settings.ts"
import type { AnyTarget, Target } from "./target.ts"
import { forget } from "./trackers.ts"

/** A target that may be asked now; past its circuit, where it is the least bad of those that are open. */
export interface Choice<S> {
  readonly target: Target<S>
  readonly isForced: boolean
}

/** The shortest time after which a deadline that passes says something about the target: as in `Sluice`. */
const minTimeoutMillis = 1_000

/** One call on its way: which targets it asked, what came of it, and what it may still do. */
export class Call<S> {
  readonly id: string
  /** What a provider knows all its attempts by. */
  readonly key: string
  /** Knows it by the ids that were given in it. */
  readonly conversation: ResponseIdTracker | undefined
  readonly method: CallLog["method"]
  readonly settings: Settings
  readonly startedAt: number
  readonly deadline: Deadline | undefined
  /** The attempt that runs, or the last one that did. */
  attempt: Log.OpenAttempt | undefined = undefined
  target: Target<S> | undefined = undefined
  /** Whether some of the answer was handed on, which makes the rest of it nobody else's. */
  hasOutput = false
  /** Whether a tool was called by what was handed on. */
  hasToolCall = false
  private readonly targets: ReadonlyArray<Target<S>>
  private readonly clock: Clock.Clock
  private readonly promptLength: () => number
  private readonly steps: Array<Log.OpenAttempt | Skipped> = []
  private readonly failures = new Map<AnyTarget, number>()
  private readonly excluded = new Set<AnyTarget>()
  /** A target with no more context than this is of no use. */
  private tooSmall = 0
  private reasksLeft: number
  private readySince: number
  /** What the retry would wait, had it known that the same target is asked again. */
  private backoff: Duration.Duration | undefined = undefined
  /** Whether no further attempt has a chance. */
  private isOver = false
  private lastError: AiError.AiError | undefined = undefined
  /** What the last attempt failed with. */
  private told: AiError.AiError | undefined = undefined
  private lastFailed: Target<S> | undefined = undefined
  private circuitOpen: CircuitOpen | undefined = undefined

  constructor(
    settings: Settings,
    targets: ReadonlyArray<Target<S>>,
    method: CallLog["method"],
    fields: {
      readonly conversation: ResponseIdTracker | undefined
      readonly id: string
      /** The caller's own idempotency key. */
      readonly key: string | undefined
      readonly clock: Clock.Clock
      readonly deadline: Deadline | undefined
      readonly promptLength: () => number
    }
  ) {
    this.settings = settings
    this.targets = targets
    this.method = method
    this.id = fields.id
    this.conversation = fields.conversation
    this.key = fields.key ?? fields.id
    this.clock = fields.clock
    this.deadline = fields.deadline
    this.promptLength = fields.promptLength
    this.startedAt = this.clock.currentTimeMillisUnsafe()
    this.readySince = this.startedAt
    this.reasksLeft = settings.reasks
  }

  readonly now = (): number => this.clock.currentTimeMillisUnsafe()

  /** How many attempts were made. */
  get attempts(): number {
    return this.attempt?.n ?? 0
  }

  /** How many attempts the retry has left; what was asked anew for being of no use was none of it. */
  attemptsLeft(): number {
    return this.settings.retry.maxAttempts - this.attempts + (this.settings.reasks - this.reasksLeft)
  }

  /** Nobody waits for a permit past the deadline. */
  patience({ maxWaitMillis }: AnyTarget): PermitOptions {
    if (!this.hasDeadline) return {}
    const left = Math.max(0, this.deadlineAt - this.now())
    return { maxWait: Duration.millis(maxWaitMillis === undefined ? left : Math.min(left, maxWaitMillis)) }
  }

  // That of a shared run is the latest of its callers', and never where one of them has none.
  private get deadlineAt(): number {
    return this.deadline?.at ?? Number.POSITIVE_INFINITY
  }

  private get hasDeadline(): boolean {
    return this.deadlineAt !== Number.POSITIVE_INFINITY
  }

  // ---------- which target is next

  /** The target to ask now: the first in order that can be asked, and those that failed this call after the others. */
  readonly choose: Effect.Effect<Choice<S>, AiError.AiError> = Effect.suspend(() => {
    const now = this.now()
    const skipped: Array<AiRejection.Unavailable> = []
    const usable: Array<Target<S>> = []
    for (const target of this.targets) {
      const why = this.unavailable(target, now)
      if (why === undefined) usable.push(target)
      else if (why !== "Excluded") skipped.push(why)
    }
    if (this.failures.size > 0) usable.sort((a, b) => this.failuresOf(a) - this.failuresOf(b))
    return this.look(usable, 0, skipped, undefined)
  })

  private failuresOf(target: AnyTarget): number {
    return this.failures.get(target) ?? 0
  }

  private unavailable(target: Target<S>, now: number): AiRejection.Unavailable | "Excluded" | undefined {
    if (this.excluded.has(target)) return "Excluded"
    if (!this.hasContext(target)) return { target: target.name, why: "ContextTooSmall" }
    const { credential } = target
    const closedFor = credential.rest.left(now)
    if (closedFor > 0) return { target: target.name, why: "Credential", retryAfter: Duration.millis(closedFor) }
    const coolsFor = target.rest.left(now)
    return coolsFor > 0
      ? { target: target.name, why: "RateLimited", retryAfter: Duration.millis(coolsFor) }
      : undefined
  }

  private hasContext({ contextTokens }: AnyTarget): boolean {
    return this.tooSmall === 0 || (contextTokens !== undefined && contextTokens > this.tooSmall)
  }

  private look(
    usable: ReadonlyArray<Target<S>>,
    at: number,
    skipped: Array<AiRejection.Unavailable>,
    busy: Target<S> | undefined
  ): Effect.Effect<Choice<S>, AiError.AiError> {
    const target = usable[at]
    if (target === undefined) {
      return busy === undefined ? this.none(skipped) : this.chosen({ target: busy, isForced: false }, skipped)
    }
    const next = (busy: Target<S> | undefined) => this.look(usable, at + 1, skipped, busy)
    const fits: Effect.Effect<Choice<S>, AiError.AiError> = target.permits === undefined || usable.length === 1
      ? this.chosen({ target, isForced: false }, skipped)
      : Effect.flatMap(target.permits.snapshot, ({ capacity, running }) => {
        if (running < capacity) return this.chosen({ target, isForced: false }, skipped)
        skipped.push({ target: target.name, why: "Busy" })
        return next(busy ?? target)
      })
    if (target.breaker === undefined) return fits
    return Effect.matchEffect(target.breaker.check(target.key), {
      onSuccess: () => fits,
      onFailure: (open) => {
        this.circuitOpen = open
        skipped.push({ target: target.name, why: "CircuitOpen", retryAfter: open.retryAfter })
        return next(busy)
      }
    })
  }

  private chosen(
    choice: Choice<S>,
    skipped: ReadonlyArray<AiRejection.Unavailable>
  ): Effect.Effect<Choice<S>, AiError.AiError> {
    return Effect.suspend(() => {
      const { backoff, lastError } = this
      this.backoff = undefined
      if (backoff !== undefined && lastError !== undefined && this.failuresOf(choice.target) > 0) {
        // Another target was to be asked, and there is none: the back-off is due.
        if (this.isInTime(Duration.toMillis(backoff))) return Effect.andThen(Effect.sleep(backoff), this.choose)
        this.isOver = true
        return Effect.fail(lastError)
      }
      this.noteSkipped(skipped.filter(({ target, why }) => why !== "Busy" || target !== choice.target.name))
      return Effect.succeed(choice)
    })
  }

  private noteSkipped(skipped: ReadonlyArray<AiRejection.Unavailable>): void {
    const at = this.now()
    for (const unavailable of skipped) this.steps.push({ _tag: "Skipped", at, ...unavailable })
  }

  /** No target can be asked now: waits for the first that can, if that is soon enough, or refuses. */
  private none(skipped: ReadonlyArray<AiRejection.Unavailable>): Effect.Effect<Choice<S>, AiError.AiError> {
    const wait = this.soonest(skipped, (unavailable) => this.isWorthWaiting(unavailable))
    if (wait !== undefined) return Effect.andThen(Effect.sleep(wait), this.choose)
    const forced = this.settings.whenAllOpen === "leastBad" ? this.leastBad(skipped) : undefined
    if (forced !== undefined) return this.chosen({ target: forced, isForced: true }, skipped)
    this.noteSkipped(skipped)
    this.isOver = true
    return Effect.fail(this.refusal(skipped))
  }

  private soonest(
    skipped: ReadonlyArray<AiRejection.Unavailable>,
    isMeant: (unavailable: AiRejection.Unavailable) => boolean
  ): Duration.Duration | undefined {
    let soonest: Duration.Duration | undefined
    for (const unavailable of skipped) {
      const { retryAfter } = unavailable
      if (retryAfter === undefined || !isMeant(unavailable)) continue
      if (soonest === undefined || Duration.isLessThan(retryAfter, soonest)) soonest = retryAfter
    }
    return soonest
  }

  // As `Sluice` does: a circuit is waited for only by a call whose deadline leaves the time for it. A target that asked to be
  // left alone is waited for as a retry waits for Retry-After.
  private isWorthWaiting({ retryAfter, why }: AiRejection.Unavailable): boolean {
    if (retryAfter === undefined) return false
    const millis = Duration.toMillis(retryAfter)
    if (!this.isInTime(millis)) return false
    return why === "RateLimited"
      ? millis <= this.settings.maxRetryAfterMillis
      : why === "CircuitOpen" && this.hasDeadline
  }

  private isInTime(millis: number): boolean {
    return this.now() + millis < this.deadlineAt
  }

  private leastBad(skipped: ReadonlyArray<AiRejection.Unavailable>): Target<S> | undefined {
    const soonest = this.soonest(skipped, ({ why }) => why === "CircuitOpen")
    const name = skipped.find(({ retryAfter, why }) => why === "CircuitOpen" && retryAfter === soonest)?.target
    return this.targets.find((target) => target.name === name)
  }

  private refusal(skipped: ReadonlyArray<AiRejection.Unavailable>): AiError.AiError {
    // What a provider said to this call says more. What it said to another one is nobody else's: it may quote a prompt.
    if (this.told !== undefined) return this.told
    // Of one target there is more to say than that it cannot be asked.
    if (this.targets.length === 1 && this.circuitOpen !== undefined) return this.rejected(this.circuitOpen)
    // A retry mends no wrong key, so nobody is told to make one; how long each rests stands beside it.
    const isMended = skipped.some(({ why }) => why !== "Credential")
    const retryAfter = isMended ? this.soonest(skipped, () => true) : undefined
    // No target is missing: those that are of no use to this call are so because of what they said to it.
    const targets = [...skipped].sort((a, b) => this.placeOf(a) - this.placeOf(b))
    return this.rejected(
      new AiRejection.NoTarget({ targets, ...(retryAfter === undefined ? {} : { retryAfter }) })
    )
  }

  private placeOf({ target }: AiRejection.Unavailable): number {
    return this.targets.findIndex(({ name }) => name === target)
  }

  rejected(rejection: AiRejection.Rejection): AiError.AiError {
    return AiRejection.toAiError(rejection, this.method)
  }

  // ---------- an attempt

  begin(target: Target<S>): void {
    const now = this.now()
    this.target = target
    this.attempt = {
      _tag: "Attempt",
      n: this.attempts + 1,
      target: target.name,
      waitedMillis: now - this.readySince,
      startedAt: now,
      endedAt: now,
      outcome: "Ignored",
      next: "Stop"
    }
    this.steps.push(this.attempt)
  }

  /** The first of the answer is there. */
  first(): void {
    if (this.attempt !== undefined) this.attempt.firstTokenAt ??= this.now()
  }

  /** The answer is complete. */
  succeeded(usage: Usage | undefined): void {
    const { attempt } = this
    if (attempt === undefined) return
    this.ended("Success")
    attempt.next = "Done"
    if (usage !== undefined) attempt.usage = usage
  }

  /** The attempt, or the way to it, has failed. Notes what that says about the target, and makes an error of it. */
  lost(
    target: Target<S>,
    cause: Cause.Cause<Refusal | DeadlineExceeded | AiError.AiError>
  ): Cause.Cause<AiError.AiError> {
    const failure = cause.reasons.find(Cause.isFailReason)
    if (failure === undefined || Cause.hasDies(cause)) {
      this.left()
      return cause as Cause.Cause<never>
    }
    const error = translated(this, target, failure.error)
    this.lastError = error
    this.lastFailed = target
    this.failures.set(target, this.failuresOf(target) + 1)
    const { attempt } = this
    if (this.target === target && attempt !== undefined && attempt.fault === undefined) {
      this.ended(AiOutcome.fromAiError(error)._tag)
      attempt.fault = Log.faultOf(error)
      this.told = error
      const paid = Log.paidFor(error)
      if (paid !== undefined) attempt.usage = paid
      else if (this.isPaid(error)) this.paid(undefined, Log.lengthOf(error))
      forget(this.conversation, target)
      this.learn(target, error)
    } else {
      // It was chosen, and somebody else was quicker.
      const rejection = AiRejection.fromAiError(error)
      if (rejection._tag === "Some" && "retryAfter" in rejection.value) {
        const why = rejection.value._tag === "CircuitOpen" ? "CircuitOpen" : "Busy"
        const { retryAfter } = rejection.value
        this.noteSkipped([{ target: target.name, why, ...(retryAfter === undefined ? {} : { retryAfter }) }])
      }
    }
    return replaceFail(cause, error)
  }

  /** The attempt was interrupted, or its consumer has left. */
  left(): void {
    const { attempt, target } = this
    if (attempt === undefined || target === undefined || attempt.next === "Done" || attempt.fault !== undefined) return
    this.ended("Ignored")
    forget(this.conversation, target)
  }

  private ended(outcome: Attempt["outcome"]): void {
    const { attempt } = this
    if (attempt === undefined) return
    this.readySince = attempt.endedAt = this.now()
    attempt.outcome = outcome
  }

  // The answer was complete, or was on its way for as long as it may be.
  private isPaid(error: AiError.AiError): boolean {
    return AiOutcome.remedy(error) === "Reask" || AiRejection.is("AttemptTimeout", error)
  }

  private learn(target: Target<S>, error: AiError.AiError): void {
    const now = this.now()
    switch (AiOutcome.remedy(error)) {
      case "Credential": {
        const rest = RetryAfter.fromAiError(error, { now })
        const millis = rest === undefined ? this.settings.credentialRestMillis : Duration.toMillis(rest)
        return target.credential.rest.take(now, millis)
      }
      case "Context":
        this.tooSmall = Math.max(this.tooSmall, target.contextTokens ?? Number.MAX_SAFE_INTEGER)
        return
      case "Elsewhere":
        this.excluded.add(target)
        return
      case "Wait":
      case "Retry": {
        const hint = RetryAfter.fromAiError(error, { now })
        if (hint !== undefined) target.rest.take(now, Duration.toMillis(hint))
        return
      }
      case "Reask":
      case "Final":
        return
    }
  }

  /** Why the answer is of no use, if it was one and may be asked for once more. */
  takeReask(cause: Cause.Cause<AiError.AiError>): AiError.AiError | undefined {
    if (this.reasksLeft === 0 || this.hasOutput || Cause.hasDies(cause)) return undefined
    const error = cause.reasons.find(Cause.isFailReason)?.error
    if (error === undefined || AiOutcome.remedy(error) !== "Reask") return undefined
    this.reasksLeft--
    if (this.attempt !== undefined) this.attempt.next = "Reask"
    return error
  }

  /** Whether the answer, which had begun, may begin anew: never after a tool was called. */
  takeRestart(cause: Cause.Cause<AiError.AiError>): boolean {
    const error = cause.reasons.find(Cause.isFailReason)?.error
    if (error === undefined || !this.hasOutput || this.hasToolCall || Cause.hasDies(cause)) return false
    const remedy = AiOutcome.remedy(error)
    if (remedy !== "Retry" && remedy !== "Wait") return false
    this.hasOutput = false
    if (this.attempt !== undefined) this.attempt.next = "Restart"
    return true
  }

  /** Whether there is another target, as far as is known without its circuit: one that has not failed this call, if `fresh`. */
  private hasOther(fresh: "fresh" | "any"): boolean {
    const now = this.now()
    return this.targets.some((target) => {
      if (target === this.lastFailed || (fresh === "fresh" && this.failuresOf(target) > 0)) return false
      const why = this.unavailable(target, now)
      return why === undefined || (fresh === "any" && why !== "Excluded" && this.isWorthWaiting(why))
    })
  }

  /** What the end of an attempt says to the retry: whether another attempt has a chance, at whatever target. */
  readonly judge: Classify<unknown, AiError.AiError> = (exit) => {
    if (Exit.isSuccess(exit)) return success
    if (Cause.hasDies(exit.cause)) return undefined
    const error = exit.cause.reasons.find(Cause.isFailReason)?.error
    if (error === undefined || this.isOver) return ignored
    switch (AiOutcome.remedy(error)) {
      case "Retry":
      case "Wait":
        // When this target may be asked again matters only where there is no other.
        return this.hasOther("any") ? failure({ retryable: true }) : AiOutcome.fromAiError(error)
      case "Credential":
      case "Context":
      case "Elsewhere":
        return this.hasOther("any") ? failure({ retryable: true }) : ignored
      case "Final":
      case "Reask":
        return ignored
    }
  }

  /** The wait before the next attempt: none where another target is asked. */
  readonly delay = ({ delay }: { readonly delay: Duration.Duration }): Duration.Duration => {
    if (!this.hasOther("fresh")) return delay
    // Whether it can be asked, its circuit has to say.
    this.backoff = delay
    return Duration.zero
  }

  /** What the end of an attempt says to the target's circuit. */
  readonly classify: Classify<unknown, unknown> = (exit, elapsedMillis): Outcome | undefined => {
    const outcome = AiOutcome.classify(exit, elapsedMillis)
    if (outcome?._tag !== "Ignored" || Exit.isSuccess(exit)) return outcome
    const error = exit.cause.reasons.find(Cause.isFailReason)?.error
    return AiRejection.is("DeadlineExceeded", error) && elapsedMillis >= minTimeoutMillis
      ? failure({ retryable: false })
      : outcome
  }

  // ---------- what it cost, and what became of it

  /** The usage that the provider told, or an estimate: about four characters to a token. */
  usageOf(finish: Parts.Finish | undefined, outputLength: number): Usage {
    const input = finish?.usage.inputTokens.total
    const output = finish?.usage.outputTokens.total
    if (input !== undefined && output !== undefined) {
      return { inputTokens: input, outputTokens: output, estimated: false }
    }
    return {
      inputTokens: input ?? tokens(this.promptLength()),
      outputTokens: output ?? tokens(outputLength),
      estimated: true
    }
  }

  /** So much of an answer came that is of no use or not complete, and is paid for. */
  paid(finish: Parts.Finish | undefined, outputLength: number): void {
    const { attempt } = this
    if (attempt !== undefined && attempt.next !== "Done") attempt.usage ??= this.usageOf(finish, outputLength)
  }

  log(exit: Exit.Exit<unknown, unknown>): CallLog {
    const { id, method, startedAt, steps } = this
    return Log.make({ id, method, startedAt, endedAt: this.now() }, steps, exit)
  }
}

const tokens = (length: number): number => Math.ceil(length / 4)
