/** Makes the calls of a run, safely: a resilient model over its targets, and what a file needs beyond that. */
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
import { Asking, CurrentAsking } from "./Asking.ts"
import type { CallRecord } from "./CallRecord.ts"
import type { Change } from "./Circuits.ts"
import * as Circuits from "./Circuits.ts"
import * as Failure from "./Failure.ts"
import type { Prompt } from "./Prompt.ts"
import type { Finish, How, Result, Usage } from "./Result.ts"
import { RunStopped } from "./RunStopped.ts"
import type { Settings, Target } from "./Settings.ts"
import * as Targets from "./Targets.ts"
import * as Words from "./Words.ts"

/** What an engine tells while it works. */
export interface Report {
  /** A try is sent. */
  readonly called: () => void
  /** A try failed, for a reason from `Failure.reasonOf`. */
  readonly attemptFailed: (reason: string) => void
  /** Tokens were paid for. */
  readonly paid: (usage: Usage) => void
  /** A circuit has changed. */
  readonly circuit: (change: Change) => void
  /** A target can answer nothing, for this reason, while others may; with none it can after all. */
  readonly unusable: (target: string, why: string | undefined) => void
}

/** What an engine is told of a run. */
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

/** What became of one prompt. */
export interface Asked {
  readonly result: Result
  readonly record: CallRecord
}

/** Answers prompts. */
export interface Engine {
  /** How many prompts may be asked at once: more than there are calls, since a prompt that waits for its next try makes none. */
  readonly places: number
  /** What becomes of one prompt. It fails only with what ends the run. After each of its tries `tried` is run. */
  readonly ask: (prompt: Prompt, tried?: Effect.Effect<void>) => Effect.Effect<Asked, RunStopped>
}

/** Builds an engine, whose connections are closed with the scope. */
export const make = Effect.fnUntraced(function*(
  options: Options,
  report: Report
): Effect.fn.Return<Engine, RunStopped, Scope.Scope> {
  const places = options.concurrency * placesPerCall
  const fatal = Deferred.makeUnsafe<never, RunStopped>()
  const usability = new Usability(options.targets, report, fatal)
  const outage = new Outage(options, fatal)
  const models = yield* Targets.make(options, {
    called: report.called,
    answered: (target) => usability.answered(target),
    failed: (target, error, prompt) => usability.failed(target, error, prompt)
  })
  const context = yield* Layer.build(resilient(options, places, models)).pipe(
    // What of its options a person can get wrong was refused with the flags.
    Effect.mapError((invalid) => new RunStopped({ why: "Unusable", message: invalid.message }))
  )
  const deduplicator = yield* Effect.orDie(Deduplicator.make({ name: "run", maxWaiters: Number.MAX_SAFE_INTEGER }))
  const states = Context.get(context, ResilientModel.ResilientModel).targets
  yield* watchCircuits(states, report, outage)
  return new Calls(options, report, {
    places,
    model: Context.get(context, LanguageModel.LanguageModel),
    states,
    deduplicator,
    outage,
    fatal: Deferred.await(fatal)
  })
})

const placesPerCall = 8

/** How often a prompt may use up its tries by itself, where the circuit is open and others may be to blame. */
const rounds = 2

/** A probe a second soon finds the end of an outage, and weighs nothing on a provider that is coming back. */
const openMillis = 1_000

const resilient = (options: Options, places: number, models: ReadonlyArray<Targets.Watched>) => {
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
        // In a row alone would not do: while answers that were on their way still arrive, a provider that is down can refuse
        // dozens in between. And refusals come back sooner than answers, so a few at the start of a run are no outage.
        trip: [
          CircuitBreaker.consecutive(Math.min(1_000, Math.max(5, concurrency))),
          CircuitBreaker.failureRate({ rate: 0.5, calls: 20, minimum: 20 })
        ],
        openFor: Duration.millis(openMillis),
        // Longer than any try, so that a slow probe's answer counts.
        probeLease: Duration.millis(timeoutMillis + 1_000)
      },
      // There is a place for every prompt that is asked at once: none is ever refused for capacity.
      backpressure: { capacity: concurrency, queue: places }
    })),
    retry: RetryPolicy.exponential({
      maxAttempts: options.maxAttempts,
      // A file is in no hurry: what the provider asks for is waited out, for as long as an outage would be.
      maxRetryAfter: Duration.millis(options.maxOutageMillis)
    }),
    attemptTimeout: Duration.millis(timeoutMillis),
    firstTokenTimeout: Duration.millis(options.firstTokenTimeoutMillis ?? timeoutMillis),
    idleTimeout: Duration.millis(options.idleTimeoutMillis),
    // An answer goes into the file when it is whole: what came of it before is of no consequence.
    afterOutput: "restart"
  })
}

