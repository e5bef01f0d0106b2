import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Config, ConfigProvider, Duration, Effect, Exit, Layer, Option } from "effect"
import { withStore } from "./support/policies.ts"

const invalidValues: ReadonlyArray<readonly [label: string, value: unknown]> = [
  ["null", null],
  ["NaN", Number.NaN],
  ["-1", -1],
  ["a symbol", Symbol("x")],
  ["a string", "rubbish"],
  ["true", true],
  ["{}", {}],
  ["[]", []],
  ["a function", () => 1]
]

const complete: Sluice.SluiceOptions = {
  name: "gpt",
  retry: RetryPolicy.exponential(),
  breaker: {
    trip: [
      CircuitBreaker.consecutive(5),
      CircuitBreaker.failureRate({ rate: 0.5, within: "30 seconds" }),
      CircuitBreaker.slowCallRate({ rate: 0.5, calls: 20 })
    ]
  },
  backpressure: { capacity: 8, queue: 2, softLimit: 4 },
  deduplicator: {}
}

/** Each option by its path, with the labels of the invalid values that are valid for it. */
const options: Record<string, ReadonlyArray<string>> = {
  name: ["a string"],
  retry: [],
  "retry.maxAttempts": [],
  "retry.baseDelay": [],
  "retry.factor": [],
  "retry.maxDelay": [],
  "retry.maxRetryAfter": ["{}"],
  "retry.jitter": [],
  breaker: ["{}", "[]", "a function"],
  "breaker.trip": [],
  "breaker.openFor": [],
  "breaker.openJitter": [],
  "breaker.maxOpenFor": [],
  "breaker.probes": [],
  "breaker.probesToClose": [],
  "breaker.probeLease": [],
  "breaker.rampUp": [],
  "breaker.slowAfter": [],
  "breaker.storeTimeout": [],
  "breaker.staleness": [],
  "breaker.heartbeat": [],
  backpressure: ["{}", "[]"],
  "backpressure.capacity": [],
  "backpressure.queue": [],
  "backpressure.maxWait": ["{}"],
  "backpressure.softLimit": [],
  "backpressure.softRelease": [],
  deduplicator: ["{}", "[]"],
  "deduplicator.capacity": [],
  "deduplicator.timeToLive": ["{}"],
  "deduplicator.maxWaiters": [],
  "deduplicator.maxReplay": [],
  "deduplicator.maxBytes": [],
  attemptTimeout: [],
  minTimeout: ["{}"],
  deadline: [],
  classify: ["a function"]
}

const set = (path: string, value: unknown): Sluice.SluiceOptions => {
  const [part, option] = path.split(".") as [keyof Sluice.SluiceOptions, string | undefined]
  // The value is of a wrong type on purpose.
  return option === undefined
    ? { ...complete, [part]: value }
    : { ...complete, [part]: { ...(complete[part] as object), [option]: value } }
}

/** The options of the issues that an exit fails with. A defect fails the test. */
const issuesOf = (exit: Exit.Exit<unknown, unknown>, at: string): ReadonlyArray<string> => {
  if (Exit.isSuccess(exit)) return []
  assert.isFalse(Exit.hasDies(exit), `${at}: ${Cause.pretty(exit.cause)}`)
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  assert.instanceOf(error, InvalidOptions, at)
  return (error as InvalidOptions).issues.map(({ option }) => option)
}

const names = (issues: ReadonlyArray<string>, path: string): boolean =>
  issues.some((issue) => issue === path || issue.startsWith(`${path}.`) || issue.startsWith(`${path}[`))

