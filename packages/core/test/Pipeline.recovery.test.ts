import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import * as Outcome from "../src/Outcome.ts"
import * as Pipeline from "../src/Pipeline.ts"
import * as RetryPolicy from "../src/RetryPolicy.ts"

const causeOf = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.flip(Effect.sandbox(self))
const failedStage = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.map(causeOf(self), (cause) => Option.getOrUndefined(Pipeline.failedStage(cause)))

const down = (_: string): Effect.Effect<string, "down"> => Effect.fail("down")
const twice = RetryPolicy.constant({ maxAttempts: 2, baseDelay: "1 second", jitter: "none" })

describe("recovery of a Pipeline stage", () => {
  it.effect("a pipeline continues with the result of the recovery, which gets the error and the input", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
        Pipeline.stage("ask", down, { recover: (error, input) => Effect.succeed(`${error}: ${input}`) }),
        Pipeline.stage("upper", (text) => Effect.succeed(text.toUpperCase()))
      )
      assert.strictEqual(yield* pipeline(" why "), "DOWN: WHY")
    }))

  for (const [how, ask] of [["at once", Effect.succeed("fine")], ["later", Effect.sync(() => "fine")]] as const) {
    it.effect(`the recovery of a stage that succeeds ${how} is not called`, () =>
      Effect.gen(function*() {
        const pipeline = Pipeline.make<string>("p").pipe(
          Pipeline.stage("ask", (): Effect.Effect<string, "down"> => ask, { recover: () => Effect.die("not needed") })
        )
        assert.strictEqual(yield* pipeline("x"), "fine")
      }))
  }

  it.effect("a recovery is called once, after the last attempt, with its error", () =>
    Effect.gen(function*() {
      let attempts = 0
      const recovered: Array<string> = []
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", (): Effect.Effect<string, string> => Effect.fail(`failure ${++attempts}`), {
          retry: twice,
          recover: (error) => Effect.sync(() => `${recovered.push(error)}`)
        })
      )
      const fiber = yield* Effect.forkChild(pipeline("x"), { startImmediately: true })
      assert.deepStrictEqual(recovered, [])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(fiber), "1")
      assert.deepStrictEqual(recovered, ["failure 2"])
    }))

  it.effect("a recovery gets StageTimeout, and the stage's timeout does not limit it", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", (): Effect.Effect<string, "down"> => Effect.never, {
          timeout: "1 second",
          recover: (error) => Effect.delay(Effect.succeed(error === "down" ? error : error._tag), "1 hour")
        })
      )
      const fiber = yield* Effect.forkChild(pipeline("x"), { startImmediately: true })
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(fiber), "StageTimeout")
    }))

  it.effect("a recovery is not called for a defect, not even with a failure beside it", () =>
    Effect.gen(function*() {
      const dying = (cause: Cause.Cause<"down">) =>
        Pipeline.make<string>("p").pipe(
          Pipeline.stage("ask", (): Effect.Effect<string, "down"> => Effect.failCause(cause), {
            recover: () => Effect.succeed("recovered")
          })
        )
      for (const cause of [Cause.die("bug"), Cause.combine(Cause.fail("down" as const), Cause.die("bug"))]) {
        assert.isTrue(Exit.hasDies(yield* Effect.exit(dying(cause)("x"))))
      }
      const throwing = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", (): Effect.Effect<string> => {
          throw new Error("bug")
        }, { recover: () => Effect.succeed("recovered") })
      )
      const cause = yield* causeOf(throwing("x"))
      assert.isTrue(Cause.hasDies(cause))
      assert.deepStrictEqual(Option.getOrUndefined(Pipeline.failedStage(cause)), {
        pipeline: "p",
        stage: "ask",
        index: 0,
        during: "Run"
      })
    }))

  it.effect("a recovery is not called for an interruption", () =>
    Effect.gen(function*() {
      let calls = 0
      const recover = () => Effect.sync(() => `${++calls}`)
      const waits = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", (): Effect.Effect<string, "down"> => Effect.never, { recover })
      )
      const fiber = yield* Effect.forkChild(waits("x"), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      const exit = yield* Fiber.await(fiber)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))

      const stops = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", (): Effect.Effect<string, "down"> => Effect.interrupt, { recover })
      )
      assert.isTrue(Cause.hasInterruptsOnly(yield* causeOf(stops("x"))))
      assert.strictEqual(calls, 0)
    }))

  it.effect("a recovery that fails replaces the error, and failedStage says during Recovery", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
        Pipeline.stage("ask", down, { recover: () => Effect.fail("no cache" as const) })
      )
      assert.strictEqual(yield* Effect.flip(pipeline("x")), "no cache")
      assert.deepStrictEqual(yield* failedStage(pipeline("x")), {
        pipeline: "p",
        stage: "ask",
        index: 1,
        during: "Recovery"
      })
    }))

  it.effect("a recovery that throws is a defect during Recovery", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", down, {
          recover: (): Effect.Effect<string> => {
            throw new Error("bug")
          }
        })
      )
      const cause = yield* causeOf(pipeline("x"))
      assert.isTrue(Cause.hasDies(cause))
      assert.strictEqual(Option.getOrUndefined(Pipeline.failedStage(cause))?.during, "Recovery")
    }))

  it.effect("a recovery that fails with the same error keeps the annotations of its cause", () =>
    Effect.gen(function*() {
      const error = new Error("of the inner stage")
      const inner = Pipeline.make<string>("inner").pipe(
        Pipeline.stage("ask", (): Effect.Effect<string, Error> => Effect.fail(error), {
          retry: RetryPolicy.constant({ maxAttempts: 1 })
        })
      )
      const outer = Pipeline.make<string>("outer").pipe(
        Pipeline.stage("answer", inner, {
          recover: (error) => error.message === "another" ? Effect.succeed("recovered") : Effect.fail(error)
        })
      )
      const cause = yield* causeOf(outer("x"))
      assert.strictEqual(Option.getOrUndefined(Cause.findErrorOption(cause)), error)
      assert.strictEqual(Option.getOrUndefined(Pipeline.failedStage(cause))?.pipeline, "inner")
      assert.strictEqual(Option.getOrUndefined(RetryPolicy.stopped(cause))?.why, "Attempts")
    }))

  it.effect("a recovery of a nested pipeline gets its error and its input, and is named when it fails", () =>
    Effect.gen(function*() {
      const inner = Pipeline.make<string>("inner").pipe(
        Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
        Pipeline.stage("ask", down)
      )
      const outer = (recover: (error: "down", input: string) => Effect.Effect<string, string>) =>
        Pipeline.make<string>("outer").pipe(Pipeline.stage("answer", inner, { recover }))
      assert.strictEqual(yield* outer((error, input) => Effect.succeed(`${error},${input}`))(" x "), "down, x ")
      assert.deepStrictEqual(yield* failedStage(outer(() => Effect.fail("no cache"))("x")), {
        pipeline: "outer",
        stage: "answer",
        index: 0,
        during: "Recovery"
      })
    }))

  it.effect("a recovery can be a pipeline, whose failing stage is then named", () =>
    Effect.gen(function*() {
      const fallback = Pipeline.make<string>("fallback").pipe(
        Pipeline.stage("look up", (_: string) => Effect.fail("not found" as const))
      )
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", down, { recover: (_, input) => fallback(input) })
      )
      assert.deepStrictEqual(yield* failedStage(pipeline("x")), {
        pipeline: "fallback",
        stage: "look up",
        index: 0,
        during: "Run"
      })
    }))

  it("describe lists a recovery", () => {
    const pipeline = Pipeline.make<string>("p").pipe(
      Pipeline.stage("ask", down, { timeout: "1 second", retry: twice, recover: () => Effect.succeed("") })
    )
    assert.deepStrictEqual(Pipeline.describe(pipeline), ["p", "  1. ask (1s, 2 attempts, recovers)"])
  })
})

