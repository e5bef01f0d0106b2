import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Duration, Effect, Exit, Fiber, Layer, Option, Result, Schema, Stream } from "effect"
import { EmbeddingModel, LanguageModel, type Model, Telemetry, Toolkit } from "effect/ai"
import { TestClock } from "effect/testing"
import * as CallLog from "@sluice/ai/CallLog"
import * as GenAiTelemetry from "@sluice/ai/GenAiTelemetry"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as ScriptedEmbedding from "@sluice/ai/testing/ScriptedEmbedding"
import * as ScriptedModel from "@sluice/ai/testing/ScriptedModel"
import * as Turn from "@sluice/ai/testing/Turn"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { atOnce, build, failed, ok, plainRetry, readAll, runFor, summaryOf, valueOf } from "./support/resilient.ts"
import { throughJson } from "./support/json.ts"
import { attributesOf, collectMetrics, makeTracer, metricsOf, parentOf } from "./support/telemetry.ts"

const scripted = ScriptedModel.layer({ turns: [ok] })

describe("invalid options of ResilientModel", () => {
  const issuesOf = (options: object) =>
    Effect.gen(function*() {
      const target = { name: "A", layer: scripted }
      // Options from an untyped source, such as a file.
      const layer = ResilientModel.layer({ targets: [target], ...options } as never) as unknown as Layer.Layer<
        LanguageModel.LanguageModel,
        InvalidOptions
      >
      const result = yield* Effect.result(Effect.scoped(Layer.build(layer)))
      if (Result.isSuccess(result)) return assert.fail(`accepted: ${JSON.stringify(options)}`)
      const invalid = result.failure
      assert.strictEqual(invalid.module, "ResilientModel")
      return invalid.issues.map(({ option }) => option)
    })

  const invalidOptions: ReadonlyArray<readonly [object, ...ReadonlyArray<string>]> = [
    [{ name: "" }, "name"],
    [{ name: 3 }, "name"],
    [{ retry: null }, "retry"],
    [{ retry: plainRetry({ maxAttempts: 0 }) }, "retry.maxAttempts"],
    [{ reasks: -1 }, "reasks"],
    [{ reasks: 1.5 }, "reasks"],
    [{ reasks: null }, "reasks"],
    [{ deadline: "soon" }, "deadline"],
    [{ deadline: -1 }, "deadline"],
    [{ deadline: Number.NaN }, "deadline"],
    [{ whenAllOpen: "panic" }, "whenAllOpen"],
    [{ afterOutput: "hope" }, "afterOutput"],
    [{ credentialRest: "?" }, "credentialRest"],
    [{ maxHeldParts: 0 }, "maxHeldParts"],
    [{ maxHeldBytes: "many" }, "maxHeldBytes"],
    [{ retriesHere: -1 }, "retriesHere"],
    [{ answer: "all" }, "answer"],
    [{ maxWholeBytes: 0 }, "maxWholeBytes"],
    [{ firstTokenTimeout: Duration.infinity }, "firstTokenTimeout"],
    [{ idleTimeout: "x" }, "idleTimeout"],
    [{ attemptTimeout: null }, "attemptTimeout"],
    [{ malformedEvent: "ignore" }, "malformedEvent"],
    [{ targets: [] }, "targets"],
    [{ targets: "A" }, "targets"],
    [{ retries: 3, weight: undefined }, "retries"]
  ]
  const invalidTargetOptions: typeof invalidOptions = [
    [{ name: "" }, "name"],
    [{ layer: "none" }, "layer"],
    [{ provider: 1 }, "provider"],
    [{ model: "" }, "model"],
    [{ credential: {} }, "credential"],
    [{ order: Number.NaN }, "order"],
    [{ order: "first" }, "order"],
    [{ weight: 0 }, "weight"],
    [{ weight: Number.POSITIVE_INFINITY }, "weight"],
    [{ contextTokens: -8 }, "contextTokens"],
    [{ firstTokenTimeout: "x" }, "firstTokenTimeout"],
    [{ idleTimeout: -1 }, "idleTimeout"],
    [{ attemptTimeout: "x" }, "attemptTimeout"],
    [{ malformedEvent: true }, "malformedEvent"],
    [{ prefill: "yes" }, "prefill"],
    [{ models: "gpt" }, "models"],
    [{ models: ["gpt", ""] }, "models"],
    [{ models: { fast: 1 } }, "models"],
    [{ wieght: 3 }, "wieght"],
    [{ breaker: true }, "breaker"],
    [{ breaker: null }, "breaker"],
    [{ breaker: { probes: 0 } }, "breaker.probes", "breaker.probesToClose"],
    [{ breaker: { trip: CircuitBreaker.consecutive(0) } }, "breaker.trip.failures"],
    [
      { attemptTimeout: "10 seconds", breaker: { trip: CircuitBreaker.slowCallRate({ rate: 1 }) } },
      "breaker.slowAfter"
    ],
    [{ breaker: { trip: [CircuitBreaker.slowCallRate({ rate: 1 })], slowAfter: "1 hour" } }, "breaker.slowAfter"],
    [{ backpressure: { capacity: 0 } }, "backpressure.capacity"],
    [{ backpressure: "two" }, "backpressure"],
    [{ backpressure: { capacity: 2, queue: -1 } }, "backpressure.queue"],
    [{ backpressure: { maxWait: "x" } }, "backpressure.maxWait"]
  ]

  it.effect("each invalid option is named in the error", () =>
    Effect.gen(function*() {
      for (const [options, ...expected] of invalidOptions) {
        const issues = yield* issuesOf(options)
        assert.deepStrictEqual([...new Set(issues)], expected, JSON.stringify(options))
      }
      for (const [target, ...expected] of invalidTargetOptions) {
        const issues = yield* issuesOf({ targets: [{ name: "A", layer: scripted, ...target }] })
        const paths = expected.map((option) => `targets[0].${option}`)
        assert.deepStrictEqual([...new Set(issues)], paths, JSON.stringify(target))
      }
    }))

  it.effect("all invalid options are reported together, before any target's layer is built", () =>
    Effect.gen(function*() {
      let built = 0
      const layer = Layer.effect(
        LanguageModel.LanguageModel,
        Effect.sync(() => {
          built++
          return undefined as never
        })
      )
      const issues = yield* issuesOf({
        reasks: -1,
        targets: [{ name: "A", layer, weight: -1, breaker: { probes: 0 } }, {
          name: "A",
          layer,
          backpressure: { capacity: 0 }
        }]
      })
      assert.deepStrictEqual(issues.toSorted(), [
        "reasks",
        "targets[0].breaker.probes",
        "targets[0].breaker.probesToClose",
        "targets[0].weight",
        "targets[1].backpressure.capacity",
        "targets[1].name"
      ])
      assert.strictEqual(built, 0)
    }))
})

