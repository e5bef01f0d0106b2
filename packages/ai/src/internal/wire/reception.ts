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
import { eventsOf, isStream } from "./answer.ts"
import { type BodyKind, kindOf, linesOf, withoutDone } from "./bodyKind.ts"
import type { Bounds } from "./bounds.ts"
import type { RequestConfig } from "./config.ts"
import type { EventReader } from "./eventReader.ts"
import { addStatus, errorBodyBytes } from "./exchange.ts"
import * as Failure from "./failure.ts"
import * as Headers from "./headers.ts"
import { maxHeldBytes } from "./peek.ts"
import type { Exchange, Listener } from "./post.ts"
import { endingMillis, lingerMillis, marginMillis } from "./responseStream.ts"
import type { Wire, WireRequest } from "./wire.ts"

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
  readonly onChange: () => void
}

/** `head`: before the response. `beginning`: its form is not known yet. */
type Stage = "head" | "error" | "beginning" | "events" | "whole" | "over"

/** Receives one response by callbacks, in whatever form it comes, as `Answer.read` and `ResponseStream` do in a fiber. */
export class Reception<C extends RequestConfig> implements Listener {
  exchange: Exchange | undefined
  /** Reads a response that is a stream. */
  reader: EventReader | undefined
  /** The parts of a response that is not. */
  whole: ReadonlyArray<Response.PartEncoded> | undefined
  failure: AiError.AiError | undefined
  defect: Cause.Cause<never> | undefined
  private readonly options: ReceptionOptions<C>
  private stage: Stage = "head"
  private head: Failure.ResponseHead | undefined
  private held: Array<Uint8Array> = []
  private heldBytes = 0
  /** Which end of the answer the timer waits after, see `EventReader.ending`. 0: none. */
  private ending = 0
  private endsAt = 0
  private cancel: (() => void) | undefined

  constructor(options: ReceptionOptions<C>) {
    this.options = options
  }

  /** Whether nothing more comes. */
  get isOver(): boolean {
    return this.stage === "over"
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
        this.failure = Failure.transport(origin, error, origin.now())
        return this.over()
      case "error":
        return this.rejected()
      case "beginning":
        this.begin(undefined)
        return this.lost(error)
      case "events":
        this.reader?.end(Failure.lostBy(error))
        return this.over()
      case "whole":
        this.failure = Failure.cut(origin, this.responseHead, error)
        return this.over()
      case "over":
    }
  }

  died(cause: Cause.Cause<never>): void {
    this.defect = cause
    this.over()
  }

  /** Closes the connection, and calls nothing any more. */
  close(): void {
    if (this.stage === "head") this.endSpan(this.headExit())
    this.stage = "over"
    this.cancel?.()
    this.exchange?.close()
  }

  private get responseHead(): Failure.ResponseHead {
    // It is set before every stage that reads it.
    return this.head as Failure.ResponseHead
  }

  private headExit(): Exit.Exit<void, AiError.AiError> {
    if (this.defect !== undefined) return Exit.failCause(this.defect)
    return this.failure === undefined ? Exit.interrupt() : Exit.fail(this.failure)
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
    if (isStream(kind, request.origin, this.responseHead)) this.beginEvents()
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
    else if (reader.isEnding) this.awaitEnd(reader)
    else this.awaitMore()
    this.options.onChange()
  }

  /** Content came after a finish reason. */
  private awaitMore(): void {
    this.cancel?.()
    this.cancel = undefined
  }

  // One time budget for each end, since a server can send keep-alives without end.
  private awaitEnd(reader: EventReader): void {
    if (this.cancel !== undefined && this.ending === reader.ending) return
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
    this.failure = Failure.fromStatus(origin, Headers.withAllWaits(this.responseHead), body, origin.now())
    this.over()
  }

  private tooLarge(): void {
    const { bounds, request } = this.options
    this.failure = Failure.incompatible(
      request.origin,
      this.responseHead,
      `a response of more than ${bounds.answerSize} bytes`
    )
    this.over()
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
    if (Result.isSuccess(read)) this.whole = read.success
    else this.failure = read.failure
    this.over()
  }

  private over(): void {
    if (this.stage === "over") return
    this.close()
    this.failure ??= this.reader?.failure
    this.options.onChange()
  }
}
