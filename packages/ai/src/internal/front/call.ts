import { callAfter } from "@sluice/core/Timer"
import type * as AiError from "effect/ai/AiError"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as AiRejection from "../../AiRejection.ts"
import type { Opening } from "../resilient/engine.ts"
import type { HeldAttempt } from "../resilient/heldAttempt.ts"
import type { ModelCall } from "../resilient/modelCall.ts"
import type { Target } from "../resilient/target.ts"
import type { ResponseHead } from "../wire/failure.ts"
import { type Asked, asked as readAsked, field, splice } from "./body.ts"
import { contained } from "./contain.ts"
import { type ContinuedWire, type Partial, Sent, Splicer, withPrefill } from "./continuation.ts"
import type { Core } from "./core.ts"
import type { Exchange, IncomingHeaders, OutgoingHeaders, Sink } from "./exchange.ts"
import { errorEnding, errorEvent, type ErrorWords, Guard, type Wire } from "./guard.ts"
import { isCoded, toClient, toProvider } from "./headers.ts"
import { ownName } from "./models.ts"
import { PromptLength } from "./promptLength.ts"
import * as Refusal from "./refusal.ts"
import { type Client, type ErrorResponse, Relay, type Translated } from "./relay.ts"
import { asHeader, refuse } from "./reply.ts"
import type { Route } from "./route.ts"
import { canServe, type Request, Translations } from "./translations.ts"
import { type Endpoint, MaxOutput, type Upstream } from "./upstream.ts"

const comment = Buffer.from(": sluice\n\n")

const stopped: Refusal.Refusal = {
  status: 503,
  code: "backpressure_shed",
  message: "The server was stopped before the answer was complete.",
  retryAfter: Duration.seconds(1)
}

/** One call of a model by a client: its request, its attempts, and its answer. */
export class Call implements Client {
  private readonly core: Core
  private readonly route: Route
  private readonly endpoint: Endpoint
  private exchange: Exchange
  private readonly sink: Sink
  /** `undefined` for embeddings, which have no streams. */
  private readonly wire: Wire | undefined
  /** What the client asks for. `undefined`: its body cannot be read. */
  private readonly asked: Asked | undefined
  /** The model that the client asks for. */
  private readonly model: string | undefined
  private readonly streams: boolean
  /** Whether we ask for the token counts of a stream, which the client has not asked for. */
  private readonly addsUsage: boolean
  /** Whether the body is compressed, so that it can be neither read nor changed. */
  private readonly isCoded: boolean
  private readonly translations: Translations
  private readonly prompt: PromptLength
  private call: ModelCall<Upstream> | undefined
  /** The request of the last attempt, if it was translated. */
  private translated: Request | undefined
  private opening: Opening<Upstream, void> | undefined
  /** What the client has of a stream that a target may continue. */
  private sent: Sent | undefined
  /** What the attempt continues. */
  private partial: Partial | undefined
  private fiber: Fiber.Fiber<unknown, unknown> | undefined
  private relay: Relay | undefined
  private isOpen = false
  private isOver = false
  private isLastAttempt = false
  /** Whether the client has the head of the response. */
  private hasHead = false
  private cancelHeartbeat: (() => void) | undefined
  private errorResponse: { readonly error: AiError.AiError; readonly response: ErrorResponse } | undefined

  constructor(core: Core, route: Route, endpoint: Endpoint, exchange: Exchange, sink: Sink) {
    this.core = core
    this.route = route
    this.endpoint = endpoint
    this.exchange = exchange
    this.sink = sink
    this.wire = endpoint === "embeddings" ? undefined : endpoint
    const { body, headers } = exchange
    this.isCoded = isCoded(headers)
    const asked = this.asked = this.isCoded ? undefined : readAsked(body)
    this.model = asked?.model ?? route.deployment
    this.prompt = new PromptLength(body)
    this.translations = new Translations(body, endpoint, this.model, core.options.omittable)
    this.streams = this.wire !== undefined && asked?.isStream === true
    this.addsUsage = core.options.countsUsage && endpoint === "chat" && this.streams &&
      asked?.includesUsage === false &&
      field(body, "stream_options") === undefined
  }