describe("declared options of ResilientModel", () => {
  it.effect("options with a declared type are accepted by the layers", () =>
    Effect.gen(function*() {
      const options: ResilientModel.LayerOptions = { targets: [{ name: "A", layer: scripted }] }
      const embedding: ResilientModel.EmbeddingLayerOptions = {
        targets: [{ name: "A", layer: ScriptedEmbedding.layer({ turns: [ok] }) }]
      }
      const context = yield* Layer.build(
        Layer.mergeAll(ResilientModel.layer(options), ResilientModel.layerEmbedding(embedding))
      )
      const text = Effect.map(LanguageModel.generateText({ prompt: "hi" }), ({ text }) => text)
      assert.strictEqual(yield* Effect.provideContext(text, context), "good")
    }))
})

describe("the call log", () => {
  it.effect("withLogs keeps the last logs up to its capacity and counts the others", () =>
    Effect.gen(function*() {
      const { generate } = yield* build({ A: [ok] })
      const calls = (times: number) =>
        Effect.gen(function*() {
          for (let n = 0; n < times; n++) {
            yield* generate
            yield* TestClock.adjust("1 second")
          }
        })
      const startedAt = (logs: ReadonlyArray<CallLog.CallLog>) => logs.map((log) => log.startedAt / 1000)
      const cases = [[5, 2, [3, 4], 3], [2, 2, [0, 1], 0], [1, 3, [0], 0], [7, 3, [4, 5, 6], 4]] as const
      let start = 0
      for (const [times, capacity, kept, expected] of cases) {
        const [, logs, dropped] = yield* ResilientModel.withLogs(calls(times), { capacity })
        assert.deepStrictEqual(startedAt(logs).map((at) => at - start), [...kept])
        assert.strictEqual(dropped, expected)
        start += times
      }
      const [, logs, dropped] = yield* calls(300).pipe(ResilientModel.withLogs())
      assert.strictEqual(logs.length, 256)
      assert.strictEqual(dropped, 44)
      const refused = yield* Effect.exit(ResilientModel.withLogs(generate, { capacity: 0 }))
      assert.isTrue(Exit.isFailure(refused) && Cause.hasDies(refused.cause))
    }))

  it.effect("the log has the attempts with their times and outcomes, the skipped targets and the usage", () =>
    Effect.gen(function*() {
      const { generate } = yield* build({
        A: { turns: [Turn.refusal("rateLimit", { retryAfter: "30 seconds" })] },
        B: [Turn.delay(failed, "2 seconds"), ok]
      })
      const [exit, logs] = valueOf(
        yield* runFor("1 minute", ResilientModel.withLogs(Effect.andThen(generate, generate)))
      )
      assert.strictEqual(summaryOf(exit), "good")
      const lines = logs.map(({ answeredBy, result, steps }) => [
        result,
        answeredBy,
        ...steps.map((step) =>
          step._tag === "Skipped"
            ? `skipped ${step.target} ${step.why}`
            : `${step.n} ${step.target} ${step.startedAt}-${step.endedAt} ${step.outcome} ${
              step.fault?.type ?? "-"
            } ${step.next}`
        )
      ])
      assert.deepStrictEqual(lines, [
        [
          "Success",
          "B",
          "1 A 0-0 Throttled RateLimitError Fallback",
          "skipped A RateLimited",
          "2 B 0-2000 Failure InternalProviderError Retry",
          "skipped A RateLimited",
          "3 B 4000-4000 Success - Done"
        ],
        ["Success", "B", "skipped A RateLimited", "1 B 4000-4000 Success - Done"]
      ])
      assert.deepStrictEqual(logs[0]?.usage, { inputTokens: 1, outputTokens: 1, estimated: false })
      assert.deepStrictEqual(throughJson(Schema.Array(CallLog.CallLog), logs), logs)
    }))

  it.effect("the log has the usage of an answer that was cut or that its consumer left", () =>
    Effect.gen(function*() {
      const { stream } = yield* build({ A: [Turn.cut({ content: "one two three four", afterTokens: 3 })] })
      const reads = [readAll(stream), Stream.runDrain(Stream.take(stream, 4))]
      for (const read of reads) {
        const [, logs] = valueOf(yield* runFor(0, ResilientModel.withLogs(Effect.asVoid(read))))
        assert.deepInclude(logs[0]?.usage, { inputTokens: 1, estimated: true })
        assert.isAbove(logs[0]?.usage.outputTokens ?? 0, 0)
      }
    }))

  it.effect("the log has the usage of unusable answers", () =>
    Effect.gen(function*() {
      const usageOf = ({ steps, usage }: CallLog.CallLog) => [
        ...steps.map((step) => step._tag === "Attempt" ? step.usage : undefined),
        usage
      ]
      const usage = (inputTokens: number, outputTokens: number, estimated = false) => ({
        inputTokens,
        outputTokens,
        estimated
      })
      const turns = [
        Turn.empty({ usage: { inputTokens: 3, outputTokens: 0 } }),
        Turn.answer("good", {
          usage: { inputTokens: 3, outputTokens: 2 }
        })
      ]
      for (const kind of ["whole", "stream"] as const) {
        const { generate, stream } = yield* build({ A: turns })
        const read = kind === "whole" ? Effect.asVoid(generate) : Stream.runDrain(stream)
        const [, logs] = valueOf(yield* runFor(0, ResilientModel.withLogs(read)))
        assert.deepStrictEqual(logs.map(usageOf), [[usage(3, 0), usage(3, 2), usage(6, 2)]], kind)
      }
      const { model } = yield* build({
        A: [
          Turn.answer("not JSON", { usage: "none" }),
          Turn.answer("{\"a\":1}", {
            usage: { inputTokens: 9, outputTokens: 2 }
          })
        ]
      })
      const schema = Schema.Struct({ a: Schema.Number })
      const object = model.generateObject({ prompt: "four", schema })
      const [, [log]] = valueOf(yield* runFor(0, ResilientModel.withLogs(object)))
      // The provider gets the schema of the answer too.
      assert.deepStrictEqual(log?.usage, usage(52, 4, true))
      const slow = yield* build({ A: [Turn.hang()], B: [ok] }, { attemptTimeout: "1 second" })
      const [, [late]] = valueOf(yield* runFor("1 second", ResilientModel.withLogs(slow.generate)))
      assert.deepStrictEqual(late && usageOf(late), [usage(1, 0, true), usage(1, 1), usage(2, 1, true)])
    }))

  it.effect("the log contains no prompt, answer or provider text", () =>
    Effect.gen(function*() {
      const secret = "sk-secret-words"
      const { model } = yield* build({
        A: [Turn.status(503, { error: { message: secret } })],
        B: [Turn.malformed({ content: secret, text: secret, afterTokens: 0 })],
        C: [Turn.answer(secret)]
      })
      const call = readAll(model.streamText({ prompt: secret }))
      const [, logs] = valueOf(yield* runFor("1 minute", ResilientModel.withLogs(call)))
      assert.strictEqual(logs.length, 1)
      assert.notInclude(JSON.stringify(logs), "secret")
    }))

  it.effect("the layer's stream has the log of every call", () =>
    Effect.gen(function*() {
      const { generate, resilient, stream } = yield* build({ A: [ok] })
      const logs = yield* Effect.forkChild(Stream.runCollect(Stream.take(resilient.calls, 3)), {
        startImmediately: true
      })
      yield* generate
      yield* Stream.runDrain(stream)
      yield* generate
      assert.deepStrictEqual((yield* Fiber.join(logs)).map(({ method }) => method), [
        "generateText",
        "streamText",
        "generateText"
      ])
    }))

  it.effect("the log of an interrupted call has the result Interrupted and the interrupted attempt", () =>
    Effect.gen(function*() {
      const { generate } = yield* build({ A: [Turn.hang()] })
      const [exit, logs] = valueOf(
        yield* runFor("5 seconds", ResilientModel.withLogs(Effect.timeoutOption(generate, "5 seconds")))
      )
      assert.isTrue(Exit.isSuccess(exit) && Option.isNone(exit.value))
      assert.strictEqual(logs[0]?.result, "Interrupted")
      assert.deepInclude(logs[0]?.steps[0], { startedAt: 0, endedAt: 5_000, outcome: "Ignored", next: "Stop" })
    }))
})

