import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { CurrentAttempt } from "@sluice/core/RetryPolicy"
import { OptionsReader } from "@sluice/core/OptionsReader"
import * as AiError from "effect/ai/AiError"
import { IdGenerator } from "effect/ai/IdGenerator"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import type * as Response from "effect/ai/Response"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { constTrue } from "effect/Function"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import type * as Redacted from "effect/Redacted"
import type * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Span } from "effect/Tracer"
import { CurrentIdempotencyKey } from "../../IdempotencyKey.ts"
import * as RetryAfter from "../../RetryAfter.ts"
import * as Mask from "./mask.ts"
import * as AnswerStream from "./answerStream.ts"
import * as Body from "./body.ts"
import type { Bounds } from "./bounds.ts"
import type { RequestConfig } from "./config.ts"
import * as Config from "./config.ts"
import * as Endpoint from "./endpoint.ts"
import type { EventReader } from "./eventReader.ts"
import * as Failure from "./failure.ts"
import * as Headers from "./headers.ts"
import * as Trace from "./trace.ts"

/** What every provider is built from. */
export interface Options<C extends RequestConfig> {
  readonly url: string
  readonly model: string
  readonly apiKey?: Redacted.Redacted | undefined
  readonly allowInsecureKey?: boolean | undefined
  readonly headers?: Headers.Custom | undefined
  readonly config?: C | undefined
  readonly propagateTrace?: boolean | undefined
  readonly maxAnswerSize?: number | undefined
  readonly maxEventSize?: number | undefined
  readonly maxJsonDepth?: number | undefined
  readonly maxErrorExcerpt?: number | undefined
  readonly maxRetryAfter?: Duration.Input | undefined
}

/** What one vendor's wire is, beside all that it has in common with the others. */
export interface Wire<C extends RequestConfig> {
  /** The module, for errors. */
  readonly module: string
  readonly place: Endpoint.Place
  /** Where the key goes, in small letters. */
  readonly keyHeader: string
  /** The headers that the wire needs, with the key. */
  readonly headers: (apiKey: Redacted.Redacted | undefined) => Headers.Custom
  /** The configuration of the requests within reach. */
  readonly config: Context.Reference<C>
  readonly codecTransformer: LanguageModel.CodecTransformer
  readonly takesSystemMessagesAnywhere: boolean
  /** The JSON of a request. Fails with what the wire cannot carry. */
  readonly body: (asked: Asked<C>) => Effect.Effect<string, AiError.AiError>
  /** Reads an answer that came in one piece. */
  readonly whole: (
    asked: Asked<C>,
    answered: Answered,
    body: string
  ) => Result.Result<Array<Response.PartEncoded>, AiError.AiError>
  /** Reads an answer that comes in events. */
  readonly streamed: (asked: Asked<C>, answered: Answered) => EventReader
}

/** A request. */
export interface Asked<C extends RequestConfig> {
  readonly origin: Failure.Origin
  readonly endpoint: Endpoint.Endpoint
  readonly config: C
  readonly call: LanguageModel.ProviderOptions
}

/** What came of it so far. */
export interface Answered {
  readonly response: HttpClientResponse.HttpClientResponse
  readonly bounds: Bounds
  /** For what needs an id and has none. */
  readonly newId: string
}

/** Builds the model. */
export const make = <C extends RequestConfig>(
  wire: Wire<C>,
  options: Options<C>
): Effect.Effect<LanguageModel.LanguageModel, InvalidOptions, HttpClient.HttpClient> =>
  Effect.flatMap(check(wire, options), (settings) => build(wire, options, settings))

/** Builds the model, and what it is called. */
export const context = <C extends RequestConfig>(
  wire: Wire<C>,
  options: Options<C>
): Effect.Effect<
  Context.Context<LanguageModel.LanguageModel | Model.ProviderName | Model.ModelName>,
  InvalidOptions,
  HttpClient.HttpClient
> =>
  Effect.flatMap(
    check(wire, options),
    (settings) =>
      Effect.map(build(wire, options, settings), (model) =>
        Context.make(LanguageModel.LanguageModel, model).pipe(
          Context.add(Model.ProviderName, settings.endpoint.host),
          Context.add(Model.ModelName, options.model)
        ))
  )

interface Settings {
  readonly endpoint: Endpoint.Endpoint
  readonly bounds: Bounds
  readonly maxErrorExcerpt: number
  readonly maxRetryAfter: Duration.Duration
}

