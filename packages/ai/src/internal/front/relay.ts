import * as BoundedJson from "@sluice/core/BoundedJson"
import { callAfter } from "@sluice/core/Timer"
import type * as AiError from "effect/ai/AiError"
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as Result from "effect/Result"
import type { Ending, HeldAttempt } from "../resilient/heldAttempt.ts"
import { kindOf } from "../wire/bodyKind.ts"
import type { Bounds } from "../wire/bounds.ts"
import * as ErrorIn from "../wire/errorIn.ts"
import * as Failure from "../wire/failure.ts"
import * as Headers from "../wire/headers.ts"
import * as Json from "../wire/json.ts"
import { maxHeldBytes as maxUnknownBytes } from "../wire/peek.ts"
import type { Exchange, Listener } from "../wire/post.ts"
import { contained } from "./contain.ts"
import type { Splicer } from "./continuation.ts"
import type { Guard } from "./guard.ts"
import type { Upstream } from "./upstream.ts"
import type { StreamTranslator } from "./translate/translation.ts"
import { usageOf } from "./usage.ts"

/**
 * How long a complete stream waits for its last events: the token counts, and the end. A server that keeps the connection open
 * does not hold up the client for longer.
 */
const endingMillis = 1000

/** How long to wait for the end of a connection whose stream is over. With its end the connection can be used again. */
const lingerMillis = 100

/** How much of an error response is read for its code and message. */
const excerptBytes = 64 * 1024

/** How much of a transport's words is kept, in characters. */
const lostLength = 80

/** About one token an event. */
const charactersOfEvent = 4

/** The largest error response that is passed on as it is. */
const maxErrorBytes = 2 ** 20

const decoder = new TextDecoder()

/** An error response of a provider. */
export interface ErrorResponse {
  readonly status: number
  readonly headers: Failure.ResponseHead["headers"]
  readonly body: Uint8Array
}

/** The client's side of a call. It is the same for all attempts. */
export interface Client {
  /** Sends the head of the answer, unless a heartbeat has sent one. */
  readonly head: (attempt: HeldAttempt<Upstream>, response: Failure.ResponseHead, length?: number) => void
  /** Returns false if the client is slow. It calls `Relay.resume` when the client can take more. */
  readonly write: (bytes: Uint8Array) => boolean
  readonly end: (bytes?: Uint8Array | string) => void
  /** Ends a stream of which the client has a part. */
  readonly fail: (error: AiError.AiError, guard: Guard) => void
  /** Opens another answer that continues the one of which the client has a part. Returns false if there is none. */
  readonly continue: (attempt: HeldAttempt<Upstream>, cause: Cause.Cause<AiError.AiError>) => boolean
  /** Ends the call, whatever the client has of its answer, since a callback threw. */
  readonly died: (cause: Cause.Cause<never>) => void
}

export interface RelayOptions {
  readonly attempt: HeldAttempt<Upstream>
  readonly client: Client
  readonly origin: Failure.Origin
  readonly bounds: Bounds
  /** The clock of the timers. */
  readonly context: Context.Context<never>
  /** `undefined`: the answer is never a stream. */
  readonly guard: (() => Guard) | undefined
  /** Whether the client asks for a stream. */
  readonly streams: boolean
  /** To the API of the client. `undefined`: the target has the same one. */
  readonly translated: Translated | undefined
  /** Continues what the client has. `undefined`: it has nothing. */
  readonly splicer: Splicer | undefined
  /** Whether a stream is held until it is complete. */
  readonly holdsAll: boolean
  readonly maxHeldBytes: number
  /** Called with the error response of a provider, before the attempt fails with the error. */
  readonly onErrorResponse: (error: AiError.AiError, response: ErrorResponse) => void
  /** Called once: when the client gets the answer, or when the attempt has failed before. */
  readonly opened: (result: Effect.Effect<void, AiError.AiError>) => void
}

/** An answer in the API of the client. */
export interface Translated {
  readonly stream: () => StreamTranslator
  /** `undefined`: it is malformed. */
  readonly whole: (body: Uint8Array) => string | undefined
}

/** `beginning`: the form of the body is not known yet. */
type Stage = "head" | "error" | "beginning" | "events" | "whole" | "over"

/**
 * Relays the response of one attempt to the client. Before the first output the client gets nothing, so that another attempt can
 * replace this one. After it whole events pass as they are, and the guard decides whether the answer is complete.
 */
