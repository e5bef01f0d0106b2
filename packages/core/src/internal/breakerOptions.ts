import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"
import type { CircuitBreakerOptions, TripPolicy } from "../CircuitBreaker.ts"
import type { Window } from "../CircuitBreakerStore.ts"
import type { Trip } from "./circuitMachine.ts"
import type { Settings } from "./circuits.ts"
import type { Options } from "./options.ts"

/** Options that were read. How long an opening lasts is still to be computed. */
export interface Checked extends Omit<Settings, "openMillis"> {
  readonly openFor: number | Schedule.Schedule<unknown, number>
  readonly openJitter: number
}

/** Reads a breaker's options into a list of issues, each under the path that is given. */
export const checkBreaker = (options: Options, input: CircuitBreakerOptions, path: string): Checked => {
  if (typeof input !== "object" || input === null) {
    options.refuse(path === "" ? "options" : path.slice(0, -1), input, "an object")
    return checkBreaker(options, {}, path)
  }
  const read = (option: string, value: Duration.Input | undefined, otherwise: Duration.Input, minimum: number) =>
    options.millis(`${path}${option}`, value === undefined ? otherwise : value, minimum)
  if (input.name !== undefined && typeof input.name !== "string") options.refuse(`${path}name`, input.name, "a text")
  // Not `??`: null, as out of JSON, is a wrong value and no default.
  const { openJitter = 0, probes: wanted = 1, probesToClose = wanted } = input
  const probes = options.integer(`${path}probes`, wanted, 1, 100)
  const maxOpenMillis = read("maxOpenFor", input.maxOpenFor, "1 hour", 1)
  const trips = readTrips(options, input.trip, `${path}trip`)
  const slowMillis = read("slowAfter", input.slowAfter, "30 seconds", 1)
  if (input.classify !== undefined && typeof input.classify !== "function") {
    options.refuse(`${path}classify`, input.classify, "a function")
  }
  return {
    name: input.name ?? "circuit breaker",
    policy: {
      trip: trips.trip,
      window: { ...trips.window, calls: Math.max(trips.window.calls, probes) },
      maxOpenMillis,
      probes,
      probesToClose: options.integer(`${path}probesToClose`, probesToClose, 1, probes),
      rampMillis: read("rampUp", input.rampUp, 0, 0)
    },
    openFor: readOpenFor(options, input.openFor, maxOpenMillis, `${path}openFor`),
    openJitter: options.number(`${path}openJitter`, openJitter, 0, 1),
    probeLeaseMillis: read("probeLease", input.probeLease, "60 seconds", 1),
    heartbeatMillis: read("heartbeat", input.heartbeat, "10 seconds", 1),
    slowMillis: trips.trip.some((trip) => trip._tag === "Rate" && trip.of === "slow")
      ? slowMillis
      : Number.POSITIVE_INFINITY,
    storeTimeoutMillis: read("storeTimeout", input.storeTimeout, "100 millis", 1),
    stalenessMillis: read("staleness", input.staleness, "5 seconds", 0)
  }
}

const readOpenFor = (
  options: Options,
  input: CircuitBreakerOptions["openFor"],
  maxOpenMillis: number,
  path: string
): Checked["openFor"] => {
  if (!Schedule.isSchedule(input)) {
    const millis = options.millis(path, input === undefined ? Duration.seconds(30) : input, 0)
    if (millis > maxOpenMillis && Number.isFinite(millis)) {
      options.refuse(path, Duration.format(Duration.millis(millis)), "at most maxOpenFor")
    }
    return millis
  }
  // Tried once, so that a schedule that cannot be run on a clock of its own is told now and not when the circuit opens.
  if (Exit.isFailure(Effect.runSyncExit(replayed(input, 1)))) {
    options.refuse(path, "a schedule", "a schedule whose delays can be computed without waiting")
  }
  return input
}

/** The delay of a schedule's n-th opening, on a clock of its own. */
export const replayed = (schedule: Schedule.Schedule<unknown, number>, openings: number): Effect.Effect<number> =>
  Effect.gen(function*() {
    const step = yield* Schedule.toStep(schedule)
    let now = 0
    let millis = 0
    for (let opening = 1; opening <= openings; opening++) {
      const next = yield* Effect.exit(step(now, opening))
      if (Exit.isFailure(next)) break
      millis = Duration.toMillis(next.value[1])
      now += millis
    }
    return millis
  })

interface Trips {
  readonly trip: ReadonlyArray<Trip>
  readonly window: Window
}

const readTrips = (options: Options, input: CircuitBreakerOptions["trip"], path: string): Trips => {
  const policies: ReadonlyArray<TripPolicy> = input === undefined
    ? [{ _tag: "Consecutive", failures: 5 }]
    : Array.isArray(input)
    ? input
    : [input]
  if (policies.length === 0) options.refuse(path, "[]", "at least one policy")
  // One of several is told by its place.
  const named = policies.map((policy, index) => ({ policy, at: policies.length === 1 ? path : `${path}[${index}]` }))
  const known = named.filter(({ at, policy }) => {
    const isKnown = typeof policy === "object" && policy !== null && Object.hasOwn(makers, policy._tag)
    if (!isKnown) options.refuse(at, policy, "consecutive(n), failureRate({ ... }) or slowCallRate({ ... })")
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
    options.refuse(`${path}.within`, "times that are too far apart", "the longest at most 100 times the shortest")
  }
  const trip = known.map(({ at, policy }, index) =>
    readTrip(options, policy, Math.ceil((timesOf[index] ?? 0) / bucketMillis), at)
  )
  return { trip, window: { calls: Math.max(0, ...trip.map(callsOf)), bucketMillis, buckets } }
}

const makers = { Consecutive: "consecutive", FailureRate: "failureRate", SlowCallRate: "slowCallRate" }

const readTrip = (options: Options, policy: TripPolicy, buckets: number, path: string): Trip => {
  if (policy._tag === "Consecutive") {
    return { _tag: "Consecutive", failures: options.integer(`${path}.failures`, policy.failures, 1, 1_000) }
  }
  const { rate, within } = policy
  if (!(typeof rate === "number" && rate > 0 && rate <= 1)) {
    options.refuse(`${path}.rate`, rate, `a number above 0, up to 1, of ${makers[policy._tag]}`)
  }
  const isTimed = within !== undefined
  if (isTimed && policy.calls !== undefined) options.refuse(`${path}.calls`, policy.calls, "nothing, beside within")
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
  options: Options,
  { _tag, minimum }: TripPolicy & { readonly _tag: "FailureRate" | "SlowCallRate" },
  calls: number | undefined,
  path: string
): number => {
  if (calls === undefined || !(Number.isInteger(minimum) && minimum > calls)) {
    return options.integer(`${path}.minimum`, minimum, 1, calls ?? 1_000_000)
  }
  options.refuse(`${path}.minimum`, minimum, `at most the calls of ${makers[_tag]}, which are ${calls}`)
  return minimum
}

// A streak may be of failures that weigh a twentieth each.
const callsOf = (trip: Trip): number => trip._tag === "Consecutive" ? Math.min(1_000, trip.failures * 20) : trip.calls
