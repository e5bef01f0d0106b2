import { assert, it } from "@effect/vitest"
import { type Duration, Effect, Exit, Fiber, Layer, Redacted, Stream } from "effect"
import { type AiError, LanguageModel, Prompt, type Response as AiResponse, Tool, Toolkit } from "effect/ai"
import { HttpClient, HttpClientError, type HttpClientRequest, HttpClientResponse } from "effect/http"
import { TestClock } from "effect/testing"
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { unusedHandler } from "./tools.ts"

// Tables of responses that providers have sent, and the expected results. They run in memory, on the test's clock.

export type WireName = "openai" | "anthropic"

/** A step of a stream: a text or bytes to send, milliseconds to wait, or how it ends if that is not a close. */
export type Step = string | Uint8Array | number | "<reset>" | "<open>"

/** The result of a call. */
export interface Got {
  readonly text: string
  readonly thoughts: string
  readonly calls: ReadonlyArray<readonly [name: string, params: unknown]>
  /** The number of different ids of tool calls. */
  readonly ids: number
  readonly finish: AiResponse.FinishReason | undefined
  readonly tokens: readonly [input: number | undefined, output: number | undefined]
  readonly cached: number | undefined
  readonly id: string | undefined
  readonly model: string | undefined
  readonly error: AiError.AiErrorReason["_tag"] | undefined
  readonly remedy: AiOutcome.Remedy | undefined
  readonly message: string
  /** The number of requests. */
  readonly requests: number
}

export interface Row {
  /** The repository and the number of a public report. */
  readonly report: string
  /** The response and the right result, as a sentence. */
  readonly title: string
  readonly wire?: WireName
  /** The body of a stream. */
  readonly stream?: Step | ReadonlyArray<Step>
  /** The body of a whole answer. */
  readonly whole?: unknown
  /** Whether the call is made by a `ResilientModel` with this one target. */
  readonly isResilient?: boolean
  readonly right: Partial<Got>
}

const encoder = new TextEncoder()

const bodyOf = (
  request: HttpClientRequest.HttpClientRequest,
  steps: ReadonlyArray<Step>
): Stream.Stream<Uint8Array, HttpClientError.HttpClientError> =>
  Stream.fromIterable(steps).pipe(
    Stream.mapEffect((step) => {
      if (typeof step === "number") return Effect.as(Effect.sleep(step), new Uint8Array())
      if (step === "<open>") return Effect.never
      if (typeof step === "object") return Effect.succeed(step)
      return step === "<reset>"
        ? Effect.fail(
          new HttpClientError.HttpClientError({
            reason: new HttpClientError.TransportError({ request, description: "ECONNRESET" })
          })
        )
        : Effect.succeed(encoder.encode(step))
    }),
    Stream.filter((bytes) => bytes.length > 0)
  )

/** A transport that sends these steps, and keeps the bodies of the requests. */
const transport = (steps: ReadonlyArray<Step>, type: string, requests: Array<string>) =>
  Layer.succeed(
    HttpClient.HttpClient,
    HttpClient.make((request) =>
      Effect.sync(() => {
        const { body } = request
        if (body._tag === "Uint8Array") requests.push(new TextDecoder().decode(body.body))
        const head = HttpClientResponse.fromWeb(request, new Response(null, { headers: { "content-type": type } }))
        const sent: HttpClientResponse.HttpClientResponse = Object.create(head, {
          stream: { value: bodyOf(request, steps) }
        })
        return sent
      })
    )
  )

const tools = Toolkit.make(Tool.dynamic("add"), Tool.dynamic("multiply"), Tool.dynamic("now"))
const handlers = tools.toLayer({ add: unusedHandler, multiply: unusedHandler, now: unusedHandler })

const modelOf = (wire: WireName, url: string) => {
  const options = { url, model: "m1", apiKey: Redacted.make("k".repeat(20)) }
  return wire === "openai" ? OpenAiCompatible.layer(options) : AnthropicMessages.layer(options)
}

/** The model by a `ResilientModel` that makes one attempt, and requests another answer for an unusable one. */
const resilient = <E>(layer: Layer.Layer<LanguageModel.LanguageModel, E>, limits: Limits) =>
  ResilientModel.layer({
    ...limits,
    retry: RetryPolicy.exponential({ baseDelay: "1 second", maxAttempts: 1 }),
    targets: [{ name: "target", layer }]
  })