export class Relay implements Listener {
  private readonly options: RelayOptions
  private exchange: Exchange | undefined
  private stage: Stage = "head"
  private response: Failure.ResponseHead | undefined
  /** Of a stream. */
  guard: Guard | undefined
  private translator: StreamTranslator | undefined
  private held: Array<Uint8Array> = []
  private heldBytes = 0
  private hasOutput = false
  /** Whether the client gets the answer. */
  private isOpen = false
  private isPaused = false
  private readonly startedAt: number
  private lastAt: number
  /** When the answer was seen to be complete. */
  private completeAt: number | undefined
  private cancel: (() => void) | undefined

  constructor(options: RelayOptions) {
    this.options = options
    this.startedAt = this.lastAt = options.origin.now()
  }

  start(send: (listener: Listener) => Exchange): void {
    this.watch()
    this.exchange = send(this)
    if (this.stage === "over") this.exchange.close()
  }

  // ---------- the response

  answered(response: Failure.ResponseHead): void {
    if (this.stage !== "head") return
    this.response = response
    this.options.attempt.headers(response.headers)
    if (response.status < 200 || response.status > 299) this.stage = "error"
    else if (this.options.guard === undefined) this.stage = "whole"
    else if (response.headers["content-type"]?.startsWith("text/event-stream") === true) this.begin("events")
    else this.stage = "beginning"
  }

  data(bytes: Uint8Array): void {
    switch (this.stage) {
      case "events":
        return this.feed(bytes)
      case "error":
        this.hold(bytes)
        if (this.heldBytes > maxErrorBytes) this.rejected()
        return
      case "beginning": {
        this.hold(bytes)
        const kind = kindOf(this.joined())
        if (kind !== undefined || this.heldBytes >= maxUnknownBytes) this.begin(kind === "events" ? "events" : "whole")
        return
      }
      case "whole":
        this.hold(bytes)
        this.checkSize()
        return
      case "head":
      case "over":
    }
  }

  ended(): void {
    switch (this.stage) {
      case "events":
        return this.eventsEnded(undefined)
      case "error":
        return this.rejected()
      case "beginning":
      case "whole":
        return this.wholeEnded()
      case "head":
        return this.fail(this.options.attempt.truncated(0, false))
      case "over":
        // It need not be closed.
        this.cancel?.()
    }
  }

  lost(error: HttpClientError.HttpClientError): void {
    const { attempt, origin } = this.options
    switch (this.stage) {
      case "head":
        return this.fail(Failure.transport(origin, error, origin.now()))
      case "error":
        return this.rejected()
      case "beginning":
      case "whole":
        return this.fail(attempt.truncated(0, false, this.masked(Failure.lostBy(error))))
      case "events":
        return this.eventsEnded(this.masked(Failure.lostBy(error)))
      case "over":
    }
  }

  readonly died = (cause: Cause.Cause<never>): void => {
    const { attempt, client, opened } = this.options
    const isOpening = !this.isOpen && !this.isOver
    this.over()
    // The effect that opens the answer ends the attempt and the call.
    if (isOpening) return opened(Effect.failCause(cause))
    const { events = 0 } = this.guard ?? {}
    // Without the token counts, since the rules that keep them may be what threw. Changes nothing if the attempt has ended.
    const failed = () =>
      void attempt.failed(attempt.truncated(events, true), { length: events * charactersOfEvent }, () => false)
    contained(failed, () => {})()
    opened(Effect.void)
    client.died(cause)
  }

  // ---------- the client

  /** The client can take more. */
  resume(): void {
    if (!this.isPaused || this.stage === "over") return
    this.isPaused = false
    this.lastAt = this.options.origin.now()
    if (this.completeAt !== undefined) this.completeAt = this.lastAt
    this.exchange?.resume()
    this.rewatch()
  }

  /** The client left an open answer. */
  left(): void {
    if (this.stage === "over") return
    this.over()
    this.options.attempt.left(this.ending)
  }

  /** Closes the connection. Nothing is called any more. */
  close(): void {
    this.over()
  }

  // ---------- streams

  private begin(stage: "events" | "whole"): void {
    this.stage = stage
    if (stage === "whole") return this.checkSize()
    this.guard = this.options.guard?.()
    this.translator = this.options.translated?.stream()
    const { held } = this
    this.held = []
    this.heldBytes = 0
    for (const bytes of held) this.data(bytes)
  }

