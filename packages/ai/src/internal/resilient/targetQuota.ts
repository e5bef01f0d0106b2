import type { ReserveOptions } from "@sluice/core/Admission"
import type { Amount, Level, Quota, Reservation, Used } from "@sluice/core/Quota"
import type * as AiError from "effect/ai/AiError"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as AiOutcome from "../../AiOutcome.ts"
import * as AiRejection from "../../AiRejection.ts"
import * as RateLimits from "../../RateLimits.ts"
import * as RetryAfter from "../../RetryAfter.ts"
import type { Headers } from "../../RetryAfter.ts"
import type { ModelFacts } from "../kit/modelFacts.ts"
import { familyOf, unknownModel } from "./family.ts"
import { usageIn } from "./log.ts"
import type { Price } from "./options.ts"
import type * as Parts from "./parts.ts"
import { bytes, characters, type Measure } from "./promptSize.ts"
import { Rest } from "./rest.ts"

/** About how many characters count as one token. */
const charactersOfToken = 4

/** The output of a call whose maximum is unknown, until answers have shown more. */
const firstOutput = 4_096

const weight = 0.1
const decay = 0.98
const leastOutput = 256
/** No model answers with more tokens. A provider that reports more is not followed. */
const greatestOutput = 2 ** 18

/** Lengths have to vary by about 100 tokens before the slope is learned from them. */
const priorVariance = 100 ** 2
/** Three tokens for each character, in a text of rare scripts. */
const greatestSlope = 12
const leastSlope = 0.25
/** The most tokens that a provider adds to a prompt, for tools and instructions of its own. */
const greatestOffset = 50_000

/**
 * Learns the tokens of a target's calls: of an input by its length, and of an output whose maximum is unknown.
 *
 * The tokens of an input are a line over a quarter of its characters: the provider adds some tokens to each prompt. A ratio alone
 * would apply the additions of short prompts to long ones, and refuse them as too large. The line is that of the last calls.
 */
class TokenEstimate {
  private meanLength = 0
  private meanTokens = 0
  private variance = 0
  private covariance = 0
  private output = firstOutput

  input(length: number): number {
    const quarter = length / charactersOfToken
    const slope = Math.min(
      greatestSlope,
      Math.max(leastSlope, (this.covariance + priorVariance) / (this.variance + priorVariance))
    )
    return Math.ceil(Math.max(leastSlope * quarter, this.meanTokens + slope * (quarter - this.meanLength)))
  }

  /** The largest output of the last calls. An older one counts less with each call. */
  get mostOutput(): number {
    return Math.ceil(this.output)
  }

  answered(length: number, input: number | undefined, output: number | undefined): void {
    const quarter = length / charactersOfToken
    if (input !== undefined && input > 0 && input <= greatestOffset + greatestSlope * quarter) {
      const ofLength = quarter - this.meanLength
      const ofTokens = input - this.meanTokens
      this.meanLength += weight * ofLength
      this.meanTokens += weight * ofTokens
      this.variance = (1 - weight) * (this.variance + weight * ofLength * ofLength)
      this.covariance = (1 - weight) * (this.covariance + weight * ofLength * ofTokens)
    }
    if (output !== undefined && output <= greatestOutput) {
      this.output = Math.max(leastOutput, output, this.output * decay)
    }
  }
}

export interface TargetQuotaFields {
  readonly service: Quota["Service"]
  /** The account. */
  readonly credential: string
  /** By the options. Default: by the name of the model. */
  readonly family: string | undefined
  readonly price: Price | undefined
  /** The most tokens of an answer, by the options. 0 for a model without output. */
  readonly maxOutputTokens: number | undefined
  readonly facts: ModelFacts | undefined
  readonly provider: string
  /** The rests of the keys of the layer's quotas. */
  readonly rests: Map<string, Rest>
}

/** The call whose amounts are reserved. */
export interface Asked {
  readonly model: string
  /** Of the prompt that is sent. */
  readonly length: (measure: Measure) => number
  readonly context: Context.Context<never>
  readonly deadlineAt: number
  readonly now: () => number
}

/** The quota of a target's account and model family, and what its calls reserve of it. */
export class TargetQuota {
  readonly service: Quota["Service"]
  private readonly fields: TargetQuotaFields
  private readonly estimate = new TokenEstimate()
  private readonly names: ReadonlySet<string>
  private readonly countsCacheReads: boolean

  constructor(fields: TargetQuotaFields) {
    this.fields = fields
    this.service = fields.service
    this.names = new Set(fields.service.limits.map(({ name }) => name))
    // Their documents say that tokens read from the cache do not count. Another package's adapter is known by its name only.
    this.countsCacheReads = fields.facts?.countsCacheReads ?? !/anthropic|groq/i.test(fields.provider)
  }