/** Targets of one place with one key are one account: if it is refused at one of them, it is at all. */
const accountOf = (targets: Options["targets"], own: Target): string => {
  const isSame = ({ keySource, url }: Target) =>
    keySource === own.keySource && new URL(url).host === new URL(own.url).host
  return (targets.find(isSame) ?? own).name
}

/** Ten times a second, as the live line is drawn. */
const lookEvery = Duration.millis(100)

const watchCircuits = (
  states: Effect.Effect<ReadonlyArray<ResilientModel.TargetState>>,
  report: Report,
  outage: Outage
) => {
  const watch = new Circuits.Watch()
  const look = Effect.map(Effect.zip(states, Clock.currentTimeMillis), ([states, now]) => {
    for (const change of watch.changes(states, now)) report.circuit(change)
    if (Circuits.closedIn(states) > 0) outage.seen(now)
  })
  return Effect.forkScoped(Effect.forever(Effect.delay(look, lookEvery)))
}

// ---------- what ends a run

type Fatal = Deferred.Deferred<never, RunStopped>

const stop = (fatal: Fatal, why: RunStopped["why"], message: string): void => {
  Deferred.doneUnsafe(fatal, Effect.fail(new RunStopped({ why, message })))
}

/** Ends the run when nobody could be asked for too long. */
class Outage {
  private readonly options: Options
  private readonly fatal: Fatal
  /** Since when no call has been answered, in epoch milliseconds; `undefined` while they are. */
  private since: number | undefined

  constructor(options: Options, fatal: Fatal) {
    this.options = options
    this.fatal = fatal
  }

  /** Every circuit is open. */
  seen(now: number): void {
    const { maxOutageMillis, targets } = this.options
    this.since ??= now
    if (now - this.since < maxOutageMillis) return
    const who = targets.length === 1 ? "the provider was" : "all targets were"
    this.stop(`${who} down for ${Words.time(maxOutageMillis)}`)
  }

  /** Nobody may be asked for so long. */
  lasts(millis: number): void {
    if (millis > this.options.maxOutageMillis) this.stop(`nobody may be asked for ${Words.time(millis)}`)
  }

  /** A call was answered. */
  over(): void {
    this.since = undefined
  }

  private stop(why: string): void {
    stop(this.fatal, "Outage", `${why}; the rest is not asked. See --max-outage`)
  }
}

/** Notices when every target refuses what has to be right for every prompt. */
class Usability {
  private readonly targets: Options["targets"]
  private readonly report: Report
  private readonly fatal: Fatal
  /** Whether a target has answered: until then a refusal may be about every prompt. */
  private readonly hasAnswered = new Set<Target>()
  private readonly reasons = new Map<Target, string>()

  constructor(targets: Options["targets"], report: Report, fatal: Fatal) {
    this.targets = targets
    this.report = report
    this.fatal = fatal
  }

  answered(target: Target): void {
    this.hasAnswered.add(target)
    if (this.reasons.delete(target)) this.report.unusable(target.name, undefined)
  }

