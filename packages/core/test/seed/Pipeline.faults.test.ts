import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Pipeline from "@sluice/core/Pipeline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe } from "@effect/vitest"
import { Cause, Clock, Effect, Exit, Layer, Option, Tracer } from "effect"
import { timed } from "../support/effects.ts"
import { countRuns, fault } from "./fault.ts"
import {
  SeedBackpressureGuard,
  SeedCircuitBreaker,
  type SeedError,
  seedFailure,
  seedGuarded,
  seedOk,
  SeedPipeline,
  seedRetryLoop,
  SeedRetryPolicy,
  unwrap
} from "./port.ts"

describe("faults of the seed: Pipeline", () => {
  fault("P1", "stages are typed and can wait, while other fibers run", {
    wanted: { result: 4, othersRanMeanwhile: true },
    ours: Effect.gen(function*() {
      let others = false
      const double = Pipeline.make<{ readonly n: number }>("double").pipe(
        Pipeline.stage("read", ({ n }) => Effect.delay(Effect.succeed(n), "1 second")),
        Pipeline.stage("double", (n) => Effect.succeed({ result: n * 2, othersRanMeanwhile: others }))
      )
      yield* Effect.forkChild(Effect.sync(() => {
        others = true
      }))
      const [exit] = yield* timed(double({ n: 2 }))
      return yield* exit
    }),
    faulty: { result: "4", othersRanMeanwhile: false },
    seed: Effect.gen(function*() {
      let others = false
      const double = new SeedPipeline()
        .addStage("read", (text) => seedOk(String((JSON.parse(text) as { readonly n: number }).n)))
        .addStage("double", (n) => seedOk(String(Number(n) * 2)))
      yield* Effect.forkChild(Effect.sync(() => {
        others = true
      }))
      const result = unwrap(double.run(JSON.stringify({ n: 2 })))
      return { result, othersRanMeanwhile: others }
    })
  })

  fault("P2", "a failure names its stage", {
    wanted: { error: "boom", stage: "ask" },
    ours: Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("trim", (text) => Effect.succeed(text.trim())),
        Pipeline.stage("ask", () => Effect.fail("boom"))
      )
      const cause = yield* Effect.flip(Effect.sandbox(pipeline("hello")))
      return {
        error: Option.getOrUndefined(Cause.findErrorOption(cause)),
        stage: Option.getOrUndefined(Pipeline.failedStage(cause))?.stage
      }
    }),
    faulty: { error: "boom", stage: undefined },
    seed: Effect.sync(() => {
      const pipeline = new SeedPipeline()
        .addStage("trim", (text) => seedOk(text.trim()))
        .addStage("ask", () => seedFailure("boom"))
      const result = pipeline.run("hello")
      if (result.ok || result.error._tag !== "Orchestration") return result
      return { error: result.error.message, stage: JSON.stringify(result.error).includes("ask") ? "ask" : undefined }
    })
  })

  /** The number of spans that contain the text. */
  const spansWith = (text: string, run: Effect.Effect<unknown, unknown>) =>
    Effect.gen(function*() {
      const spans: Array<Tracer.NativeSpan> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        }
      })
      yield* run.pipe(Effect.withSpan("the caller's"), Effect.provideService(Tracer.Tracer, tracer))
      assert.isAbove(spans.length, 0)
      return spans.filter((span) => JSON.stringify([span.name, [...span.attributes]]).includes(text)).length
    })

  fault("P3", "no prompt gets into a span", {
    wanted: 0,
    ours: spansWith("Ada", Pipeline.make<string>("p").pipe(Pipeline.stage("ask", Effect.succeed))("my name is Ada")),
    faulty: 1,
    seed: spansWith("Ada", new SeedPipeline().addStage("ask", seedOk).runTraced("my name is Ada"))
  })

  const bug = (): never => {
    throw new Error("a bug")
  }

  fault("P4", "a stage that throws is a defect that names its stage, and nothing is thrown at the caller", {
    wanted: "a defect of stage ask",
    ours: Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(Pipeline.stage("ask", (): Effect.Effect<string> => bug()))
      const running = pipeline("hello")
      const cause = yield* Effect.flip(Effect.sandbox(running))
      return Cause.hasDies(cause)
        ? `a defect of stage ${Option.getOrThrow(Pipeline.failedStage(cause)).stage}`
        : "no defect"
    }),
    faulty: "thrown at the caller",
    seed: Effect.sync(() => {
      try {
        new SeedPipeline().addStage("ask", bug).run("hello")
        return "no defect"
      } catch {
        return "thrown at the caller"
      }
    })
  })

  fault("P5", "a stage can have its own timeout and retry, and its name is unique", {
    wanted: { flaky: "an answer", timedOutAfterMillis: 1_000, names: ["ask", "ask#2"] },
    ours: Effect.gen(function*() {
      const { counting, runs } = countRuns()
      const flaky = Effect.suspend(() => runs() < 2 ? Effect.fail("503") : Effect.succeed("an answer"))
      const retried = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", () => counting(flaky), { retry: RetryPolicy.constant({ baseDelay: "1 millis" }) })
      )
      const [answer] = yield* timed(retried("hello"))
      const bounded = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", () => Effect.sleep("10 seconds"), { timeout: "1 second" })
      )
      const [_, timedOutAfterMillis] = yield* timed(bounded("hello"))
      const twice = Pipeline.make<string>("p").pipe(
        Pipeline.stage("ask", Effect.succeed),
        Pipeline.stage("ask", Effect.succeed)
      )
      return { flaky: yield* answer, timedOutAfterMillis, names: twice.stages.map((stage) => stage.name) }
    }),
    faulty: { flaky: "503", timedOutAfterMillis: 10_000, names: ["ask", "ask"] },
    seed: Effect.sync(() => {
      let calls = 0
      const flaky = new SeedPipeline()
        .addStage("ask", () => ++calls < 2 ? seedFailure("503") : seedOk("an answer"))
        .run("hello")
      // A handler that waits blocks its thread and cannot be interrupted. Here it counts the time instead.
      let blockedMillis = 0
      new SeedPipeline()
        .addStage("ask", (text) => {
          blockedMillis += 10_000
          return seedOk(text)
        })
        .run("hello")
      const twice = new SeedPipeline().addStage("ask", seedOk).addStage("ask", seedOk)
      return {
        flaky: !flaky.ok && flaky.error._tag === "Orchestration" ? flaky.error.message : "an answer",
        timedOutAfterMillis: blockedMillis,
        names: twice.stages.map((stage) => stage.name)
      }
    })
  })

  fault("P6", "a stage runs under one policy, which neither waits for an open circuit nor loses a permit", {
    wanted: { endedAfterMillis: 0, calls: 1, otherKeyIsServed: true },
    ours: Effect.gen(function*() {
      const gpt = yield* Sluice.make({
        name: "gpt",
        retry: RetryPolicy.exponential({ baseDelay: 100, jitter: "none" }),
        breaker: { trip: CircuitBreaker.consecutive(1), openFor: "1 hour" },
        backpressure: { capacity: 1 }
      })
      const { counting, runs } = countRuns()
      const ask = (key: string, call: Effect.Effect<string, string>) =>
        Pipeline.make<string>("p").pipe(Pipeline.stage("ask", () => gpt.protect(call, { key })))("hello")
      const [_, endedAfterMillis] = yield* timed(ask("openai", counting(Effect.fail("503"))))
      const other = yield* ask("anthropic", Effect.succeed("an answer")).pipe(Effect.exit)
      return { endedAfterMillis, calls: runs(), otherKeyIsServed: Exit.isSuccess(other) }
    }).pipe(Effect.provide(Layer.fresh(CircuitBreakerStore.layerMemory))),
    faulty: { endedAfterMillis: 300, calls: 1, otherKeyIsServed: false },
    // As in the seed's example: acquire, retry every failure around the breaker, release before returning.
    seed: Effect.gen(function*() {
      const breaker = unwrap(SeedCircuitBreaker.make("openai", 1, 3_600_000, yield* Clock.Clock))
      const guard = unwrap(SeedBackpressureGuard.make(1))
      const policy = unwrap(SeedRetryPolicy.exponential(3, 100))
      const { counting, runs } = countRuns()
      const ask = (call: Effect.Effect<string, string>): Effect.Effect<string, SeedError> =>
        seedGuarded(guard, seedRetryLoop(policy, breaker.call(call)))
      const [_, endedAfterMillis] = yield* timed(ask(counting(Effect.fail("503"))))
      const other = yield* Effect.exit(seedGuarded(guard, Effect.succeed("an answer")))
      return { endedAfterMillis, calls: runs(), otherKeyIsServed: Exit.isSuccess(other) }
    })
  })
})
