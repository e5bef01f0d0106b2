import type * as Admission from "@sluice/core/Admission"
import type { CircuitOpen } from "@sluice/core/CircuitBreaker"
import type { Deadline, DeadlineExceeded } from "@sluice/core/Deadline"
import { type Classify, failure, ignored, type Outcome, success } from "@sluice/core/Outcome"
import { RetryStopped } from "@sluice/core/RetryPolicy"
import { defaultMinTimeout } from "@sluice/core/Sluice"
import type * as AiError from "effect/ai/AiError"
import type { Service as ResponseIdTracker } from "effect/ai/ResponseIdTracker"
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as AiOutcome from "../../AiOutcome.ts"
import * as AiRejection from "../../AiRejection.ts"
import type { Attempt, CallLog, Skipped, Usage } from "../../CallLog.ts"
import * as RetryAfter from "../../RetryAfter.ts"
import { Candidates, type Choice, soonest } from "./candidates.ts"
import { isSoonOver, maxMillisHere } from "./soonOver.ts"
import { replaceFail, translated } from "./errors.ts"
import * as Log from "./log.ts"
import type * as Parts from "./parts.ts"
import { characters, type Measure, type PromptLength } from "./promptSize.ts"
import type { Settings } from "./settings.ts"
import type { AnyTarget, Target } from "./target.ts"
import type { Asked, Charge } from "./targetQuota.ts"
import { forget } from "./trackers.ts"

const minTimeoutMillis = Duration.toMillis(defaultMinTimeout)

/** One call of a model: its attempts so far, what they cost, and what it may still do. */
export class ModelCall<S> {
  readonly id: string
  /** The idempotency key of its attempts. */
  readonly key: string
  readonly conversation: ResponseIdTracker | undefined
  readonly method: CallLog["method"]
  readonly settings: Settings
  readonly startedAt: number
  readonly deadline: Deadline | undefined
  /** The model that the caller requests. All targets of the call offer it. */
  readonly model: string | undefined
  /** The running attempt, or the last one. */
  attempt: Log.OpenAttempt | undefined = undefined
  /** Its target. */
  target: Target<S> | undefined = undefined
  /** Its target while it runs. */
  private running: Target<S> | undefined = undefined
  /** Whether the consumer has partial output. */
  hasOutput = false
  /** Whether that output has a tool call. */
  hasToolCall = false
  /** Whether it takes only permits and quota that no other call waits for. */
  readonly isBackground: boolean
  private readonly candidates: Candidates<S>
  private readonly clock: Clock.Clock
  private readonly promptLength: PromptLength
  private readonly context: Context.Context<never>
  private readonly offered: () => ReadonlyArray<string>
  private readonly steps: Array<Log.OpenAttempt | Skipped> = []
  /** The length of a whole answer that has arrived in part. */
  receivedLength = 0
  private knownLength: number | undefined = undefined
  private reasksLeft: number
  /** When the call was ready for its next attempt. */
  private readySince: number
  /** The back-off that was skipped because another target was to be asked. */
  private skippedBackoff: Duration.Duration | undefined = undefined
  /** Whether no further attempt has a chance. */
  private isOver = false
  private lastError: AiError.AiError | undefined = undefined
  /** The failure of the last attempt that was made. */
  private lastMade: Cause.Cause<AiError.AiError> | undefined = undefined
  /** Why the next attempt was not made. */
  private refusal: Admission.Refused | DeadlineExceeded | undefined = undefined

  constructor(
    settings: Settings,
    targets: ReadonlyArray<Target<S>>,
    method: CallLog["method"],
    fields: {
      readonly conversation: ResponseIdTracker | undefined
      readonly id: string
      /** The caller's idempotency key. */
      readonly key: string | undefined
      readonly clock: Clock.Clock
      readonly deadline: Deadline | undefined
      readonly promptLength: PromptLength
      /** The context of the caller. */
      readonly context: Context.Context<never>
      /** The model that the caller requests. */
      readonly model: string | undefined
      readonly offered: () => ReadonlyArray<string>
      /** Whether a target can take the request. Asked when the target is next. Default: always. */
      readonly accepts?: ((target: Target<S>) => boolean) | undefined
      /** Default: false. */
      readonly isBackground?: boolean | undefined
    }
  ) {
    this.settings = settings
    this.method = method
    this.id = fields.id
    this.conversation = fields.conversation
    this.key = fields.key ?? fields.id
    this.clock = fields.clock
    this.deadline = fields.deadline
    this.promptLength = fields.promptLength
    this.isBackground = fields.isBackground === true
    this.context = fields.context
    this.model = fields.model
    this.offered = fields.offered
    this.startedAt = this.clock.currentTimeMillisUnsafe()
    this.readySince = this.startedAt
    this.reasksLeft = settings.reasks
    this.candidates = new Candidates(
      targets,
      settings,
      fields.deadline,
      this.now,
      (target) => this.asked(target),
      fields.accepts
    )
  }

