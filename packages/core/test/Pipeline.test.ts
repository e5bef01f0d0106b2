import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Duration, Effect, Exit, Fiber, Option, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as Pipeline from "../src/Pipeline.ts"
import * as RetryPolicy from "../src/RetryPolicy.ts"

class Db extends Context.Service<Db, { readonly ask: (text: string) => Effect.Effect<string, "db"> }>()("test/Db") {}

const trim = Pipeline.stage("trim", (text: string) => Effect.succeed(text.trim()))
const upper = Pipeline.stage("upper", (text: string) => Effect.succeed(text.toUpperCase()))
const failing = Pipeline.stage("fail", (_: string) => Effect.fail("boom" as const))

const failedStage = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.map(
    Effect.exit(self),
    (exit) => Option.getOrUndefined(Option.flatMap(Exit.getCause(exit), Pipeline.failedStage))
  )

describe("Pipeline", () => {
  describe("running", () => {
    it.effect("stages run in order, each with the result of the one before", () =>
      Effect.gen(function*() {
        const shout = Pipeline.make<string>("shout").pipe(
          trim,
          upper,
          Pipeline.stage("length", (text) => Effect.succeed([text, text.length] as const))
        )
        assert.deepStrictEqual(yield* shout("  hello "), ["HELLO", 5])
        assert.deepStrictEqual(yield* Pipeline.run(shout, "  hello "), ["HELLO", 5])
        assert.deepStrictEqual(yield* shout.pipe(Pipeline.run("  hello ")), ["HELLO", 5])
      }))

    it.effect("a pipeline without stages returns its input", () =>
      Effect.gen(function*() {
        const input = { text: "hello" }
        assert.strictEqual(yield* Pipeline.make<typeof input>("empty")(input), input)
      }))

    it.effect("a pipeline stops at the stage that fails", () =>
      Effect.gen(function*() {
        let later = 0
        const pipeline = Pipeline.make<string>("short").pipe(
          trim,
          failing,
          Pipeline.stage("later", () => Effect.sync(() => later++))
        )
        assert.strictEqual(yield* Effect.flip(pipeline("x")), "boom")
        assert.strictEqual(later, 0)
      }))

    it.effect("stage functions are called when the pipeline runs, anew each time", () =>
      Effect.gen(function*() {
        let calls = 0
        const call = Pipeline.make<string>("lazy").pipe(
          Pipeline.stage("count", () => {
            calls++
            return Effect.void
          })
        )("x")
        assert.strictEqual(calls, 0)
        yield* call
        yield* call
        assert.strictEqual(calls, 2)
      }))

    it.effect("adding a stage does not change the pipeline it extends", () =>
      Effect.gen(function*() {
        const short = Pipeline.make<string>("base").pipe(trim)
        const long = short.pipe(upper)
        assert.strictEqual(yield* short(" a "), "a")
        assert.strictEqual(yield* long(" a "), "A")
      }))

    it.effect("a pipeline requires the services of its stages", () =>
      Effect.gen(function*() {
        const pipeline = Pipeline.make<string>("needy").pipe(
          Pipeline.stage("ask", (text) => Db.use((db) => db.ask(text))),
          upper
        )
        const answer = yield* pipeline("why").pipe(
          Effect.provideService(Db, { ask: (text) => Effect.succeed(`${text}?`) })
        )
        assert.strictEqual(answer, "WHY?")
      }))

    it.effect("a thousand stages, a thousand pipelines deep, do not overflow the stack", () =>
      Effect.gen(function*() {
        let pipeline = Pipeline.make<number>("long")
        for (let n = 0; n < 1_000; n++) {
          pipeline = pipeline.pipe(Pipeline.stage(`add ${n}`, (value: number) => Effect.succeed(value + 1)))
        }
        for (let depth = 0; depth < 1_000; depth++) {
          pipeline = Pipeline.make<number>(`depth ${depth}`).pipe(Pipeline.stage("inner", pipeline))
        }
        assert.strictEqual(yield* pipeline(0), 1_000)
      }))
  })

  describe("nesting", () => {
    it.effect("a pipeline can be a stage", () =>
      Effect.gen(function*() {
        const inner = Pipeline.make<string>("inner").pipe(trim, upper)
        const outer = Pipeline.make<number>("outer").pipe(
          Pipeline.stage("text", (n) => Effect.succeed(` n${n} `)),
          Pipeline.stage("inner", inner)
        )
        assert.strictEqual(yield* outer(7), "N7")
      }))

    it("stageCount counts a nested pipeline as one stage", () => {
      const inner = Pipeline.make<string>("inner").pipe(trim, upper)
      const outer = Pipeline.make<string>("outer").pipe(Pipeline.stage("inner", inner), trim)
      assert.strictEqual(Pipeline.stageCount(Pipeline.make<string>("empty")), 0)
      assert.strictEqual(Pipeline.stageCount(inner), 2)
      assert.strictEqual(Pipeline.stageCount(outer), 2)
    })

    it("describe lists names, timeouts, attempts and nested stages", () => {
      const inner = Pipeline.make<string>("inner").pipe(trim, upper)
      const outer = Pipeline.make<string>("outer").pipe(
        trim,
        Pipeline.stage("clean", inner, { timeout: "30 seconds" }),
        Pipeline.stage("ask", Effect.succeed<string>, { timeout: "1 second", retry: RetryPolicy.exponential() }),
        Pipeline.stage("store", Effect.succeed<string>, { retry: RetryPolicy.constant({ maxAttempts: 5 }) })
      )
      assert.deepStrictEqual(Pipeline.describe(outer), [
        "outer",
        "  1. trim",
        "  2. clean (30s)",
        "    1. trim",
        "    2. upper",
        "  3. ask (1s, 3 attempts)",
        "  4. store (5 attempts)"
      ])
      assert.strictEqual(outer.name, "outer")
    })

    it("isPipeline distinguishes a pipeline from a function", () => {
      assert.isTrue(Pipeline.isPipeline(Pipeline.make<string>("p").pipe(trim)))
      assert.isFalse(Pipeline.isPipeline((text: string) => Effect.succeed(text)))
      assert.isFalse(Pipeline.isPipeline(undefined))
    })

    it.effect("stages of the same name are numbered", () =>
      Effect.gen(function*() {
        const ask = Pipeline.stage("ask", (text: string) => Effect.succeed(text))
        const taken = Pipeline.stage("ask#3", (text: string) => Effect.succeed(text))
        const last = Pipeline.stage("ask", (_: string) => Effect.fail("last"))
        const pipeline = Pipeline.make<string>("twice").pipe(ask, ask, taken, last)
        assert.deepStrictEqual(pipeline.stages.map((stage) => stage.name), ["ask", "ask#2", "ask#3", "ask#4"])
        assert.deepStrictEqual(yield* failedStage(pipeline("x")), {
          pipeline: "twice",
          stage: "ask#4",
          index: 3,
          during: "Run"
        })
      }))
  })

  describe("failedStage", () => {
    for (const [index, name] of ["a", "b", "c"].entries()) {
      it.effect(`failedStage names stage ${name} when it fails`, () =>
        Effect.gen(function*() {
          const at = (position: number) => (text: string) =>
            position === index ? Effect.fail("boom") : Effect.succeed(text)
          const pipeline = Pipeline.make<string>("p").pipe(
            Pipeline.stage("a", at(0)),
            Pipeline.stage("b", at(1)),
            Pipeline.stage("c", at(2))
          )
          assert.deepStrictEqual(yield* failedStage(pipeline("x")), {
            pipeline: "p",
            stage: name,
            index,
            during: "Run"
          })
        }))
    }

    it.effect("failedStage names the innermost of nested pipelines", () =>
      Effect.gen(function*() {
        const inner = Pipeline.make<string>("inner").pipe(trim, failing)
        const outer = Pipeline.make<string>("outer").pipe(upper, upper, Pipeline.stage("nested", inner))
        assert.deepStrictEqual(yield* failedStage(outer("x")), {
          pipeline: "inner",
          stage: "fail",
          index: 1,
          during: "Run"
        })
      }))

    it.effect("failedStage keeps the error and the other annotations of the cause", () =>
      Effect.gen(function*() {
        const error = new Error("the very same")
        const pipeline = Pipeline.make<string>("p").pipe(
          Pipeline.stage("ask", () => Effect.fail(error), {
            retry: RetryPolicy.constant({ maxAttempts: 1 })
          })
        )
        const cause = yield* Effect.flip(Effect.sandbox(pipeline("x")))
        assert.strictEqual(Option.getOrUndefined(Cause.findErrorOption(cause)), error)
        assert.deepStrictEqual(Option.getOrUndefined(RetryPolicy.stopped(cause)), { why: "Attempts", attempts: 1 })
        assert.strictEqual(Option.getOrUndefined(Pipeline.failedStage(cause))?.stage, "ask")
      }))

    it.effect("failedStage does not mark the error for other runs that fail with it", () =>
      Effect.gen(function*() {
        const error = new Error("shared")
        const fails = (name: string) =>
          Pipeline.make<string>(name).pipe(Pipeline.stage("ask", () => Effect.fail(error)))
        assert.strictEqual((yield* failedStage(fails("a")("x")))?.pipeline, "a")
        assert.strictEqual((yield* failedStage(fails("b")("x")))?.pipeline, "b")
        assert.isUndefined(yield* failedStage(Effect.fail(error)))
      }))

    it.effect("failedStage names the stage of a defect", () =>
      Effect.gen(function*() {
        const dies = Pipeline.make<string>("p").pipe(trim, Pipeline.stage("die", () => Effect.die("bug")))
        const exit = yield* Effect.exit(dies("x"))
        assert.isTrue(Exit.hasDies(exit) && !Exit.hasFails(exit))
        assert.deepStrictEqual(yield* failedStage(dies("x")), {
          pipeline: "p",
          stage: "die",
          index: 1,
          during: "Run"
        })
      }))

    for (const position of ["first", "last"] as const) {
      it.effect(`a ${position} stage function that throws is a defect of that stage`, () =>
        Effect.gen(function*() {
          const throws = Pipeline.stage("throw", (_: string): Effect.Effect<string> => {
            throw new Error("bug")
          })
          const base = Pipeline.make<string>("p")
          const pipeline = position === "first" ? base.pipe(throws, trim) : base.pipe(trim, throws)
          const exit = yield* Effect.exit(pipeline("x"))
          assert.isTrue(Exit.hasDies(exit))
          assert.strictEqual((yield* failedStage(pipeline("x")))?.stage, "throw")
        }))
    }

    it.effect("failedStage is none for an interruption", () =>
      Effect.gen(function*() {
        const pipeline = Pipeline.make<string>("p").pipe(Pipeline.stage("wait", () => Effect.never))
        const fiber = yield* Effect.forkChild(pipeline("x"), { startImmediately: true })
        yield* Fiber.interrupt(fiber)
        const exit = yield* Fiber.await(fiber)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        assert.isUndefined(yield* failedStage(exit))

        const own = Pipeline.make<string>("p").pipe(Pipeline.stage("stop", () => Effect.interrupt))
        assert.isUndefined(yield* failedStage(own("x")))
      }))

    it.effect("failedStage is none for a cause that a catch has replaced", () =>
      Effect.gen(function*() {
        const pipeline = Pipeline.make<string>("p").pipe(failing)
        assert.strictEqual((yield* failedStage(pipeline("x")))?.stage, "fail")
        assert.isUndefined(yield* failedStage(pipeline("x").pipe(Effect.catch(() => Effect.fail("another")))))
      }))
  })

  describe("timeout and retry of a stage", () => {
    it.effect("a timeout interrupts the attempt and fails with the stage and the time", () =>
      Effect.gen(function*() {
        let interrupted = false
        const pipeline = Pipeline.make<string>("p").pipe(
          trim,
          Pipeline.stage(
            "ask",
            () =>
              Effect.onInterrupt(Effect.never, () =>
                Effect.sync(() => {
                  interrupted = true
                })),
            { timeout: "2 seconds" }
          )
        )
        const fiber = yield* Effect.forkChild(Effect.exit(pipeline("x")), { startImmediately: true })
        yield* TestClock.adjust("1999 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        const exit = yield* Fiber.join(fiber)
        assert.isTrue(interrupted)
        const cause = Option.getOrThrow(Exit.getCause(exit))
        const error = Option.getOrThrow(Cause.findErrorOption(cause))
        assert.strictEqual(error._tag, "StageTimeout")
        assert.deepStrictEqual([error.pipeline, error.stage, Duration.toMillis(error.after)], ["p", "ask", 2_000])
        assert.strictEqual(error.message, "p: stage ask did not answer within 2s")
        assert.deepStrictEqual(Option.getOrUndefined(Pipeline.failedStage(cause)), {
          pipeline: "p",
          stage: "ask",
          index: 1,
          during: "Run"
        })
      }))

    it.effect("a stage that ends in time is not affected by its timeout", () =>
      Effect.gen(function*() {
        const pipeline = Pipeline.make<string>("p").pipe(
          Pipeline.stage("ask", (text) => Effect.delay(Effect.succeed(text), "1 second"), { timeout: "2 seconds" })
        )
        const fiber = yield* Effect.forkChild(pipeline("x"), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(fiber), "x")
      }))

    it.effect("each attempt has the whole timeout, and a timeout is retried", () =>
      Effect.gen(function*() {
        let calls = 0
        const pipeline = Pipeline.make<string>("p").pipe(
          Pipeline.stage("ask", (text) => ++calls < 3 ? Effect.never : Effect.succeed(text), {
            timeout: "2 seconds",
            retry: RetryPolicy.constant({ baseDelay: "1 second", jitter: "none" })
          })
        )
        const fiber = yield* Effect.forkChild(pipeline("x"), { startImmediately: true })
        yield* TestClock.adjust("5999 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* Fiber.join(fiber), "x")
        assert.strictEqual(calls, 3)
      }))

    it.effect("a retry repeats its own stage and none before it", () =>
      Effect.gen(function*() {
        const calls: Array<string> = []
        const pipeline = Pipeline.make<string>("p").pipe(
          Pipeline.stage("before", (text) => Effect.sync(() => (calls.push("before"), text))),
          Pipeline.stage(
            "ask",
            (text) => (calls.push("ask"), calls.length < 4 ? Effect.fail("busy") : Effect.succeed(text)),
            {
              retry: RetryPolicy.constant({ baseDelay: "1 second", jitter: "none" })
            }
          )
        )
        const fiber = yield* Effect.forkChild(pipeline("x"), { startImmediately: true })
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* Fiber.join(fiber), "x")
        assert.deepStrictEqual(calls, ["before", "ask", "ask", "ask"])
      }))

    it.effect("StageTimeout survives encoding and decoding", () =>
      Effect.gen(function*() {
        const error = new Pipeline.StageTimeout({ pipeline: "p", stage: "ask", after: Duration.seconds(2) })
        const json = yield* Schema.encodeEffect(Pipeline.StageTimeout)(error)
        assert.deepStrictEqual(json, { _tag: "StageTimeout", pipeline: "p", stage: "ask", after: 2_000 })
        const back = yield* Schema.decodeEffect(Pipeline.StageTimeout)(json)
        assert.strictEqual(back.message, error.message)
      }))
  })
})