describe("the state of targets", () => {
  it.effect("transitions has the events from the moment of subscribing", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1) }
      const { generate, resilient } = yield* build({
        A: { turns: [Turn.status(503)], breaker },
        B: { turns: [Turn.status(503)], breaker },
        C: { turns: [ok], breaker: false }
      })
      const moves = yield* Effect.forkChild(Stream.runCollect(Stream.take(resilient.transitions, 2)), {
        startImmediately: true
      })
      // Without a turn of the scheduler in between.
      yield* generate
      const seen = valueOf(yield* runFor(0, Fiber.join(moves)))
      assert.deepStrictEqual(seen.map(({ target }) => target), ["A", "B"])
    }))

  it.effect("transitions of a layer without circuits ends at once", () =>
    Effect.gen(function*() {
      const { resilient } = yield* build({ A: { turns: [ok], breaker: false } })
      assert.deepStrictEqual(yield* Stream.runCollect(resilient.transitions), [])
    }))

  it.effect("each transition of a circuit is published with its target's name", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1) }
      const { generate, resilient } = yield* build({
        A: { turns: [Turn.status(503)], breaker },
        B: { turns: [ok], breaker }
      })
      const moves = yield* Effect.forkChild(Stream.runHead(resilient.transitions), { startImmediately: true })
      yield* Effect.yieldNow
      yield* runFor(0, generate)
      const move = Option.getOrThrow(yield* Fiber.join(moves))
      assert.deepInclude(move, { target: "A" })
      assert.deepInclude(move.transition, { from: "Closed", to: "Open" })
    }))

  it.effect("the state of each target is a plain value", () =>
    Effect.gen(function*() {
      const { generate, resilient } = yield* build({
        A: {
          turns: [Turn.delay(ok, "5 seconds")],
          backpressure: { capacity: 2, queue: 10_000 },
          credential: "team",
          model: "m-1",
          provider: "acme"
        },
        B: { turns: [ok], breaker: false }
      })
      yield* Effect.forkChild(generate, { startImmediately: true })
      const [first, second] = yield* resilient.targets
      assert.deepInclude(first, { name: "A", provider: "acme", model: "m-1", credential: "team" })
      assert.strictEqual(first?.circuit?._tag, "Closed")
      assert.deepInclude(first?.permits, { running: 1, capacity: 2 })
      assert.deepInclude(second, { name: "B", provider: "scripted", circuit: undefined, permits: undefined })
    }))

  it.effect("an attempt counts as running until it ends, in any way", () =>
    Effect.gen(function*() {
      const { generate, resilient, stream } = yield* build({
        A: [Turn.delay(failed, "5 seconds"), Turn.delay(ok, "5 seconds"), Turn.hang(), Turn.cut(), Turn.answer("")],
        B: [Turn.delay(ok, "5 seconds")]
      }, { ...atOnce, reasks: 0 })
      const running = Effect.map(resilient.targets, (targets) => targets.map(({ running }) => running))
      assert.deepStrictEqual(yield* running, [0, 0])
      yield* Effect.forkChild(generate, { startImmediately: true })
      assert.deepStrictEqual(yield* running, [1, 0])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* running, [0, 1])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* running, [0, 0])
      yield* Effect.forkChild(Stream.runDrain(stream), { startImmediately: true })
      assert.deepStrictEqual(yield* running, [1, 0])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* running, [0, 0])
      const hung = yield* Effect.forkChild(generate, { startImmediately: true })
      assert.deepStrictEqual(yield* running, [1, 0])
      yield* Fiber.interrupt(hung)
      assert.deepStrictEqual(yield* running, [0, 0])
      for (let calls = 0; calls < 2; calls++) yield* runFor("10 seconds", Effect.exit(Stream.runDrain(stream)))
      assert.deepStrictEqual(yield* running, [0, 0])
    }))

  it.effect("a target whose circuit is forced open gets no calls until it is reset, or until the time is over", () =>
    Effect.gen(function*() {
      const { generate, resilient } = yield* build({ A: [ok], B: [Turn.answer("other")] })
      yield* resilient.control({ target: "A", mode: "ForcedOpen", reason: "it moves", for: "1 hour" })
      assert.strictEqual(summaryOf(yield* runFor(0, generate)), "other")
      const [first] = yield* resilient.targets
      assert.deepInclude(first?.circuit, { _tag: "ForcedOpen", reason: "it moves", liftedIn: Duration.hours(1) })
      yield* resilient.reset({ target: "A", reason: "it has moved" })
      assert.strictEqual(summaryOf(yield* runFor(0, generate)), "good")
      yield* resilient.control({ target: "A", mode: "ForcedOpen", reason: "again", for: "1 hour" })
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(summaryOf(yield* runFor(0, generate)), "good")
    }))

  it.effect("control and reset of an unknown target, or of one without a circuit, name the targets that have one", () =>
    Effect.gen(function*() {
      const { resilient } = yield* build({ A: [ok], B: { turns: [ok], breaker: false } })
      for (const target of ["B", "C"]) {
        const controlled = resilient.control({ target, mode: "ForcedOpen", reason: "it moves" })
        for (const refused of [controlled, resilient.reset({ target, reason: "it moves" })]) {
          const { message } = yield* Effect.flip(refused)
          assert.strictEqual(message, `ResilientModel: target is ${target}; must be a target with a circuit: A`)
        }
      }
    }))
})

