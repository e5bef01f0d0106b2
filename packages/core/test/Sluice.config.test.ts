import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Config, ConfigProvider, Duration, Effect, Exit, Layer, Option } from "effect"

const withStore = Effect.provide(Layer.fresh(Sluice.layerStoresMemory))

const rubbish: ReadonlyArray<readonly [words: string, value: unknown]> = [
  ["null", null],
  ["NaN", Number.NaN],
  ["-1", -1],
  ["a symbol", Symbol("x")],
  ["a text", "rubbish"],
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

/** What each option is, by its path, and the words that are sensible for it though they are rubbish for most. */
const options: Record<string, ReadonlyArray<string>> = {
  name: ["a text"],
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
  attemptTimeout: [],
  minTimeout: ["{}"],
  deadline: [],
  classify: ["a function"]
}

const set = (path: string, value: unknown): Sluice.SluiceOptions => {
  const [part, option] = path.split(".") as [keyof Sluice.SluiceOptions, string | undefined]
  // What is tried is no value of the option's type: that is the point.
  return option === undefined
    ? { ...complete, [part]: value }
    : { ...complete, [part]: { ...(complete[part] as object), [option]: value } }
}

/** The paths of the issues that an exit tells of; a throw or a defect is a failure of the test. */
const issuesOf = (exit: Exit.Exit<unknown, unknown>, at: string): ReadonlyArray<string> => {
  if (Exit.isSuccess(exit)) return []
  assert.isFalse(Exit.hasDies(exit), `${at}: ${Cause.pretty(exit.cause)}`)
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  assert.instanceOf(error, InvalidOptions, at)
  return (error as InvalidOptions).issues.map(({ option }) => option)
}

const names = (issues: ReadonlyArray<string>, path: string): boolean =>
  issues.some((issue) => issue === path || issue.startsWith(`${path}.`) || issue.startsWith(`${path}[`))

describe("options that are rubbish", () => {
  it.effect("those that are not are taken", () => Effect.scoped(withStore(Sluice.make(complete))))

  const trips: ReadonlyArray<readonly [path: string, trip: unknown]> = [
    ["breaker.trip.failures", { _tag: "Consecutive", failures: 10n }],
    ["breaker.trip.calls", { _tag: "FailureRate", rate: 0.5, minimum: 3, calls: 10n }],
    ["breaker.trip.minimum", { _tag: "SlowCallRate", rate: 0.5, calls: 20, minimum: Symbol("x") }]
  ]
  for (const [path, trip] of trips) {
    it.effect(path, () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(Effect.scoped(withStore(Sluice.make(set("breaker", { trip })))))
        assert.deepStrictEqual(issuesOf(exit, path), [path])
      }))
  }

  for (const [path, sensible] of Object.entries(options)) {
    for (const [words, value] of rubbish) {
      if (sensible.includes(words)) continue
      it.effect(`${path}: ${words}`, () =>
        Effect.gen(function*() {
          const exit = yield* Effect.exit(Effect.suspend(() => Effect.scoped(withStore(Sluice.make(set(path, value))))))
          const issues = issuesOf(exit, path)
          assert.isTrue(names(issues, path), `told: ${issues.join(", ")}`)
        }))
    }
  }

  for (const [words, value] of rubbish) {
    it.effect(`all of them together are told at once: ${words}`, () =>
      Effect.gen(function*() {
        const leaves = Object.keys(options).filter((path) => path.includes(".") && !options[path]?.includes(words))
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
        const issues = issuesOf(exit, words)
        assert.deepStrictEqual(leaves.filter((path) => !names(issues, path)), [])
      }))

    it.effect(`as the options themselves: ${words}`, () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(Effect.suspend(() => Effect.scoped(withStore(Sluice.make(value as never)))))
        assert.isAbove(issuesOf(exit, words).length, 0)
      }))
  }
})

describe("trip policies that are rubbish", () => {
  const policies: Record<string, (value: never) => CircuitBreaker.TripPolicy> = {
    "trip.failures": CircuitBreaker.consecutive,
    "trip.rate": (rate) => CircuitBreaker.failureRate({ rate }),
    "trip.within": (within) => CircuitBreaker.failureRate({ rate: 0.5, within }),
    "trip.calls": (calls) => CircuitBreaker.slowCallRate({ rate: 0.5, calls }),
    "trip.minimum": (minimum) => CircuitBreaker.slowCallRate({ rate: 0.5, calls: 20, minimum })
  }
  for (const [path, policy] of Object.entries(policies)) {
    for (const [words, value] of rubbish) {
      it.effect(`${path}: ${words}`, () =>
        Effect.gen(function*() {
          const exit = yield* Effect.exit(
            Effect.suspend(() => Effect.scoped(withStore(CircuitBreaker.make({ trip: policy(value as never) }))))
          )
          const issues = issuesOf(exit, path)
          assert.isTrue(names(issues, path), `told: ${issues.join(", ")}`)
        }))
    }
  }

  it.effect("a breaker's own name", () =>
    Effect.gen(function*() {
      for (const [words, value] of rubbish) {
        if (words === "a text") continue
        const exit = yield* Effect.exit(Effect.scoped(withStore(CircuitBreaker.make({ name: value as never }))))
        assert.isTrue(names(issuesOf(exit, words), "name"), words)
      }
    }))

  // Its key is taken as it is.
  it.effect("what a circuit is set to", () =>
    Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make()
      const given = { mode: "ForcedOpen", reason: "an incident", for: "1 minute", key: "a" } as const
      for (const option of ["mode", "reason", "for", "key"] as const) {
        for (const [words, value] of rubbish) {
          if (words === "a text" && (option === "reason" || option === "key")) continue
          const exit = yield* Effect.exit(
            Effect.suspend(() => breaker.control({ ...given, [option]: value } as CircuitBreaker.ControlOptions))
          )
          assert.isTrue(names(issuesOf(exit, `${option}: ${words}`), option), `${option}: ${words}`)
        }
      }
      for (const [words, value] of rubbish) {
        const exit = yield* Effect.exit(Effect.suspend(() => breaker.control(value as never)))
        assert.isAbove(issuesOf(exit, words).length, 0, words)
      }
    }).pipe(withStore, Effect.scoped))
})

