import { callAfter } from "@sluice/core/Timer"
import type * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Exit from "effect/Exit"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as Result from "effect/Result"
import type * as Tracer from "effect/Tracer"
import type * as RetryAfter from "../../RetryAfter.ts"
import { type BodyKind, kindOf, linesOf, withoutDone } from "./bodyKind.ts"
import type { Bounds } from "./bounds.ts"
import type { RequestConfig } from "./config.ts"
import type { EventReader } from "./eventReader.ts"
import { addStatus, errorBodyBytes } from "./exchange.ts"
import * as Failure from "./failure.ts"
import * as Headers from "./headers.ts"
import { maxHeldBytes } from "./peek.ts"
import type { Exchange, Listener } from "./post.ts"
import type { Wire, WireRequest } from "./wire.ts"

/**
 * How long a complete response waits for the end of its body. That is enough for the last bytes of a chunked body,
 * which make the connection reusable. A server that keeps it open does not hold up the call.
 */
const lingerMillis = 100

/**
 * How long to wait after the finish reason for more content, the token counts, or the end of the stream.
 *
 * A finish reason is not always the last one. Gateways have sent more text 700 ms after it, and an answer 1.5 s after the
 * thoughts. This is three times that. A server that keeps the connection open and sends no end delays the finish part by
 * this time. The text before it was emitted already.
 */
const endingMillis = 5000

/** The wait ends this long before a limit of the call, so that a complete answer does not fail as late or silent. */
const marginMillis = 100

export interface ReceptionOptions<C extends RequestConfig> {
  readonly wire: Wire<C>
  readonly request: WireRequest<C>
  readonly bounds: Bounds
  readonly newId: string
  /** Whether deltas of one block become one part. */
  readonly joinsDeltas: boolean
  readonly onMalformedEvent: (() => void) | undefined
  readonly onHeaders: ((headers: RetryAfter.Headers) => void) | undefined
  /** Ended at the head of the response, or by the failure before it. */
  readonly span: Tracer.Span | undefined
  /** The clock of the timers. */
  readonly context: Context.Context<never>
  /** When the answer fails as silent or late, in epoch milliseconds. */
  readonly failsAt: () => number
  /** Called when there may be new parts, and at the end. */
  readonly onChange: (reception: Reception<C>) => void
}

/** So many parts can wait to be taken before the connection is no longer read. */
const maxWaiting = 256

/** `head`: before the response. `beginning`: its form is not known yet. */
type Stage = "head" | "error" | "beginning" | "events" | "whole" | "over"

/**
 * Receives one response by callbacks. The format of the body decides how it is read: events are a stream, and JSON is a whole
 * response. The request and the content type decide only if the format is unclear.
 */
export class Reception<C extends RequestConfig> implements Listener {
  exchange: Exchange | undefined
  /** Reads a response that is a stream. */
  reader: EventReader | undefined
  /** The parts of a response that is not. */
  whole: ReadonlyArray<Response.PartEncoded> | undefined
  /** Why the response failed. */
  failed: Exit.Exit<never, AiError.AiError> | undefined
  private readonly options: ReceptionOptions<C>
  private stage: Stage = "head"
  private head: Failure.ResponseHead | undefined
  private held: Array<Uint8Array> = []
  private heldBytes = 0
  /** Which end of the answer the timer waits after, see `EventReader.ending`. 0: none. */
  private ending = 0
  private endsAt = 0
  private cancel: (() => void) | undefined
  private isPaused = false

  constructor(options: ReceptionOptions<C>) {
    this.options = options
  }

  /** Whether nothing more comes. */
  get isOver(): boolean {
    return this.stage === "over"
  }

  get hasParts(): boolean {
    return this.whole !== undefined || this.reader?.hasParts === true
  }

  /** Returns the new parts of a stream. */
  take(): ReadonlyArray<Response.StreamPartEncoded> {
    const parts = this.reader?.take() ?? []
    if (this.isPaused) {
      this.isPaused = false
      this.exchange?.resume()
    }
    return parts
  }

  /** Returns the parts of a whole response, once. */
  takeWhole(): ReadonlyArray<Response.PartEncoded> {
    const { whole = [] } = this
    this.whole = []
    return whole
  }

  /** Sets the wait for the end to the limits of the current pull. */
  awaitMore(): void {
    const { reader } = this
    if (this.stage === "events" && reader?.isEnding === true && !reader.isComplete) this.awaitEnd(reader)
  }

  answered(head: Failure.ResponseHead): void {
    this.head = head
    const { onHeaders, span } = this.options
    onHeaders?.(head.headers)
    if (span !== undefined) {
      addStatus(span, head.status)
      this.endSpan(Exit.void)
    }
    this.stage = head.status >= 200 && head.status <= 299 ? "beginning" : "error"
  }

  data(bytes: Uint8Array): void {
    switch (this.stage) {
      case "error":
        this.hold(bytes)
        if (this.heldBytes >= errorBodyBytes) this.rejected()
        return
      case "beginning": {
        this.hold(bytes)
        const kind = kindOf(this.joined())
        if (kind !== undefined || this.heldBytes >= maxHeldBytes) this.begin(kind)
        return
      }
      case "events":
        return this.feed(bytes)
      case "whole":
        this.hold(bytes)
        if (this.heldBytes > this.options.bounds.answerSize) this.tooLarge()
        return
      case "head":
      case "over":
    }
  }

  ended(): void {
    switch (this.stage) {
      case "error":
        return this.rejected()
      case "beginning":
        this.begin(undefined)
        return this.ended()
      case "events":
        this.reader?.end()
        return this.over()
      case "whole":
        return this.readWhole()
      case "head":
      case "over":
    }
  }

