/** Watches the attempts of a run, to tell failures of a target, of a credential and of a prompt apart. */
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as AiRejection from "@sluice/ai/AiRejection"
import type * as ResilientModel from "@sluice/ai/ResilientModel"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import * as Admission from "@sluice/core/Admission"
import type * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import { QuotaExceeded } from "@sluice/core/Quota"
import * as AiError from "effect/ai/AiError"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Credentials } from "./Credentials.ts"
import * as Failure from "./Failure.ts"
import type { Ledger, Reservation, Used } from "./Ledger.ts"
import { Pace } from "./Pace.ts"
import type { PromptState } from "./PromptState.ts"
import type { Settings, Target } from "./Settings.ts"
import type * as Targets from "./Targets.ts"
import * as Words from "./Words.ts"

/** The shortest silence that ends an attempt. */
const minPatienceMillis = 2_000
/** The factor on the longest wait for a first part in this run. A provider that has just recovered is slower than usual. */
const patienceFactor = 3

interface Watched {
  readonly pace: Pace
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"]
  /** The key of its circuit. */
  readonly key: string
  /** Whether its limits pace its calls, and learn from rate limits. */
  readonly hasRates: boolean
  /** Attempts without a part of an answer, the oldest first. At most as many as run at once. */
  readonly silent: Set<Attempt>
  /** When the last probe was answered, in epoch milliseconds. */
  probedAt: number
  answers: number
  /** The first prompt whose attempt failed since the last answer, and whether others failed too. */
  failing: PromptState | undefined
  isFailingForSeveral: boolean
  /** The longest wait for a first part, in milliseconds. `undefined` before the first. */
  slowest: number | undefined
}

export interface Circuit {
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"]
  readonly key: string
}

export class Attempts implements Targets.Observer {
  private readonly credentials: Credentials
  private readonly onStarted: () => void
  private readonly ledger: Ledger | undefined
  private readonly watched: ReadonlyMap<Target, Watched>
  /** The longest wait for the pace within an attempt. It counts towards the attempt's timeouts. */
  private readonly longestWaitMillis: number

  constructor(
    circuits: ReadonlyMap<Target, Circuit>,
    options: Pick<Settings, "timeoutMillis" | "firstTokenTimeoutMillis">,
    credentials: Credentials,
    onStarted: () => void,
    ledger: Ledger | undefined
  ) {
    this.credentials = credentials
    this.onStarted = onStarted
    this.ledger = ledger
    this.longestWaitMillis = Math.min(5_000, (options.firstTokenTimeoutMillis ?? options.timeoutMillis) / 4)
    this.watched = new Map([...circuits].map(([target, circuit]) => [target, {
      ...circuit,
      pace: new Pace(),
      hasRates: (target.limits ?? []).some(({ windowMillis }) => windowMillis > 0),
      silent: new Set(),
      probedAt: Number.NEGATIVE_INFINITY,
      answers: 0,
      failing: undefined,
      isFailingForSeveral: false,
      slowest: undefined
    }]))
  }

  readonly begin = (target: Target, state: PromptState): Effect.Effect<Targets.Attempt, AiError.AiError> => {
    const watched = this.watched.get(target)
    if (watched === undefined) return Effect.die(`the target ${target.name} is not watched`)
    return Effect.withFiber((fiber) => {
      const clock = fiber.getRef(Clock.Clock)
      const now = clock.currentTimeMillisUnsafe()
      const wait = watched.hasRates ? 0 : watched.pace.reserve(now, this.longestWaitMillis)
      if (wait > this.longestWaitMillis) return Effect.fail(notYet(wait))
      const isProbe = Admission.progressOf(fiber.context) !== undefined
      const start = Effect.suspend(() => this.start(target, watched, state, clock, isProbe))
      return wait === 0 ? start : Effect.andThen(Effect.sleep(Duration.millis(wait)), start)
    })
  }

