import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { callAfter } from "@sluice/core/Timer"
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import type * as HttpMethod from "effect/http/HttpMethod"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as Random from "effect/Random"
import * as RetryAfter from "../../RetryAfter.ts"
import type { Target } from "../resilient/target.ts"
import type { ResponseHead } from "../wire/failure.ts"
import * as Json from "../wire/json.ts"
import type { Exchange as Connection, Listener } from "../wire/post.ts"
import { field, splice } from "./body.ts"
import { contained } from "./contain.ts"
import type { Core } from "./core.ts"
import type { Exchange, Sink } from "./exchange.ts"
import { isCoded, toClient, toProvider } from "./headers.ts"
import { ownName } from "./models.ts"
import * as Refusal from "./refusal.ts"
import { asHeader, refuse } from "./reply.ts"
import type { Route } from "./route.ts"
import type { Upstream } from "./upstream.ts"

const credentialRefused: Refusal.Refusal = {
  status: 502,
  code: "credential_refused",
  message: "The model's provider refused the server's credential."
}
const attemptTimeout: Refusal.Refusal = {
  status: 504,
  code: "attempt_timeout",
  message: "The provider did not answer in time."
}
const connectionFailed: Refusal.Refusal = {
  status: 502,
  code: "connection_failed",
  message: "The connection to the model's provider failed."
}

/** Statuses after which another attempt can succeed. */
const isTransient = (status: number): boolean =>
  status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 505)

const isIdempotent = (method: HttpMethod.HttpMethod): boolean => method === "GET" || method === "HEAD"

/** The largest error response that is held. */
const maxErrorBytes = 2 ** 20

interface ErrorAnswer {
  readonly head: ResponseHead
  readonly chunks: Array<Uint8Array>
  size: number
}

/**
 * Passes a request that is no call of a model to the first target that speaks its API: files, batches, token counts. It has no circuit,
 * permits and quota.
 *
 * A GET is tried again, as often as the retry of the front says, while its client has nothing of an answer: at the next target of the
 * same account, since no other one has its files, or for the list of models at the next target of the API. Anything else has one
 * attempt, since the provider may have done what it asks for.
 */
export class Pass implements Listener {
  private readonly core: Core
  private readonly route: Route
  private readonly method: HttpMethod.HttpMethod
  private readonly exchange: Exchange
  private readonly sink: Sink
  private readonly now: () => number
  private readonly startedAt: number
  /** The model of the request. */
  private asked: string | undefined
  /** Where the attempts go, in turn. */
  private targets: ReadonlyArray<Target<Upstream>> = []
  private target: Target<Upstream> | undefined
  private attempts = 0
  /** `undefined` between two attempts. */
  private connection: Connection | undefined
  private cancel: (() => void) | undefined
  /** An error response, which can quote the key of the target. It is held until it is whole. */
  private error: ErrorAnswer | undefined
  private isRunning = false
  private hasHead = false
  private isOver = false

  constructor(core: Core, route: Route, method: HttpMethod.HttpMethod, exchange: Exchange, sink: Sink) {
    this.core = core
    this.route = route
    this.method = method
    this.exchange = exchange
    this.sink = sink
    const clock = Context.get(core.options.context, Clock.Clock)
    this.now = () => clock.currentTimeMillisUnsafe()
    this.startedAt = this.now()
  }

  start(): void {
    const {
      core: { options: { context, engine, models } },
      exchange: { body, headers },
      route: { operation, speaks },
      sink
    } = this
    const isJson = !isCoded(headers) && String(headers["content-type"]).includes("json")
    const asked = this.asked = isJson ? Json.text(field(body, "model")) : undefined
    const random = Context.get(context, Random.Random)
    const offering = asked === undefined ? engine.targets : models.of(asked, () => random.nextDoubleUnsafe())
    const fitting = offering.filter(({ service }) => service.speaks === speaks)
    const [first] = fitting
    if (first === undefined) return this.refuse(Refusal.refuse("not_found", "No target has this endpoint."))
    this.targets = operation === "models"
      ? fitting
      : fitting.filter(({ credential }) => credential === first.credential)
    sink.onLeave(contained(() => this.stop(), this.threw))
    sink.onDrain(contained(() => this.connection?.resume(), this.threw))
    // It may have left already.
    if (!this.isOver) this.attempt(first)
  }

  /** Closes both connections. */
  stop(): void {
    if (this.isOver) return
    this.over()
    this.sink.abort()
  }

  // ---------- an attempt

