import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, ExecutionPlan, Layer, Result, Schema, SchemaGetter, Stream } from "effect"
import {
  AiError,
  Chat,
  LanguageModel,
  Model,
  type Prompt,
  type Response,
  ResponseIdTracker,
  Tool,
  Toolkit
} from "effect/ai"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as Turn from "@sluice/ai/testing/Turn"
import { atOnce, build, plainRetry, readAll, runFor, summaryOf, valueOf } from "./support/resilient.ts"

// Compares the parts of a resilient model with those of its bare target.

const Clock = Tool.make("clock", {
  parameters: Schema.Struct({
    at: Schema.DateFromString,
    zone: Schema.String.pipe(Schema.withDecodingDefault(Effect.succeed("UTC")))
  }),
  success: Schema.DateFromString
})
const Search = Tool.providerDefined({
  id: "acme.search",
  customName: "Search",
  providerName: "search",
  args: Schema.Struct({}),
  parameters: Schema.Struct({ query: Schema.String }),
  success: Schema.Struct({ found: Schema.DateFromString })
})({})

const tools = Toolkit.make(Clock, Search)

/** The toolkit with a handler that records its runs. */
const recordingTools = () => {
  const runs: Array<Date> = []
  const handlers = tools.toLayer({
    clock: ({ at }) =>
      Effect.sync(() => {
        runs.push(at)
        return new Date(at.getTime() + 1000)
      })
  })
  return { runs, toolkit: Effect.provide(tools, handlers) }
}

const at = "2026-01-02T03:04:05.000Z"

const both: ReadonlyArray<Response.PartEncoded & Response.StreamPartEncoded> = [
  { type: "response-metadata", id: "r1", modelId: "m1-2026", timestamp: at },
  { type: "file", mediaType: "image/png", data: "AAEC", metadata: { acme: { a: 1 } } },
  { type: "source", sourceType: "url", id: "s1", url: "https://example.com/a?b", title: "T" },
  { type: "source", sourceType: "document", id: "s2", mediaType: "text/plain", title: "D", fileName: "d.txt" },
  { type: "tool-call", id: "p1", name: "Search", params: { query: "q" }, providerExecuted: true },
  {
    type: "tool-result",
    id: "p1",
    name: "Search",
    result: { found: at },
    isFailure: false,
    providerExecuted: true
  },
  { type: "tool-call", id: "t1", name: "clock", params: { at } }
]
const finish: Response.FinishPartEncoded = {
  type: "finish",
  reason: "tool-calls",
  usage: {
    inputTokens: { uncached: 1, total: 3, cacheRead: 2, cacheWrite: undefined },
    outputTokens: { total: 4, text: 3, reasoning: 1 }
  },
  response: {
    status: 200,
    headers: { "x-a": "b" }
  } as unknown as undefined,
  metadata: { acme: { tier: "gold" } }
}
const whole: ReadonlyArray<Response.PartEncoded> = [
  { type: "reasoning", text: "hm", metadata: { acme: { signature: "sig" } } },
  { type: "text", text: "hello" },
  ...both,
  { ...finish, response: undefined }
]
const streamed: ReadonlyArray<Response.StreamPartEncoded> = [
  { type: "reasoning-start", id: "1", metadata: { acme: { s: 1 } } },
  { type: "reasoning-delta", id: "1", delta: "hm", metadata: { acme: { signature: "sig" } } },
  { type: "reasoning-end", id: "1" },
  { type: "text-start", id: "2" },
  { type: "text-delta", id: "2", delta: "hello" },
  { type: "text-end", id: "2" },
  { type: "tool-params-start", id: "t1", name: "clock", providerExecuted: false },
  { type: "tool-params-delta", id: "t1", delta: JSON.stringify({ at }) },
  { type: "tool-params-end", id: "t1" },
  ...both,
  { ...finish, response: undefined }
]

const overloaded = AiError.make({
  module: "Test",
  method: "test",
  reason: new AiError.InternalProviderError({ description: "overloaded" })
})