describe("retry of a Pipeline stage with a classifier", () => {
  it.effect("a failure classified as final is not retried", () =>
    Effect.gen(function*() {
      let calls = 0
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", () => (calls++, Effect.fail("final")), {
          retry: { policy: twice, classify: () => Outcome.failure({ retryable: false }) }
        })
      )
      assert.strictEqual(yield* Effect.flip(pipeline("x")), "final")
      assert.strictEqual(calls, 1)
    }))

  for (
    const [how, answer] of [["at once", Effect.succeed<string>], [
      "later",
      (text: string) => Effect.sync(() => text)
    ]] as const
  ) {
    it.effect(`a result that came ${how} and is classified as a failure is retried`, () =>
      Effect.gen(function*() {
        let calls = 0
        const pipeline = Pipeline.make<string>("p").pipe(
          Pipeline.stage("ask", () => answer(++calls < 2 ? "" : "full"), {
            retry: {
              policy: twice,
              classify: (exit) => Exit.isSuccess(exit) && exit.value === "" ? Outcome.failure() : undefined
            }
          })
        )
        const fiber = yield* Effect.forkChild(pipeline("x"), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(fiber), "full")
      }))
  }

  it("describe and stages show the retry policy", () => {
    const pipeline = Pipeline.make<string>("p").pipe(
      Pipeline.stage("ask", Effect.succeed<string>, { retry: { policy: twice, classify: () => undefined } })
    )
    assert.strictEqual(pipeline.stages[0]?.retry, twice)
    assert.deepStrictEqual(Pipeline.describe(pipeline), ["p", "  1. ask (2 attempts)"])
  })
})
