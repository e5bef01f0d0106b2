/** The calls of a run: a resilient model over its targets, with deduplication and waiting for outages. */
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as AiRejection from "@sluice/ai/AiRejection"
import type { CallLog } from "@sluice/ai/CallLog"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import type * as AiError from "effect/ai/AiError"
import * as LanguageModel from "effect/ai/LanguageModel"
import type * as Response from "effect/ai/Response"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { CallRecord } from "./CallRecord.ts"
import type { Change } from "./Circuits.ts"
import * as Circuits from "./Circuits.ts"
import * as Failure from "./Failure.ts"
import type { Prompt } from "./Prompt.ts"
import { CurrentPrompt, PromptState } from "./PromptState.ts"
import type { Finish, How, Result, Usage } from "./Result.ts"
import { RunStopped } from "./RunStopped.ts"
import type { Settings, Target } from "./Settings.ts"
import * as Targets from "./Targets.ts"
import * as Words from "./Words.ts"

export interface Events {
  readonly attemptStarted: () => void
  /** An attempt failed. The reason is from `Failure.reasonOf`. */
  readonly attemptFailed: (reason: string) => void
  readonly paid: (usage: Usage) => void
  readonly circuitChanged: (change: Change) => void
  /** A target cannot answer any prompt. `why` is `undefined` if it can after all. */
  readonly unusable: (target: string, why: string | undefined) => void
}

export type Options = Pick<
  Settings,
  | "targets"
  | "allowInsecureKey"
  | "temperature"
  | "maxTokens"
  | "concurrency"
  | "maxAttempts"
  | "timeoutMillis"
  | "firstTokenTimeoutMillis"
  | "idleTimeoutMillis"
  | "deadlineMillis"
  | "noStream"
  | "dedupeTtlMillis"
  | "noShare"
  | "maxOutageMillis"
>

export interface Completed {
  readonly result: Result
  readonly record: CallRecord
}

export interface Engine {
  /** How many prompts to process at once. More than the permits, since a prompt that backs off holds none. */
  readonly maxPrompts: number
  /** Completes a prompt. Fails only if the run has to stop. Runs `afterAttempt` after each attempt. */
  readonly complete: (prompt: Prompt, afterAttempt?: Effect.Effect<void>) => Effect.Effect<Completed, RunStopped>
}

/** Builds an engine. Closes its connections with the scope. */
export const make = Effect.fnUntraced(function*(
  options: Options,
  events: Events
): Effect.fn.Return<Engine, RunStopped, Scope.Scope> {
  const maxPrompts = options.concurrency * promptsPerPermit
  const fatal = Deferred.makeUnsafe<never, RunStopped>()
  const usability = new Usability(options.targets, events, fatal)
  const outage = new Outage(options, fatal)
  const models = yield* Targets.make(options, {
    started: events.attemptStarted,
    succeeded: (target) => usability.succeeded(target),
    failed: (target, error, prompt) => usability.failed(target, error, prompt)
  })
  const context = yield* Layer.build(resilient(options, maxPrompts, models)).pipe(
    // The flags were validated, so users should not see this.
    Effect.mapError((invalid) => new RunStopped({ why: "Unusable", message: invalid.message }))
  )
  const deduplicator = yield* Effect.orDie(Deduplicator.make({ name: "run", maxWaiters: Number.MAX_SAFE_INTEGER }))
  const states = Context.get(context, ResilientModel.ResilientModel).targets
  yield* watchCircuits(states, events, outage)
  return new Calls(options, events, {
    maxPrompts,
    model: Context.get(context, LanguageModel.LanguageModel),
    states,
    deduplicator,
    outage,
    fatal: Deferred.await(fatal)
  })
})

const promptsPerPermit = 8

/** How often a prompt that fails by itself can use up its attempts while circuits are open. */
const maxRounds = 2

/** One probe per second detects the end of an outage soon and adds no load to a recovering provider. */
const openMillis = 1_000

