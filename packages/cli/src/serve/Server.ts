/** The HTTP server of the gateway: checks of requests, bounds, and the end without a lost answer. */
import type { Exchange, Sink } from "@sluice/ai/Front"
import type { IncomingMessage, Server as HttpServer, ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import * as Checks from "./Checks.ts"
import type { Client } from "./Clients.ts"
import * as Refusal from "./Refusal.ts"

export interface Options {
  readonly host: string
  readonly port: number
  /** Names of hosts besides localhost and IP addresses, in lower case. */
  readonly allowedHosts: () => ReadonlySet<string>
  /** Finds the client of a request. */
  readonly client: (request: IncomingMessage) => Client | undefined
  /** Answers below `/v1/` once the body was read. */
  readonly handle: (client: Client, exchange: Exchange, sink: Sink) => void
  /** Answers paths that need no key. Returns false if there is no such path. */
  readonly open: (response: ServerResponse, path: string) => boolean
  /** Answers paths of the gateway itself. Returns false if there is no such path. */
  readonly own: (request: IncomingMessage, response: ServerResponse, path: string, client: Client) => boolean
  readonly onRefused: (code: string, path: string) => void
  /** A defect. The request gets a 500, and the others go on. */
  readonly onDefect: (error: unknown) => void
  readonly onRunning: (count: number) => void
}

/** As large as the requests with images that the providers take. */
const maxBodyBytes = 32 * 2 ** 20
const maxHeaderBytes = 16 * 2 ** 10

/** How long clients may hold a connection up, in milliseconds. No limit applies to a response whose bytes the client reads. */
export interface Times {
  /** To send the headers of a request. */
  readonly headers: number
  /** To send a request. */
  readonly request: number
  /** Between two requests. */
  readonly keepAlive: number
  /** To read some of the bytes that wait for it. */
  readonly unread: number
  /** How often the limits of requests are checked. */
  readonly check: number
}

const usual: Times = {
  headers: 60_000,
  request: 300_000,
  // Longer than load balancers keep an idle connection. Otherwise they would send a request while it closes.
  keepAlive: 65_000,
  unread: 300_000,
  check: 30_000
}

export class Server {
  private readonly options: Options
  private readonly times: Times
  private readonly server: HttpServer
  private running = 0
  private onIdle: (() => void) | undefined
  /** `draining`: answers, and tells load balancers to go. `closing`: refuses what still comes on open connections. */
  private state: "open" | "draining" | "closing" = "open"

  private constructor(options: Options, times: Times) {
    this.options = options
    this.times = times
    this.server = createServer({
      maxHeaderSize: maxHeaderBytes,
      headersTimeout: times.headers,
      requestTimeout: times.request,
      keepAliveTimeout: times.keepAlive,
      connectionsCheckingInterval: times.check,
      insecureHTTPParser: false
    }, (request, response) => this.answer(request, response))
  }

  /** Resolves once it listens. Rejects with the error of the system. */
  static listen(options: Options, times: Times = usual): Promise<Server> {
    const server = new Server(options, times)
    return new Promise((resolve, reject) => {
      server.server.once("error", reject)
      server.server.listen(options.port, options.host, () => {
        server.server.off("error", reject)
        resolve(server)
      })
    })
  }

  get port(): number {
    // It listens on a port, so its address is no path.
    return (this.server.address() as AddressInfo).port
  }

  /** Requests that run. */
  get count(): number {
    return this.running
  }

  /** `/health` and `/ready` answer 503, and every response closes its connection. */
  drain(): void {
    this.state = "draining"
    this.server.closeIdleConnections()
  }

  /** Refuses new connections and requests. Resolves when no request runs. */
  close(): Promise<void> {
    this.state = "closing"
    this.server.close()
    this.server.closeIdleConnections()
    return new Promise((resolve) => {
      this.onIdle = resolve
      this.checkIdle()
    })
  }

  /** Closes all connections. */
  destroy(): void {
    this.server.closeAllConnections()
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    this.track(1)
    response.once("close", () => {
      this.track(-1)
      this.checkIdle()
    })
    // A write after the client left.
    response.on("error", () => {})
    request.on("error", () => {})
    if (this.state !== "open") response.setHeader("connection", "close")
    const [path = ""] = (request.url ?? "").split("?")
    this.guard(response, path, () => {
      const refusal = this.respond(request, response, path)
      if (refusal === undefined) return
      this.options.onRefused(refusal.code, path)
      Refusal.send(response, path, refusal)
    })
  }

  private guard(response: ServerResponse, path: string, run: () => void): void {
    try {
      run()
    } catch (error) {
      this.options.onDefect(error)
      if (response.headersSent) response.destroy()
      else Refusal.send(response, path, defect)
    }
  }

  private respond(request: IncomingMessage, response: ServerResponse, path: string): Refusal.Refusal | undefined {
    const { options } = this
    const wrong = Checks.host(request, options.allowedHosts()) ?? Checks.path(path) ?? Checks.method(request) ??
      Checks.upgrade(request)
    if (wrong !== undefined) return wrong
    const isRead = request.method === "GET" || request.method === "HEAD"
    if (isRead && (path === "/health" || path === "/ready")) return this.probe(response)
    // Some clients look whether there is a server.
    if (request.method === "HEAD" && path === "/") return void response.end()
    if (this.state === "closing") return draining
    if (request.method === "GET" && options.open(response, path)) return undefined
    const client = options.client(request)
    if (client === undefined) return unauthorized
    if (!path.startsWith("/v1/")) return options.own(request, response, path, client) ? undefined : notFound
    const type = Checks.contentType(request, path)
    if (type !== undefined) return type
    if (Number(request.headers["content-length"] ?? 0) > maxBodyBytes) return tooLarge
    this.receive(request, response, path, client)
    return undefined
  }

  private probe(response: ServerResponse): undefined {
    const isOpen = this.state === "open"
    response.writeHead(isOpen ? 200 : 503, { "content-type": "application/json", "cache-control": "no-store" })
    response.end(JSON.stringify({ status: isOpen ? "ok" : "draining" }))
  }

  private receive(request: IncomingMessage, response: ServerResponse, path: string, client: Client): void {
    const { handle, onRefused } = this.options
    const chunks: Array<Buffer> = []
    let size = 0
    const onData = (chunk: Buffer): void => {
      size += chunk.length
      chunks.push(chunk)
      if (size <= maxBodyBytes) return
      request.off("data", onData)
      request.off("end", onEnd)
      request.pause()
      chunks.length = 0
      onRefused(tooLarge.code, path)
      Refusal.send(response, path, tooLarge)
    }
    const onEnd = (): void => {
      const { headers, method = "GET", url = "/" } = request
      const [first] = chunks
      const body = chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks, size)
      this.guard(response, path, () => handle(client, { method, path: url, headers, body }, this.sinkOf(response)))
    }
    request.on("data", onData)
    request.on("end", onEnd)
  }

  private sinkOf(response: ServerResponse): Sink {
    return new ResponseSink(response, this.times.unread, () => {
      if (this.state !== "open") response.setHeader("connection", "close")
    })
  }

  private track(by: number): void {
    this.running += by
    this.options.onRunning(this.running)
  }

  private checkIdle(): void {
    if (this.running === 0) this.onIdle?.()
    // A connection that was busy when the server closed stays open as a kept one otherwise.
    if (this.state === "closing") this.server.closeIdleConnections()
  }
}

