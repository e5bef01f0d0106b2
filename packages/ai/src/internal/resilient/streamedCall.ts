import type * as Admission from "@sluice/core/Admission"
import { Deadline } from "@sluice/core/Deadline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import type * as AiError from "effect/ai/AiError"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as AiRejection from "../../AiRejection.ts"
import { guard } from "../stream/guard.ts"
import type { Attempt as Watch } from "../telemetry/attempt.ts"
import type { Choice } from "./candidates.ts"
import { following, PartialAnswer } from "./continuation.ts"
import type { Engine, Form, Question } from "./engine.ts"
import { timedOut } from "./errors.ts"
import type { ModelCall } from "./modelCall.ts"
import * as Parts from "./parts.ts"
import type { Target } from "./target.ts"
import type { Charge } from "./targetQuota.ts"
import { newTracker, trackerOf } from "./trackers.ts"

type Chunk<A> = Arr.NonEmptyReadonlyArray<A>
type Ended = AiError.AiError | Cause.Done

/**
 * A call whose answer is a stream: attempts until one has output, then that attempt to its end.
 *
 * It is one object without operators around the parts, each of which would cost a share of a microsecond for every part.
 */
export class StreamedCall<S, A extends Parts.AnyPart, R> {
  readonly engine: Engine<S>
  readonly call: ModelCall<S>
  readonly question: Question<S, Stream.Stream<A, AiError.AiError, R>>
  readonly form: Form<A>
  readonly scope: Scope.Scope
  /** The output that the consumer has received, if another attempt may continue it. */
  readonly partial: PartialAnswer | undefined
  /** The pull of the attempt that has output. */
  private answer: Effect.Effect<Chunk<A>, Ended, R> | undefined
  private failure: Cause.Cause<AiError.AiError> | undefined

  constructor(
    engine: Engine<S>,
    call: ModelCall<S>,
    question: Question<S, Stream.Stream<A, AiError.AiError, R>>,
    form: Form<A>,
    scope: Scope.Scope
  ) {
    this.engine = engine
    this.call = call
    this.question = question
    this.form = form
    this.scope = scope
    this.partial = engine.settings.afterOutput === "continue" ? new PartialAnswer() : undefined
  }

  readonly pull: Effect.Effect<Chunk<A>, Ended, R> = Effect.suspend(() =>
    this.answer ?? this.first(this.engine.settings.retry)
  )

  /** How the call ended. If it did not fail, it was interrupted or its consumer left. */
  get exit(): Exit.Exit<never, AiError.AiError> {
    return this.failure === undefined ? Exit.interrupt() : Exit.failCause(this.failure)
  }

  /**
   * The first parts of an answer, after as many attempts as it takes. `failed` is how an attempt with partial output ended: it
   * is handed to the retry first, which waits and counts as after any other attempt.
   */
  private first(
    retry: RetryPolicy.RetryPolicy,
    failed?: Cause.Cause<AiError.AiError>
  ): Effect.Effect<Chunk<A>, AiError.AiError, R> {
    const { call } = this
    let ended = failed
    const attempt = Effect.suspend(() => {
      const cause = ended
      ended = undefined
      return cause === undefined
        ? Effect.flatMap(call.choose, (choice) => this.open(choice, undefined))
        : call.ended(cause)
    })
    const attempts = Effect.catchCause(
      RetryPolicy.retry(attempt, retry, { classify: call.judge, delay: call.delay }),
      (cause) => {
        const ending = call.ending(cause)
        this.failed(ending)
        return Effect.failCause(ending)
      }
    )
    return call.deadline === undefined ? attempts : Effect.provideService(attempts, Deadline, call.deadline)
  }

  private open(choice: Choice<S>, unusable: AiError.AiError | undefined): Effect.Effect<Chunk<A>, AiError.AiError, R> {
    return Effect.suspend(() => {
      const attempt = new StreamAttempt(this, choice, unusable)
      return Effect.matchCauseEffect(attempt.first, {
        onSuccess: (parts) => {
          this.call.hasOutput = true
          this.answer = this.following(attempt)
          return Effect.succeed(parts)
        },
        onFailure: (cause): Effect.Effect<Chunk<A>, AiError.AiError, R> => {
          const useless = this.call.takeReask(cause)
          return useless === undefined ? this.call.ended(cause) : this.open(choice, useless)
        }
      })
    })
  }

  private following({ pull }: StreamAttempt<S, A, R>): Effect.Effect<Chunk<A>, Ended, R> {
    return this.engine.settings.afterOutput === "fail"
      ? pull
      : Effect.catchCause(
        pull,
        (cause) => Pull.isDoneCause(cause) ? Effect.failCause(cause) : this.repair(withoutDone(cause))
      )
  }