const resilient = (options: Options, maxPrompts: number, models: ReadonlyArray<Targets.TargetModel>) => {
  const { concurrency, targets, timeoutMillis } = options
  return ResilientModel.layer({
    name: "run",
    targets: models.map(({ model, target }) => ({
      name: target.name,
      provider: new URL(target.url).host,
      model: target.model ?? "none",
      credential: accountOf(targets, target),
      layer: Layer.succeed(LanguageModel.LanguageModel, model),
      breaker: {
        // Consecutive failures alone would trip late: answers that were in flight arrive between dozens of failures. And
        // failures return sooner than answers, so a few at the start of a run must not trip.
        trip: [
          CircuitBreaker.consecutive(Math.min(1_000, Math.max(5, concurrency))),
          CircuitBreaker.failureRate({ rate: 0.5, calls: 20, minimum: 20 })
        ],
        openFor: Duration.millis(openMillis),
        // Longer than any attempt, so that the outcome of a slow probe counts.
        probeLease: Duration.millis(timeoutMillis + 1_000)
      },
      // The queue has a slot for every prompt, so that none is refused.
      backpressure: { capacity: concurrency, queue: maxPrompts }
    })),
    retry: RetryPolicy.exponential({
      maxAttempts: options.maxAttempts,
      // A file is not urgent: it waits for a Retry-After as long as for an outage.
      maxRetryAfter: Duration.millis(options.maxOutageMillis)
    }),
    attemptTimeout: Duration.millis(timeoutMillis),
    firstTokenTimeout: Duration.millis(options.firstTokenTimeoutMillis ?? timeoutMillis),
    idleTimeout: Duration.millis(options.idleTimeoutMillis),
    // Only complete answers are written, so partial output can be discarded.
    afterOutput: "restart"
  })
}

/** Targets with the same host and key share an account: a refused key is refused for all of them. */
const accountOf = (targets: Options["targets"], own: Target): string => {
  const isSame = ({ keySource, url }: Target) =>
    keySource === own.keySource && new URL(url).host === new URL(own.url).host
  return (targets.find(isSame) ?? own).name
}

/** As often as the live line is drawn. */
const pollInterval = Duration.millis(100)

const watchCircuits = (
  states: Effect.Effect<ReadonlyArray<ResilientModel.TargetState>>,
  events: Events,
  outage: Outage
) => {
  const watch = new Circuits.Watch()
  const poll = Effect.map(Effect.zip(states, Clock.currentTimeMillis), ([states, now]) => {
    for (const change of watch.changes(states, now)) events.circuitChanged(change)
    if (Circuits.millisToCall(states) > 0) outage.observed(now)
  })
  return Effect.forkScoped(Effect.forever(Effect.delay(poll, pollInterval)))
}

// ---------- reasons to stop a run

type Fatal = Deferred.Deferred<never, RunStopped>

const stop = (fatal: Fatal, why: RunStopped["why"], message: string): void => {
  Deferred.doneUnsafe(fatal, Effect.fail(new RunStopped({ why, message })))
}

/** Stops the run after an outage of all targets that is too long. */
class Outage {
  private readonly options: Options
  private readonly fatal: Fatal
  /** When the outage was first observed, in epoch milliseconds. `undefined` if a call has succeeded since. */
  private since: number | undefined

  constructor(options: Options, fatal: Fatal) {
    this.options = options
    this.fatal = fatal
  }

  /** Every circuit was seen open. */
  observed(now: number): void {
    const { maxOutageMillis, targets } = this.options
    this.since ??= now
    if (now - this.since < maxOutageMillis) return
    const subject = targets.length === 1 ? "the provider was" : "all targets were"
    this.stop(`${subject} down for ${Words.time(maxOutageMillis)}`)
  }

  /** No target accepts a call before this time has passed. */
  expected(millis: number): void {
    if (millis > this.options.maxOutageMillis) this.stop(`no target accepts calls for ${Words.time(millis)}`)
  }

  ended(): void {
    this.since = undefined
  }

  private stop(why: string): void {
    stop(this.fatal, "Outage", `${why}; the remaining prompts were not sent. Raise --max-outage to wait longer`)
  }
}

/** Stops the run if every target refuses what all prompts have in common, such as the key. */
class Usability {
  private readonly targets: Options["targets"]
  private readonly events: Events
  private readonly fatal: Fatal
  /** Targets that have answered. Before its first answer, a target's refusal may apply to every prompt. */
  private readonly answered = new Set<Target>()
  private readonly reasons = new Map<Target, string>()

  constructor(targets: Options["targets"], events: Events, fatal: Fatal) {
    this.targets = targets
    this.events = events
    this.fatal = fatal
  }

  succeeded(target: Target): void {
    this.answered.add(target)
    if (this.reasons.delete(target)) this.events.unusable(target.name, undefined)
  }

  failed(target: Target, error: AiError.AiError, prompt: Prompt): void {
    if (this.answered.has(target) || this.reasons.has(target)) return
    const { apiKey, keySource, model, url } = target
    const reason = Failure.fatal(error, {
      url,
      model,
      keySource,
      hasKey: apiKey !== undefined,
      isOwnModel: prompt.model !== undefined
    })
    if (reason === undefined) return
    this.reasons.set(target, reason)
    this.events.unusable(target.name, reason)
    if (this.reasons.size < this.targets.length || this.answered.size > 0) return
    const message = this.targets.length === 1
      ? reason
      : `no target is usable: ${[...this.reasons].map(([{ name }, reason]) => `${name}: ${reason}`).join("; ")}`
    stop(this.fatal, "Unusable", message)
  }
}

