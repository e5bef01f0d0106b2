/**
 * A front for models: any client of OpenAI's or Anthropic's API gets retries, fallback, circuits, limits, and streams that are
 * complete or fail.
 *
 * **When to use**
 *
 * - With the clients `openai`, `@anthropic-ai/sdk` and the AI SDK: pass the front's `fetch` to the client, and switch off the
 *   client's retries.
 * - In a server, for clients in other processes and languages: `listener` for `node:http`, `handler` for Web requests.
 *
 * **When not to use**
 *
 * - In a program that calls Effect's `LanguageModel`. Use `ResilientModel`.
 *
 * **Details**
 *
 * A call has the same attempts, circuits, permits, quotas, deadlines, logs and telemetry as a call of `ResilientModel`. The
 * bytes of the request and of the answer are passed on, so unknown fields and long numbers do not change. Only the model's
 * name, the key and the headers of the connection change.
 *
 * A stream:
 *
 * - Is held until its first output, or with `answer: "whole"` until it is complete. A failure before that is retried, and the
 *   client does not see it.
 * - Ends with the error event of the client's API after a later failure: a lost connection, a silence or an error of the
 *   provider. Every official client raises an error on this event. Without it, some clients report a partial answer as a
 *   success.
 * - Goes on at a target with `prefill` after such a failure, if there is one and if the answer is text.
 * - Is complete once the provider has sent the finish reason, even if the connection fails after that.
 *
 * A request to a target with the other API is translated, between chat completions and messages. A request with a field that
 * has no equivalent is refused, with the field as `param`. Fields that change only the cost are left out, and listed in
 * `x-sluice-omitted`. Responses and embeddings are not translated.
 *
 * | request | answer |
 * |---|---|
 * | `POST /v1/chat/completions`, `/v1/responses`, `/v1/embeddings`, `/v1/messages` | a call, at the targets of its model that have the endpoint |
 * | `GET /v1/models` | the models that the front names; the first target's list if it offers every model |
 * | `GET /sluice/calls/ID` | the log of one of the last calls, by the `x-sluice-call` of its response |
 * | other requests below `/v1` | the answer of the first target with this API, without circuit, permits and quota; a GET is retried before its answer begins, within the account of that target |
 *
 * A response has the headers `x-sluice-target`, `x-sluice-attempts` and `x-sluice-call`. An error in the words of the front has its code
 * in `x-sluice-code`, since errors of Anthropic's API have no field for it.
 *
 * Options of the front, in addition to the options of `ResilientModel` that are not about parts of a stream:
 *
 * | option | default | why this default, when to change it |
 * |---|---|---|
 * | `targets` | required | |
 * | `models` | each target decides | set it if a model needs its own order of targets |
 * | `translate` | true | allows a fallback to the other API; set it to false if only targets with the client's API are acceptable |
 * | `omittable` | none | a field without an equivalent is refused; list fields that may be left out, such as `thinking` for Claude Code |
 * | `heartbeat` | never | set it behind a proxy that closes silent connections, to less than its limit |
 * | `countUsage` | false | does not change the request; set it for exact token counts if clients do not request them |
 * | `dedupe` | false | set it if clients send equal requests at the same time; all get the same answer, also with a temperature |
 * | `maxBodyBytes` | 32 Mi | the largest request that the providers accept |
 * | `maxAnswerBytes` | 16 Mi | a whole answer is held until it is complete |
 * | `keptCalls` | 1,000 | a log takes about 1 KB |
 *
 * A target has the options of a target of `ResilientModel`, and the following instead of `layer`:
 *
 * | option | default | why this default, when to change it |
 * |---|---|---|
 * | `url`, `speaks` | required | the base URL up to `/v1`, and the API: `"openai"` or `"anthropic"` |
 * | `endpoints` | all of the API | set it for a server with only some of them |
 * | `apiKey`, `keyHeader`, `headers` | none | they replace the client's |
 * | `allowInsecureKey` | false | a key would be sent unencrypted to another machine |
 * | `model` | the client's | set it for a target with another name for the model, or with another model |
 * | `models` | every model | set it for a target with only some models, or with other names for them |
 * | `prefill` | false | set it for a model that you have seen continue the beginning of an answer |
 *
 * **Errors**
 *
 * - A call that failed after all attempts has the status, the headers and the body of the provider's last error, with
 *   `x-should-retry: false`. A key that the body quotes is masked, and errors about the target's own key become 502.
 * - Other refusals have the status and the code of `AiRejection.toHttp`, in the form of the client's API.
 * - Invalid options fail the layer with `InvalidOptions`, which has all issues.
 *
 * **Gotchas**
 *
 * - Switch off the retries of the client (`maxRetries: 0`), or attempts multiply. `openai` and `@anthropic-ai/sdk` obey
 *   `x-should-retry`, and the AI SDK does not. The front logs one warning when a client repeats a request whose attempts all
 *   failed.
 * - A front does not authenticate clients. `sluice serve` does.
 * - An answer that is not streamed is held until it is complete, so its client needs a long timeout.
 *
 * **Example** (The second target answers)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import * as Front from "@sluice/ai/Front"
 * import * as HttpTransport from "@sluice/ai/HttpTransport"
 * import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
 * import * as Turn from "@sluice/ai/testing/Turn"
 *
 * const program = Effect.gen(function*() {
 *   const down = yield* LoopbackProvider.make({ turns: [Turn.status(503), Turn.status(503)] })
 *   const up = yield* LoopbackProvider.make({ turns: [Turn.answer("Good morning")] })
 *   const Model = Front.layer({
 *     targets: [
 *       { name: "down", url: down.url, speaks: "openai", apiKey: down.apiKey },
 *       { name: "up", url: up.url, speaks: "openai", apiKey: up.apiKey }
 *     ],
 *     retriesHere: 0
 *   }).pipe(Layer.provide(HttpTransport.layer()))
 *
 *   const ask = Front.Front.use(({ fetch }) =>
 *     Effect.promise(() =>
 *       fetch("http://front/v1/chat/completions", {
 *         method: "POST",
 *         headers: { "content-type": "application/json" },
 *         body: JSON.stringify({ model: "any", messages: [{ role: "user", content: "Hello" }] })
 *       })
 *     )
 *   )
 *   const response = yield* Effect.provide(ask, Model)
 *   console.log(response.status, response.headers.get("x-sluice-target"))
 * })
 *
 * await Effect.runPromise(Effect.scoped(program)) // => 200 up
 * ```
 *
 * @since 0.1.0
 */
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import * as CircuitBreakerStores from "@sluice/core/CircuitBreakerStore"
import * as Deduplicator from "@sluice/core/Deduplicator"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { CallLog } from "./CallLog.ts"
import { CallLogs } from "./internal/front/callLogs.ts"
import { containedPost } from "./internal/front/contain.ts"
import { Core } from "./internal/front/core.ts"
import type { Exchange, Sink } from "./internal/front/exchange.ts"
import { Models } from "./internal/front/models.ts"
import { type Listener, listener, receive as receiveBy, type ReceiveOptions } from "./internal/front/nodeEdge.ts"
import { type FrontOptions, read } from "./internal/front/options.ts"
import { Shared } from "./internal/front/shared.ts"
import { UpstreamService } from "./internal/front/upstream.ts"
import { fetchOf, handler } from "./internal/front/webEdge.ts"
import { build, reportsOf } from "./internal/resilient/build.ts"
import { CurrentLogs } from "./internal/resilient/lastLogs.ts"
import { postOf, postThrough } from "./internal/wire/post.ts"
import type { ResilientModel, TargetState } from "./ResilientModel.ts"

