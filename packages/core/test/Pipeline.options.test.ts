import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Option, Stream } from "effect"
import type { InvalidOptions } from "../src/InvalidOptions.ts"
import * as Pipeline from "../src/Pipeline.ts"
import * as RetryPolicy from "../src/RetryPolicy.ts"

const ask = (text: string): Effect.Effect<string, "down"> => Effect.succeed(text)

/** A pipeline of one stage with unchecked options. */
const withOptions = (options: unknown) =>
  Pipeline.make<string>("p").pipe(Pipeline.stage("ask", ask, options as Pipeline.StageOptions))

const issuesOf = (self: Effect.Effect<unknown, InvalidOptions>) =>
  Effect.map(Effect.flip(self), ({ issues }) => issues.map((issue) => issue.option))

const defectOf = <A, E>(self: Effect.Effect<A, E>) =>
  Effect.map(
    Effect.flip(Effect.sandbox(self)),
    (cause) => cause.reasons.map((reason) => Cause.isDieReason(reason) && reason.defect)
  )

const invalidOptions: ReadonlyArray<readonly [option: string, options: unknown]> = [
  ["ask.timeout", { timeout: 0 }],
  ["ask.timeout", { timeout: -1 }],
  ["ask.timeout", { timeout: Number.NaN }],
  ["ask.timeout", { timeout: Number.POSITIVE_INFINITY }],
  ["ask.timeout", { timeout: "soon" }],
  ["ask.timeout", { timeout: null }],
  ["ask.timeout", { timeout: {} }],
  ["ask.timeout", { timeout: () => "1 second" }],
  ["ask.retry", { retry: null }],
  ["ask.retry", { retry: 3 }],
  ["ask.retry", { retry: "exponential" }],
  ["ask.retry", { retry: { policy: 3 } }],
  ["ask.retry.maxAttempts", { retry: RetryPolicy.exponential({ maxAttempts: 0 }) }],
  ["ask.retry.policy.maxAttempts", { retry: { policy: RetryPolicy.exponential({ maxAttempts: Number.NaN }) } }],
  ["ask.retry.classify", { retry: { policy: RetryPolicy.exponential(), classify: "always" } }],
  ["ask.retry.nested", { retry: { policy: RetryPolicy.exponential(), nested: "mine" } }],
  ["ask.retry.delay", { retry: { policy: RetryPolicy.exponential(), delay: 1 } }],
  ["ask.retry.onAttempt", { retry: { policy: RetryPolicy.exponential(), onAttempt: 1 } }],
  ["ask.recover", { recover: "a word" }],
  ["ask.recover", { recover: null }],
  ["ask.options", null],
  ["ask.options", "1 second"],
  ["ask.options", 1_000]
]

