import { Deadline } from "@sluice/core/Deadline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import type * as AiError from "effect/ai/AiError"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as AiRejection from "../../AiRejection.ts"
import { guard } from "../streamGuard.ts"
import type { Attempt as Watch } from "../telemetry/attempt.ts"
import type { Call, Choice } from "./call.ts"
import type { Engine, Form, Question } from "./engine.ts"
import { late, type Refusal } from "./errors.ts"
import { Gate } from "./gate.ts"
import * as Parts from "./parts.ts"
import type { Target } from "./target.ts"

type Chunk<A> = Arr.NonEmptyReadonlyArray<A>
type Ended = AiError.AiError | Cause.Done

/**
 * A streamed answer on its way: attempts until one has something of an answer, and that one to its end.
 *
 * One object, and no operators around the parts: each would cost its share of a microsecond for every part.
 */
export class Answering<S, A extends Parts.AnyPart, R> {
  readonly engine: Engine<S>
  readonly call: Call<S>
  readonly question: Question<S, Stream.Stream<A, AiError.AiError, R>>
  readonly form: Form<A>
  readonly scope: Scope.Scope
  /** The pull of the attempt that answers. */
  private answer: Effect.Effect<Chunk<A>, Ended, R> | undefined
  private failure: Cause.Cause<AiError.AiError> | undefined

  constructor(
    engine: Engine<S>,
    call: Call<S>,
    question: Question<S, Stream.Stream<A, AiError.AiError, R>>,
    form: Form<A>,
    scope: Scope.Scope
  ) {
    this.engine = engine
    this.call = call
    this.question = question
    this.form = form
    this.scope = scope
  }

  readonly pull: Effect.Effect<Chunk<A>, Ended, R> = Effect.suspend(() =>
    this.answer ?? this.first(this.engine.settings.retry)
  )

  /** What came of the stream. It was interrupted, or left, if it did not fail. */
  get exit(): Exit.Exit<never, AiError.AiError> {
    return this.failure === undefined ? Exit.interrupt() : Exit.failCause(this.failure)
  }

  /**
   * The first parts of an answer, after as many attempts as it takes. `failed` is how an attempt ended that had begun to
   * answer: the retry sees it first, so that it waits, and takes the next attempt, as after any other.
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
        : Effect.failCause(cause)
    })
    const attempts = RetryPolicy.retry(attempt, retry, { classify: call.judge, delay: call.delay }).pipe(
      Effect.tapCause((cause) => Effect.sync(() => this.failed(cause)))
    )
    return call.deadline === undefined ? attempts : Effect.provideService(attempts, Deadline, call.deadline)
  }

  private open(choice: Choice<S>, unusable: AiError.AiError | undefined): Effect.Effect<Chunk<A>, AiError.AiError, R> {
    return Effect.suspend(() => {
      const attempt = new Attempt(this, choice, unusable)
      return Effect.matchCauseEffect(attempt.first, {
        onSuccess: (parts) => {
          this.call.hasOutput = true
          this.answer = this.following(attempt)
          return Effect.succeed(parts)
        },
        onFailure: (cause): Effect.Effect<Chunk<A>, AiError.AiError, R> => {
          const useless = this.call.takeReask(cause)
          return useless === undefined ? Effect.failCause(cause) : this.open(choice, useless)
        }
      })
    })
  }

  private following({ pull }: Attempt<S, A, R>): Effect.Effect<Chunk<A>, Ended, R> {
    return this.engine.settings.afterOutput === "fail"
      ? pull
      : Effect.catchCause(
        pull,
        (cause) => Pull.isDoneCause(cause) ? Effect.failCause(cause) : this.restart(onlyFailures(cause))
      )
  }

  private restart(cause: Cause.Cause<AiError.AiError>): Effect.Effect<Chunk<A>, AiError.AiError, R> {
    const { call, engine: { settings: { retry } }, form } = this
    const attemptsLeft = call.attemptsLeft()
    if (attemptsLeft < 1 || !call.takeRestart(cause)) return Effect.failCause(cause)
    const from = call.target?.name ?? ""
    this.failure = undefined
    return Effect.map(
      this.first({ ...retry, maxAttempts: 1 + attemptsLeft }, cause),
      // Told when it is known that there is a new answer, and whose.
      (parts) => Arr.prepend(parts, form.restarted(from, call.target?.name ?? ""))
    )
  }

  failed(cause: Cause.Cause<AiError.AiError>): void {
    if (!Cause.hasInterruptsOnly(cause)) this.failure = cause
  }
}

/** One attempt at a streamed answer. */
class Attempt<S, A extends Parts.AnyPart, R> {
  private readonly answering: Answering<S, A, R>
  private readonly target: Target<S>
  private readonly unusable: AiError.AiError | undefined
  private readonly scope: Scope.Closeable
  private readonly gate: Gate | undefined
  private readonly notesTools: boolean
  private watch: Watch | undefined
  private source: Effect.Effect<Chunk<A>, Ended, R> = Effect.never
  private length = 0
  private finish: Parts.Finish | undefined
  /** Whether the finish part was handed on. */
  private isComplete = false

