/** The models of a run's targets, observed attempt by attempt. */
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import * as TextModel from "@sluice/ai/TextModel"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as HttpClient from "effect/http/HttpClient"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Failure from "./Failure.ts"
import type { Used } from "./Ledger.ts"
import type { Prompt } from "./Prompt.ts"
import type { PromptState } from "./PromptState.ts"
import { CurrentPrompt } from "./PromptState.ts"
import { RunStopped } from "./RunStopped.ts"
import type { Settings, Target } from "./Settings.ts"

/** An attempt that is under way. */
export interface Attempt {
  /** Sets what ends the attempt with an error. */
  onCut: ((error: AiError.AiError) => void) | undefined
  /** A part of the answer arrived. */
  readonly part: () => void
  readonly succeeded: (used: Used) => Effect.Effect<void>
  /** Returns the error for the policy. */
  readonly failed: (error: AiError.AiError) => AiError.AiError
  /** Called if a timeout or the end of the run ended the attempt. */
  readonly interrupted: () => void
}

export interface Observer {
  /** Waits until the target may be called, and begins the attempt. Fails without a request if the wait would be long. */
  readonly begin: (target: Target, state: PromptState) => Effect.Effect<Attempt, AiError.AiError>
}

type Options = Pick<
  Settings,
  "targets" | "allowInsecureKey" | "temperature" | "maxTokens" | "maxAttempts" | "headers" | "noStream" | "omit"
>

export interface TargetModel {
  readonly target: Target
  readonly model: TextModel.TextModel
}

/** Builds the models, in the order of their targets. Closes their connections with the scope. */
export const make = (
  options: Options,
  observer: Observer
): Effect.Effect<ReadonlyArray<TargetModel>, RunStopped, Scope.Scope> =>
  Effect.flatMap(
    Effect.mapError(HttpTransport.make(), (invalid) => unusable(invalid, options.targets[0])),
    (client) =>
      Effect.forEach(options.targets, (target) =>
        modelOf(target, options).pipe(
          Effect.mapError((invalid) => unusable(invalid, target)),
          Effect.map((model) => ({ target, model: observed(model, target, options.maxAttempts, observer) })),
          Effect.provideService(HttpClient.HttpClient, client)
        ))
  )

const unusable = (invalid: InvalidOptions, target: Target): RunStopped =>
  new RunStopped({ why: "Unusable", message: Failure.unusable(invalid, target) })

const modelOf = (
  { apiKey, model = "none", url, wire }: Target,
  { allowInsecureKey, headers, maxTokens, noStream, omit, temperature }: Options
): Effect.Effect<TextModel.TextModel, InvalidOptions, HttpClient.HttpClient> => {
  // A Retry-After of any length is accepted: the run compares it with --max-outage, and shows it.
  const options = {
    url,
    model,
    apiKey,
    allowInsecureKey,
    headers,
    fields: omit.length === 0 ? undefined : { omit },
    maxRetryAfter: longestRetryAfter,
    config: { temperature, maxTokens }
  }
  const format = wire === "openai" ? OpenAiCompatible : AnthropicMessages
  return noStream ? Effect.map(format.make(options), unstreamed) : format.makeText(options)
}

/** A model that requests an answer as a whole, and not as a stream. */
const unstreamed = (model: LanguageModel.LanguageModel): TextModel.TextModel =>
  TextModel.over(
    model,
    (prompt) =>
      Effect.map(model.generateText({ prompt }), ({ content, finishReason, reasoningText = "", text, usage }) => {
        const metadata = content.find((part) => part.type === "response-metadata")
        return {
          id: metadata?.id,
          model: metadata?.modelId,
          text,
          reasoning: reasoningText,
          finishReason,
          usage,
          from: undefined
        }
      })
  )

const longestRetryAfter = Failure.longestRetryAfter

/** Applies the request fields of a prompt's line, in the format of whichever target is called. */
export const withRequest = <A, E, R>(self: Effect.Effect<A, E, R>, prompt: Prompt): Effect.Effect<A, E, R> =>
  prompt.model === undefined && prompt.body === undefined ? self : self.pipe(
    OpenAiCompatible.withConfigOverride({ model: prompt.model, body: prompt.body }),
    AnthropicMessages.withConfigOverride(anthropicRequest(prompt))
  )

// ---------- Anthropic's format

