import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Metric, Stream } from "effect"
import { AiError, Response } from "effect/ai"
import { TestClock } from "effect/testing"
import * as AiRejection from "@sluice/ai/AiRejection"
import { Attempt } from "../src/internal/telemetry/attempt.ts"
import * as ErrorType from "../src/internal/telemetry/errorType.ts"
import { Histogram } from "../src/internal/telemetry/histogram.ts"
import type { Operation } from "../src/internal/telemetry/operation.ts"
import {
  attributesOf,
  collectMetrics,
  exitOf,
  failure,
  lengthOf,
  makeTracer,
  metricsOf,
  spanText
} from "./support/telemetry.ts"

const place = { provider: "acme", model: "m1", target: "first" }
const operation: Operation = { name: "chat", place, attempt: 2, streams: true }

const part = (delta: string): Response.AnyPart => Response.makePart("text-delta", { id: "1", delta })
const finish = Response.makePart("finish", {
  reason: "stop",
  response: undefined,
  usage: new Response.Usage({
    inputTokens: { uncached: undefined, total: undefined, cacheRead: undefined, cacheWrite: undefined },
    outputTokens: { total: 3, text: undefined, reasoning: undefined }
  })
})

const idle = AiRejection.toAiError(
  new AiRejection.IdleTimeout({ target: "first", limit: Duration.seconds(1), parts: 1 }),
  "streamText"
)

describe("Attempt telemetry", () => {
  it.effect("an attempt that is settled from outside ignores what its stream does later", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const metrics = yield* collectMetrics(
        Effect.gen(function*() {
          const attempt = new Attempt(operation)
          const silent = Stream.concat(Stream.make(part("a")), Stream.never)
          const fiber = yield* Effect.forkChild(Stream.runDrain(attempt.stream(silent)))
          yield* TestClock.adjust(1000)
          attempt.settle(Exit.fail(idle))
          yield* TestClock.adjust(1000)
          yield* Fiber.interrupt(fiber)
        }).pipe(Effect.provide(layer))
      )
      assert.strictEqual(attributesOf(spans[0])["error.type"], "IdleTimeout")
      assert.strictEqual(attributesOf(spans[0])["sluice.attempt"], 2)
      assert.strictEqual(lengthOf(spans[0]), 1000)
      const durations = metricsOf(metrics, "gen_ai.client.operation.duration")
      assert.strictEqual(durations.length, 1)
      assert.strictEqual(durations[0]?.attributes["error.type"], "IdleTimeout")
      assert.strictEqual(durations[0]?.state.count, 1)
    }))

  it.effect("an attempt that never began records no metric and no span", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const metrics = yield* collectMetrics(
        Effect.sync(() => new Attempt(operation).settle(Exit.fail(idle))).pipe(Effect.provide(layer))
      )
      assert.deepStrictEqual([metrics.length, spans.length], [0, 0])
    }))

  it.effect("parts that arrive together count as output chunks with no time between them", () =>
    Effect.gen(function*() {
      const chunks = Stream.fromIterable([["a", "b", "c"], ["d", "e"]]).pipe(
        Stream.mapEffect((texts) => Effect.as(Effect.sleep(100), texts.map(part))),
        Stream.flattenIterable,
        Stream.concat(Stream.make<[Response.AnyPart]>(finish))
      )
      const metrics = yield* collectMetrics(Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(Stream.runDrain(new Attempt(operation).stream(chunks)))
        yield* TestClock.adjust(200)
        yield* Fiber.join(fiber)
      }))
      const [between] = metricsOf(metrics, "gen_ai.client.operation.time_per_output_chunk")
      assert.deepStrictEqual({ ...between?.state, buckets: [] }, { buckets: [], count: 4, sum: 0.1, min: 0, max: 0.1 })
      // A token count that the provider does not report is not recorded as 0.
      assert.deepStrictEqual(
        metricsOf(metrics, "gen_ai.client.token.usage").map(({ attributes }) => attributes["gen_ai.token.type"]),
        ["output"]
      )
    }))

  it.effect("an attempt ends with its finish part and ignores what follows", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const after = [Stream.empty, Stream.fail("late"), Stream.never]
      for (const more of after) {
        const run = Stream.runDrain(new Attempt(operation).stream(Stream.concat(Stream.make(part("a"), finish), more)))
        const fiber = yield* Effect.forkChild(Effect.exit(run).pipe(Effect.provide(layer)))
        yield* TestClock.adjust(5000)
        yield* Fiber.interrupt(fiber)
      }
      assert.deepStrictEqual(spans.map((span) => attributesOf(span)["error.type"]), [undefined, undefined, undefined])
      assert.deepStrictEqual(spans.map(lengthOf), [0, 0, 0])
      assert.isTrue(spans.every((span) => exitOf(span)?._tag === "Success"))
    }))

  it.effect("an embedding records input tokens only", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const attempt = new Attempt({ name: "embeddings", place, attempt: 1, streams: false })
      const embed = attempt.effect(Effect.succeed({ tokens: 12 }), ({ tokens }) =>
        attempt.answered({ inputTokens: tokens }))
      const metrics = yield* collectMetrics(Effect.provide(embed, layer))
      assert.deepStrictEqual(
        spans.map(({ name }) =>
          name
        ),
        ["embeddings m1"]
      )
      assert.deepStrictEqual(
        metrics.map(({ attributes, id, state }) => [id, attributes["gen_ai.operation.name"], state.sum]),
        [["gen_ai.client.operation.duration", "embeddings", 0], ["gen_ai.client.token.usage", "embeddings", 12]]
      )
      assert.notProperty(attributesOf(spans[0]), "gen_ai.request.stream")
    }))

  it.effect("an attempt that is interrupted at any point ends its span once", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const work = Effect.forEach([1, 2, 3], () => Effect.yieldNow)
      let counted = 0
      for (let yields = 0; yields < 12; yields++) {
        const metrics = yield* collectMetrics(
          Effect.gen(function*() {
            const attempt = new Attempt(operation)
            const effect = attempt.effect(work, () => {})
            const streamed = new Attempt(operation).stream(Stream.fromEffect(Effect.as(work, part("a"))))
            const fibers = [yield* Effect.forkChild(effect), yield* Effect.forkChild(Stream.runDrain(streamed))]
            for (let n = 0; n < yields; n++) yield* Effect.yieldNow
            yield* Fiber.interruptAll(fibers)
          }).pipe(Effect.provide(layer))
        )
        counted += metricsOf(metrics, "gen_ai.client.operation.duration").reduce(
          (sum, { state }) => sum + state.count,
          0
        )
      }
      assert.isTrue(spans.every((span) => span.status._tag === "Ended"))
      assert.strictEqual(spans.length, counted)
      assert.isAbove(counted, 12)
    }))

  it.effect("attempts with equal labels share a series, and each registry has its own", () =>
    Effect.gen(function*() {
      const once = Effect.suspend(() =>
        new Attempt({ ...operation, place: { ...place } }).effect(Effect.void, () => {})
      )
      const [first, second] = [yield* collectMetrics(Effect.andThen(once, once)), yield* collectMetrics(once)]
      assert.deepStrictEqual([first, second].map((metrics) => metrics.map(({ state }) => state.count)), [[2], [1]])
    }))

  it.effect("a metric has a unit and a description", () =>
    Effect.gen(function*() {
      const run = new Attempt(operation).effect(Effect.void, () => {})
      const [metric] = yield* Effect.andThen(run, Metric.snapshot).pipe(
        Effect.provideService(Metric.MetricRegistry, new Map())
      )
      assert.strictEqual(metric?.attributes?.["unit"], "s")
      assert.strictEqual(metric?.description, "How long an operation took")
    }))
})