describe("circuits in a store", () => {
  it.effect("layers over one store share their circuits", () =>
    Effect.gen(function*() {
      const store = yield* Layer.build(CircuitBreakerStore.layerMemory)
      const breaker = { trip: CircuitBreaker.consecutive(1), openFor: "30 seconds" } as const
      const over = (turns: Turn.Turns) =>
        ResilientModel.layerStore({
          retry: plainRetry({ maxAttempts: 1 }),
          targets: [{ name: "A", layer: ScriptedModel.layer({ turns }), breaker }]
        }).pipe(Layer.fresh, Layer.build, Effect.provideContext(store))
      const generate = (context: Context.Context<LanguageModel.LanguageModel>) =>
        Effect.provideContext(Effect.map(LanguageModel.generateText({ prompt: "hi" }), ({ text }) => text), context)
      const one = yield* over([failed])
      const other = yield* over([ok])
      assert.strictEqual(summaryOf(yield* runFor(0, generate(one))), "InternalProviderError")
      assert.strictEqual(summaryOf(yield* runFor(0, generate(other))), "CircuitOpen")
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(summaryOf(yield* runFor(0, generate(other))), "good")
      assert.strictEqual(summaryOf(yield* runFor(0, generate(one))), "InternalProviderError")
    }))

  it.effect("layers without a shared store have their own circuits", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1) } as const
      const once = { retry: plainRetry({ maxAttempts: 1 }) }
      const one = yield* build({ A: { turns: [failed], breaker } }, once)
      const other = yield* build({ A: { turns: [ok], breaker } }, once)
      yield* runFor(0, one.generate)
      assert.strictEqual(summaryOf(yield* runFor(0, one.generate)), "CircuitOpen")
      assert.strictEqual(summaryOf(yield* runFor(0, other.generate)), "good")
    }))
})

