/** What the gateway does around each call of a client: the limits of its key, its log line, and metrics. */
import type { CallLog } from "@sluice/ai/CallLog"
import type { Exchange, Sink } from "@sluice/ai/Front"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import type { QuotaExceeded, Reservation } from "@sluice/core/Quota"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Clients from "./Clients.ts"
import * as Costs from "./Costs.ts"
import type { Flight, Live, Status } from "./Live.ts"
import { reasonOf } from "./Live.ts"
import type { Logs } from "./Logs.ts"
import type { Metrics } from "./Metrics.ts"
import * as Refusal from "./Refusal.ts"
import type { Current } from "./Reloads.ts"
import type { Asked } from "./Request.ts"
import * as Request from "./Request.ts"
import { offering } from "./Settings.ts"

export interface Surroundings {
  readonly current: () => Current
  readonly clients: Clients.Clients
  readonly live: Live
  readonly logs: Logs
  readonly metrics: Metrics
  readonly owners: Owners
}

/** As many as a front keeps logs of calls. */
const maxOwners = 1_000

/** Which client made a call, of the last calls. */
export class Owners {
  private readonly owners = new Map<string, string>()

  add(call: string, owner: string): void {
    this.owners.set(call, owner)
    if (this.owners.size <= maxOwners) return
    for (const oldest of this.owners.keys()) {
      this.owners.delete(oldest)
      return
    }
  }

  get(call: string): string | undefined {
    return this.owners.get(call)
  }
}

type Refused = Refusal.Refusal

/** Answers the request of a client whose body was read. */
export const handle = (surroundings: Surroundings, client: Clients.Client, exchange: Exchange, sink: Sink): void =>
  new Call(surroundings, client, exchange, sink).begin()

const operations = new Map([
  ["/v1/chat/completions", "chat"],
  ["/v1/responses", "responses"],
  ["/v1/embeddings", "embeddings"],
  ["/v1/messages", "messages"]
])

const longestName = 64

/** How the response ended: with its end, broken off, or since the client left. */
type Ended = "ended" | "broken" | "left"

class Call implements Sink {
  private readonly surroundings: Surroundings
  private readonly client: Clients.Client
  private readonly exchange: Exchange
  private readonly sink: Sink
  private readonly path: string
  private readonly operation: string
  private readonly startedAt = Date.now()
  private readonly current: Current
  private asked: Asked | undefined
  private reservation: { readonly held: Reservation; readonly scope: Scope.Closeable } | undefined
  private reservedMoney = 0
  private status = 0
  private id: string | undefined
  private target: string | undefined
  private attempts: string | undefined
  private firstByteAt: number | undefined
  /** Whether the answer is that of another request, which has its use and its attempts. */
  private isShared = false
  private flight: Flight | undefined
  private refusedFor: string | undefined
  private isOver = false

  constructor(surroundings: Surroundings, client: Clients.Client, exchange: Exchange, sink: Sink) {
    this.surroundings = surroundings
    this.client = client
    this.exchange = exchange
    this.sink = sink
    this.current = surroundings.current()
    this.path = exchange.path.split("?")[0] ?? ""
    this.operation = exchange.method === "POST" ? operations.get(this.path) ?? "other" : "other"
  }

  // ---------- the limits of the key

  begin(): void {
    // A reload meanwhile must not close the front.
    this.current.enter()
    const refusal = this.check()
    if (refusal === undefined) this.admit()
    else this.refuse(refusal)
  }

  /** Returns why the key may not make this call. */
  private check(): Refused | undefined {
    const { client, exchange: { body, method }, path } = this
    if (!Clients.isLimited(client)) return undefined
    if (!Request.isKnown(method, path)) {
      return {
        status: 403,
        code: "key_is_limited",
        message: "A key with limits may use chat/completions, responses, embeddings, messages and models."
      }
    }
    if (method !== "POST") return undefined
    const asked = this.asked = Request.read(body)
    if (asked === undefined) {
      return { status: 400, code: "invalid_body", message: "The body must be a JSON object with one field model." }
    }
    if (!Clients.mayUse(client, asked.model)) {
      return { status: 403, code: "model_not_allowed", message: "The key may not use this model." }
    }
    return undefined
  }