export type { Exchange, Sink } from "./internal/front/exchange.ts"
export type { ReceiveOptions } from "./internal/front/nodeEdge.ts"
export type { FrontOptions, FrontTarget } from "./internal/front/options.ts"

/**
 * A front, and the state and the events of its targets.
 *
 * @since 0.1.0
 * @category services
 */
export class Front extends Context.Service<
  Front,
  ResilientModel["Service"] & {
    /** For a client in this process. The host of a URL is ignored. */
    readonly fetch: typeof globalThis.fetch
    /** For a server with Web requests: Next, Hono, Bun, Deno. */
    readonly handler: (request: Request) => Promise<Response>
    /** For a server of `node:http`, Express or Fastify. */
    readonly listener: Listener
    /** For a server of another kind. */
    readonly exchange: (exchange: Exchange, sink: Sink) => void
    /** The log of one of the last calls, by the `x-sluice-call` of its response. */
    readonly call: (id: string) => CallLog | undefined
  }
>()("@sluice/ai/Front") {}

const makeService = Effect.fnUntraced(function*(
  options: FrontOptions
): Effect.fn.Return<Front["Service"], InvalidOptions, CircuitBreakerStore | HttpClient.HttpClient | Scope.Scope> {
  const { dedupes, keptCalls, maxBodyBytes, routes, shared: calls, targets, ...settings } = yield* read(options)
  const engine = yield* build(calls, targets, UpstreamService, "Front")
  const client = yield* HttpClient.HttpClient
  const logs = new CallLogs(keptCalls)
  const context = yield* Effect.context<never>()
  const name = `${engine.settings.name}/front`
  const shared = dedupes ? new Shared(yield* Deduplicator.make({ name }), context) : undefined
  const core = new Core({
    ...settings,
    shared,
    engine,
    logs,
    models: new Models(engine.targets, routes),
    post: containedPost(postOf(client) ?? postThrough(client)),
    context: Context.add(context, CurrentLogs, logs)
  })
  yield* Effect.addFinalizer(() => {
    core.stop()
    return shared?.over ?? Effect.void
  })
  const edge = { exchange: core.exchange, refuse: core.refuse, maxBodyBytes }
  return {
    ...reportsOf(engine),
    fetch: fetchOf(edge),
    handler: handler(edge),
    listener: listener(edge),
    exchange: core.exchange,
    call: (id) => logs.get(id)
  }
})