// ---------- calls

interface Answer {
  readonly text: string
  readonly model: string | undefined
  readonly finish: Finish
  readonly from: ResilientModel.Answer | undefined
}

type CallError = AiError.AiError | RunStopped

/** Equal requests share a flight and then its answer, until it expires. Failures are not cached. */
const sharing = (timeToLive: Duration.Duration) =>
  Deduplicator.operation<Answer, CallError>()("chat", {
    key: ({ body, maxTokens, messages, model, temperature }: Pick<
      Prompt,
      "body" | "maxTokens" | "messages" | "model" | "temperature"
    >) => ({ body, maxTokens, messages, model, temperature }),
    timeToLive: (exit) => Exit.isSuccess(exit) ? timeToLive : Duration.zero
  })

interface Parts {
  readonly maxPrompts: number
  readonly model: LanguageModel.LanguageModel
  readonly states: Effect.Effect<ReadonlyArray<ResilientModel.TargetState>>
  readonly deduplicator: Deduplicator.Deduplicator["Service"]
  readonly outage: Outage
  /** Fails when the run has to stop. */
  readonly fatal: Effect.Effect<never, RunStopped>
}

class Calls implements Engine {
  readonly maxPrompts: number
  private readonly options: Options
  private readonly events: Events
  private readonly parts: Parts
  private readonly share: ReturnType<typeof sharing>

  constructor(options: Options, events: Events, parts: Parts) {
    this.options = options
    this.events = events
    this.maxPrompts = parts.maxPrompts
    this.parts = parts
    this.share = sharing(Duration.millis(options.dedupeTtlMillis))
  }

  readonly complete = (
    prompt: Prompt,
    afterAttempt: Effect.Effect<void> = Effect.void
  ): Effect.Effect<Completed, RunStopped> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const state = new PromptState(prompt, afterAttempt, now)
      let served: Deduplicator.Served = "Led"
      const answer = this.answer(state, now)
      const shared = this.options.noShare
        ? answer
        : answer.pipe(
          this.parts.deduplicator.dedupe(this.share(prompt), {
            onServed: (how) => {
              served = how
            }
          }),
          // `maxWaiters` is unlimited.
          Effect.catchTag("TooManyWaiters", Effect.die)
        )
      return Effect.flatMap(
        Effect.exit(shared),
        (exit) => Effect.flatMap(Clock.currentTimeMillis, (now) => this.completed(state, hows[served], exit, now))
      )
    })

  private completed(
    state: PromptState,
    how: How,
    exit: Exit.Exit<Answer, CallError>,
    now: number
  ): Effect.Effect<Completed, RunStopped> {
    const error = errorOf(exit)
    if (error?._tag === "RunStopped") return Effect.fail(error)
    const { attempts, prompt, trace } = state
    const { id, line } = prompt
    const common = { line, id, attempts, how, milliseconds: now - trace.startedAt }
    const result = Exit.isSuccess(exit) ? this.answered(state, common, exit.value) : this.failed(state, common, exit)
    return Effect.succeed({ result, record: trace.record(result) })
  }

  private answered(state: PromptState, common: Common, { finish, from, model, text }: Answer): Result {
    const { estimated = true, inputTokens = 0, outputTokens = 0 } = from ?? {}
    state.trace.call = from?.call
    return {
      ...common,
      status: "ok",
      text,
      target: from?.target,
      model: model ?? state.prompt.model ?? from?.model,
      finish,
      usage: { inputTokens, outputTokens, estimated }
    }
  }

  private failed(state: PromptState, common: Common, exit: Exit.Failure<Answer, CallError>): Result {
    const { prompt, target } = state
    return {
      ...common,
      status: "failed",
      target: target?.name,
      model: prompt.model ?? (target ?? this.options.targets[0]).model,
      error: Failure.describe(Cause.squash(exit.cause))
    }
  }

  private answer(state: PromptState, now: number): Effect.Effect<Answer, CallError> {
    const { deadlineMillis } = this.options
    // Provided even if `undefined`, in place of the deadline of the flight.
    const deadline = deadlineMillis === undefined
      ? undefined
      : { at: now + deadlineMillis, budgetMillis: deadlineMillis }
    return this.round(state).pipe(
      Effect.provideService(CurrentPrompt, state),
      Effect.provideService(Deadline.Deadline, deadline)
    )
  }

  /** One call with its attempts. Another round follows if open circuits ended it. */
  private round(state: PromptState): Effect.Effect<Answer, CallError> {
    const call = ResilientModel.withLogs(Effect.raceFirst(this.call(state.prompt), this.parts.fatal))
    return Effect.flatMap(call, ([exit, logs]): Effect.Effect<Answer, CallError> => {
      for (const log of logs) this.record(state, log)
      if (Exit.isSuccess(exit)) {
        this.parts.outage.ended()
        return exit
      }
      const error = errorOf(exit)
      return error?._tag === "AiError"
        ? Effect.flatMap(this.parts.states, (states) => this.afterRound(state, error, Circuits.millisToCall(states)))
        : exit
    })
  }

  private record(state: PromptState, log: CallLog): void {
    state.trace.add(log)
    this.events.paid(log.usage)
    for (const step of log.steps) {
      if (step._tag === "Attempt" && step.fault !== undefined) this.events.attemptFailed(Failure.reasonOf(step.fault))
    }
  }

  private afterRound(
    state: PromptState,
    error: AiError.AiError,
    millisToCall: number
  ): Effect.Effect<Answer, CallError> {
    const delay = nextRoundIn(error, millisToCall)
    if (delay === undefined) return Effect.fail(error)
    // A prompt that keeps failing by itself would waste every probe and block the others.
    const { ownError, ownFailures } = state
    if (ownError !== undefined && ownFailures >= maxRounds * this.options.maxAttempts) return Effect.fail(ownError)
    return Effect.andThen(this.waitFor(delay), Effect.suspend(() => this.round(state)))
  }

  /** Waits until a target accepts calls again. Fails if the deadline is sooner or the run has to stop. */
  private waitFor(millis: number): Effect.Effect<void, CallError> {
    return Effect.withFiber((fiber): Effect.Effect<void, CallError> => {
      const deadline = fiber.getRef(Deadline.Deadline)
      if (deadline !== undefined && fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() + millis >= deadline.at) {
        return Effect.fail(AiRejection.toAiError(Deadline.exceeded(deadline, "Backoff"), "streamText"))
      }
      this.parts.outage.expected(millis)
      return Effect.raceFirst(Effect.sleep(Duration.millis(millis)), this.parts.fatal)
    })
  }

  private call(prompt: Prompt): Effect.Effect<Answer, AiError.AiError> {
    const { model } = this.parts
    const request = { prompt: prompt.messages.map(toWire) }
    const answer = this.options.noStream
      ? Effect.map(model.generateText(request), ({ content }) => content.reduce(append, emptyAnswer))
      : Stream.runFold(model.streamText(request), () => emptyAnswer, append)
    return Targets.withRequest(answer, prompt)
  }
}

