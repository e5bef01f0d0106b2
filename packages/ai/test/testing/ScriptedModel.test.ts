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
import { throughJson } from "../support/json.ts"
import { generate, stream, textOf } from "../support/model.ts"
import { ourModel } from "../support/provider.ts"
import { weatherToolkit } from "../support/tools.ts"

type Scripted = ScriptedModel.ScriptedModel["Service"]

const scripted = (turns: Turn.Turns, options: ScriptedModel.Options = {}) => ScriptedModel.make({ turns, ...options })

const whole = ({ layer }: Scripted, prompt = "hi") => Effect.provide(generate(prompt), layer)

/** The parts of a stream, their times, and how it ended. */
interface Streamed {
  readonly parts: ReadonlyArray<string>
  readonly at: ReadonlyArray<number>
  readonly exit: Exit.Exit<void, AiError.AiError>
}

const readStream = ({ layer }: Scripted, prompt = "hi") =>
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

/** Runs the effect while the clock advances by the duration. */
const runFor = <A, E, R>(duration: Duration.Input, self: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(self)
    yield* TestClock.adjust(duration)
    return yield* Fiber.join(fiber)
  })

const errorOf = (exit: Exit.Exit<unknown, AiError.AiError>): AiError.AiError | undefined =>
  Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined

const tagOf = ({ exit }: Streamed) => errorOf(exit)?.reason._tag

const endings = (model: Scripted) => Effect.map(model.journal, (calls) => calls.map(({ ending }) => ending))

