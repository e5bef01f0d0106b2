import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpMethod from "effect/http/HttpMethod"
import * as Schema from "effect/Schema"
import { CallLog } from "../../CallLog.ts"
import type { Engine } from "../resilient/engine.ts"
import type { Bounds } from "../wire/bounds.ts"
import type { Post } from "../wire/post.ts"
import { Call } from "./call.ts"
import type { CallLogs } from "./callLogs.ts"
import { ClientRetries } from "./clientRetries.ts"
import { contained } from "./contain.ts"
import type { Exchange, Sink } from "./exchange.ts"
import { problem } from "./headers.ts"
import type { Models } from "./models.ts"
import { Pass } from "./pass.ts"
import * as Refusal from "./refusal.ts"
import { json, refuse } from "./reply.ts"
import { type Route, Routes, type Speaks } from "./route.ts"
import type { Shared } from "./shared.ts"
import { chatModel, chatModels, messagesModel, messagesModels } from "./translate/models.ts"
import type { Endpoint, Upstream } from "./upstream.ts"

export interface CoreOptions {
  readonly engine: Engine<Upstream>
  readonly post: Post
  readonly models: Models
  readonly logs: CallLogs
  readonly bounds: Bounds
  /** The context of all calls. */
  readonly context: Context.Context<never>
  /** How often a client that waits for the first output gets a comment. `undefined`: never. */
  readonly heartbeatMillis: number | undefined
  /** Whether streams of chat completions are asked for their token counts. */
  readonly countsUsage: boolean
  /** Whether requests are translated for targets with the other API. */
  readonly translates: boolean
  /** Identical requests share one call. `undefined`: each has its own. */
  readonly shared: Shared | undefined
  /** The fields at the top of a request that a translation may leave out. */
  readonly omittable: ReadonlyArray<string>
}

/** A request that runs. */
interface Running {
  start(): void
  stop(): void
  /** One of its callbacks threw. */
  threw(cause: Cause.Cause<never>): void
}

const stopping: Refusal.Refusal = {
  status: 503,
  code: "backpressure_shed",
  message: "The server is stopping.",
  retryAfter: Duration.seconds(1)
}

/** Of all models. */
const owner = "sluice"

const logPath = "/sluice/calls/"

const encodeLog = Schema.encodeSync(Schema.toCodecJson(CallLog))

/** Answers the requests of clients. */
export class Core {
  readonly options: CoreOptions
  readonly clientRetries = new ClientRetries((client) => this.warn(client))
  private readonly routes = new Routes()
  private readonly running = new Set<Running>()
  private isStopped = false

  constructor(options: CoreOptions) {
    this.options = options
  }

  /** Answers a request. Never throws. */
  readonly exchange = (exchange: Exchange, sink: Sink): void => {
    const refused = () => refuse(sink, speaksAnthropic(exchange) ? "anthropic" : "openai", Refusal.defect)
    contained(() => this.answer(exchange, sink), (cause) => {
      this.report(cause)
      contained(refused, () => sink.abort())()
    })()
  }

  /** Answers a request whose body the front cannot have. */
  readonly refuse = (code: Refusal.BodyProblem, exchange: Exchange, sink: Sink): void => {
    const speaks = speaksAnthropic(exchange) ? "anthropic" : "openai"
    refuse(sink, speaks, Refusal.refuse(code))
  }

  /** Logs a fault of the front itself. */
  report(cause: Cause.Cause<unknown>): void {
    Effect.runForkWith(this.options.context)(Effect.logError("a call of the front died", cause))
  }

  private answer(exchange: Exchange, sink: Sink): void {
    const { headers, method, path } = exchange
    const isAnthropic = speaksAnthropic(exchange)
    const speaks = isAnthropic ? "anthropic" : "openai"
    if (this.isStopped) return refuse(sink, speaks, stopping)
    if (headers["upgrade"] !== undefined) return refuse(sink, speaks, Refusal.refuse("upgrade_required"))
    const ambiguity = problem(headers)
    if (ambiguity !== undefined) return refuse(sink, speaks, Refusal.refuse("invalid_headers", ambiguity))
    if (method === "OPTIONS" || !HttpMethod.isHttpMethod(method)) {
      return refuse(sink, speaks, Refusal.refuse("method_not_allowed"))
    }
    if (path.startsWith(logPath) && method === "GET") return this.log(path.slice(logPath.length), speaks, sink)
    if (path === "/" && (method === "HEAD" || method === "GET")) return json(sink, { name: "sluice" })
    const route = this.routes.of(method, path, isAnthropic)
    if (route === undefined) return refuse(sink, speaks, Refusal.refuse("not_found"))
    switch (route.operation) {
      case "chat":
      case "embeddings":
      case "messages":
      case "responses":
        return this.call(route, route.operation, exchange, sink)
      case "models":
        if (!this.options.models.isOpen) return this.model(route, sink)
        return this.start(new Pass(this, route, method, exchange, sink))
      case "countTokens":
      case "other":
        return this.start(new Pass(this, route, method, exchange, sink))
    }
  }

  /** Refuses further requests, and ends those that run. */
  stop(): void {
    this.isStopped = true
    for (const running of this.running) contained(() => running.stop(), (cause) => running.threw(cause))()
  }

  over(ended: Running): void {
    this.running.delete(ended)
  }

  private warn(client: string): void {
    const warning = Effect.logWarning(
      "A client seems to retry a request for which all attempts had failed. Its retries multiply those of the front: set its maxRetries to 0."
    )
    Effect.runForkWith(this.options.context)(Effect.annotateLogs(warning, { client }))
  }

  private call(route: Route, endpoint: Endpoint, exchange: Exchange, sink: Sink): void {
    const start = (sink: Sink) => this.start(new Call(this, route, endpoint, exchange, sink))
    const { shared } = this.options
    if (shared === undefined) start(sink)
    else shared.answer(exchange, route.speaks, sink, start)
  }

  private start(running: Running): void {
    this.running.add(running)
    contained(() => running.start(), (cause) => running.threw(cause))()
  }

  private log(id: string, speaks: Speaks, sink: Sink): void {
    const log = this.options.logs.get(id)
    if (log === undefined) {
      const message = "The call is unknown, still runs, or is no longer kept."
      return refuse(sink, speaks, Refusal.refuse("not_found", message))
    }
    json(sink, encodeLog(log))
  }

  private model({ speaks, suffix }: Route, sink: Sink): void {
    const { models } = this.options
    const { offered } = models
    const id = suffix.slice("/models/".length)
    const isAnthropic = speaks === "anthropic"
    if (id === "") return json(sink, isAnthropic ? messagesModels(offered) : chatModels(offered, owner))
    if (models.offers(id)) return json(sink, isAnthropic ? messagesModel(id) : chatModel(id, owner))
    refuse(sink, speaks, { status: 404, code: "model_not_found", message: "The model does not exist." })
  }
}

/** Whether a client speaks Anthropic's API. Its paths are its own, but for those of the models. */
const speaksAnthropic = ({ headers, path }: Exchange): boolean =>
  headers["anthropic-version"] !== undefined || /\/messages(?:$|[?/])/.test(path)