describe("Sluice.make with invalid options", () => {
  it.effect("valid options are accepted", () => Effect.scoped(withStore(Sluice.make(complete))))

  const trips: ReadonlyArray<readonly [path: string, trip: unknown]> = [
    ["breaker.trip.failures", { _tag: "Consecutive", failures: 10n }],
    ["breaker.trip.calls", { _tag: "FailureRate", rate: 0.5, minimum: 3, calls: 10n }],
    ["breaker.trip.minimum", { _tag: "SlowCallRate", rate: 0.5, calls: 20, minimum: Symbol("x") }]
  ]
  for (const [path, trip] of trips) {
    it.effect(`make refuses a bigint or a symbol for ${path}`, () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(Effect.scoped(withStore(Sluice.make(set("breaker", { trip })))))
        assert.deepStrictEqual(issuesOf(exit, path), [path])
      }))
  }

  for (const [path, validLabels] of Object.entries(options)) {
    for (const [label, value] of invalidValues) {
      if (validLabels.includes(label)) continue
      it.effect(`make refuses ${label} for ${path}`, () =>
        Effect.gen(function*() {
          const exit = yield* Effect.exit(Effect.suspend(() => Effect.scoped(withStore(Sluice.make(set(path, value))))))
          const issues = issuesOf(exit, path)
          assert.isTrue(names(issues, path), `reported: ${issues.join(", ")}`)
        }))
    }
  }

  for (const [label, value] of invalidValues) {
    it.effect(`${label} for every option is reported for all of them at once`, () =>
      Effect.gen(function*() {
        const leaves = Object.keys(options).filter((path) => path.includes(".") && !options[path]?.includes(label))
        const parts = new Map<string, Record<string, unknown>>()
        for (const path of leaves) {
          const [part, option] = path.split(".") as [keyof Sluice.SluiceOptions, string]
          const given = parts.get(part) ?? { ...(complete[part] as object) }
          given[option] = value
          parts.set(part, given)
        }
        const all = { ...complete, ...Object.fromEntries(parts) }
        const exit = yield* Effect.exit(
          Effect.suspend(() => Effect.scoped(withStore(Sluice.make(all as unknown as Sluice.SluiceOptions))))
        )
        const issues = issuesOf(exit, label)
        assert.deepStrictEqual(leaves.filter((path) => !names(issues, path)), [])
      }))

    it.effect(`make refuses ${label} for the options`, () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(Effect.suspend(() => Effect.scoped(withStore(Sluice.make(value as never)))))
        assert.isAbove(issuesOf(exit, label).length, 0)
      }))
  }
})

describe("CircuitBreaker.make and control with invalid options", () => {
  const policies: Record<string, (value: never) => CircuitBreaker.TripPolicy> = {
    "trip.failures": CircuitBreaker.consecutive,
    "trip.rate": (rate) => CircuitBreaker.failureRate({ rate }),
    "trip.within": (within) => CircuitBreaker.failureRate({ rate: 0.5, within }),
    "trip.calls": (calls) => CircuitBreaker.slowCallRate({ rate: 0.5, calls }),
    "trip.minimum": (minimum) => CircuitBreaker.slowCallRate({ rate: 0.5, calls: 20, minimum })
  }
  for (const [path, policy] of Object.entries(policies)) {
    for (const [label, value] of invalidValues) {
      it.effect(`CircuitBreaker.make refuses ${label} for ${path}`, () =>
        Effect.gen(function*() {
          const exit = yield* Effect.exit(
            Effect.suspend(() => Effect.scoped(withStore(CircuitBreaker.make({ trip: policy(value as never) }))))
          )
          const issues = issuesOf(exit, path)
          assert.isTrue(names(issues, path), `reported: ${issues.join(", ")}`)
        }))
    }
  }

  it.effect("CircuitBreaker.make refuses an invalid name", () =>
    Effect.gen(function*() {
      for (const [label, value] of invalidValues) {
        if (label === "a string") continue
        const exit = yield* Effect.exit(Effect.scoped(withStore(CircuitBreaker.make({ name: value as never }))))
        assert.isTrue(names(issuesOf(exit, label), "name"), label)
      }
    }))

  // Any string is a valid key.
  it.effect("control refuses invalid options", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make()
      const given = { mode: "ForcedOpen", reason: "an incident", for: "1 minute", key: "a" } as const
      for (const option of ["mode", "reason", "for", "key"] as const) {
        for (const [label, value] of invalidValues) {
          if (label === "a string" && (option === "reason" || option === "key")) continue
          const exit = yield* Effect.exit(
            Effect.suspend(() => breaker.control({ ...given, [option]: value } as CircuitBreaker.ControlOptions))
          )
          assert.isTrue(names(issuesOf(exit, `${option}: ${label}`), option), `${option}: ${label}`)
        }
      }
      for (const [label, value] of invalidValues) {
        const exit = yield* Effect.exit(Effect.suspend(() => breaker.control(value as never)))
        assert.isAbove(issuesOf(exit, label).length, 0, label)
      }
    }).pipe(withStore, Effect.scoped))
})

/** A key: a malformed value, an out-of-range one if there is any, a valid one, and the option it sets. */
interface Key {
  readonly malformed: string
  readonly outOfRange?: string
  readonly valid: string
  readonly option: string
  readonly value: unknown
  /** The key that has to be set as well when the options have no trip policy. */
  readonly needs?: string
}

const time = (option: string, outOfRange?: string): Key => ({
  malformed: "soon",
  valid: "7 seconds",
  option,
  value: 7_000,
  ...(outOfRange === undefined ? undefined : { outOfRange })
})
const whole = (option: string, outOfRange: string, valid = 3): Key => ({
  malformed: "1.5",
  valid: String(valid),
  option,
  value: valid,
  outOfRange
})