  lost(error: HttpClientError.HttpClientError): void {
    const { origin } = this.options.request
    switch (this.stage) {
      case "head":
        return this.fail(Failure.transport(origin, error, origin.now()))
      case "error":
        return this.rejected()
      case "beginning":
        this.begin(undefined)
        return this.lost(error)
      case "events":
        this.reader?.end(Failure.lostBy(error))
        return this.over()
      case "whole":
        return this.fail(Failure.cut(origin, this.responseHead, error))
      case "over":
    }
  }

  died(cause: Cause.Cause<never>): void {
    this.failed = Exit.failCause(cause)
    this.over()
  }

  /** Closes the connection, and calls nothing any more. */
  close(): void {
    if (this.stage === "head") this.endSpan(this.failed ?? Exit.interrupt())
    this.stage = "over"
    this.cancel?.()
    this.exchange?.close()
  }

  private get responseHead(): Failure.ResponseHead {
    // It is set before every stage that reads it.
    return this.head as Failure.ResponseHead
  }

  private endSpan(exit: Exit.Exit<void, AiError.AiError>): void {
    const { context, span } = this.options
    span?.end(Context.get(context, Clock.Clock).currentTimeNanosUnsafe(), exit)
  }

  private hold(bytes: Uint8Array): void {
    this.held.push(bytes)
    this.heldBytes += bytes.length
  }

  private joined(): Uint8Array {
    const [first] = this.held
    if (this.held.length === 1 && first !== undefined) return first
    const joined = Buffer.concat(this.held)
    this.held = [joined]
    return joined
  }

  private begin(kind: BodyKind | undefined): void {
    const { request } = this.options
    if (isStream(kind, request.streams, this.responseHead)) this.beginEvents()
    else this.stage = "whole"
  }

  private beginEvents(): void {
    const { bounds, joinsDeltas, newId, onMalformedEvent, request, wire } = this.options
    this.stage = "events"
    this.reader = wire.streamedResponse(request, { response: this.responseHead, bounds, newId })
    this.reader.onMalformedEvent = onMalformedEvent
    this.reader.joinsDeltas = joinsDeltas
    const { held } = this
    this.held = []
    for (const bytes of held) this.feed(bytes)
  }

  private feed(bytes: Uint8Array): void {
    const { reader } = this
    if (reader === undefined || reader.isComplete) return
    reader.feed(bytes)
    if (reader.failure !== undefined) return this.over()
    if (reader.isComplete) this.after(lingerMillis)
    else if (!reader.isEnding) this.cancelTimer()
    else if (this.cancel === undefined || this.ending !== reader.ending) this.awaitEnd(reader)
    if (!this.options.joinsDeltas && reader.waiting > maxWaiting && !this.isPaused) {
      this.isPaused = true
      this.exchange?.pause()
    }
    this.options.onChange(this)
  }

  private cancelTimer(): void {
    this.cancel?.()
    this.cancel = undefined
  }

  // One time budget for each end, since a server can send keep-alives without end.
  private awaitEnd(reader: EventReader): void {
    const now = this.options.request.origin.now()
    if (this.ending !== reader.ending) {
      this.ending = reader.ending
      this.endsAt = now + endingMillis
    }
    this.after(Math.max(0, Math.min(this.endsAt, this.options.failsAt() - marginMillis) - now))
  }

  /** Ends the response after this time. */
  private after(millis: number): void {
    this.cancel?.()
    this.cancel = callAfter(this.options.context, millis, () => {
      this.reader?.end()
      this.over()
    })
  }

  private rejected(): void {
    const { origin } = this.options.request
    const body = new TextDecoder().decode(this.joined().subarray(0, errorBodyBytes), { stream: true })
    this.fail(Failure.fromStatus(origin, Headers.withAllWaits(this.responseHead), body, origin.now()))
  }

  private tooLarge(): void {
    const { bounds, request } = this.options
    this.fail(
      Failure.incompatible(request.origin, this.responseHead, `a response of more than ${bounds.answerSize} bytes`)
    )
  }

  private readWhole(): void {
    const { bounds, newId, request, wire } = this.options
    if (this.heldBytes > bounds.answerSize) return this.tooLarge()
    const body = new TextDecoder().decode(this.joined())
    const lines = linesOf(body)
    if (lines !== undefined) {
      this.held = [eventsOf(lines)]
      this.beginEvents()
      return this.ended()
    }
    const read = wire.response(request, { response: this.responseHead, bounds, newId }, withoutDone(body))
    if (Result.isFailure(read)) return this.fail(read.failure)
    this.whole = read.success
    this.over()
  }

  private fail(error: AiError.AiError): void {
    this.failed = Exit.fail(error)
    this.over()
  }

  private over(): void {
    if (this.stage === "over") return
    const failure = this.reader?.failure
    if (failure !== undefined) this.failed ??= Exit.fail(failure)
    this.close()
    this.options.onChange(this)
  }
}

/** Whether a response is a stream, by the format of its body. */
const isStream = (
  kind: BodyKind | undefined,
  requested: boolean,
  { headers }: Failure.ResponseHead
): boolean => {
  if (kind === "events" || kind === "json") return kind === "events"
  const type = headers["content-type"] ?? ""
  return requested && !type.includes("json") && !type.includes("html")
}

/** Converts JSON texts, one a line, to the events of a stream. */
const eventsOf = (lines: ReadonlyArray<string>): Uint8Array =>
  new TextEncoder().encode(lines.map((line) => `data: ${line}\n\n`).join(""))
