/** The calls of a run: a resilient model over its targets, with deduplication and waiting for outages. */
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as AiRejection from "@sluice/ai/AiRejection"
import type { CallLog } from "@sluice/ai/CallLog"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as TextModel from "@sluice/ai/TextModel"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as AiError from "effect/ai/AiError"
import * as AiPrompt from "effect/ai/Prompt"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { Attempts, isOwnRefusal, originalOf } from "./Attempts.ts"
import type { CallRecord } from "./CallRecord.ts"
import type { Change } from "./Circuits.ts"
import * as Circuits from "./Circuits.ts"
import { accountOf, Credentials } from "./Credentials.ts"
import * as Failure from "./Failure.ts"
import type { Part } from "./Messages.ts"
import { type Ledger, OutOfBudget } from "./Ledger.ts"
import { Fatal, Outage } from "./Outage.ts"
import type { Prompt } from "./Prompt.ts"
import { CurrentPrompt, noTurn, PromptState, type Turn } from "./PromptState.ts"
import type { Finish, How, Result, Usage } from "./Result.ts"
import { RunStopped } from "./RunStopped.ts"
import type { Settings, Target } from "./Settings.ts"
import * as Targets from "./Targets.ts"

export interface Events {
  readonly attemptStarted: () => void
  /** An attempt failed. The reason is from `Failure.reasonOf`. */
  readonly attemptFailed: (reason: string) => void
  readonly paid: (usage: Usage) => void
  readonly circuitChanged: (change: Change) => void
  /** A target cannot answer any prompt. `why` is `undefined` if it can after all. */
  readonly unusable: (target: string, why: string | undefined) => void
  /** The levels of a target's quota, ten times a second. */
  readonly quota?: ((target: string, levels: NonNullable<ResilientModel.TargetState["quota"]>) => void) | undefined
}

export type Options =
  & Pick<
    Settings,
    | "targets"
    | "allowInsecureKey"
    | "headers"
    | "omit"
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
  & {
    /** Masks the keys in the messages of errors. */
    readonly mask: (text: string) => string
    /** The money of the run. `undefined` if it counts none. */
    readonly ledger?: Ledger | undefined
  }

export interface Completed {
  readonly result: Result
  readonly record: CallRecord
}

export interface Engine {
  /** How many prompts to process at once. More than the permits, since a prompt that backs off holds none. */
  readonly maxPrompts: number
  readonly complete: (prompt: Prompt, turn?: Turn) => Effect.Effect<Completed>
  /** Fails when the run has to stop. The caller of `complete` then interrupts its prompts. */
  readonly stopped: Effect.Effect<never, RunStopped>
}

/** Builds an engine. Closes its connections with the scope. */
export const make = Effect.fnUntraced(function*(
  options: Options,
  events: Events
): Effect.fn.Return<Engine, RunStopped, Scope.Scope> {
  const maxPrompts = Math.max(minPrompts, options.concurrency * promptsPerPermit)
  const fatal = new Fatal()
  const credentials = new Credentials(
    options.targets,
    fatal,
    (target, why) => events.unusable(target, why === undefined ? undefined : options.mask(why))
  )
  const outage = new Outage(options, fatal)
  if (options.ledger !== undefined) {
    options.ledger.onUnmarked = ({ message }) => fatal.stop("Unusable", message)
  }
  // Shared with the model's own breakers, so that the answer to a slow probe closes the circuit.
  const store = yield* Layer.build(Layer.fresh(CircuitBreakerStore.layerMemory))
  const circuits = yield* Effect.forEach(
    options.targets,
    (target) =>
      CircuitBreaker.make({ ...breakerOptions(options), name: keyOf(target) }).pipe(
        Effect.map((breaker) => [target, { breaker, key: keyOf(target) }] as const),
        Effect.provideContext(store),
        // Its options are those of the model, which is built below.
        Effect.orDie
      )
  )
  const attempts = new Attempts(new Map(circuits), options, credentials, events.attemptStarted, options.ledger)
  const models = yield* Targets.make(options, attempts)
  const context = yield* Layer.build(Layer.provide(resilient(options, maxPrompts, models), Layer.succeedContext(store)))
    .pipe(
      // The flags were validated, so users should not see this.
      Effect.mapError((invalid) => new RunStopped({ why: "Unusable", message: invalid.message }))
    )
  const deduplicator = yield* Effect.orDie(
    Deduplicator.make({ name: "run", maxWaiters: Number.MAX_SAFE_INTEGER, maxBytes: maxCachedBytes })
  )
  const states = Context.get(context, ResilientModel.ResilientModel).targets
  yield* watchCircuits(states, events, outage, attempts)
  return new Calls(options, events, {
    maxPrompts,
    model: Context.get(context, TextModel.TextModel),
    states,
    deduplicator,
    outage,
    credentials,
    stopped: Effect.mapError(fatal.wait, ({ message, why }) => new RunStopped({ why, message: options.mask(message) }))
  })
})