const check = <C extends RequestConfig>(
  wire: Wire<C>,
  options: Options<C>
): Effect.Effect<Settings, InvalidOptions> => {
  const checked = new OptionsReader(wire.module)
  const headers =
    Config.merge<RequestConfig>({ headers: options.headers }, { headers: options.config?.headers }).headers
  const endpoint = Endpoint.fromOptions(
    checked,
    {
      url: options.url,
      apiKey: options.apiKey,
      hasSecret: Headers.secrets(headers).length > 0,
      allowInsecureKey: options.allowInsecureKey
    },
    wire.place
  )
  checked.nonEmptyString("model", options.model)
  const keyHeader = options.apiKey === undefined ? undefined : wire.keyHeader
  Headers.check(checked, options.headers, keyHeader, "headers")
  Headers.check(checked, options.config?.headers, keyHeader, "config.headers")
  const most = 2 ** 30
  const bounds: Bounds = {
    answerSize: checked.integer("maxAnswerSize", options.maxAnswerSize ?? 16 * 2 ** 20, 1, most),
    eventSize: checked.integer("maxEventSize", options.maxEventSize ?? 2 ** 20, 1, most),
    jsonDepth: checked.integer("maxJsonDepth", options.maxJsonDepth ?? 64, 1, 1000)
  }
  const maxErrorExcerpt = checked.integer("maxErrorExcerpt", options.maxErrorExcerpt ?? 2048, 0, most)
  const maxRetryAfter = checked.duration("maxRetryAfter", options.maxRetryAfter ?? RetryAfter.defaultMax, 0)
  const { invalid } = checked
  // An endpoint that was not read is an issue.
  return invalid !== undefined || endpoint === undefined
    ? Effect.fail(invalid as InvalidOptions)
    : Effect.succeed({ endpoint, bounds, maxErrorExcerpt, maxRetryAfter })
}

/** How much of an error's body is read for the sake of its code and message. */
const errorBodyBytes = 64 * 1024

const build = Effect.fnUntraced(function*<C extends RequestConfig>(
  wire: Wire<C>,
  options: Options<C>,
  settings: Settings
) {
  const { bounds, endpoint } = settings
  const { apiKey } = options
  const secrets = [
    ...(apiKey === undefined ? [] : [apiKey]),
    ...Headers.secrets(options.headers),
    ...Headers.secrets(options.config?.headers)
  ]
  const mask = Mask.make(secrets)
  const keyHeader = apiKey === undefined ? undefined : wire.keyHeader
  const base: RequestConfig = { headers: options.headers }
  // Ties each request to a scope, so that closing it closes the connection, whatever state the request is in.
  const client = HttpClient.withScope(yield* HttpClient.HttpClient)

  const ask = Effect.fnUntraced(function*(method: Failure.Origin["method"], call: LanguageModel.ProviderOptions) {
    const inner = yield* wire.config
    const config = options.config === undefined ? inner : Config.merge(options.config, inner)
    const headers = Config.merge(base, config).headers
    const innerSecrets = Headers.secrets(inner.headers)
    const origin: Failure.Origin = {
      module: wire.module,
      provider: endpoint.host,
      method,
      model: config.model ?? options.model,
      url: endpoint.shown,
      hasKey: secrets.length > 0,
      mask: innerSecrets.length === 0 ? mask : Mask.make([...secrets, ...innerSecrets]),
      excerptLength: settings.maxErrorExcerpt,
      maxRetryAfter: settings.maxRetryAfter
    }
    const idempotencyKey = config.idempotencyKey ?? (yield* CurrentIdempotencyKey)
    const idempotency: Headers.Custom = idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey }
    const wrong = Headers.firstProblem({ ...inner.headers, ...idempotency }, keyHeader)
    if (wrong !== undefined) {
      return yield* Effect.fail(Failure.make(origin, new AiError.InvalidUserInputError({ description: wrong })))
    }
    const asked: Asked<C> = { origin, endpoint, config, call }
    const json = yield* wire.body(asked)
    Trace.request(call.span, endpoint.host, origin.model, config)
    const attempt = yield* CurrentAttempt
    const request = HttpClientRequest.post(endpoint.url, {
      headers: {
        "user-agent": "sluice",
        ...Headers.plain(headers),
        ...(attempt === undefined ? {} : { "x-sluice-attempt": String(attempt.attempt) }),
        ...Headers.plain(idempotency)
      }
    }).pipe(
      HttpClientRequest.setHeaders(Headers.plain(wire.headers(apiKey))),
      HttpClientRequest.bodyText(json, "application/json")
    )
    const response = yield* send(client, origin, endpoint, request, options.propagateTrace === true)
    if (response.status < 200 || response.status > 299) return yield* refused(origin, response)
    const newId = yield* Effect.flatMap(IdGenerator, (ids) => ids.generateId())
    const answered: Answered = { response, bounds, newId }
    return { asked, answered }
  })

  const generateText = Effect.fnUntraced(function*(call: LanguageModel.ProviderOptions) {
    const { answered, asked } = yield* ask("generateText", call)
    const { origin } = asked
    const { response } = answered
    const body = yield* Body.text(response, bounds.answerSize).pipe(
      Effect.catch((error) =>
        error._tag === "TooLarge"
          ? Effect.fail(Failure.incompatible(origin, response, `an answer of more than ${bounds.answerSize} bytes`))
          : lost(origin, error)
      )
    )
    const parts = yield* Effect.fromResult(wire.whole(asked, answered, body))
    Trace.parts(call.span, parts)
    return parts
  }, Effect.scoped)

  const streamText = Effect.fnUntraced(function*(call: LanguageModel.ProviderOptions) {
    const { answered, asked } = yield* ask("streamText", call)
    const { response } = answered
    const type = response.headers["content-type"] ?? ""
    if (type.includes("json") || type.includes("html")) return yield* notStreamed(wire, asked, answered)
    const answer = wire.streamed(asked, answered)
    return Stream.mapArray(AnswerStream.make(response.stream, answer, asked.origin), (parts) => {
      Trace.parts(call.span, parts)
      return parts
    })
  })

  return yield* LanguageModel.make({
    generateText,
    streamText: (call) => Stream.unwrap(streamText(call)),
    codecTransformer: wire.codecTransformer,
    supportsSystemMessagesInHistory: Effect.succeed(wire.takesSystemMessagesAnywhere)
  })
})

