import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import { type Call, chunk, done, endsWithin, got, piece, table } from "../support/cases.ts"
import { blockDelta, blockStart, blockStop, messageDelta, messageStart, namedEvent } from "../support/wires.ts"

const text = (content: string, finish: string | null = null) => chunk({ content }, finish)
const usage = (prompt_tokens: number, completion_tokens: number) =>
  `data: ${JSON.stringify({ choices: [], usage: { prompt_tokens, completion_tokens } })}\n\n`
const block = (index: number, content: string) =>
  blockStart(index, { type: "text", text: "" }) + blockDelta(index, { type: "text_delta", text: content }) +
  blockStop(index)
const stop = namedEvent({ type: "message_stop" })

describe("content after a finish reason", () => {
  table([
    {
      report: "litellm 2195",
      title: "text after a finish reason is kept, up to the end of the stream",
      stream: [text("one ", "stop"), 700, text("two ", "stop"), 700, text("three", "stop"), done],
      right: { text: "one two three", finish: "stop" }
    },
    {
      report: "gcli2api 403",
      title: "an answer after the finish reason of its thoughts is kept",
      stream: [chunk({ reasoning_content: "hm" }, "stop"), 1500, text("391", "stop"), done],
      right: { thoughts: "hm", text: "391", finish: "stop" }
    },
    {
      report: "openrag 462",
      title: "a finish reason in the last chunk with text and in an empty one after it is one end",
      stream: [text("all of it", "stop"), chunk({}, "stop"), done],
      right: { text: "all of it", finish: "stop" }
    },
    {
      report: "lobehub 3252",
      title: "the text beside a finish reason is kept, also if more follows in a chunk of the same read",
      stream: text("a", "stop") + text("b", "stop") + done,
      right: { text: "ab" }
    },
    {
      report: "ChatMock 114",
      title: "tool calls that a stop follows stay the reason",
      stream: [
        piece({ index: 0, id: "x", function: { name: "now", arguments: "{}" } }),
        chunk({}, "tool_calls"),
        300,
        chunk({}, "stop"),
        done
      ],
      right: { calls: [["now", {}]], finish: "tool-calls" }
    },
    {
      report: "gcli2api 407",
      title: "a tool call after a finish reason is kept",
      stream: [
        text("I look it up. ", "stop"),
        1200,
        piece({ index: 0, id: "x", function: { name: "now", arguments: "{}" } }),
        chunk({}, "tool_calls"),
        done
      ],
      right: { text: "I look it up. ", calls: [["now", {}]], finish: "tool-calls" }
    },
    {
      report: "llm-d-inference-sim 33",
      title: "a limit that a stop follows stays the reason",
      stream: [text("cut", "length"), chunk({}, "stop"), done],
      right: { text: "cut", finish: "length" }
    },
    {
      report: "hermes-agent 91373",
      title: "token counts after the finish reason are read, also late",
      stream: [text("OK", "stop"), 4000, usage(61, 42), done],
      right: { text: "OK", tokens: [61, 42] }
    },
    {
      report: "litellm 2195",
      title: "text without a finish reason of its own is waited for without a limit, once it has begun",
      stream: [text("one ", "stop"), 700, text("two "), 20_000, text("three"), done],
      right: { text: "one two three", finish: "stop" }
    },
    {
      report: "litellm 2195",
      title: "a reset after text that followed a finish reason is not a complete answer",
      stream: [text("one ", "stop"), 700, text("two ", "stop"), "<reset>"],
      right: { text: "one two ", error: "InternalProviderError", remedy: "Retry" }
    },
    {
      report: "octo-agent 910",
      title: "an error after text that followed a finish reason fails the answer",
      stream: [text("one ", "stop"), text("two ", "stop"), `data: {"error":{"message":"overloaded"}}\n\n`],
      right: { text: "one two ", error: "InternalProviderError", remedy: "Retry" }
    },
    {
      report: "litellm 2195",
      title: "text after a finish reason and a close without a finish reason of its own is a truncated stream",
      stream: [text("one ", "stop"), 100, text("two ")],
      right: { text: "one two ", error: "InternalProviderError", remedy: "Retry", finish: undefined }
    },
    {
      report: "litellm 2195",
      title: "a finish reason in every chunk and a close without an end is a complete answer",
      stream: [text("one ", "stop"), 100, text("two ", "stop"), 100, text("three", "stop")],
      right: { text: "one two three", finish: "stop" }
    },
    {
      report: "litellm 2195",
      title: "half an event at the close, after a finish reason in every chunk, is a truncated stream",
      stream: [text("one ", "stop"), text("two ", "stop") + text("three", "stop").slice(0, 60)],
      right: { text: "one two ", error: "InternalProviderError", remedy: "Retry" }
    },
    {
      report: "litellm 2195",
      title: "a reset within the event after a finish reason is a truncated stream",
      stream: [text("one ", "stop"), text("two ", "stop").slice(0, 40), "<reset>"],
      right: { text: "one ", error: "InternalProviderError", remedy: "Retry" }
    },
    {
      report: "openai-node 2725",
      title: "a reset within the token counts after a finish reason is a complete answer",
      stream: [text("one", "stop"), usage(1, 2).slice(0, 30), "<reset>"],
      right: { text: "one", finish: "stop" }
    },
    {
      report: "litellm 2195",
      title: "an event above the size limit after a finish reason fails the answer",
      stream: [text("one ", "stop"), text("x".repeat(1_100_000)), text("three", "stop"), done],
      right: { text: "one ", error: "InvalidResponseError" }
    },
    {
      report: "octo-agent 910",
      title: "an event that is not JSON between a finish reason and more text fails the answer",
      stream: text("one ", "stop") + `data: {"choices":[{"delta":{"content":"elsewhere "}\n\n` + text("three", "stop") +
        done,
      right: { text: "one ", error: "InternalProviderError" }
    },
    {
      report: "octo-agent 910",
      title: "an event in another format between a finish reason and more text fails the answer",
      stream: text("one ", "stop") + `data: {"choices":{"a":1}}\n\n` + text("three", "stop") + done,
      right: { text: "one ", error: "InvalidResponseError" }
    },
    {
      report: "octo-agent 910",
      title: "an event that is not JSON after the last finish reason changes nothing",
      stream: text("one", "stop") + "data: {oops\n\n" + done,
      right: { text: "one", finish: "stop" }
    },
    {
      report: "gcli2api 403",
      title: "a block after the stop reason of Anthropic's wire and a close without another is a truncated stream",
      wire: "anthropic",
      stream: [messageStart() + block(0, "one ") + messageDelta("end_turn"), 100, block(1, "two")],
      right: { text: "one two", error: "InternalProviderError", remedy: "Retry" }
    },
    {
      report: "gcli2api 403",
      title: "a reset within a block after the stop reason of Anthropic's wire is a truncated stream",
      wire: "anthropic",
      stream: [messageStart() + block(0, "one ") + messageDelta("end_turn"), block(1, "two").slice(0, 30), "<reset>"],
      right: { text: "one ", error: "InternalProviderError", remedy: "Retry" }
    },
    {
      report: "gcli2api 403",
      title: "a reset within the stop of Anthropic's wire is a complete answer",
      wire: "anthropic",
      stream: [messageStart() + block(0, "one") + messageDelta("end_turn"), stop.slice(0, 12), "<reset>"],
      right: { text: "one", finish: "stop" }
    },
    {
      report: "octo-agent 910",
      title: "an event of Anthropic's wire that is not JSON between a stop reason and more text fails the answer",
      wire: "anthropic",
      stream: messageStart() + block(0, "one ") + messageDelta("end_turn") +
        "event: content_block_delta\ndata: {oops\n\n" +
        block(1, "three") + messageDelta("end_turn") + stop,
      right: { text: "one ", error: "InternalProviderError" }
    },
    {
      report: "gcli2api 403",
      title: "an event above the size limit after the stop reason of Anthropic's wire fails the answer",
      wire: "anthropic",
      stream: messageStart() + block(0, "one ") + messageDelta("end_turn") + block(1, "x".repeat(1_100_000)) +
        messageDelta("end_turn") + stop,
      right: { text: "one ", error: "InvalidResponseError" }
    },
    {
      report: "better-ccflare 307",
      title: "a message of Anthropic's wire without its stop ends after five seconds, despite its pings",
      wire: "anthropic",
      stream: [
        messageStart() + block(0, "hello") + messageDelta("end_turn"),
        2000,
        namedEvent({ type: "ping" }),
        3000,
        namedEvent({ type: "ping" }),
        "<open>"
      ],
      right: { text: "hello", finish: "stop" }
    },
    {
      report: "gcli2api 403",
      title: "a block after the stop reason of Anthropic's wire is kept",
      wire: "anthropic",
      stream: [
        messageStart() + block(0, "one ") + messageDelta("end_turn"),
        1500,
        block(1, "two") + messageDelta("end_turn") + stop
      ],
      right: { text: "one two", finish: "stop" }
    },
    {
      report: "ChatMock 114",
      title: "a tool call after the stop reason of Anthropic's wire is kept",
      wire: "anthropic",
      stream: [
        messageStart() + block(0, "one ") + messageDelta("end_turn"),
        700,
        blockStart(1, { type: "tool_use", id: "t", name: "now", input: {} }) + blockStop(1) +
        messageDelta("tool_use") + stop
      ],
      right: { text: "one ", calls: [["now", {}]], finish: "tool-calls" }
    }
  ])

  it.effect("a finish reason without an end is waited for five seconds, whatever keep-alives come", () =>
    Effect.gen(function*() {
      const row = { stream: [text("a", "stop"), 2000, ": ping\n\n", 2000, usage(1, 2), "<open>"] } as const
      assert.isFalse(yield* endsWithin(row, 4999))
      assert.isTrue(yield* endsWithin(row, 5000))
    }))

  it.effect("a complete answer that waits for its end does not fail as silent", () =>
    Effect.gen(function*() {
      const row = { isResilient: true, idleTimeout: "3 seconds", stream: [text("a", "stop"), "<open>"] } as const
      const { error, finish } = yield* got(row, 3000)
      assert.isUndefined(error)
      assert.strictEqual(finish, "stop")
    }))

  /** Streams with content after a finish reason. Each step is an event. */
  const reopened: ReadonlyArray<readonly [name: string, Pick<Call, "wire">, ReadonlyArray<string>]> = [
    ["a finish reason in every chunk", {}, [text("one ", "stop"), text("twö ", "stop"), text("three", "stop"), done]],
    ["a finish reason after the thoughts", {}, [
      chunk({ reasoning_content: "hm" }, "stop"),
      text("one "),
      text("twö three"),
      chunk({}, "stop"),
      usage(1, 2),
      done
    ]],
    [
      "a block after the stop reason",
      { wire: "anthropic" },
      (messageStart() + block(0, "one ") + messageDelta("end_turn") + block(1, "twö three") + messageDelta("end_turn") +
        stop)
        .split(/(?<=\n\n)/)
    ]
  ]
  for (const [name, wire, events] of reopened) {
    for (const ending of [[], ["<reset>"]] as const) {
      it.effect(`${name}: a ${ending[0] ?? "close"} within an event never leaves a part of the text as an answer`, () =>
        Effect.gen(function*() {
          const bytes = new TextEncoder().encode(events.join(""))
          // A cut between two events, or in the line ends there, can be the end of the stream.
          const between = new Set<number>()
          let at = 0
          for (const event of events) {
            at += new TextEncoder().encode(event).length
            for (const back of [0, 1, 2]) between.add(at - back)
          }
          for (let cut = 1; cut < bytes.length; cut++) {
            if (between.has(cut)) continue
            const { error, text } = yield* got({ ...wire, stream: [bytes.slice(0, cut), ...ending] })
            assert.isTrue(error !== undefined || text === "one twö three", `cut at ${cut}: ${text}`)
          }
        }))
    }
  }

  it.effect("an open answer to a request for a whole one ends before the deadline and before the time of an attempt", () =>
    Effect.gen(function*() {
      for (const limits of [{ deadline: "1 second" }, { attemptTimeout: "1 second" }] as const) {
        const row = {
          isResilient: true,
          method: "generateText",
          ...limits,
          stream: [text("a", "stop"), "<open>"]
        } as const
        const { error, requests, text: answered } = yield* got(row, 1000)
        assert.deepStrictEqual([error, requests, answered], [undefined, 1, "a"])
      }
    }))

  it.effect("an answer without text that a filter ended does not wait for its end longer than for a first token", () =>
    Effect.gen(function*() {
      const row = {
        isResilient: true,
        firstTokenTimeout: "1 second",
        stream: [chunk({ content: "" }, "content_filter"), "<open>"]
      } as const
      const { error, finish, requests } = yield* got(row, 1000)
      assert.deepStrictEqual([error, finish, requests], [undefined, "content-filter", 1])
    }))

  it.effect("text that comes later than half of the idle timeout after a finish reason is kept", () =>
    Effect.gen(function*() {
      const row = {
        isResilient: true,
        idleTimeout: "1 second",
        stream: [text("one ", "stop"), 700, text("two", "stop"), done]
      } as const
      assert.strictEqual((yield* got(row)).text, "one two")
    }))

  it.effect("a finish reason late in a silence does not make the answer fail as silent", () =>
    Effect.gen(function*() {
      const row = {
        isResilient: true,
        idleTimeout: "1 second",
        stream: [text("one"), 800, chunk({}, "stop"), "<open>"]
      } as const
      const { error, finish } = yield* got(row, 1000)
      assert.deepStrictEqual([error, finish], [undefined, "stop"])
    }))

  it.effect("an event that is not JSON between a finish reason and more text is counted where it is skipped", () =>
    Effect.gen(function*() {
      const stream = text("one ", "stop") + "data: {oops\n\n" + text("three", "stop") + done
      const row = { isResilient: true, malformedEvent: "skip", stream } as const
      const [exit, [log]] = yield* ResilientModel.withLogs(got(row))
      const { error, text: answered } = yield* exit
      assert.deepStrictEqual([error, answered], [undefined, "one three"])
      const [step] = log?.steps ?? []
      assert.strictEqual(step?._tag === "Attempt" ? step.skippedEvents : undefined, 1)
    }))

  it.effect("content begins the five seconds anew", () =>
    Effect.gen(function*() {
      const row = { stream: [text("a", "stop"), 4000, text("b", "stop"), "<open>"] } as const
      assert.isFalse(yield* endsWithin(row, 8999))
      assert.strictEqual((yield* got(row, 9000)).text, "ab")
    }))
})