  private feed(bytes: Uint8Array): void {
    const { guard } = this
    if (guard === undefined) return
    const { attempt, origin } = this.options
    this.lastAt = origin.now()
    attempt.progress()
    const events = guard.feed(bytes)
    // Output that failed with the same bytes is not sent, so that another attempt can replace it.
    if (guard.failure !== undefined && !this.isOpen) return this.broken(guard)
    this.pass(events, guard)
    if (this.isOver) return
    if (guard.failure !== undefined) return this.broken(guard)
    if (guard.isOver) return this.complete(guard)
    if (guard.isComplete !== (this.completeAt !== undefined)) {
      this.completeAt = guard.isComplete ? this.lastAt : undefined
      this.rewatch()
    }
  }

  private eventsEnded(lost: string | undefined): void {
    const { guard } = this
    if (guard === undefined) return
    this.pass(guard.end(lost !== undefined), guard)
    if (this.isOver) return
    if (guard.failure !== undefined) return this.broken(guard)
    if (guard.isComplete) return this.complete(guard)
    this.fail(this.options.attempt.truncated(guard.events, this.hadOutput, lost))
  }

  /** Passes events on, or holds them. */
  private pass(passed: Uint8Array | undefined, guard: Guard): void {
    const { attempt, holdsAll, maxHeldBytes, splicer } = this.options
    if (guard.hasOutput) {
      if (!this.hasOutput) {
        attempt.firstToken()
        const { firstTokenMillis, idleMillis } = attempt.target.limits
        // The timer fires at the first limit, which would be late for a shorter one.
        if (idleMillis < firstTokenMillis) this.rewatch()
      }
      this.hasOutput = true
      if (passed !== undefined) attempt.output(this.lastAt)
    }
    const { translator } = this
    const own = translator === undefined || passed === undefined ? passed : translator.feed(passed)
    if (translator?.failed === true) return this.fail(attempt.malformed())
    const events = splicer === undefined || own === undefined ? own : splicer.feed(own)
    if (this.isOpen) {
      if (events !== undefined) this.write(events)
      return
    }
    if (events !== undefined) this.hold(events)
    if (((splicer ?? guard).hasOutput && !holdsAll) || this.heldBytes > maxHeldBytes) this.open()
  }

  /** The client gets the answer from here on. */
  private open(): void {
    const { attempt, client, opened } = this.options
    // Called in the stages that follow the head.
    client.head(attempt, this.response as Failure.ResponseHead)
    this.isOpen = true
    const { held } = this
    this.held = []
    if (held.length > 0) this.write(held.length === 1 && held[0] !== undefined ? held[0] : Buffer.concat(held))
    opened(Effect.void)
  }