describe("error.type", () => {
  it("error.type has a fixed vocabulary", () => {
    assert.strictEqual(ErrorType.vocabulary.size, 2 + AiRejection.Rejection.members.length + 19)
    assert.isTrue([...ErrorType.vocabulary].every((type) => /^[A-Z][A-Za-z]+$/.test(type)))
  })

  it("error.type is the tag of the rejection or else of the reason, the tag of a known error, or _OTHER", () => {
    const cases: ReadonlyArray<readonly [unknown, string]> = [
      [idle, "IdleTimeout"],
      [failure(new AiError.RateLimitError({})), "RateLimitError"],
      [new Cause.TimeoutError(), "TimeoutError"],
      [{ _tag: "the words of a user" }, "_OTHER"],
      [new Error("the words of a user"), "_OTHER"],
      [null, "_OTHER"],
      [{ _tag: "__proto__" }, "_OTHER"]
    ]
    for (const [error, type] of cases) assert.strictEqual(ErrorType.fromCause(Cause.fail(error)), type)
    assert.strictEqual(ErrorType.fromCause(Cause.interrupt(1)), "Interrupted")
    assert.strictEqual(ErrorType.fromCause(Cause.combine(Cause.fail(idle), Cause.die("a"))), "_OTHER")
  })

  it.effect("a span shows the error.type of an error and nothing else", () =>
    Effect.gen(function*() {
      const { layer, spans } = makeTracer()
      const failing = Effect.fail(failure(new AiError.InvalidRequestError({ description: "the words of a user" })))
      yield* Effect.exit(new Attempt(operation).effect(failing, () => {})).pipe(Effect.provide(layer))
      const exit = exitOf(spans[0])
      const errors = exit !== undefined && Exit.isFailure(exit) ? Cause.prettyErrors(exit.cause) : []
      assert.deepStrictEqual(errors.map(({ message, name }) => [name, message]), [
        ["InvalidRequestError", "InvalidRequestError"]
      ])
      assert.notInclude(`${errors[0]?.stack} ${spanText(spans)}`, "the words of a user")
    }))
})

describe("Histogram", () => {
  it("a histogram has the same state as Effect's", () => {
    const boundaries = [1, 2, 5]
    const values = [0, 1, 1.5, 2, 3, 5, 6, 100]
    const context = new Map()
    const effects = Metric.histogram("h", { boundaries })
    const whole = new Histogram(boundaries)
    const halves = [new Histogram(boundaries), new Histogram(boundaries)] as const
    Effect.runSync(
      Effect.forEach(values, (value, index) => {
        whole.add(value)
        halves[index % 2 === 0 ? 0 : 1].add(value)
        return Metric.update(effects, value)
      }).pipe(Effect.provideService(Metric.MetricRegistry, context))
    )
    halves[0].addAll(halves[1])
    halves[0].addAll(new Histogram(boundaries))
    const expected = Effect.runSync(Effect.provideService(Metric.value(effects), Metric.MetricRegistry, context))
    assert.deepStrictEqual(whole.state, expected)
    assert.deepStrictEqual(halves[0].state, expected)
  })
})
