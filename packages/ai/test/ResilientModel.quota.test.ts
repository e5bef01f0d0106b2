import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Fiber, Layer, Result, Schema, Stream } from "effect"
import { EmbeddingModel, LanguageModel, type Prompt } from "effect/ai"
import { TestClock } from "effect/testing"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as ScriptedEmbedding from "@sluice/ai/testing/ScriptedEmbedding"
import * as ScriptedModel from "@sluice/ai/testing/ScriptedModel"
import * as Turn from "@sluice/ai/testing/Turn"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Quota from "@sluice/core/Quota"
import * as QuotaStore from "@sluice/core/QuotaStore"
import {
  build,
  type Built,
  failed,
  ok,
  plainRetry,
  readAll,
  rejectionOf,
  runFor,
  single,
  summaryOf,
  valueOf
} from "./support/resilient.ts"

const requests = (limit: number, more: ReadonlyArray<Quota.Dimension> = []) => ({
  limits: [Quota.requestsPerMinute(limit), ...more],
  burst: 0
})
const tokens = (limit: number, counts?: Quota.Counts) => ({ limits: [Quota.tokensPerMinute(limit, counts)], burst: 0 })
const dollars = (amount: number) => ({ limits: [Quota.total("money", Quota.usd(amount))] })

const answerOf = (inputTokens: number, outputTokens: number) =>
  Turn.answer("good", { usage: { inputTokens, outputTokens } })

const levelsOf = ({ resilient }: Built, target = 0) =>
  Effect.map(
    resilient.targets,
    (targets) => Object.fromEntries((targets[target]?.quota ?? []).map(({ dimension, used }) => [dimension, used]))
  )

const issuesOf = (targets: ReadonlyArray<object>) =>
  Effect.gen(function*() {
    const layers = targets.map((target) => ({ layer: ScriptedModel.layer(), ...target }))
    // Options from an untyped source, such as a file.
    const layer = ResilientModel.layer({ targets: layers as never }) as Layer.Layer<
      LanguageModel.LanguageModel,
      unknown
    >
    const result = yield* Effect.result(Effect.scoped(Layer.build(layer)))
    return Result.isSuccess(result) ? [] : (result.failure as { issues: ReadonlyArray<{ option: string }> }).issues
      .map(({ option }) => option)
  })

