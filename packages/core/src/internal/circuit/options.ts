import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import type { CircuitBreakerOptions, ControlOptions, TripPolicy } from "../../CircuitBreaker.ts"
import type { Target, Window } from "../../CircuitBreakerStore.ts"
import type { Known, OptionsReader } from "../../OptionsReader.ts"
import type { Settings, Trip } from "./model.ts"

/** Checked options. The length of an opening is computed when the circuit opens. */
export interface CheckedBreaker extends Omit<Settings, "openMillis"> {
  readonly openFor: number | Schedule.Schedule<unknown, number>
  readonly openJitter: number
}

const breakerOptions: Known<CircuitBreakerOptions> = {
  name: true,
  trip: true,
  openFor: true,
  openJitter: true,
  maxOpenFor: true,
  probes: true,
  probesToClose: true,
  rampUp: true,
  slowAfter: true,
  probeLease: true,
  heartbeat: true,
  storeTimeout: true,
  staleness: true,
  classify: true
}

/** Reads options. `path` is the prefix of each option: `breaker.` in a policy. */
export const readBreaker = (options: OptionsReader, given: CircuitBreakerOptions, path: string): CheckedBreaker => {
  const input = options.object(path === "" ? "options" : path.slice(0, -1), given, breakerOptions)
  const millis = (option: string, value: Duration.Input | undefined, otherwise: Duration.Input, minimum: number) =>
    options.millis(`${path}${option}`, value === undefined ? otherwise : value, minimum)
  if (input.name !== undefined) options.string(`${path}name`, input.name)
  // Not `??`: null, which JSON can contain, is refused and not a default.
  const { openJitter = 0, probes: wanted = 1, probesToClose = wanted } = input
  const probes = options.integer(`${path}probes`, wanted, 1, 100)
  const maxOpenMillis = millis("maxOpenFor", input.maxOpenFor, "1 hour", 1)
  const trips = readTrips(options, input.trip, `${path}trip`)
  const slowMillis = millis("slowAfter", input.slowAfter, "30 seconds", 1)
  options.optionalFunction(`${path}classify`, input.classify)
  return {
    name: input.name ?? "circuit breaker",
    policy: {
      trip: trips.trip,
      window: { ...trips.window, calls: Math.max(trips.window.calls, probes) },
      maxOpenMillis,
      probes,
      probesToClose: options.integer(`${path}probesToClose`, probesToClose, 1, probes),
      rampMillis: millis("rampUp", input.rampUp, 0, 0)
    },
    openFor: readOpenFor(options, input.openFor, maxOpenMillis, `${path}openFor`),
    openJitter: options.number(`${path}openJitter`, openJitter, 0, 1),
    probeLeaseMillis: millis("probeLease", input.probeLease, "60 seconds", 1),
    heartbeatMillis: millis("heartbeat", input.heartbeat, "10 seconds", 1),
    slowMillis: trips.trip.some((trip) => trip._tag === "Rate" && trip.of === "slow")
      ? slowMillis
      : Number.POSITIVE_INFINITY,
    storeTimeoutMillis: millis("storeTimeout", input.storeTimeout, "100 millis", 1),
    stalenessMillis: millis("staleness", input.staleness, "5 seconds", 0)
  }
}

/** Refuses a `slowAfter` that no attempt can reach. `slowMillis` is infinite if no trip policy counts slow calls. */
export const checkSlowAfter = (
  options: OptionsReader,
  path: string,
  slowMillis: number,
  attemptTimeoutMillis: number
): void => {
  if (slowMillis === Number.POSITIVE_INFINITY || !(attemptTimeoutMillis <= slowMillis)) return
  const limit = Duration.format(Duration.millis(attemptTimeoutMillis))
  options.refuse(path, Duration.format(Duration.millis(slowMillis)), `must be less than \`attemptTimeout\`, ${limit}`)
}

const readOpenFor = (
  options: OptionsReader,
  input: CircuitBreakerOptions["openFor"],
  maxOpenMillis: number,
  path: string
): CheckedBreaker["openFor"] => {
  if (!Schedule.isSchedule(input)) {
    const millis = options.millis(path, input === undefined ? Duration.seconds(30) : input, 0)
    if (millis > maxOpenMillis && Number.isFinite(millis)) {
      options.refuse(path, Duration.format(Duration.millis(millis)), "must be at most `maxOpenFor`")
    }
    return millis
  }
  // Tried once, so that a schedule that has to wait is refused now and not when the circuit opens.
  if (nthDelayMillis(input, 1, Context.empty()) === undefined) {
    options.refuse(path, "a schedule that waits", "must be a schedule whose delays can be computed without waiting")
  }
  return input
}

/**
 * The schedule's n-th delay in milliseconds, computed on a clock of its own. After its end, and at a step that waits or throws, the
 * last delay is used. `undefined` if the first step waits or throws.
 */
export const nthDelayMillis = (
  schedule: Schedule.Schedule<unknown, number>,
  n: number,
  context: Context.Context<never>
): number | undefined => {
  // Outside of the effect, so that it can be read if the effect does not end.
  let millis: number | undefined
  const steps = Effect.gen(function*() {
    const step = yield* Schedule.toStep(schedule)
    let now = 0
    for (let i = 1; i <= n; i++) {
      const next = yield* Effect.exit(step(now, i))
      if (Exit.isFailure(next)) break
      millis = Duration.toMillis(next.value[1])
      now += millis
    }
    millis ??= 0
  })
  const exit = Effect.runSyncExitWith(context)(steps)
  const waiting = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
  if (Cause.isAsyncFiberError(waiting)) waiting.fiber.interruptUnsafe()
  return millis
}

