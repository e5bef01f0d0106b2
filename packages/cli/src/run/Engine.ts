/** Makes the calls of a run, safely. */
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deduplicator from "@sluice/core/Deduplicator"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { ignored } from "@sluice/core/Outcome"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import type * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import type * as Response from "effect/ai/Response"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HttpClient from "effect/http/HttpClient"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Failure from "./Failure.ts"
import type { Circuit } from "./Progress.ts"
import type { Prompt } from "./Prompt.ts"
import type { How, Result, Usage } from "./Result.ts"
import type { Settings } from "./Settings.ts"
import * as Words from "./Words.ts"

/** The run as a whole cannot go on. */
export class RunStopped extends Schema.Error<RunStopped>("sluice/RunStopped")({
  _tag: Schema.tag("RunStopped"),
  /** `Unusable`: no prompt could ever be answered. `Outage`: the provider was down for longer than is waited for. */
  why: Schema.Literals(["Unusable", "Outage"]),
  message: Schema.String
}) {}

/** What an engine tells while it works. */
export interface Report {
  /** A try is sent. */
  readonly called: () => void
  /** A try failed, for a reason from `Failure.reasonOf`. */
  readonly attemptFailed: (reason: string) => void
  /** The circuit has changed. */
  readonly circuit: (circuit: Circuit) => void
}

/** What an engine is told of a run. */
export type Options = Pick<
  Settings,
  | "url"
  | "model"
  | "apiKey"
  | "keySource"
  | "allowInsecureKey"
  | "temperature"
  | "maxTokens"
  | "concurrency"
  | "maxAttempts"
  | "timeoutMillis"
  | "dedupeTtlMillis"
  | "noShare"
  | "maxOutageMillis"
>

/** Answers prompts. */
export interface Engine {
  /** How many prompts may be asked at once: more than there are calls, since a prompt that waits for its next try makes none. */
  readonly places: number
  /** What becomes of one prompt. It fails only with what ends the run. After each of its tries `tried` is run. */
  readonly ask: (prompt: Prompt, tried?: Effect.Effect<void>) => Effect.Effect<Result, RunStopped>
}

/** Builds an engine, whose connections are closed with the scope. */
export const make = Effect.fnUntraced(function*(
  options: Options,
  report: Report
): Effect.fn.Return<Engine, InvalidOptions | RunStopped, Scope.Scope> {
  const model = yield* OpenAiCompatible.make({
    url: options.url,
    model: options.model ?? "none",
    apiKey: options.apiKey,
    allowInsecureKey: options.allowInsecureKey,
    config: { temperature: options.temperature, maxTokens: options.maxTokens }
  }).pipe(
    Effect.mapError((invalid) => new RunStopped({ why: "Unusable", message: Failure.unusable(invalid, options) })),
    Effect.provideServiceEffect(HttpClient.HttpClient, HttpTransport.make())
  )
  const places = options.concurrency * placesPerCall
  const sluice = yield* Sluice.make(policy(options, places)).pipe(Effect.provide(Sluice.layerStoresMemory))
  yield* Effect.forkScoped(
    Stream.runForEach(sluice.breaker.transitions, (transition) =>
      Effect.sync(() =>
        report.circuit(
          transition.to === "Closed"
            ? { state: "closed" }
            : { state: "open", probeAt: transition.at + openMillis }
        )
      )),
    { startImmediately: true }
  )
  return new Calls(options, report, places, model, sluice)
})

const placesPerCall = 8

/** How often a prompt may use up its tries by itself, where the circuit is open and others may be to blame. */
const rounds = 2

/** There is one provider, and so one circuit. */
const circuit = "provider"

/** A probe a second soon finds the end of an outage, and weighs nothing on a provider that is coming back. */
const openMillis = 1_000

const policy = (options: Options, places: number): Sluice.SluiceOptions => ({
  name: circuit,
  retry: RetryPolicy.exponential({
    maxAttempts: options.maxAttempts,
    // A file is in no hurry: what the provider asks for is waited out, for as long as an outage would be.
    maxRetryAfter: Duration.millis(options.maxOutageMillis)
  }),
  breaker: {
    // In a row alone would not do: while answers that were on their way still arrive, a provider that is down can refuse
    // dozens in between. And refusals come back sooner than answers, so a few at the start of a run are no outage.
    trip: [
      CircuitBreaker.consecutive(Math.min(1_000, Math.max(5, options.concurrency))),
      CircuitBreaker.failureRate({ rate: 0.5, calls: 20, minimum: 20 })
    ],
    openFor: Duration.millis(openMillis),
    // Longer than any try, so that a slow probe's answer counts.
    probeLease: Duration.millis(options.timeoutMillis + 1_000)
  },
  // There is a place for every prompt that is asked at once: none is ever refused for capacity.
  backpressure: { capacity: options.concurrency, queue: places - options.concurrency },
  attemptTimeout: Duration.millis(options.timeoutMillis),
  classify: AiOutcome.classify
})