/** A key of a rate. Its value depends on the given rate, so `merges` below tests it. */
const rate = (malformed: string, outOfRange: string, valid: string, needs?: string): Key => ({
  malformed,
  outOfRange,
  valid,
  option: "breaker.trip",
  value: undefined,
  ...(needs === undefined ? undefined : { needs })
})

const keys: Record<string, Key> = {
  RETRY_MAX_ATTEMPTS: whole("retry.maxAttempts", "0"),
  RETRY_BASE_DELAY: time("retry.baseDelay", "Infinity"),
  RETRY_FACTOR: { malformed: "twice", outOfRange: "0", valid: "1.5", option: "retry.factor", value: 1.5 },
  RETRY_MAX_DELAY: time("retry.maxDelay", "0 millis"),
  RETRY_MAX_RETRY_AFTER: time("retry.maxRetryAfter", "Infinity"),
  RETRY_JITTER: { malformed: "some", valid: "equal", option: "retry.jitter", value: "equal" },
  BREAKER_OPEN_FOR: time("breaker.openFor", "2 hours"),
  BREAKER_OPEN_JITTER: { malformed: "some", outOfRange: "2", valid: "0.2", option: "breaker.openJitter", value: 0.2 },
  BREAKER_MAX_OPEN_FOR: { ...time("breaker.maxOpenFor", "0 millis"), valid: "2 hours", value: 7_200_000 },
  BREAKER_PROBES: whole("breaker.probes", "0"),
  BREAKER_PROBES_TO_CLOSE: whole("breaker.probesToClose", "0", 1),
  BREAKER_PROBE_LEASE: time("breaker.probeLease", "0 millis"),
  BREAKER_RAMP_UP: time("breaker.rampUp", "Infinity"),
  BREAKER_SLOW_AFTER: time("breaker.slowAfter", "0 millis"),
  BREAKER_STORE_TIMEOUT: time("breaker.storeTimeout", "0 millis"),
  BREAKER_STALENESS: time("breaker.staleness", "Infinity"),
  BREAKER_HEARTBEAT: time("breaker.heartbeat", "0 millis"),
  BREAKER_CONSECUTIVE: {
    malformed: "many",
    outOfRange: "0",
    valid: "3",
    option: "breaker.trip",
    value: CircuitBreaker.consecutive(3)
  },
  BREAKER_FAILURE_RATE: rate("half", "2", "0.3"),
  BREAKER_FAILURE_CALLS: rate("many", "0", "50", "BREAKER_FAILURE_RATE"),
  BREAKER_FAILURE_WITHIN: rate("soon", "0 millis", "7 seconds", "BREAKER_FAILURE_RATE"),
  BREAKER_FAILURE_MINIMUM: rate("few", "0", "7", "BREAKER_FAILURE_RATE"),
  BREAKER_SLOW_RATE: rate("half", "2", "0.3"),
  BREAKER_SLOW_CALLS: rate("many", "0", "50", "BREAKER_SLOW_RATE"),
  BREAKER_SLOW_WITHIN: rate("soon", "0 millis", "7 seconds", "BREAKER_SLOW_RATE"),
  BREAKER_SLOW_MINIMUM: rate("few", "0", "7", "BREAKER_SLOW_RATE"),
  BACKPRESSURE_CAPACITY: whole("backpressure.capacity", "0", 6),
  BACKPRESSURE_QUEUE: whole("backpressure.queue", "-1"),
  BACKPRESSURE_MAX_WAIT: time("backpressure.maxWait", "Infinity"),
  BACKPRESSURE_SOFT_LIMIT: whole("backpressure.softLimit", "99", 5),
  BACKPRESSURE_SOFT_RELEASE: whole("backpressure.softRelease", "99", 1),
  DEDUPLICATOR_CAPACITY: whole("deduplicator.capacity", "0"),
  DEDUPLICATOR_TIME_TO_LIVE: time("deduplicator.timeToLive", "Infinity"),
  DEDUPLICATOR_MAX_WAITERS: whole("deduplicator.maxWaiters", "0"),
  DEDUPLICATOR_MAX_BYTES: whole("deduplicator.maxBytes", "0"),
  DEDUPLICATOR_MAX_REPLAY: whole("deduplicator.maxReplay", "0"),
  // Above the 30 seconds after which a call is slow, or the circuit of the given options is refused.
  ATTEMPT_TIMEOUT: { ...time("attemptTimeout", "0 millis"), valid: "1 minute", value: 60_000 },
  MIN_TIMEOUT: time("minTimeout", "Infinity"),
  DEADLINE: time("deadline", "0 millis")
}

