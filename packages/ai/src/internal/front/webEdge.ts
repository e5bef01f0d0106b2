import type { Exchange, IncomingHeaders, OutgoingHeaders, Sink } from "./exchange.ts"
import type { BodyProblem } from "./refusal.ts"

/** Answers the requests of Web servers and of `fetch`. */
export interface WebEdgeOptions {
  readonly exchange: (exchange: Exchange, sink: Sink) => void
  /** Answers a request whose body the front cannot have. */
  readonly refuse: (code: BodyProblem, exchange: Exchange, sink: Sink) => void
  readonly maxBodyBytes: number
}

export const handler = (options: WebEdgeOptions) => (request: Request): Promise<Response> =>
  new Promise((resolve, reject) => {
    const { body, bodyUsed, method, signal, url } = request
    const sink = new WebSink(signal, request, resolve, reject)
    const exchange = (body: Uint8Array): Exchange => ({
      method,
      path: pathOf(url),
      headers: headersOf(request.headers),
      body
    })
    if (bodyUsed || body?.locked === true) return options.refuse("body_was_read", exchange(empty), sink)
    if (body === null) {
      if (!sink.hasLeft) options.exchange(exchange(empty), sink)
      return
    }
    const reader = body.getReader()
    const cancel = () => {
      // Nothing needs the rest, or what becomes of it.
      reader.cancel(signal.reason).catch(() => {})
    }
    sink.onLeave(cancel)
    const read = async () => {
      const bytes = await bytesOf(reader, options.maxBodyBytes)
      if (sink.hasLeft) return
      if (bytes !== undefined) return options.exchange(exchange(bytes), sink)
      cancel()
      options.refuse("request_too_large", exchange(empty), sink)
    }
    read().catch((error: unknown) => sink.fail(error))
  })

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
      const sink = new WebSink(init?.signal ?? undefined, undefined, resolve, reject)
      if (bytes.length > options.maxBodyBytes) options.refuse("request_too_large", { ...exchange, body: empty }, sink)
      else if (!sink.hasLeft) options.exchange(exchange, sink)
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
const bytesOf = async (
  reader: ReadableStreamDefaultReader<Uint8Array>,
  maxBytes: number
): Promise<Uint8Array | undefined> => {
  const chunks: Array<Uint8Array> = []
  let size = 0
  for (;;) {
    const { done, value } = await reader.read()
    if (done) break
    chunks.push(value)
    size += value.length
    if (size > maxBytes) return undefined
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
  /** Whether the client left before the end. */
  hasLeft = false
  /**
   * Not collected before the call is over: the signal of a `Request` follows the one that it was made with only as long as that
   * `Request` exists.
   */
  readonly request: Request | undefined
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
    request: Request | undefined,
    resolve: (response: Response) => void,
    reject: (error: unknown) => void
  ) {
    this.signal = signal
    this.request = request
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
    if (this.hasLeft) listener()
  }

  /** The body of the request cannot be read. */
  fail(error: unknown): void {
    if (this.isOver) return
    this.over()
    this.reject(error)
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
    this.hasLeft = true
    this.over()
    this.onLeft()
  }

  private over(): void {
    this.isOver = true
    this.signal?.removeEventListener("abort", this.aborted)
  }
}