  private start(
    target: Target,
    watched: Watched,
    state: PromptState,
    clock: Clock.Clock,
    isProbe: boolean
  ): Effect.Effect<Targets.Attempt, AiError.AiError> {
    const { ledger } = this
    const money = ledger === undefined || state.purse === undefined ? unpaid : ledger.begin(state.purse, target)
    if (money === undefined) {
      state.isShort = true
      return Effect.fail(notYet(1))
    }
    const send = (): Effect.Effect<Targets.Attempt, AiError.AiError> => {
      const wait = this.credentials.mayAskIn(target, state, clock.currentTimeMillisUnsafe())
      if (wait > 0) {
        money.settle("nothing")
        return Effect.fail(notYet(wait))
      }
      state.begin(target)
      this.onStarted()
      return Effect.succeed(new Attempt(target, watched, state, this.credentials, clock, isProbe, money))
    }
    const covered = ledger?.covered()
    return covered === undefined ? send() : Effect.andThen(
      Effect.onInterrupt(covered, () => Effect.sync(() => money.settle("nothing"))),
      Effect.suspend(send)
    )
  }

  /**
   * Ends silent attempts. While a circuit is not closed: the oldest, if all permits are in use and another call waits for one.
   * After it has closed: all that began before. A connection that went silent in an outage stays silent after it. Until its
   * timeout it would block probes of other prompts, and the answer to its own prompt.
   */
  endSilent(states: ReadonlyArray<ResilientModel.TargetState>, now: number): void {
    for (const [target, { probedAt, silent, slowest }] of this.watched) {
      // Before the first answer, the usual latency of the target is unknown.
      if (silent.size === 0 || slowest === undefined) continue
      const patience = Math.max(minPatienceMillis, patienceFactor * slowest)
      const state = states.find(({ name }) => name === target.name)
      const isClosed = state?.circuit?._tag === "Closed"
      const isFull = state !== undefined && hasNoRoom(state)
      for (const attempt of silent) {
        const isSuspect = isClosed ? attempt.startedAt < probedAt : isFull
        if (!isSuspect || now - attempt.startedAt < patience) break
        attempt.end(now)
        if (!isClosed) break
      }
    }
  }
}

/** Whether a call waits because as many run as may run at once: by the permits, or by a limit that is being found. */
const hasNoRoom = ({ permits, quota = [] }: ResilientModel.TargetState): boolean =>
  permits !== undefined && permits.queued > 0 &&
  (permits.running >= permits.capacity ||
    quota.some(({ limit, used, windowMillis }) => windowMillis === 0 && used >= limit))

/** The reservation of a run that counts no money. */
const unpaid: Reservation = { settle: () => {} }

class Attempt implements Targets.Attempt {
  readonly startedAt: number
  onCut: ((error: AiError.AiError) => void) | undefined
  private readonly target: Target
  private readonly watched: Watched
  private readonly state: PromptState
  private readonly credentials: Credentials
  private readonly clock: Clock.Clock
  private readonly isProbe: boolean
  private readonly money: Reservation
  private readonly answersBefore: number
  private isSilent = true

  constructor(
    target: Target,
    watched: Watched,
    state: PromptState,
    credentials: Credentials,
    clock: Clock.Clock,
    isProbe: boolean,
    money: Reservation
  ) {
    this.target = target
    this.watched = watched
    this.state = state
    this.credentials = credentials
    this.clock = clock
    this.isProbe = isProbe
    this.money = money
    this.startedAt = clock.currentTimeMillisUnsafe()
    this.answersBefore = watched.answers
    watched.silent.add(this)
  }

  /** Ends a silent attempt. */
  end(now: number): void {
    this.watched.silent.delete(this)
    this.onCut?.(silenceOf(this.target, now - this.startedAt))
  }

  readonly part = (): void => {
    if (!this.isSilent) return
    this.isSilent = false
    this.watched.silent.delete(this)
    this.watched.slowest = Math.max(
      this.watched.slowest ?? 0,
      this.clock.currentTimeMillisUnsafe() - this.startedAt
    )
  }

  readonly succeeded = (used: Used): Effect.Effect<void> => {
    const { breaker, key, pace } = this.watched
    this.money.settle(used)
    this.part()
    this.watched.answers++
    this.watched.failing = undefined
    this.watched.isFailingForSeveral = false
    pace.answered(this.clock.currentTimeMillisUnsafe())
    this.credentials.succeeded(this.target, this.startedAt)
    this.credentials.ended(this.target, this.state)
    // The lease of a slow probe has expired, so the breaker would ignore its outcome.
    if (this.isProbe) this.watched.probedAt = this.clock.currentTimeMillisUnsafe()
    return this.isProbe
      ? Effect.flatMap(
        Effect.orDie(breaker.state(key)),
        ({ _tag }) => _tag === "Closed" ? Effect.void : Effect.orDie(breaker.reset(key, "a probe was answered"))
      )
      : Effect.void
  }

