import { callAfter } from "@sluice/core/Timer"
import * as Context from "effect/Context"
import type * as HttpMethod from "effect/http/HttpMethod"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as Random from "effect/Random"
import type { Target } from "../resilient/target.ts"
import type { ResponseHead } from "../wire/failure.ts"
import * as Json from "../wire/json.ts"
import type { Exchange as Connection, Listener } from "../wire/post.ts"
import { field, splice } from "./body.ts"
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
const connectionFailed: Refusal.Refusal = {
  status: 502,
  code: "connection_failed",
  message: "The connection to the model's provider failed."
}

/**
 * Passes a request that is no call of a model to the first target that speaks its API: files, batches, token counts. It makes one
 * attempt, without circuit, permits and quota.
 */
export class Pass implements Listener {
  private readonly core: Core
  private readonly route: Route
  private readonly method: HttpMethod.HttpMethod
  private readonly exchange: Exchange
  private readonly sink: Sink
  private target: Target<Upstream> | undefined
  private connection: Connection | undefined
  private cancel: (() => void) | undefined
  private hasHead = false
  private isOver = false

  constructor(core: Core, route: Route, method: HttpMethod.HttpMethod, exchange: Exchange, sink: Sink) {
    this.core = core
    this.route = route
    this.method = method
    this.exchange = exchange
    this.sink = sink
  }

  start(): void {
    const { core: { options: { context, engine, models, post } }, exchange, method, route, sink } = this
    const { body, headers } = exchange
    const isJson = !isCoded(headers) && String(headers["content-type"]).includes("json")
    const asked = isJson ? Json.text(field(body, "model")) : undefined
    const random = Context.get(context, Random.Random)
    const offering = asked === undefined ? engine.targets : models.of(asked, () => random.nextDoubleUnsafe())
    const target = this.target = offering.find(({ service }) => service.speaks === route.speaks)
    if (target === undefined) return this.refuse(Refusal.refuse("not_found", "No target has this endpoint."))
    sink.onLeave(() => this.stop())
    sink.onDrain(() => this.connection?.resume())
    // It may have left already.
    if (this.isOver) return
    const { limits, service } = target
    const name = asked === undefined ? undefined : ownName(target, asked)
    const request = {
      method,
      url: service.urlOf(route),
      headers: toProvider(headers, { own: service.headers, length: undefined }),
      body: name === undefined || name === asked ? body : splice(body, "model", JSON.stringify(name))
    }
    this.cancel = callAfter(context, limits.attemptMillis, () => {
      if (!this.hasHead) {
        this.refuse({ status: 504, code: "attempt_timeout", message: "The provider did not answer in time." })
      }
    })
    this.connection = post(request, this, context)
    if (this.isOver) this.connection.close()
  }

  /** Closes both connections. */
  stop(): void {
    if (this.isOver) return
    this.over()
    this.sink.abort()
  }

  answered({ headers, status }: ResponseHead): void {
    if (this.isOver) return
    // The error can show a part of the target's key.
    if (status === 401 || status === 402 || status === 403 || status === 407) return this.refuse(credentialRefused)
    this.hasHead = true
    this.cancel?.()
    const own = { "x-sluice-target": asHeader(this.target?.name ?? "") }
    this.sink.head(status, toClient(headers, { own, changesLength: false }))
  }

  data(bytes: Uint8Array): void {
    if (!this.isOver && !this.sink.write(bytes)) this.connection?.pause()
  }

  ended(): void {
    if (this.isOver) return
    this.over()
    this.sink.end()
  }

  lost(_error: HttpClientError.HttpClientError): void {
    this.broken()
  }

  died(): void {
    this.broken()
  }

  /** A break within the response must not look like its end. */
  private broken(): void {
    if (!this.hasHead) return this.refuse(connectionFailed)
    this.stop()
  }

  private refuse(refusal: Refusal.Refusal): void {
    if (this.isOver) return
    this.over()
    refuse(this.sink, this.route.speaks, refusal)
  }

  private over(): void {
    this.isOver = true
    this.cancel?.()
    this.connection?.close()
    this.core.over(this)
  }
}