  private attempt(target: Target<Upstream>): void {
    const { asked, core: { options: { context, post } }, exchange: { body, headers }, method, route } = this
    const { limits, service } = target
    const name = asked === undefined ? undefined : ownName(target, asked)
    this.target = target
    this.attempts++
    this.isRunning = true
    this.cancel = callAfter(
      context,
      limits.attemptMillis,
      contained(() => this.failed(attemptTimeout), this.threw)
    )
    const request = {
      method,
      url: service.urlOf(route),
      headers: toProvider(headers, { own: service.headers }),
      body: name === undefined || name === asked ? body : splice(body, "model", JSON.stringify(name))
    }
    const connection = post(request, this, context)
    if (this.isRunning) this.connection = connection
    else connection.close()
  }

  /** Ends the attempt, and makes another one. Returns false if there is none. */
  private retries(after: number): boolean {
    const { attempts, core: { options: { context, engine: { settings } } }, method, startedAt, targets } = this
    const { deadline, maxRetryAfterMillis, retry } = settings
    if (!isIdempotent(method) || this.hasHead || attempts >= retry.maxAttempts || after > maxRetryAfterMillis) {
      return false
    }
    const next = targets[attempts % targets.length]
    if (next === undefined) return false
    const backoff = Context.get(context, Random.Random).nextDoubleUnsafe() *
      Duration.toMillis(RetryPolicy.delayFor(retry, attempts))
    // A target that has not failed is asked at once.
    const delay = attempts < targets.length ? 0 : after + backoff
    if (deadline !== undefined && this.now() + delay >= startedAt + Duration.toMillis(deadline)) return false
    this.endAttempt()
    this.cancel = callAfter(context, delay, contained(() => this.attempt(next), this.threw))
    return true
  }

  private endAttempt(): void {
    this.isRunning = false
    this.error = undefined
    this.cancel?.()
    this.connection?.close()
    this.connection = undefined
  }

  // ---------- the response

  answered({ headers, status }: ResponseHead): void {
    if (this.isOver) return
    const after = RetryAfter.fromHeaders(headers, { now: this.now() })
    if (isTransient(status) && this.retries(after === undefined ? 0 : Duration.toMillis(after))) return
    // The error can show a part of the target's key.
    if (status === 401 || status === 402 || status === 403 || status === 407) return this.refuse(credentialRefused)
    if (status >= 400) this.error = { head: { headers, status }, chunks: [], size: 0 }
    else this.begin({ headers, status })
  }

  private begin({ headers, status }: ResponseHead): void {
    this.cancel?.()
    const own = {
      "x-sluice-target": asHeader(this.target?.name ?? ""),
      "x-sluice-attempts": String(this.attempts),
      // Further attempts of the client would multiply these.
      ...(isTransient(status) && this.attempts > 1 ? { "x-should-retry": "false" } : {})
    }
    this.sink.head(status, toClient(headers, { own, changesLength: this.error !== undefined }))
    this.hasHead = true
  }

  data(bytes: Uint8Array): void {
    if (this.isOver) return
    if (this.error !== undefined && !this.hasHead) this.hold(this.error, bytes)
    else if (!this.sink.write(bytes)) this.connection?.pause()
  }

  ended(): void {
    if (this.isOver) return
    const { error, hasHead, target } = this
    if (error === undefined || hasHead) {
      this.over()
      return this.sink.end()
    }
    const held = Buffer.concat(error.chunks)
    const body = target?.service.masked(held) ?? held
    this.begin(error.head)
    this.over()
    this.sink.end(body)
  }

  /** A larger one is no message, and passes as it comes. */
  private hold(error: ErrorAnswer, bytes: Uint8Array): void {
    error.chunks.push(bytes)
    error.size += bytes.length
    if (error.size <= maxErrorBytes) return
    this.begin(error.head)
    this.sink.write(Buffer.concat(error.chunks))
  }

  lost(_error: HttpClientError.HttpClientError): void {
    this.failed(connectionFailed)
  }

  died(cause: Cause.Cause<never>): void {
    this.threw(cause)
  }

  /** The transport or one of the callbacks threw. */
  readonly threw = (cause: Cause.Cause<never>): void => {
    const { core, hasHead, isOver, sink } = this
    core.report(cause)
    const abort = () => sink.abort()
    if (isOver) abort()
    else contained(() => hasHead ? this.stop() : this.refuse(Refusal.defect), abort)()
  }

  /** A break within the response must not look like its end. */
  private failed(refusal: Refusal.Refusal): void {
    if (this.hasHead) this.stop()
    else if (!this.retries(0)) this.refuse(refusal)
  }

  private refuse(refusal: Refusal.Refusal): void {
    if (this.isOver) return
    this.over()
    const { attempts } = this
    refuse(this.sink, this.route.speaks, refusal, attempts === 0 ? {} : { "x-sluice-attempts": String(attempts) })
  }

  private over(): void {
    this.isOver = true
    this.endAttempt()
    this.core.over(this)
  }
}