  failed(target: Target, error: AiError.AiError, prompt: Prompt): void {
    if (this.hasAnswered.has(target) || this.reasons.has(target)) return
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
    this.report.unusable(target.name, reason)
    if (this.reasons.size < this.targets.length || this.hasAnswered.size > 0) return
    const message = this.targets.length === 1
      ? reason
      : `no target can be used: ${[...this.reasons].map(([{ name }, reason]) => `${name}: ${reason}`).join("; ")}`
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

/** What equal requests share: an answer, for as long as it is kept. A failure is nobody else's. */
const sharing = (timeToLive: Duration.Duration) =>
  Deduplicator.operation<Answer, CallError>()("chat", {
    key: ({ body, maxTokens, messages, model, temperature }: Pick<
      Prompt,
      "body" | "maxTokens" | "messages" | "model" | "temperature"
    >) => ({ body, maxTokens, messages, model, temperature }),
    timeToLive: (exit) => Exit.isSuccess(exit) ? timeToLive : Duration.zero
  })

interface Parts {
  readonly places: number
  readonly model: LanguageModel.LanguageModel
  readonly states: Effect.Effect<ReadonlyArray<ResilientModel.TargetState>>
  readonly deduplicator: Deduplicator.Deduplicator["Service"]
  readonly outage: Outage
  /** Fails when the run cannot go on. */
  readonly fatal: Effect.Effect<never, RunStopped>
}

class Calls implements Engine {
  readonly places: number
  private readonly options: Options
  private readonly report: Report
  private readonly parts: Parts
  private readonly share: ReturnType<typeof sharing>

  constructor(options: Options, report: Report, parts: Parts) {
    this.options = options
    this.report = report
    this.places = parts.places
    this.parts = parts
    this.share = sharing(Duration.millis(options.dedupeTtlMillis))
  }

  readonly ask = (prompt: Prompt, tried: Effect.Effect<void> = Effect.void): Effect.Effect<Asked, RunStopped> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const asking = new Asking(prompt, tried, now)
      let served: Deduplicator.Served = "Led"
      const answer = this.answer(asking, now)
      const shared = this.options.noShare
        ? answer
        : answer.pipe(
          this.parts.deduplicator.dedupe(this.share(prompt), {
            onServed: (how) => {
              served = how
            }
          }),
          // A run has fewer callers than the deduplicator allows.
          Effect.catchTag("TooManyWaiters", Effect.die)
        )
      return Effect.flatMap(
        Effect.exit(shared),
        (exit) => Effect.flatMap(Clock.currentTimeMillis, (now) => this.asked(asking, hows[served], exit, now))
      )
    })

  private asked(
    asking: Asking,
    how: How,
    exit: Exit.Exit<Answer, CallError>,
    now: number
  ): Effect.Effect<Asked, RunStopped> {
    const error = errorOf(exit)
    if (error?._tag === "RunStopped") return Effect.fail(error)
    const { prompt, trace } = asking
    const { id, line } = prompt
    const common = { line, id, attempts: asking.made, how, milliseconds: now - trace.startedAt }
    const result = Exit.isSuccess(exit) ? this.answered(asking, common, exit.value) : this.failed(asking, common, exit)
    return Effect.succeed({ result, record: trace.record(result) })
  }

  private answered(asking: Asking, common: Common, { finish, from, model, text }: Answer): Result {
    const { estimated = true, inputTokens = 0, outputTokens = 0 } = from ?? {}
    asking.trace.call = from?.call
    return {
      ...common,
      status: "ok",
      text,
      target: from?.target,
      model: model ?? asking.prompt.model ?? from?.model,
      finish,
      usage: { inputTokens, outputTokens, estimated }
    }
  }

  private failed(asking: Asking, common: Common, exit: Exit.Failure<Answer, CallError>): Result {
    const { prompt, target } = asking
    return {
      ...common,
      status: "failed",
      target: target?.name,
      model: prompt.model ?? (target ?? this.options.targets[0]).model,
      error: Failure.describe(Cause.squash(exit.cause))
    }
  }

  private answer(asking: Asking, now: number): Effect.Effect<Answer, CallError> {
    const { deadlineMillis } = this.options
    // Also where there is none: a flight has one of its own, that of its callers, which is never.
    const deadline = deadlineMillis === undefined
      ? undefined
      : { at: now + deadlineMillis, budgetMillis: deadlineMillis }
    return this.round(asking).pipe(
      Effect.provideService(CurrentAsking, asking),
      Effect.provideService(Deadline.Deadline, deadline)
    )
  }

  /** A round is a call with its tries. Another follows where open circuits ended it. */
  private round(asking: Asking): Effect.Effect<Answer, CallError> {
    const call = ResilientModel.withLogs(Effect.raceFirst(this.call(asking.prompt), this.parts.fatal))
    return Effect.flatMap(call, ([exit, logs]): Effect.Effect<Answer, CallError> => {
      for (const log of logs) this.note(asking, log)
      if (Exit.isSuccess(exit)) {
        this.parts.outage.over()
        return exit
      }
      const error = errorOf(exit)
      return error?._tag === "AiError"
        ? Effect.flatMap(this.parts.states, (states) => this.afterRound(asking, error, Circuits.closedIn(states)))
        : exit
    })
  }

