import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import {
  anthropic,
  events,
  type Fragment,
  key,
  lastEntry,
  loopbackWires,
  makeProvider,
  messages,
  openai,
  post
} from "../support/loopbackWires.ts"

for (const wire of loopbackWires) {
  describe(`answers over the ${wire.name} wire`, () => {
    const { send } = wire

    it.live("an answer is whole or streamed, with its token counts and its end", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.answer("e f g", { usage: { inputTokens: 70, outputTokens: 40 } })])
        const whole = yield* send(provider, false)
        assert.deepStrictEqual(wire.whole(whole.body), ["e f g", wire.finish.stop])
        const streamed = yield* send(provider, true)
        assert.deepStrictEqual(wire.streamed(streamed.body), ["e f g", wire.finish.stop])
        assert.include(streamed.headers["content-type"], "text/event-stream")
        assert.include(streamed.body, wire.last)
        for (const { body } of [whole, streamed]) {
          assert.match(body, /"(prompt|input)_tokens":70/)
          assert.match(body, /"(completion|output)_tokens":40/)
        }
        const journal = yield* provider.journal
        assert.deepStrictEqual(journal.map((entry) => [entry.wire, entry.stream, entry.turn, entry.ending]), [
          [wire.name, false, "Answer", "complete"],
          [wire.name, true, "Answer", "complete"]
        ])
        assert.strictEqual(new Set(journal.map(({ answer }) => answer)).size, 1)
        assert.deepInclude(journal[1], { inputTokens: 70, outputTokens: 40 })
      }))

    it.live("an answer without content has the answerer's text, cut at max_tokens", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.answer()])
        assert.deepStrictEqual(wire.whole((yield* send(provider, false)).body)[0], "a b c d")
        const [text, finish] = wire.whole((yield* send(provider, false, { max_tokens: 2 })).body)
        assert.deepStrictEqual([text, finish], ["a b", wire.name === "openai" ? "length" : "max_tokens"])
      }))

    it.live("an answer can have no token counts, no last event and another finish reason", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([
          Turn.answer("e f", { usage: "none", done: false, finish: "content-filter" })
        ])
        const { body } = yield* send(provider, true)
        assert.deepStrictEqual(wire.streamed(body), ["e f", wire.name === "openai" ? "content_filter" : "refusal"])
        assert.notInclude(body, wire.last)
        assert.notInclude(body, "_tokens")
        assert.notInclude((yield* send(provider, false)).body, "_tokens")
      }))

    it.live("an empty answer is complete without text", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.empty()])
        assert.deepStrictEqual(wire.whole((yield* send(provider, false)).body), ["", wire.finish.stop])
        assert.deepStrictEqual(wire.streamed((yield* send(provider, true)).body), ["", wire.finish.stop])
      }))

    it.live("noFinish sends all text and ends without a finish reason", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.noFinish()])
        const { body, broke } = yield* send(provider, true)
        assert.deepStrictEqual([...wire.streamed(body), broke], ["a b c d", undefined, false])
        assert.include(body, wire.last)
        assert.deepStrictEqual(wire.whole((yield* send(provider, false)).body), ["a b c d", null])
      }))

    it.live("an answer can have reasoning and tool calls", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([
          Turn.answer([
            { type: "reasoning", text: "hm hm" },
            { type: "text", text: "let me see" },
            { type: "tool-call", name: "weather", params: { city: "New York" }, id: "t1" },
            { type: "tool-call", name: "clock", params: {} }
          ])
        ])
        const tools = wire.name === "openai"
          ? [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }]
          : [{ name: "weather", input_schema: { type: "object" } }]
        const whole = yield* send(provider, false, { tools })
        assert.deepStrictEqual(wire.whole(whole.body), ["let me see", wire.finish.tools])
        const { body } = yield* send(provider, true, { tools })
        assert.deepStrictEqual(wire.streamed(body), ["let me see", wire.finish.tools])
        if (wire.name === "openai") {
          const { message } = JSON.parse(whole.body).choices[0]
          assert.strictEqual(message.reasoning_content, "hm hm")
          assert.deepStrictEqual(
            message.tool_calls.map((call: Fragment & { readonly id: string }) => [call.id, call.function]),
            [
              ["t1", { name: "weather", arguments: "{\"city\":\"New York\"}" }],
              ["call_loopback_1_3", { name: "clock", arguments: "{}" }]
            ]
          )
          const fragments = events(body).flatMap(({ choices }) => choices?.[0]?.delta.tool_calls ?? [])
          assert.strictEqual(
            fragments.filter(({ index }) => index === 0).map((call) => call.function.arguments).join(""),
            "{\"city\":\"New York\"}"
          )
        } else {
          const { content } = JSON.parse(whole.body)
          assert.deepStrictEqual(content.map(({ type }: { type: string }) => type), [
            "thinking",
            "text",
            "tool_use",
            "tool_use"
          ])
          assert.deepStrictEqual(content[2].input, { city: "New York" })
          const named = events(body).filter(({ type }) => type !== "content_block_delta").map(({ type }) => type)
          const block = ["content_block_start", "content_block_stop"]
          assert.deepStrictEqual(named, [
            "message_start",
            "ping",
            ...block,
            ...block,
            ...block,
            ...block,
            "message_delta",
            "message_stop"
          ])
          assert.strictEqual(
            events(body).map(({ delta }) => delta?.partial_json ?? "").join(""),
            "{\"city\":\"New York\"}{}"
          )
        }
      }))

    it.live("a turn has its own pace", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([
          Turn.answer("a b c d e", { firstTokenMillis: 40, tokenMillis: 10, tokensPerChunk: 2 })
        ])
        const { body } = yield* send(provider, true)
        assert.include(body, JSON.stringify("a b"))
        assert.include(body, JSON.stringify(" c d"))
        const { ended, firstByte, received } = yield* lastEntry(provider)
        assert.isAtLeast(firstByte!.monotonic - received.monotonic, 38)
        assert.isAtLeast(ended!.monotonic - firstByte!.monotonic, 28)
      }))

    it.live("a delayed turn sends nothing before its delay has passed", () =>
      Effect.gen(function*() {
        const provider = yield* makeProvider([Turn.delay(Turn.status(503), "60 millis")])
        assert.strictEqual((yield* send(provider, true)).status, 503)
        const { firstByte, received } = yield* lastEntry(provider)
        assert.isAtLeast(firstByte!.monotonic - received.monotonic, 58)
      }))

    it.live("a function chooses the turn, and the script applies where it returns none", () =>
      Effect.gen(function*() {
        const requests: Array<Turn.Request> = []
        const provider = yield* makeProvider((request) => {
          requests.push(request)
          return request.attempt === 1 ? Turn.status(500) : undefined
        }, { script: { faults: { unavailable: 1 }, faultyAttempts: 9 } })
        assert.strictEqual((yield* send(provider, true)).status, 500)
        assert.strictEqual((yield* send(provider, false, {}, { "x-sluice-attempt": "2" })).status, 503)
        assert.deepInclude(requests[1], { n: 2, attempt: 2, prompt: "hi", model: "m1", wire: wire.name, stream: false })
        assert.isAbove(requests[1]!.at, 0)
        assert.deepStrictEqual((yield* provider.journal).map(({ fault, turn }) => [turn, fault]), [
          ["Status", undefined],
          [undefined, "unavailable"]
        ])
      }))
  })
}