  /** After an attempt with partial output: starts the answer over, or continues it. */
  private repair(cause: Cause.Cause<AiError.AiError>): Effect.Effect<Chunk<A>, AiError.AiError, R> {
    const { call, engine: { settings: { retry } }, form, partial } = this
    const attemptsLeft = call.attemptsLeft()
    const mayGoOn = attemptsLeft >= 1 &&
      (partial === undefined ? call.takeRestart(cause) : this.mayContinue(partial, cause))
    if (!mayGoOn) return Effect.failCause(cause)
    const from = call.target?.name ?? ""
    this.failure = undefined
    const parts = this.first({ ...retry, maxAttempts: 1 + attemptsLeft }, cause)
    return partial !== undefined ? parts : Effect.map(
      parts,
      // Only now is it known that there is another answer, and which target's.
      (parts) => Arr.prepend(parts, form.restarted(from, call.target?.name ?? ""))
    )
  }

  // A prompt that already ends with a partial answer cannot get a second one.
  private mayContinue(partial: PartialAnswer, cause: Cause.Cause<AiError.AiError>): boolean {
    return partial.isText && this.question.hasPrefill?.() !== true && this.call.takeContinuation(cause)
  }

  failed(cause: Cause.Cause<AiError.AiError>): void {
    if (!Cause.hasInterruptsOnly(cause)) this.failure = cause
  }
}

/** One attempt at a streamed answer. */
class StreamAttempt<S, A extends Parts.AnyPart, R> {
  private readonly streamed: StreamedCall<S, A, R>
  private readonly target: Target<S>
  private readonly unusable: AiError.AiError | undefined
  private readonly scope: Scope.Closeable
  private readonly admission: Admission.Admission
  private admitted: Admission.Admitted | undefined
  private readonly charge: Charge | undefined
  private readonly notesToolCalls: boolean
  /** The output that the consumer has received, if this attempt continues it. */
  private readonly continued: PartialAnswer | undefined
  /** Whether all parts are held until the answer is complete. */
  private readonly isWhole: boolean
  /** Whether parts can be held or removed after they arrive. Then the guard reports their arrival. */
  private readonly isHeld: boolean
  private watch: Watch | undefined
  private source: Effect.Effect<Chunk<A>, Ended, R> = Effect.never
  /** Characters of the answer so far. */
  private length = 0
  private finish: Parts.Finish | undefined
  /** Whether the finish part was emitted. */
  private isComplete = false

  constructor(streamed: StreamedCall<S, A, R>, choice: Choice<S>, unusable: AiError.AiError | undefined) {
    this.streamed = streamed
    this.target = choice.target
    this.unusable = unusable
    this.scope = Scope.forkUnsafe(streamed.scope)
    this.admission = choice.isForced ? choice.target.forced : choice.target.admission
    const { afterOutput, answer } = streamed.engine.settings
    this.notesToolCalls = afterOutput === "restart"
    this.continued = streamed.partial === undefined || streamed.partial.text === "" ? undefined : streamed.partial
    this.charge = streamed.call.chargeFor(choice.target, unusable, this.continued?.prefill)
    this.isWhole = answer === "whole"
    this.isHeld = this.isWhole || this.continued !== undefined
  }

  /** Admits the attempt, and pulls the first parts of the answer. */
  get first(): Effect.Effect<Chunk<A>, AiError.AiError, R> {
    const { admission, charge, scope, streamed: { call }, target } = this
    const acquired = Scope.provide(admission.acquire(call.admitOptions(target, charge)), scope)
    const opened = Effect.flatMap(acquired, (admitted) => {
      this.admitted = admitted
      return admitted.within(this.connected)
    })
    return Effect.matchCauseEffect(opened, {
      // It is not the end: without a finish part an answer is truncated, and with one there is a part.
      onSuccess: (parts) => this.onParts(parts) as Effect.Effect<Chunk<A>, AiError.AiError, R>,
      onFailure: (cause) => this.onEnd(cause) as Effect.Effect<never, AiError.AiError>
    })
  }

  /** Pulls the parts after the first. */
  get pull(): Effect.Effect<Chunk<A>, Ended, R> {
    return Effect.matchCauseEffect(this.source, {
      onSuccess: (parts) => this.onParts(parts),
      onFailure: (cause) => this.onEnd(cause)
    })
  }

