/**
 * A provider of language models on this machine: an HTTP server with scripted faults, limits, and a journal.
 *
 * **When to use**
 *
 * To test how a client in any language handles failures, over a real socket and the same way every time. It needs no key
 * and costs nothing. `@sluice/local-model` can generate its answers. In a test that needs no HTTP, use `ScriptedModel`.
 *
 * **Details**
 *
 * | endpoint | format |
 * |---|---|
 * | `POST /v1/chat/completions`, streamed or not | OpenAI |
 * | `POST /v1/messages`, streamed or not | Anthropic |
 * | `POST /v1/embeddings` | OpenAI |
 * | `GET /v1/models` | either |
 *
 * - It listens on 127.0.0.1 only, by default at a free port. The key is random by default: a bearer token, or
 *   `x-api-key`. Requests with another host name are refused, so that no web page reaches it through its own domain.
 * - A response is decided in this order: an outage, a limit, the request's turn, the script, the `answer` option. A
 *   request that an outage or a limit refuses uses no turn.
 * - A script decides by the conversation and the attempt. The attempt is what the client sends:
 *   `x-stainless-retry-count` of the official SDKs, `x-sluice-attempt` of Sluice. For other clients it is how often the
 *   conversation was seen.
 * - Input is paid as soon as an answer begins, and every token that is produced, even if the answer is cut or the
 *   client leaves. A refusal costs nothing.
 *
 * **Example** (The official client meets a rate limit)
 *
 * ```ts
 * import { Effect } from "effect"
 * import OpenAI from "openai"
 * import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
 *
 * const program = Effect.gen(function*() {
 *   const provider = yield* LoopbackProvider.LoopbackProvider
 *   const client = new OpenAI({ baseURL: provider.url, apiKey: "none" })
 *   yield* Effect.promise(() =>
 *     client.chat.completions.create({ model: "any", messages: [{ role: "user", content: "Good morning" }] })
 *   )
 *   return (yield* provider.journal).map((entry) => entry.status)
 * }).pipe(
 *   Effect.provide(
 *     LoopbackProvider.layer({ apiKey: false, script: { faults: { rateLimit: 1 }, retryAfterSeconds: 0 } })
 *   )
 * )
 *
 * console.log(await Effect.runPromise(program)) // => [ 429, 200 ]
 * ```
 *
 * **Example** (Turns, and both formats at once)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { LanguageModel } from "effect/ai"
 * import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
 * import * as HttpTransport from "@sluice/ai/HttpTransport"
 * import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
 * import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
 * import * as Turn from "@sluice/ai/testing/Turn"
 *
 * const program = Effect.gen(function*() {
 *   const { apiKey, journal, url } = yield* LoopbackProvider.LoopbackProvider
 *   const options = { url, apiKey, model: "loopback" }
 *   const transport = Layer.provide(HttpTransport.layer())
 *   const call = LanguageModel.generateText({ prompt: "Good morning" })
 *   const refused = yield* Effect.flip(call).pipe(Effect.provide(transport(AnthropicMessages.layer(options))))
 *   const answer = yield* call.pipe(Effect.provide(transport(OpenAiCompatible.layer(options))))
 *   return [refused.reason._tag, answer.text, ...(yield* journal).map(({ status, wire }) => `${wire} ${status}`)]
 * }).pipe(
 *   Effect.provide(LoopbackProvider.layer({ turns: [Turn.refusal("overloaded"), Turn.answer("Hello")] }))
 * )
 *
 * console.log((await Effect.runPromise(program)).join(", "))
 * // => InternalProviderError, Hello, anthropic 529, openai 200
 * ```
 *
 * @since 0.1.0
 */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader, toMillis } from "@sluice/core/OptionsReader"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { randomBytes, timingSafeEqual } from "node:crypto"
import type { IncomingHttpHeaders, IncomingMessage } from "node:http"
import * as Answering from "../internal/loopback/answering.ts"
import * as Anthropic from "../internal/loopback/anthropic.ts"
import { Attempts } from "../internal/loopback/attempts.ts"
import type { Dialect } from "../internal/loopback/dialect.ts"
import { Exchange } from "../internal/loopback/exchange.ts"
import { Limits } from "../internal/loopback/limits.ts"
import * as OpenAi from "../internal/loopback/openAi.ts"
import { Outages } from "../internal/loopback/outages.ts"
import * as Paces from "../internal/loopback/paces.ts"
import { Recorder } from "../internal/loopback/recorder.ts"
import * as Server from "../internal/loopback/server.ts"
import type * as Speech from "../internal/loopback/speech.ts"
import { check as checkTurns, Turns } from "../internal/loopback/turns.ts"
import type * as Journal from "./Journal.ts"
import * as Script from "./Script.ts"
import type * as Turn from "./Turn.ts"

