import * as Deadline from "@sluice/core/Deadline"
import * as Outcome from "@sluice/core/Outcome"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { assert, describe, it, vi } from "@effect/vitest"
import { Arbitrary, Clock, Duration, Effect, Random, Schedule, Schema } from "effect"
import { during, flaky, plain, stoppedBy } from "./support/retries.ts"

// The properties are checked on hundreds of samples, which takes seconds on a busy machine.
vi.setConfig({ testTimeout: 40_000 })

const oneOf = <A>(values: ReadonlyArray<A>) =>
  Arbitrary.map(
    Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: values.length - 1 }))),
    (index) => values[index]!
  )

const year = 365 * 86_400_000
const numbers = [0, -0, 1, 0.5, 1e-9, 500, 60_000, 2 ** 31, year, 100 * year, 1e300, Number.MAX_VALUE]
const invalidNumbers = [-1, -1e300, NaN, Infinity, -Infinity]
const otherValues = [
  "1 second",
  "Infinity",
  "soon",
  "",
  null,
  {},
  { days: 30 },
  { seconds: NaN },
  [1, 1],
  [NaN, 1],
  5n,
  true
]
const anyValues: ReadonlyArray<unknown> = [numbers, invalidNumbers, otherValues].flat()
const factors: ReadonlyArray<unknown> = [1, 2, 1_000, 1e300, Infinity, 1.0000001, 0, 0.5, -2, NaN, "2", null, {}]
const attempts = [1, 2, 3, 10, 64, 1_024, 1e9, Number.MAX_SAFE_INTEGER, Infinity, 0, -1, NaN, 1.5]
const jitters = ["none", "full", "equal", "decorrelated", "Full"]

/** The maximum delay by the documentation. An invalid one falls back to the default. */
const capOf = (maxDelay: unknown): number => {
  const invalid = [-1, -1e300, NaN, -Infinity, "soon", "", null, true]
  if (invalid.some((value) => Object.is(value, maxDelay))) return 60_000
  if (typeof maxDelay === "object" && /null|^\{\}$/.test(JSON.stringify(maxDelay) ?? "")) return 60_000
  // Invalid values are excluded above.
  return Math.min(Duration.toMillis(maxDelay as Duration.Input), Number.MAX_SAFE_INTEGER)
}

describe("delays of an unvalidated policy", () => {
  const policies = Arbitrary.map(
    Arbitrary.all([oneOf(anyValues), oneOf(factors), oneOf(anyValues), oneOf(jitters)]),
    ([baseDelay, factor, maxDelay, jitter]) =>
      // As a JavaScript caller can.
      ({ ...plain({ maxAttempts: Infinity }), baseDelay, factor, maxDelay, jitter }) as RetryPolicy.RetryPolicy
  )

  it.effect.prop(
    "delayFor is between zero and the maximum at any attempt, and zero only for a baseDelay of zero",
    [policies, oneOf(attempts)],
    ([policy, attempt]) =>
      Effect.sync(() => {
        const cap = capOf(policy.maxDelay)
        const delay = Duration.toMillis(RetryPolicy.delayFor(policy, attempt))
        assert.isTrue(delay >= 0 && delay <= cap, `${delay} of ${cap}`)
        if (delay === 0) assert.isTrue(cap < 1 || Duration.toMillis(policy.baseDelay) < 1)
      }),
    { arbitrary: { runs: 2_000, seed: 1 } }
  )

  it.effect.prop(
    "toSchedule stays between zero and the maximum with any jitter",
    [policies],
    ([policy]) =>
      Effect.gen(function*() {
        const cap = capOf(policy.maxDelay)
        const step = yield* Schedule.toStep(RetryPolicy.toSchedule(policy))
        for (let attempt = 1; attempt <= 80; attempt++) {
          const delay = Duration.toMillis((yield* Effect.orDie(step(0, "busy")))[1])
          assert.isTrue(delay >= 0 && delay <= cap, `${delay} of ${cap} after attempt ${attempt}`)
        }
      }).pipe(Random.withSeed("hostile")),
    { arbitrary: { runs: 400, seed: 2 } }
  )
})

/** An attempt: its duration and its outcome. */
interface Step {
  readonly takes: number
  readonly outcome: Outcome.Outcome
}

const hints = [undefined, 0, 1, 300, 5_000, 20_000, 400_000].map((hint) =>
  hint === undefined ? undefined : Duration.millis(hint)
)
const outcomes = [
  [Outcome.success, Outcome.ignored, Outcome.failure({ retryable: false })],
  hints.map((retryAfter) => Outcome.failure({ retryAfter })),
  hints.map((retryAfter) => Outcome.throttled({ retryAfter }))
].flat()
const steps = [0, 1, 700].flatMap((takes) => outcomes.map((outcome): Step => ({ takes, outcome })))