  keyOf(model: string): string {
    const { credential, family = model === unknownModel ? undefined : familyOf(model) } = this.fields
    return family === undefined ? credential : `${credential}/${family}`
  }

  /** How long the provider asked for no calls of the account and family, whichever target it answered. */
  restOf(model: string): Rest {
    const { rests } = this.fields
    const key = this.keyOf(model)
    let rest = rests.get(key)
    if (rest === undefined) rests.set(key, rest = new Rest())
    return rest
  }

  levels(model: string): Effect.Effect<ReadonlyArray<Level>> {
    return Effect.map(this.service.snapshot(this.keyOf(model)), ({ levels }) => levels)
  }

  /** How long the call would wait now. Infinity if it would be refused; `undefined` if only the end of a running call makes room. */
  expectedWait(asked: Asked): Effect.Effect<Duration.Duration | undefined> {
    // The amounts are valid, since they are computed here.
    return Effect.orDie(this.service.expectedWait({ key: this.keyOf(asked.model), amounts: this.amounts(asked) }))
  }

  charge(asked: Asked): Charge {
    return new Charge(this, asked)
  }

  /** The amounts of a call: its estimated input and its greatest output. Only those that the quota limits. */
  amounts(asked: Asked): { readonly [dimension: string]: Amount } {
    const { names } = this
    const amounts: Record<string, Amount> = {}
    const input = this.estimate.input(asked.length(characters))
    const output = this.maxOutput(asked)
    if (names.has("tokens")) amounts["tokens"] = { known: input, atMost: input + output }
    if (names.has("inputTokens")) amounts["inputTokens"] = input
    if (names.has("outputTokens")) amounts["outputTokens"] = { known: 0, atMost: output }
    // An input has no more tokens than bytes. So a budget holds even if the estimate is wrong.
    if (names.has("money")) amounts["money"] = this.cost(asked.length(bytes), 0, output) ?? 0
    return amounts
  }

  /** The cost in millionths, `undefined` without a price. A price is for a million tokens, so no factor is needed. */
  cost(input: number, cached: number, output: number): number | undefined {
    const { price } = this.fields
    if (price === undefined) return undefined
    const { cachedInput = price.input } = price
    return Math.ceil((input - cached) * price.input + cached * cachedInput + output * price.output)
  }

  /** The amounts that a call with this usage used. What the usage does not say, or is not limited, is not named. */
  used(asked: Asked, usage: Parts.Finish["usage"]): Used | undefined {
    const { cacheRead = 0, total: input } = usage.inputTokens
    const { total: output } = usage.outputTokens
    this.estimate.answered(asked.length(characters), input, output)
    if (input === undefined || output === undefined) return undefined
    const counted = this.countsCacheReads ? input : Math.max(0, input - cacheRead)
    const money = this.cost(input, Math.min(cacheRead, input), output)
    return {
      tokens: counted + output,
      inputTokens: counted,
      outputTokens: output,
      ...(money === undefined ? {} : { money })
    }
  }

  /** The amounts of a call that was sent and whose usage is unknown: for rates its input and what came. A budget keeps all of it. */
  unknown(asked: Asked, outputLength: number): Used {
    const input = this.estimate.input(asked.length(characters))
    const output = Math.ceil(outputLength / charactersOfToken)
    return { tokens: input + output, inputTokens: input, outputTokens: output }
  }

  private maxOutput({ context }: Asked): number {
    const { facts, maxOutputTokens } = this.fields
    return facts?.maxOutputTokens(context) ?? maxOutputTokens ?? this.estimate.mostOutput
  }
}

/** What one attempt reserved, and how it is settled. */
export class Charge {
  /** The limit that the attempt waited for, and how long. */
  waited: Reservation["waited"]
  /** The finish part, which has the usage. */
  finish: Parts.Finish | undefined = undefined
  /** Characters of the answer so far. */
  outputLength = 0
  readonly reserve: ReserveOptions
  private readonly quota: TargetQuota
  private readonly asked: Asked
  private readonly key: string
  private reservation: Reservation | undefined = undefined
  private sentAt = 0
  private arrivedBy: number | undefined = undefined
  private observed: Effect.Effect<void> = Effect.void