  readonly now = (): number => this.clock.currentTimeMillisUnsafe()

  /** How many attempts were made. */
  get attempts(): number {
    return this.attempt?.n ?? 0
  }

  get isRunning(): boolean {
    return this.running !== undefined
  }

  /** How many attempts the retry has left. Re-asks are not counted. */
  attemptsLeft(): number {
    return this.settings.retry.maxAttempts - this.attempts + (this.settings.reasks - this.reasksLeft)
  }

  rejected(rejection: AiRejection.Rejection): AiError.AiError {
    return AiRejection.toAiError(rejection, this.method)
  }

  // ---------- choosing a target

  /** The target to ask now, after waiting for one if there is time. */
  readonly choose: Effect.Effect<Choice<S>, AiError.AiError> = Effect.suspend(() =>
    Effect.flatMap(this.candidates.select(), (selection) => {
      switch (selection._tag) {
        case "Found":
          return this.chosen(selection.choice, selection.skipped)
        case "Wait":
          return Effect.andThen(Effect.sleep(selection.delay), this.choose)
        case "None":
          this.noteSkipped(selection.skipped)
          this.isOver = true
          return Effect.fail(this.noTarget(selection.skipped, selection.open))
      }
    })
  )

  private chosen(
    choice: Choice<S>,
    skipped: ReadonlyArray<AiRejection.Unavailable>
  ): Effect.Effect<Choice<S>, AiError.AiError> {
    const { candidates, lastError, skippedBackoff } = this
    this.skippedBackoff = undefined
    if (skippedBackoff !== undefined && lastError !== undefined && candidates.failuresOf(choice.target) > 0) {
      // The other target that was to be asked cannot be. So the back-off is due after all.
      if (candidates.isInTime(Duration.toMillis(skippedBackoff))) {
        return Effect.andThen(Effect.sleep(skippedBackoff), this.choose)
      }
      this.isOver = true
      return Effect.fail(lastError)
    }
    // A target that is chosen although it has no room now is queued at.
    const isSkipped = ({ target, why }: AiRejection.Unavailable) =>
      target !== choice.target.name || (why !== "Busy" && why !== "Quota")
    this.noteSkipped(skipped.filter(isSkipped))
    return Effect.succeed(choice)
  }

  private noteSkipped(skipped: ReadonlyArray<AiRejection.Unavailable>): void {
    const at = this.now()
    for (const unavailable of skipped) this.steps.push({ _tag: "Skipped", at, ...unavailable })
  }

  private noTarget(
    skipped: ReadonlyArray<AiRejection.Unavailable>,
    open: CircuitOpen | undefined
  ): AiError.AiError {
    // What a provider answered to this call says more. What it answered to other calls may quote their prompts.
    const providerError = this.lastMade === undefined ? undefined : errorOf(this.lastMade)
    if (providerError !== undefined) return providerError
    const { targets } = this.candidates
    if (targets.length === 0 && this.model !== undefined) {
      return this.rejected(new AiRejection.ModelNotOffered({ model: this.model, offered: this.offered() }))
    }
    if (targets.length === 1 && open !== undefined) return this.rejected(open)
    // Retrying does not fix a wrong key, so a refused credential alone has no retryAfter.
    const isTransient = skipped.some(({ why }) => why !== "Credential")
    const retryAfter = isTransient ? soonest(skipped, () => true) : undefined
    const orderOf = ({ target }: AiRejection.Unavailable) => targets.findIndex(({ name }) => name === target)
    return this.rejected(
      new AiRejection.NoTarget({
        targets: [...skipped].sort((a, b) => orderOf(a) - orderOf(b)),
        ...(retryAfter === undefined ? {} : { retryAfter })
      })
    )
  }

  /** The target's own name for the model of the call. */
  modelOf({ model, models }: AnyTarget): string {
    return (this.model === undefined ? undefined : models.get(this.model)) ?? model
  }

  /** How an attempt asks to be admitted. */
  admitOptions(target: AnyTarget, charge: Charge | undefined): Admission.AdmitOptions<unknown, unknown> {
    const maxWait = this.isBackground ? 0 : this.candidates.maxWaitMillis(target)
    return { classify: this.classify, maxWait, reserve: charge?.reserve }
  }