interface Answer {
  readonly text: string
  readonly model: string | undefined
  readonly usage: Usage | undefined
}

type CallError = AiError.AiError | Sluice.Rejected | Sluice.AttemptTimeout

/** What equal requests share: an answer, for as long as it is kept. A failure is nobody else's. */
const sharing = (timeToLive: Duration.Duration) =>
  Deduplicator.operation<Answer, AiError.AiError>()("chat", {
    key: ({ body, maxTokens, messages, model, temperature }: Pick<
      Prompt,
      "body" | "maxTokens" | "messages" | "model" | "temperature"
    >) => ({ body, maxTokens, messages, model, temperature }),
    timeToLive: (exit) => Exit.isSuccess(exit) ? timeToLive : Duration.zero
  })

class Calls implements Engine {
  readonly places: number
  private readonly options: Options
  private readonly report: Report
  private readonly model: LanguageModel.LanguageModel
  private readonly sluice: Sluice.Sluice
  private readonly share: ReturnType<typeof sharing>
  /** Whether the provider has answered: until then a refusal may be about every prompt. */
  private hasAnswered = false
  /** Since when no try has come through; `undefined` while they do. Epoch milliseconds. */
  private downSince: number | undefined
  private fatal: RunStopped | undefined

  constructor(
    options: Options,
    report: Report,
    places: number,
    model: LanguageModel.LanguageModel,
    sluice: Sluice.Sluice
  ) {
    this.options = options
    this.report = report
    this.places = places
    this.model = model
    this.sluice = sluice
    this.share = sharing(Duration.millis(options.dedupeTtlMillis))
  }

  readonly ask = (prompt: Prompt, tried: Effect.Effect<void> = Effect.void): Effect.Effect<Result, RunStopped> =>
    Effect.flatMap(
      Clock.currentTimeMillis,
      (startedAt) =>
        this.fatal === undefined ? this.askInRounds(prompt, tried, startedAt, new Tries()) : Effect.fail(this.fatal)
    )

  /** A round is a call with its tries. Another follows where an open circuit ended it. */
  private askInRounds(
    prompt: Prompt,
    afterTry: Effect.Effect<void>,
    startedAt: number,
    tries: Tries
  ): Effect.Effect<Result, RunStopped> {
    const call = Effect.ensuring(this.attempt(prompt, tries, tries.made), afterTry).pipe(
      this.sluice.protect({
        dedupe: this.options.noShare ? undefined : this.share(prompt),
        // Nothing is tried again once it is known that nothing can be answered.
        classify: () => this.fatal === undefined ? undefined : ignored
      }),
      Sluice.withReport
    )
    return Effect.flatMap(Effect.zip(call, this.closedIn), ([[exit, { attempts, served, stopped }], closedIn]) => {
      if (this.fatal !== undefined) return Effect.fail(this.fatal)
      tries.made += attempts
      // The provider went down, and took the prompt's last tries with it.
      const lostToOutage = stopped === "Attempts" && closedIn > 0
      const again = openCircuit(exit)?.retryAfter ?? (lostToOutage ? Duration.millis(closedIn) : undefined)
      // But a prompt that fails time and again by itself must not hold the others: each of its tries is a probe lost.
      const ownError = tries.failedByItself >= rounds * this.options.maxAttempts ? tries.ownError : undefined
      if (again !== undefined && ownError === undefined) {
        return Effect.andThen(
          this.waitFor(again),
          Effect.suspend(() => this.askInRounds(prompt, afterTry, startedAt, tries))
        )
      }
      return Effect.map(Clock.currentTimeMillis, (now) => {
        const { id, line, model = this.options.model } = prompt
        const common = { line, id, model, attempts: tries.made, how: hows[served], milliseconds: now - startedAt }
        return resultOf(common, again === undefined || ownError === undefined ? exit : Exit.fail(ownError))
      })
    })
  }

  /** The milliseconds until the circuit may be closed again; 0 if it is. */
  private readonly closedIn: Effect.Effect<number> = Effect.suspend(() =>
    this.sluice.breaker.check(circuit).pipe(
      Effect.as(0),
      Effect.catch((open) => Effect.succeed(Duration.toMillis(open.retryAfter)))
    )
  )