const promptsPerPermit = 8

/** Limits the cached answers: 3,000 tokens for each of 5,000 answers, and a small share of the process's memory. */
const maxCachedBytes = 64 * 2 ** 20

/** What a cached answer takes beside its text. In a file of short answers that is most of it. */
const entryBytes = 400

/** In an outage another prompt makes each probe. This many prompts share the probes of the default `--max-outage`. */
const minPrompts = 64

/** One probe per second detects the end of an outage soon and adds no load to a recovering provider. */
const openMillis = 1_000

/** After this silence of a probe, another prompt may probe. */
const silentProbeMillis = 1_500

const layerName = "run"

const keyOf = ({ name }: Target): string => `${layerName}/${name}`

const breakerOptions = ({ concurrency }: Options) => ({
  // Consecutive failures alone would trip late: answers that were in flight arrive between dozens of failures. And failures
  // return sooner than answers, so a few at the start of a run must not trip.
  trip: [
    CircuitBreaker.consecutive(Math.min(1_000, Math.max(5, concurrency))),
    CircuitBreaker.failureRate({ rate: 0.5, calls: 20, minimum: 20 })
  ],
  openFor: Duration.millis(openMillis),
  // Each part of an answer renews it.
  probeLease: Duration.millis(silentProbeMillis)
})

const resilient = (options: Options, maxPrompts: number, models: ReadonlyArray<Targets.TargetModel>) => {
  const { concurrency, targets, timeoutMillis } = options
  return ResilientModel.layerTextStore({
    name: layerName,
    targets: models.map(({ model, target }) => ({
      name: target.name,
      provider: new URL(target.url).host,
      model: target.model ?? "none",
      credential: accountOf(targets, target),
      layer: Layer.succeed(TextModel.TextModel, model),
      breaker: breakerOptions(options),
      // The queue has a slot for every prompt, so that none is refused.
      backpressure: { capacity: concurrency, queue: maxPrompts },
      quota: quotaOf(target)
    })),
    retry: RetryPolicy.exponential({
      maxAttempts: options.maxAttempts,
      // A file is not urgent: it waits for a Retry-After as long as for an outage.
      maxRetryAfter: Duration.millis(options.maxOutageMillis)
    }),
    attemptTimeout: Duration.millis(timeoutMillis),
    firstTokenTimeout: Duration.millis(options.firstTokenTimeoutMillis ?? timeoutMillis),
    idleTimeout: Duration.millis(options.idleTimeoutMillis)
  })
}

/** The order of lines has no meaning, so small prompts may use what a large one waits for, up to its size. */
const quotaOf = ({ limits = [] }: Target) => limits.length === 0 ? undefined : { limits, overtake: 1 }

/** As often as the live line is drawn. */
const pollInterval = Duration.millis(100)

