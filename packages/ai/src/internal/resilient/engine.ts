import * as Deadline from "@sluice/core/Deadline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import type * as AiError from "effect/ai/AiError"
import type * as Prompt from "effect/ai/Prompt"
import type * as Tool from "effect/ai/Tool"
import * as Channel from "effect/Channel"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as PubSub from "effect/PubSub"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as AiRejection from "../../AiRejection.ts"
import type { CallLog, Usage } from "../../CallLog.ts"
import { CurrentIdempotencyKey } from "../../IdempotencyKey.ts"
import { Attempt as Watch } from "../telemetry/attempt.ts"
import { Answering } from "./answering.ts"
import { Call, type Choice } from "./call.ts"
import { translated } from "./errors.ts"
import type * as Parts from "./parts.ts"
import type { Settings } from "./settings.ts"
import type { Target } from "./target.ts"
import { answered, conversationOf, ownTracker } from "./trackers.ts"

/** Who gathers the logs of the calls within its reach. */
export const CurrentLogs: Context.Reference<Array<CallLog> | undefined> = Context.Reference<Array<CallLog> | undefined>(
  "@sluice/ai/ResilientModel/CurrentLogs",
  { defaultValue: () => undefined }
)

/** What one method of a model is, to whoever makes it safe. */
export interface Question<S, A> {
  readonly method: CallLog["method"]
  /** Asks one target. `unusable` is why the last answer was of no use, where this is a paid second question. */
  readonly ask: (target: Target<S>, unusable: AiError.AiError | undefined) => A
  /** About how long the prompt is, in characters, where a provider does not count. */
  readonly promptLength: () => number
  /** What a target is given that the caller has not. */
  readonly given?: (context: Context.Context<never>) => Context.Context<never>
  /** What traces show of it, where content is switched on. */
  readonly content?: () => { readonly prompt: Prompt.RawInput; readonly tools?: ReadonlyArray<Tool.Any> | undefined }
}

/** What an answer is, to whoever counts it and says where it came from. */
export interface Reading<A> {
  /** Whether it is complete and has nothing in it. */
  readonly isEmpty: (answer: A) => boolean
  readonly finish: (answer: A) => Parts.Finish | undefined
  readonly length: (answer: A) => number
  /** Notes on the answer where it came from. */
  readonly sign: (answer: A, signature: Signature) => A
  /** Tells traces and metrics what the answer says. */
  readonly observe: (answer: A, watch: Watch) => void
}

/** What the parts of a stream are, to whoever says where they came from. */
export interface Form<A> {
  readonly sign: (finish: A, signature: Signature) => A
  /** The part that says that the answer begins anew. */
  readonly restarted: (from: string, to: string) => A
}

/** Where an answer came from, as it stands in the metadata of its finish part. */
export interface Signature extends Usage {
  readonly call: string
  readonly target: string
  readonly provider: string
  readonly model: string
  readonly attempts: number
}

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** Makes calls of one service safe: over its targets, within one budget of attempts and one deadline. */
export class Engine<S> {
  readonly settings: Settings
  readonly targets: ReadonlyArray<Target<S>>
  readonly logs: PubSub.PubSub<CallLog>
  private readonly isSpread: boolean

  constructor(settings: Settings, targets: ReadonlyArray<Target<S>>, logs: PubSub.PubSub<CallLog>) {
    this.settings = settings
    this.targets = [...targets].sort((a, b) => a.order - b.order)
    this.logs = logs
    this.isSpread = this.targets.some((target, at) => target.order === this.targets[at + 1]?.order)
  }

  // ---------- whole answers

  run<A, R>(
    question: Question<S, Effect.Effect<A, AiError.AiError, R>>,
    reading: Reading<A>
  ): Effect.Effect<A, AiError.AiError, R> {
    return this.withinDeadline(Effect.withFiber((fiber: AnyFiber) => {
      const call = this.begin(fiber, question)
      const attempt = Effect.flatMap(
        call.choose,
        (choice) => this.tryAt(call, choice, question, reading, undefined)
      )
      const attempts = RetryPolicy.retry(attempt, this.settings.retry, { classify: call.judge, delay: call.delay })
      return Effect.onExitPrimitive(attempts, (exit) => {
        this.end(fiber, call, exit)
        return undefined
      })
    }))
  }

  private tryAt<A, R>(
    call: Call<S>,
    choice: Choice<S>,
    question: Question<S, Effect.Effect<A, AiError.AiError, R>>,
    reading: Reading<A>,
    unusable: AiError.AiError | undefined
  ): Effect.Effect<A, AiError.AiError, R> {
    const { isForced, target } = choice
    const asked = Effect.suspend(() => {
      call.begin(target)
      const watch = this.watch(call, target, question, false)
      const answer = Effect.updateContext(
        question.ask(target, unusable),
        this.contextOf<Effect.Effect<A, AiError.AiError, R>, R>(call, target, question, unusable)
      )
      const inTime = Deadline.within(answer, target.limits.attemptTimeout).pipe(
        Effect.flatMap((answer) => {
          if (watch !== undefined) reading.observe(answer, watch)
          if (!reading.isEmpty(answer)) return Effect.succeed(answer)
          call.paid(reading.finish(answer), reading.length(answer))
          return Effect.fail(call.rejected(new AiRejection.EmptyAnswer({ target: target.name })))
        }),
        // Within the circuit, which is to see what it was.
        Effect.mapError((error) => translated(call, target, error))
      )
      return watch === undefined ? inTime : watch.effect(inTime, () => {})
    })
    const guarded = target.breaker === undefined || isForced
      ? asked
      : target.breaker.guard(asked, { key: target.key, classify: call.classify })
    const permitted = target.permits === undefined
      ? guarded
      : target.permits.withPermits(guarded, call.patience(target))
    return Effect.matchCauseEffect(permitted, {
      onSuccess: (answer) => Effect.succeed(this.sign(call, target, answer, reading)),
      onFailure: (cause) => {
        const failed = call.lost(target, cause)
        const useless = call.takeReask(failed)
        return useless === undefined
          ? Effect.failCause(failed)
          : this.tryAt(call, choice, question, reading, useless)
      }
    })
  }