/**
 * The provider cannot listen on its port.
 *
 * @since 0.1.0
 * @category errors
 */
export class ListenError extends Schema.Error<ListenError>("@sluice/ai/testing/ListenError")({
  _tag: Schema.tag("ListenError"),
  port: Schema.Int,
  /** The system's code, such as `EADDRINUSE`. */
  code: Schema.String
}) {
  override get message(): string {
    return `cannot listen on 127.0.0.1:${this.port}: ${this.code}`
  }
}

/**
 * An error of the `answer` option. It is sent to the client with this status.
 *
 * @since 0.1.0
 * @category errors
 */
export class AnswerError extends Schema.Error<AnswerError>("@sluice/ai/testing/AnswerError")({
  _tag: Schema.tag("AnswerError"),
  /** 400 to 499 if the request is wrong, 500 to 599 if answering failed. */
  status: Schema.Int.check(Schema.isBetween({ minimum: 400, maximum: 599 })),
  message: Schema.String
}) {}

/**
 * Generates an answer.
 *
 * **Details**
 *
 * `prompt` is the text of the last user message, `messages` has the texts of all. Token counts that you leave out are
 * counted as in `Turn`.
 *
 * @since 0.1.0
 * @category models
 */
export type Answer<R = never> = (question: {
  readonly prompt: string
  readonly model: string
  readonly messages: ReadonlyArray<{ readonly role: string; readonly content: string }>
}) => Effect.Effect<
  {
    readonly text: string
    readonly inputTokens?: number | undefined
    readonly outputTokens?: number | undefined
  },
  AnswerError,
  R
>

/**
 * How fast answers are sent.
 *
 * @since 0.1.0
 * @category models
 */
export interface Pace {
  /** Time to the first token. Default 0. */
  readonly firstTokenMillis?: number | undefined
  /** Time between tokens. Default 0: the whole answer at once. */
  readonly tokenMillis?: number | undefined
  /** Tokens in one event of a stream. Default 1. */
  readonly tokensPerChunk?: number | undefined
}

/**
 * Limits of a provider. A request above them is refused with 429 and Retry-After.
 *
 * **Details**
 *
 * - `enforcement` counts `requestsPerMinute` and `tokensPerMinute` as providers do: by a token bucket, which starts full and is
 *   refilled steadily, by windows one after the other, or by a log of the last window. Responses report the state in the headers
 *   of their format.
 * - `window` enforces the limits of a minute over another time: 600 a minute over a second are 10 a second.
 * - The tokens of a prompt count when the request arrives, those of its answer when it ends. A long answer can overdraw
 *   them.
 *
 * @since 0.1.0
 * @category models
 */
export interface LimitOptions {
  readonly requestsPerMinute?: number | undefined
  readonly tokensPerMinute?: number | undefined
  /** How many requests may be open at once. The Retry-After of the others is one second. */
  readonly concurrent?: number | undefined
  /** Default `"bucket"`. */
  readonly enforcement?: "bucket" | "fixedWindow" | "log" | undefined
  /** Default one minute. */
  readonly window?: Duration.Input | undefined
}

/**
 * Options for `make` and `layer`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<R = never> {
  /** Generates the answers of the script, and of turns without content. Default: `Loopback echo:` and the prompt. */
  readonly answer?: Answer<R> | undefined
  /** Faults by rates, and an outage. Default: none. */
  readonly script?: Script.Encoded | undefined
  /**
   * The turn of each chat request. Default: the script decides. The content of a turn is sent in full, whatever
   * `max_tokens` the request has.
   */
  readonly turns?: Turn.Turns | undefined
  /** Default: no limits. */
  readonly limits?: LimitOptions | undefined
  readonly pace?: Pace | undefined
  /** The models that exist. Others are refused with 404. Default: every name exists. */
  readonly models?: ReadonlyArray<string> | undefined
  /** Default 0: a free port. */
  readonly port?: number | undefined
  /** The key that a client has to send, as a bearer token or as `x-api-key`. `false`: none. Default: a random key. */
  readonly apiKey?: Redacted.Redacted | false | undefined
  /** How many requests the journal keeps; the oldest are dropped. Default 100,000, about 70 MB. */
  readonly journalCapacity?: number | undefined
  /** Whether the journal keeps the texts of prompts. Default true. */
  readonly keepPrompts?: boolean | undefined
}