const read = (values: Record<string, string>, given: Sluice.SluiceOptions = complete) =>
  Effect.provideService(
    Effect.suspend(() => Sluice.config("GPT", given)),
    ConfigProvider.ConfigProvider,
    ConfigProvider.fromUnknown(values)
  )

class Gpt extends Sluice.Service<Gpt>()("test/config/Gpt", complete) {}

const built = (values: Record<string, string>) =>
  Layer.build(Gpt.layerConfig((given) => Sluice.config("GPT", given))).pipe(
    Effect.scoped,
    withStore,
    Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown(values))
  )

const at = (path: string, options: Sluice.SluiceOptions): unknown => {
  let value: unknown = options
  for (const part of path.split(".")) value = (value as Record<string, unknown> | undefined)?.[part]
  return value
}

/** Durations as milliseconds, and a list of one policy as that policy. */
const plain = (value: unknown): unknown => {
  if (Duration.isDuration(value)) return Duration.toMillis(value)
  return Array.isArray(value) && value.length === 1 ? value[0] : value
}

describe("Sluice.config", () => {
  it.effect("without any key set the options are unchanged", () =>
    Effect.gen(function*() {
      const options = yield* read({})
      assert.deepStrictEqual(options.breaker, complete.breaker)
      assert.deepStrictEqual(options.retry, complete.retry)
      yield* built({})
    }))

  it.effect("parts that neither options nor keys name are not built", () =>
    Effect.gen(function*() {
      const options = yield* read({}, { name: "gpt" })
      assert.deepStrictEqual(
        [options.retry, options.breaker, options.backpressure, options.deduplicator],
        [undefined, undefined, undefined, undefined]
      )
    }))

  for (const [key, { needs, option, outOfRange, valid, value, malformed }] of Object.entries(keys)) {
    it.effect(`a malformed GPT_${key} is an error that names the key`, () =>
      Effect.gen(function*() {
        for (const given of [complete, { name: "gpt" }]) {
          const error = yield* Effect.flip(read({ [`GPT_${key}`]: malformed }, given))
          assert.instanceOf(error, Config.ConfigError)
          assert.include(error.message, `GPT_${key}`)
        }
      }))

    if (outOfRange !== undefined) {
      it.effect(`an out-of-range GPT_${key} is an error that names the option`, () =>
        Effect.gen(function*() {
          const exit = yield* Effect.exit(built({ [`GPT_${key}`]: outOfRange }))
          assert.isTrue(Exit.isFailure(exit))
          assert.isFalse(Exit.hasDies(exit), String(exit))
          const error = yield* Effect.flip(exit)
          if (error instanceof InvalidOptions) {
            assert.isTrue(names(error.issues.map((issue) => issue.option), option), error.message)
          } else assert.include(error.message, `GPT_${key}`)
        }))
    }

    it.effect(`GPT_${key} sets ${option}, with and without a given value`, () =>
      Effect.gen(function*() {
        for (const given of [complete, { name: "gpt" }]) {
          const beside = needs === undefined || given === complete ? {} : { [`GPT_${needs}`]: "0.5" }
          const options = yield* read({ ...beside, [`GPT_${key}`]: valid }, given)
          if (value === undefined) assert.notDeepEqual(at(option, options), at(option, given))
          else assert.deepInclude([plain(at(option, options))].flat(), value)
        }
        yield* built({ [`GPT_${key}`]: valid })
      }))
  }

  it.effect("every option except functions and the name has a key", () =>
    Effect.sync(() => {
      const named = new Set(Object.values(keys).map(({ option }) => option))
      const data = Object.keys(options).filter((path) =>
        !["name", "classify", "retry", "breaker", "backpressure", "deduplicator"].includes(path)
      )
      assert.deepStrictEqual(data.filter((path) => !named.has(path)), [])
    }))

  const perMinute = CircuitBreaker.failureRate({ rate: 0.2, within: "1 minute", minimum: 100 })
  const of = (...trip: ReadonlyArray<CircuitBreaker.TripPolicy>) => ({ name: "gpt", breaker: { trip } })
  const merges: ReadonlyArray<
    readonly [label: string, trip: ReadonlyArray<CircuitBreaker.TripPolicy>, set: Record<string, string>, made: unknown]
  > = [
    ["a minimum", [perMinute], { FAILURE_MINIMUM: "15" }, [{ ...perMinute, minimum: 15 }]],
    ["a rate", [perMinute], { FAILURE_RATE: "0.3" }, [{ ...perMinute, rate: 0.3 }]],
    ["a time", [perMinute], { FAILURE_WITHIN: "2 minutes" }, [{ ...perMinute, within: Duration.minutes(2) }]],
    [
      "calls instead of a time, with the given minimum kept",
      [perMinute],
      { FAILURE_CALLS: "500" },
      [{ ...perMinute, calls: 500, within: undefined }]
    ],
    [
      "calls, with the default minimum adapted",
      [CircuitBreaker.slowCallRate({ rate: 0.5 })],
      { SLOW_CALLS: "8" },
      [CircuitBreaker.slowCallRate({ rate: 0.5, calls: 8 })]
    ],
    [
      "a rate of another kind, added to the given policies",
      [CircuitBreaker.consecutive(5), perMinute],
      { SLOW_RATE: "0.9", FAILURE_RATE: "0.3" },
      [CircuitBreaker.consecutive(5), { ...perMinute, rate: 0.3 }, CircuitBreaker.slowCallRate({ rate: 0.9 })]
    ],
    [
      "consecutive failures, at their position",
      [perMinute, CircuitBreaker.consecutive(5)],
      { CONSECUTIVE: "3" },
      [perMinute, CircuitBreaker.consecutive(3)]
    ],
    ["only the first of two policies of a kind", [perMinute, perMinute], { FAILURE_RATE: "1" }, [
      { ...perMinute, rate: 1 },
      perMinute
    ]]
  ]
  it.effect.each(merges)(
    "a key changes only its part of the trip policies: %s",
    ([, trip, set, made]) =>
      Effect.gen(function*() {
        const values = Object.fromEntries(Object.entries(set).map(([key, value]) => [`GPT_BREAKER_${key}`, value]))
        assert.deepStrictEqual((yield* read(values, of(...trip))).breaker?.trip, made as never)
        const [only] = trip
        if (trip.length > 1 || only === undefined) return
        const alone = yield* read(values, { name: "gpt", breaker: { trip: only } })
        assert.deepStrictEqual(alone.breaker?.trip, made as never)
      })
  )

  it.effect("a minimum, calls or time without a rate is refused, naming the missing key", () =>
    Effect.gen(function*() {
      for (const given of [{ name: "gpt" }, of(CircuitBreaker.consecutive(5))]) {
        for (const [key, value] of [["MINIMUM", "5"], ["CALLS", "5"], ["WITHIN", "5 seconds"]] as const) {
          const error = yield* Effect.flip(read({ [`GPT_BREAKER_FAILURE_${key}`]: value }, given))
          assert.instanceOf(error, Config.ConfigError)
          assert.include(error.message, `GPT_BREAKER_FAILURE_${key}`)
          assert.include(error.message, "GPT_BREAKER_FAILURE_RATE")
        }
      }
    }))

  it.effect("a message says which trip policy is invalid and where its limit comes from", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(built({ GPT_BREAKER_FAILURE_RATE: "0", GPT_BREAKER_SLOW_RATE: "0" }))
      assert.strictEqual(
        error.message,
        "Sluice: breaker.trip[1].rate is 0; must be a number above 0 and at most 1, for failureRate. " +
          "breaker.trip[2].rate is 0; must be a number above 0 and at most 1, for slowCallRate"
      )
      const tooMany = yield* Effect.flip(built({ GPT_BREAKER_SLOW_MINIMUM: "50" }))
      assert.strictEqual(
        tooMany.message,
        "Sluice: breaker.trip[2].minimum is 50; must be at most the `calls` of slowCallRate, 20"
      )
    }))

  it.effect("the message for a malformed duration shows the format", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(read({ GPT_ATTEMPT_TIMEOUT: "5s" }))
      assert.include(error.message, `such as "30 seconds", "500 millis" or "1 hour"`)
      assert.include(error.message, "GPT_ATTEMPT_TIMEOUT")
    }))

  // Regression: the calls were dropped silently.
  it.effect("a failure rate over calls and over time at once is refused", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(
        built({ GPT_BREAKER_FAILURE_CALLS: "50", GPT_BREAKER_FAILURE_WITHIN: "30 seconds" })
      )
      assert.isTrue(Exit.isFailure(exit))
    }))

  it.effect("configuration is read from environment variables", () =>
    Effect.gen(function*() {
      const options = yield* Effect.provideService(
        Effect.suspend(() => Sluice.config("GPT", { name: "gpt" })),
        ConfigProvider.ConfigProvider,
        ConfigProvider.fromEnvRecord({ GPT_RETRY_MAX_ATTEMPTS: "5", GPT_BREAKER_FAILURE_RATE: "0.25" })
      )
      assert.strictEqual(options.retry?.maxAttempts, 5)
    }))
})
