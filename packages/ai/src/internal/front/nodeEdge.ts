import type { IncomingMessage, ServerResponse } from "node:http"
import type { Exchange, Sink } from "./exchange.ts"

/** Answers the requests of a server of `node:http`. */
export interface NodeEdgeOptions {
  readonly exchange: (exchange: Exchange, sink: Sink) => void
  /** Answers a request whose body is too large. */
  readonly tooLarge: (exchange: Exchange, sink: Sink) => void
  readonly maxBodyBytes: number
}

export type Listener = (request: IncomingMessage, response: ServerResponse) => void

export const listener = (options: NodeEdgeOptions): Listener => (request, response) => {
  const { headers, method = "GET", url = "/" } = request
  // Before the body is read, so that a client that leaves meanwhile is noticed.
  const sink = new NodeSink(response)
  const received = (body: Uint8Array): Exchange => ({ method, path: url, headers, body })
  const refuse = () => {
    request.pause()
    // The rest of the body is not read, so the connection cannot be used again.
    response.setHeader("connection", "close")
    options.tooLarge(received(empty), sink)
  }
  if (Number(headers["content-length"]) > options.maxBodyBytes) return refuse()
  const chunks: Array<Buffer> = []
  let size = 0
  const onData = (chunk: Buffer) => {
    chunks.push(chunk)
    size += chunk.length
    if (size <= options.maxBodyBytes) return
    request.off("data", onData)
    request.off("end", onEnd)
    refuse()
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

const empty = new Uint8Array(0)

class NodeSink implements Sink {
  hasLeft = false
  private readonly response: ServerResponse
  private onDrained: () => void = () => {}
  private onLeft: () => void = () => {}

  constructor(response: ServerResponse) {
    this.response = response
    response.on("drain", () => this.onDrained())
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
    return this.response.write(bytes)
  }

  end(bytes?: Uint8Array | string): void {
    this.response.end(bytes)
  }

  abort(): void {
    this.response.destroy()
  }

  onDrain(listener: () => void): void {
    this.onDrained = listener
  }

  onLeave(listener: () => void): void {
    this.onLeft = listener
  }
}