describe("one provider over both wires", () => {
  it.live("both wires share one outage, one list of turns and one journal", () =>
    Effect.gen(function*() {
      const provider = yield* makeProvider([Turn.answer("one"), Turn.answer("two")])
      assert.strictEqual(openai.whole((yield* openai.send(provider, false)).body)[0], "one")
      assert.strictEqual(anthropic.whole((yield* anthropic.send(provider, false)).body)[0], "two")
      yield* provider.down
      for (const wire of loopbackWires) {
        const { body, status } = yield* wire.send(provider, true)
        assert.strictEqual(status, 503)
        wire.error(body)
      }
      const journal = yield* provider.journal
      assert.deepStrictEqual(journal.map(({ attempt, down, wire }) => [wire, attempt, down]), [
        ["openai", 1, false],
        ["anthropic", 2, false],
        ["openai", 3, true],
        ["anthropic", 4, true]
      ])
    }))

  it.live("each wire lists the models in its own form", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ models: ["m1", "m2"] })
      const get = (headers: Record<string, string>) =>
        Effect.promise(() => fetch(`${provider.url}/models`, { headers }).then((response) => response.json()))
      assert.deepInclude(yield* get({ authorization: `Bearer ${key(provider)}` }), { object: "list" })
      assert.deepInclude(yield* get({ "x-api-key": key(provider), "anthropic-version": "2023-06-01" }), {
        first_id: "m1",
        last_id: "m2",
        has_more: false
      })
    }))

  it.live("Anthropic's wire requires a version and max_tokens and has a separate system text", () =>
    Effect.gen(function*() {
      const questions: Array<unknown> = []
      const provider = yield* LoopbackProvider.make({
        answer: ({ messages }) => Effect.sync(() => (questions.push(messages), { text: "ok" }))
      })
      const noVersion = yield* post(`${provider.url}/messages`, { "x-api-key": key(provider) }, {
        model: "m1",
        max_tokens: 5,
        messages
      })
      assert.deepStrictEqual([noVersion.status, anthropic.error(noVersion.body)[1]], [
        400,
        "anthropic-version: header is required"
      ])
      const noLimit = yield* anthropic.send(provider, false, { max_tokens: undefined })
      assert.deepStrictEqual([noLimit.status, anthropic.error(noLimit.body)[1].includes("max_tokens")], [400, true])
      yield* anthropic.send(provider, false, {
        system: [{ type: "text", text: "be brief" }],
        messages: [
          ...messages,
          { role: "assistant", content: [{ type: "tool_use", id: "t1", name: "t", input: {} }] },
          { role: "user", content: [{ type: "tool_result", tool_use_id: "t1", content: "sun" }] }
        ]
      })
      assert.deepStrictEqual(questions, [[
        { role: "system", content: "be brief" },
        { role: "user", content: "hi" },
        { role: "assistant", content: "" },
        { role: "tool", content: "" }
      ]])
    }))
})