  private write(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.options.client.write(bytes)) return
    this.isPaused = true
    this.exchange?.pause()
  }

  private complete(guard: Guard): void {
    const { attempt, client, splicer } = this.options
    const { translator } = this
    const own = translator === undefined ? guard.ending : translator.end()
    if (translator?.failed === true) return this.fail(attempt.malformed())
    const rest = splicer === undefined || own === undefined ? own : splicer.feed(Buffer.from(own))
    if (!this.isOpen) this.open()
    this.over(guard.isOver)
    // Before the end, so that the permit is free when the client has the answer.
    attempt.complete(this.ending)
    client.end(rest)
  }

  /** The guard has found why the rest must not pass. */
  private broken(guard: Guard): void {
    const { attempt, origin } = this.options
    const response = this.response as Failure.ResponseHead
    const { failure } = guard
    switch (failure?._tag) {
      case "Error":
        return this.fail(Failure.fromStream(origin, response, failure.error, ""))
      case "Malformed":
        return this.fail(Failure.malformed(origin, response, failure.text))
      case "TooLarge":
        return this.fail(Failure.incompatible(origin, response, `an event of more than ${failure.maxBytes} bytes`))
      case "Unfinished":
      case undefined:
        return this.fail(attempt.truncated(guard.events, this.hadOutput))
    }
  }

  // ---------- whole answers

  private checkSize(): void {
    const { bounds: { answerSize }, origin } = this.options
    if (this.heldBytes <= answerSize) return
    const response = this.response as Failure.ResponseHead
    this.fail(Failure.incompatible(origin, response, `a response of more than ${answerSize} bytes`))
  }

  private wholeEnded(): void {
    const { attempt, bounds, client, opened, origin, translated } = this.options
    const response = this.response as Failure.ResponseHead
    const body = this.joined()
    const text = decoder.decode(body)
    const parsed = BoundedJson.parse(text, bounds.jsonDepth)
    if (Result.isFailure(parsed)) return this.fail(Failure.notJson(origin, response, text))
    const json = parsed.success
    const error = ErrorIn.asWhole(json)
    if (error !== undefined) return this.fail(Failure.fromStream(origin, response, error, text))
    if (!Json.isObject(json)) return this.fail(Failure.malformed(origin, response, text))
    const guard = this.options.guard?.()
    guard?.whole(json)
    // Embeddings are all that has no guard.
    if (guard === undefined && !Array.isArray(json["data"])) {
      return this.fail(Failure.malformed(origin, response, text))
    }
    if (guard?.failure !== undefined) return this.broken(guard)
    const answer = translated === undefined ? body : translated.whole(body)
    if (answer === undefined) return this.fail(attempt.malformed())
    this.over()
    const usage = guard === undefined ? usageOf(json) : guard.usage
    attempt.complete({ reason: guard?.reason, usage, length: text.length })
    client.head(attempt, response, Buffer.byteLength(answer))
    client.end(answer)
    opened(Effect.void)
  }

  /** The status is an error. */
  private rejected(): void {
    const { attempt, onErrorResponse, origin } = this.options
    const response = Headers.withAllWaits(this.response as Failure.ResponseHead)
    const body = this.joined()
    const text = new TextDecoder().decode(body.subarray(0, excerptBytes), { stream: true })
    const error = Failure.fromStatus(origin, response, text, origin.now())
    if (body.length <= maxErrorBytes) {
      onErrorResponse(error, {
        status: response.status,
        headers: response.headers,
        body: attempt.target.service.masked(body)
      })
    }
    this.fail(error)
  }

  // ---------- both

  private get isOver(): boolean {
    return this.stage === "over"
  }

  /** Whether the client has a part of an answer. */
  private get hadOutput(): boolean {
    return this.isOpen || this.options.splicer !== undefined
  }

  private get ending(): Ending {
    const { guard } = this
    return guard === undefined
      ? { length: 0 }
      : { reason: guard.reason, usage: guard.usage, length: guard.events * charactersOfEvent }
  }

  private fail(error: AiError.AiError): void {
    const { attempt, client, opened } = this.options
    this.over()
    if (!this.isOpen) {
      if (this.guard?.hasOutput === true) attempt.paid(this.ending)
      return opened(Effect.fail(error))
    }
    const isContinued = attempt.failed(error, this.ending, (cause) => client.continue(attempt, cause))
    // Only a stream is open before it is complete.
    if (!isContinued && this.guard !== undefined) client.fail(error, this.guard)
  }

  /** `isInOrder`: the connection may be used again once its response has ended. */
  private over(isInOrder = false): void {
    if (this.stage === "over") return
    this.stage = "over"
    this.cancel?.()
    const { exchange, options: { context } } = this
    if (isInOrder) this.cancel = callAfter(context, lingerMillis, () => exchange?.close())
    else exchange?.close()
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

  private masked(lost: string): string {
    return this.options.origin.mask(lost).slice(0, lostLength)
  }

  // ---------- time

  private rewatch(): void {
    this.cancel?.()
    this.watch()
  }

  /** One timer for all limits. It is not moved with each event: when it fires, it looks how much is left. */
  private look(): void {
    this.cancel = undefined
    if (this.isOver) return
    const { attempt, context, origin } = this.options
    const now = origin.now()
    if (now >= attempt.failsAt) return this.timeIsUp(attempt.late())
    const limit = this.silentAt(attempt.target.limits)
    if (now >= limit) {
      return this.timeIsUp(attempt.silent(this.guard?.hasOutput === true ? "idle" : "first", this.guard?.events ?? 0))
    }
    const next = Math.min(limit, attempt.failsAt)
    if (next < Number.POSITIVE_INFINITY) this.cancel = callAfter(context, next - now, this.watch)
  }

  private readonly watch = contained(() => this.look(), this.died)

  /** When the provider counts as silent. A slow client does not count, and a whole answer has only the limits of the attempt. */
  private silentAt(
    { firstTokenMillis, idleMillis }: { readonly firstTokenMillis: number; readonly idleMillis: number }
  ): number {
    if (this.isPaused) return Number.POSITIVE_INFINITY
    if (this.completeAt !== undefined) return this.completeAt + endingMillis
    if (this.guard?.hasOutput === true) return this.lastAt + idleMillis
    return this.options.streams ? this.startedAt + firstTokenMillis : Number.POSITIVE_INFINITY
  }

  private timeIsUp(error: AiError.AiError): void {
    const { guard } = this
    if (guard?.isComplete === true) this.complete(guard)
    else this.fail(error)
  }
}