const watchCircuits = (
  states: Effect.Effect<ReadonlyArray<ResilientModel.TargetState>>,
  events: Events,
  outage: Outage,
  attempts: Attempts
) => {
  const watch = new Circuits.Watch()
  const poll = Effect.map(Effect.zip(states, Clock.currentTimeMillis), ([states, now]) => {
    for (const change of watch.changes(states, now)) events.circuitChanged(change)
    for (const { name, quota } of states) if (quota !== undefined) events.quota?.(name, quota)
    if (Circuits.millisToCall(states) > 0) outage.observed(now, "down")
    attempts.endSilent(states, now)
  })
  return Effect.forkScoped(Effect.forever(Effect.delay(poll, pollInterval)))
}

// ---------- calls

interface Answer {
  readonly text: string
  readonly model: string | undefined
  readonly finish: Finish
  readonly from: TextModel.Source | undefined
}

type CallError = AiError.AiError | OutOfBudget

/** Equal requests share a flight and then its answer, until it expires. Failures are not cached. */
const sharing = (timeToLive: Duration.Duration) =>
  Deduplicator.operation<Answer, CallError>()("chat", {
    key: ({ body, messages, model, sample }: Pick<Prompt, "body" | "messages" | "model" | "sample">) => ({
      body,
      messages,
      model,
      sample
    }),
    size: ({ text }) => entryBytes + 2 * text.length,
    timeToLive: (exit) => Exit.isSuccess(exit) ? timeToLive : Duration.zero
  })

interface Parts {
  readonly maxPrompts: number
  readonly model: TextModel.TextModel
  readonly states: Effect.Effect<ReadonlyArray<ResilientModel.TargetState>>
  readonly deduplicator: Deduplicator.Deduplicator["Service"]
  readonly outage: Outage
  readonly credentials: Credentials
  readonly stopped: Effect.Effect<never, RunStopped>
}

class Calls implements Engine {
  readonly maxPrompts: number
  readonly stopped: Effect.Effect<never, RunStopped>
  private readonly options: Options
  private readonly events: Events
  private readonly parts: Parts
  private readonly share: ReturnType<typeof sharing>

  constructor(options: Options, events: Events, parts: Parts) {
    this.options = options
    this.events = events
    this.maxPrompts = parts.maxPrompts
    this.stopped = parts.stopped
    this.parts = parts
    this.share = sharing(Duration.millis(options.dedupeTtlMillis))
  }