describe("resilient embeddings", () => {
  it.effect("embeddings move to the next target, as answers do", () =>
    Effect.gen(function*() {
      const down = yield* ScriptedEmbedding.make({ turns: [failed] })
      const good = yield* ScriptedEmbedding.make({ turns: [ok] })
      const layer = ResilientModel.layerEmbedding({
        ...atOnce,
        targets: [{ name: "A", layer: down.layer }, { name: "B", layer: good.layer }]
      })
      const calls = Effect.gen(function*() {
        const model = yield* EmbeddingModel.EmbeddingModel
        const one = yield* model.embed("red")
        const many = yield* model.embedMany(["red", "blue"])
        return { one, many }
      })
      const [exit, logs] = yield* ResilientModel.withLogs(Effect.provide(calls, layer))
      const { many, one } = valueOf(exit)
      const bare = yield* Effect.flatMap(good.model.embed("red"), ({ vector }) => Effect.succeed(vector))
      assert.deepStrictEqual([...one.vector], [...bare])
      assert.deepStrictEqual([...many.embeddings[0]?.vector ?? []], [...bare])
      assert.strictEqual((yield* down.journal).length, 2)
      assert.deepStrictEqual(logs.map(({ answeredBy, method }) => `${method} ${answeredBy}`), ["embed B", "embed B"])
      assert.strictEqual(logs[1]?.usage.inputTokens, 2)
    }))
})

