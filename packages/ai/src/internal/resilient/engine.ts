import * as Admission from "@sluice/core/Admission"
import * as Deadline from "@sluice/core/Deadline"
import type { Hub } from "@sluice/core/Hub"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import type * as AiError from "effect/ai/AiError"
import type * as Prompt from "effect/ai/Prompt"
import * as ResponseIdTracker from "effect/ai/ResponseIdTracker"
import type * as Tool from "effect/ai/Tool"
import type * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as AiRejection from "../../AiRejection.ts"
import type { CallLog, Usage } from "../../CallLog.ts"
import { CurrentIdempotencyKey } from "../../IdempotencyKey.ts"
import { CurrentModel } from "../kit/currentModel.ts"
import { OnHeaders } from "../kit/onHeaders.ts"
import { CurrentCollectLimits, StreamLimits } from "../stream/limits.ts"
import { OnMalformedEvent } from "../stream/malformed.ts"
import { Attempt as Watch } from "../telemetry/attempt.ts"
import type { Choice } from "./candidates.ts"
import { translated } from "./errors.ts"
import { HeldAttempt } from "./heldAttempt.ts"
import { CurrentLogs, type LogKeeper } from "./lastLogs.ts"
import { ModelCall } from "./modelCall.ts"
import type * as Parts from "./parts.ts"
import type { PromptLength } from "./promptSize.ts"
import type { Settings } from "./settings.ts"
import { StreamedCall } from "./streamedCall.ts"
import type { Target } from "./target.ts"
import { AttemptLimits } from "./attemptLimits.ts"
import type { Charge } from "./targetQuota.ts"
import { answered, conversationOf, trackerOf } from "./trackers.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** A call of one method of a model. */
export interface Question<S, A> {
  readonly method: CallLog["method"]
  /**
   * Calls one target. `unusable` is the error of the last answer, if this is a re-ask. `prefill` is the text that the target
   * continues.
   */
  readonly ask: (target: Target<S>, unusable: AiError.AiError | undefined, prefill?: string) => A
  /** Whether the prompt ends with the beginning of an answer. */
  readonly hasPrefill?: () => boolean
  /** About how long the prompt is, as the text that takes as many tokens: for quotas, and for providers that report no usage. */
  readonly promptLength: PromptLength
  /** Changes the context of the target. */
  readonly given?: <R>(context: Context.Context<R>) => Context.Context<R>
  /** What traces show, if content is switched on. */
  readonly content?: () => { readonly prompt: Prompt.RawInput; readonly tools?: ReadonlyArray<Tool.Any> | undefined }
}

/** A call whose answer outlives the effect that opens it, such as one that is relayed as bytes. */
export interface Opening<S, A> extends Pick<Question<S, never>, "content" | "method" | "promptLength"> {
  /** Whether a stream is requested. */
  readonly streams: boolean
  /** In the order in which they are tried. */
  readonly targets: ReadonlyArray<Target<S>>
  /** The requested model. */
  readonly model: string | undefined
  /** The names of all models, for the error that none of the targets has it. */
  readonly offered: () => ReadonlyArray<string>
  /** Whether a target can take the request. Asked when the target is next. */
  readonly accepts: (target: Target<S>) => boolean
  /** Whether it takes only permits and quota that no other call waits for. */
  readonly isBackground: boolean
  /** The text that a target continues. */
  readonly prefill?: string | undefined
  /** Called with the call before its first attempt. */
  readonly onBegin: (call: ModelCall<S>) => void
  /** Opens the answer of one attempt: succeeds when the client gets it, and leaves the attempt to its callbacks. */
  readonly open: (attempt: HeldAttempt<S>) => Effect.Effect<A, AiError.AiError>
}

/** How to read a whole answer. */
export interface Reading<A> {
  /** Whether it is complete and has no content. */
  readonly isEmpty: (answer: A) => boolean
  readonly finish: (answer: A) => Parts.Finish | undefined
  readonly length: (answer: A) => number
  /** Adds the signature to the answer. */
  readonly sign: (answer: A, signature: Signature) => A
  /** Reports the answer to traces and metrics. */
  readonly observe: (answer: A, watch: Watch) => void
}

/** How to make the parts of a stream. */
export interface Form<A> {
  /** Adds the signature to the finish part. */
  readonly sign: (finish: A, signature: Signature) => A
  /** The part that says that the answer starts over. */
  readonly restarted: (from: string, to: string) => A
  /** The end of a text block. */
  readonly ended: (id: string) => A
}

