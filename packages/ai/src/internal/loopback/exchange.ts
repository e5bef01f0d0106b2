import * as Effect from "effect/Effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import type * as Journal from "../../testing/Journal.ts"
import type { Draft, Recorder } from "./recorder.ts"
import * as Refusals from "./refusals.ts"

const maxRequestBytes = 16 * 2 ** 20

/** One request and its response, with its entry in the journal. */
export class Exchange {
  readonly request: IncomingMessage
  private readonly response: ServerResponse
  private readonly recorder: Recorder
  /** Absent for a request that the journal does not record. */
  readonly entry: Draft | undefined
  readonly wire: Refusals.Wire
  /** Headers of the response, whatever its status. */
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

  /** The body of the request. `undefined` if it is larger than 16 MiB, or the connection was lost. */
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
      // The unread rest of a request must not be taken for the next one.
      ...(this.request.complete ? {} : { connection: "close" }),
      ...headers
    })
    this.end(ending)
    this.response.end(text)
  }

  refuse(status: number, details: Refusals.ErrorDetails): void {
    this.send(status, Refusals.body(this.wire, details), "refused")
  }

  /** Sends the headers without waiting for the first piece. */
  flush(): void {
    this.response.flushHeaders()
  }

  head(status: number, headers: { readonly [name: string]: string }): void {
    this.response.writeHead(status, { ...headers, ...this.always })
    if (this.entry === undefined) return
    this.entry.status = status
    this.entry.firstByte = this.recorder.now()
  }

  /** Sends a piece of a response. Waits if the client does not keep up. */
  write(text: string): Effect.Effect<void> {
    return Effect.callback((resume) => {
      if (this.response.write(text)) return resume(Effect.void)
      const onDrain = () => resume(Effect.void)
      this.response.once("drain", onDrain)
      return Effect.sync(() => this.response.off("drain", onDrain))
    })
  }

  /** Ends a response that was sent in pieces. */
  finish(ending: Journal.Entry["ending"]): void {
    // Recorded first: the client can send its next request before this process knows that the last byte was sent.
    this.end(ending)
    this.response.end()
  }

  reset(ending: Journal.Entry["ending"]): void {
    this.end(ending)
    this.request.socket.resetAndDestroy()
  }

  /** Call it when the connection was closed. If the request has no ending yet, the client closed it. */
  closed(): void {
    this.end("clientClosed")
  }

  /** Ends the response after a defect: with status 500, or with a reset if it has begun. */
  fail(): void {
    if (this.response.headersSent) this.reset("reset")
    else this.refuse(500, { type: Refusals.typeOf(this.wire, 500), message: "the loopback provider failed" })
  }

  private end(ending: Journal.Entry["ending"]): void {
    if (this.entry !== undefined) this.recorder.end(this.entry, ending)
  }
}
