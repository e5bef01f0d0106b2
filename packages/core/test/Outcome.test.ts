import { assert, describe, it } from "@effect/vitest"
import { Cause, Data, Duration, Effect, Exit } from "effect"
import { BackpressureShed } from "../src/Backpressure.ts"
import { DeadlineExceeded } from "../src/Deadline.ts"
import * as Outcome from "../src/Outcome.ts"

class HttpError extends Data.Error<{
  readonly isRetryable?: boolean
  readonly retryAfter?: unknown
}> {}

const retryable = Outcome.failure()
const final = Outcome.failure({ retryable: false })

const shed = new BackpressureShed({ policy: "p", why: "Full", permits: 1, running: 1, queued: 0, capacity: 1 })
const late = new DeadlineExceeded({ at: "Queue", budget: Duration.seconds(1) })

describe("Outcome", () => {
  describe("fromExit", () => {
    const rows: ReadonlyArray<readonly [what: string, exit: Exit.Exit<unknown, unknown>, outcome: Outcome.Outcome]> = [
      ["a success", Exit.succeed("answer"), Outcome.success],
      ["a success that is an Error", Exit.succeed(new Error("a value like any other")), Outcome.success],
      ["a defect", Exit.die(new Error("bug")), final],
      ["a failure that is a string", Exit.fail("busy"), retryable],
      ["a failure that is null", Exit.fail(null), retryable],
      ["a failure without isRetryable", Exit.fail(new HttpError({})), retryable],
      ["a failure with isRetryable undefined", Exit.fail({ isRetryable: undefined }), retryable],
      ["a failure with isRetryable true", Exit.fail(new HttpError({ isRetryable: true })), retryable],
      ["a failure with isRetryable false", Exit.fail(new HttpError({ isRetryable: false })), final],
      [
        "a failure with a retryAfter",
        Exit.fail(new HttpError({ retryAfter: Duration.seconds(3) })),
        Outcome.failure({ retryAfter: Duration.seconds(3) })
      ],
      [
        "a final failure with a retryAfter",
        Exit.fail(new HttpError({ isRetryable: false, retryAfter: Duration.seconds(3) })),
        Outcome.failure({ retryable: false, retryAfter: Duration.seconds(3) })
      ],
      ["a failure with a retryAfter that is no duration", Exit.fail(new HttpError({ retryAfter: 3_000 })), retryable],
      ["a BackpressureShed of an inner policy", Exit.fail(shed), Outcome.ignored],
      ["a DeadlineExceeded of an inner policy", Exit.fail(late), Outcome.ignored],
      ["an interruption", Exit.interrupt(1), Outcome.ignored],
      ["an empty cause", Exit.failCause(Cause.empty), Outcome.ignored]
    ]
    for (const [what, exit, outcome] of rows) {
      it(`${what} is ${outcome._tag}`, () => {
        assert.deepStrictEqual(Outcome.fromExit(exit), outcome)
      })
    }
  })

  describe("fromExit of several reasons", () => {
    const reasons: ReadonlyArray<
      readonly [what: string, strong: Cause.Cause<unknown>, weak: Cause.Cause<unknown>, outcome: Outcome.Outcome]
    > = [
      ["a defect counts over a failure", Cause.die("bug"), Cause.fail("busy"), final],
      ["a defect counts over an interruption", Cause.die("bug"), Cause.interrupt(1), final],
      ["a defect counts over a refusal", Cause.die("bug"), Cause.fail(shed), final],
      ["a failure counts over an interruption", Cause.fail("busy"), Cause.interrupt(1), retryable],
      ["a failure counts over a refusal", Cause.fail("busy"), Cause.fail(shed), retryable],
      ["a refusal and an interruption are ignored", Cause.fail(late), Cause.interrupt(1), Outcome.ignored]
    ]
    for (const [what, strong, weak, outcome] of reasons) {
      it(`${what}, in any order`, () => {
        assert.deepStrictEqual(Outcome.fromExit(Exit.failCause(Cause.combine(strong, weak))), outcome)
        assert.deepStrictEqual(Outcome.fromExit(Exit.failCause(Cause.combine(weak, strong))), outcome)
      })
    }
  })

  describe("constructors", () => {
    it("failure is retryable with weight 1 by default", () => {
      assert.deepStrictEqual(Outcome.failure(), {
        _tag: "Failure",
        retryable: true,
        weight: 1,
        retryAfter: undefined,
        open: undefined
      })
      const open = Duration.minutes(5)
      assert.deepStrictEqual(Outcome.failure({ retryable: false, weight: 0.25, open }), {
        _tag: "Failure",
        retryable: false,
        weight: 0.25,
        retryAfter: undefined,
        open
      })
    })

    for (const [weight, held] of [[-1, 0], [0, 0], [0.5, 0.5], [1, 1], [7, 1], [Infinity, 1], [NaN, 0]] as const) {
      it(`a weight of ${weight} is limited to ${held}`, () => {
        const outcome = Outcome.failure({ weight })
        assert.strictEqual(outcome._tag === "Failure" && outcome.weight, held)
      })
    }

    it("throttled carries a retryAfter", () => {
      const retryAfter = Duration.seconds(3)
      assert.deepStrictEqual(Outcome.throttled({ retryAfter }), { _tag: "Throttled", retryAfter })
      assert.deepStrictEqual(Outcome.throttled(), { _tag: "Throttled", retryAfter: undefined })
    })
  })

  describe("Classifier", () => {
    it.effect("the Classifier reference is fromExit by default, and can be replaced", () =>
      Effect.gen(function*() {
        const exit = Exit.fail("busy")
        const standard = yield* Outcome.Classifier
        assert.deepStrictEqual(standard(exit, 12), retryable)
        const replaced = yield* Effect.provideService(Outcome.Classifier, Outcome.Classifier, () => Outcome.ignored)
        assert.deepStrictEqual(replaced(exit, 12), Outcome.ignored)
      }))
  })
})