  start(): void {
    const { core: { options: { engine } }, sink, streams, wire } = this
    sink.onLeave(contained(() => this.left(), this.threw))
    sink.onDrain(contained(() => this.relay?.resume(), this.threw))
    sink.onLastAttempt?.(contained(() => this.endAfterAttempt(), this.threw))
    // It may have left already.
    if (this.isOver) return
    if (this.asked === undefined && !this.isCoded) return this.refuse(Refusal.refuse("invalid_body"))
    const targets = this.targets()
    // It would have to be changed.
    if (targets === undefined) return this.refuse(Refusal.refuse("unsupported_media_type"))
    const opening: Opening<Upstream, void> = this.opening = {
      method: wire === undefined ? "embed" : streams ? "streamText" : "generateText",
      streams,
      targets,
      model: this.model,
      offered: () => this.core.options.models.offered,
      accepts: (target) => !this.isLastAttempt && this.translations.accepts(target),
      isBackground: this.exchange.isBackground === true,
      promptLength: this.prompt.of,
      onBegin: (call) => {
        this.call = call
        if (!this.isRepeated) this.core.clientRetries.began(this.exchange, call.now())
      },
      open: (attempt) => this.attempt(attempt)
    }
    if (this.continuedWire !== undefined && targets.some(({ prefill }) => prefill)) {
      this.sent = new Sent(engine.settings.maxWholeBytes)
    }
    const opened = targets.some(({ quota }) => quota !== undefined)
      ? Effect.provideService(engine.open(opening), MaxOutput, this.maxOutput())
      : engine.open(opening)
    if (streams) this.awaitHeartbeat()
    this.run(opened)
  }

  private run(opened: Effect.Effect<void, AiError.AiError>): void {
    const fiber = this.fiber = Effect.runForkWith(this.core.options.context)(opened)
    fiber.addObserver(contained((exit) => this.ended(exit), this.threw))
  }

  /** Makes no further attempt. Ends the call now if none runs. */
  private endAfterAttempt(): void {
    this.isLastAttempt = true
    if (this.isOver || this.call?.isRunning === true) return
    this.refuse(stopped)
    this.fiber?.interruptUnsafe()
  }

  /** Ends the call, since the server stops. */
  stop(): void {
    if (this.isOver) return
    const { relay } = this
    if (!this.isOpen || relay === undefined) {
      this.refuse(stopped)
      this.fiber?.interruptUnsafe()
      return
    }
    const { guard } = relay
    relay.left()
    if (guard !== undefined) this.endInError(stopped, guard)
  }

  // ---------- the request

  /** The targets of the model that have the endpoint. `undefined`: the request would have to be changed, and cannot be. */
  private targets(): ReadonlyArray<Target<Upstream>> | undefined {
    const { core: { options: { context, models, translates } }, endpoint, isCoded, model } = this
    const random = Context.get(context, Random.Random)
    const offering = models.of(model, () => random.nextDoubleUnsafe())
      .filter((target) => canServe(target, endpoint, translates && !isCoded))
    if (isCoded) {
      const unchanged = offering.filter((target) => ownName(target, model) === undefined)
      return unchanged.length === 0 && offering.length > 0 ? undefined : unchanged
    }
    const [first] = offering
    // Another account does not have the state.
    return first !== undefined && this.hasState()
      ? offering.filter(({ credential }) => credential === first.credential)
      : offering
  }

  /** Whether the request depends on what a provider keeps. */
  private hasState(): boolean {
    const { endpoint, exchange: { body } } = this
    return endpoint === "responses" &&
      (isSet(field(body, "previous_response_id")) || isSet(field(body, "conversation")) ||
        field(body, "background") === true)
  }

  /** A batch repeats what failed, as it should. */
  private get isRepeated(): boolean {
    return this.exchange.isBackground === true
  }

  private maxOutput(): number | undefined {
    const { choices = 1, maxTokens } = this.asked ?? {}
    return maxTokens === undefined ? undefined : maxTokens * choices
  }

  private bodyFor(target: Target<Upstream>): string | Uint8Array {
    const body = this.wholeBodyFor(target)
    const { partial } = this
    return partial === undefined ? body : withPrefill(Buffer.from(body), partial.answer.prefill) ?? body
  }

  private wholeBodyFor(target: Target<Upstream>): string | Uint8Array {
    if (this.translated !== undefined) return this.translated.body
    const { model } = this
    const name = ownName(target, model)
    let { body } = this.exchange
    if (name !== undefined && name !== model) body = splice(body, "model", JSON.stringify(name))
    return this.addsUsage ? splice(body, "stream_options", `{"include_usage":true}`) : body
  }

  private headersFor(call: ModelCall<Upstream>, { service }: Target<Upstream>): OutgoingHeaders {
    // Another prompt needs another key.
    const key = this.partial === undefined ? call.key : `${call.key}-${call.attempts}`
    const { exchange: { headers }, translated } = this
    return toProvider(translated === undefined ? headers : withoutVendors(headers), {
      own: service.headers,
      defaults: {
        "idempotency-key": key,
        "content-type": "application/json",
        ...(service.speaks === "anthropic" ? { "anthropic-version": anthropicVersion } : {})
      }
    })
  }