/** Of the `ResilientModel`. */
interface Limits {
  /** Default 1 minute. */
  readonly idleTimeout?: Duration.Input | undefined
  readonly firstTokenTimeout?: Duration.Input | undefined
  readonly attemptTimeout?: Duration.Input | undefined
  readonly deadline?: Duration.Input | undefined
  readonly malformedEvent?: "fail" | "skip" | undefined
}

export interface Call extends Limits {
  /** The method that is called. Default `streamText` for a `stream`, and otherwise `generateText`. */
  readonly method?: "streamText" | "generateText" | undefined
  readonly wire?: WireName | undefined
  readonly stream?: Row["stream"]
  readonly whole?: unknown
  readonly isResilient?: boolean | undefined
  readonly url?: string | undefined
  readonly prompt?: Prompt.RawInput | undefined
}

interface Called {
  readonly parts: ReadonlyArray<AiResponse.AnyPart>
  readonly failure: AiError.AiError | undefined
  readonly requests: number
  /** The JSON of the first request. */
  readonly request: { readonly messages: ReadonlyArray<{ readonly [field: string]: unknown }> }
}

/** Makes one call, whose answer is a stream or a whole answer. */
export const call = (
  {
    idleTimeout = "1 minute",
    isResilient = false,
    method,
    prompt = "hi",
    stream,
    url = "https://api.example.com/v1",
    whole,
    wire = "openai",
    attemptTimeout,
    deadline,
    firstTokenTimeout,
    malformedEvent
  }: Call
): Effect.Effect<Called> =>
  Effect.gen(function*() {
    const requests: Array<string> = []
    const parts: Array<AiResponse.AnyPart> = []
    const steps = stream === undefined ? [JSON.stringify(whole)] : stepsOf(stream)
    const type = stream === undefined ? "application/json" : "text/event-stream"
    const model = modelOf(wire, url).pipe(Layer.provide(transport(steps, type, requests)))
    const result = yield* Effect.gen(function*() {
      const toolkit = yield* tools
      const options = { prompt, toolkit, disableToolCallResolution: true } as const
      if ((method ?? (stream === undefined ? "generateText" : "streamText")) === "generateText") {
        parts.push(...(yield* LanguageModel.generateText(options)).content)
      } else {
        yield* Stream.runForEach(LanguageModel.streamText(options), (part) => Effect.sync(() => parts.push(part)))
      }
    }).pipe(
      Effect.provide(
        isResilient
          ? resilient(model, { idleTimeout, attemptTimeout, deadline, firstTokenTimeout, malformedEvent })
          : model
      ),
      Effect.provide(handlers),
      Effect.result
    )
    const failure = result._tag === "Failure" ? result.failure : undefined
    if (failure !== undefined && failure._tag !== "AiError") return yield* Effect.die(failure)
    return { parts, failure, requests: requests.length, request: JSON.parse(requests[0] ?? "{}") }
  })

const summary = ({ failure, parts, requests }: Called): Got => {
  const of = <Type extends AiResponse.AnyPart["type"]>(type: Type) =>
    parts.filter((part): part is Extract<AiResponse.AnyPart, { readonly type: Type }> => part.type === type)
  const calls = of("tool-call")
  const finish = of("finish").at(-1)
  const head = of("response-metadata").at(-1)
  return {
    text: [...of("text").map(({ text }) => text), ...of("text-delta").map(({ delta }) => delta)].join(""),
    thoughts: [...of("reasoning").map(({ text }) => text), ...of("reasoning-delta").map(({ delta }) => delta)].join(""),
    calls: calls.map(({ name, params }) => [name, params]),
    ids: new Set(calls.map(({ id }) => id)).size,
    finish: finish?.reason,
    tokens: [finish?.usage.inputTokens.total, finish?.usage.outputTokens.total],
    cached: finish?.usage.inputTokens.cacheRead,
    id: head?.id,
    model: head?.modelId,
    error: failure?.reason._tag,
    remedy: failure === undefined ? undefined : AiOutcome.remedy(failure),
    message: failure?.message ?? "",
    requests
  }
}

const stepsOf = (stream: Step | ReadonlyArray<Step>): ReadonlyArray<Step> =>
  typeof stream === "object" && !(stream instanceof Uint8Array) ? stream : [stream]