  /** Reserves the use of the call, and starts or refuses it. */
  private admit(): void {
    const { asked, client: { key, quota }, operation } = this
    if (quota === undefined || key === undefined || asked === undefined || operation === "other") return this.start()
    const { inputTokens, model, outputTokens } = asked
    const money = key.costPerDay === undefined ? 0 : this.most(model, inputTokens, outputTokens)
    if (money === undefined) return this.refuse(noPrice)
    const amounts = {
      ...(key.tpm === undefined ? {} : { tokens: { known: inputTokens, atMost: inputTokens + outputTokens } }),
      ...(key.costPerDay === undefined ? {} : { money })
    }
    this.reservedMoney = money
    // Ends at once if the store is in this process. A shared one takes a round trip.
    const scope = Scope.makeUnsafe()
    const stop = Effect.runCallback(
      Effect.result(Scope.provide(quota.tryReserve({ key: Clients.quotaKey(key), amounts }), scope)),
      {
        onExit: (exit) => {
          if (this.isOver) return
          if (Exit.isFailure(exit)) return this.abort()
          const { value } = exit
          this.contained(() => {
            if (Result.isFailure(value)) return this.refuse(this.refusalBy(value.failure))
            this.reservation = { held: value.success, scope }
            this.start()
          })
        }
      }
    )
    if (this.flight !== undefined || this.isOver) return
    this.sink.onLeave(() => {
      this.over("left")
      stop()
    })
  }

  private refusalBy(failure: QuotaExceeded | InvalidOptions): Refused {
    if (failure._tag === "QuotaExceeded" && failure.why === "StoreDown") return noStore
    const after = failure._tag === "QuotaExceeded" && failure.retryAfter !== undefined
      ? Math.max(1, Math.ceil(Duration.toSeconds(failure.retryAfter)))
      : undefined
    // A minute's window can take a second more. A client that is a second early is refused once more.
    const isSoon = after !== undefined && after <= longestRetryAfter + 5
    return {
      status: 429,
      code: "key_limit",
      message:
        `The key has reached its limit of ${failure._tag === "QuotaExceeded" ? nounOf(failure.dimension) : "use"}.` +
        (after === undefined ? "" : ` Retry after ${after} s.`),
      // Clients ignore a longer one, and come back sooner.
      headers: isSoon ? { "retry-after": String(Math.min(after, longestRetryAfter)) } : { "x-should-retry": "false" }
    }
  }

  /** The highest cost of the call among its targets, in millionths of a dollar. `undefined` if one of them has no known price. */
  private most(asked: string, inputTokens: number, outputTokens: number): number | undefined {
    const costs = offering(this.current.settings, asked).map((target) =>
      Costs.ofTarget(this.current.settings, target, asked, { inputTokens, outputTokens })
    )
    const known = costs.filter((cost) => cost !== undefined)
    return known.length < costs.length ? undefined : Math.max(0, ...known)
  }

  // ---------- the answer

  private start(): void {
    this.flight = this.surroundings.live.began(this.client.name, this.operation, this.startedAt)
    this.current.front.exchange(this.exchange, this)
  }

  private refuse(refusal: Refused): void {
    const body = Refusal.bodyOf(this.path, refusal)
    const headers: Record<string, string> = {
      "content-type": "application/json",
      "content-length": String(Buffer.byteLength(body))
    }
    for (const [name, value] of Object.entries(refusal.headers ?? {})) headers[name] = String(value)
    this.refusedFor = refusal.code
    this.surroundings.metrics.refused(refusal.code)
    this.head(refusal.status, headers)
    this.end(body)
  }

  head(status: number, headers: Parameters<Sink["head"]>[1]): void {
    this.status = status
    this.id = text(headers["x-sluice-call"])
    this.target = text(headers["x-sluice-target"])
    this.attempts = text(headers["x-sluice-attempts"])
    if (this.id !== undefined && !this.isPutOff) this.surroundings.owners.add(this.id, this.client.owner)
    this.isShared = headers["x-sluice-shared"] !== undefined
    this.firstByteAt = Date.now()
    if (this.flight !== undefined && this.target !== undefined) {
      this.surroundings.live.streams(this.flight, this.target)
    }
    const isStream = text(headers["content-type"])?.startsWith("text/event-stream") === true
    this.sink.head(status, isStream ? { ...headers, ...unbuffered } : headers)
  }

  write(bytes: Uint8Array): boolean {
    return this.sink.write(bytes)
  }

  end(bytes?: Uint8Array | string): void {
    this.over("ended")
    this.sink.end(bytes)
  }

  abort(): void {
    this.over("broken")
    this.sink.abort()
  }

  onDrain(listener: () => void): void {
    this.sink.onDrain(listener)
  }

  onLeave(listener: () => void): void {
    this.sink.onLeave(() => {
      listener()
      this.over("left")
    })
  }

  onLastAttempt(listener: () => void): void {
    this.sink.onLastAttempt?.(listener)
  }

  // ---------- the end

  private over(result: Ended): void {
    if (this.isOver) return
    this.isOver = true
    // The call ends in this turn, and its log is kept then.
    setImmediate(() => {
      this.contained(() => this.ended(result))
      this.current.leave()
    })
  }

  /** Runs what nothing else contains: a fault in it would end the process. */
  private contained(run: () => void): void {
    try {
      run()
    } catch (error) {
      this.surroundings.logs.error("defect", { type: error instanceof Error ? error.name : typeof error })
      if (!this.isOver) this.abort()
    }
  }