/** Where an answer came from. It becomes part of the finish part's metadata. */
export interface Signature extends Usage {
  readonly call: string
  readonly target: string
  readonly provider: string
  readonly model: string
  readonly attempts: number
}

/** Makes the calls of one service over several targets, within one budget of attempts and one deadline. */
export class Engine<S> {
  readonly settings: Settings
  readonly targets: ReadonlyArray<Target<S>>
  readonly logs: Hub<CallLog>
  /** Whether targets share an order, and so the calls. */
  private readonly isSpread: boolean

  constructor(settings: Settings, targets: ReadonlyArray<Target<S>>, logs: Hub<CallLog>) {
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
    return this.withDeadline(Effect.withFiber((fiber: AnyFiber) => {
      const call = this.begin(fiber, question)
      const attempt = Effect.flatMap(call.choose, (choice) => this.tryAt(call, choice, question, reading, undefined))
      const attempts = RetryPolicy.retry(attempt, this.settings.retry, { classify: call.judge, delay: call.delay })
      const answer = Effect.catchCause(attempts, (cause) => Effect.failCause(call.ending(cause)))
      return Effect.onExitPrimitive(answer, (exit) => {
        this.end(fiber, call, exit)
        return undefined
      })
    }))
  }

  private tryAt<A, R>(
    call: ModelCall<S>,
    choice: Choice<S>,
    question: Question<S, Effect.Effect<A, AiError.AiError, R>>,
    reading: Reading<A>,
    unusable: AiError.AiError | undefined
  ): Effect.Effect<A, AiError.AiError, R> {
    const { isForced, target } = choice
    const charge = call.chargeFor(target, unusable)
    const asked = Effect.flatMap(trackerOf(call.conversation, target), (tracker) => {
      call.begin(target, charge)
      const watch = this.watch(call, target, question, false)
      const contextOf = this.contextOf<Effect.Effect<A, AiError.AiError, R>, R>(
        call,
        target,
        tracker,
        question,
        unusable !== undefined,
        charge
      )
      const answer = Effect.updateContext(
        question.ask(target, unusable),
        (context: Context.Context<R>) => {
          // For an answer that comes as a stream.
          const limits = new AttemptLimits(call, target, Admission.progressOf(context))
          return this.withMalformedEvents(call, target, contextOf(context)).pipe(
            Context.add(StreamLimits, limits),
            Context.add(CurrentCollectLimits, limits)
          )
        }
      )
      const checked = Deadline.within(answer, target.limits.attemptTimeout).pipe(
        Effect.flatMap((answer) => {
          if (watch !== undefined) reading.observe(answer, watch)
          if (charge !== undefined) charge.finish = reading.finish(answer)
          if (!reading.isEmpty(answer)) return Effect.succeed(answer)
          call.paid(reading.finish(answer), reading.length(answer))
          return Effect.fail(call.rejected(new AiRejection.EmptyAnswer({ target: target.name })))
        }),
        // Inside the circuit, whose classifier reads the translated error.
        Effect.mapError((error) => translated(call, target, error))
      )
      const settled = charge === undefined ? checked : Effect.onExitPrimitive(checked, (exit) => {
        charge.outputLength = call.receivedLength
        return exit._tag === "Success" ? charge.complete() : charge.failed(exit.cause)
      })
      return watch === undefined ? settled : watch.effect(settled, () => {})
    })
    const admission = isForced ? target.forced : target.admission
    return Effect.matchCauseEffect(admission.guard(asked, call.admitOptions(target, charge)), {
      onSuccess: (answer) =>
        Effect.succeed(
          reading.sign(answer, this.signature(call, target, reading.finish(answer), reading.length(answer)))
        ),
      onFailure: (cause) => {
        const failed = call.failed(target, cause)
        const useless = call.takeReask(failed)
        return useless === undefined
          ? call.ended(failed)
          : this.tryAt(call, choice, question, reading, useless)
      }
    })
  }

  // ---------- streams

  stream<A extends Parts.AnyPart, R>(
    question: Question<S, Stream.Stream<A, AiError.AiError, R>>,
    form: Form<A>
  ): Stream.Stream<A, AiError.AiError, R> {
    return Stream.fromChannel(
      Channel.fromTransform((_, scope) =>
        this.withDeadline(Effect.withFiber((fiber: AnyFiber) => {
          const call = this.begin(fiber, question)
          const streamed = new StreamedCall<S, A, R>(this, call, question, form, scope)
          return Effect.as(
            Scope.addFinalizer(scope, Effect.sync(() => this.end(fiber, call, streamed.exit))),
            streamed.pull
          )
        }))
      )
    )
  }