  constructor(answering: Answering<S, A, R>, choice: Choice<S>, unusable: AiError.AiError | undefined) {
    this.answering = answering
    this.target = choice.target
    this.unusable = unusable
    this.scope = Scope.forkUnsafe(answering.scope)
    this.gate = this.gateOf(choice)
    this.notesTools = answering.engine.settings.afterOutput === "restart"
  }

  /** Through the gate, and to the first parts of the answer. */
  get first(): Effect.Effect<Chunk<A>, AiError.AiError, R> {
    const entered = this.gate === undefined
      ? this.connected
      : Effect.flatMap(this.gate.enter(this.scope), () => this.connected)
    return Effect.matchCauseEffect(entered, {
      onSuccess: (parts) => this.got(parts) as Effect.Effect<Chunk<A>, AiError.AiError, R>,
      // Without its finish part it is truncated, and with it there is a part.
      onFailure: (cause) => this.lost(cause) as Effect.Effect<never, AiError.AiError>
    })
  }

  /** The parts that follow. */
  get pull(): Effect.Effect<Chunk<A>, Ended, R> {
    return Effect.matchCauseEffect(this.source, {
      onSuccess: (parts) => this.got(parts),
      onFailure: (cause) => this.lost(cause)
    })
  }

  private gateOf({ isForced, target }: Choice<S>): Gate | undefined {
    const { call } = this.answering
    const breaker = isForced ? undefined : target.breaker
    const { permits } = target
    if (breaker === undefined && permits === undefined) return undefined
    return new Gate((self) => {
      const guarded = breaker === undefined
        ? self
        : breaker.guardStream(self, { key: target.key, classify: call.classify })
      return permits === undefined ? guarded : permits.withPermitsStream(guarded, call.patience(target))
    })
  }

  private get connected(): Effect.Effect<Chunk<A>, Ended, R> {
    return Effect.suspend(() => {
      const { answering: { call, engine, question }, scope, target, unusable } = this
      call.begin(target)
      const watch = this.watch = engine.watch(call, target, question, true)
      const parts = this.guarded(Stream.suspend(() => question.ask(target, unusable)))
      const opened = Effect.andThen(
        Scope.addFinalizer(scope, Effect.sync(() => this.closed())),
        Channel.toPullScoped(Stream.toChannel(parts), scope)
      )
      const own = engine.contextOf<Stream.Stream<A, AiError.AiError, R>, R>(call, target, question, unusable)
      const given = (context: Context.Context<R>): Context.Context<R> =>
        own((this.gate?.context ?? context) as Context.Context<R>)
      // The target is asked in a fiber of the guard's own, which takes the context that the first pull has.
      const pulled = (inSpan: (context: Context.Context<R>) => Context.Context<R>) =>
        Effect.flatMap(opened, (pull) => {
          this.source = pull
          return Effect.updateContext(pull, (context: Context.Context<R>) => inSpan(given(context)))
        })
      return watch === undefined
        ? pulled((context) => context)
        : Effect.flatMap(
          watch.start,
          (span) => pulled((context) => span === undefined ? context : watch.within(span, context))
        )
    })
  }