/** Every key: a value of the wrong form, one that makes no sense if there is any, a sensible one, and the option that it sets. */
interface Key {
  readonly wrong: string
  readonly senseless?: string
  readonly sensible: string
  readonly option: string
  readonly value: unknown
  /** The key without which it has nothing to change where the options have no trip policy. */
  readonly needs?: string
}

const time = (option: string, senseless?: string): Key => ({
  wrong: "soon",
  sensible: "7 seconds",
  option,
  value: 7_000,
  ...(senseless === undefined ? undefined : { senseless })
})
const whole = (option: string, senseless: string, sensible = 3): Key => ({
  wrong: "1.5",
  sensible: String(sensible),
  option,
  value: sensible,
  senseless
})

/** What it makes of a rate depends on the rate that is given: see below. */
const rate = (wrong: string, senseless: string, sensible: string, needs?: string): Key => ({
  wrong,
  senseless,
  sensible,
  option: "breaker.trip",
  value: undefined,
  ...(needs === undefined ? undefined : { needs })
})

const keys: Record<string, Key> = {
  RETRY_MAX_ATTEMPTS: whole("retry.maxAttempts", "0"),
  RETRY_BASE_DELAY: time("retry.baseDelay", "0 millis"),
  RETRY_FACTOR: { wrong: "twice", senseless: "0", sensible: "1.5", option: "retry.factor", value: 1.5 },
  RETRY_MAX_DELAY: time("retry.maxDelay", "0 millis"),
  RETRY_MAX_RETRY_AFTER: time("retry.maxRetryAfter", "Infinity"),
  RETRY_JITTER: { wrong: "some", sensible: "equal", option: "retry.jitter", value: "equal" },
  BREAKER_OPEN_FOR: time("breaker.openFor", "2 hours"),
  BREAKER_OPEN_JITTER: { wrong: "some", senseless: "2", sensible: "0.2", option: "breaker.openJitter", value: 0.2 },
  BREAKER_MAX_OPEN_FOR: { ...time("breaker.maxOpenFor", "0 millis"), sensible: "2 hours", value: 7_200_000 },
  BREAKER_PROBES: whole("breaker.probes", "0"),
  BREAKER_PROBES_TO_CLOSE: whole("breaker.probesToClose", "0", 1),
  BREAKER_PROBE_LEASE: time("breaker.probeLease", "0 millis"),
  BREAKER_RAMP_UP: time("breaker.rampUp", "Infinity"),
  BREAKER_SLOW_AFTER: time("breaker.slowAfter", "0 millis"),
  BREAKER_STORE_TIMEOUT: time("breaker.storeTimeout", "0 millis"),
  BREAKER_STALENESS: time("breaker.staleness", "Infinity"),
  BREAKER_HEARTBEAT: time("breaker.heartbeat", "0 millis"),
  BREAKER_CONSECUTIVE: {
    wrong: "many",
    senseless: "0",
    sensible: "3",
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
  DEDUPLICATOR_MAX_REPLAY: whole("deduplicator.maxReplay", "0"),
  ATTEMPT_TIMEOUT: time("attemptTimeout", "0 millis"),
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

/** A time in milliseconds, a list of one policy as that policy. */
const plain = (value: unknown): unknown => {
  if (Duration.isDuration(value)) return Duration.toMillis(value)
  return Array.isArray(value) && value.length === 1 ? value[0] : value
}

describe("configuration", () => {
  it.effect("with nothing set gives the options as they are", () =>
    Effect.gen(function*() {
      const options = yield* read({})
      assert.deepStrictEqual(options.breaker, complete.breaker)
      assert.deepStrictEqual(options.retry, complete.retry)
      yield* built({})
    }))

  it.effect("builds no part that nobody names", () =>
    Effect.gen(function*() {
      const options = yield* read({}, { name: "gpt" })
      assert.deepStrictEqual(
        [options.retry, options.breaker, options.backpressure, options.deduplicator],
        [undefined, undefined, undefined, undefined]
      )
    }))

  for (const [key, { needs, option, senseless, sensible, value, wrong }] of Object.entries(keys)) {
    it.effect(`GPT_${key} of the wrong form is an error that names it`, () =>
      Effect.gen(function*() {
        for (const given of [complete, { name: "gpt" }]) {
          const error = yield* Effect.flip(read({ [`GPT_${key}`]: wrong }, given))
          assert.instanceOf(error, Config.ConfigError)
          assert.include(error.message, `GPT_${key}`)
        }
      }))

    if (senseless !== undefined) {
      it.effect(`GPT_${key} that makes no sense is an error that names its option`, () =>
        Effect.gen(function*() {
          const exit = yield* Effect.exit(built({ [`GPT_${key}`]: senseless }))
          assert.isTrue(Exit.isFailure(exit))
          assert.isFalse(Exit.hasDies(exit), String(exit))
          const error = yield* Effect.flip(exit)
          if (error instanceof InvalidOptions) {
            assert.isTrue(names(error.issues.map((issue) => issue.option), option), error.message)
          } else assert.include(error.message, `GPT_${key}`)
        }))
    }

    it.effect(`GPT_${key} sets ${option}, over what is given and where nothing is`, () =>
      Effect.gen(function*() {
        for (const given of [complete, { name: "gpt" }]) {
          const beside = needs === undefined || given === complete ? {} : { [`GPT_${needs}`]: "0.5" }
          const options = yield* read({ ...beside, [`GPT_${key}`]: sensible }, given)
          if (value === undefined) assert.notDeepEqual(at(option, options), at(option, given))
          else assert.deepInclude([plain(at(option, options))].flat(), value)
        }
        yield* built({ [`GPT_${key}`]: sensible })
      }))
  }

  it.effect("every option that is data has a key", () =>
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
    readonly [words: string, trip: ReadonlyArray<CircuitBreaker.TripPolicy>, set: Record<string, string>, made: unknown]
  > = [
    ["a minimum alone", [perMinute], { FAILURE_MINIMUM: "15" }, [{ ...perMinute, minimum: 15 }]],
    ["a rate alone", [perMinute], { FAILURE_RATE: "0.3" }, [{ ...perMinute, rate: 0.3 }]],
    ["a time alone", [perMinute], { FAILURE_WITHIN: "2 minutes" }, [{ ...perMinute, within: Duration.minutes(2) }]],
    [
      "calls in place of a time, and the minimum that was chosen stays",
      [perMinute],
      { FAILURE_CALLS: "500" },
      [{ ...perMinute, calls: 500, within: undefined }]
    ],
    [
      "calls, and the minimum that nobody chose follows",
      [CircuitBreaker.slowCallRate({ rate: 0.5 })],
      { SLOW_CALLS: "8" },
      [CircuitBreaker.slowCallRate({ rate: 0.5, calls: 8 })]
    ],
    [
      "a rate of another kind, beside what is there",
      [CircuitBreaker.consecutive(5), perMinute],
      { SLOW_RATE: "0.9", FAILURE_RATE: "0.3" },
      [CircuitBreaker.consecutive(5), { ...perMinute, rate: 0.3 }, CircuitBreaker.slowCallRate({ rate: 0.9 })]
    ],
    [
      "failures in a row, in their place",
      [perMinute, CircuitBreaker.consecutive(5)],
      { CONSECUTIVE: "3" },
      [perMinute, CircuitBreaker.consecutive(3)]
    ],
    ["only the first of two of a kind", [perMinute, perMinute], { FAILURE_RATE: "1" }, [
      { ...perMinute, rate: 1 },
      perMinute
    ]]
  ]
  it.effect.each(merges)(
    "changes of the trip policies what is set and nothing else: %s",
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

  it.effect("a rate's rest without a rate to change is refused, with the key that is missing", () =>
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

  it.effect("tells apart the policies that are wrong, and where a limit comes from", () =>
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

  it.effect("shows how a time is written", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(read({ GPT_ATTEMPT_TIMEOUT: "5s" }))
      assert.include(error.message, `such as "30 seconds", "500 millis" or "1 hour"`)
      assert.include(error.message, "GPT_ATTEMPT_TIMEOUT")
    }))

  // The calls are dropped without a word.
  it.effect("a rate of a time and a rate of calls at once is refused, not one of them dropped", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(
        built({ GPT_BREAKER_FAILURE_CALLS: "50", GPT_BREAKER_FAILURE_WITHIN: "30 seconds" })
      )
      assert.isTrue(Exit.isFailure(exit))
    }))

  it.effect("comes from the environment as well", () =>
    Effect.gen(function*() {
      const options = yield* Effect.provideService(
        Effect.suspend(() => Sluice.config("GPT", { name: "gpt" })),
        ConfigProvider.ConfigProvider,
        ConfigProvider.fromEnvRecord({ GPT_RETRY_MAX_ATTEMPTS: "5", GPT_BREAKER_FAILURE_RATE: "0.25" })
      )
      assert.strictEqual(options.retry?.maxAttempts, 5)
    }))
})