/** Request fields that Anthropic supports, and their names there. The first of two with the same name counts. */
const anthropicFields = new Map([
  ["temperature", "temperature"],
  ["max_completion_tokens", "max_tokens"],
  ["max_tokens", "max_tokens"],
  ["top_p", "top_p"],
  ["top_k", "top_k"],
  ["stop", "stop_sequences"],
  ["thinking", "thinking"]
])

/** Request fields without influence on an answer. They are not sent to Anthropic. */
const withoutInfluence = new Set(["user", "store", "metadata", "prompt_cache_key", "safety_identifier"])

const anthropicRequest = ({ body = {}, model }: Prompt): AnthropicMessages.RequestConfig => {
  const own: { [field: string]: Schema.Json } = {}
  for (const [name, ownName] of anthropicFields) {
    const value = body[name]
    if (value === undefined || Object.hasOwn(own, ownName)) continue
    own[ownName] = name === "stop" && typeof value === "string" ? [value] : value
  }
  return { model, body: own }
}

const isUntranslatable = ([name, value]: readonly [name: string, value: Schema.Json]): boolean => {
  if (anthropicFields.has(name) || withoutInfluence.has(name)) return false
  // The API returns text without this field.
  const type: unknown = typeof value === "object" && value !== null ? Reflect.get(value, "type") : undefined
  return !(name === "response_format" && type === "text")
}

/** Refuses a field that the format lacks. The answer without it would not be the one requested. */
const untranslatable = ({ name, wire }: Target, { body = {} }: Prompt): AiError.AiError | undefined => {
  const field = wire === "openai" ? undefined : Object.entries(body).find(isUntranslatable)?.[0]
  return field === undefined ? undefined : AiError.make({
    module: "sluice",
    method: "run",
    reason: new AiError.InvalidUserInputError({
      description: `the target ${name} cannot honour ${field}: Anthropic's Messages API has no such field`
    })
  })
}

// ---------- observation

const observed = (
  model: TextModel.TextModel,
  target: Target,
  maxAttempts: number,
  observer: Observer
): TextModel.TextModel =>
  TextModel.over(
    model,
    (prompt) =>
      Effect.withFiber((fiber: AnyFiber): Effect.Effect<TextModel.Answer, AiError.AiError> => {
        const state = fiber.getRef(CurrentPrompt)
        if (state === undefined) return Effect.die("a call without CurrentPrompt")
        const refusal = untranslatable(target, state.prompt)
        if (refusal !== undefined) return Effect.fail(refusal)
        return Effect.flatMap(observer.begin(target, state), (attempt) => {
          // Counts the attempts over all calls of the prompt. Each call would count from 1.
          const number = { attempt: state.attempts, maxAttempts: Math.max(state.attempts, maxAttempts) }
          const context = fiber.context.pipe(
            Context.add(RetryPolicy.CurrentAttempt, number),
            Context.add(TextModel.OnContent, attempt.part)
          )
          const answer = Effect.mapError(cuttable(model.ask(prompt), context, attempt), attempt.failed)
          return Effect.onExitPrimitive(answer, (exit) => {
            // The prompt keeps its turn until its answer is written. A kill then loses at most as many answers as run at once.
            if (Exit.isSuccess(exit)) return attempt.succeeded(usedBy(exit.value))
            // No error: a timeout or the end of the run interrupted the attempt.
            if (Option.isNone(Cause.findErrorOption(exit.cause))) attempt.interrupted()
            return state.turn.afterAttempt
          })
        })
      })
  )

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** Runs an attempt so that `onCut` ends it, in a fiber of its own. A race would need one more. */
const cuttable = <A>(
  self: Effect.Effect<A, AiError.AiError>,
  context: Context.Context<never>,
  attempt: Attempt
): Effect.Effect<A, AiError.AiError> =>
  Effect.callback((resume) => {
    const fiber = Effect.runForkWith(context)(self)
    attempt.onCut = (error) => resume(Effect.andThen(Fiber.interrupt(fiber), Effect.fail(error)))
    fiber.addObserver(resume)
    return Fiber.interrupt(fiber)
  })

/** The usage that the provider reported. */
const usedBy = ({ usage }: TextModel.Answer): Used => {
  const inputTokens = usage.inputTokens.total
  const outputTokens = usage.outputTokens.total
  return inputTokens === undefined || outputTokens === undefined ? undefined : { inputTokens, outputTokens }
}
