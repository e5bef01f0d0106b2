import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Pipeline from "../src/Pipeline.ts"
import * as RetryPolicy from "../src/RetryPolicy.ts"

const twice = RetryPolicy.constant({ maxAttempts: 2, baseDelay: "5 seconds", jitter: "none" })

/** Runs a pipeline with timings for an hour of the test clock. */
const timed = <In, Out, E>(pipeline: Pipeline.Pipeline<In, Out, E>, input: In) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Pipeline.withTimings(pipeline)(input), { startImmediately: true })
    yield* TestClock.adjust("1 hour")
    return yield* Fiber.join(fiber)
  })

const wait = (millis: number) => <A>(input: A) => Effect.delay(Effect.succeed(input), millis)
const bare = { attempts: 1, timeouts: 0, nested: undefined, ending: "Success" } as const

describe("Pipeline.withTimings", () => {
  it.effect("timings have the duration of the run and of each stage", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
        Pipeline.stage("ask", wait(300)),
        Pipeline.stage("store", wait(20))
      )
      const [exit, timings] = yield* timed(pipeline, " x ")
      assert.deepStrictEqual(exit, Exit.succeed("x"))
      assert.deepStrictEqual(timings, {
        pipeline: "p",
        ending: "Success",
        elapsedMillis: 320,
        stages: [
          { ...bare, stage: "trim", index: 0, elapsedMillis: 0 },
          { ...bare, stage: "ask", index: 1, elapsedMillis: 300 },
          { ...bare, stage: "store", index: 2, elapsedMillis: 20 }
        ]
      })
    }))

  it.effect("timings of a failed run end with the stage that failed", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", wait(300)),
        Pipeline.stage("read", () => Effect.fail("syntax" as const)),
        Pipeline.stage("store", wait(20))
      )
      const [exit, timings] = yield* timed(pipeline, "x")
      assert.isTrue(Exit.hasFails(exit))
      assert.deepStrictEqual(timings, {
        pipeline: "p",
        ending: "Failure",
        elapsedMillis: 300,
        stages: [
          { ...bare, stage: "ask", index: 0, elapsedMillis: 300 },
          { ...bare, stage: "read", index: 1, elapsedMillis: 0, ending: "Failure" }
        ]
      })
    }))

  it.effect("timings count attempts and timeouts, and include backoffs and recovery", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", (): Effect.Effect<string> => Effect.never, {
          timeout: "1 second",
          retry: twice,
          recover: () => wait(10)("recovered")
        })
      )
      const [exit, timings] = yield* timed(pipeline, "x")
      assert.deepStrictEqual(exit, Exit.succeed("recovered"))
      assert.deepStrictEqual(timings.stages, [{
        stage: "ask",
        index: 0,
        ending: "Recovered",
        elapsedMillis: 7_010,
        attempts: 2,
        timeouts: 2,
        nested: undefined
      }])
      assert.strictEqual(timings.ending, "Success")
    }))

  it.effect("timings nest like the pipelines, and show the last attempt of a nested one", () =>
    Effect.gen(function*() {
      let calls = 0
      const inner = Pipeline.make<string>("inner").pipe(
        Pipeline.stage("wait", wait(100)),
        Pipeline.stage("ask", (text) => ++calls === 1 ? Effect.fail("503") : wait(200)(text))
      )
      const outer = Pipeline.make<string>("outer").pipe(
        Pipeline.stage("bare", Pipeline.make<string>("single").pipe(Pipeline.stage("wait", wait(1)))),
        Pipeline.stage("retried", inner, { retry: twice })
      )
      const [, timings] = yield* timed(outer, "x")
      assert.deepStrictEqual(timings, {
        pipeline: "outer",
        ending: "Success",
        elapsedMillis: 5_401,
        stages: [
          {
            ...bare,
            stage: "bare",
            index: 0,
            elapsedMillis: 1,
            nested: {
              pipeline: "single",
              ending: "Success",
              elapsedMillis: 1,
              stages: [{ ...bare, stage: "wait", index: 0, elapsedMillis: 1 }]
            }
          },
          {
            ...bare,
            stage: "retried",
            index: 1,
            elapsedMillis: 5_400,
            attempts: 2,
            nested: {
              pipeline: "inner",
              ending: "Success",
              elapsedMillis: 300,
              stages: [
                { ...bare, stage: "wait", index: 0, elapsedMillis: 100 },
                { ...bare, stage: "ask", index: 1, elapsedMillis: 200 }
              ]
            }
          }
        ]
      })
    }))

  it.effect("a stage interrupted by an outer timeout ends as Interrupted", () =>
    Effect.gen(function*() {
      const inner = Pipeline.make<string>("inner").pipe(
        Pipeline.stage("wait", (): Effect.Effect<string> => Effect.never)
      )
      const outer = Pipeline.make<string>("outer").pipe(Pipeline.stage("inner", inner, { timeout: "1 second" }))
      const [exit, { stages: [stage] }] = yield* timed(outer, "x")
      assert.isTrue(Exit.hasFails(exit))
      assert.deepStrictEqual([stage?.ending, stage?.timeouts], ["Failure", 1])
      assert.deepStrictEqual(stage?.nested, {
        pipeline: "inner",
        ending: "Interrupted",
        elapsedMillis: 1_000,
        stages: [{ ...bare, stage: "wait", index: 0, ending: "Interrupted", elapsedMillis: 1_000 }]
      })
    }))

  for (
    const [what, die] of [["dies", () => Effect.die("bug")], ["throws", () => {
      throw new Error("bug")
    }]] as const
  ) {
    it.effect(`a stage that ${what} ends as a Defect, with the same cause as without timings`, () =>
      Effect.gen(function*() {
        const pipeline = Pipeline.make<string>("p").pipe(Pipeline.stage("ask", (_): Effect.Effect<string> => die()))
        const [exit, timings] = yield* timed(pipeline, "x")
        assert.isTrue(Exit.hasDies(exit))
        assert.strictEqual(timings.stages[0]?.ending, "Defect")
        assert.strictEqual(timings.ending, "Defect")
        const cause = yield* Effect.flip(Effect.sandbox(pipeline("x")))
        assert.deepStrictEqual(
          Exit.isFailure(exit) && Pipeline.failedStage(exit.cause),
          Pipeline.failedStage(cause)
        )
      }))
  }

  it.effect("withTimings is interrupted with its run", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(Pipeline.stage("ask", () => Effect.never))
      const fiber = yield* Effect.forkChild(Pipeline.withTimings(pipeline)("x"), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      const exit = yield* Fiber.await(fiber)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
    }))

  it.effect("timings start anew with each run", () =>
    Effect.gen(function*() {
      const run = Pipeline.withTimings(
        Pipeline.make<string>("p").pipe(Pipeline.stage("ask", (text) => Effect.succeed(text)))
      )("x")
      yield* run
      const [, timings] = yield* run
      assert.deepStrictEqual(timings.stages, [{ ...bare, stage: "ask", index: 0, elapsedMillis: 0 }])
    }))

  it.effect("timings contain no input and no error", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", (text) => Effect.fail({ message: text }), {
          recover: (error) => Effect.fail(error.message)
        })
      )
      const [, timings] = yield* timed(pipeline, "canary")
      assert.notInclude(JSON.stringify(timings), "canary")
    }))

  it.effect("a pipeline without timings does not read the clock", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      let reads = 0
      const counting: Clock.Clock = {
        ...clock,
        monotonicTimeNanosUnsafe: () => (reads++, clock.monotonicTimeNanosUnsafe()),
        currentTimeNanosUnsafe: () => (reads++, clock.currentTimeNanosUnsafe()),
        currentTimeMillisUnsafe: () => (reads++, clock.currentTimeMillisUnsafe())
      }
      const pipeline = Pipeline.make<string>("p").pipe(Pipeline.stage("ask", (text) => Effect.sync(() => text)))
      yield* Effect.provideService(pipeline("x"), Clock.Clock, counting)
      assert.strictEqual(reads, 0)
      yield* Effect.provideService(Pipeline.withTimings(pipeline)("x"), Clock.Clock, counting)
      assert.isAbove(reads, 0)
    }))
})