  private sign<A>(call: Call<S>, target: Target<S>, answer: A, reading: Reading<A>): A {
    return reading.sign(answer, this.signature(call, target, reading.finish(answer), reading.length(answer)))
  }

  // ---------- streams

  stream<A extends Parts.AnyPart, R>(
    question: Question<S, Stream.Stream<A, AiError.AiError, R>>,
    form: Form<A>
  ): Stream.Stream<A, AiError.AiError, R> {
    return Stream.fromChannel(
      Channel.fromTransform((_, scope) =>
        this.withinDeadline(Effect.withFiber((fiber: AnyFiber) => {
          const call = this.begin(fiber, question)
          const answering = new Answering<S, A, R>(this, call, question, form, scope)
          return Effect.as(
            Scope.addFinalizer(scope, Effect.sync(() => this.end(fiber, call, answering.exit))),
            answering.pull
          )
        }))
      )
    )
  }

  // ---------- both

  private withinDeadline<A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    const { deadline } = this.settings
    return deadline === undefined ? self : Deadline.provide(self, deadline)
  }

  private begin<A>(fiber: AnyFiber, question: Question<S, A>): Call<S> {
    const random = fiber.getRef(Random.Random)
    return new Call(
      this.settings,
      this.isSpread ? spread(this.targets, () => random.nextDoubleUnsafe()) : this.targets,
      question.method,
      {
        conversation: conversationOf(fiber.context),
        id: idOf(random.nextDoubleUnsafe(), random.nextDoubleUnsafe()),
        key: fiber.getRef(CurrentIdempotencyKey),
        clock: fiber.getRef(Clock.Clock),
        deadline: fiber.getRef(Deadline.Deadline),
        promptLength: question.promptLength
      }
    )
  }

  private end(fiber: AnyFiber, call: Call<S>, exit: Exit.Exit<unknown, unknown>): void {
    // Who is interrupted from outside comes by here alone.
    call.left()
    const log = call.log(exit)
    fiber.getRef(CurrentLogs)?.push(log)
    PubSub.publishUnsafe(this.logs, log)
  }

  /** Spans and metrics of an attempt; none where the target makes its own. */
  watch<A>(call: Call<S>, target: Target<S>, question: Question<S, A>, streams: boolean): Watch | undefined {
    if (target.isWatched) return undefined
    return new Watch({
      name: question.method === "embed" ? "embeddings" : "chat",
      place: target.place,
      attempt: call.attempts,
      streams,
      output: question.method === "embed" ? undefined : question.method === "generateObject" ? "json" : "text",
      content: question.content
    })
  }

  /** What an attempt is given: a tracker of ids of its own, and the key that it has in common with the others. */
  contextOf<A, R>(
    call: Call<S>,
    target: Target<S>,
    question: Question<S, A>,
    unusable: AiError.AiError | undefined
  ): (context: Context.Context<R>) => Context.Context<R> {
    // The question with a note on it is another question.
    const key = unusable === undefined ? call.key : `${call.key}-${call.attempts}`
    return (context) => {
      const own = Context.add(ownTracker(context, call.conversation, target), CurrentIdempotencyKey, key)
      // It has all that it had.
      return (question.given === undefined ? own : question.given(own as Context.Context<never>)) as Context.Context<R>
    }
  }

  /** What is written on an answer that is complete. */
  signature(
    call: Call<S>,
    target: Target<S>,
    finish: Parts.Finish | undefined,
    length: number
  ): Signature {
    const usage = call.usageOf(finish, length)
    call.succeeded(usage)
    answered(call.conversation, target)
    const { model, name, provider } = target
    return { call: call.id, target: name, provider, model, attempts: call.attempts, ...usage }
  }
}

/** The targets in order; those of one order in an order by chance, the heavier ones sooner more often. */
const spread = <S>(targets: ReadonlyArray<Target<S>>, random: () => number): ReadonlyArray<Target<S>> => {
  // After Efraimidis and Spirakis, "Weighted random sampling with a reservoir": the largest random^(1/weight) first.
  const drawn = targets.map((target) => ({ target, ticket: random() ** (1 / target.weight) }))
  drawn.sort((a, b) => a.target.order - b.target.order || b.ticket - a.ticket)
  return drawn.map(({ target }) => target)
}

const idOf = (a: number, b: number): string => `call_${half(a)}${half(b)}`
const half = (drawn: number): string => Math.floor(drawn * 36 ** 8).toString(36).padStart(8, "0")