describe("Pipeline options", () => {
  for (const [option, options] of invalidOptions) {
    const name = typeof options === "object" && options !== null
      ? Object.entries(options).flat().map(String).join(": ")
      : String(options)
    it.effect(`an invalid stage option is refused by validate and before the pipeline runs: ${name}`, () =>
      Effect.gen(function*() {
        let ran = 0
        const pipeline = Pipeline.make<string>("p").pipe(
          Pipeline.stage("count", (text) => (ran++, Effect.succeed(text))),
          Pipeline.stage("ask", ask, options as Pipeline.StageOptions)
        )
        assert.deepStrictEqual(yield* issuesOf(Pipeline.validate(pipeline)), [option])
        for (const run of [pipeline("x"), Effect.flatMap(Pipeline.withTimings(pipeline)("x"), ([exit]) => exit)]) {
          const [defect] = yield* defectOf(run)
          assert.strictEqual(defect && (defect as InvalidOptions)._tag, "InvalidOptions")
        }
        assert.strictEqual(ran, 0)
        assert.isArray(Pipeline.describe(pipeline))
      }))
  }

  it.effect("all invalid options are refused at once, by stage, including nested pipelines", () =>
    Effect.gen(function*() {
      const inner = Pipeline.make<string>("inner").pipe(
        Pipeline.stage("ask", ask, { timeout: -1 }),
        Pipeline.stage("ask", ask, { retry: RetryPolicy.exponential({ maxAttempts: 0, factor: 0 }) })
      )
      const outer = Pipeline.make<string>("outer").pipe(
        Pipeline.stage("clean", inner, { timeout: "never" as "1 second" }),
        Pipeline.stage("fine", ask, { timeout: "1 second" }),
        Pipeline.stage("bare", inner)
      )
      const all = [
        "clean.timeout",
        "clean.ask.timeout",
        "clean.ask#2.retry.maxAttempts",
        "clean.ask#2.retry.factor",
        "bare.ask.timeout",
        "bare.ask#2.retry.maxAttempts",
        "bare.ask#2.retry.factor"
      ]
      assert.deepStrictEqual(yield* issuesOf(Pipeline.validate(outer)), all)
    }))

  it.effect("InvalidOptions is not a stage's failure, and no recovery handles it", () =>
    Effect.gen(function*() {
      const inner = withOptions({ timeout: -1 })
      const outer = Pipeline.make<string>("outer").pipe(
        Pipeline.stage("inner", inner, { recover: () => Effect.succeed("recovered") })
      )
      const cause = yield* Effect.flip(Effect.sandbox(outer("x")))
      assert.isTrue(Cause.hasDies(cause))
      assert.isTrue(Option.isNone(Pipeline.failedStage(cause)))
      // A pipeline called inside a function is hidden from the check. Its defect is that of the calling stage.
      const hiding = Pipeline.make<string>("hiding").pipe(Pipeline.stage("call", (text) => inner(text)))
      yield* Pipeline.validate(hiding)
      const found = yield* Effect.flip(Effect.sandbox(hiding("x")))
      assert.strictEqual(Option.getOrUndefined(Pipeline.failedStage(found))?.stage, "call")
    }))

  it.effect("validate returns a valid pipeline unchanged", () =>
    Effect.gen(function*() {
      const pipeline = withOptions({ timeout: "30 days", retry: RetryPolicy.none, recover: ask })
      assert.strictEqual(yield* Pipeline.validate(pipeline), pipeline)
      assert.strictEqual(yield* pipeline("x"), "x")
      assert.strictEqual(yield* withOptions({ timeout: undefined, retry: undefined, recover: undefined })("x"), "x")
      assert.strictEqual(yield* withOptions(undefined)("x"), "x")
    }))

  it.effect("names that are no strings and a stage that is no function are refused", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>(7 as unknown as string).pipe(
        Pipeline.stage(8 as unknown as string, ask),
        Pipeline.stage("no function", "text" as unknown as typeof ask)
      )
      assert.deepStrictEqual(yield* issuesOf(Pipeline.validate(pipeline)), ["name", "8.name", "no function.run"])
      const [defect] = yield* defectOf(pipeline("x"))
      assert.strictEqual(defect && (defect as InvalidOptions)._tag, "InvalidOptions")
    }))

  it.effect("invalid stream options are refused before the stream reads an input", () =>
    Effect.gen(function*() {
      let read = 0
      const inputs = Stream.tap(Stream.make("a"), () => Effect.sync(() => read++))
      const pipeline = withOptions(undefined)
      const wrong: ReadonlyArray<readonly [string, unknown]> = [
        ["concurrency", { concurrency: 0 }],
        ["concurrency", { concurrency: -1 }],
        ["concurrency", { concurrency: 1.5 }],
        ["concurrency", { concurrency: Number.NaN }],
        ["concurrency", { concurrency: "3" }],
        ["concurrency", { concurrency: null }],
        ["unordered", { unordered: "yes" }],
        ["options", null],
        ["options", 3]
      ]
      for (const [option, given] of wrong) {
        const options = given as Pipeline.StreamOptions
        for (
          const stream of [
            Pipeline.runStream(inputs, pipeline, options),
            Pipeline.runStreamExit(inputs, pipeline, options),
            Pipeline.runStreamEntries(inputs, pipeline, options)
          ]
        ) {
          const [defect] = yield* defectOf(Stream.runDrain(stream as Stream.Stream<unknown>))
          assert.deepStrictEqual(defect && (defect as InvalidOptions).issues.map((issue) => issue.option), [option])
        }
      }
      assert.strictEqual(read, 0)
      const exit = yield* Effect.exit(Stream.runDrain(Pipeline.runStream(inputs, pipeline, {})))
      assert.isTrue(Exit.isSuccess(exit))
    }))
})