  // ---------- answers that outlive the effect

  /** Makes attempts until one is open. That one holds its admission and its quota until it is settled. */
  open<A>(opening: Opening<S, A>): Effect.Effect<A, AiError.AiError> {
    return this.withDeadline(Effect.withFiber((fiber: AnyFiber) => {
      const call = this.callOf(fiber, opening, opening.targets, opening.model, opening)
      opening.onBegin(call)
      return this.opened(fiber, call, opening, this.settings.retry, undefined)
    }))
  }

  /**
   * After an attempt with partial output: opens an answer that continues it. `undefined`: the call has no attempt left, no target may
   * continue it, or the failure would repeat.
   */
  continue<A>(
    call: ModelCall<S>,
    opening: Opening<S, A>,
    failed: Cause.Cause<AiError.AiError>
  ): Effect.Effect<A, AiError.AiError> | undefined {
    const attemptsLeft = call.attemptsLeft()
    if (attemptsLeft < 1 || !call.takeContinuation(failed)) return undefined
    // The failed attempt is handed to the retry first, which waits and counts as after any other attempt.
    const retry = { ...this.settings.retry, maxAttempts: 1 + attemptsLeft }
    const opened = Effect.withFiber((fiber: AnyFiber) => this.opened(fiber, call, opening, retry, failed))
    return call.deadline === undefined ? opened : Effect.provideService(opened, Deadline.Deadline, call.deadline)
  }

  private opened<A>(
    fiber: AnyFiber,
    call: ModelCall<S>,
    opening: Opening<S, A>,
    retry: RetryPolicy.RetryPolicy,
    failed: Cause.Cause<AiError.AiError> | undefined
  ): Effect.Effect<A, AiError.AiError> {
    const { context } = fiber
    const logs = fiber.getRef(CurrentLogs)
    const end = (exit: Exit.Exit<unknown, unknown>) => this.publish(logs, call, exit)
    const next = Effect.flatMap(
      call.choose,
      (choice) => new HeldAttempt(this, call, choice, context, opening.prefill, end).open(opening)
    )
    let ended = failed
    const attempt = failed === undefined ? next : Effect.suspend(() => {
      const cause = ended
      ended = undefined
      return cause === undefined ? next : call.ended(cause)
    })
    const attempts = RetryPolicy.retry(attempt, retry, { classify: call.judge, delay: call.delay })
    const opened = Effect.catchCause(attempts, (cause) => Effect.failCause(call.ending(cause)))
    return Effect.onExitPrimitive(opened, (exit) => {
      if (exit._tag === "Failure") end(exit)
      return undefined
    })
  }

  // ---------- all

