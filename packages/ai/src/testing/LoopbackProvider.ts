/**
 * A provider of language models on this machine: a real HTTP server that speaks OpenAI's chat completions and Anthropic's
 * messages, with faults as turns or a script say, limits that it enforces, and a journal of every request.
 *
 * **When to use**
 *
 * To see what a client does when things go wrong, ours or anybody's, in any language: over a real socket, the same way
 * every time, without a key and without a cost. `@sluice/local-model` can answer behind it.
 *
 * **Details**
 *
 * It serves `POST /v1/chat/completions` and `POST /v1/messages`, streamed or not, `POST /v1/embeddings` and `GET /v1/models`,
 * on 127.0.0.1 and nowhere else, at a free port and behind a random key unless told otherwise: a bearer token, or Anthropic's
 * `x-api-key`. Each format has its own errors, and may be asked at the same time as the other. It answers only requests that name this machine as their host, so
 * that a page in a browser cannot reach it by a name of its own. Everything is closed with the scope.
 *
 * What a request meets is decided by the first that has something to say: an outage, the limits, its turn, the script, and
 * at last the answerer. A request that is turned away by an outage or a limit uses up no turn.
 *
 * A script's fault is decided by its seed, the conversation and the attempt. The attempt is what the client says: the
 * official SDKs send `x-stainless-retry-count`, ours `x-sluice-attempt`. For others it is how often this conversation was
 * seen. See `Script`.
 *
 * A request pays for its input as soon as an answer begins, and for every token produced, also if the answer is cut or
 * its client leaves. What is turned away costs nothing.
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
 *   const ask = LanguageModel.generateText({ prompt: "Good morning" })
 *   const refused = yield* Effect.flip(ask).pipe(Effect.provide(transport(AnthropicMessages.layer(options))))
 *   const answer = yield* ask.pipe(Effect.provide(transport(OpenAiCompatible.layer(options))))
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
import { OptionsReader } from "@sluice/core/OptionsReader"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
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
 * The port cannot be listened on.
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
 * A question that is not answered: sent to the client with this status.
 *
 * @since 0.1.0
 * @category errors
 */
export class AnswerError extends Schema.Error<AnswerError>("@sluice/ai/testing/AnswerError")({
  _tag: Schema.tag("AnswerError"),
  /** 400 to 499 for what is wrong with the question, 500 to 599 for what is wrong with the answerer. */
  status: Schema.Int.check(Schema.isBetween({ minimum: 400, maximum: 599 })),
  message: Schema.String
}) {}

/**
 * Answers a question.
 *
 * **Details**
 *
 * `prompt` is the text of the last message of the user, `messages` are all with their texts. Token counts that are left
 * out are counted as words.
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
 * How fast an answer is given.
 *
 * @since 0.1.0
 * @category models
 */
export interface Pace {
  /** Time to the first token. Default 0. */
  readonly firstTokenMillis?: number | undefined
  /** Time from token to token. Default 0, for which the whole answer is sent at once. */
  readonly tokenMillis?: number | undefined
  /** How many tokens go in one event of a stream. Default 1. */
  readonly tokensPerChunk?: number | undefined
}

/**
 * How much a provider allows. Who asks for more gets 429, with Retry-After and with what is left in the headers of the format
 * that was asked.
 *
 * **Details**
 *
 * Each is a bucket that begins full, with what a minute allows, and fills up steadily. The tokens of a request are counted when
 * it comes, and those of its answer when it ends, so that a long answer may overdraw them.
 *
 * @since 0.1.0
 * @category models
 */
export interface LimitOptions {
  readonly requestsPerMinute?: number | undefined
  readonly tokensPerMinute?: number | undefined
  /** How many requests may be open at once. Who is one too many is asked to stay away for a second. */
  readonly concurrent?: number | undefined
}

/**
 * What a provider is built from.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<R = never> {
  /** What to say. Default: an echo that says that it is one. */
  readonly answer?: Answer<R> | undefined
  /** What goes wrong, by rates and by chance. Default: nothing. */
  readonly script?: Script.Encoded | undefined
  /**
   * What each request meets, see `Turn.Turns`. Default: what the script says. What a turn says is said in full, whatever
   * `max_tokens` the request has. Embeddings meet no turns.
   */
  readonly turns?: Turn.Turns | undefined
  /** How much is allowed. Default: everything. */
  readonly limits?: LimitOptions | undefined
  readonly pace?: Pace | undefined
  /** The models that it knows; others are refused with 404. Default: it answers to every name. */
  readonly models?: ReadonlyArray<string> | undefined
  /** Default 0: any free port. */
  readonly port?: number | undefined
  /** What a client has to send as a bearer token or as `x-api-key`; `false` lets everybody in. Default: a random one. */
  readonly apiKey?: Redacted.Redacted | false | undefined
  /** How many requests the journal keeps; the oldest go first. Default 100,000, some 70 MB. */
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
  /** What a client wants as its base URL, such as `http://127.0.0.1:40123/v1`. */
  readonly url: string
  /** The same without its path, which is what Anthropic's own client wants. */
  readonly origin: string
  readonly port: number
  /** What a client has to send, if anything. */
  readonly apiKey: Redacted.Redacted | undefined
  /** Every request for an answer or for embeddings so far, the oldest first, also those that have not ended. */
  readonly journal: Effect.Effect<ReadonlyArray<Journal.Entry>>
  /** How many requests the journal has dropped, for want of capacity. */
  readonly dropped: Effect.Effect<number>
  /** Forgets everything, as if it had just begun: the journal, the attempts, the turns, the limits and the outage. */
  readonly clear: Effect.Effect<void>
  /** Begins an outage: every request gets 503, until `up`. */
  readonly down: Effect.Effect<void>
  /** Ends an outage that was begun by `down`. */
  readonly up: Effect.Effect<void>
}>()("@sluice/ai/testing/LoopbackProvider") {}

/**
 * Starts a provider, until the scope closes.
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
  const limits = new Limits({ ...noLimits, ...options?.limits }, began)
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

const noLimits = { requestsPerMinute: undefined, tokensPerMinute: undefined, concurrent: undefined }

/** What is asked for, and the format of the answer. */
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
    for (const [name, limit] of Object.entries(options?.limits ?? {})) {
      if (limit !== undefined) checked.integer(`limits.${name}`, limit, 1, 1e12)
    }
    const journalCapacity = checked.integer("journalCapacity", options?.journalCapacity ?? 100_000, 1, 10_000_000)
    const apiKey = options?.apiKey === false ? undefined : options?.apiKey ?? randomKey()
    const { invalid } = checked
    // A script that was not decoded is an issue.
    return invalid !== undefined || script._tag === "Failure"
      ? Effect.fail(invalid as InvalidOptions)
      : Effect.succeed({ script: script.success, pace, apiKey, journalCapacity })
  })

// From the system's generator, not from Effect's Random: a seed that replays a test must not foretell a key.
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