  /**
   * What an attempt at the target reserves of its quota. A re-ask sends the `unusable` answer too, a continuation the `prefill`.
   */
  chargeFor(target: AnyTarget, unusable: AiError.AiError | undefined, prefill = ""): Charge | undefined {
    if (target.quota === undefined) return undefined
    const asked = this.asked(target)
    if (unusable === undefined && prefill === "") return target.quota.charge(asked)
    const length = (measure: Measure) => this.promptLength(measure, unusable) + measure(prefill)
    return target.quota.charge({ ...asked, length })
  }

  private asked(target: AnyTarget): Asked {
    return {
      model: this.modelOf(target),
      length: this.length,
      context: this.context,
      deadlineAt: this.candidates.deadlineAt,
      now: this.now
    }
  }

  /** The length of the prompt, which does not change between attempts. */
  private readonly length = (measure: Measure): number => {
    if (measure !== characters) return this.promptLength(measure)
    this.knownLength ??= this.promptLength(characters)
    return this.knownLength
  }

  // ---------- an attempt

  begin(target: Target<S>, charge: Charge | undefined): void {
    const now = this.now()
    const waited = charge?.waited
    this.stopRunning()
    this.target = this.running = target
    target.running.attempts++
    this.receivedLength = 0
    this.attempt = {
      _tag: "Attempt",
      n: this.attempts + 1,
      target: target.name,
      waitedMillis: now - this.readySince,
      ...(waited === undefined
        ? {}
        : { quota: { dimension: waited.dimension, waitedMillis: Duration.toMillis(waited.duration) } }),
      startedAt: now,
      endedAt: now,
      outcome: "Ignored",
      next: "Stop"
    }
    this.steps.push(this.attempt)
  }

  /** The answer has begun. */
  firstToken(): void {
    if (this.attempt !== undefined) this.attempt.firstTokenAt ??= this.now()
  }

  /** This much of a whole answer has arrived, in characters. */
  received(length: number): void {
    this.receivedLength = length
  }

  /** The error of a target that is silent before its first content, or after `parts` parts. */
  silent({ limits, name }: AnyTarget, phase: "first" | "idle", parts: number): AiError.AiError {
    return this.rejected(
      phase === "first"
        ? new AiRejection.FirstTokenTimeout({ target: name, limit: Duration.millis(limits.firstTokenMillis) })
        : new AiRejection.IdleTimeout({ target: name, limit: Duration.millis(limits.idleMillis), parts })
    )
  }

  /** An event of the stream is not JSON, and was skipped. */
  skippedEvent(target: Target<S>): void {
    target.skipped.events++
    if (this.attempt !== undefined) this.attempt.skippedEvents = (this.attempt.skippedEvents ?? 0) + 1
  }

  /** The answer is complete. */
  succeeded(usage: Usage | undefined): void {
    const { attempt } = this
    if (attempt === undefined) return
    this.endAttempt("Success")
    attempt.next = "Done"
    if (usage !== undefined) attempt.usage = usage
  }

  /**
   * The attempt, or its admission, failed. Notes what that says about the target, and returns the cause with the error of a
   * model.
   */
  failed(
    target: Target<S>,
    cause: Cause.Cause<Admission.Refused | DeadlineExceeded | AiError.AiError>
  ): Cause.Cause<AiError.AiError> {
    const failure = cause.reasons.find(Cause.isFailReason)
    if (failure === undefined || Cause.hasDies(cause)) {
      this.left()
      // Without a failure, or with a defect, which takes precedence over one.
      return cause as Cause.Cause<never>
    }
    const error = translated(this, target, failure.error)
    this.lastError = error
    this.candidates.stayAt(undefined)
    this.candidates.failed(target)
    const { attempt } = this
    const wasMade = this.target === target && attempt !== undefined && attempt.fault === undefined
    const failed = replaceFail(cause, error)
    if (wasMade) {
      this.lastMade = failed
      this.refusal = undefined
      this.attemptFailed(target, attempt, error)
    } else {
      this.refusal = failure.error._tag === "AiError" ? undefined : failure.error
      this.admissionFailed(target, failure.error, error)
    }
    return failed
  }

  private attemptFailed(target: Target<S>, attempt: Log.OpenAttempt, error: AiError.AiError): void {
    this.paidPart()
    this.endAttempt(AiOutcome.fromAiError(error)._tag)
    attempt.fault = Log.faultOf(error)
    const usage = Log.usageIn(error)
    if (usage !== undefined) attempt.usage = usage
    else if (isPaid(error)) this.paid(undefined, Log.lengthIn(error))
    forget(this.conversation, target)
    this.learn(target, error)
  }

