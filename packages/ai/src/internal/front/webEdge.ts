import type { Exchange, IncomingHeaders, OutgoingHeaders, Sink } from "./exchange.ts"
import type { BodyProblem } from "./refusal.ts"

/** Answers the requests of Web servers and of `fetch`. */
export interface WebEdgeOptions {
  readonly exchange: (exchange: Exchange, sink: Sink) => void
  /** Answers a request whose body the front cannot have. */
  readonly refuse: (code: BodyProblem, exchange: Exchange, sink: Sink) => void
  readonly maxBodyBytes: number
}

export const handler = (options: WebEdgeOptions) => async (request: Request): Promise<Response> => {
  const { method, signal, url } = request
  const wasRead = request.bodyUsed || request.body?.locked === true
  const body = wasRead || request.body === null ? empty : await bytesOf(request.body, options.maxBodyBytes)
  const exchange = (body: Uint8Array): Exchange => ({
    method,
    path: pathOf(url),
    headers: headersOf(request.headers),
    body
  })
  return new Promise((resolve, reject) => {
    const sink = new WebSink(signal, resolve, reject)
    // The client left while its body was read.
    if (signal.aborted) return
    if (wasRead) options.refuse("body_was_read", exchange(empty), sink)
    else if (body === undefined) options.refuse("request_too_large", exchange(empty), sink)
    else options.exchange(exchange(body), sink)
  })
}

/**
 * A `fetch` that sends every request to the front. The host of the URL is ignored. A request whose body is a text or bytes, as
 * those of the official clients are, becomes no `Request`.
 */
export const fetchOf = (options: WebEdgeOptions): typeof globalThis.fetch => {
  const handle = handler(options)
  return (input, init) => {
    const body = init?.body ?? undefined
    const isPlain = !(input instanceof Request) &&
      (body === undefined || typeof body === "string" || body instanceof Uint8Array)
    if (!isPlain) return handle(new Request(input instanceof Request ? input : withHost(input), init))
    const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body ?? empty
    const headers = headersOf(init?.headers instanceof Headers ? init.headers : new Headers(init?.headers))
    // As `fetch` does.
    if (typeof body === "string") headers["content-type"] ??= "text/plain;charset=UTF-8"
    const exchange = { method: init?.method?.toUpperCase() ?? "GET", path: pathOf(String(input)), headers, body: bytes }
    return new Promise((resolve, reject) => {
      const sink = new WebSink(init?.signal ?? undefined, resolve, reject)
      if (bytes.length > options.maxBodyBytes) options.refuse("request_too_large", { ...exchange, body: empty }, sink)
      else if (init?.signal?.aborted !== true) options.exchange(exchange, sink)
    })
  }
}

const empty = new Uint8Array(0)

/** A path alone is a URL for `fetch` in a browser, and so it is here. */
const withHost = (input: string | URL): URL => new URL(input, "http://front")

/** The path and the query of a URL. Cheaper than to parse it. */
const pathOf = (url: string): string => {
  const authority = url.indexOf("://")
  const start = authority === -1 ? 0 : url.indexOf("/", authority + 3)
  if (start === -1) return "/"
  const end = url.indexOf("#", start)
  return end === -1 ? url.slice(start) : url.slice(start, end)
}

const headersOf = (headers: Headers): { -readonly [_ in keyof IncomingHeaders]: IncomingHeaders[_] } => {
  const received: Record<string, string> = {}
  headers.forEach((value, name) => {
    received[name] = value
  })
  return received
}

/** Reads a body. `undefined` if it is too large. */
const bytesOf = async (body: ReadableStream<Uint8Array>, maxBytes: number): Promise<Uint8Array | undefined> => {
  const chunks: Array<Uint8Array> = []
  let size = 0
  const reader = body.getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) break
    chunks.push(value)
    size += value.length
    if (size > maxBytes) {
      // What the client does with the rest is its own affair.
      reader.cancel().catch(() => {})
      return undefined
    }
  }
  const [first] = chunks
  if (chunks.length === 1 && first !== undefined) return first
  const whole = new Uint8Array(size)
  let at = 0
  for (const chunk of chunks) {
    whole.set(chunk, at)
    at += chunk.length
  }
  return whole
}

/** So much waits for a slow reader before the provider is paused. */
const highWaterMark = 64 * 1024

/** Statuses whose responses have no body. */
const isBodiless = (status: number): boolean => status === 204 || status === 205 || status === 304

class WebSink implements Sink {
  private readonly signal: AbortSignal | undefined
  private readonly resolve: (response: Response) => void
  private readonly reject: (error: unknown) => void
  private status = 200
  private headers = new Headers()
  private controller: ReadableStreamDefaultController<Uint8Array> | undefined
  private isOver = false
  private onDrained: () => void = () => {}
  private onLeft: () => void = () => {}

  constructor(
    signal: AbortSignal | undefined,
    resolve: (response: Response) => void,
    reject: (error: unknown) => void
  ) {
    this.signal = signal
    this.resolve = resolve
    this.reject = reject
    if (signal?.aborted === true) this.aborted()
    else signal?.addEventListener("abort", this.aborted, { once: true })
  }

  head(status: number, headers: OutgoingHeaders): void {
    // As a `Response` does, but while another head can still replace this one.
    if (status < 200 || status > 599) throw new RangeError(`no response can have the status ${status}`)
    this.status = status
    for (const [name, value] of Object.entries(headers)) {
      if (typeof value === "string") this.headers.set(name, value)
      else for (const one of value) this.headers.append(name, one)
    }
  }

  write(bytes: Uint8Array): boolean {
    if (this.isOver) return true
    const controller = this.controller ?? this.begin()
    controller.enqueue(bytes)
    return (controller.desiredSize ?? 1) > 0
  }

  end(bytes?: Uint8Array | string): void {
    if (this.isOver) return
    this.over()
    if (this.controller === undefined) {
      const body = isBodiless(this.status) ? null : bytes ?? null
      return this.resolve(new Response(body, { status: this.status, headers: this.headers }))
    }
    if (bytes !== undefined && bytes.length > 0) {
      this.controller.enqueue(typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes)
    }
    this.controller.close()
  }

  abort(): void {
    if (this.isOver) return
    this.over()
    // Not named AbortError, which clients take for their own.
    const error = new TypeError("terminated")
    if (this.controller === undefined) this.reject(error)
    else this.controller.error(error)
  }

  onDrain(listener: () => void): void {
    this.onDrained = listener
  }

  onLeave(listener: () => void): void {
    this.onLeft = listener
  }

  private begin(): ReadableStreamDefaultController<Uint8Array> {
    let begun: ReadableStreamDefaultController<Uint8Array> | undefined
    const body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          begun = controller
        },
        pull: () => this.onDrained(),
        cancel: () => this.left()
      },
      new ByteLengthQueuingStrategy({ highWaterMark })
    )
    // `start` is called by the constructor.
    const controller = this.controller = begun as ReadableStreamDefaultController<Uint8Array> | undefined
    if (controller === undefined) throw new Error("a ReadableStream did not start")
    this.resolve(new Response(body, { status: this.status, headers: this.headers }))
    return controller
  }

  /** The caller aborted its own request: it expects the reason of its signal. */
  private readonly aborted = (): void => {
    const reason: unknown = this.signal?.reason
    if (this.isOver) return
    if (this.controller === undefined) this.reject(reason)
    else this.controller.error(reason)
    this.left()
  }

  private left(): void {
    if (this.isOver) return
    this.over()
    this.onLeft()
  }

  private over(): void {
    this.isOver = true
    this.signal?.removeEventListener("abort", this.aborted)
  }
}