  // ---------- an attempt

  private attempt(attempt: HeldAttempt<Upstream>): Effect.Effect<void, AiError.AiError> {
    return Effect.callback((resume) => {
      const { core: { options: { bounds, context, engine: { settings }, post } }, route, wire } = this
      const { call, target } = attempt
      const { service } = target
      const translated = this.translated = this.translations.of(target)
      const wireOfTarget = wire === undefined ? undefined : wireAt(service.endpoints, wire)
      const method = wire === undefined ? "embedMany" : this.streams ? "streamText" : "generateText"
      const origin = service.origin(method, call.modelOf(target), call.now)
      const holdsAll = settings.answer === "whole"
      const relay = this.relay = new Relay({
        attempt,
        client: this,
        origin,
        bounds,
        context,
        guard: wireOfTarget === undefined ? undefined : () => this.guard(wireOfTarget),
        translated: translated === undefined ? undefined : this.answers(translated, call),
        streams: this.streams,
        splicer: this.splicer,
        holdsAll,
        maxHeldBytes: holdsAll ? settings.maxWholeBytes : settings.maxHeldBytes,
        onErrorResponse: (error, response) => {
          this.errorResponse = { error, response }
        },
        opened: resume
      })
      const request = {
        method: "POST" as const,
        url: service.urlOf(translated === undefined ? route : translated.path),
        headers: this.headersFor(call, target),
        body: this.bodyFor(target)
      }
      relay.start((listener) => post(request, listener, context))
      return Effect.sync(() => relay.close())
    })
  }

  private answers({ includeUsage, translation }: Request, { id, now }: ModelCall<Upstream>): Translated {
    const options = { id, created: Math.floor(now() / 1000), includeUsage }
    return {
      stream: () => translation.stream(options),
      whole: (body) => translation.answer(body, options)
    }
  }

  private guard(wire: Wire): Guard {
    const { core: { options: { bounds } } } = this
    return new Guard(wire, { choices: this.asked?.choices, dropUsage: this.addsUsage, maxEventBytes: bounds.eventSize })
  }

  // ---------- the answer

  head({ target }: HeldAttempt<Upstream>, { headers, status }: ResponseHead, length?: number): void {
    this.isOpen = true
    const { omitted = [] } = this.translated ?? {}
    const own = {
      "x-sluice-target": asHeader(target.name),
      ...this.names(),
      ...(omitted.length === 0 ? {} : { "x-sluice-omitted": omitted.join(", ") }),
      ...(length === undefined ? {} : { "content-length": String(length) })
    }
    this.sendHead(status, toClient(headers, { own, changesLength: length === undefined }))
    if (this.sent === undefined) this.release()
  }

  /** Nothing is sent again. A request with images can be larger than everything else that a stream needs. */
  private release(): void {
    this.exchange = { ...this.exchange, body: empty }
    this.prompt.release()
    this.translations.release()
    if (this.translated !== undefined) this.translated = { ...this.translated, body: "" }
  }

  write(bytes: Uint8Array): boolean {
    this.sent?.add(bytes)
    return this.sink.write(bytes)
  }

  end(bytes?: Uint8Array | string): void {
    this.over()
    this.sink.end(bytes)
  }

  continue({ call }: HeldAttempt<Upstream>, cause: Cause.Cause<AiError.AiError>): boolean {
    const { continuedWire, core: { options: { engine } }, exchange: { body }, opening, sent } = this
    const partial = continuedWire === undefined ? undefined : sent?.partial(continuedWire)
    if (opening === undefined || partial === undefined) return false
    const { prefill } = partial.answer
    if (withPrefill(body, prefill) === undefined) return false
    const continued = engine.continue(call, { ...opening, prefill }, cause)
    if (continued === undefined) return false
    this.partial = partial
    this.isOpen = false
    this.run(continued)
    return true
  }

  /** The API of a stream that can be continued. */
  private get continuedWire(): ContinuedWire | undefined {
    const { asked, streams, wire } = this
    return streams && asked?.choices === 1 && wire !== "responses" ? wire : undefined
  }

  private get splicer(): Splicer | undefined {
    const { continuedWire, partial } = this
    return continuedWire === undefined || partial === undefined ? undefined : new Splicer(continuedWire, partial)
  }

  fail(error: AiError.AiError, guard: Guard): void {
    this.endInError(Refusal.ofError(error), guard)
  }

  /** The provider's own error event is in the form of the target. */
  private endInError(words: ErrorWords, guard: Guard): void {
    const { translated, wire } = this
    this.end(translated === undefined || wire === undefined ? errorEnding(guard, words) : errorEvent(wire, words))
  }