/** A model that fails `failures` times and then answers with these parts. */
const modelOf = (
  failures: number,
  wholeParts: ReadonlyArray<Response.PartEncoded> = whole,
  streamedParts: ReadonlyArray<Response.StreamPartEncoded> = streamed,
  codecTransformer?: typeof LanguageModel.defaultCodecTransformer
) => {
  let failuresLeft = failures
  return LanguageModel.make({
    generateText: () =>
      Effect.suspend(() => failuresLeft-- > 0 ? Effect.fail(overloaded) : Effect.succeed([...wholeParts])),
    streamText: () =>
      Stream.suspend(() =>
        failuresLeft-- > 0
          ? Stream.fail(overloaded)
          : Stream.rechunk(Stream.fromIterable(streamedParts), 1)
      ),
    ...(codecTransformer === undefined ? {} : { codecTransformer })
  })
}

const resilient = (inner: LanguageModel.LanguageModel) =>
  Effect.map(
    Layer.build(ResilientModel.layer({
      retry: plainRetry(),
      targets: [{ name: "A", layer: Layer.succeed(LanguageModel.LanguageModel, inner) }]
    })),
    (context) => (context.mapUnsafe.get(LanguageModel.LanguageModel.key)) as LanguageModel.LanguageModel
  )

/** A value with the names of its constructors and without Sluice's metadata. */
const shape = (value: unknown): unknown => {
  if (typeof value !== "object" || value === null) return value
  if (value instanceof Uint8Array || value instanceof Date || value instanceof URL) {
    return [value.constructor.name, String(value)]
  }
  if (DateTime.isDateTime(value)) return ["DateTime", DateTime.formatIso(value)]
  if (Array.isArray(value)) return value.map(shape)
  const { constructor } = Object.getPrototypeOf(value) ?? {}
  const entries = Reflect.ownKeys(value).flatMap((key) => {
    const inner = Reflect.get(value, key)
    if (key === "sluice") return []
    return [[String(key), shape(inner)]]
  })
  return [constructor?.name, Object.fromEntries(entries)]
}

const bareAndOurs = (makeModel: (failures: number) => Effect.Effect<LanguageModel.LanguageModel>) =>
  Effect.gen(function*() {
    return { bare: yield* makeModel(0), ours: yield* resilient(yield* makeModel(1)) }
  })

