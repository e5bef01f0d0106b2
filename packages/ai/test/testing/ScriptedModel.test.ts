import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Fiber, Layer, Option, Result, Schema, Stream } from "effect"
import { type AiError, LanguageModel, Model, Tool, Toolkit } from "effect/ai"
import { TestClock } from "effect/testing"
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as IdempotencyKey from "@sluice/ai/IdempotencyKey"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as ScriptedModel from "@sluice/ai/testing/ScriptedModel"
import * as Turn from "@sluice/ai/testing/Turn"
import { generate, stream, textOf } from "../support/model.ts"
import { ourModel } from "../support/provider.ts"

type Scripted = ScriptedModel.ScriptedModel["Service"]

const scripted = (turns: Turn.Turns, options: ScriptedModel.Options = {}) => ScriptedModel.make({ turns, ...options })

const whole = ({ layer }: Scripted, prompt = "hi") => Effect.provide(generate(prompt), layer)

/** What a stream handed on, when, and how it ended. */
interface Seen {
  readonly parts: ReadonlyArray<string>
  readonly at: ReadonlyArray<number>
  readonly exit: Exit.Exit<void, AiError.AiError>
}

const watch = ({ layer }: Scripted, prompt = "hi") =>
  Effect.gen(function*() {
    const parts: Array<string> = []
    const at: Array<number> = []
    const exit = yield* Effect.exit(Stream.runForEach(stream(prompt), (part) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        parts.push(part.type === "text-delta" ? `"${part.delta}"` : part.type)
        at.push(now)
      })))
    return { parts, at, exit }
  }).pipe(Effect.provide(layer))

/** Runs it while the clock moves. */
const after = <A, E, R>(duration: Duration.Input, self: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(self)
    yield* TestClock.adjust(duration)
    return yield* Fiber.join(fiber)
  })

const failureOf = (exit: Exit.Exit<unknown, AiError.AiError>): AiError.AiError | undefined =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined

const tagOf = ({ exit }: Seen) => failureOf(exit)?.reason._tag

const endings = (model: Scripted) => Effect.map(model.journal, (calls) => calls.map(({ ending }) => ending))