interface Rules {
  readonly maxAttempts: number
  readonly baseDelay: number
  readonly factor: number
  readonly maxDelay: number
  readonly maxRetryAfter: number
  readonly deadline: number
}

const rules = Arbitrary.map(
  Arbitrary.all([
    oneOf([1, 2, 3, 5, 9]),
    oneOf([1, 100, 1_000]),
    oneOf([1, 2, 7]),
    oneOf([50, 3_000, 60_000]),
    oneOf([0, 1_000, 60_000]),
    oneOf([0, 500, 9_000, 1e9])
  ]),
  ([maxAttempts, baseDelay, factor, maxDelay, maxRetryAfter, deadline]): Rules => ({
    maxAttempts,
    baseDelay,
    factor,
    maxDelay,
    maxRetryAfter,
    deadline
  })
)

/** When each attempt begins and why none follows the last, by the documentation. */
const model = (
  script: ReadonlyArray<Step>,
  rules: Rules
): { readonly at: ReadonlyArray<number>; readonly why: RetryPolicy.RetryStopped["Service"]["why"] | undefined } => {
  const at: Array<number> = []
  let now = 0
  let backoff = rules.baseDelay
  for (let attempt = 1;; attempt++, backoff *= rules.factor) {
    const { outcome, takes } = script[(attempt - 1) % script.length]!
    at.push(now)
    now += takes
    const isRetryable = outcome._tag === "Throttled" || (outcome._tag === "Failure" && outcome.retryable)
    if (outcome._tag === "Success") return { at, why: undefined }
    if (!isRetryable) return { at, why: "Final" }
    if (attempt === rules.maxAttempts) return { at, why: "Attempts" }
    const hint = outcome.retryAfter === undefined ? 0 : Duration.toMillis(outcome.retryAfter)
    if (hint > rules.maxRetryAfter) return { at, why: "RetryAfterTooLong" }
    now += Math.max(hint, Math.min(backoff, rules.maxDelay))
    if (now >= rules.deadline) return { at, why: "Deadline" }
  }
}

describe("retry", () => {
  it.effect.prop(
    "retry makes the attempts of the model, at the same times, and stops for the same reason",
    [Arbitrary.array(oneOf(steps), { minLength: 1, maxLength: 9 }), rules],
    ([script, { deadline, ...options }]) =>
      Effect.gen(function*() {
        const begin = yield* Clock.currentTimeMillis
        const at: Array<number> = []
        const next = () => script[(at.length - 1) % script.length]!
        const attempt = Effect.flatMap(Clock.currentTimeMillis, (now) => {
          at.push(now - begin)
          const { takes } = next()
          return takes === 0 ? Effect.fail("busy") : Effect.andThen(Effect.sleep(takes), Effect.fail("busy"))
        })
        const limit: Deadline.Deadline = { at: begin + deadline, budgetMillis: deadline }
        const retried = RetryPolicy.retry(attempt, RetryPolicy.exponential({ ...options, jitter: "none" }), {
          classify: () => next().outcome
        }).pipe(Effect.provideService(Deadline.Deadline, limit))
        const exit = yield* during(retried, "1 day")
        const expected = model(script, { deadline, ...options })
        assert.deepStrictEqual(at, expected.at)
        assert.deepStrictEqual(
          stoppedBy(exit),
          expected.why === undefined ? undefined : { why: expected.why, attempts: at.length }
        )
      }),
    { arbitrary: { runs: 400, seed: 4 } }
  )

  it.effect.prop(
    "nested retries make as many attempts as the outermost that retries at all",
    [Arbitrary.array(oneOf([1, 2, 3, 4, 7]), { minLength: 1, maxLength: 5 }), oneOf([0, 1, 2, 3, 5, 99])],
    ([limits, failures]) =>
      Effect.gen(function*() {
        const { at, call } = flaky(failures, "busy")
        const nested = limits.reduce((self, maxAttempts) => RetryPolicy.retry(self, plain({ maxAttempts })), call)
        const exit = yield* during(nested, "1 day")
        const outermost = limits.findLast((limit) => limit > 1) ?? 1
        assert.strictEqual(at.length, Math.min(outermost, failures + 1))
        assert.strictEqual(exit._tag, failures < outermost ? "Success" : "Failure")
      }),
    { arbitrary: { runs: 200, seed: 5 } }
  )
})