  private get connected(): Effect.Effect<Chunk<A>, Ended, R> {
    const { continued } = this
    const { call: { conversation } } = this.streamed
    // No later request of the conversation can refer to the response to this prompt.
    const tracked = continued === undefined ? trackerOf(conversation, this.target) : newTracker(conversation)
    return Effect.flatMap(tracked, (tracker) => {
      const { charge, scope, streamed: { call, engine, question }, target, unusable } = this
      call.begin(target, charge)
      const watch = this.watch = engine.watch(call, target, question, true)
      const opened = Effect.andThen(
        Scope.addFinalizer(scope, Effect.suspend(() => this.onClose())),
        Channel.toPullScoped(Stream.toChannel(this.asked), scope)
      )
      const contextOf = engine.contextOf<Stream.Stream<A, AiError.AiError, R>, R>(
        call,
        target,
        tracker,
        question,
        (unusable ?? continued) !== undefined,
        charge
      )
      // The guard asks the target in a fiber of its own, with the context of the first pull.
      const pulled = (inSpan: (context: Context.Context<R>) => Context.Context<R>) =>
        Effect.flatMap(opened, (pull) => {
          this.source = pull
          return Effect.updateContext(
            pull,
            (context: Context.Context<R>) => inSpan(engine.withMalformedEvents(call, target, contextOf(context)))
          )
        })
      return watch === undefined
        ? pulled((context) => context)
        : Effect.flatMap(
          watch.start,
          (span) => pulled((context) => span === undefined ? context : watch.within(span, context))
        )
    })
  }

  /**
   * The parts to emit. A repetition of the partial answer is removed after the guard, so that the guard does not take a target
   * that repeats for silent.
   */
  private get asked(): Stream.Stream<A, AiError.AiError, R> {
    const { continued, streamed: { form, question }, target, unusable } = this
    const parts = this.guarded(Stream.suspend(() => question.ask(target, unusable, continued?.prefill)))
    return continued === undefined ? parts : following(parts, continued, form.ended)
  }

  /** Adds the limits, and errors for what a stream does not report itself. */
  private guarded(parts: Stream.Stream<A, AiError.AiError, R>): Stream.Stream<A, AiError.AiError, R> {
    const { streamed: { call, engine }, target } = this
    const { limits, name } = target
    const attemptEndsAt = call.now() + limits.attemptMillis
    const isContinued = this.continued !== undefined
    return guard<A, AiError.AiError, R>(parts, {
      isOutput: Parts.isOutput,
      isComplete: (part) => {
        this.finish ??= Parts.asFinish(part)
        return this.finish !== undefined
      },
      failureOf: Parts.failureOf,
      sizeOf: Parts.sizeOf,
      firstTokenMillis: limits.firstTokenMillis,
      idleMillis: limits.idleMillis,
      // A getter, since the deadline of a shared run can move.
      get deadlineAt() {
        return Math.min(attemptEndsAt, call.deadline?.at ?? Number.POSITIVE_INFINITY)
      },
      holdsAll: this.isWhole,
      maxHeldParts: this.isWhole ? Number.POSITIVE_INFINITY : engine.settings.maxHeldParts,
      maxHeldBytes: this.isWhole ? engine.settings.maxWholeBytes : engine.settings.maxHeldBytes,
      onChunk: this.isHeld ? (parts) => this.arrived(parts) : undefined,
      onFirst: () => call.firstToken(),
      truncated: (parts, hadOutput) =>
        call.rejected(new AiRejection.TruncatedStream({ target: name, parts, hadOutput: hadOutput || isContinued })),
      // Adapters name this failure differently. Those of this package fail with `TruncatedStream` themselves.
      lost: ({ reason }, parts, hadOutput) =>
        reason._tag === "NetworkError" && reason.reason === "TransportError"
          ? call.rejected(
            new AiRejection.TruncatedStream({
              target: name,
              parts,
              hadOutput: hadOutput || isContinued,
              lost: lostBy(reason.description)
            })
          )
          : undefined,
      silent: (phase, parts) => call.silent(target, phase, parts),
      late: () => timedOut(call, target),
      // An empty answer that a length limit or a filter cut is not an error: its finish reason says so. Nothing may be missing
      // from an answer that broke off.
      empty: () =>
        isContinued || Parts.explainsEmpty(this.finish)
          ? undefined
          : call.rejected(new AiRejection.EmptyAnswer({ target: name }))
    })
  }