const waitsIn = (stream: Row["stream"]): number =>
  stepsOf(stream ?? []).reduce<number>((sum, step) => typeof step === "number" ? sum + step : sum, 0)

/** The result of a call, after `millis` on the test's clock. */
export const got = (row: Call, millis = waitsIn(row.stream)): Effect.Effect<Got> =>
  Effect.gen(function*() {
    const running = yield* Effect.forkChild(call(row), { startImmediately: true })
    for (let passed = 0; passed < millis; passed += 100) yield* TestClock.adjust(100)
    return summary(yield* Fiber.join(running))
  })

/** Whether the call has ended after `millis` on the test's clock. */
export const endsWithin = (row: Call, millis: number): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const running = yield* Effect.forkChild(call(row), { startImmediately: true })
    yield* TestClock.adjust(millis)
    const exit = running.pollUnsafe()
    yield* Fiber.interrupt(running)
    return exit !== undefined && Exit.isSuccess(exit)
  })

/** What a `TextModel` makes of a streamed answer. */
const gotByText = ({ stream = [], wire = "openai" }: Row): Effect.Effect<Partial<Got>> => {
  const options = { url: "https://api.example.com/v1", model: "m1", apiKey: Redacted.make("k".repeat(20)) }
  const model = wire === "openai" ? OpenAiCompatible.makeText(options) : AnthropicMessages.makeText(options)
  return model.pipe(
    Effect.flatMap(({ ask }) => ask(Prompt.make("hi"))),
    Effect.provide(transport(stepsOf(stream), "text/event-stream", [])),
    Effect.match({
      onSuccess: ({ finishReason, id, model, reasoning, text, usage }) => ({
        text,
        thoughts: reasoning,
        finish: finishReason,
        tokens: [usage.inputTokens.total, usage.outputTokens.total] as const,
        cached: usage.inputTokens.cacheRead,
        id,
        model,
        error: undefined,
        remedy: undefined,
        message: ""
      }),
      onFailure: (error) =>
        error._tag === "AiError"
          ? { error: error.reason._tag, remedy: AiOutcome.remedy(error), message: error.message }
          : { error: undefined, message: error.message }
    })
  )
}

/** A test for each row. A streamed answer is also collected by a `TextModel`, whose result has to be the same. */
export const table = (rows: ReadonlyArray<Row>): void => {
  for (const row of rows) {
    it.effect(`${row.title} (${row.report})`, () =>
      Effect.map(got(row), (actual) => {
        for (const [name, value] of Object.entries(row.right)) {
          const field = actual[name as keyof Got] // An own key of a partial `Got`.
          if (name === "message") assert.include(field, value)
          else assert.deepStrictEqual(field, value, `${name}, ${actual.message}`)
        }
        if (!("error" in row.right)) assert.isUndefined(actual.error, actual.message)
      }))
    if (row.stream === undefined || row.isResilient === true) continue
    it.effect(`${row.title}, collected (${row.report})`, () =>
      Effect.gen(function*() {
        const streamed = yield* got(row)
        const collecting = yield* Effect.forkChild(gotByText(row))
        yield* TestClock.adjust("10 minutes")
        for (const [name, value] of Object.entries(yield* Fiber.join(collecting))) {
          assert.deepStrictEqual(value, streamed[name as keyof Got], name) // An own key of a partial `Got`.
        }
      }))
  }
}

/** One event with a delta of the first choice. */
export const chunk = (delta: object, finish_reason: unknown = null, more: object = {}): string =>
  `data: ${JSON.stringify({ id: "c1", model: "m1", ...more, choices: [{ index: 0, delta, finish_reason }] })}\n\n`

/** One event with a message of the first choice in place of a delta. */
export const said = (message: object, finish_reason: unknown = null, more: object = {}): string =>
  `data: ${JSON.stringify({ id: "c1", model: "m1", choices: [{ index: 0, message, finish_reason, ...more }] })}\n\n`

/** One event with a piece of a tool call. */
export const piece = (fragment: object): string => chunk({ tool_calls: [fragment] })

export const done = "data: [DONE]\n\n"

/** A whole chat completion. */
export const answer = (message: object, finish_reason: unknown = "stop", more: object = {}) => ({
  id: "c1",
  model: "m1",
  choices: [{ index: 0, message, finish_reason }],
  ...more
})