/**
 * A running provider.
 *
 * @since 0.1.0
 * @category services
 */
export class LoopbackProvider extends Context.Service<LoopbackProvider, {
  /** The base URL for clients, such as `http://127.0.0.1:40123/v1`. */
  readonly url: string
  /** The URL without its path, as Anthropic's own client takes it. */
  readonly origin: string
  readonly port: number
  /** The key that a client has to send. */
  readonly apiKey: Redacted.Redacted | undefined
  /** All requests for chat and embeddings in order, also those that have not ended. */
  readonly journal: Effect.Effect<ReadonlyArray<Journal.Entry>>
  /** How many requests the journal has dropped. */
  readonly dropped: Effect.Effect<number>
  /** Resets the journal, the attempts, the turns, the limits and the script's outage. */
  readonly clear: Effect.Effect<void>
  /** Starts an outage: every request is refused with 503 until `up`. */
  readonly down: Effect.Effect<void>
  /** Ends the outage that `down` started. */
  readonly up: Effect.Effect<void>
}>()("@sluice/ai/testing/LoopbackProvider") {}

/**
 * Starts a provider. It is closed with the scope.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = Effect.fnUntraced(function*<R = never>(
  options?: Options<R>
): Effect.fn.Return<LoopbackProvider["Service"], InvalidOptions | ListenError, R | Scope.Scope> {
  const settings = yield* check(options)
  const { apiKey, journalCapacity, pace, script } = settings
  const clock = yield* Clock.Clock
  const recorder = new Recorder(clock, journalCapacity)
  const attempts = new Attempts()
  const turns = new Turns(options?.turns)
  let began = recorder.now().monotonic
  const outages = new Outages(script.outage, began)
  const limits = new Limits(rulesOf(options?.limits), began)
  const answering: Answering.Answering<R> = {
    script,
    turns,
    pace,
    models: options?.models,
    answer: options?.answer ?? echo,
    keepPrompts: options?.keepPrompts ?? true,
    attempts,
    outages,
    limits,
    began: () => began
  }

  const handle = Effect.fnUntraced(function*(exchange: Exchange, route: Route) {
    const { entry, request } = exchange
    const body = yield* exchange.body
    if (body === undefined) {
      return exchange.refuse(413, { type: "invalid_request_error", message: "the request is too large" })
    }
    if (!isForThisMachine(request.headers.host)) {
      return exchange.refuse(403, { type: "invalid_request_error", message: "this host is not served here" })
    }
    if (apiKey !== undefined && !isAuthorized(request.headers, apiKey)) {
      return exchange.refuse(
        401,
        exchange.wire === "openai"
          ? { type: "invalid_request_error", code: "invalid_api_key", message: "Incorrect API key provided" }
          : { type: "authentication_error", message: "invalid x-api-key" }
      )
    }
    if (entry !== undefined && route.endpoint === "answer") {
      return yield* Answering.complete(answering, exchange, entry, route.dialect, body)
    }
    if (entry !== undefined) return yield* Answering.embed(answering, exchange, entry, body)
    if (route.endpoint === "models") {
      const names = options?.models ?? ["loopback"]
      return exchange.send(200, exchange.wire === "openai" ? OpenAi.models(names) : Anthropic.models(names), "complete")
    }
    exchange.refuse(404, {
      type: exchange.wire === "openai" ? "invalid_request_error" : "not_found_error",
      message: "no such endpoint"
    })
  })

  const run = yield* FiberSet.makeRuntime<R, void, never>()
  const port = yield* Server.listen(options?.port ?? 0, (request, response) => {
    const route = routeOf(request)
    const isKept = route.endpoint === "answer" || route.endpoint === "embeddings"
    const entry = isKept ? recorder.begin() : undefined
    if (entry !== undefined) {
      entry.wire = route.dialect.wire
      const key = request.headers["idempotency-key"]
      if (typeof key === "string") entry.idempotencyKey = key
      if (route.endpoint === "embeddings") entry.endpoint = route.endpoint
    }
    const exchange = new Exchange(request, response, recorder, entry, route.dialect.wire)
    const fiber = run(Effect.catchDefect(handle(exchange, route), () => Effect.sync(() => exchange.fail())))
    response.once("close", () => {
      exchange.closed()
      fiber.interruptUnsafe()
    })
  }).pipe(Effect.mapError((code) => new ListenError({ port: options?.port ?? 0, code })))

  const origin = `http://127.0.0.1:${port}`
  return LoopbackProvider.of({
    url: `${origin}/v1`,
    origin,
    port,
    apiKey,
    journal: Effect.sync(() => recorder.entries()),
    dropped: Effect.sync(() => recorder.dropped),
    clear: Effect.sync(() => {
      recorder.clear()
      attempts.clear()
      turns.clear()
      began = recorder.now().monotonic
      outages.clear(began)
      limits.clear(began)
    }),
    down: Effect.sync(() => outages.setDown(true)),
    up: Effect.sync(() => outages.setDown(false))
  })
})

/**
 * Provides a running provider.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = <R = never>(
  options?: Options<R>
): Layer.Layer<LoopbackProvider, InvalidOptions | ListenError, R> => Layer.effect(LoopbackProvider, make(options))

const echo: Answer = ({ prompt }) => Effect.succeed({ text: `Loopback echo: ${prompt}` })

const rulesOf = (
  { concurrent, enforcement = "bucket", requestsPerMinute, tokensPerMinute, window = "1 minute" }: LimitOptions = {}
) => ({ requestsPerMinute, tokensPerMinute, concurrent, enforcement, windowMillis: toMillis(window) })

const limitNames = ["requestsPerMinute", "tokensPerMinute", "concurrent"] as const

/** The endpoint of a request, and the format of its response. */
interface Route {
  readonly endpoint: "answer" | "embeddings" | "models" | undefined
  readonly dialect: Dialect
}