  // Other calls were quicker after the target was chosen.
  private admissionFailed(target: AnyTarget, refusal: { readonly _tag: string }, error: AiError.AiError): void {
    const why = refusal._tag === "CircuitOpen" ? "CircuitOpen" : refusal._tag === "QuotaExceeded" ? "Quota" : "Busy"
    const { retryAfter } = error
    // It is larger than the limit, or the budget is spent.
    if (why === "Quota" && AiOutcome.remedy(error) === "Elsewhere") this.candidates.exclude(target)
    this.noteSkipped([{ target: target.name, why, ...(retryAfter === undefined ? {} : { retryAfter }) }])
  }

  /** The attempt was interrupted, or its consumer left. */
  left(): void {
    const { attempt, target } = this
    if (attempt === undefined || target === undefined || attempt.next === "Done" || attempt.fault !== undefined) return
    this.paidPart()
    this.endAttempt("Ignored")
    forget(this.conversation, target)
  }

  private endAttempt(outcome: Attempt["outcome"]): void {
    const { attempt } = this
    if (attempt === undefined) return
    this.stopRunning()
    this.readySince = attempt.endedAt = this.now()
    attempt.outcome = outcome
  }

  private stopRunning(): void {
    if (this.running === undefined) return
    this.running.running.attempts--
    this.running = undefined
  }

  private learn(target: Target<S>, error: AiError.AiError): void {
    const now = this.now()
    const retryAfter = RetryAfter.fromAiError(error, { now })
    switch (AiOutcome.remedy(error)) {
      case "Credential":
        return target.credential.rest.take(
          now,
          retryAfter === undefined ? this.settings.credentialRestMillis : Duration.toMillis(retryAfter)
        )
      case "Context":
        return this.candidates.outgrew(target)
      case "Elsewhere":
        return this.candidates.exclude(target)
      case "Wait":
      case "Retry":
        if (retryAfter !== undefined) target.rest.take(now, Duration.toMillis(retryAfter))
        return
      case "Reask":
      case "Final":
        return
    }
  }

  // ---------- what follows an attempt

  /** The error of a complete answer that is of no use, if the call may pay for another one. */
  takeReask(cause: Cause.Cause<AiError.AiError>): AiError.AiError | undefined {
    const error = errorOf(cause)
    if (this.reasksLeft === 0 || this.hasOutput || error === undefined) return undefined
    if (AiOutcome.remedy(error) !== "Reask") return undefined
    this.reasksLeft--
    if (this.attempt !== undefined) this.attempt.next = "Reask"
    return error
  }

  /** Whether an answer with partial output may start over: never after a tool call. */
  takeRestart(cause: Cause.Cause<AiError.AiError>): boolean {
    if (this.hasToolCall || !this.isRepairable(cause)) return false
    this.hasOutput = false
    if (this.attempt !== undefined) this.attempt.next = "Restart"
    return true
  }

  /** Whether a target may continue an answer with partial output. From then on only such targets are tried. */
  takeContinuation(cause: Cause.Cause<AiError.AiError>): boolean {
    if (!this.isRepairable(cause) || !this.candidates.requirePrefill()) return false
    this.hasOutput = false
    if (this.attempt !== undefined) this.attempt.next = "Continue"
    return true
  }

  private isRepairable(cause: Cause.Cause<AiError.AiError>): boolean {
    const error = errorOf(cause)
    if (error === undefined || !this.hasOutput) return false
    const remedy = AiOutcome.remedy(error)
    return remedy === "Retry" || remedy === "Wait"
  }

  /** Fails with the cause of an attempt. Decides first whether the same target is tried again before all others. */
  ended(cause: Cause.Cause<AiError.AiError>): Effect.Effect<never, AiError.AiError> {
    const { candidates, target } = this
    const failed = Effect.failCause(cause)
    if (target === undefined || !this.mayStay(target, cause)) return failed
    if (target.breaker === undefined) {
      candidates.stayAt(target)
      return failed
    }
    return Effect.matchEffect(target.breaker.check(target.key), {
      onSuccess: () => {
        candidates.stayAt(target)
        return failed
      },
      onFailure: () => failed
    })
  }

  private mayStay(target: Target<S>, cause: Cause.Cause<AiError.AiError>): boolean {
    const { attempt, candidates, settings } = this
    const error = errorOf(cause)
    return error !== undefined && error === this.lastError && this.refusal === undefined && !this.hasOutput &&
      // A restart voids the output that the consumer has shown. It is not spent on the target that failed.
      attempt?.next !== "Restart" &&
      candidates.failuresOf(target) <= settings.retriesHere &&
      // One attempt is left for another target.
      this.attemptsLeft() > 1 && candidates.hasOther("fresh") && isSoonOver(error, settings.maxRetryAfterMillis)
  }

