import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { chunk, done, endsWithin, got, piece, table } from "../support/cases.ts"
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

  it.effect("content begins the five seconds anew", () =>
    Effect.gen(function*() {
      const row = { stream: [text("a", "stop"), 4000, text("b", "stop"), "<open>"] } as const
      assert.isFalse(yield* endsWithin(row, 8999))
      assert.strictEqual((yield* got(row, 9000)).text, "ab")
    }))
})