describe("the quota of a target", () => {
  it.effect("calls beyond the limit wait for the window, hold no permit, and log the limit that they waited for", () =>
    Effect.gen(function*() {
      const built = yield* build({ A: { turns: [], quota: requests(2), backpressure: single } })
      yield* built.generate
      yield* built.generate
      const third = yield* Effect.forkChild(ResilientModel.withLogs(built.generate))
      yield* TestClock.adjust("30 seconds")
      const [waiting] = yield* built.resilient.targets
      assert.strictEqual(waiting?.permits?.running, 0)
      assert.strictEqual(waiting?.quota?.[0]?.queued, 1)
      yield* TestClock.adjust("2 minutes")
      const [exit, [log]] = yield* Fiber.join(third)
      assert.strictEqual(valueOf(exit), "from A")
      const [step] = log?.steps ?? []
      assert(step?._tag === "Attempt")
      assert.strictEqual(step.quota?.dimension, "requests")
      assert.isAbove(step.quota?.waitedMillis ?? 0, 55_000)
      assert.strictEqual(step.quota?.waitedMillis, step.waitedMillis)
    }))

  it.effect("an answer settles by its usage: of requests, tokens, input, output and money", () =>
    Effect.gen(function*() {
      const quota = {
        limits: [
          Quota.requestsPerMinute(10),
          Quota.tokensPerMinute(100_000),
          Quota.inputTokensPerMinute(100_000),
          Quota.outputTokensPerMinute(100_000),
          Quota.perDay("money", Quota.usd(1))
        ],
        burst: 0
      }
      const target = {
        turns: Turn.repeat(answerOf(300, 50), 2),
        quota,
        price: { input: 2, output: 8 },
        maxOutputTokens: 500
      }
      for (const stream of [false, true]) {
        const built = yield* build({ A: target })
        if (stream) yield* readAll(built.stream)
        else yield* built.generate
        assert.deepStrictEqual(yield* levelsOf(built), {
          requests: 1,
          tokens: 350,
          inputTokens: 300,
          outputTokens: 50,
          money: 300 * 2 + 50 * 8
        })
      }
    }))

  it.effect("a running call holds its estimated input and its greatest output", () =>
    Effect.gen(function*() {
      const held = (target: object) =>
        Effect.gen(function*() {
          const built = yield* build({ A: { turns: [Turn.hang()], quota: tokens(1_000_000), ...target } })
          const fiber = yield* Effect.forkChild(built.model.generateText({ prompt: "x".repeat(400) }))
          yield* TestClock.adjust("1 second")
          const levels = yield* levelsOf(built)
          yield* Fiber.interrupt(fiber)
          return [levels["tokens"], (yield* levelsOf(built))["tokens"]]
        })
      // After an interruption the input counts, and the output so far.
      assert.deepStrictEqual(yield* held({}), [100 + 4_096, 100])
      assert.deepStrictEqual(yield* held({ maxOutputTokens: 200 }), [300, 100])
    }))

  it.effect("estimates of input follow the reported tokens of the target, and those of output its answers", () =>
    Effect.gen(function*() {
      const turns = [...Turn.repeat(answerOf(200, 20), 250), Turn.hang()]
      const built = yield* build({ A: { turns, quota: tokens(10_000_000) } })
      const ask = built.model.generateText({ prompt: "x".repeat(400) })
      for (let calls = 0; calls < 250; calls++) yield* ask
      const before = (yield* levelsOf(built))["tokens"] ?? 0
      const fiber = yield* Effect.forkChild(ask)
      yield* TestClock.adjust("1 second")
      const reserved = ((yield* levelsOf(built))["tokens"] ?? 0) - before
      yield* Fiber.interrupt(fiber)
      assert.isAtLeast(reserved, 200 + 256)
      assert.isAtMost(reserved, 201 + 257)
    }))

  it.effect("tools, tool results, files and images count in the estimate", () =>
    Effect.gen(function*() {
      const reservedFor = (prompt: Prompt.RawInput) =>
        Effect.gen(function*() {
          const built = yield* build({ A: { turns: [Turn.hang()], quota: tokens(10_000_000), maxOutputTokens: 1 } })
          const fiber = yield* Effect.forkChild(built.model.generateText({ prompt }))
          yield* TestClock.adjust("1 second")
          const { tokens: used = 0 } = yield* levelsOf(built)
          yield* Fiber.interrupt(fiber)
          return used - 1
        })
      const part = (content: Prompt.UserMessagePartEncoded): Prompt.RawInput => [{ role: "user", content: [content] }]
      const image = { type: "file", mediaType: "image/png", data: new Uint8Array(1_000_000) } as const
      assert.strictEqual(yield* reservedFor(part(image)), 1_500)
      assert.strictEqual(yield* reservedFor(part({ ...image, mediaType: "text/plain", data: "x".repeat(80) })), 20)
      assert.strictEqual(
        yield* reservedFor(part({ ...image, mediaType: "application/pdf" })),
        Math.ceil(1_000_000 / 30)
      )
      const call = {
        type: "tool-call",
        id: "1",
        name: "look",
        params: { a: "x".repeat(400) },
        providerExecuted: false
      } as const
      assert.isAtLeast(
        yield* reservedFor([{ role: "assistant", content: [call] }, { role: "user", content: "hi" }]),
        100
      )
    }))

  it.effect("two targets of one account and family share a quota, another account or family does not", () =>
    Effect.gen(function*() {
      const of = (credential: string, model: string) => ({ turns: [], credential, model, quota: requests(5) })
      const built = yield* build({
        A: of("one", "gpt-5-2026-01-01"),
        B: of("one", "gpt-5-latest"),
        C: of("one", "gpt-5-mini"),
        D: of("two", "gpt-5")
      })
      yield* built.generate
      const used = yield* Effect.map(built.resilient.targets, (targets) => targets.map(({ quota }) => quota?.[0]?.used))
      assert.deepStrictEqual(used, [1, 1, undefined, undefined])
    }))

  it.effect("a stated family joins models, and a service is shared by layers", () =>
    Effect.gen(function*() {
      const quota = yield* Effect.orDie(Quota.make(requests(5))).pipe(Effect.provide(QuotaStore.layerMemory))
      const of = (model: string) => ({ turns: [], credential: "one", family: "sonnet", model, quota })
      const first = yield* build({ A: of("claude-sonnet-4"), B: of("claude-sonnet-4-5") })
      const second = yield* build({ C: of("claude-sonnet-4-6") })
      yield* first.generate
      yield* second.generate
      assert.deepStrictEqual(yield* levelsOf(first, 1), { requests: 2 })
      assert.deepStrictEqual((yield* quota.snapshot()).levels.map(({ key }) => key), ["one/sonnet"])
    }))

  it.effect("without a known model the quota has the name of its account", () =>
    Effect.gen(function*() {
      const quota = yield* Effect.orDie(Quota.make(requests(5))).pipe(Effect.provide(QuotaStore.layerMemory))
      const { model } = yield* build({ A: [] })
      const layer = Layer.succeed(LanguageModel.LanguageModel, model)
      const targets = [{ name: "B", layer, quota }, { name: "C", layer, family: "sonnet", quota }]
      yield* Effect.forEach(
        targets,
        (target) =>
          Effect.provide(
            LanguageModel.generateText({ prompt: "hi" }),
            Layer.fresh(ResilientModel.layer({ targets: [target] }))
          )
      )
      assert.deepStrictEqual((yield* quota.snapshot()).levels.map(({ key }) => key), ["B", "C/sonnet"])
    }))

  it.effect("a target with a longer wait is skipped, and the log says so", () =>
    Effect.gen(function*() {
      const built = yield* build({ A: { turns: [], quota: requests(1) }, B: { turns: [], quota: requests(2) } })
      assert.strictEqual(yield* built.generate, "from A")
      const [exit, [log]] = yield* ResilientModel.withLogs(built.generate)
      assert.strictEqual(valueOf(exit), "from B")
      const [skipped] = log?.steps ?? []
      assert(skipped?._tag === "Skipped")
      assert.strictEqual(skipped.why, "Quota")
      assert.isAbove(Duration.toMillis(skipped.retryAfter ?? 0), 55_000)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* built.generate, "from B")
      // Now both have to wait, and A for 10 seconds less.
      const waiting = yield* Effect.forkChild(built.generate)
      yield* TestClock.adjust("55 seconds")
      assert.strictEqual(yield* Fiber.join(waiting), "from A")
    }))

  it.effect("a call whose deadline passes before there is room is refused at once, and makes no request", () =>
    Effect.gen(function*() {
      const built = yield* build({ A: { turns: [], quota: requests(1) } }, { deadline: "10 seconds" })
      yield* built.generate
      const exit = yield* runFor(0, Effect.scoped(built.generate))
      const rejection = rejectionOf(exit)
      assert(rejection._tag === "QuotaExceeded")
      assert.strictEqual(rejection.why, "Deadline")
      assert.isAbove(Duration.toMillis(rejection.retryAfter ?? 0), 55_000)
      assert.strictEqual((yield* built.targetCalls).length, 1)
    }))

  it.effect("a call above the limit moves to another target, or fails at once", () =>
    Effect.gen(function*() {
      const small = { turns: [], quota: tokens(10), maxOutputTokens: 1 }
      const alone = yield* build({ A: small })
      const long = { prompt: "x".repeat(400) }
      const exit = yield* runFor(0, alone.model.generateText(long))
      assert.strictEqual(summaryOf(exit), "QuotaExceeded")
      const both = yield* build({ A: small, B: [] })
      assert.strictEqual((yield* both.model.generateText(long)).text, "from B")
    }))

  it.effect("a 429 lowers the burst, counts as a request without tokens, and delays every target of the account", () =>
    Effect.gen(function*() {
      const quota = { limits: [Quota.requestsPerMinute(100), Quota.tokensPerMinute(100_000)] }
      const limited = Turn.status(429, { headers: { "retry-after": "20" } })
      const built = yield* build({
        A: { turns: [limited], credential: "one", model: "m", quota },
        B: { turns: [], credential: "one", model: "m", quota },
        C: []
      })
      assert.strictEqual(yield* built.generate, "from C")
      assert.deepStrictEqual(yield* levelsOf(built), { requests: 1, tokens: 0 })
    }))

  it.effect("a Retry-After of a day ends calls of every target of the account, and none waits for it", () =>
    Effect.gen(function*() {
      const turns = [Turn.refusal("rateLimit", { retryAfter: "1 day" })]
      const of = (model: string) => ({ turns, model, credential: "one", quota: requests(100) })
      const built = yield* build({ A: of("m"), B: of("m") })
      assert.strictEqual(summaryOf(yield* runFor("1 second", built.generate)), "RateLimitError")
      assert.strictEqual(summaryOf(yield* runFor("1 second", built.generate)), "NoTarget")
      const cools = Effect.map(
        built.resilient.targets,
        (targets) => targets.map(({ coolsFor }) => coolsFor !== undefined)
      )
      assert.deepStrictEqual(yield* cools, [true, true])
      // Another family has limits of its own.
      const other = yield* build({ A: of("m"), B: { ...of("n"), turns: [ok] } })
      assert.strictEqual(valueOf(yield* runFor("1 second", other.generate)), "good")
    }))

  it.effect("a call that was not sent is refunded", () =>
    Effect.gen(function*() {
      const open = { trip: CircuitBreaker.consecutive(1), openFor: "1 minute" } as const
      const built = yield* build({ A: { turns: [failed], quota: requests(10), breaker: open } }, { retriesHere: 0 })
      yield* runFor("10 seconds", Effect.exit(built.generate))
      assert.deepStrictEqual(yield* levelsOf(built), { requests: 1 })
      yield* runFor("10 seconds", Effect.exit(built.generate))
      assert.deepStrictEqual(yield* levelsOf(built), { requests: 1 })
    }))

  it.effect("a stream that breaks off counts its input and what came, and all of the money", () =>
    Effect.gen(function*() {
      const quota = { limits: [Quota.tokensPerMinute(100_000), Quota.total("money", Quota.usd(1))], burst: 0 }
      const turns = [Turn.reset({ content: "four words are here", afterTokens: 4 })]
      const built = yield* build({ A: { turns, quota, price: { input: 1, output: 1 }, maxOutputTokens: 1_000 } })
      const { text } = yield* readAll(built.stream)
      assert.isAbove(text.length, 0)
      const levels = yield* levelsOf(built)
      assert.strictEqual(levels["tokens"], 1 + Math.ceil(text.length / 4))
      assert.strictEqual(levels["money"], 2 + 1_000)
    }))

  it.effect("a consumer that leaves a stream settles it, too", () =>
    Effect.gen(function*() {
      const built = yield* build({ A: { turns: [], quota: tokens(100_000) } })
      yield* Stream.runDrain(Stream.take(built.stream, 2))
      assert.isBelow((yield* levelsOf(built))["tokens"] ?? 0, 10)
    }))

  it.effect("a re-ask reserves its own", () =>
    Effect.gen(function*() {
      const built = yield* build({ A: { turns: [Turn.empty(), ok], quota: requests(10) } })
      yield* built.generate
      assert.deepStrictEqual(yield* levelsOf(built), { requests: 2 })
    }))

  it.effect("a re-ask and a continuation reserve the part of the answer that they send again, byte by byte", () =>
    Effect.gen(function*() {
      const heldBy = (turn: Turn.Turn, ask: (built: Built) => Effect.Effect<unknown, unknown>) =>
        Effect.gen(function*() {
          const quota = { limits: [Quota.total("money", 1_000_000)] }
          const target = {
            turns: [turn, Turn.hang()],
            quota,
            price: { input: 1, output: 0 },
            maxOutputTokens: 1,
            prefill: true
          }
          const built = yield* build({ A: target }, { afterOutput: "continue" })
          const fiber = yield* Effect.forkChild(ask(built))
          yield* TestClock.adjust("10 seconds")
          const { money = 0 } = yield* levelsOf(built)
          yield* Fiber.interrupt(fiber)
          return money
        })
      const text = Array.from({ length: 10 }, () => "é".repeat(100)).join(" ")
      const unusable = Turn.answer(text, { usage: { inputTokens: 0, outputTokens: 0 } })
      const object = yield* heldBy(
        unusable,
        ({ model }) => model.generateObject({ prompt: "hi", schema: Schema.Struct({ n: Schema.Number }) })
      )
      assert.isAbove(object, 2_000)
      const broken = yield* heldBy(
        Turn.cut({ content: text, afterTokens: 20 }),
        ({ stream }) => Stream.runDrain(stream)
      )
      const sent = yield* heldBy(Turn.hang(), ({ stream }) => Stream.runDrain(stream))
      // About 300 characters, most of them of two bytes.
      assert.isAtLeast(broken, 2 * sent + 500)
    }))

  it.effect("short prompts to which the provider adds tokens do not make long ones too large", () =>
    Effect.gen(function*() {
      const turns = [...Turn.repeat(answerOf(400, 1), 100), answerOf(10_000, 1)]
      const built = yield* build({ A: { turns, quota: tokens(100_000), maxOutputTokens: 1 } })
      for (let calls = 0; calls < 100; calls++) yield* built.generate
      yield* built.model.generateText({ prompt: "x".repeat(40_000) })
    }))

  it.effect("a use that no model has is not learned", () =>
    Effect.gen(function*() {
      const turns = [answerOf(1e12, 1e12), Turn.hang()]
      const built = yield* build({ A: { turns, quota: { limits: [Quota.tokensPerMinute(100_000)], burst: 0 } } })
      yield* built.generate
      yield* TestClock.adjust("2 minutes")
      const fiber = yield* Effect.forkChild(built.generate)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* levelsOf(built), { tokens: 1 + 4_096 })
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("the maxWait of a service holds for its targets, with and without a deadline", () =>
    Effect.gen(function*() {
      for (const more of [{}, { deadline: "10 minutes" }] as const) {
        const quota = yield* Quota.make({ ...requests(1), maxWait: "5 seconds" }).pipe(
          Effect.provide(QuotaStore.layerMemory),
          Effect.orDie
        )
        const built = yield* build({ A: { turns: [], quota }, B: { turns: [], quota } }, {
          retry: plainRetry({ maxAttempts: 1 }),
          ...more
        })
        yield* Effect.all([built.generate, built.generate])
        const rejection = rejectionOf(yield* runFor("1 second", Effect.scoped(built.generate)))
        assert(rejection._tag === "QuotaExceeded")
        assert.strictEqual(rejection.why, "MaxWait")
      }
    }))

  it.effect("a budget that is spent ends the call, and other targets go on", () =>
    Effect.gen(function*() {
      const target = {
        turns: Turn.repeat(answerOf(100, 100), 9),
        quota: dollars(0.001),
        price: { input: 1, output: 4 }
      }
      const alone = yield* build({ A: { ...target, maxOutputTokens: 100 } })
      yield* alone.generate
      yield* alone.generate
      const exit = yield* runFor(0, Effect.scoped(alone.generate))
      const rejection = rejectionOf(exit)
      assert(rejection._tag === "QuotaExceeded")
      assert.strictEqual(rejection.why, "Spent")
      const both = yield* build({ A: { ...target, maxOutputTokens: 100 }, B: [] })
      yield* both.generate
      yield* both.generate
      assert.strictEqual(yield* both.generate, "from B")
    }))

  it.effect("a budget without a price or a maximum is refused when the layer is built", () =>
    Effect.gen(function*() {
      const quota = dollars(1)
      const price = { input: 1, output: 1 }
      assert.deepStrictEqual(yield* issuesOf([{ name: "A", quota, maxOutputTokens: 9 }]), ["targets[0].price"])
      assert.deepStrictEqual(yield* issuesOf([{ name: "A", quota, price }]), ["targets[0].maxOutputTokens"])
      assert.deepStrictEqual(yield* issuesOf([{ name: "A", quota, price, maxOutputTokens: 9 }]), [])
    }))

  it.effect("invalid options, and two quotas of one account and family, are refused", () =>
    Effect.gen(function*() {
      const issues = (target: object) => issuesOf([{ name: "A", ...target }])
      assert.deepStrictEqual(yield* issues({ quota: 3 }), ["targets[0].quota"])
      assert.deepStrictEqual(yield* issues({ quota: { limits: [] } }), ["targets[0].quota.limits"])
      const tenants = { ...requests(1), tenantLimits: [Quota.requestsPerMinute(1)] }
      assert.deepStrictEqual(yield* issues({ quota: tenants }), ["targets[0].quota.tenantLimits"])
      assert.deepStrictEqual(yield* issues({ family: "" }), ["targets[0].family"])
      assert.deepStrictEqual(yield* issues({ maxOutputTokens: 0 }), ["targets[0].maxOutputTokens"])
      assert.deepStrictEqual(yield* issues({ price: { input: -1, output: 1 } }), ["targets[0].price.input"])
      const of = (name: string, limit: number) => ({ name, credential: "one", model: "m", quota: requests(limit) })
      assert.deepStrictEqual(yield* issuesOf([of("A", 1), of("B", 1)]), [])
      assert.deepStrictEqual(yield* issuesOf([of("A", 1), of("B", 2)]), ["targets[1].quota"])
    }))

  it.effect("an embedding reserves its input only", () =>
    Effect.gen(function*() {
      const quota = { limits: [Quota.tokensPerMinute(100), Quota.total("money", 100)], burst: 0 }
      const context = yield* Layer.build(ResilientModel.layerEmbedding({
        targets: [{ name: "A", layer: ScriptedEmbedding.layer(), quota, price: { input: 1, output: 1 } }]
      }))
      yield* Context.get(context, EmbeddingModel.EmbeddingModel).embedMany(["one text", "another"])
      const [target] = yield* Context.get(context, ResilientModel.ResilientModel).targets
      const [used, money] = target?.quota ?? []
      assert.isAbove(used?.used ?? 0, 0)
      assert.isBelow(used?.used ?? 0, 20)
      assert.strictEqual(money?.used, used?.used)
    }).pipe(Effect.scoped))

  it.effect("an interrupted call in the queue of the quota leaves it", () =>
    Effect.gen(function*() {
      const built = yield* build({ A: { turns: [], quota: requests(1) } })
      yield* built.generate
      const waiting = yield* Effect.forkChild(built.generate)
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(waiting)
      assert.isTrue(Exit.isFailure(yield* Fiber.await(waiting)))
      const [target] = yield* built.resilient.targets
      assert.strictEqual(target?.quota?.[0]?.queued, 0)
      assert.strictEqual(target?.quota?.[0]?.used, 1)
    }))
})
