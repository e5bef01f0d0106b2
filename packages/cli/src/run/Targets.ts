/** The models of a run's targets, each of which tells what is asked of it. */
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
import type { Asking } from "./Asking.ts"
import { CurrentAsking } from "./Asking.ts"
import * as Failure from "./Failure.ts"
import type { Prompt } from "./Prompt.ts"
import { RunStopped } from "./RunStopped.ts"
import type { Settings, Target } from "./Settings.ts"

/** Who is told about every try. */
export interface Observer {
  readonly called: () => void
  readonly answered: (target: Target) => void
  readonly failed: (target: Target, error: AiError.AiError, prompt: Prompt) => void
}

type Options = Pick<Settings, "targets" | "allowInsecureKey" | "temperature" | "maxTokens" | "maxAttempts">

/** A target, and the model that it is asked by. */
export interface Watched {
  readonly target: Target
  readonly model: LanguageModel.LanguageModel
}

/** Builds the models, in the order of their targets. Their connections are closed with the scope. */
export const make = (
  options: Options,
  observer: Observer
): Effect.Effect<ReadonlyArray<Watched>, RunStopped, Scope.Scope> =>
  Effect.flatMap(
    Effect.mapError(HttpTransport.make(), (invalid) => unusable(invalid, options.targets[0])),
    (client) =>
      Effect.forEach(options.targets, (target) =>
        modelOf(target, options).pipe(
          Effect.mapError((invalid) => unusable(invalid, target)),
          Effect.map((model) => ({ target, model: watched(model, target, options.maxAttempts, observer) })),
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

/** What a line asks for itself, in whatever format it is asked. */
export const withRequest = <A, E, R>(self: Effect.Effect<A, E, R>, prompt: Prompt): Effect.Effect<A, E, R> =>
  self.pipe(OpenAiCompatible.withConfigOverride(prompt), AnthropicMessages.withConfigOverride(anthropicRequest(prompt)))

// ---------- what differs in Anthropic's format

/** Fields of a request that Anthropic has too, under its own names. */
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

/** To leave a field out would give another answer than the one that was asked for. */
const untranslatable = ({ wire }: Target, { body = {} }: Prompt): AiError.AiError | undefined => {
  const field = wire === "openai" ? undefined : Object.keys(body).find((name) => !anthropicFields.has(name))
  return field === undefined ? undefined : AiError.make({
    module: "sluice",
    method: "run",
    reason: new AiError.InvalidUserInputError({ description: `Anthropic's messages have no body.${field}` })
  })
}

// ---------- what is told

const watched = (
  model: LanguageModel.LanguageModel,
  target: Target,
  maxAttempts: number,
  observer: Observer
): LanguageModel.LanguageModel => {
  const begin = Effect.withFiber((fiber): Effect.Effect<Asking, AiError.AiError> => {
    const asking = Context.get(fiber.context, CurrentAsking)
    if (asking === undefined) return Effect.die("a call outside of a run")
    const refusal = untranslatable(target, asking.prompt)
    if (refusal !== undefined) return Effect.fail(refusal)
    asking.begin(target)
    observer.called()
    return Effect.succeed(asking)
  })
  // Tells the wire the number of every try of this prompt: each call of it, and each restart, counts from 1 by itself.
  const numbered = ({ made }: Asking) => ({ attempt: made, maxAttempts: Math.max(made, maxAttempts) })
  const ended = (asking: Asking) => (exit: Exit.Exit<unknown, AiError.AiError>): Effect.Effect<void> => {
    const error = Option.getOrUndefined(Option.flatMap(Exit.getCause(exit), Cause.findErrorOption))
    if (Exit.isSuccess(exit)) observer.answered(target)
    // Its limits interrupt a try, and so does the end of the run.
    else if (error !== undefined) {
      asking.fail(error)
      observer.failed(target, error, asking.prompt)
    }
    return asking.tried
  }
  const generateText = (options: { readonly prompt: never }) =>
    Effect.flatMap(begin, (asking) =>
      model.generateText(options).pipe(
        Effect.provideService(RetryPolicy.CurrentAttempt, numbered(asking)),
        Effect.onExit(ended(asking))
      ))
  const streamText = (options: { readonly prompt: never }) =>
    Stream.unwrap(Effect.map(begin, (asking) =>
      model.streamText(options).pipe(
        Stream.provideService(RetryPolicy.CurrentAttempt, numbered(asking)),
        Stream.onExit(ended(asking))
      )))
  // Options and parts go through as they are: the types that the model has hold for this one.
  return { ...model, ...{ generateText, streamText } as unknown as Partial<LanguageModel.LanguageModel> }
}