const unauthorized: Refusal.Refusal = {
  status: 401,
  code: "invalid_api_key",
  message: "The key is missing or wrong. Send a key of the gateway as a bearer token or in x-api-key.",
  headers: { "www-authenticate": "Bearer" }
}

const notFound: Refusal.Refusal = {
  status: 404,
  code: "not_found",
  message: "No such path. The APIs are below /v1/."
}

const tooLarge: Refusal.Refusal = {
  status: 413,
  code: "request_too_large",
  message: "The body of the request is larger than 32 MiB."
}

const defect: Refusal.Refusal = {
  status: 500,
  code: "internal_error",
  message: "The gateway cannot answer this request.",
  headers: { "x-should-retry": "false" }
}

const draining: Refusal.Refusal = {
  status: 503,
  code: "draining",
  message: "The gateway is stopping.",
  headers: { "retry-after": "1", "x-should-retry": "true" }
}

class ResponseSink implements Sink {
  private readonly response: ServerResponse
  private readonly unreadMillis: number
  private readonly onHead: () => void
  private drained: () => void = () => {}
  private left: () => void = () => {}

  constructor(response: ServerResponse, unreadMillis: number, onHead: () => void) {
    this.response = response
    this.unreadMillis = unreadMillis
    this.onHead = onHead
    // It waits for the response to an earlier request on this connection, whose limit must not remain.
    if (response.socket === null) response.setTimeout(0)
    response.on("drain", () => {
      response.setTimeout(0)
      this.drained()
    })
    response.on("close", () => {
      if (!response.writableFinished) this.left()
    })
  }

  head(status: number, headers: Parameters<Sink["head"]>[1]): void {
    for (const [name, value] of Object.entries(headers)) {
      this.response.setHeader(name, typeof value === "string" ? value : [...value])
    }
    this.onHead()
    this.response.writeHead(status)
  }

  write(bytes: Uint8Array): boolean {
    const isRead = this.response.write(bytes)
    if (!isRead) this.response.setTimeout(this.unreadMillis)
    return isRead
  }

  end(bytes?: Uint8Array | string): void {
    // A client that does not read would hold the connection and the rest of the response for ever. Node closes it.
    this.response.setTimeout(this.unreadMillis)
    this.response.end(bytes)
  }

  abort(): void {
    this.response.destroy()
  }

  onDrain(listener: () => void): void {
    this.drained = listener
  }

  onLeave(listener: () => void): void {
    this.left = listener
  }
}