/**
 * Provides a front with circuits in the `CircuitBreakerStore` of the context.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStore = (
  options: FrontOptions
): Layer.Layer<Front, InvalidOptions, CircuitBreakerStore | HttpClient.HttpClient> =>
  Layer.effect(Front, makeService(options))

/**
 * Provides a front. Circuits are kept in this process, and each layer has its own.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: FrontOptions): Layer.Layer<Front, InvalidOptions, HttpClient.HttpClient> =>
  Layer.provide(layerStore(options), Layer.fresh(CircuitBreakerStores.layerMemory))

/**
 * A front for programs without Effect.
 *
 * @since 0.1.0
 * @category models
 */
export interface PromiseFront extends Pick<Front["Service"], "call" | "exchange" | "fetch" | "handler" | "listener"> {
  /** The state of every target, in order. */
  readonly targets: () => Promise<ReadonlyArray<TargetState>>
  /** Refuses further requests, ends running requests with an error, and closes the connections. */
  readonly close: () => Promise<void>
}

/**
 * Builds a front for a program without Effect. Rejects with `InvalidOptions`. Its warnings are written to standard error.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = async (options: FrontOptions): Promise<PromiseFront> => {
  // Standard output is the program's.
  const surroundings = Layer.merge(await transport(), Layer.succeed(References.LogToStderr, true))
  const runtime = ManagedRuntime.make(Layer.provide(layer(options), surroundings))
  const exit = await runtime.runPromiseExit(Front)
  if (Exit.isFailure(exit)) {
    await runtime.dispose()
    throw Cause.squash(exit.cause)
  }
  const { call, exchange, fetch, handler, listener, targets } = exit.value
  return {
    call,
    exchange,
    fetch,
    handler,
    listener,
    targets: () => runtime.runPromise(targets),
    close: () => runtime.dispose()
  }
}

/**
 * Receives a request of `node:http`, and hands it over with the sink of its answer.
 *
 * **When to use**
 *
 * - In a server that checks or counts each request before it reaches `exchange`. Otherwise `listener` is enough.
 *
 * **Details**
 *
 * The body is read as a whole. Headers that were set on the response before are sent with the answer. A request whose client leaves
 * before its body has arrived is dropped.
 *
 * **Example** (A server with a key)
 *
 * ```ts
 * import * as Front from "@sluice/ai/Front"
 * import { createServer } from "node:http"
 *
 * export const serve = (front: Front.PromiseFront, token: string) =>
 *   createServer((request, response) => {
 *     if (request.headers.authorization !== `Bearer ${token}`) return void response.writeHead(401).end()
 *     Front.receive(request, response, {
 *       exchange: front.exchange,
 *       refuse: (code, _, sink) => {
 *         sink.head(code === "request_too_large" ? 413 : 500, {})
 *         sink.end()
 *       },
 *       maxBodyBytes: 2 ** 20
 *     })
 *   })
 * ```
 *
 * @since 0.1.0
 * @category accessors
 */
export const receive: (request: IncomingMessage, response: ServerResponse, options: ReceiveOptions) => void = receiveBy

/** The transport for Node, or `fetch` where there is no Node. */
const transport = async (): Promise<Layer.Layer<HttpClient.HttpClient, InvalidOptions>> =>
  globalThis.process?.versions?.node === undefined
    ? (await import("effect/http/FetchHttpClient")).layer
    : (await import("./HttpTransport.ts")).layer()