  private ended(result: Ended): void {
    const { client, current: { front }, id, operation, status, surroundings: { live, logs, metrics } } = this
    const log = id === undefined ? undefined : front.call(id)
    if (this.isPutOff) return live.gone(this.flight)
    const own = this.isShared ? undefined : log
    const cost = own === undefined ? 0 : Costs.ofCall(this.current.settings, own, this.asked?.model ?? "")
    this.settle(log, cost, result)
    const outcome = result === "ended" ? resultOf(log, status) : result
    metrics.ended(client.name, operation, status, outcome)
    if (own !== undefined) metrics.used(client.name, own.usage.inputTokens, own.usage.outputTokens, cost / 1e6)
    const now = Date.now()
    const attempted = log?.steps.filter((step) => step._tag === "Attempt") ?? []
    live.ended(
      this.flight,
      {
        id: log === undefined ? null : id ?? null,
        at: this.startedAt,
        millis: now - this.startedAt,
        status: this.statusOf(log, result),
        why: this.refusedFor ??
          (log?.fault === undefined ? (status < 400 ? null : `HTTP ${status}`) : reasonOf(log.fault)),
        key: client.name,
        operation,
        tries: attempted.length,
        targets: [...new Set(attempted.map(({ target }) => target))]
      },
      own,
      cost / 1e6,
      now
    )
    logs.info("request", {
      key: client.name,
      method: this.exchange.method,
      operation,
      status,
      result: outcome,
      why: log?.fault?.type,
      target: this.target,
      attempts: this.attempts === undefined ? undefined : Number(this.attempts),
      durationMillis: now - this.startedAt,
      firstByteMillis: this.firstByteAt === undefined ? undefined : this.firstByteAt - this.startedAt,
      inputTokens: own?.usage.inputTokens,
      outputTokens: own?.usage.outputTokens,
      costDollars: cost === 0 ? undefined : cost / 1e6,
      shared: this.isShared ? true : undefined,
      call: id?.slice(0, longestName)
    })
  }

  /** Whether it is the request of a batch that found no free permit or no target. It comes again in a moment. */
  private get isPutOff(): boolean {
    const { attempts, exchange, status } = this
    return exchange.isBackground === true && attempts === "0" && (status === 429 || status >= 500)
  }

  private statusOf(log: CallLog | undefined, result: Ended): Status {
    if (result === "left" || log?.result === "Interrupted") return "left"
    if (result === "ended" && resultOf(log, this.status) === "ok") return "answered"
    if (this.refusedFor !== undefined || log?.steps.every(({ _tag }) => _tag === "Skipped") === true) return "refused"
    return this.target !== undefined && this.status < 400 ? "cut" : "failed"
  }

  private settle(log: CallLog | undefined, cost: number, result: Ended): void {
    const { client: { key }, id, reservation, reservedMoney, surroundings: { clients } } = this
    if (reservation === undefined) return
    // A client that left before the head of the answer left no id of the call. Its attempts were sent all the same.
    const isUnknown = !this.isShared && log === undefined && (id !== undefined || result === "left")
    const settled = this.isShared
      ? reservation.held.settle({ tokens: 0, money: 0 })
      : log !== undefined
      ? reservation.held.settle({ tokens: log.usage.inputTokens + log.usage.outputTokens, money: cost })
      : isUnknown
      ? Effect.void
      : reservation.held.refund
    Effect.runSync(Effect.andThen(settled, Scope.close(reservation.scope, Exit.void)))
    if (key?.costPerDay !== undefined) clients.spend(key, isUnknown ? reservedMoney : cost)
  }
}

const longestRetryAfter = 60

const noPrice: Refused = {
  status: 403,
  code: "no_price",
  message: "The key has a limit of cost, and the price of this model is not known. Set it with --price-file."
}

const noStore: Refused = {
  status: 503,
  code: "store_down",
  message: "The key has a limit of cost, and the store that counts it does not answer. Retry after 2 s.",
  headers: { "retry-after": "2", "x-should-retry": "true" }
}

/** Makes nginx pass a stream on as it comes, also where it buffers answers. */
const unbuffered = { "x-accel-buffering": "no" }

const text = (value: string | ReadonlyArray<string> | undefined): string | undefined =>
  typeof value === "string" ? value : undefined

const nouns = new Map([["requests", "requests a minute"], ["tokens", "tokens a minute"], ["money", "cost in 24 hours"]])

const nounOf = (dimension: string): string => nouns.get(dimension) ?? dimension

/** A stream that failed has the status 200. */
const resultOf = (log: CallLog | undefined, status: number): string => {
  if (log !== undefined) return { Success: "ok", Failure: "failed", Interrupted: "stopped" }[log.result]
  return status < 400 ? "ok" : "failed"
}
