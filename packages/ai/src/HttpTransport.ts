/**
 * An `HttpClient` for Node, made for language models.
 *
 * **When to use**
 *
 * With `OpenAiCompatible` and `AnthropicMessages`, and with Effect's own providers.
 *
 * **Details**
 *
 * - Uses `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`. Lower-case names take precedence, as in curl. A URL of this
 *   machine goes to a proxy only with `proxyLoopback`.
 * - Does not follow redirects, which would carry key and prompt to another host.
 * - Keeps connections alive, and closes them with the layer.
 * - Sends a request once more, on a new connection, if its connection had been idle for 1 s or more and is closed within 1 s
 *   of the sending, before any byte of a response. Such a connection was closed while it was idle, without a failure of the
 *   provider. After a shorter pause or a later close the request may have been received and paid for, so the call fails.
 * - Has no timeout: a silent model or a long answer is for the policy to end. (Node's `fetch` fails after five
 *   minutes.)
 * - Requests compressed responses, and decompresses them as they are read. So a size limit holds even for a few
 *   kilobytes that expand to gigabytes. Codings that were not requested are removed too: gzip, deflate, br and zstd, up to
 *   five in a row.
 * - Closes the connection of an interrupted request.
 * - Runs on `node:http`. The alternative undici takes 45 ms to load, three times as long.
 *
 * **Gotchas**
 *
 * - Proxies need Node 22.21, 24.5 or later. On an older version the layer fails if a proxy is set.
 * - For your own certificates set `NODE_EXTRA_CA_CERTS`, which Node reads when it starts.
 *
 * **Example** (A model on this machine)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { LanguageModel } from "effect/ai"
 * import * as HttpTransport from "@sluice/ai/HttpTransport"
 * import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
 *
 * const Model = OpenAiCompatible.layer({ url: "http://localhost:11434/v1", model: "llama3.2" }).pipe(
 *   Layer.provide(HttpTransport.layer())
 * )
 *
 * const program = LanguageModel.generateText({ prompt: "Good morning" }).pipe(Effect.provide(Model))
 *
 * console.log(Effect.isEffect(program)) // => true
 * ```
 *
 * @since 0.1.0
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import * as Https from "node:https"
import process from "node:process"
import { decompress } from "./internal/wire/decompress.ts"
import { isLoopback } from "./internal/wire/loopback.ts"
import { type Agents, nodePost } from "./internal/wire/nodePost.ts"
import { type Post, withPost } from "./internal/wire/post.ts"
import { StaleSockets } from "./internal/wire/staleSockets.ts"

/**
 * Options for `make` and `layer`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** Has `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`. Default: the environment of the process. */
  readonly environment?: { readonly [name: string]: string | undefined } | undefined
  /** Whether requests to this machine use the proxy too, unless `NO_PROXY` excludes it. Default false. */
  readonly proxyLoopback?: boolean | undefined
}

/**
 * Builds the client. Its connections are closed with the scope.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = Effect.fnUntraced(function*(
  options?: Options
): Effect.fn.Return<HttpClient.HttpClient, InvalidOptions, Scope.Scope> {
  const proxy = yield* readProxy(options?.environment ?? process.env)
  const main = yield* connections(proxy)
  if (proxy === undefined || options?.proxyLoopback === true) return withPost(decompress(main.client), main.post)
  const direct = yield* connections(undefined)
  // Decompression goes around both: it changes the request, and a scope identifies requests by identity.
  const client = HttpClient.transform(
    main.client,
    (effect, request) => isForThisMachine(request) ? direct.client.execute(request) : effect
  )
  return withPost(
    decompress(client),
    (sent, ...rest) => isLoopback(sent.url) ? direct.post(sent, ...rest) : main.post(sent, ...rest)
  )
})

/**
 * Provides the client.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options?: Options): Layer.Layer<HttpClient.HttpClient, InvalidOptions> =>
  Layer.effect(HttpClient.HttpClient, make(options))

interface Proxy {
  readonly HTTPS_PROXY: string | undefined
  readonly HTTP_PROXY: string | undefined
  readonly NO_PROXY: string | undefined
}

/** A client, and the way around it to the same connections. */
interface Connections {
  readonly client: HttpClient.HttpClient
  readonly post: Post
}

const connections = Effect.fnUntraced(function*(
  proxy: Proxy | undefined
): Effect.fn.Return<Connections, never, Scope.Scope> {
  const proxyEnv = proxy === undefined ? {} : { proxyEnv: { ...proxy } }
  const kept = yield* agents({ keepAlive: true, ...proxyEnv })
  const fresh = yield* agents({ keepAlive: false, ...proxyEnv })
  const clock = yield* Clock.Clock
  const staleSockets = new StaleSockets(() => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n))
  staleSockets.watch(kept.http)
  staleSockets.watch(kept.https)
  return {
    client: staleSockets.retried(yield* clientOf(kept), yield* clientOf(fresh)),
    post: nodePost(kept, fresh, staleSockets)
  }
})

const agents = (options: Http.AgentOptions): Effect.Effect<Agents, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => ({ http: new Http.Agent(options), https: new Https.Agent(options) })),
    (agents) =>
      Effect.sync(() => {
        agents.http.destroy()
        agents.https.destroy()
      })
  )

const clientOf = (agents: Agents): Effect.Effect<HttpClient.HttpClient> =>
  Effect.provideService(NodeHttpClient.makeNodeHttp, NodeHttpClient.HttpAgent, agents)

const readProxy = (
  environment: NonNullable<Options["environment"]>
): Effect.Effect<Proxy | undefined, InvalidOptions> => {
  const checked = new OptionsReader("HttpTransport")
  const https = read(environment, "HTTPS_PROXY")
  const http = read(environment, "HTTP_PROXY")
  if (https === undefined && http === undefined) return Effect.undefined
  checkProxy(checked, "HTTPS_PROXY", https)
  checkProxy(checked, "HTTP_PROXY", http)
  if (!canUseProxy(process.versions.node)) {
    checked.refuse(
      "HTTPS_PROXY",
      `Node ${process.versions.node}`,
      "must be absent: a proxy needs Node 22.21, 24.5 or later"
    )
  }
  return checked.check({ HTTPS_PROXY: https, HTTP_PROXY: http, NO_PROXY: read(environment, "NO_PROXY") })
}

const read = (environment: NonNullable<Options["environment"]>, name: string): string | undefined =>
  environment[name.toLowerCase()] || environment[name] || undefined

const checkProxy = (checked: OptionsReader, name: string, value: string | undefined): void => {
  if (value === undefined) return
  const protocol = URL.parse(value)?.protocol
  // The value may have a password, so the message shows the protocol only.
  if (protocol !== "http:" && protocol !== "https:") {
    checked.refuse(
      name,
      protocol === undefined ? "not a URL" : `${protocol}//...`,
      "must be an http:// or https:// URL"
    )
  }
}

const canUseProxy = (version: string): boolean => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  return major > 24 || (major === 24 && minor >= 5) || (major === 22 && minor >= 21)
}

const isForThisMachine = (request: HttpClientRequest.HttpClientRequest): boolean =>
  Option.exists(HttpClientRequest.toUrl(request), isLoopback)
