import * as Effect from "effect/Effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import type * as Journal from "../../testing/Journal.ts"
import type { Draft, Recorder } from "./recorder.ts"
import * as Refusals from "./refusals.ts"

const maxRequestBytes = 16 * 2 ** 20

/** One request and its answer, written down as it goes. */
export class Exchange {
  readonly request: IncomingMessage
  private readonly response: ServerResponse
  private readonly recorder: Recorder
  /** Its journal entry, if it is of those that are written down. */
  readonly entry: Draft | undefined
  /** The format in which it is answered. */
  readonly wire: Refusals.Wire
  /** Headers that every answer to it has. */
  always: { readonly [name: string]: string } = {}

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    recorder: Recorder,
    entry: Draft | undefined,
    wire: Refusals.Wire
  ) {
    this.request = request
    this.response = response
    this.recorder = recorder
    this.entry = entry
    this.wire = wire
  }

  now(): typeof Journal.Instant.Type {
    return this.recorder.now()
  }

  /** The body, or `undefined` if it is larger than 16 MiB or its client went away. */
  readonly body: Effect.Effect<string | undefined> = Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    let size = 0
    const { request } = this
    const done = (body: string | undefined) => {
      request.off("data", onData).off("end", onEnd).off("error", onError)
      resume(Effect.succeed(body))
    }
    const onData = (chunk: Buffer) => {
      size += chunk.length
      if (size > maxRequestBytes) done(undefined)
      else chunks.push(chunk)
    }
    const onEnd = () => done(Buffer.concat(chunks).toString("utf8"))
    const onError = () => done(undefined)
    request.on("data", onData).on("end", onEnd).on("error", onError)
  })

  /** Sends a whole answer. */
  send(
    status: number,
    body: unknown,
    ending: Journal.Entry["ending"],
    headers?: { readonly [name: string]: string }
  ): void {
    const text = typeof body === "string" ? body : JSON.stringify(body)
    this.head(status, {
      "content-type": "application/json",
      "content-length": String(Buffer.byteLength(text)),
      // What nobody has read of a request must not be taken for the next one.
      ...(this.request.complete ? {} : { connection: "close" }),
      ...headers
    })
    this.end(ending)
    this.response.end(text)
  }

  /** Sends an error in the format that was asked. */
  refuse(status: number, trouble: Refusals.Trouble): void {
    this.send(status, Refusals.body(this.wire, trouble), "refused")
  }

  /** Sends what was begun, if it is not under way with a first piece. */
  flush(): void {
    this.response.flushHeaders()
  }

  /** Begins an answer that comes in pieces. */
  head(status: number, headers: { readonly [name: string]: string }): void {
    this.response.writeHead(status, { ...headers, ...this.always })
    if (this.entry === undefined) return
    this.entry.status = status
    this.entry.firstByte = this.recorder.now()
  }

  /** Sends a piece of an answer, and waits if the client does not keep up. */
  write(text: string): Effect.Effect<void> {
    return Effect.callback((resume) => {
      if (this.response.write(text)) return resume(Effect.void)
      const onDrain = () => resume(Effect.void)
      this.response.once("drain", onDrain)
      return Effect.sync(() => this.response.off("drain", onDrain))
    })
  }

  /** Ends an answer that was sent in pieces. */
  finish(ending: Journal.Entry["ending"]): void {
    // Written down first: the client may come back before this process hears that the last byte is gone.
    this.end(ending)
    this.response.end()
  }

  /** Resets the connection. */
  reset(ending: Journal.Entry["ending"]): void {
    this.end(ending)
    this.request.socket.resetAndDestroy()
  }

  /** The connection was closed; if nothing had ended the request, the client did. */
  closed(): void {
    this.end("clientClosed")
  }

  /** Something failed that should not: whatever was not sent is not sent. */
  fail(): void {
    if (this.response.headersSent) this.reset("reset")
    else this.refuse(500, { type: Refusals.typeOf(this.wire, 500), message: "the loopback provider failed" })
  }

  private end(ending: Journal.Entry["ending"]): void {
    if (this.entry !== undefined) this.recorder.end(this.entry, ending)
  }
}