describe("a scripted model", () => {
  it.effect("answers with an echo, whole and streamed", () =>
    Effect.gen(function*() {
      const model = yield* ScriptedModel.make()
      const answer = yield* whole(model, "good morning")
      assert.deepStrictEqual([answer.text, answer.finishReason], ["Scripted echo: good morning", "stop"])
      assert.deepStrictEqual([answer.usage.inputTokens.total, answer.usage.outputTokens.total], [2, 4])
      assert.deepStrictEqual((yield* watch(model)).parts, [
        "response-metadata",
        "text-start",
        "\"Scripted\"",
        "\" echo:\"",
        "\" hi\"",
        "text-end",
        "finish"
      ])
      assert.deepStrictEqual(yield* endings(model), ["complete", "complete"])
    }))

  it.effect("gives its turns out one by one, and the last for all that follow", () =>
    Effect.gen(function*() {
      const model = yield* scripted([Turn.answer("one"), Turn.answer("two")])
      const texts = () => Effect.forEach([1, 2, 3], () => Effect.map(whole(model), ({ text }) => text))
      assert.deepStrictEqual(yield* texts(), ["one", "two", "two"])
      yield* model.clear
      assert.deepStrictEqual(yield* texts(), ["one", "two", "two"])
      assert.deepStrictEqual((yield* model.journal).map(({ n }) => n), [1, 2, 3])
    }))

  it.effect("is decided by a function that knows prompt, attempt and time", () =>
    Effect.gen(function*() {
      const asked: Array<Turn.Request> = []
      const model = yield* scripted((request) => {
        asked.push(request)
        return request.at < 60_000 ? Turn.status(503) : undefined
      }, { answer: (prompt) => `for ${prompt}`, name: "m7" })
      assert.strictEqual((yield* Effect.flip(whole(model, "a"))).reason._tag, "InternalProviderError")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* whole(model, "a")).text, "for a")
      assert.deepStrictEqual(asked, [
        { n: 1, attempt: 1, prompt: "a", model: "m7", wire: undefined, stream: false, at: 0 },
        { n: 2, attempt: 2, prompt: "a", model: "m7", wire: undefined, stream: false, at: 60_000 }
      ])
      assert.deepStrictEqual((yield* model.journal).map(({ turn }) => turn), ["Status", undefined])
    }))

  it.effect("is not built from turns or a pace that make no sense", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(ScriptedModel.make({
        turns: [Turn.answer(), Turn.stall({ afterTokens: -1 })],
        pace: { tokensPerChunk: 0 }
      }))
      assert.deepStrictEqual(error.issues.map(({ option }) => option), ["turns", "pace.tokensPerChunk"])
      assert.include(String(error.issues[0].actual), "[1][\"afterTokens\"]")
    }))

  it.effect("is a layer, with its names", () =>
    Effect.gen(function*() {
      const names = [yield* Model.ProviderName, yield* Model.ModelName]
      yield* generate()
      const { journal, name } = yield* ScriptedModel.ScriptedModel
      assert.deepStrictEqual([...names, name, (yield* journal).length], ["acme", "m7", "m7", 1])
    }).pipe(Effect.provide(ScriptedModel.layer({ name: "m7", provider: "acme" }))))

  it.effect("speaks at the pace of its turn, or else its own", () =>
    Effect.gen(function*() {
      const turns = [
        Turn.answer("a b c d e", { firstTokenMillis: 100, tokenMillis: 10, tokensPerChunk: 2 }),
        Turn.answer("a b c")
      ]
      const model = yield* scripted(turns, { pace: { firstTokenMillis: 7, tokenMillis: 5 } })
      const paced = yield* after("1 second", watch(model))
      assert.deepStrictEqual(paced.parts.slice(2, 5), ["\"a b\"", "\" c d\"", "\" e\""])
      assert.deepStrictEqual(paced.at.slice(2, 5), [100, 120, 130])
      assert.deepStrictEqual((yield* after("1 second", watch(model))).at.slice(2, 5), [1007, 1012, 1017])
      yield* after("1 second", whole(model))
      const [, , third] = yield* model.journal
      assert.deepInclude(third, { startedAt: 2000, firstPartAt: 2022, endedAt: 2022 })
    }))

  it.effect("calls tools, after it has thought", () =>
    Effect.gen(function*() {
      const tools = Toolkit.make(
        Tool.make("weather", { parameters: Schema.Struct({ city: Schema.String }), success: Schema.String })
      )
      const toolkit = Effect.provide(tools, tools.toLayer({ weather: ({ city }) => Effect.succeed(`sun in ${city}`) }))
      const model = yield* scripted([
        Turn.answer([
          { type: "reasoning", text: "hm" },
          { type: "tool-call", name: "weather", params: { city: "Oslo" } },
          { type: "tool-call", name: "weather", params: { city: "Rome" } }
        ])
      ])
      const answer = yield* Effect.provide(LanguageModel.generateText({ prompt: "weather?", toolkit }), model.layer)
      assert.deepStrictEqual(answer.toolResults.map(({ result }) => result), ["sun in Oslo", "sun in Rome"])
      assert.deepStrictEqual([answer.reasoningText, answer.finishReason], ["hm", "tool-calls"])
      const parts = yield* LanguageModel.streamText({ prompt: "weather?", toolkit }).pipe(
        Stream.runCollect,
        Effect.provide(model.layer)
      )
      assert.deepStrictEqual(parts.flatMap((part) => part.type === "tool-call" ? [part.id] : []), [
        "call_2_1",
        "call_2_2"
      ])
      assert.deepStrictEqual(
        parts.flatMap((part) => part.type === "tool-result" ? [part.result] : []).toSorted(),
        ["sun in Oslo", "sun in Rome"]
      )
    }))

  it.effect("fills in a schema", () =>
    Effect.gen(function*() {
      const model = yield* scripted([Turn.answer("{\"name\":\"Ada\"}")])
      const schema = Schema.Struct({ name: Schema.String })
      const { value } = yield* Effect.provide(LanguageModel.generateObject({ prompt: "who?", schema }), model.layer)
      assert.deepStrictEqual(value, { name: "Ada" })
    }))

  it.effect("reports what it is told to report, or nothing", () =>
    Effect.gen(function*() {
      const model = yield* scripted([
        Turn.answer("a", { usage: { inputTokens: 70, outputTokens: 40 }, finish: "length" }),
        Turn.answer("a", { usage: "none" })
      ])
      const { finishReason, usage } = yield* whole(model)
      assert.deepStrictEqual([finishReason, usage.inputTokens.total, usage.outputTokens.total], ["length", 70, 40])
      assert.isUndefined((yield* whole(model)).usage.outputTokens.total)
      assert.deepInclude((yield* model.journal)[0], { inputTokens: 70, outputTokens: 40 })
    }))
})