describe("a resilient model and its bare target", () => {
  it.effect("a whole answer without a toolkit has the parts of the bare model", () =>
    Effect.gen(function*() {
      const toolFreeParts = whole.filter(({ type }) => !type.startsWith("tool-"))
      const { bare, ours } = yield* bareAndOurs((failures) => modelOf(failures, toolFreeParts))
      const expected = yield* bare.generateText({ prompt: "hi" })
      const actual = valueOf(yield* runFor("1 second", ours.generateText({ prompt: "hi" })))
      assert.deepStrictEqual(shape(actual.content), shape(expected.content))
      assert.strictEqual(Object.getPrototypeOf(actual), Object.getPrototypeOf(expected))
      assert.deepStrictEqual(
        [actual.text, actual.finishReason, actual.reasoningText, shape(actual.usage)],
        [expected.text, expected.finishReason, expected.reasoningText, shape(expected.usage)]
      )
    }))

  it.effect("a stream without a toolkit has the parts of the bare model", () =>
    Effect.gen(function*() {
      const toolFreeParts = streamed.filter(({ type }) => !type.startsWith("tool-"))
      const { bare, ours } = yield* bareAndOurs((failures) => modelOf(failures, [], toolFreeParts))
      const expected = yield* Stream.runCollect(bare.streamText({ prompt: "hi" }))
      const actual = valueOf(yield* runFor("1 second", Stream.runCollect(ours.streamText({ prompt: "hi" }))))
      assert.deepStrictEqual(shape(actual), shape(expected))
    }))

  it.effect("a whole answer with a toolkit has every kind of part of the bare model, and the tool runs once", () =>
    Effect.gen(function*() {
      const { bare, ours } = yield* bareAndOurs((failures) => modelOf(failures))
      const bareTools = recordingTools()
      const ourTools = recordingTools()
      const expected = yield* bare.generateText({ prompt: "hi", toolkit: bareTools.toolkit })
      const actual = valueOf(
        yield* runFor("1 second", ours.generateText({ prompt: "hi", toolkit: ourTools.toolkit }))
      )
      assert.deepStrictEqual(shape(actual.content), shape(expected.content))
      assert.strictEqual(expected.content.length, whole.length + 1)
      assert.deepStrictEqual(ourTools.runs, [new Date(at)])
      assert.deepStrictEqual(shape(actual.toolResults), shape(expected.toolResults))
    }))

  it.effect("a stream with a toolkit has every kind of part of the bare model, and the tool runs once", () =>
    Effect.gen(function*() {
      const { bare, ours } = yield* bareAndOurs((failures) => modelOf(failures))
      const bareTools = recordingTools()
      const ourTools = recordingTools()
      const expected = yield* Stream.runCollect(bare.streamText({ prompt: "hi", toolkit: bareTools.toolkit }))
      const actual = valueOf(
        yield* runFor("1 second", Stream.runCollect(ours.streamText({ prompt: "hi", toolkit: ourTools.toolkit })))
      )
      assert.deepStrictEqual(shape(actual), shape(expected))
      assert.strictEqual(ourTools.runs.length, 1)
    }))

  it.effect("answers with disabled tool resolution or deferred validation have the parts of the bare model", () =>
    Effect.gen(function*() {
      const bad: ReadonlyArray<Response.PartEncoded & Response.StreamPartEncoded> = [
        { type: "tool-call", id: "t1", name: "clock", params: { at } },
        { ...finish, response: undefined }
      ]
      for (const toolCallValidation of ["strict", "deferred"] as const) {
        const { bare, ours } = yield* bareAndOurs((failures) => modelOf(failures, bad, bad))
        const ourTools = recordingTools()
        const options = {
          prompt: "hi",
          toolkit: ourTools.toolkit,
          disableToolCallResolution: true,
          ...(toolCallValidation === "deferred" ? { toolCallValidation } : {})
        } as const
        const expected = yield* bare.generateText(options)
        const actual = valueOf(yield* runFor("1 second", ours.generateText(options)))
        assert.deepStrictEqual(shape(actual.content), shape(expected.content))
        const expectedParts = yield* Stream.runCollect(bare.streamText(options))
        const actualParts = valueOf(yield* runFor("1 second", Stream.runCollect(ours.streamText(options))))
        assert.deepStrictEqual(shape(actualParts), shape(expectedParts))
        assert.strictEqual(ourTools.runs.length, 0)
      }
    }))

  it.effect("an object is the same, even if the provider encodes optional fields in its own form", () =>
    Effect.gen(function*() {
      const Person = Schema.Struct({ name: Schema.String, nick: Schema.optionalKey(Schema.String) })
      // The encoding of OpenAI: an absent optional field is null.
      const nullable = ((schema: Schema.Top) => ({
        codec: Schema.Struct({ name: Schema.String, nick: Schema.NullOr(Schema.String) }).pipe(
          Schema.decodeTo(Schema.toType(schema) as never, {
            decode: SchemaGetter.transform(({ name, nick }: { name: string; nick: string | null }) =>
              nick === null ? { name } : { name, nick }
            ),
            encode: SchemaGetter.transform(({ name, nick }: { name: string; nick?: string }) => ({
              name,
              nick: nick ?? null
            }))
          } as never)
        ),
        jsonSchema: {}
      })) as unknown as typeof LanguageModel.defaultCodecTransformer
      const parts: ReadonlyArray<Response.PartEncoded> = [
        { type: "text", text: "{\"name\":\"Ada\",\"nick\":null}" },
        { ...finish, reason: "stop", response: undefined }
      ]
      const { bare, ours } = yield* bareAndOurs((failures) => modelOf(failures, parts, [], nullable))
      const expected = yield* bare.generateObject({ prompt: "who?", schema: Person })
      assert.deepStrictEqual(expected.value, { name: "Ada" })
      const actual = valueOf(yield* runFor("1 second", ours.generateObject({ prompt: "who?", schema: Person })))
      assert.deepStrictEqual(actual.value, expected.value)
      assert.deepStrictEqual(shape(actual.content), shape(expected.content))
      const ourTools = recordingTools()
      const withTools = yield* ours.generateObject({ prompt: "who?", schema: Person, toolkit: ourTools.toolkit })
      assert.deepStrictEqual(withTools.value, expected.value)
    }))
})

const Send = Tool.make("send", {
  parameters: Schema.Struct({ to: Schema.String }),
  success: Schema.String,
  failure: Schema.String
})
const sending = Toolkit.make(Send)