  readonly complete = (
    prompt: Prompt,
    turn: Turn = noTurn
  ): Effect.Effect<Completed> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const state = new PromptState(prompt, turn, now, this.options.ledger?.open(prompt))
      let served: Deduplicator.Served = "Led"
      const answer = Effect.suspend(() => {
        turn.waits()
        return this.answer(state, now)
      })
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
        (exit) => Effect.map(Clock.currentTimeMillis, (now) => this.completed(state, hows[served], exit, now))
      )
    })

  private completed(
    state: PromptState,
    how: How,
    exit: Exit.Exit<Answer, CallError>,
    now: number
  ): Completed {
    const { attempts, prompt, trace } = state
    const { id, line, sample } = prompt
    const common = { line, sample, id, attempts, how, milliseconds: now - trace.startedAt }
    const result = Exit.isSuccess(exit) ? this.answered(state, common, exit.value) : this.failed(state, common, exit)
    return { result, record: trace.record(result) }
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
    const error = Cause.squash(exit.cause)
    const described = error instanceof OutOfBudget
      // Both are sent again by --resume.
      ? { tag: common.attempts === 0 ? "NotSent" : "Unfinished", message: error.message, retryAfter: undefined }
      : Failure.describe(AiError.isAiError(error) ? originalOf(error) : error, {
        isFirstTokenByTimeout: this.options.firstTokenTimeoutMillis === undefined
      })
    return {
      ...common,
      status: "failed",
      target: target?.name,
      model: prompt.model ?? (target ?? this.options.targets[0]).model,
      error: { ...described, message: this.options.mask(described.message) }
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

  /** One call with its attempts. Another round follows if the prompt has to wait for the provider or its credential. */
  private round(state: PromptState): Effect.Effect<Answer, CallError> {
    const { ledger } = this.options
    const { purse } = state
    return ledger === undefined || purse === undefined
      ? this.paidRound(state)
      : Effect.andThen(ledger.take(purse), this.paidRound(state))
  }

  private paidRound(state: PromptState): Effect.Effect<Answer, CallError> {
    const call = ResilientModel.withLogs(this.call(state.prompt))
    return Effect.flatMap(call, ([exit, logs]): Effect.Effect<Answer, CallError> => {
      // A call that found no target made no attempt. While it waits, others may use its money.
      if (state.purse !== undefined) this.options.ledger?.release(state.purse)
      for (const log of logs) this.record(state, log)
      if (Exit.isSuccess(exit)) {
        this.parts.outage.ended()
        return exit
      }
      const error = errorOf(exit)
      return error?._tag === "AiError"
        ? Effect.flatMap(
          Effect.zip(this.parts.states, Clock.currentTimeMillis),
          ([states, now]) => this.afterRound(state, error, { states, now, passed: passedOver(logs.at(-1)) })
        )
        : exit
    })
  }

  private record(state: PromptState, log: CallLog): void {
    state.trace.add(log)
    this.events.paid(log.usage)
    for (const step of log.steps) {
      if (step._tag === "Attempt" && step.fault !== undefined && !isOwnRefusal(step.fault)) {
        this.events.attemptFailed(Failure.reasonOf(step.fault))
      }
    }
  }

  private afterRound(
    state: PromptState,
    error: AiError.AiError,
    end: RoundEnd
  ): Effect.Effect<Answer, CallError> {
    if (isTimeout(error)) state.ownError = error
    const { ownError } = state
    // A prompt that keeps failing by itself would waste every probe and block the others.
    if (ownError !== undefined && state.hasFailed(this.options.maxAttempts)) return Effect.fail(ownError)
    if (state.isShort) {
      state.isShort = false
      return Effect.suspend(() => this.round(state))
    }
    const delay = this.nextRoundIn(state, error, end)
    if (delay === undefined) return Effect.fail(error)
    return Effect.andThen(this.waitFor(delay), Effect.suspend(() => this.round(state)))
  }

  /** The delay before the next round in milliseconds. `undefined` if the error is final for this prompt. */
  private nextRoundIn(state: PromptState, error: AiError.AiError, end: RoundEnd): number | undefined {
    const { credentials, outage } = this.parts
    const { now, passed, states } = end
    const rejection = Option.getOrUndefined(AiRejection.fromAiError(error))
    if (rejection?._tag === "CircuitOpen") return Duration.toMillis(rejection.retryAfter)
    if (rejection?._tag === "NoTarget") {
      return soonest(
        rejection.targets.filter(({ target, why }) => why !== "Credential" || credentials.mayRecover(target))
      )
    }
    const remedy = AiOutcome.remedy(error)
    if (remedy !== "Retry" && remedy !== "Wait" && remedy !== "Credential") return undefined
    const hintMillis = millisOf(RetryAfter.fromAiError(error, { max: Failure.longestRetryAfter }))
    // The call ended although it had attempts left: no other target could be called. By now one may be available again.
    const wait = soonest(passed.filter(({ why }) => why === "CircuitOpen" || why === "RateLimited"))
    switch (remedy) {
      case "Wait":
        // A rate limit ends for ordinary prompts. A prompt that is refused for this long is too large for the limit.
        if (now - (state.throttledSince ?? now) >= this.options.maxOutageMillis) return undefined
        outage.observed(now, "rate-limiting")
        return hintMillis ?? wait ?? openMillis
      case "Credential":
        if (wait !== undefined) return wait
        return state.target === undefined || credentials.isOfPrompt(state.target, state)
          ? undefined
          : credentials.restsFor(state.target, state, now)
      case "Retry": {
        const openFor = Circuits.millisToCall(states)
        if (openFor > 0) return openFor
        // The target's Retry-After is longer than the policy waits.
        if (hintMillis !== undefined && hintMillis > this.options.maxOutageMillis) return hintMillis
        return wait
      }
    }
  }

  /** Waits until a target accepts calls again. Fails if the deadline is sooner or the run has to stop. */
  private waitFor(millis: number): Effect.Effect<void, AiError.AiError> {
    return Effect.withFiber((fiber): Effect.Effect<void, AiError.AiError> => {
      const deadline = fiber.getRef(Deadline.Deadline)
      if (deadline !== undefined && fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() + millis >= deadline.at) {
        return Effect.fail(AiRejection.toAiError(Deadline.exceeded(deadline, "Backoff"), "streamText"))
      }
      this.parts.outage.expected(millis)
      return Effect.sleep(Duration.millis(millis))
    })
  }

  private call(prompt: Prompt): Effect.Effect<Answer, AiError.AiError> {
    return Targets.withRequest(Effect.map(this.parts.model.ask(toWire(prompt)), answerOf), prompt)
  }
}

type Common = Pick<Result, "line" | "sample" | "id" | "attempts" | "how" | "milliseconds">

/** How a round ended. */
interface RoundEnd {
  readonly states: ReadonlyArray<ResilientModel.TargetState>
  /** Epoch milliseconds. */
  readonly now: number
  /** The targets that were skipped at its end. */
  readonly passed: ReadonlyArray<AiRejection.Unavailable>
}

/** The targets that a call skipped after its last attempt. */
const passedOver = (log: CallLog | undefined): ReadonlyArray<AiRejection.Unavailable> => {
  const steps = log?.steps ?? []
  const last = steps.findLastIndex(({ _tag }) => _tag === "Attempt")
  return steps.slice(last + 1).filter((step) => step._tag === "Skipped")
}

const soonest = (passed: ReadonlyArray<AiRejection.Unavailable>): number | undefined => {
  const waits = passed.flatMap(({ retryAfter }) => retryAfter === undefined ? [] : [Duration.toMillis(retryAfter)])
  return waits.length === 0 ? undefined : Math.max(1, Math.min(...waits))
}

const millisOf = (duration: Duration.Duration | undefined): number | undefined =>
  duration === undefined ? undefined : Duration.toMillis(duration)

const timeouts: ReadonlySet<string> = new Set(["AttemptTimeout", "FirstTokenTimeout", "IdleTimeout"])

const isTimeout = (error: AiError.AiError): boolean =>
  Option.exists(AiRejection.fromAiError(error), ({ _tag }) => timeouts.has(_tag))

const errorOf = <E>(exit: Exit.Exit<unknown, E>): E | undefined =>
  Option.getOrUndefined(Option.flatMap(Exit.getCause(exit), Cause.findErrorOption))

const hows: { readonly [Served in Deduplicator.Served]: How } = { Led: "led", Joined: "joined", Cached: "cached" }

const toWire = ({ messages }: Prompt): AiPrompt.Prompt => AiPrompt.fromMessages(messages.map(messageOf))

const messageOf = ({ content, role }: Prompt["messages"][number]): AiPrompt.Message => {
  switch (role) {
    case "system":
      return AiPrompt.makeMessage(role, { content })
    case "assistant":
      return AiPrompt.makeMessage(role, { content: partsOf(content) })
    case "user":
      return AiPrompt.makeMessage(role, { content: partsOf(content) })
  }
}

const partsOf = (content: string | ReadonlyArray<Part>) =>
  typeof content === "string" ? [AiPrompt.makePart("text", { text: content })] : content.map(partOf)

const partOf = (part: Part) =>
  part.type === "text"
    ? AiPrompt.makePart("text", { text: part.text })
    : AiPrompt.makePart("file", {
      mediaType: part.mediaType,
      data: part.data,
      fileName: part.fileName,
      options: part.options
    })

/** Caps the model name of a response, which goes into results and log. */
const maxModelLength = 128

const answerOf = ({ finishReason, from, model, text }: TextModel.Answer): Answer => ({
  text,
  model: model?.slice(0, maxModelLength),
  finish: finishReason,
  from
})