  private sendHead(status: number, headers: OutgoingHeaders): void {
    this.cancelHeartbeat?.()
    if (this.hasHead) return
    this.sink.head(status, headers)
    this.hasHead = true
  }

  // ---------- no answer

  private ended(exit: Exit.Exit<unknown, AiError.AiError>): void {
    if (exit._tag === "Success" || this.isOver) return
    const error = Cause.hasDies(exit.cause) ? undefined : exit.cause.reasons.find(Cause.isFailReason)?.error
    if (error === undefined) return this.died(exit.cause)
    const { call, errorResponse, translated, translations: { unsupported } } = this
    if (unsupported !== undefined && hasNoTarget(error)) {
      return this.refuse(Refusal.unsupported(unsupported.param, unsupported.message))
    }
    const refusal = Refusal.ofError(error)
    if (call !== undefined && call.attempts > 0 && isRetried(refusal) && !this.isRepeated) {
      this.core.clientRetries.failed(this.exchange, call.now())
    }
    if (errorResponse?.error === error && !this.hasHead) {
      const { response } = errorResponse
      const { body, status } = translated?.translation.error(response.status, response.body) ?? response
      const own = {
        ...this.names(),
        ...(translated === undefined ? {} : { "content-type": "application/json" }),
        "content-length": String(Buffer.byteLength(body))
      }
      const head = Refusal.verbatim(refusal, {
        status,
        headers: toClient(response.headers, { own, changesLength: true })
      })
      if (head !== undefined) {
        this.over()
        this.sendHead(head.status, head.headers)
        return this.sink.end(body)
      }
    }
    this.refuse(refusal)
  }

  /** One of the callbacks threw. */
  readonly threw = (cause: Cause.Cause<unknown>): void => {
    if (this.isOpen && this.relay !== undefined) return this.relay.died(cause as Cause.Cause<never>)
    this.died(cause)
    this.fiber?.interruptUnsafe()
  }

  readonly died = (cause: Cause.Cause<unknown>): void => {
    const { core, isOver, sink } = this
    core.report(cause)
    const abort = () => sink.abort()
    // Its end was what threw.
    if (isOver) abort()
    else contained(() => this.refuse(Refusal.defect), abort)()
  }

  private refuse(refusal: Refusal.Refusal): void {
    const { hasHead, route: { speaks }, sink, wire } = this
    this.over()
    if (!hasHead) return refuse(sink, speaks, refusal, this.names())
    if (wire === undefined) sink.abort()
    else sink.end(errorEvent(wire, refusal))
  }

  private names(): OutgoingHeaders {
    const { call } = this
    return call === undefined ? {} : { "x-sluice-attempts": String(call.attempts), "x-sluice-call": call.id }
  }

  private left(): void {
    if (this.isOver) return
    this.over()
    if (this.isOpen) this.relay?.left()
    else this.fiber?.interruptUnsafe()
  }

  private over(): void {
    this.isOver = true
    this.cancelHeartbeat?.()
    this.core.over(this)
  }

  // ---------- the heartbeat

  private awaitHeartbeat(): void {
    const { context, heartbeatMillis } = this.core.options
    if (heartbeatMillis === undefined) return
    const beat = () => {
      const { call, isOpen, isOver } = this
      if (isOpen || isOver) return
      if (!this.hasHead) {
        this.sendHead(200, {
          "content-type": "text/event-stream",
          "cache-control": "no-cache",
          ...(call === undefined ? {} : { "x-sluice-call": call.id })
        })
      }
      this.sink.write(comment)
      this.awaitHeartbeat()
    }
    this.cancelHeartbeat = callAfter(context, heartbeatMillis, contained(beat, this.threw))
  }
}

const empty = new Uint8Array(0)

/** Whether no target can ever take the request. */
const hasNoTarget = (error: AiError.AiError): boolean => {
  const rejection = Option.getOrUndefined(AiRejection.fromAiError(error))
  return rejection?._tag === "NoTarget" && rejection.targets.length === 0
}

/** Whether clients retry on the status. */
const isRetried = ({ status }: Refusal.Refusal): boolean =>
  status === 408 || status === 409 || status === 429 || status >= 500

const anthropicVersion = "2023-06-01"

/** The headers that belong to the API of the client, which the target does not have. */
const withoutVendors = (headers: IncomingHeaders): IncomingHeaders =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !/^(?:anthropic|openai)-/.test(name)))

/** The wire of a target's answer to a request of another wire. */
const wireAt = (endpoints: ReadonlySet<Endpoint>, wire: Wire): Wire =>
  endpoints.has(wire) ? wire : wire === "chat" ? "messages" : "chat"

const isSet = (value: unknown): boolean => value !== undefined && value !== null