describe("tools of a resilient model", () => {
  const calls = Turn.toolCall("send", { to: "Ada" })

  it.effect("a retried call runs its tool once", () =>
    Effect.gen(function*() {
      let runs = 0
      const toolkit = Effect.provide(sending, sending.toLayer({ send: () => Effect.sync(() => `sent ${++runs}`) }))
      const turns = [Turn.status(503), Turn.error({ type: "overloaded_error", message: "Overloaded" }), calls]
      const { model, targetCalls } = yield* build({ A: turns })
      const response = valueOf(yield* runFor("3 seconds", model.generateText({ prompt: "hi", toolkit })))
      assert.strictEqual(response.toolResults[0]?.result, "sent 1")
      assert.deepStrictEqual([runs, (yield* targetCalls).length], [1, 3])
    }))

  it.effect("a retried stream runs its tool once", () =>
    Effect.gen(function*() {
      let runs = 0
      const toolkit = Effect.provide(sending, sending.toLayer({ send: () => Effect.sync(() => `sent ${++runs}`) }))
      const { model, targetCalls } = yield* build({ A: [Turn.status(503), calls] })
      const { end, parts } = valueOf(
        yield* runFor("1 second", readAll(model.streamText({ prompt: "hi", toolkit })))
      )
      assert.strictEqual(end, "end")
      assert.isTrue(parts.includes("tool-result"))
      assert.deepStrictEqual([runs, (yield* targetCalls).length], [1, 2])
    }))

  it.effect("a call whose tool fails is not retried", () =>
    Effect.gen(function*() {
      let runs = 0
      const toolkit = Effect.provide(
        sending,
        sending.toLayer({
          send: () =>
            Effect.suspend(() => {
              runs++
              return Effect.fail("no such address")
            })
        })
      )
      const { model, targetCalls } = yield* build({ A: [calls] })
      const exit = yield* runFor("1 minute", Effect.result(model.generateText({ prompt: "hi", toolkit })))
      const result = valueOf(exit)
      assert.isTrue(Result.isFailure(result) && result.failure === "no such address")
      assert.deepStrictEqual([runs, (yield* targetCalls).length], [1, 1])
    }))

  it.effect("a call of an unknown tool is unusable and is re-asked once", () =>
    Effect.gen(function*() {
      const toolkit = Effect.provide(sending, sending.toLayer({ send: () => Effect.succeed("sent") }))
      const { model, targetCalls } = yield* build({ A: [Turn.toolCall("fly", {}), calls] })
      const response = valueOf(yield* runFor(0, model.generateText({ prompt: "hi", toolkit })))
      assert.strictEqual(response.toolResults.length, 1)
      assert.strictEqual((yield* targetCalls).length, 2)
    }))
})

const Approve = Tool.make("pay", {
  parameters: Schema.Struct({ at: Schema.DateFromString }),
  success: Schema.String,
  needsApproval: true
})
const paying = Toolkit.make(Approve)

describe("Chat with a resilient model", () => {
  it.effect("a chat keeps its history over retries and runs an approved tool once, whole and streamed", () =>
    Effect.gen(function*() {
      for (const isStreamed of [false, true]) {
        let runs = 0
        const toolkit = Effect.provide(
          paying,
          paying.toLayer({ pay: ({ at }) => Effect.sync(() => `paid ${++runs} on ${at.toISOString()}`) })
        )
        const { context, targetCalls } = yield* build({
          A: [Turn.status(503), Turn.toolCall("pay", { at }), Turn.status(503), Turn.answer("done")]
        })
        const conversation = Effect.gen(function*() {
          const chat = yield* Chat.empty
          const say = (prompt: Prompt.RawInput) =>
            isStreamed
              ? Effect.map(Stream.runCollect(chat.streamText({ prompt, toolkit })), (parts) => ({
                request: parts.find((part) => part.type === "tool-approval-request"),
                text: parts.map((part) => part.type === "text-delta" ? part.delta : "").join("")
              }))
              : Effect.map(chat.generateText({ prompt, toolkit }), ({ content, text }) => ({
                request: content.find((part) => part.type === "tool-approval-request"),
                text
              }))
          const { request } = yield* say("pay")
          assert.strictEqual(runs, 0)
          const approvalId = request?.approvalId ?? ""
          const { text } = yield* say([{
            role: "tool",
            content: [{ type: "tool-approval-response", approvalId, approved: true }]
          }])
          return text
        })
        const exit = yield* runFor("1 minute", Effect.provideContext(conversation, context))
        assert.strictEqual(summaryOf(exit), "done")
        assert.deepStrictEqual([runs, (yield* targetCalls).length], [1, 4])
      }
    }))
})