type Common = Pick<Result, "line" | "id" | "attempts" | "how" | "milliseconds">

/** The delay before the next round in milliseconds. `undefined` if open circuits did not end the call. */
const nextRoundIn = (error: AiError.AiError, millisToCall: number): number | undefined => {
  const rejection = Option.getOrUndefined(AiRejection.fromAiError(error))
  switch (rejection?._tag) {
    case "CircuitOpen":
      return Duration.toMillis(rejection.retryAfter)
    case "NoTarget":
      return rejection.retryAfter === undefined ? undefined : Duration.toMillis(rejection.retryAfter)
    default: {
      const remedy = AiOutcome.remedy(error)
      return millisToCall > 0 && (remedy === "Retry" || remedy === "Wait") ? millisToCall : undefined
    }
  }
}

const errorOf = <E>(exit: Exit.Exit<unknown, E>): E | undefined =>
  Option.getOrUndefined(Option.flatMap(Exit.getCause(exit), Cause.findErrorOption))

const hows: { readonly [Served in Deduplicator.Served]: How } = { Led: "led", Joined: "joined", Cached: "cached" }

const toWire = ({ content, role }: Prompt["messages"][number]) =>
  role === "system" ? { role, content } : { role, content: [{ type: "text" as const, text: content }] }

const emptyAnswer: Answer = { text: "", model: undefined, finish: "unknown", from: undefined }

/** Caps the model name of a response, which goes into results and log. */
const maxModelLength = 128

const append = (answer: Answer, part: Response.Part<{}> | Response.StreamPart<{}>): Answer => {
  switch (part.type) {
    case "text":
      return { ...answer, text: answer.text + part.text }
    case "text-delta":
      return { ...answer, text: answer.text + part.delta }
    case "response-metadata":
      return ResilientModel.restartOf(part) === undefined
        ? { ...answer, model: part.modelId?.slice(0, maxModelLength) ?? answer.model }
        : emptyAnswer
    case "finish":
      return { ...answer, finish: part.reason, from: ResilientModel.answeredBy(part) }
    default:
      return answer
  }
}