describe("what may become of a stream", () => {
  const met = (turn: Turn.Turn, options?: ScriptedModel.Options) =>
    Effect.gen(function*() {
      const model = yield* scripted([turn], { answer: "a b c", ...options })
      const seen = yield* after("1 hour", Effect.timeout(watch(model), "30 minutes").pipe(Effect.option))
      const [call] = yield* model.journal
      assert.strictEqual(yield* model.open, 0)
      return { seen: Option.getOrUndefined(seen), call }
    })

  it.effect("a stall hands on what came before it, and then nothing", () =>
    Effect.gen(function*() {
      const { call, seen } = yield* met(Turn.stall({ afterTokens: 2 }))
      assert.isUndefined(seen)
      assert.deepInclude(call, { turn: "Stall", ending: "interrupted", endedAt: 1_800_000, outputTokens: 2 })
      const onlyHead = yield* met(Turn.stall({ afterTokens: 0 }))
      assert.strictEqual(onlyHead.call?.firstPartAt, onlyHead.call?.startedAt)
      assert.strictEqual(onlyHead.call?.outputTokens, 0)
    }))

  it.effect("a stall of a minute goes on after it", () =>
    Effect.gen(function*() {
      const { call, seen } = yield* met(Turn.stall({ afterTokens: 2, duration: "1 minute", ping: "1 second" }))
      assert.deepStrictEqual(seen?.parts.slice(2, 5), ["\"a\"", "\" b\"", "\" c\""])
      assert.deepStrictEqual(seen?.at.slice(2, 5), [0, 0, 60_000])
      assert.deepInclude(call, { ending: "complete", endedAt: 60_000, outputTokens: 3 })
    }))

  it.effect("a hang says nothing at all", () =>
    Effect.gen(function*() {
      const { call, seen } = yield* met(Turn.hang())
      assert.isUndefined(seen)
      assert.strictEqual(call?.ending, "interrupted")
      assert.isUndefined(call?.firstPartAt)
    }))

  it.effect("a cut just ends, or is a failure if it is told so", () =>
    Effect.gen(function*() {
      const { call, seen } = yield* met(Turn.cut({ afterTokens: 2 }))
      assert.deepStrictEqual(seen?.parts, ["response-metadata", "text-start", "\"a\"", "\" b\""])
      assert.isTrue(seen !== undefined && Exit.isSuccess(seen.exit))
      assert.strictEqual(call?.ending, "failed")
      const strict = yield* met(Turn.cut({ afterTokens: 2 }), { streamErrors: "failures" })
      assert.strictEqual(strict.seen && tagOf(strict.seen), "InternalProviderError")
    }))

  it.effect("a break beyond its end comes after the last token", () =>
    Effect.gen(function*() {
      const { seen } = yield* met(Turn.cut({ afterTokens: 100 }))
      assert.deepStrictEqual(seen?.parts.at(-1), "\" c\"")
    }))

  it.effect("an end without a reason has everything but the finish part", () =>
    Effect.gen(function*() {
      const { call, seen } = yield* met(Turn.noFinish())
      assert.deepStrictEqual(seen?.parts.slice(-2), ["\" c\"", "text-end"])
      assert.strictEqual(call?.ending, "failed")
    }))

  it.effect("a reset fails, before or within the answer", () =>
    Effect.gen(function*() {
      const before = yield* met(Turn.delay(Turn.reset(), "3 seconds"))
      assert.deepStrictEqual([before.seen && tagOf(before.seen), before.seen?.parts], ["NetworkError", []])
      assert.deepInclude(before.call, { ending: "failed", endedAt: 3000 })
      const within = yield* met(Turn.reset({ afterTokens: 1 }))
      assert.deepStrictEqual([within.seen && tagOf(within.seen), within.seen?.parts.length], ["NetworkError", 3])
    }))

  it.effect("an error is a part, or a failure if it is told so", () =>
    Effect.gen(function*() {
      const turn = Turn.error({ type: "overloaded_error", message: "Overloaded", afterTokens: 1 })
      const model = yield* scripted([turn])
      const parts = yield* Effect.provide(Stream.runCollect(stream()), model.layer)
      const last = parts.at(-1)
      assert.deepStrictEqual(last?.type === "error" ? last.error : undefined, {
        type: "overloaded_error",
        message: "Overloaded"
      })
      assert.deepStrictEqual(yield* endings(model), ["failed"])
      const strict = yield* met(turn, { streamErrors: "failures" })
      assert.deepStrictEqual([strict.seen && tagOf(strict.seen), strict.seen?.parts.length], [
        "InternalProviderError",
        3
      ])
    }))

  it.effect("nothing can be complete and empty", () =>
    Effect.gen(function*() {
      const { call, seen } = yield* met(Turn.empty())
      assert.deepStrictEqual(seen?.parts, ["response-metadata", "finish"])
      assert.strictEqual(call?.ending, "complete")
    }))
})

