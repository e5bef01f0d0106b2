import { Cause, Effect, Exit, Layer, type Redacted, type Scope, Stream } from "effect"
import { type AiError, LanguageModel } from "effect/ai"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import type { CallLog } from "@sluice/ai/CallLog"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import type * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import type * as Turn from "@sluice/ai/testing/Turn"

export type Provider = LoopbackProvider.LoopbackProvider["Service"]
export type WireName = "openai" | "anthropic"
export type Method = "generateText" | "streamText"

export const wireNames: ReadonlyArray<WireName> = ["openai", "anthropic"]
export const methods: ReadonlyArray<Method> = ["generateText", "streamText"]

export const other = (wire: WireName): WireName => wire === "openai" ? "anthropic" : "openai"

/** A loopback provider on a real socket. */
export const provider = (
  turns: Turn.Turns,
  options?: LoopbackProvider.Options
): Effect.Effect<Provider, never, Scope.Scope> => Effect.orDie(LoopbackProvider.make({ turns, ...options }))

const transport = Layer.provide(HttpTransport.layer({ environment: {} }))

/** The model at a URL over one of the wires. */
export const modelAt = (wire: WireName, url: string, apiKey?: Redacted.Redacted) => {
  const options = { url, apiKey, model: "m1" }
  return wire === "openai"
    ? transport(OpenAiCompatible.layer(options))
    : transport(AnthropicMessages.layer(options))
}

/** A provider as a target. */
export const target = (
  name: string,
  wire: WireName,
  at: { readonly url: string; readonly apiKey?: Redacted.Redacted | undefined },
  options?: Partial<ResilientModel.TargetOptions>
) => ({ name, layer: modelAt(wire, at.url, at.apiKey), ...options })

export type Target = ReturnType<typeof target>

/** Retries almost without a delay, so that any longer delay in a test has another cause. */
export const withoutDelay = RetryPolicy.constant({ baseDelay: "1 milli", jitter: "none" })

/** The layer under test. It retries almost without a delay. */
export const resilient = (
  targets: ReadonlyArray<Target>,
  options?: Omit<ResilientModel.LayerOptions, "targets">
) => ResilientModel.layer({ targets, retry: withoutDelay, ...options })

/** What the caller got and what the layer reports. */
export interface CallResult {
  /** The text that was handed on, even if the call failed. */
  readonly text: string
  readonly finish: string | undefined
  readonly error: AiError.AiError | undefined
  readonly log: CallLog
  /** The fault of each attempt, or `ok`. */
  readonly attempts: ReadonlyArray<string>
  readonly answeredBy: ResilientModel.Answer | undefined
}

/** Makes one call and reports it, whether it succeeds or fails. */
export const callModel = (
  method: Method,
  prompt = "hi"
): Effect.Effect<CallResult, never, LanguageModel.LanguageModel> =>
  Effect.suspend(() => {
    let text = ""
    let finish: string | undefined
    let answeredBy: ResilientModel.Answer | undefined
    const call = method === "generateText"
      ? Effect.map(LanguageModel.generateText({ prompt }), (response) => {
        text = response.text
        finish = response.finishReason
        answeredBy = ResilientModel.answeredBy(response)
      })
      : Stream.runForEach(LanguageModel.streamText({ prompt }), (part) =>
        Effect.sync(() => {
          if (part.type === "text-delta") text += part.delta
          if (part.type !== "finish") return
          finish = part.reason
          answeredBy = ResilientModel.answeredBy(part)
        }))
    return Effect.map(ResilientModel.withLogs(call), ([exit, logs]) => {
      const [log] = logs
      if (log === undefined || logs.length > 1) throw new Error(`${logs.length} logs of one call`)
      return {
        text,
        finish,
        error: errorOf(exit),
        log,
        attempts: log.steps.flatMap((step) => step._tag === "Attempt" ? [step.fault?.type ?? "ok"] : []),
        answeredBy
      }
    })
  })

/**
 * Makes a call, and makes it again until each of `required` got a request. On a busy machine, a short limit can pass before
 * there is a connection, and such a call shows nothing.
 */
export const callUntilReached = (
  method: Method,
  model: ReturnType<typeof resilient>,
  required: ReadonlyArray<Provider>,
  alsoCleared: ReadonlyArray<Provider> = []
): Effect.Effect<CallResult, InvalidOptions> =>
  Effect.gen(function*() {
    for (;;) {
      const result = yield* Effect.provide(callModel(method), model)
      const journals = yield* Effect.forEach(required, ({ journal }) => journal)
      if (journals.every(({ length }) => length > 0)) return result
      for (const provider of [...required, ...alsoCleared]) yield* provider.clear
    }
  })

const errorOf = (exit: Exit.Exit<unknown, AiError.AiError>): AiError.AiError | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  const error = exit.cause.reasons.find(Cause.isFailReason)?.error
  if (error === undefined) throw new Error("neither an answer nor a failure", { cause: exit.cause })
  return error
}

/** The requests of a provider, as soon as none is open. Dies after the timeout. */
export const settled = (provider: Provider, timeoutMillis = 50_000): Effect.Effect<ReadonlyArray<Journal.Entry>> =>
  Effect.flatMap(provider.journal, (entries) =>
    entries.every(({ ending }) => ending !== "open")
      ? Effect.succeed(entries)
      : timeoutMillis <= 0
      ? Effect.die(new Error("a request is still open"))
      : Effect.andThen(Effect.sleep(5), settled(provider, timeoutMillis - 5)))

/** Waits until the condition holds. Dies after the timeout. */
export const waitUntil = (condition: () => boolean, what: string, timeoutMillis = 50_000): Effect.Effect<void> =>
  Effect.suspend(() =>
    condition()
      ? Effect.void
      : timeoutMillis <= 0
      ? Effect.die(new Error(`timed out: ${what}`))
      : Effect.andThen(Effect.sleep(2), waitUntil(condition, what, timeoutMillis - 2))
  )

export const endings = (entries: ReadonlyArray<Journal.Entry>): ReadonlyArray<string> =>
  entries.map(({ ending }) => ending)
