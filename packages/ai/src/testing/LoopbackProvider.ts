/**
 * A provider of language models on this machine: a real HTTP server that speaks OpenAI's chat completions, with faults as
 * a script says, and a journal of every request.
 *
 * **When to use**
 *
 * To see what a client does when things go wrong, ours or anybody's, in any language: over a real socket, the same way
 * every time, without a key and without a cost. `@sluice/local-model` can answer behind it.
 *
 * **Details**
 *
 * It serves `POST /v1/chat/completions`, streamed or not, and `GET /v1/models`, on 127.0.0.1 and nowhere else, at a free
 * port and behind a random key unless told otherwise. It answers only requests that name this machine as their host, so
 * that a page in a browser cannot reach it by a name of its own. Everything is closed with the scope.
 *
 * A fault is decided by the script's seed, the conversation and the attempt. The attempt is what the client says: the
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
 * @since 0.1.0
 */
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { randomBytes, timingSafeEqual } from "node:crypto"
import * as Answering from "../internal/loopback/answering.ts"
import { Attempts } from "../internal/loopback/attempts.ts"
import * as Completion from "../internal/loopback/completion.ts"
import { Exchange } from "../internal/loopback/exchange.ts"
import { Outages } from "../internal/loopback/outages.ts"
import { Recorder } from "../internal/loopback/recorder.ts"
import * as Server from "../internal/loopback/server.ts"
import * as OptionsCheck from "../internal/options.ts"
import type * as Journal from "./Journal.ts"
import * as Script from "./Script.ts"

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
 * What a provider is built from.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<R = never> {
  /** What to say. Default: an echo that says that it is one. */
  readonly answer?: Answer<R> | undefined
  /** What goes wrong. Default: nothing. */
  readonly script?: Script.Encoded | undefined
  readonly pace?: Pace | undefined
  /** The models that it knows; others are refused with 404. Default: it answers to every name. */
  readonly models?: ReadonlyArray<string> | undefined
  /** Default 0: any free port. */
  readonly port?: number | undefined
  /** What a client has to send as a bearer token; `false` lets everybody in. Default: a random one. */
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
  readonly port: number
  /** What a client has to send, if anything. */
  readonly apiKey: Redacted.Redacted | undefined
  /** Every request for a chat completion so far, the oldest first, also those that have not ended. */
  readonly journal: Effect.Effect<ReadonlyArray<Journal.Entry>>
  /** How many requests the journal has dropped, for want of capacity. */
  readonly dropped: Effect.Effect<number>
  /** Forgets everything, as if it had just begun: the journal, the attempts that were counted, the outage. */
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
  const outages = new Outages(script.outage, recorder.now().monotonic)
  const answering = {
    script,
    pace,
    models: options?.models,
    answer: options?.answer ?? echo,
    keepPrompts: options?.keepPrompts ?? true,
    attempts,
    outages
  }

  const handle = Effect.fnUntraced(function*(exchange: Exchange) {
    const { entry, request } = exchange
    const body = yield* exchange.body
    if (body === undefined) {
      return exchange.send(413, Completion.error("the request is too large", "invalid_request_error", null), "refused")
    }
    if (!isForThisMachine(request.headers.host)) {
      return exchange.send(
        403,
        Completion.error("this host is not served here", "invalid_request_error", null),
        "refused"
      )
    }
    if (apiKey !== undefined && !isAuthorized(request.headers.authorization, apiKey)) {
      const message = "Incorrect API key provided"
      return exchange.send(401, Completion.error(message, "invalid_request_error", "invalid_api_key"), "refused")
    }
    if (entry !== undefined) return yield* Answering.complete(answering, exchange, entry, body)
    if (request.method === "GET" && request.url === "/v1/models") {
      return exchange.send(200, Completion.models(options?.models ?? ["loopback"]), "complete")
    }
    exchange.send(404, Completion.error("no such endpoint", "invalid_request_error", null), "refused")
  })

  const run = yield* FiberSet.makeRuntime<R, void, never>()
  const port = yield* Server.listen(options?.port ?? 0, (request, response) => {
    const isCompletion = request.method === "POST" && request.url === "/v1/chat/completions"
    const exchange = new Exchange(request, response, recorder, isCompletion ? recorder.begin() : undefined)
    const fiber = run(Effect.catchDefect(handle(exchange), () => Effect.sync(() => exchange.fail())))
    response.once("close", () => {
      exchange.closed()
      fiber.interruptUnsafe()
    })
  }).pipe(Effect.mapError((code) => new ListenError({ port: options?.port ?? 0, code })))

  return LoopbackProvider.of({
    url: `http://127.0.0.1:${port}/v1`,
    port,
    apiKey,
    journal: Effect.sync(() => recorder.entries()),
    dropped: Effect.sync(() => recorder.dropped),
    clear: Effect.sync(() => {
      recorder.clear()
      attempts.clear()
      outages.clear(recorder.now().monotonic)
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

interface Settings {
  readonly script: Script.Script
  readonly pace: Answering.Pace
  readonly apiKey: Redacted.Redacted | undefined
  readonly journalCapacity: number
}

const check = <R>(options: Options<R> | undefined): Effect.Effect<Settings, InvalidOptions> =>
  Effect.flatMap(Effect.result(Script.decode(options?.script ?? {})), (script) => {
    const checked = new OptionsCheck.Options("LoopbackProvider")
    if (script._tag === "Failure") checked.refuse("script", script.failure.message, "a script, see Script")
    checked.integer("port", options?.port ?? 0, 0, 65_535)
    const longest = 2 ** 31 - 1
    const pace = {
      firstTokenMillis: checked.integer("pace.firstTokenMillis", options?.pace?.firstTokenMillis ?? 0, 0, longest),
      tokenMillis: checked.integer("pace.tokenMillis", options?.pace?.tokenMillis ?? 0, 0, longest),
      tokensPerChunk: checked.integer("pace.tokensPerChunk", options?.pace?.tokensPerChunk ?? 1, 1, longest)
    }
    const journalCapacity = checked.integer("journalCapacity", options?.journalCapacity ?? 100_000, 1, 10_000_000)
    const apiKey = options?.apiKey === false ? undefined : options?.apiKey ?? randomKey()
    return checked.check(
      script._tag === "Failure" ? undefined : { script: script.success, pace, apiKey, journalCapacity }
    )
  })

// From the system's generator, not from Effect's Random: a seed that replays a test must not foretell a key.
const randomKey = (): Redacted.Redacted => Redacted.make(`loopback-${randomBytes(24).toString("base64url")}`)

const isForThisMachine = (host: string | undefined): boolean =>
  host !== undefined && /^(?:127\.0\.0\.1|localhost)(?::\d+)?$/.test(host)

const isAuthorized = (header: string | undefined, apiKey: Redacted.Redacted): boolean => {
  const expected = Buffer.from(`Bearer ${Redacted.value(apiKey)}`)
  const actual = Buffer.from(header ?? "")
  return actual.length === expected.length && timingSafeEqual(actual, expected)
}