  /** Returns the cause of the call's failure. A provider's error takes precedence over the refusal of a further attempt. */
  ending(cause: Cause.Cause<AiError.AiError>): Cause.Cause<AiError.AiError> {
    const { attempts, lastError, lastMade, refusal } = this
    if (refusal === undefined || lastMade === undefined || errorOf(cause) !== lastError) return cause
    const stopped = Context.make(RetryStopped, { why: "Refused", attempts, refusal })
    return Cause.annotate(lastMade, stopped, { overwrite: true })
  }

  /** The retry's classifier: whether another attempt, at any target, has a chance. */
  readonly judge: Classify<unknown, AiError.AiError> = (exit) => {
    if (Exit.isSuccess(exit)) return success
    if (Cause.hasDies(exit.cause)) return undefined
    const error = errorOf(exit.cause)
    if (error === undefined || this.isOver) return ignored
    switch (AiOutcome.remedy(error)) {
      case "Retry":
      case "Wait":
        // This target's Retry-After matters only if it is tried next, or if there is no other target.
        return !this.candidates.isStaying && this.candidates.hasOther("any")
          ? failure({ retryable: true })
          : AiOutcome.fromAiError(error)
      case "Credential":
      case "Context":
      case "Elsewhere":
        return this.candidates.hasOther("any") ? failure({ retryable: true }) : ignored
      case "Final":
      case "Reask":
        return ignored
    }
  }

  /** The retry's delay: none if another target is asked next. */
  readonly delay = ({ delay, outcome }: { readonly delay: Duration.Duration; readonly outcome: Outcome }) => {
    const { candidates } = this
    if (candidates.isStaying) {
      const millis = Duration.toMillis(delay)
      const retryAfterMillis = "retryAfter" in outcome && outcome.retryAfter !== undefined
        ? Duration.toMillis(outcome.retryAfter)
        : 0
      if (millis - retryAfterMillis <= maxMillisHere && candidates.isInTime(millis)) return delay
      candidates.stayAt(undefined)
    }
    if (!candidates.hasOther("fresh")) return delay
    // Whether that target's circuit is open is not known yet.
    this.skippedBackoff = delay
    return Duration.zero
  }

  /** The circuit's classifier. */
  readonly classify: Classify<unknown, unknown> = (exit, elapsedMillis): Outcome | undefined => {
    const outcome = AiOutcome.classify(exit, elapsedMillis)
    if (outcome?._tag !== "Ignored" || Exit.isSuccess(exit)) return outcome
    const error = exit.cause.reasons.find(Cause.isFailReason)?.error
    return AiRejection.is("DeadlineExceeded", error) && elapsedMillis >= minTimeoutMillis
      ? failure({ retryable: false })
      : outcome
  }

  // ---------- cost and log

  /** The usage that the provider reported, or an estimate. */
  usageOf(finish: Parts.Finish | undefined, outputLength: number): Usage {
    const input = finish?.usage.inputTokens.total
    const output = finish?.usage.outputTokens.total
    if (input !== undefined && output !== undefined) {
      return { inputTokens: input, outputTokens: output, estimated: false }
    }
    return {
      inputTokens: input ?? estimateTokens(this.length(characters)),
      outputTokens: output ?? estimateTokens(outputLength),
      estimated: true
    }
  }

  /** Notes the usage of an answer that is of no use, or not complete, and has to be paid. */
  paid(finish: Parts.Finish | undefined, outputLength: number): void {
    const { attempt } = this
    if (attempt !== undefined && attempt.next !== "Done") attempt.usage ??= this.usageOf(finish, outputLength)
  }

  private paidPart(): void {
    if (this.receivedLength > 0) this.paid(undefined, this.receivedLength)
  }

  log(exit: Exit.Exit<unknown, unknown>): CallLog {
    const { id, method, startedAt, steps } = this
    return Log.make({ id, method, startedAt, endedAt: this.now() }, steps, exit)
  }
}

/** The error of a failure without a defect. */
const errorOf = (cause: Cause.Cause<AiError.AiError>): AiError.AiError | undefined =>
  Cause.hasDies(cause) ? undefined : cause.reasons.find(Cause.isFailReason)?.error

// The answer was complete, or was generated for the whole time of an attempt.
const isPaid = (error: AiError.AiError): boolean =>
  AiOutcome.remedy(error) === "Reask" || AiRejection.is("AttemptTimeout", error)

// About four characters to a token.
const estimateTokens = (length: number): number => Math.ceil(length / 4)