  private withDeadline<A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    const { deadline } = this.settings
    return deadline === undefined ? self : Deadline.provide(self, deadline)
  }

  private begin<A>(fiber: AnyFiber, question: Question<S, A>): ModelCall<S> {
    const model = question.method === "embed" ? undefined : fiber.getRef(CurrentModel)
    const targets = model === undefined ? this.targets : this.targets.filter(({ models }) => models.has(model))
    const random = fiber.getRef(Random.Random)
    const ordered = this.isSpread ? spread(targets, () => random.nextDoubleUnsafe()) : targets
    return this.callOf(fiber, question, ordered, model, this)
  }

  private callOf(
    fiber: AnyFiber,
    question: Pick<Question<S, never>, "method" | "promptLength">,
    targets: ReadonlyArray<Target<S>>,
    model: string | undefined,
    { accepts, isBackground, offered }:
      & Pick<Opening<S, never>, "offered">
      & Partial<Pick<Opening<S, never>, "accepts" | "isBackground">>
  ): ModelCall<S> {
    const random = fiber.getRef(Random.Random)
    return new ModelCall(
      this.settings,
      targets,
      question.method,
      {
        conversation: conversationOf(fiber.context),
        id: idOf(random.nextDoubleUnsafe(), random.nextDoubleUnsafe()),
        key: fiber.getRef(CurrentIdempotencyKey),
        clock: fiber.getRef(Clock.Clock),
        deadline: fiber.getRef(Deadline.Deadline),
        promptLength: question.promptLength,
        context: fiber.context,
        model,
        offered,
        accepts,
        isBackground
      }
    )
  }

  /** The names of all models. */
  readonly offered = (): ReadonlyArray<string> => [
    ...new Set(this.targets.flatMap(({ models }) => [...models.keys()]))
  ]

  private end(fiber: AnyFiber, call: ModelCall<S>, exit: Exit.Exit<unknown, unknown>): void {
    // A call that was interrupted from outside has a running attempt here.
    call.left()
    this.publish(fiber.getRef(CurrentLogs), call, exit)
  }

  private publish(logs: LogKeeper | undefined, call: ModelCall<S>, exit: Exit.Exit<unknown, unknown>): void {
    // It comes again in a moment, and its logs would replace those of others.
    if (call.isBackground && call.attempts === 0) return
    if (logs === undefined && !this.logs.hasReaders) return
    const log = call.log(exit)
    logs?.add(log)
    this.logs.publish(log)
  }

  /** The telemetry of an attempt. `undefined` if the target has its own. */
  watch(
    call: ModelCall<S>,
    target: Target<S>,
    question: Pick<Question<S, never>, "content" | "method">,
    streams: boolean
  ): Watch | undefined {
    if (target.isWatched) return undefined
    return new Watch({
      name: question.method === "embed" ? "embeddings" : "chat",
      place: target.placeOf(call.modelOf(target)),
      attempt: call.attempts,
      streams,
      output: question.method === "embed" ? undefined : question.method === "generateObject" ? "json" : "text",
      content: question.content
    })
  }

  /**
   * Adds the services of an attempt to its context: its own tracker of response ids, the idempotency key of the call, and the
   * target's name for the requested model.
   */
  contextOf<A, R>(
    call: ModelCall<S>,
    target: Target<S>,
    tracker: ResponseIdTracker.Service | undefined,
    question: Question<S, A>,
    hasOtherPrompt: boolean,
    charge: Charge | undefined
  ): (context: Context.Context<R>) => Context.Context<R> {
    // Another prompt needs another key.
    const key = hasOtherPrompt ? `${call.key}-${call.attempts}` : call.key
    return (context) => {
      const named: Context.Context<R> = call.model === undefined
        ? context
        : Context.add(context, CurrentModel, target.models.get(call.model))
      const keyed: Context.Context<R> = Context.add(named, CurrentIdempotencyKey, key)
      const noted: Context.Context<R> = charge === undefined ? keyed : Context.add(keyed, OnHeaders, charge.onHeaders)
      const own: Context.Context<R> = tracker === undefined
        ? noted
        : Context.add(noted, ResponseIdTracker.ResponseIdTracker, tracker)
      return question.given === undefined ? own : question.given(own)
    }
  }

  /** Provides the handler of events that are not JSON. The setting of an outer model applies to its own targets only. */
  withMalformedEvents<R>(call: ModelCall<S>, target: Target<S>, context: Context.Context<R>): Context.Context<R> {
    const isSet = Context.getOrUndefined(context, OnMalformedEvent) !== undefined
    if (!target.skipsMalformedEvents && !isSet) return context
    return Context.add(
      context,
      OnMalformedEvent,
      target.skipsMalformedEvents ? () => call.skippedEvent(target) : undefined
    )
  }

  /** Notes that the answer is complete, and returns its signature. */
  signature(
    call: ModelCall<S>,
    target: Target<S>,
    finish: Parts.Finish | undefined,
    length: number
  ): Signature {
    const usage = call.usageOf(finish, length)
    call.succeeded(usage)
    answered(call.conversation, target)
    const { name, provider } = target
    return { call: call.id, target: name, provider, model: call.modelOf(target), attempts: call.attempts, ...usage }
  }
}

/** The targets by order. Targets of the same order are shuffled, those of more weight sooner more often. */
const spread = <S>(targets: ReadonlyArray<Target<S>>, random: () => number): ReadonlyArray<Target<S>> => {
  const drawn = targets.map((target) => ({ target, ticket: ticket(target.weight, random) }))
  drawn.sort((a, b) => a.target.order - b.target.order || b.ticket - a.ticket)
  return drawn.map(({ target }) => target)
}

/**
 * Of several, the one with the highest ticket is first, as often as its share of the weights.
 *
 * Efraimidis and Spirakis, "Weighted random sampling with a reservoir".
 */
export const ticket = (weight: number, random: () => number): number => random() ** (1 / weight)

const idOf = (a: number, b: number): string => `call_${half(a)}${half(b)}`

const digits = "0123456789abcdefghijklmnopqrstuvwxyz"

/** Eight digits. `toString(36)` takes six times as long. */
const half = (drawn: number): string => {
  let text = ""
  let rest = drawn
  for (let length = 0; length < 8; length++) {
    rest *= digits.length
    const digit = Math.floor(rest)
    text += digits.charAt(digit)
    rest -= digit
  }
  return text
}