  private note(asking: Asking, log: CallLog): void {
    asking.trace.add(log)
    this.report.paid(log.usage)
    for (const step of log.steps) {
      if (step._tag === "Attempt" && step.fault !== undefined) this.report.attemptFailed(Failure.reasonOf(step.fault))
    }
  }

  private afterRound(asking: Asking, error: AiError.AiError, closedIn: number): Effect.Effect<Answer, CallError> {
    const again = againIn(error, closedIn)
    if (again === undefined) return Effect.fail(error)
    // But a prompt that fails time and again by itself must not hold the others: each of its tries is a probe lost.
    const { failedByItself, ownError } = asking
    if (ownError !== undefined && failedByItself >= rounds * this.options.maxAttempts) return Effect.fail(ownError)
    return Effect.andThen(this.waitFor(again), Effect.suspend(() => this.round(asking)))
  }

  /** An open circuit holds the file, not the line: it goes on when a provider is back, or the run ends. */
  private waitFor(millis: number): Effect.Effect<void, CallError> {
    return Effect.withFiber((fiber): Effect.Effect<void, CallError> => {
      const deadline = fiber.getRef(Deadline.Deadline)
      if (deadline !== undefined && fiber.getRef(Clock.Clock).currentTimeMillisUnsafe() + millis >= deadline.at) {
        return Effect.fail(AiRejection.toAiError(Deadline.exceeded(deadline, "Backoff"), "streamText"))
      }
      this.parts.outage.lasts(millis)
      return Effect.raceFirst(Effect.sleep(Duration.millis(millis)), this.parts.fatal)
    })
  }

  private call(prompt: Prompt): Effect.Effect<Answer, AiError.AiError> {
    const { model } = this.parts
    const asked = { prompt: prompt.messages.map(toWire) }
    const answer = this.options.noStream
      ? Effect.map(model.generateText(asked), ({ content }) => content.reduce(heard, nothing))
      : Stream.runFold(model.streamText(asked), () => nothing, heard)
    return Targets.withRequest(answer, prompt)
  }
}

type Common = Pick<Result, "line" | "id" | "attempts" | "how" | "milliseconds">

/** After how many milliseconds to ask again, where open circuits ended a call, or took its last tries with them. */
const againIn = (error: AiError.AiError, closedIn: number): number | undefined => {
  const rejection = Option.getOrUndefined(AiRejection.fromAiError(error))
  switch (rejection?._tag) {
    case "CircuitOpen":
      return Duration.toMillis(rejection.retryAfter)
    case "NoTarget":
      return rejection.retryAfter === undefined ? undefined : Duration.toMillis(rejection.retryAfter)
    default: {
      const remedy = AiOutcome.remedy(error)
      return closedIn > 0 && (remedy === "Retry" || remedy === "Wait") ? closedIn : undefined
    }
  }
}

const errorOf = <E>(exit: Exit.Exit<unknown, E>): E | undefined =>
  Option.getOrUndefined(Option.flatMap(Exit.getCause(exit), Cause.findErrorOption))

const hows: { readonly [Served in Deduplicator.Served]: How } = { Led: "led", Joined: "joined", Cached: "cached" }

const toWire = ({ content, role }: Prompt["messages"][number]) =>
  role === "system" ? { role, content } : { role, content: [{ type: "text" as const, text: content }] }

const nothing: Answer = { text: "", model: undefined, finish: "unknown", from: undefined }

/** The provider's word, which goes into results and log: a longer one is no name. */
const longestModel = 128

/** The answer with one more part of it, streamed or not. */
const heard = (answer: Answer, part: Response.Part<{}> | Response.StreamPart<{}>): Answer => {
  switch (part.type) {
    case "text":
      return { ...answer, text: answer.text + part.text }
    case "text-delta":
      return { ...answer, text: answer.text + part.delta }
    case "response-metadata":
      return ResilientModel.restartOf(part) === undefined
        ? { ...answer, model: part.modelId?.slice(0, longestModel) ?? answer.model }
        : nothing
    case "finish":
      return { ...answer, finish: part.reason, from: ResilientModel.answeredBy(part) }
    default:
      return answer
  }
}