/**
 * Sends a request, in a span of our own. The client's would end with the whole request as its result, prompt and key
 * included, for every tracer that looks into results, and it shows the URL's query. It would also tell the provider by
 * `traceparent` which requests of its customer belong together, which is none of its business unless the customer says so.
 */
const send = (
  client: HttpClient.HttpClient.With<HttpClientError.HttpClientError, Scope.Scope>,
  origin: Failure.Origin,
  endpoint: Endpoint.Endpoint,
  request: HttpClientRequest.HttpClientRequest,
  propagateTrace: boolean
): Effect.Effect<HttpClientResponse.HttpClientResponse, AiError.AiError, Scope.Scope> =>
  Effect.suspend(() => {
    let received: HttpClientResponse.HttpClientResponse | undefined
    const exchange = (span: Span) =>
      client.execute(propagateTrace ? HttpClientRequest.setHeaders(request, HttpTraceContext.toHeaders(span)) : request)
        .pipe(
          Effect.provideService(HttpClient.TracerDisabledWhen, constTrue),
          Effect.matchEffect({
            onFailure: (error) => lost(origin, error),
            onSuccess: (response) => {
              received = response
              span.attribute("http.response.status_code", response.status)
              if (response.status >= 400) span.attribute("error.type", String(response.status))
              return Effect.void
            }
          })
        )
    const attributes = {
      "http.request.method": "POST",
      "url.full": endpoint.shown,
      "server.address": endpoint.host,
      "server.port": endpoint.port
    }
    return Effect.flatMap(
      Effect.useSpan("http.client POST", { kind: "client", attributes }, exchange),
      () => received === undefined ? Effect.die("a request that succeeded has no answer") : Effect.succeed(received)
    )
  })

const lost = (origin: Failure.Origin, error: HttpClientError.HttpClientError): Effect.Effect<never, AiError.AiError> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.fail(Failure.transport(origin, error, now)))

const refused = (
  origin: Failure.Origin,
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<never, AiError.AiError> =>
  Effect.flatMap(
    Body.beginning(response, errorBodyBytes),
    (body) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.fail(Failure.fromStatus(origin, response, body, now)))
  )

/** A whole body where a stream was asked for: an error that names itself, or something else than an answer. */
const notStreamed = <C extends RequestConfig>(
  wire: Wire<C>,
  asked: Asked<C>,
  answered: Answered
): Effect.Effect<never, AiError.AiError> =>
  Effect.flatMap(
    Body.beginning(answered.response, errorBodyBytes),
    (body) =>
      Effect.flatMap(Effect.fromResult(wire.whole(asked, answered, body)), () =>
        Effect.fail(
          Failure.incompatible(asked.origin, answered.response, "a whole answer, where a stream was asked for")
        ))
  )
