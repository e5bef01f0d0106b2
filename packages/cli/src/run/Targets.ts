/** The models of a run's targets, observed attempt by attempt. */
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import type * as Response from "effect/ai/Response"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HttpClient from "effect/http/HttpClient"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Failure from "./Failure.ts"
import type { Used } from "./Ledger.ts"
import type { Prompt } from "./Prompt.ts"
import type { PromptState } from "./PromptState.ts"
import { CurrentPrompt } from "./PromptState.ts"
import { RunStopped } from "./RunStopped.ts"
import type { Settings, Target } from "./Settings.ts"

/** An attempt that is under way. */
export interface Attempt {
  /** Fails to end the attempt. */
  readonly cut: Effect.Effect<never, AiError.AiError>
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
  "targets" | "allowInsecureKey" | "temperature" | "maxTokens" | "maxAttempts" | "headers" | "omit"
>

export interface TargetModel {
  readonly target: Target
  readonly model: LanguageModel.LanguageModel
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
  { allowInsecureKey, headers, maxTokens, omit, temperature }: Options
): Effect.Effect<LanguageModel.LanguageModel, InvalidOptions, HttpClient.HttpClient> => {
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
  return wire === "openai" ? OpenAiCompatible.make(options) : AnthropicMessages.make(options)
}

const longestRetryAfter = Failure.longestRetryAfter

/** Applies the request fields of a prompt's line, in the format of whichever target is called. */
export const withRequest = <A, E, R>(self: Effect.Effect<A, E, R>, prompt: Prompt): Effect.Effect<A, E, R> =>
  self.pipe(
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
  model: LanguageModel.LanguageModel,
  target: Target,
  maxAttempts: number,
  observer: Observer
): LanguageModel.LanguageModel => {
  const begin = Effect.withFiber((fiber): Effect.Effect<Begun, AiError.AiError> => {
    const state = Context.get(fiber.context, CurrentPrompt)
    if (state === undefined) return Effect.die("a call without CurrentPrompt")
    const refusal = untranslatable(target, state.prompt)
    return refusal === undefined
      ? Effect.map(observer.begin(target, state), (attempt) => ({ attempt, state, used: undefined }))
      : Effect.fail(refusal)
  })
  // Counts the attempts over all calls of the prompt. Each call, and each restart, would count from 1.
  const numbered = ({ attempts }: PromptState) => ({ attempt: attempts, maxAttempts: Math.max(attempts, maxAttempts) })
  const ended = (begun: Begun) => (exit: Exit.Exit<unknown, AiError.AiError>): Effect.Effect<void> => {
    const { attempt, state } = begun
    // The prompt keeps its turn until its answer is written. A kill then loses at most as many answers as run at once.
    if (Exit.isSuccess(exit)) return attempt.succeeded(begun.used)
    // No error: a timeout or the end of the run interrupted the attempt.
    if (Option.isNone(Cause.findErrorOption(exit.cause))) attempt.interrupted()
    return state.afterAttempt
  }
  const generateText = (options: { readonly prompt: never }) =>
    Effect.flatMap(begin, (begun) => {
      const { attempt, state } = begun
      const answer = Effect.map(model.generateText(options), (response) => {
        for (const part of response.content) note(begun, part)
        return response
      })
      return Effect.raceFirst(answer, attempt.cut).pipe(
        Effect.mapError(attempt.failed),
        Effect.provideService(RetryPolicy.CurrentAttempt, numbered(state)),
        Effect.onExit(ended(begun))
      )
    })
  const streamText = (options: { readonly prompt: never }) =>
    Stream.unwrap(Effect.map(begin, (begun) => {
      const { attempt, state } = begun
      const parts = Stream.map(model.streamText(options), (part) => {
        attempt.part()
        note(begun, part)
        return part
      })
      return Stream.interruptWhen(parts, attempt.cut).pipe(
        Stream.mapError(attempt.failed),
        Stream.provideService(RetryPolicy.CurrentAttempt, numbered(state)),
        Stream.onExit(ended(begun))
      )
    }))
  // Options and parts pass through unchanged, so the model's own types hold.
  return { ...model, ...{ generateText, streamText } as unknown as Partial<LanguageModel.LanguageModel> }
}

interface Begun {
  readonly attempt: Attempt
  readonly state: PromptState
  used: Used
}

/** Keeps the usage that the provider reports at the end of an answer. */
const note = (begun: Begun, part: Response.Part<{}> | Response.StreamPart<{}>): void => {
  if (part.type !== "finish") return
  const inputTokens = part.usage.inputTokens.total
  const outputTokens = part.usage.outputTokens.total
  if (inputTokens !== undefined && outputTokens !== undefined) begun.used = { inputTokens, outputTokens }
}
