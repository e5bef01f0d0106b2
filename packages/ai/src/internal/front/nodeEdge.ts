import * as Duration from "effect/Duration"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import type { Exchange, Sink } from "./exchange.ts"
import type { BodyProblem } from "./refusal.ts"

/**
 * What becomes of a request of `node:http`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ReceiveOptions {
  /** Answers the request, once its body has arrived. */
  readonly exchange: (exchange: Exchange, sink: Sink) => void
  /**
   * Answers a request whose body is too large, or was read before by something else, such as a parser of bodies. The exchange has no
   * body.
   */
  readonly refuse: (code: BodyProblem, exchange: Exchange, sink: Sink) => void
  /** The largest body, in bytes. */
  readonly maxBodyBytes: number
  /**
   * How long a client may read nothing of the bytes that wait for it, before its connection is closed. Default: no limit but those of
   * the server.
   */
  readonly unreadTimeout?: Duration.Input | undefined
}

export type Listener = (request: IncomingMessage, response: ServerResponse) => void

export const listener = (options: ReceiveOptions): Listener => (request, response) =>
  receive(request, response, options)

export const receive = (request: IncomingMessage, response: ServerResponse, options: ReceiveOptions): void => {
  const { headers, method = "GET", url = "/" } = request
  if (response.socket === null && !response.destroyed) closesWith(request.socket, response)
  // Before the body is read, so that a client that leaves meanwhile is noticed.
  const sink = new NodeSink(response, options.unreadTimeout)
  const received = (body: Uint8Array): Exchange => ({ method, path: url, headers, body })
  const refuse = (code: BodyProblem) => {
    request.pause()
    // The rest of the body is not read, so the connection cannot be used again.
    response.setHeader("connection", "close")
    options.refuse(code, received(empty), sink)
  }
  if (Number(headers["content-length"]) > options.maxBodyBytes) return refuse("request_too_large")
  // It does not end a second time, so the front would wait forever.
  if (request.readableDidRead) {
    if (hasBody(headers)) return refuse("body_was_read")
    if (!sink.hasLeft) options.exchange(received(empty), sink)
    return
  }
  const chunks: Array<Buffer> = []
  let size = 0
  const onData = (chunk: Buffer) => {
    chunks.push(chunk)
    size += chunk.length
    if (size <= options.maxBodyBytes) return
    request.off("data", onData)
    request.off("end", onEnd)
    refuse("request_too_large")
  }
  const onEnd = () => {
    const [first] = chunks
    const body = chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks, size)
    if (!sink.hasLeft) options.exchange(received(body), sink)
  }
  request.on("data", onData)
  request.on("end", onEnd)
  // A client that left within its request gets no answer. Without a listener the error would end the process.
  request.on("error", () => {})
}

const queued = new WeakMap<Socket, Set<ServerResponse>>()

/** Closes a response that waits for an earlier one when its connection closes. Node before 24 closes the first one only. */
const closesWith = (socket: Socket, response: ServerResponse): void => {
  let responses = queued.get(socket)
  if (responses === undefined) {
    const waiting = responses = new Set<ServerResponse>()
    queued.set(socket, waiting)
    socket.once("close", () => {
      for (const response of waiting) {
        if (response.destroyed) continue
        response.destroyed = true
        response.emit("close")
      }
    })
  }
  responses.add(response)
  response.once("close", () => responses.delete(response))
}

const empty = new Uint8Array(0)

const hasBody = (headers: IncomingMessage["headers"]): boolean =>
  headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0

class NodeSink implements Sink {
  /** Whether the client left before the end. */
  hasLeft: boolean
  private readonly response: ServerResponse
  private readonly unreadTimeout: Duration.Input | undefined
  private onDrained: () => void = () => {}
  private onLeft: () => void = () => {}

  constructor(response: ServerResponse, unreadTimeout: Duration.Input | undefined) {
    this.response = response
    this.unreadTimeout = unreadTimeout
    // It may have left before the request was handed over.
    this.hasLeft = response.destroyed
    // It waits for the response to an earlier request on this connection, whose limit must not remain.
    if (unreadTimeout !== undefined && response.socket === null) response.setTimeout(0)
    response.on("drain", () => {
      if (unreadTimeout !== undefined) response.setTimeout(0)
      this.onDrained()
    })
    response.on("close", () => {
      if (response.writableFinished) return
      this.hasLeft = true
      this.onLeft()
    })
    // A write after the client left. `close` reports it.
    response.on("error", () => {})
  }

  head(status: number, headers: Record<string, string | ReadonlyArray<string>>): void {
    // Node copies arrays.
    this.response.writeHead(status, headers as Record<string, string | Array<string>>)
  }

  write(bytes: Uint8Array): boolean {
    const isRead = this.response.write(bytes)
    if (!isRead) this.awaitReader()
    return isRead
  }

  end(bytes?: Uint8Array | string): void {
    this.response.end(bytes)
    if (this.response.writableLength > 0) this.awaitReader()
  }

  /** Node closes the connection when the time is up. */
  private awaitReader(): void {
    const { response, unreadTimeout } = this
    if (unreadTimeout !== undefined) response.setTimeout(Duration.toMillis(unreadTimeout))
  }

  abort(): void {
    this.response.destroy()
  }

  onDrain(listener: () => void): void {
    this.onDrained = listener
  }

  onLeave(listener: () => void): void {
    this.onLeft = listener
    if (this.hasLeft) listener()
  }
}
