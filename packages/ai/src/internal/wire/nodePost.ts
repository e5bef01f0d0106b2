import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as HttpHeaders from "effect/http/Headers"
import * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Stream from "effect/Stream"
import * as Http from "node:http"
import * as Https from "node:https"
import process from "node:process"
import { urlToHttpOptions } from "node:url"
import * as Decompress from "./decompress.ts"
import type { ResponseHead } from "./failure.ts"
import { type Exchange, Gate, type Listener, type Post, type Sent } from "./post.ts"
import type { StaleSockets } from "./staleSockets.ts"

export interface Agents {
  readonly http: Http.Agent
  readonly https: Https.Agent
}

/** Sends over the kept connections, and once more over a fresh one if a kept one had gone stale. */
export const nodePost = (kept: Agents, fresh: Agents, staleSockets: StaleSockets): Post => {
  // A provider has one URL, and its options need not be made for each request.
  const prepared = new WeakMap<URL, Http.RequestOptions>()
  const optionsOf = (url: URL): Http.RequestOptions => {
    const known = prepared.get(url)
    if (known !== undefined) return known
    const { hostname, path, port } = urlToHttpOptions(url)
    const options = { hostname, path, port }
    prepared.set(url, options)
    return options
  }
  return (sent, listener, context) => {
    const exchange = new NodeExchange(
      sent,
      optionsOf(sent.url),
      listener,
      context,
      (error) => staleSockets.has(error) ? fresh : undefined
    )
    exchange.open(kept)
    return exchange
  }
}

/** The methods whose requests have no length if they have no body. */
const hasNoBody = new Set(["GET", "HEAD"])

class NodeExchange implements Exchange {
  private sent: Sent
  private readonly options: Http.RequestOptions
  private readonly listener: Listener
  private readonly context: Context.Context<never>
  private readonly retried: (error: Error) => Agents | undefined
  private request: Http.ClientRequest | undefined
  private decoding: Fiber.Fiber<unknown, unknown> | undefined
  private message: Http.IncomingMessage | undefined
  /** Of a body that is decoded. */
  private gate: Gate | undefined
  private isOver = false

  constructor(
    sent: Sent,
    options: Http.RequestOptions,
    listener: Listener,
    context: Context.Context<never>,
    retried: (error: Error) => Agents | undefined
  ) {
    this.sent = sent
    this.options = options
    this.listener = listener
    this.context = context
    this.retried = retried
  }

  open(agents: Agents): void {
    const { body, headers, method, url } = this.sent
    const isSecure = url.protocol === "https:"
    const options = {
      ...this.options,
      method,
      agent: isSecure ? agents.https : agents.http,
      headers: {
        "accept-encoding": Decompress.acceptEncoding,
        ...headers,
        ...(body.length === 0 && hasNoBody.has(method) ? {} : { "content-length": Buffer.byteLength(body) })
      }
    }
    const request = this.request = isSecure ? Https.request(options) : Http.request(options)
    let isAnswered = false
    request.on("response", (message) => {
      isAnswered = true
      this.onResponse(message)
    })
    request.on("upgrade", (message, socket) => {
      isAnswered = true
      socket.destroy()
      if (this.isOver) return
      this.listener.answered(new Head(message, false))
      this.end()
    })
    request.on("error", (error) => {
      if (isAnswered || this.isOver) return
      const fresh = this.retried(error)
      if (fresh === undefined) this.lose(error)
      else this.open(fresh)
    })
    // One write: the length of the body is known.
    request.end(body)
  }

  readonly close = (): void => {
    if (this.isOver) return
    this.isOver = true
    this.decoding?.interruptUnsafe()
    this.request?.destroy()
  }

  readonly pause = (): void => {
    if (this.gate === undefined) this.message?.pause()
    else this.gate.close()
  }

  readonly resume = (): void => {
    if (this.gate === undefined) this.message?.resume()
    else this.gate.open()
  }

  private onResponse(message: Http.IncomingMessage): void {
    this.message = message
    // A body can be large, and an answer can take minutes.
    this.sent = { ...this.sent, body: "" }
    // An `error` without a listener would end the process.
    message.on("error", (error) => {
      // What was decoded before it comes first.
      if (this.gate === undefined) this.lose(error)
    })
    if (this.isOver) {
      message.destroy()
      return
    }
    const codings = Decompress.codingsOf(message.statusCode ?? 0, message.headers["content-encoding"])
    if (codings.length > Decompress.maxCodings) {
      this.lose(Decompress.tooManyCodings())
      message.destroy()
      return
    }
    this.listener.answered(new Head(message, codings.length > 0))
    if (codings.length > 0) return this.decode(message, codings)
    if (this.isOver) return
    message.on("data", (bytes: Buffer) => {
      if (!this.isOver) this.listener.data(bytes)
    })
    // The agent has the connection back a tick after the end. The caller's next request can then use it.
    message.on("end", () => process.nextTick(this.end))
  }

  private decode(message: Http.IncomingMessage, codings: ReadonlyArray<Decompress.Coding>): void {
    if (this.isOver) return
    const bytes = NodeStream.fromReadable<Uint8Array, unknown>({ evaluate: () => message, onError: (error) => error })
    const gate = this.gate = new Gate()
    const reading = Stream.runForEachArray(Decompress.decoded(bytes, codings), (chunks) => {
      for (const chunk of chunks) if (!this.isOver) this.listener.data(chunk)
      return gate.pass
    })
    const decoding = this.decoding = Effect.runForkWith(this.context)(reading)
    decoding.addObserver((exit) => Exit.isSuccess(exit) ? this.end() : this.lose(Cause.squash(exit.cause)))
  }

  private readonly end = (): void => {
    if (this.isOver) return
    this.isOver = true
    this.listener.ended()
  }

  private lose(cause: unknown): void {
    if (this.isOver) return
    this.isOver = true
    const request = HttpClientRequest.make(this.sent.method)(this.sent.url)
    this.listener.lost(
      new HttpClientError.HttpClientError({ reason: new HttpClientError.TransportError({ request, cause }) })
    )
  }
}

class Head implements ResponseHead {
  /** Has the header fields that Node merges. */
  readonly source: Http.IncomingMessage
  private readonly isDecoded: boolean
  private made: HttpHeaders.Headers | undefined

  constructor(source: Http.IncomingMessage, isDecoded: boolean) {
    this.source = source
    this.isDecoded = isDecoded
  }

  get status(): number {
    return this.source.statusCode ?? 0
  }

  // Made when they are read. A good response needs none but its type.
  get headers(): HttpHeaders.Headers {
    if (this.made !== undefined) return this.made
    // Node has no name without a value.
    const made = HttpHeaders.fromInput(this.source.headers as Record<string, string | ReadonlyArray<string>>)
    return this.made = this.isDecoded ? HttpHeaders.removeMany(made, ["content-encoding", "content-length"]) : made
  }
}
