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

/** A provider on a real socket. */
export const provider = (
  turns: Turn.Turns,
  options?: LoopbackProvider.Options
): Effect.Effect<Provider, never, Scope.Scope> => Effect.orDie(LoopbackProvider.make({ turns, ...options }))

const transport = Layer.provide(HttpTransport.layer({ environment: {} }))

/** The model at a URL, over one of the two wires. */
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

/** Attempts that follow each other at once, so that whatever else a test sees of a wait was asked for. */
export const atOnce = RetryPolicy.constant({ baseDelay: "1 milli", jitter: "none" })

/** The layer under test. */
export const resilient = (
  targets: ReadonlyArray<Target>,
  options?: Omit<ResilientModel.Options, "targets">
) => ResilientModel.layer({ targets, retry: atOnce, ...options })

/** What a caller got, and what the layer says of it. */
export interface Told {
  /** Of a stream, what was handed on, also before it failed. */
  readonly text: string
  readonly finish: string | undefined
  readonly error: AiError.AiError | undefined
  readonly log: CallLog
  /** The fault of each attempt, or `ok`. */
  readonly attempts: ReadonlyArray<string>
  readonly answeredBy: ResilientModel.Answer | undefined
}

/** Asks once, and tells all of it, failed or not. */
export const ask = (
  method: Method,
  prompt = "hi"
): Effect.Effect<Told, never, LanguageModel.LanguageModel> =>
  Effect.suspend(() => {
    let text = ""
    let finish: string | undefined
    let answeredBy: ResilientModel.Answer | undefined
    const asked = method === "generateText"
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
    return Effect.map(ResilientModel.withLogs(asked), ([exit, logs]) => {
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
 * Asks, and asks anew if one of these was not asked: where a limit is short, it may pass before there is a connection, on a
 * machine that is busy. Of that there is nothing to see.
 */
export const askInEarnest = (
  method: Method,
  model: ReturnType<typeof resilient>,
  asked: ReadonlyArray<Provider>,
  others: ReadonlyArray<Provider> = []
): Effect.Effect<Told, InvalidOptions> =>
  Effect.gen(function*() {
    for (;;) {
      const told = yield* Effect.provide(ask(method), model)
      const seen = yield* Effect.forEach(asked, ({ journal }) => journal)
      if (seen.every(({ length }) => length > 0)) return told
      for (const provider of [...asked, ...others]) yield* provider.clear
    }
  })

const errorOf = (exit: Exit.Exit<unknown, AiError.AiError>): AiError.AiError | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  const error = exit.cause.reasons.find(Cause.isFailReason)?.error
  if (error === undefined) throw new Error("neither an answer nor a failure", { cause: exit.cause })
  return error
}

/** The requests of a provider, once it has heard of every one how it ended. Dies if it never does. */
export const settled = (of: Provider, patience = 5_000): Effect.Effect<ReadonlyArray<Journal.Entry>> =>
  Effect.flatMap(of.journal, (entries) =>
    entries.every(({ ending }) => ending !== "open")
      ? Effect.succeed(entries)
      : patience <= 0
      ? Effect.die(new Error("a request is still open"))
      : Effect.andThen(Effect.sleep(5), settled(of, patience - 5)))

/** Waits until something is so. Dies if it never is. */
export const until = (isSo: () => boolean, what: string, patience = 5_000): Effect.Effect<void> =>
  Effect.suspend(() =>
    isSo()
      ? Effect.void
      : patience <= 0
      ? Effect.die(new Error(`never: ${what}`))
      : Effect.andThen(Effect.sleep(2), until(isSo, what, patience - 2))
  )

export const endings = (entries: ReadonlyArray<Journal.Entry>): ReadonlyArray<string> =>
  entries.map(({ ending }) => ending)