  readonly failed = (error: AiError.AiError): AiError.AiError => {
    const { credentials, startedAt, state, target, watched } = this
    const now = this.clock.currentTimeMillisUnsafe()
    watched.silent.delete(this)
    this.money.settle(Failure.isFree(error) ? "nothing" : undefined)
    credentials.failed(target, error, state)
    const remedy = AiOutcome.remedy(error)
    const given = remedy === "Credential" ? credentials.refused(target, error, state, startedAt, now) : 0
    credentials.ended(target, state)
    if (remedy === "Credential") return resting(error, given)
    if (remedy === "Wait") {
      state.throttledSince ??= now
      return RetryAfter.fromAiError(error) === undefined && !watched.hasRates
        ? paced(error, watched.pace.refused(now))
        : error
    }
    if (remedy === "Retry" && !Failure.isOutage(error)) {
      this.countFailure()
      state.ownError = error
    }
    return error
  }

  readonly interrupted = (): void => {
    this.watched.silent.delete(this)
    this.money.settle(undefined)
    this.credentials.ended(this.target, this.state)
    this.countFailure()
  }

  /** Counts a failure. It is the prompt's own if the target answers other prompts, or fails for no other prompt. */
  private countFailure(): void {
    const { state, watched } = this
    watched.failing ??= state
    if (watched.failing !== state) watched.isFailingForSeveral = true
    state.failed(!watched.isFailingForSeveral || watched.answers > this.answersBefore)
  }
}

const errorOf = (reason: AiError.AiErrorReason): AiError.AiError =>
  AiError.make({ module: "sluice", method: "run", reason })

/** The target must not be called before this time has passed. No request was made, so it says nothing about its limits. */
const notYet = (millis: number): AiError.AiError =>
  AiRejection.toAiError(
    new QuotaExceeded({
      policy: "run",
      why: "Full",
      dimension: "pace",
      asked: 1,
      used: 0,
      limit: 0,
      queued: 0,
      retryAfter: Duration.millis(Math.ceil(millis))
    }),
    "streamText"
  )

const silenceOf = ({ url }: Target, millis: number): AiError.AiError =>
  errorOf(
    new AiError.NetworkError({
      reason: "TransportError",
      method: "POST",
      url,
      description: `silent for ${Words.time(millis)} while the provider was down`
    })
  )

// ---------- errors with the delay before the next call of a target or use of a credential

/** The provider's errors, by the errors with an added delay. */
const originals = new WeakMap<AiError.AiError, AiError.AiError>()

export const originalOf = (error: AiError.AiError): AiError.AiError => originals.get(error) ?? error

const replace = (original: AiError.AiError, reason: AiError.AiErrorReason): AiError.AiError => {
  const { method, module } = original
  const error = AiError.make({ module, method, reason })
  originals.set(error, original)
  return error
}

const paced = (error: AiError.AiError, millis: number): AiError.AiError => {
  const { reason } = error
  const http = "http" in reason ? reason.http : undefined
  return replace(error, new AiError.RateLimitError({ retryAfter: Duration.millis(Math.ceil(millis)), http }))
}

/** Adds the delay of a refused credential as a header, which the policy reads. A longer delay of the provider is kept. */
const resting = (error: AiError.AiError, millis: number): AiError.AiError => {
  const hint = RetryAfter.fromAiError(error, { max: Failure.longestRetryAfter })
  const rest = Math.ceil(Math.max(millis, hint === undefined ? 0 : Duration.toMillis(hint)))
  const { reason } = error
  const status = "http" in reason ? reason.http?.response?.status : undefined
  const http = { response: { status: status ?? 401, headers: { "retry-after-ms": String(rest) } } }
  return replace(
    error,
    reason._tag === "QuotaExhaustedError"
      ? new AiError.QuotaExhaustedError({ http })
      : new AiError.AuthenticationError({
        kind: reason._tag === "AuthenticationError" ? reason.kind : "Unknown",
        http
      })
  )
}

/** Whether the attempt of a log is a refusal of this run, before any request. */
export const isOwnRefusal = ({ status, type }: { readonly type: string; readonly status?: number }): boolean =>
  type === "RateLimitError" && status === undefined