describe("ScriptedModel", () => {
  it.effect("a model without turns echoes the prompt, whole and streamed", () =>
    Effect.gen(function*() {
      const model = yield* ScriptedModel.make()
      const answer = yield* whole(model, "good morning")
      assert.deepStrictEqual([answer.text, answer.finishReason], ["Scripted echo: good morning", "stop"])
      assert.deepStrictEqual([answer.usage.inputTokens.total, answer.usage.outputTokens.total], [2, 4])
      assert.deepStrictEqual((yield* readStream(model)).parts, [
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

  it.effect("turns are used one by one, and the last one repeats", () =>
    Effect.gen(function*() {
      const model = yield* scripted([Turn.answer("one"), Turn.answer("two")])
      const texts = () => Effect.forEach([1, 2, 3], () => Effect.map(whole(model), ({ text }) => text))
      assert.deepStrictEqual(yield* texts(), ["one", "two", "two"])
      yield* model.clear
      assert.deepStrictEqual(yield* texts(), ["one", "two", "two"])
      assert.deepStrictEqual((yield* model.journal).map(({ n }) => n), [1, 2, 3])
    }))

  it.effect("a function chooses the turn by prompt, attempt and time", () =>
    Effect.gen(function*() {
      const requests: Array<Turn.Request> = []
      const model = yield* scripted((request) => {
        requests.push(request)
        return request.at < 60_000 ? Turn.status(503) : undefined
      }, { answer: (prompt) => `for ${prompt}`, name: "m7" })
      assert.strictEqual((yield* Effect.flip(whole(model, "a"))).reason._tag, "InternalProviderError")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* whole(model, "a")).text, "for a")
      assert.deepStrictEqual(requests, [
        { n: 1, attempt: 1, prompt: "a", model: "m7", wire: undefined, stream: false, at: 0 },
        { n: 2, attempt: 2, prompt: "a", model: "m7", wire: undefined, stream: false, at: 60_000 }
      ])
      assert.deepStrictEqual((yield* model.journal).map(({ turn }) => turn), ["Status", undefined])
    }))

  it.effect("invalid turns and an invalid pace are refused", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(ScriptedModel.make({
        turns: [Turn.answer(), Turn.stall({ afterTokens: -1 })],
        pace: { tokensPerChunk: 0 }
      }))
      assert.deepStrictEqual(error.issues.map(({ option }) => option), ["turns", "pace.tokensPerChunk"])
      assert.include(String(error.issues[0].actual), "[1][\"afterTokens\"]")
    }))

  it.effect("the layer provides the names of its provider and model", () =>
    Effect.gen(function*() {
      const names = [yield* Model.ProviderName, yield* Model.ModelName]
      yield* generate()
      const { journal, name } = yield* ScriptedModel.ScriptedModel
      assert.deepStrictEqual([...names, name, (yield* journal).length], ["acme", "m7", "m7", 1])
    }).pipe(Effect.provide(ScriptedModel.layer({ name: "m7", provider: "acme" }))))

  it.effect("the pace of a turn takes precedence over the pace of the model", () =>
    Effect.gen(function*() {
      const turns = [
        Turn.answer("a b c d e", { firstTokenMillis: 100, tokenMillis: 10, tokensPerChunk: 2 }),
        Turn.answer("a b c")
      ]
      const model = yield* scripted(turns, { pace: { firstTokenMillis: 7, tokenMillis: 5 } })
      const paced = yield* runFor("1 second", readStream(model))
      assert.deepStrictEqual(paced.parts.slice(2, 5), ["\"a b\"", "\" c d\"", "\" e\""])
      assert.deepStrictEqual(paced.at.slice(2, 5), [100, 120, 130])
      assert.deepStrictEqual((yield* runFor("1 second", readStream(model))).at.slice(2, 5), [1007, 1012, 1017])
      yield* runFor("1 second", whole(model))
      const [, , third] = yield* model.journal
      assert.deepInclude(third, { startedAt: 2000, firstPartAt: 2022, endedAt: 2022 })
    }))

  it.effect("a turn can have reasoning and tool calls", () =>
    Effect.gen(function*() {
      const model = yield* scripted([
        Turn.answer([
          { type: "reasoning", text: "hm" },
          { type: "tool-call", name: "weather", params: { city: "Oslo" } },
          { type: "tool-call", name: "weather", params: { city: "Rome" } }
        ])
      ])
      const answer = yield* Effect.provide(
        LanguageModel.generateText({ prompt: "weather?", toolkit: weatherToolkit }),
        model.layer
      )
      assert.deepStrictEqual(answer.toolResults.map(({ result }) => result), ["sun in Oslo", "sun in Rome"])
      assert.deepStrictEqual([answer.reasoningText, answer.finishReason], ["hm", "tool-calls"])
      const parts = yield* LanguageModel.streamText({ prompt: "weather?", toolkit: weatherToolkit }).pipe(
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

  it.effect("an object is decoded from the text of a turn", () =>
    Effect.gen(function*() {
      const model = yield* scripted([Turn.answer("{\"name\":\"Ada\"}")])
      const schema = Schema.Struct({ name: Schema.String })
      const { value } = yield* Effect.provide(LanguageModel.generateObject({ prompt: "who?", schema }), model.layer)
      assert.deepStrictEqual(value, { name: "Ada" })
    }))

  it.effect("an answer has the usage and finish reason of its turn, or no usage", () =>
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

describe("streams of ScriptedModel", () => {
  /** Streams one answer with the turn. */
  const streamWith = (turn: Turn.Turn, options?: ScriptedModel.Options) =>
    Effect.gen(function*() {
      const model = yield* scripted([turn], { answer: "a b c", ...options })
      const streamed = yield* runFor("1 hour", Effect.timeout(readStream(model), "30 minutes").pipe(Effect.option))
      const [call] = yield* model.journal
      assert.strictEqual(yield* model.open, 0)
      return { streamed: Option.getOrUndefined(streamed), call }
    })

  it.effect("a stall hands on the parts before it and then nothing", () =>
    Effect.gen(function*() {
      const { call, streamed } = yield* streamWith(Turn.stall({ afterTokens: 2 }))
      assert.isUndefined(streamed)
      assert.deepInclude(call, { turn: "Stall", ending: "interrupted", endedAt: 1_800_000, outputTokens: 2 })
      const onlyHead = yield* streamWith(Turn.stall({ afterTokens: 0 }))
      assert.strictEqual(onlyHead.call?.firstPartAt, onlyHead.call?.startedAt)
      assert.strictEqual(onlyHead.call?.outputTokens, 0)
    }))

  it.effect("a stall of one minute continues after it", () =>
    Effect.gen(function*() {
      const { call, streamed } = yield* streamWith(
        Turn.stall({ afterTokens: 2, duration: "1 minute", ping: "1 second" })
      )
      assert.deepStrictEqual(streamed?.parts.slice(2, 5), ["\"a\"", "\" b\"", "\" c\""])
      assert.deepStrictEqual(streamed?.at.slice(2, 5), [0, 0, 60_000])
      assert.deepInclude(call, { ending: "complete", endedAt: 60_000, outputTokens: 3 })
    }))

  it.effect("a hang hands on nothing", () =>
    Effect.gen(function*() {
      const { call, streamed } = yield* streamWith(Turn.hang())
      assert.isUndefined(streamed)
      assert.strictEqual(call?.ending, "interrupted")
      assert.isUndefined(call?.firstPartAt)
    }))

  it.effect("a cut ends the stream, or fails with streamErrors \"failures\"", () =>
    Effect.gen(function*() {
      const { call, streamed } = yield* streamWith(Turn.cut({ afterTokens: 2 }))
      assert.deepStrictEqual(streamed?.parts, ["response-metadata", "text-start", "\"a\"", "\" b\""])
      assert.isTrue(streamed !== undefined && Exit.isSuccess(streamed.exit))
      assert.strictEqual(call?.ending, "failed")
      const strict = yield* streamWith(Turn.cut({ afterTokens: 2 }), { streamErrors: "failures" })
      assert.strictEqual(strict.streamed && tagOf(strict.streamed), "InternalProviderError")
    }))

  it.effect("a cut beyond the end comes after the last token", () =>
    Effect.gen(function*() {
      const { streamed } = yield* streamWith(Turn.cut({ afterTokens: 100 }))
      assert.deepStrictEqual(streamed?.parts.at(-1), "\" c\"")
    }))

  it.effect("noFinish hands on everything but the finish part", () =>
    Effect.gen(function*() {
      const { call, streamed } = yield* streamWith(Turn.noFinish())
      assert.deepStrictEqual(streamed?.parts.slice(-2), ["\" c\"", "text-end"])
      assert.strictEqual(call?.ending, "failed")
    }))

  it.effect("a reset fails before or within the answer", () =>
    Effect.gen(function*() {
      const before = yield* streamWith(Turn.delay(Turn.reset(), "3 seconds"))
      assert.deepStrictEqual([before.streamed && tagOf(before.streamed), before.streamed?.parts], ["NetworkError", []])
      assert.deepInclude(before.call, { ending: "failed", endedAt: 3000 })
      const within = yield* streamWith(Turn.reset({ afterTokens: 1 }))
      assert.deepStrictEqual([within.streamed && tagOf(within.streamed), within.streamed?.parts.length], [
        "NetworkError",
        3
      ])
    }))

  it.effect("an error is a part, or a failure with streamErrors \"failures\"", () =>
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
      const strict = yield* streamWith(turn, { streamErrors: "failures" })
      assert.deepStrictEqual([strict.streamed && tagOf(strict.streamed), strict.streamed?.parts.length], [
        "InternalProviderError",
        3
      ])
    }))

  it.effect("an empty answer is complete without text", () =>
    Effect.gen(function*() {
      const { call, streamed } = yield* streamWith(Turn.empty())
      assert.deepStrictEqual(streamed?.parts, ["response-metadata", "finish"])
      assert.strictEqual(call?.ending, "complete")
    }))
})

describe("errors of ScriptedModel", () => {
  it.effect("errors have the status, the Retry-After and the headers", () =>
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
      const streamed = yield* readStream(model)
      assert.deepStrictEqual([tagOf(streamed), errorOf(streamed.exit)?.retryAfter], [
        "RateLimitError",
        Duration.seconds(7)
      ])
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

  /** What a scripted and a real answer or error must have in common. */
  const comparable = (result: Result.Result<string, AiError.AiError>) => {
    if (Result.isSuccess(result)) return { text: result.success }
    const { reason } = result.failure
    const http = "http" in reason ? reason.http : undefined
    return {
      reason: reason._tag,
      outcome: AiOutcome.fromAiError(result.failure),
      // Excludes Node's text for a lost connection.
      description: reason._tag !== "NetworkError" && "description" in reason ? reason.description : undefined,
      status: http?.response?.status,
      body: http?.body,
      retryAfter: RetryAfter.fromAiError(result.failure)
    }
  }

  /** Replaces ids, times, hosts, the socket's words and the number of parts, which differ over a wire. */
  const normalised = (text: string) =>
    text.replaceAll(/call_(loopback_)?\d+_0/g, "id").replaceAll(/chatcmpl-loopback-\d+/g, "id")
      .replaceAll(/created\W+\d+/g, "created").replaceAll(
        /[\w.]+: answer truncated after \d+ parts?/g,
        "answer truncated after some parts"
      )
      .replaceAll(/connection lost \([^)]*\)/g, "connection lost")

  it.live("errors equal those of OpenAiCompatible over a real socket", () =>
    Effect.gen(function*() {
      const tools = Toolkit.make(Tool.make("weather", { parameters: Schema.Struct({ city: Schema.String }) }))
      const options = { prompt: "hi", toolkit: tools, disableToolCallResolution: true } as const
      const generateCall = Effect.result(Effect.map(LanguageModel.generateText(options), ({ content }) =>
        JSON.stringify(
          content.filter(({ type }) => type !== "response-metadata")
        )))
      const streamCall = Effect.result(Effect.map(Stream.runCollect(LanguageModel.streamText(options)), textOf))
      for (const turn of turns) {
        const provider = yield* LoopbackProvider.make({ turns: [turn] })
        const model = yield* scripted([turn], { name: "m1", streamErrors: "failures" })
        for (const call of [generateCall, streamCall]) {
          const realResult = comparable(yield* Effect.provide(call, ourModel(provider)))
          const scriptedResult = comparable(yield* Effect.provide(call, model.layer))
          assert.strictEqual(
            normalised(JSON.stringify(scriptedResult)),
            normalised(JSON.stringify(realResult)),
            JSON.stringify(turn)
          )
        }
      }
    }), 60_000)
})

describe("the journal of ScriptedModel", () => {
  it.effect("the journal marks interrupted calls, including those that their consumer left", () =>
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
      yield* runFor("1 second", Effect.provide(Stream.runDrain(Stream.take(stream(), 4)), model.layer))
      // A consumer that has the finish part has everything.
      yield* Stream.runDrain(Stream.takeUntil(stream(), ({ type }) => type === "finish")).pipe(
        Effect.provide(model.layer)
      )
      const late = yield* Effect.forkChild(Effect.exit(whole(model)))
      yield* TestClock.adjust("500 millis")
      yield* Fiber.interrupt(late)
      assert.deepStrictEqual(yield* endings(model), ["interrupted", "interrupted", "complete", "interrupted"])
      assert.strictEqual(yield* model.open, 0)
    }))

  it.effect("the journal counts attempts by the retry or by equal prompts, and has the idempotency key", () =>
    Effect.gen(function*() {
      const model = yield* scripted([Turn.status(503), Turn.status(503), Turn.answer("ok")])
      const policy = RetryPolicy.exponential({ maxAttempts: 3, baseDelay: Duration.seconds(1), jitter: "none" })
      const retried = RetryPolicy.retry(whole(model, "a"), policy, { classify: AiOutcome.classify }).pipe(
        Effect.provideService(IdempotencyKey.CurrentIdempotencyKey, "k1")
      )
      yield* runFor("1 minute", retried)
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

  it.effect("the journal shows how many calls were open at once", () =>
    Effect.gen(function*() {
      const model = yield* scripted([Turn.answer("a", { firstTokenMillis: 1000 })])
      yield* runFor(
        "1 second",
        Effect.forEach(["a", "b", "c"], (prompt) => whole(model, prompt), { concurrency: 2 }).pipe(
          Effect.timeoutOption("900 millis")
        )
      )
      assert.strictEqual(Journal.maxOpen(yield* model.journal), 2)
    }))

  it.effect("the journal is unchanged after encoding and decoding", () =>
    Effect.gen(function*() {
      const model = yield* scripted([Turn.status(429, { retryAfter: 5 }), Turn.answer("a")])
      yield* Effect.ignore(whole(model))
      yield* whole(model)
      const calls = yield* model.journal
      assert.deepStrictEqual(throughJson(Schema.Array(ScriptedModel.Call), calls), calls)
    }))
})

it.effect("two models in one test share no state", () =>
  Effect.gen(function*() {
    const [a, b] = [yield* scripted([Turn.status(503)]), yield* scripted([Turn.answer("b")])]
    const answer = yield* whole(a).pipe(Effect.catch(() => whole(b)))
    assert.strictEqual(answer.text, "b")
    assert.deepStrictEqual([yield* endings(a), yield* endings(b)], [["failed"], ["complete"]])
  }).pipe(Effect.provide(Layer.empty)))
