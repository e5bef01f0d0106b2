import type { Backpressure } from "@sluice/core/Backpressure"
import type { CircuitBreaker } from "@sluice/core/CircuitBreaker"
import type * as Duration from "effect/Duration"
import * as Mark from "../telemetry/mark.ts"
import type { Place } from "../telemetry/operation.ts"

/** A time for which something is left alone, which a clock that is set back does not make longer. */
export class Rest {
  private since = 0
  private millis = 0

  /** From now on for so long, or for what is left, whichever is longer. */
  take(now: number, millis: number): void {
    if (millis <= this.left(now)) return
    this.since = now
    this.millis = millis
  }

  /** The milliseconds that are left. */
  left(now: number): number {
    // The clock was set back: how much of it has passed is not known, and all of it is the most that can be left.
    this.since = Math.min(this.since, now)
    return Math.max(0, this.since + this.millis - now)
  }
}

/** An account at a provider. Its targets share that it is refused, or used up. */
export class Credential {
  readonly name: string
  /** While it lasts, nobody asks with it. */
  readonly rest = new Rest()

  constructor(name: string) {
    this.name = name
  }
}

export interface Limits {
  readonly firstTokenMillis: number
  readonly idleMillis: number
  readonly attemptMillis: number
  readonly attemptTimeout: Duration.Duration
}

type Fields<S> = Pick<
  Target<S>,
  | "name"
  | "key"
  | "provider"
  | "model"
  | "service"
  | "order"
  | "weight"
  | "contextTokens"
  | "credential"
  | "breaker"
  | "permits"
  | "maxWaitMillis"
  | "limits"
>

/** One place where a model can be called, and what is known of it. */
export class Target<out S> {
  readonly name: string
  /** Of its circuit. */
  readonly key: string
  readonly provider: string
  readonly model: string
  readonly service: S
  readonly order: number
  readonly weight: number
  readonly contextTokens: number | undefined
  readonly credential: Credential
  readonly breaker: CircuitBreaker["Service"] | undefined
  readonly permits: Backpressure["Service"] | undefined
  /** How long a call waits for a permit; `undefined` for as long as it takes. */
  readonly maxWaitMillis: number | undefined
  readonly limits: Limits
  /** What metrics and traces call it. */
  readonly place: Place
  /** Whether its calls are measured and traced by itself. */
  readonly isWatched: boolean
  /** It asked to be left alone for so long. */
  readonly rest = new Rest()

  constructor(fields: Fields<S>) {
    this.name = fields.name
    this.key = fields.key
    this.provider = fields.provider
    this.model = fields.model
    this.service = fields.service
    this.order = fields.order
    this.weight = fields.weight
    this.contextTokens = fields.contextTokens
    this.credential = fields.credential
    this.breaker = fields.breaker
    this.permits = fields.permits
    this.maxWaitMillis = fields.maxWaitMillis
    this.limits = fields.limits
    this.place = { provider: this.provider, model: this.model, target: this.name }
    this.isWatched = typeof this.service === "object" && this.service !== null && Mark.isMarked(this.service)
  }
}

export type AnyTarget = Target<unknown>