describe("ExecutionPlan with a resilient model", () => {
  it.effect("a plan makes all attempts of a resilient model and then moves to its next step", () =>
    Effect.gen(function*() {
      const ours = yield* build({ A: [Turn.status(503)] }, { retry: plainRetry({ maxAttempts: 2 }) })
      const other = yield* build({ B: [Turn.answer("from the plan")] })
      const step = (model: LanguageModel.LanguageModel, name: string) =>
        Model.make("test", name, Layer.succeed(LanguageModel.LanguageModel, model))
      const plan = ExecutionPlan.make({ provide: step(ours.model, "ours"), attempts: 1 }, {
        provide: step(other.model, "other")
      })
      const text = Effect.map(LanguageModel.generateText({ prompt: "hi" }), (response) => response.text)
      assert.strictEqual(summaryOf(yield* runFor("1 minute", Effect.withExecutionPlan(text, plan))), "from the plan")
      assert.strictEqual((yield* ours.targetCalls).length, 2)
      const streamed = Stream.withExecutionPlan(LanguageModel.streamText({ prompt: "hi" }), plan)
      assert.strictEqual(valueOf(yield* runFor("1 minute", readAll(streamed))).text, "from the plan")
    }))
})

describe("capabilities of a resilient model", () => {
  it.effect("system messages in the history are supported if every target supports them", () =>
    Effect.gen(function*() {
      const modelWith = (supports: boolean) =>
        LanguageModel.make({
          generateText: () => Effect.die("not used"),
          streamText: () => Stream.die("not used"),
          supportsSystemMessagesInHistory: Effect.succeed(supports)
        })
      for (const [first, second] of [[true, true], [true, false], [false, false]] as const) {
        const layer = ResilientModel.layer({
          targets: [
            { name: "A", layer: Layer.effect(LanguageModel.LanguageModel, modelWith(first)) },
            { name: "B", layer: Layer.effect(LanguageModel.LanguageModel, modelWith(second)) }
          ]
        })
        const supports = LanguageModel.LanguageModel.use((model) =>
          Effect.succeed(model.supportsSystemMessagesInHistory)
        )
        const answer = yield* Effect.provide(supports, layer)
        assert.strictEqual(yield* answer ?? Effect.succeed(false), first && second)
      }
    }))
})

/** Two targets that track conversations by response id, the requests that they got, and a switch that takes A down. */
const tracking = () => {
  const requests: Array<string> = []
  const state = { isDown: false }
  const tracked = (name: string) =>
    LanguageModel.make({
      generateText: ({ incrementalPrompt, previousResponseId }) =>
        Effect.suspend(() => {
          const messages = incrementalPrompt === undefined ? "all" : `${incrementalPrompt.content.length}`
          if (state.isDown && name === "A") return Effect.fail(overloaded)
          requests.push(`${name} ${previousResponseId ?? "-"} ${messages}`)
          return Effect.succeed<Array<Response.PartEncoded>>([
            { type: "response-metadata", id: `${name}${requests.length}`, modelId: name, timestamp: undefined },
            { type: "text", text: "ok" },
            { ...finish, reason: "stop", response: undefined }
          ])
        }),
      streamText: () => Stream.die("not used")
    })
  const layer = ResilientModel.layer({
    ...atOnce,
    targets: [
      { name: "A", layer: Layer.effect(LanguageModel.LanguageModel, tracked("A")) },
      { name: "B", layer: Layer.effect(LanguageModel.LanguageModel, tracked("B")) }
    ]
  })
  return { requests, layer, state }
}

