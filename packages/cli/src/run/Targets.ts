/** The models of a run's targets, observed attempt by attempt. */
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HttpClient from "effect/http/HttpClient"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Failure from "./Failure.ts"
import type { Prompt } from "./Prompt.ts"
import type { PromptState } from "./PromptState.ts"
import { CurrentPrompt } from "./PromptState.ts"
import { RunStopped } from "./RunStopped.ts"
import type { Settings, Target } from "./Settings.ts"

export interface Observer {
  readonly started: () => void
  readonly succeeded: (target: Target) => void
  readonly failed: (target: Target, error: AiError.AiError, prompt: Prompt) => void
}

type Options = Pick<Settings, "targets" | "allowInsecureKey" | "temperature" | "maxTokens" | "maxAttempts">

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
  { allowInsecureKey, maxTokens, temperature }: Options
): Effect.Effect<LanguageModel.LanguageModel, InvalidOptions, HttpClient.HttpClient> => {
  const options = { url, model, apiKey, allowInsecureKey, config: { temperature, maxTokens } }
  return wire === "openai" ? OpenAiCompatible.make(options) : AnthropicMessages.make(options)
}

/** Applies the request fields of a prompt's line, in the format of whichever target is called. */
export const withRequest = <A, E, R>(self: Effect.Effect<A, E, R>, prompt: Prompt): Effect.Effect<A, E, R> =>
  self.pipe(OpenAiCompatible.withConfigOverride(prompt), AnthropicMessages.withConfigOverride(anthropicRequest(prompt)))

// ---------- Anthropic's format

/** Request fields that Anthropic supports, and their names there. */
const anthropicFields = new Map([["top_p", "top_p"], ["stop", "stop_sequences"]])

const anthropicRequest = ({ body = {}, maxTokens, model, temperature }: Prompt): AnthropicMessages.RequestConfig => ({
  model,
  temperature,
  maxTokens,
  body: Object.fromEntries(
    Object.entries(body).flatMap(([name, value]) => {
      const own = anthropicFields.get(name)
      return own === undefined ? [] : [[own, name === "stop" && typeof value === "string" ? [value] : value]]
    })
  )
})

/** Refuses a field that the format lacks. The answer without it would not be the one requested. */
const untranslatable = ({ wire }: Target, { body = {} }: Prompt): AiError.AiError | undefined => {
  const field = wire === "openai" ? undefined : Object.keys(body).find((name) => !anthropicFields.has(name))
  return field === undefined ? undefined : AiError.make({
    module: "sluice",
    method: "run",
    reason: new AiError.InvalidUserInputError({ description: `Anthropic's Messages API has no body.${field}` })
  })
}

// ---------- observation

const observed = (
  model: LanguageModel.LanguageModel,
  target: Target,
  maxAttempts: number,
  observer: Observer
): LanguageModel.LanguageModel => {
  const begin = Effect.withFiber((fiber): Effect.Effect<PromptState, AiError.AiError> => {
    const state = Context.get(fiber.context, CurrentPrompt)
    if (state === undefined) return Effect.die("a call without CurrentPrompt")
    const refusal = untranslatable(target, state.prompt)
    if (refusal !== undefined) return Effect.fail(refusal)
    state.begin(target)
    observer.started()
    return Effect.succeed(state)
  })
  // Counts the attempts over all calls of the prompt. Each call, and each restart, would count from 1.
  const numbered = ({ attempts }: PromptState) => ({ attempt: attempts, maxAttempts: Math.max(attempts, maxAttempts) })
  const ended = (state: PromptState) => (exit: Exit.Exit<unknown, AiError.AiError>): Effect.Effect<void> => {
    const error = Option.getOrUndefined(Option.flatMap(Exit.getCause(exit), Cause.findErrorOption))
    if (Exit.isSuccess(exit)) observer.succeeded(target)
    // No error: a timeout or the end of the run interrupted the attempt.
    else if (error !== undefined) {
      state.fail(error)
      observer.failed(target, error, state.prompt)
    }
    return state.afterAttempt
  }
  const generateText = (options: { readonly prompt: never }) =>
    Effect.flatMap(begin, (state) =>
      model.generateText(options).pipe(
        Effect.provideService(RetryPolicy.CurrentAttempt, numbered(state)),
        Effect.onExit(ended(state))
      ))
  const streamText = (options: { readonly prompt: never }) =>
    Stream.unwrap(Effect.map(begin, (state) =>
      model.streamText(options).pipe(
        Stream.provideService(RetryPolicy.CurrentAttempt, numbered(state)),
        Stream.onExit(ended(state))
      )))
  // Options and parts pass through unchanged, so the model's own types hold.
  return { ...model, ...{ generateText, streamText } as unknown as Partial<LanguageModel.LanguageModel> }
}