interface Trips {
  readonly trip: ReadonlyArray<Trip>
  readonly window: Window
}

const readTrips = (options: OptionsReader, input: CircuitBreakerOptions["trip"], path: string): Trips => {
  const policies: ReadonlyArray<TripPolicy> = input === undefined
    ? [{ _tag: "Consecutive", failures: 5 }]
    : Array.isArray(input)
    ? input
    : [input]
  if (policies.length === 0) options.refuse(path, [], "must not be empty")
  // In a list of several, the path has the index.
  const withPath = policies.map((policy, index) => ({
    policy,
    at: policies.length === 1 ? path : `${path}[${index}]`
  }))
  const known = withPath.filter(({ at, policy }) => {
    const isKnown = typeof policy === "object" && policy !== null && Object.hasOwn(makers, policy._tag)
    if (!isKnown) {
      options.refuse(at, policy, "must be consecutive(n), failureRate({ ... }) or slowCallRate({ ... })")
    }
    return isKnown
  })
  const timesOf = known.map(({ at, policy }) =>
    policy._tag !== "Consecutive" && policy.within !== undefined
      ? options.millis(`${at}.within`, policy.within, 10)
      : 0
  )
  const times = timesOf.filter((millis) => millis > 0)
  const bucketMillis = times.length === 0 ? 0 : Math.max(1, Math.floor(Math.min(...times) / 10))
  const buckets = times.length === 0 ? 0 : Math.ceil(Math.max(...times) / bucketMillis)
  if (buckets > 1_000) {
    options.refuse(
      `${path}.within`,
      "a list of windows of very different lengths",
      "must be at most 100 times the shortest one"
    )
  }
  const trip = known.map(({ at, policy }, index) =>
    readTrip(options, policy, Math.ceil((timesOf[index] ?? 0) / bucketMillis), at)
  )
  return { trip, window: { calls: Math.max(0, ...trip.map(callsOf)), bucketMillis, buckets } }
}

const makers = { Consecutive: "consecutive", FailureRate: "failureRate", SlowCallRate: "slowCallRate" }

const consecutiveFields = { _tag: true, failures: true }
const rateFields = { _tag: true, rate: true, minimum: true, calls: true, within: true }

const readTrip = (options: OptionsReader, policy: TripPolicy, buckets: number, path: string): Trip => {
  options.onlyKnown(`${path}.`, policy, policy._tag === "Consecutive" ? consecutiveFields : rateFields)
  if (policy._tag === "Consecutive") {
    return { _tag: "Consecutive", failures: options.integer(`${path}.failures`, policy.failures, 1, 1_000) }
  }
  const { rate, within } = policy
  if (!(typeof rate === "number" && rate > 0 && rate <= 1)) {
    options.refuse(`${path}.rate`, rate, `must be a number above 0 and at most 1, for ${makers[policy._tag]}`)
  }
  const isTimed = within !== undefined
  if (isTimed && policy.calls !== undefined) {
    options.refuse(`${path}.calls`, policy.calls, "must be absent beside `within`")
  }
  const calls = isTimed ? 0 : options.integer(`${path}.calls`, policy.calls === undefined ? 0 : policy.calls, 1, 1_000)
  return {
    _tag: "Rate",
    of: policy._tag === "SlowCallRate" ? "slow" : "failures",
    rate,
    minimum: readMinimum(options, policy, isTimed ? undefined : calls, path),
    calls,
    buckets: isTimed ? buckets : 0
  }
}

const readMinimum = (
  options: OptionsReader,
  { _tag, minimum }: TripPolicy & { readonly _tag: "FailureRate" | "SlowCallRate" },
  calls: number | undefined,
  path: string
): number => {
  if (calls === undefined || !(Number.isInteger(minimum) && minimum > calls)) {
    return options.integer(`${path}.minimum`, minimum, 1, calls ?? 1_000_000)
  }
  options.refuse(`${path}.minimum`, minimum, `must be at most the \`calls\` of ${makers[_tag]}, ${calls}`)
  return minimum
}

// The failures of a streak can weigh a twentieth each.
const callsOf = (trip: Trip): number => trip._tag === "Consecutive" ? Math.min(1_000, trip.failures * 20) : trip.calls

const controlOptions: Known<ControlOptions> = { key: true, mode: true, for: true, reason: true }

/** Reads what an operator sets a circuit to. */
export const readControl = (options: OptionsReader, input: ControlOptions): Target => {
  const { for: time, key, mode, reason } = options.object("options", input, controlOptions)
  if (mode === undefined) {
    options.refuse("mode", mode, `must be a mode, such as "ForcedOpen"`)
    return closedBecause("")
  }
  options.oneOf("mode", mode, ["Auto", "ForcedOpen", "ForcedClosed", "Disabled", "ObserveOnly"])
  const forMillis = time === undefined ? 0 : options.millis("for", time, 1)
  options.string("reason", reason)
  if (key !== undefined) options.string("key", key)
  return mode === "Auto" ? closedBecause(reason ?? "") : { _tag: "Forced", forMillis, mode, reason: reason ?? "" }
}

export const closedBecause = (reason: string): Target => ({
  _tag: "Closed",
  rampMillis: 0,
  openings: 0,
  lastOpen: 0,
  reason
})