  private onParts(chunk: Chunk<A>): Effect.Effect<Chunk<A>, Ended, R> {
    const parts = this.isComplete || chunk.some(Parts.isFinish) ? this.withOneFinish(chunk) : chunk
    if (!Arr.isReadonlyArrayNonEmpty(parts)) return this.pull
    if (!this.isHeld) this.arrived(parts)
    const { partial } = this.streamed
    let hasFinish = false
    for (const part of parts) {
      partial?.add(part)
      if (this.notesToolCalls && part.type.startsWith("tool-")) this.streamed.call.hasToolCall = true
      if (part.type === "finish") hasFinish = true
    }
    return hasFinish ? this.complete(parts) : Effect.succeed(parts)
  }

  /** Parts have arrived. They may be held for some time. */
  private arrived(parts: ReadonlyArray<A>): void {
    // Encoded or decoded, parts of a stream have the fields that telemetry reads.
    this.watch?.chunk(parts as unknown as Parameters<Watch["chunk"]>[0])
    for (const part of parts) this.length += Parts.textOf(part).length
    this.charge?.arrived()
    this.admitted?.progress()
  }

  /** Some providers repeat their finish reason. Only the first one is emitted. */
  private withOneFinish(chunk: Chunk<A>): ReadonlyArray<A> {
    return chunk.filter((part) => {
      if (part.type !== "finish") return true
      const isFirst = !this.isComplete
      this.isComplete = true
      return isFirst
    })
  }

  private complete(parts: Chunk<A>): Effect.Effect<Chunk<A>> {
    const { admitted, charge, finish, length, streamed: { call, engine, form }, target } = this
    const signature = engine.signature(call, target, finish, length)
    const signed = Arr.map(parts, (part) => part.type === "finish" ? form.sign(part, signature) : part)
    if (admitted === undefined) return Effect.succeed(signed)
    const settled = admitted.settleExit(Exit.void)
    return Effect.as(
      charge === undefined ? settled : Effect.andThen(this.settleCharge(Exit.void, charge), settled),
      signed
    )
  }

  private settleCharge(exit: Exit.Exit<void, unknown>, charge: Charge): Effect.Effect<void> {
    charge.finish = this.finish
    charge.outputLength = this.length
    return exit._tag === "Success" ? charge.complete() : charge.failed(exit.cause)
  }

  private onEnd(cause: Cause.Cause<Ended | Admission.Refused>): Effect.Effect<never, Ended> {
    if (Pull.isDoneCause(cause)) {
      this.watch?.complete()
      return Effect.andThen(this.close(Exit.void), Cause.done())
    }
    const { finish, length, streamed: { call }, target } = this
    if (finish !== undefined) {
      // It was held back by the guard.
      this.watch?.answered({
        inputTokens: finish.usage.inputTokens.total,
        outputTokens: finish.usage.outputTokens.total
      })
    }
    if (finish !== undefined || length > 0) call.paid(finish, length)
    const failed = call.failed(target, withoutDone(cause))
    if (call.hasOutput) this.streamed.failed(failed)
    this.watch?.settle(Exit.failCause(failed))
    return Effect.andThen(this.close(Exit.failCause(failed)), Effect.failCause(failed))
  }

  /** Before the end is returned, so that the permit is free while the consumer goes on. */
  private close(exit: Exit.Exit<void, AiError.AiError>): Effect.Effect<void> {
    const { admitted, charge, scope } = this
    const closed = Scope.close(scope, exit)
    if (admitted === undefined) return closed
    const settled = Effect.andThen(admitted.settleExit(exit), closed)
    return charge === undefined ? settled : Effect.andThen(this.settleCharge(exit, charge), settled)
  }

  private onClose(): Effect.Effect<void> {
    const { charge, finish, length, streamed: { call } } = this
    this.watch?.left()
    call.left()
    if (finish !== undefined || length > 0) call.paid(finish, length)
    // A consumer that leaves interrupts the attempt. A settlement before this one counts.
    return charge === undefined ? Effect.void : this.settleCharge(Exit.interrupt(), charge)
  }
}

// `Pull.isDoneCause` has ruled out the end of a stream, which the type cannot say.
const withoutDone = <E>(cause: Cause.Cause<E>): Cause.Cause<Exclude<E, Cause.Done>> =>
  cause as Cause.Cause<Exclude<E, Cause.Done>>

/** The name of a socket's error. The rest of another adapter's text may have a URL with a key. */
const lostBy = (description = ""): string =>
  /\b(?:E[A-Z]{3,}|[A-Z]+(?:_[A-Z]+)+|terminated|aborted|premature close|socket hang up|other side closed)\b/.exec(
    description
  )?.[0] ?? "no reason given"