  /** An open circuit holds the file, not the line: it goes on when the provider is back, or the run ends. */
  private waitFor(retryAfter: Duration.Duration): Effect.Effect<void, RunStopped> {
    return Effect.flatMap(Clock.currentTimeMillis, (now) => {
      this.downSince ??= now
      const left = this.downSince + this.options.maxOutageMillis - now
      if (left > 0) return Effect.sleep(Duration.millis(Math.min(left, Duration.toMillis(retryAfter))))
      const message = `the provider was down for ${Words.time(this.options.maxOutageMillis)}; the rest is not asked. ` +
        "See --max-outage"
      return Effect.fail(new RunStopped({ why: "Outage", message }))
    })
  }

  private attempt(prompt: Prompt, tries: Tries, attemptsBefore: number): Effect.Effect<Answer, AiError.AiError> {
    const answer = this.model.streamText({ prompt: prompt.messages.map(toWire) }).pipe(
      Stream.runFold(() => nothing, heard),
      OpenAiCompatible.withConfigOverride(prompt),
      // Tells the wire the number of every try of this prompt: one that is in no retry yet has none, and every round
      // begins anew.
      Effect.updateService(RetryPolicy.CurrentAttempt, (current) => ({
        attempt: attemptsBefore + (current?.attempt ?? 1),
        maxAttempts: attemptsBefore + this.options.maxAttempts
      }))
    )
    return Effect.suspend((): Effect.Effect<Answer, AiError.AiError> => {
      this.report.called()
      return Effect.onExit(answer, (exit) => Effect.sync(() => this.attempted(prompt, tries, exit)))
    })
  }

  private attempted(prompt: Prompt, tries: Tries, exit: Exit.Exit<Answer, AiError.AiError>): void {
    if (Exit.isSuccess(exit)) {
      this.hasAnswered = true
      this.downSince = undefined
      return
    }
    const error = errorOf(exit)
    // Its timeout interrupts a try, and so does the end of the run, when nobody counts any more.
    this.report.attemptFailed(error === undefined ? "timeout" : Failure.reasonOf(error))
    if (error !== undefined && !Failure.isOutage(error)) tries.fail(error)
    if (this.hasAnswered || this.fatal !== undefined) return
    const message = Failure.fatal(error, asked(this.options, prompt))
    if (message !== undefined) this.fatal = new RunStopped({ why: "Unusable", message })
  }
}

/** The tries of one prompt over all rounds. */
class Tries {
  made = 0
  /** Those whose failure may be the prompt's own doing. */
  failedByItself = 0
  ownError: AiError.AiError | undefined

  fail(error: AiError.AiError): void {
    this.failedByItself++
    this.ownError = error
  }
}

const asked = (options: Options, prompt: Prompt): Failure.Asked => ({
  url: options.url,
  model: options.model,
  keySource: options.keySource,
  hasKey: options.apiKey !== undefined,
  isOwnModel: prompt.model !== undefined
})

const resultOf = (
  common: Omit<Result & { readonly status: "ok" }, "status" | "text" | "usage">,
  exit: Exit.Exit<Answer, CallError>
): Result => {
  if (Exit.isFailure(exit)) return { ...common, status: "failed", error: Failure.describe(Cause.squash(exit.cause)) }
  const { model = common.model, text, usage } = exit.value
  return { ...common, status: "ok", text, model, usage }
}

const errorOf = <E>(exit: Exit.Exit<unknown, E>): E | undefined =>
  Option.getOrUndefined(Option.flatMap(Exit.getCause(exit), Cause.findErrorOption))

const openCircuit = (exit: Exit.Exit<unknown, CallError>): CircuitBreaker.CircuitOpen | undefined => {
  const error = errorOf(exit)
  return error?._tag === "Rejected" && error.reason._tag === "CircuitOpen" ? error.reason : undefined
}

const hows: { readonly [Served in Deduplicator.Served]: How } = { Led: "led", Joined: "joined", Cached: "cached" }

const toWire = ({ content, role }: Prompt["messages"][number]) =>
  role === "system" ? { role, content } : { role, content: [{ type: "text" as const, text: content }] }

const nothing: Answer = { text: "", model: undefined, usage: undefined }

const heard = (answer: Answer, part: Response.StreamPart<{}>): Answer => {
  switch (part.type) {
    case "text-delta":
      return { ...answer, text: answer.text + part.delta }
    case "response-metadata":
      return { ...answer, model: part.modelId ?? answer.model }
    case "finish":
      return { ...answer, usage: usageOf(part.usage) }
    default:
      return answer
  }
}

const usageOf = ({ inputTokens, outputTokens }: Response.Usage): Usage | undefined =>
  inputTokens.total === undefined && outputTokens.total === undefined
    ? undefined
    : { inputTokens: inputTokens.total ?? 0, outputTokens: outputTokens.total ?? 0 }
