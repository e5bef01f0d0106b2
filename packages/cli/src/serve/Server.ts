/** The HTTP server of the gateway: checks of requests, bounds, and the end without a lost answer. */
import * as Front from "@sluice/ai/Front"
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
  readonly handle: (client: Client, exchange: Front.Exchange, sink: Front.Sink) => void
  /** Answers paths that need no key. Returns false if there is no such path. */
  readonly open: (response: ServerResponse, path: string) => boolean
  /** Answers paths of the gateway itself. Returns false if there is no such path. */
  readonly own: (request: IncomingMessage, response: ServerResponse, path: string, client: Client) => boolean
  /** Answers files and batches of the gateway. Returns false for other paths. `undefined`: they are the provider's. */
  readonly batches?:
    | ((request: IncomingMessage, response: ServerResponse, path: string, client: Client) => boolean)
    | undefined
  readonly onRefused: (code: string, path: string) => void
  /** A defect. The request gets a 500, and the others continue. */
  readonly onDefect: (error: unknown) => void
  /** The calls that run. An open page is none. */
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
  /** The responses that have not ended. */
  private readonly responses = new Set<ServerResponse>()
  private calls = 0
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
    return this.responses.size
  }

  /** `/health` and `/ready` answer 503, and every response closes its connection. */
  drain(): void {
    this.state = "draining"
    for (const response of this.responses) if (!response.headersSent) response.setHeader("connection", "close")
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
    this.responses.add(response)
    response.once("close", () => {
      this.responses.delete(response)
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
      else Refusal.send(response, path, Refusal.defect)
    }
  }

  private respond(request: IncomingMessage, response: ServerResponse, path: string): Refusal.Refusal | undefined {
    const { options } = this
    const wrong = Checks.hosts(request) ?? Checks.host(request, options.allowedHosts()) ?? Checks.path(path) ??
      Checks.method(request) ?? Checks.upgrade(request)
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
    if (options.batches?.(request, response, path, client) === true) return undefined
    this.receive(request, response, path, client)
    return undefined
  }

  private probe(response: ServerResponse): undefined {
    const isOpen = this.state === "open"
    response.writeHead(isOpen ? 200 : 503, { "content-type": "application/json", "cache-control": "no-store" })
    response.end(JSON.stringify({ status: isOpen ? "ok" : "draining" }))
  }

  private receive(request: IncomingMessage, response: ServerResponse, path: string, client: Client): void {
    const { handle, onRefused, onRunning } = this.options
    onRunning(++this.calls)
    response.once("close", () => onRunning(--this.calls))
    Front.receive(request, response, {
      exchange: (exchange, sink) => this.guard(response, path, () => handle(client, exchange, sink)),
      // Nothing else reads the body.
      refuse: () => {
        onRefused(tooLarge.code, path)
        Refusal.send(response, path, tooLarge)
      },
      maxBodyBytes,
      unreadTimeout: this.times.unread
    })
  }

  private checkIdle(): void {
    if (this.responses.size === 0) this.onIdle?.()
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

const draining: Refusal.Refusal = {
  status: 503,
  code: "draining",
  message: "The gateway is stopping.",
  headers: { "retry-after": "1", "x-should-retry": "true" }
}