describe("ResponseIdTracker with a resilient model", () => {
  it.effect("each target has its own response ids, which a switch of the target clears", () =>
    Effect.gen(function*() {
      const { requests, layer, state } = tracking()
      const conversation = Effect.gen(function*() {
        const chat = yield* Chat.empty
        for (const down of [false, false, true, true, false, false]) {
          state.isDown = down
          yield* chat.generateText({ prompt: "go on" })
        }
      })
      const tracker = yield* ResponseIdTracker.make
      yield* conversation.pipe(
        Effect.provideService(ResponseIdTracker.ResponseIdTracker, tracker),
        Effect.provide(layer)
      )
      assert.deepStrictEqual(requests.map((line) => line.slice(0, 4)), ["A - ", "A A1", "B - ", "B B3", "A - ", "A A5"])
    }))

  it.effect("the response id of a failed stream is dropped when another target answers", () =>
    Effect.gen(function*() {
      const requests: Array<string> = []
      let isDown = true
      const tracked = (name: string) =>
        LanguageModel.make({
          generateText: () => Effect.die("not used"),
          streamText: ({ previousResponseId }) => {
            requests.push(`${name} ${previousResponseId ?? "-"}`)
            const head: Response.StreamPartEncoded = { type: "response-metadata", id: `${name}${requests.length}` }
            return isDown && name === "A"
              ? Stream.concat(Stream.make(head), Stream.fail(overloaded))
              : Stream.make<Array<Response.StreamPartEncoded>>(
                head,
                { type: "text-delta", id: "1", delta: "ok" },
                { ...finish, reason: "stop", response: undefined }
              )
          }
        })
      const layer = ResilientModel.layer({
        ...atOnce,
        targets: [
          { name: "A", layer: Layer.effect(LanguageModel.LanguageModel, tracked("A")) },
          { name: "B", layer: Layer.effect(LanguageModel.LanguageModel, tracked("B")) }
        ]
      })
      const conversation = Effect.gen(function*() {
        const chat = yield* Chat.empty
        yield* Stream.runDrain(chat.streamText({ prompt: "one" }))
        isDown = false
        yield* Stream.runDrain(chat.streamText({ prompt: "two" }))
      })
      const tracker = yield* ResponseIdTracker.make
      yield* conversation.pipe(
        Effect.provideService(ResponseIdTracker.ResponseIdTracker, tracker),
        Effect.provide(layer)
      )
      assert.deepStrictEqual(requests, ["A -", "B -", "A -"])
    }))

  it.effect("the response id of a failed attempt is dropped before the same target is called again", () =>
    Effect.gen(function*() {
      const requests: Array<string> = []
      const tracked = LanguageModel.make({
        generateText: () => Effect.die("not used"),
        streamText: ({ incrementalPrompt, previousResponseId, prompt }) => {
          requests.push(`${previousResponseId ?? "-"} ${(incrementalPrompt ?? prompt).content.length}`)
          const head: Response.StreamPartEncoded = { type: "response-metadata", id: `r${requests.length}` }
          return requests.length === 2
            ? Stream.concat(Stream.make(head), Stream.fail(overloaded))
            : Stream.make<Array<Response.StreamPartEncoded>>(
              head,
              { type: "text-start", id: "1" },
              { type: "text-delta", id: "1", delta: "ok" },
              { type: "text-end", id: "1" },
              { ...finish, reason: "stop", response: undefined }
            )
        }
      })
      const layer = ResilientModel.layer({
        retry: plainRetry(),
        targets: [{ name: "A", layer: Layer.effect(LanguageModel.LanguageModel, tracked) }]
      })
      const conversation = Effect.gen(function*() {
        const chat = yield* Chat.empty
        yield* Stream.runDrain(chat.streamText({ prompt: "one" }))
        yield* Stream.runDrain(chat.streamText({ prompt: "two" }))
      })
      const tracker = yield* ResponseIdTracker.make
      yield* runFor(
        "1 second",
        conversation.pipe(Effect.provideService(ResponseIdTracker.ResponseIdTracker, tracker), Effect.provide(layer))
      )
      assert.deepStrictEqual(requests, ["- 1", "r1 1", "- 3"])
    }))

  it.effect("two layers with a target of the same name do not share response ids", () =>
    Effect.gen(function*() {
      const one = tracking()
      const two = tracking()
      const chat = yield* Chat.empty
      const tracker = yield* ResponseIdTracker.make
      for (const { layer } of [one, two]) {
        yield* chat.generateText({ prompt: "go on" }).pipe(
          Effect.provideService(ResponseIdTracker.ResponseIdTracker, tracker),
          Effect.provide(layer)
        )
      }
      assert.deepStrictEqual([one.requests, two.requests], [["A - all"], ["A - all"]])
    }))
})

describe("duplicate finish parts", () => {
  it.effect("a second finish part is not handed on", () =>
    Effect.gen(function*() {
      const last = { ...finish, reason: "stop", response: undefined } as const
      const model = yield* resilient(
        yield* modelOf(0, [{ type: "text", text: "ok" }, last, last], [
          { type: "text-delta", id: "1", delta: "ok" },
          last,
          last
        ])
      )
      const response = yield* model.generateText({ prompt: "hi" })
      assert.deepStrictEqual(response.content.map(({ type }) => type), ["text", "finish"])
      const { end, parts } = yield* readAll(model.streamText({ prompt: "hi" }))
      assert.deepStrictEqual([...parts, end], ["text-delta", "finish", "end"])
    }))
})