const routeOf = ({ headers, method, url }: IncomingMessage): Route => {
  const dialect = url?.startsWith("/v1/messages") || headers["anthropic-version"] !== undefined
    ? Anthropic.dialect
    : OpenAi.dialect
  switch (`${method} ${url}`) {
    case "POST /v1/chat/completions":
      return { endpoint: "answer", dialect: OpenAi.dialect }
    case "POST /v1/messages":
      return { endpoint: "answer", dialect }
    case "POST /v1/embeddings":
      return { endpoint: "embeddings", dialect: OpenAi.dialect }
    case "GET /v1/models":
      return { endpoint: "models", dialect }
    default:
      return { endpoint: undefined, dialect }
  }
}

interface Settings {
  readonly script: Script.Script
  readonly pace: Speech.Pace
  readonly apiKey: Redacted.Redacted | undefined
  readonly journalCapacity: number
}

const check = <R>(options: Options<R> | undefined): Effect.Effect<Settings, InvalidOptions> =>
  Effect.flatMap(Effect.result(Script.decode(options?.script ?? {})), (script) => {
    const checked = new OptionsReader("LoopbackProvider")
    if (script._tag === "Failure") checked.refuse("script", script.failure.message, "must be a script, see Script")
    checked.integer("port", options?.port ?? 0, 0, 65_535)
    const pace = Paces.check(checked, options?.pace)
    checkTurns(checked, options?.turns)
    const limits = options?.limits ?? {}
    for (const name of limitNames) {
      if (limits[name] !== undefined) checked.integer(`limits.${name}`, limits[name], 1, 1e12)
    }
    const { enforcement = "bucket", window = "1 minute" } = limits
    checked.oneOf("limits.enforcement", enforcement, ["bucket", "fixedWindow", "log"])
    checked.duration("limits.window", window, 1)
    const journalCapacity = checked.integer("journalCapacity", options?.journalCapacity ?? 100_000, 1, 10_000_000)
    const apiKey = options?.apiKey === false ? undefined : options?.apiKey ?? randomKey()
    const { invalid } = checked
    // A script that could not be decoded is one of the issues.
    return invalid !== undefined || script._tag === "Failure"
      ? Effect.fail(invalid as InvalidOptions)
      : Effect.succeed({ script: script.success, pace, apiKey, journalCapacity })
  })

// From the system's generator, not from Effect's Random: the seed of a test must not determine the key.
const randomKey = (): Redacted.Redacted => Redacted.make(`loopback-${randomBytes(24).toString("base64url")}`)

const isForThisMachine = (host: string | undefined): boolean =>
  host !== undefined && /^(?:127\.0\.0\.1|localhost)(?::\d+)?$/.test(host)

const isAuthorized = (headers: IncomingHttpHeaders, apiKey: Redacted.Redacted): boolean => {
  const { authorization, "x-api-key": key } = headers
  return isSame(authorization, `Bearer ${Redacted.value(apiKey)}`) ||
    (typeof key === "string" && isSame(key, Redacted.value(apiKey)))
}

const isSame = (sent: string | undefined, wanted: string): boolean => {
  const expected = Buffer.from(wanted)
  const actual = Buffer.from(sent ?? "")
  return actual.length === expected.length && timingSafeEqual(actual, expected)
}