describe("its errors", () => {
  it.effect("carry the status, the wait and the headers", () =>
    Effect.gen(function*() {
      const model = yield* scripted([
        Turn.status(503, { retryAfter: "2500 millis", headers: { "X-Served-By": "a" } }),
        Turn.refusal("rateLimit", { retryAfter: "7 seconds" })
      ])
      const error = yield* Effect.flip(whole(model))
      assert.deepStrictEqual(RetryAfter.fromAiError(error), Duration.millis(2500))
      assert.deepInclude(AiOutcome.fromAiError(error), { _tag: "Failure", retryable: true })
      const response = error.reason._tag === "InternalProviderError" ? error.reason.http?.response : undefined
      assert.deepStrictEqual([response?.status, response?.headers["x-served-by"]], [503, "a"])
      const seen = yield* watch(model)
      assert.deepStrictEqual([tagOf(seen), failureOf(seen.exit)?.retryAfter], ["RateLimitError", Duration.seconds(7)])
      assert.deepStrictEqual((yield* model.journal).map(({ retryAfterMillis }) => retryAfterMillis), [2500, 7000])
    }))

  const turns: ReadonlyArray<Turn.Turn> = [
    Turn.answer("a b c"),
    Turn.toolCall("weather", { city: "Oslo" }),
    Turn.empty(),
    Turn.noFinish("a b c"),
    Turn.cut({ content: "a b c", afterTokens: 2 }),
    Turn.reset(),
    Turn.reset({ content: "a b c", afterTokens: 2 }),
    Turn.malformed({ content: "a b c" }),
    Turn.error({ content: "a b c", type: "server_error", message: "no" }),
    Turn.error({ content: "a b c", type: "rate_limit_error", message: "no" }),
    Turn.html(),
    Turn.html(502),
    Turn.redirect("https://elsewhere.example/v1"),
    ...Turn.Why.literals.map((why) => Turn.refusal(why)),
    ...[400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529].map((status) => Turn.status(status)),
    Turn.status(429, { retryAfter: "1500 millis" }),
    Turn.status(503, { retryAfter: "3 seconds", body: "try later" })
  ]

  /** What matters of an answer or an error, whoever gives it. */
  const told = (result: Result.Result<string, AiError.AiError>) => {
    if (Result.isSuccess(result)) return { text: result.success }
    const { reason } = result.failure
    const http = "http" in reason ? reason.http : undefined
    return {
      reason: reason._tag,
      outcome: AiOutcome.fromAiError(result.failure),
      // Node's own words for a lost connection are no part of it.
      description: reason._tag !== "NetworkError" && "description" in reason ? reason.description : undefined,
      status: http?.response?.status,
      body: http?.body,
      retryAfter: RetryAfter.fromAiError(result.failure)
    }
  }

  /** Without ids and times, and without the number of events, which only a wire has. */
  const alike = (text: string) =>
    text.replaceAll(/call_(loopback_)?\d+_0/g, "id").replaceAll(/chatcmpl-loopback-\d+/g, "id")
      .replaceAll(/created\W+\d+/g, "created").replaceAll(/after \d+ events/g, "after some events")

  it.live("are those of OpenAiCompatible over a real socket", () =>
    Effect.gen(function*() {
      const tools = Toolkit.make(Tool.make("weather", { parameters: Schema.Struct({ city: Schema.String }) }))
      const options = { prompt: "hi", toolkit: tools, disableToolCallResolution: true } as const
      const ask = Effect.result(Effect.map(LanguageModel.generateText(options), ({ content }) =>
        JSON.stringify(
          content.filter(({ type }) => type !== "response-metadata")
        )))
      const read = Effect.result(Effect.map(Stream.runCollect(LanguageModel.streamText(options)), textOf))
      for (const turn of turns) {
        const provider = yield* LoopbackProvider.make({ turns: [turn] })
        const model = yield* scripted([turn], { name: "m1", streamErrors: "failures" })
        for (const each of [ask, read]) {
          const real = told(yield* Effect.provide(each, ourModel(provider)))
          const played = told(yield* Effect.provide(each, model.layer))
          assert.strictEqual(alike(JSON.stringify(played)), alike(JSON.stringify(real)), JSON.stringify(turn))
        }
      }
    }), 30_000)
})