describe("telemetry of a resilient model", () => {
  it.effect("each attempt has one span and one measurement, even inside GenAiTelemetry", () =>
    Effect.gen(function*() {
      const { context } = yield* build({ A: { turns: [failed], provider: "acme", model: "m1" }, B: [ok] }, atOnce)
      const { layer, spans } = makeTracer()
      const program = Effect.gen(function*() {
        yield* LanguageModel.generateText({ prompt: "hi" })
        yield* Stream.runDrain(LanguageModel.streamText({ prompt: "hi" }))
      }).pipe(
        Effect.withSpan("caller"),
        Effect.provide(GenAiTelemetry.layer()),
        Effect.provideContext(context),
        Effect.provide(layer)
      )
      const metrics = yield* collectMetrics(program)
      assert.deepStrictEqual(spans.map(({ name }) => name), ["caller", "chat m1", "chat B", "chat m1", "chat B"])
      for (const span of spans.slice(1)) {
        assert.strictEqual(span.status._tag, "Ended")
        assert.strictEqual(parentOf(span), spans[0]?.spanId)
      }
      assert.deepInclude(attributesOf(spans[1]), {
        "gen_ai.provider.name": "acme",
        "error.type": "InternalProviderError",
        "sluice.target": "A",
        "sluice.attempt": 1
      })
      assert.deepInclude(attributesOf(spans[4]), {
        "sluice.attempt": 2,
        "gen_ai.usage.output_tokens": 1,
        "gen_ai.request.stream": true
      })
      const durations = metricsOf(metrics, "gen_ai.client.operation.duration")
      assert.strictEqual(durations.reduce((sum, { state }) => sum + state.count, 0), 4)
      assert.strictEqual(metricsOf(metrics, "gen_ai.client.operation.time_to_first_chunk").length, 1)
    }))

  it.effect("a target that is a resilient model reports its own attempts and is not reported again", () =>
    Effect.gen(function*() {
      const inner = yield* build({ A: [failed], B: [ok] }, atOnce)
      const layer = ResilientModel.layer({
        targets: [{ name: "inner", layer: Layer.succeed(LanguageModel.LanguageModel, inner.model) }]
      })
      const { layer: traced, spans } = makeTracer()
      yield* Effect.asVoid(LanguageModel.generateText({ prompt: "hi" })).pipe(
        Effect.provide(layer),
        Effect.provide(traced)
      )
      assert.deepStrictEqual(spans.map(({ name }) => name), ["chat A", "chat B"])
    }))

  it.effect("a span transformer runs once per call", () =>
    Effect.gen(function*() {
      const { context } = yield* build({ A: [ok] })
      const toolkit = Toolkit.empty
      const calls = [
        LanguageModel.generateText({ prompt: "hi" }),
        LanguageModel.generateText({ prompt: "hi", toolkit }),
        Stream.runDrain(LanguageModel.streamText({ prompt: "hi" })),
        Stream.runDrain(LanguageModel.streamText({ prompt: "hi", toolkit }))
      ]
      for (const call of calls) {
        let transformed = 0
        yield* Effect.asVoid(call).pipe(
          Effect.provideService(Telemetry.CurrentSpanTransformer, () => void transformed++),
          Effect.provideContext(context)
        )
        assert.strictEqual(transformed, 1)
      }
    }))

  it.effect("error.type names failures that only Sluice detects: silence, truncation and an empty answer", () =>
    Effect.gen(function*() {
      const cases = [
        [Turn.stall(), "IdleTimeout"],
        [Turn.hang(), "FirstTokenTimeout"],
        [Turn.cut(), "TruncatedStream"],
        [Turn.empty(), "EmptyAnswer"]
      ] as const
      for (const [turn, expected] of cases) {
        const { stream } = yield* build({ A: [turn] }, { retry: plainRetry({ maxAttempts: 1 }), reasks: 0 })
        const { layer, spans } = makeTracer()
        yield* runFor("10 minutes", Effect.provide(readAll(stream), layer))
        assert.strictEqual(attributesOf(spans[0])["error.type"], expected)
        assert.strictEqual(spans.length, 1)
      }
    }))
})