  /** With its limits, and errors for all that a stream does not say itself. */
  private guarded(parts: Stream.Stream<A, AiError.AiError, R>): Stream.Stream<A, AiError.AiError, R> {
    const { answering: { call, engine }, target } = this
    const { limits, name } = target
    const attemptEndsAt = call.now() + limits.attemptMillis
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
      // Of a deadline that may move.
      get deadlineAt() {
        return Math.min(attemptEndsAt, call.deadline?.at ?? Number.POSITIVE_INFINITY)
      },
      maxHeldParts: engine.settings.maxHeldParts,
      maxHeldBytes: engine.settings.maxHeldBytes,
      onFirst: () => call.first(),
      truncated: (parts, hadOutput) =>
        call.rejected(new AiRejection.TruncatedStream({ target: name, parts, hadOutput })),
      silent: (phase, parts) =>
        call.rejected(
          phase === "first"
            ? new AiRejection.FirstTokenTimeout({ target: name, limit: Duration.millis(limits.firstTokenMillis) })
            : new AiRejection.IdleTimeout({ target: name, limit: Duration.millis(limits.idleMillis), parts })
        ),
      late: () => late(call, target),
      // An answer that was cut by its length limit or by a filter says so itself.
      empty: () =>
        this.finish?.reason === "stop" ? call.rejected(new AiRejection.EmptyAnswer({ target: name })) : undefined
    })
  }

  private got(chunk: Chunk<A>): Effect.Effect<Chunk<A>, Ended, R> {
    const parts = this.isComplete || chunk.some(Parts.isFinish) ? this.withOneFinish(chunk) : chunk
    if (!Arr.isReadonlyArrayNonEmpty(parts)) return this.pull
    // Of a stream, decoded or not, they have what is looked at.
    this.watch?.chunk(parts as unknown as Parameters<Watch["chunk"]>[0])
    let hasFinish = false
    for (const part of parts) {
      this.length += Parts.textOf(part).length
      if (this.notesTools && part.type.startsWith("tool-")) this.answering.call.hasToolCall = true
      if (part.type === "finish") hasFinish = true
    }
    if (hasFinish) return this.complete(parts)
    return this.gate?.isProbe === true ? Effect.as(this.gate.progress, parts) : Effect.succeed(parts)
  }

  /** A provider may end more than once: the first end is the one. */
  private withOneFinish(chunk: Chunk<A>): ReadonlyArray<A> {
    return chunk.filter((part) => {
      if (part.type !== "finish") return true
      const isFirst = !this.isComplete
      this.isComplete = true
      return isFirst
    })
  }

  private complete(parts: Chunk<A>): Effect.Effect<Chunk<A>> {
    const { answering: { call, engine, form }, finish, gate, length, target } = this
    const signature = engine.signature(call, target, finish, length)
    const signed = Arr.map(parts, (part) => part.type === "finish" ? form.sign(part, signature) : part)
    return gate === undefined ? Effect.succeed(signed) : Effect.as(gate.settle(Exit.void), signed)
  }

  private lost(cause: Cause.Cause<Ended | Refusal>): Effect.Effect<never, Ended> {
    if (Pull.isDoneCause(cause)) {
      this.watch?.complete()
      return Effect.andThen(this.close(Exit.void), Cause.done())
    }
    const { answering, finish, length, target } = this
    if (finish !== undefined) {
      // It was held back.
      this.watch?.answered({
        inputTokens: finish.usage.inputTokens.total,
        outputTokens: finish.usage.outputTokens.total
      })
    }
    if (finish !== undefined || length > 0) answering.call.paid(finish, length)
    const failed = answering.call.lost(target, onlyFailures(cause))
    if (answering.call.hasOutput) answering.failed(failed)
    this.watch?.settle(Exit.failCause(failed))
    return Effect.andThen(this.close(Exit.failCause(failed)), Effect.failCause(failed))
  }

  /** Before the end is handed on, so that a permit is free while the consumer goes on. */
  private close(exit: Exit.Exit<void, AiError.AiError>): Effect.Effect<void> {
    const closed = Scope.close(this.scope, exit)
    return this.gate === undefined ? closed : Effect.andThen(this.gate.settle(exit), closed)
  }

  private closed(): void {
    const { answering: { call }, finish, length } = this
    this.watch?.left()
    call.left()
    if (finish !== undefined || length > 0) call.paid(finish, length)
  }
}

// A cause that is no end of a stream holds none.
const onlyFailures = <E>(cause: Cause.Cause<E>): Cause.Cause<Exclude<E, Cause.Done>> =>
  cause as Cause.Cause<Exclude<E, Cause.Done>>