  constructor(quota: TargetQuota, asked: Asked) {
    this.quota = quota
    this.asked = asked
    this.key = quota.keyOf(asked.model)
    this.waited = undefined
    this.reserve = {
      key: this.key,
      amounts: quota.amounts(asked),
      deadlineAt: asked.deadlineAt === Number.POSITIVE_INFINITY ? undefined : asked.deadlineAt,
      onReserved: (reservation) => {
        this.reservation = reservation
        this.waited = reservation.waited
        this.sentAt = asked.now()
      }
    }
  }

  /** The headers of the response have arrived. */
  readonly onHeaders = (headers: Headers): void => {
    const now = this.asked.now()
    this.arrivedBy ??= now
    const seen = RateLimits.fromHeaders(headers, { now, sentAt: this.sentAt })
    if (seen.length > 0) this.observed = this.quota.service.observe(this.key, seen)
  }

  /** A part of the answer has arrived. */
  arrived(): void {
    this.arrivedBy ??= this.asked.now()
  }

  /** Settles a complete answer by its usage. */
  complete(): Effect.Effect<void> {
    const { finish, reservation } = this
    if (reservation === undefined) return Effect.void
    const used = finish === undefined ? undefined : this.quota.used(this.asked, finish.usage)
    return this.ended(reservation.settle(used ?? this.unknown(), this.arrivedBy))
  }

  /** Settles an attempt that failed or was interrupted. */
  failed(cause: Cause.Cause<unknown>): Effect.Effect<void> {
    const { reservation } = this
    if (reservation === undefined) return Effect.void
    const error = Cause.hasDies(cause) ? undefined : cause.reasons.find(Cause.isFailReason)?.error
    return this.ended(isAiError(error) ? this.failedWith(reservation, error) : this.interrupted(reservation))
  }

  private failedWith(reservation: Reservation, error: AiError.AiError): Effect.Effect<void> {
    if (wasNotSent(error, this.arrivedBy !== undefined)) return reservation.refund
    const status = statusOf(error)
    if (this.arrivedBy === undefined && "http" in error.reason) {
      this.onHeaders(error.reason.http?.response?.headers ?? {})
    }
    if (AiOutcome.fromAiError(error)._tag === "Throttled") {
      const now = this.asked.now()
      const retryAfter = RetryAfter.fromAiError(error, { now })
      if (retryAfter !== undefined) this.quota.restOf(this.asked.model).take(now, Duration.toMillis(retryAfter))
      return reservation.throttled(retryAfter)
    }
    const usage = usageIn(error)
    if (usage !== undefined) {
      const { inputTokens, outputTokens } = usage
      const used = this.quota.used(this.asked, {
        inputTokens: { total: inputTokens },
        outputTokens: { total: outputTokens }
      })
      return reservation.settle(used ?? this.unknown(), this.arrivedBy)
    }
    // A request that was refused as it is generated nothing.
    if (status !== undefined && status >= 400 && status < 500) {
      return reservation.settle({ ...this.unknown(), money: 0 }, this.arrivedBy)
    }
    return this.interrupted(reservation)
  }

  private interrupted(reservation: Reservation): Effect.Effect<void> {
    const used = this.finish === undefined ? undefined : this.quota.used(this.asked, this.finish.usage)
    return reservation.settle(used ?? this.unknown(), this.arrivedBy)
  }

  private unknown(): Used {
    return this.quota.unknown(this.asked, this.outputLength)
  }

  /** Headers are followed after the settlement: what remains by the provider includes this call. */
  private ended(settled: Effect.Effect<void>): Effect.Effect<void> {
    this.reservation = undefined
    const { observed } = this
    this.observed = Effect.void
    return observed === Effect.void ? settled : Effect.andThen(settled, observed)
  }
}

const isAiError = (error: unknown): error is AiError.AiError =>
  typeof error === "object" && error !== null && "_tag" in error && error._tag === "AiError"

const statusOf = ({ reason }: AiError.AiError): number | undefined =>
  "http" in reason ? reason.http?.response?.status : undefined

// The socket's codes for a connection that was never made.
const noConnection = /\b(?:ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT)\b/

/** Whether no request reached the provider: another layer refused the call, or there was no connection. */
const wasNotSent = (error: AiError.AiError, hasResponse: boolean): boolean => {
  const rejection = Option.getOrUndefined(AiRejection.fromAiError(error))
  switch (rejection?._tag) {
    case "CircuitOpen":
    case "BackpressureShed":
    case "NoTarget":
    case "ModelNotOffered":
    case "QuotaExceeded":
      return true
    case "DeadlineExceeded":
      return rejection.at !== "Attempt"
    case undefined:
      break
    default:
      return false
  }
  const { reason } = error
  if (reason._tag !== "NetworkError" || hasResponse) return false
  return reason.reason !== "TransportError" || noConnection.test(reason.description ?? "")
}