describe("its journal", () => {
  it.effect("tells interrupted calls from others, also those whose reader had enough", () =>
    Effect.gen(function*() {
      const model = yield* scripted([
        Turn.hang(),
        Turn.answer("a b c d", { tokenMillis: 10 }),
        Turn.answer("a b c d"),
        Turn.delay(Turn.status(500), "1 second")
      ])
      const hanging = yield* Effect.forkChild(whole(model), { startImmediately: true })
      assert.strictEqual(yield* model.open, 1)
      assert.deepStrictEqual(yield* endings(model), ["open"])
      yield* Fiber.interrupt(hanging)
      yield* after("1 second", Effect.provide(Stream.runDrain(Stream.take(stream(), 4)), model.layer))
      // Whoever has seen the finish part has seen everything.
      yield* Stream.runDrain(Stream.takeUntil(stream(), ({ type }) => type === "finish")).pipe(
        Effect.provide(model.layer)
      )
      const late = yield* Effect.forkChild(Effect.exit(whole(model)))
      yield* TestClock.adjust("500 millis")
      yield* Fiber.interrupt(late)
      assert.deepStrictEqual(yield* endings(model), ["interrupted", "interrupted", "complete", "interrupted"])
      assert.strictEqual(yield* model.open, 0)
    }))

  it.effect("counts attempts, by the policy or by the prompts, and keeps the key", () =>
    Effect.gen(function*() {
      const model = yield* scripted([Turn.status(503), Turn.status(503), Turn.answer("ok")])
      const policy = RetryPolicy.exponential({ maxAttempts: 3, baseDelay: Duration.seconds(1), jitter: "none" })
      const asking = RetryPolicy.retry(whole(model, "a"), policy, { classify: AiOutcome.classify }).pipe(
        Effect.provideService(IdempotencyKey.CurrentIdempotencyKey, "k1")
      )
      yield* after("1 minute", asking)
      yield* whole(model, "a")
      yield* whole(model, "b")
      const journal = yield* model.journal
      assert.deepStrictEqual(journal.map(({ attempt, prompt }) => [prompt, attempt]), [
        ["a", 1],
        ["a", 2],
        ["a", 3],
        ["a", 4],
        ["b", 1]
      ])
      assert.deepStrictEqual(journal.map(({ startedAt }) => startedAt).slice(0, 3), [0, 1000, 3000])
      assert.deepStrictEqual(journal.map((call) => call.idempotencyKey), ["k1", "k1", "k1", undefined, undefined])
    }))

  it.effect("tells how many calls were open", () =>
    Effect.gen(function*() {
      const model = yield* scripted([Turn.answer("a", { firstTokenMillis: 1000 })])
      yield* after(
        "1 second",
        Effect.forEach(["a", "b", "c"], (prompt) => whole(model, prompt), { concurrency: 2 }).pipe(
          Effect.timeoutOption("900 millis")
        )
      )
      assert.strictEqual(Journal.maxOpen(yield* model.journal), 2)
    }))

  it.effect("crosses a worker's boundary", () =>
    Effect.gen(function*() {
      const model = yield* scripted([Turn.status(429, { retryAfter: 5 }), Turn.answer("a")])
      yield* Effect.ignore(whole(model))
      yield* whole(model)
      const calls = yield* model.journal
      const codec = Schema.toCodecJson(Schema.Array(ScriptedModel.Call))
      assert.deepStrictEqual(
        Schema.decodeUnknownSync(codec)(JSON.parse(JSON.stringify(Schema.encodeSync(codec)(calls)))),
        calls
      )
    }))
})

it.effect("two models in one test know nothing of each other", () =>
  Effect.gen(function*() {
    const [a, b] = [yield* scripted([Turn.status(503)]), yield* scripted([Turn.answer("b")])]
    const answer = yield* whole(a).pipe(Effect.catch(() => whole(b)))
    assert.strictEqual(answer.text, "b")
    assert.deepStrictEqual([yield* endings(a), yield* endings(b)], [["failed"], ["complete"]])
  }).pipe(Effect.provide(Layer.empty)))