type Equal<A, B> = [A, B] extends [B, A] ? true : false

describe("types of ResilientModel", () => {
  class Needed extends Context.Service<Needed, number>()("test/Needed") {}
  class Broken extends Schema.TaggedError<Broken>()("Broken", {}) {}

  it("a layer has the requirements and errors of its targets' layers and no others", () => {
    const none = ResilientModel.layer({ targets: [{ name: "A", layer: Layer.orDie(scripted) }] })
    const complete: Layer.Layer<
      LanguageModel.LanguageModel | ResilientModel.ResilientModel | Model.ProviderName | Model.ModelName,
      InvalidOptions
    > = none
    const needing = Layer.effect(
      LanguageModel.LanguageModel,
      Effect.flatMap(Needed, () => Effect.fail(new Broken()))
    )
    const some = ResilientModel.layer({
      targets: [{ name: "A", layer: needing }, { name: "B", layer: Layer.orDie(scripted) }]
    })
    const needs: Equal<Layer.Services<typeof some>, Needed> = true
    const fails: Equal<Layer.Error<typeof some>, InvalidOptions | Broken> = true
    const shared: Layer.Layer<LanguageModel.LanguageModel, InvalidOptions, CircuitBreakerStore.CircuitBreakerStore> =
      ResilientModel.layerStore({ targets: [{ name: "A", layer: Layer.orDie(scripted) }] })
    const embedding = Layer.orDie(ScriptedEmbedding.layer({ turns: [] }))
    ResilientModel.layerEmbedding({ targets: [{ name: "A", layer: embedding, attemptTimeout: "1 second" }] })
    // @ts-expect-error embeddings are not streamed
    ResilientModel.layerEmbedding({ targets: [{ name: "A", layer: embedding }], idleTimeout: "1 second" })
    // @ts-expect-error a target of embeddings is not streamed either
    ResilientModel.layerEmbedding({ targets: [{ name: "A", layer: embedding, firstTokenTimeout: "1 second" }] })
    // @ts-expect-error embeddings are not a language model
    ResilientModel.layerEmbedding({ targets: [{ name: "A", layer: Layer.orDie(scripted) }] })
    assert.deepStrictEqual([needs, fails, Layer.isLayer(complete), Layer.isLayer(shared)], [true, true, true, true])
  })
})
