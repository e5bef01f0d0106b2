import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Prompt } from "effect/ai"
import { answer, type Call, call, chunk, done, piece, type WireName } from "../support/cases.ts"
import { blockDelta, blockStart, blockStop, message, messageDelta, messageStart, namedEvent } from "../support/wires.ts"

const deepseek = "https://api.deepseek.com/v1"
const now = { id: "t", type: "function", function: { name: "now", arguments: "{}" } }
const signature = { google: { thought_signature: "sig" } }
const encrypted = { type: "reasoning.encrypted", data: "secret", id: "r", format: "google-gemini-v1", index: 0 }

interface Echo {
  readonly report: string
  readonly title: string
  readonly wire?: WireName
  readonly url?: string
  readonly first: Pick<Call, "stream" | "whole">
  /** The URL of the next request, if that is another provider. */
  readonly next?: string
  /** Fields of the assistant's message in the next request. */
  readonly right: { readonly [field: string]: unknown }
}

const thinking = blockStart(0, { type: "thinking", thinking: "" }) +
  blockDelta(0, { type: "thinking_delta", thinking: "hm" }) + blockStop(0)
const use = { type: "tool_use", id: "t", name: "now", input: {} }
const stop = messageDelta("tool_use") + namedEvent({ type: "message_stop" })

const rows: ReadonlyArray<Echo> = [
  {
    report: "crush 2696",
    title: "the thought beside a tool call goes back, from a whole answer",
    first: { whole: answer({ content: null, reasoning_content: "hm", tool_calls: [now] }, "tool_calls") },
    right: { reasoning_content: "hm", content: null }
  },
  {
    report: "opencode 10996",
    title: "the thought before a tool call goes back, from a stream",
    first: {
      stream: chunk({ reasoning_content: "h" }) + chunk({ reasoning_content: "m" }) + piece({ index: 0, ...now }) +
        chunk({}, "tool_calls") + done
    },
    right: { reasoning_content: "hm" }
  },
  {
    report: "FastGPT 6357",
    title: "a thought goes back in the field that it came in",
    first: { whole: answer({ content: "I look.", reasoning: "hm", tool_calls: [now] }, "tool_calls") },
    right: { reasoning: "hm", reasoning_content: undefined, content: "I look." }
  },
  {
    report: "crush 2696",
    title: "a thought without a tool call does not go back",
    first: { whole: answer({ content: "391", reasoning_content: "hm" }) },
    right: { content: "391", reasoning_content: undefined }
  },
  {
    report: "bifrost 5177",
    title: "a thought does not go to another provider",
    first: { whole: answer({ content: null, reasoning_content: "hm", tool_calls: [now] }, "tool_calls") },
    next: "https://api.groq.com/openai/v1",
    right: { reasoning_content: undefined }
  },
  {
    report: "openhuman 3548",
    title: "the signature of a tool call goes back, from a whole answer",
    first: { whole: answer({ content: null, tool_calls: [{ ...now, extra_content: signature }] }, "tool_calls") },
    right: { tool_calls: [{ extra_content: signature, ...now }] }
  },
  {
    report: "OpenChatCut 6",
    title: "the signature of a tool call goes back, from a stream",
    first: {
      stream: piece({ index: 0, ...now, extra_content: signature }) + chunk({}, "tool_calls") + done
    },
    right: { tool_calls: [{ extra_content: signature, ...now }] }
  },
  {
    report: "openhuman 3548",
    title: "the signature of a tool call does not go to another provider",
    first: { whole: answer({ content: null, tool_calls: [{ ...now, extra_content: signature }] }, "tool_calls") },
    next: "https://api.openai.com/v1",
    right: { tool_calls: [now] }
  },
  {
    report: "Roo-Code 10307",
    title: "the details of a thought go back, also those that only the provider can read",
    first: {
      whole: answer({ content: null, reasoning_details: [encrypted], tool_calls: [now] }, "tool_calls")
    },
    right: { reasoning_details: [encrypted] }
  },
  {
    report: "home-assistant 159812",
    title: "the details of a thought in the pieces of a stream go back as one",
    first: {
      stream: chunk({ reasoning: "h", reasoning_details: [{ type: "reasoning.text", text: "h", index: 0 }] }) +
        chunk({
          reasoning: "m",
          reasoning_details: [{ type: "reasoning.text", text: "m", index: 0, signature: "s" }]
        }) +
        chunk({ reasoning_details: [{ ...encrypted, index: 1 }] }) + piece({ index: 0, ...now }) +
        chunk({}, "tool_calls") + done
    },
    right: {
      reasoning: "hm",
      reasoning_details: [{ type: "reasoning.text", text: "hm", index: 0, signature: "s" }, { ...encrypted, index: 1 }]
    }
  },
  {
    report: "hermes-agent 17510",
    title: "a thought of Anthropic's wire without a signature goes back, from a stream",
    wire: "anthropic",
    first: { stream: messageStart() + thinking + blockStart(1, use) + blockStop(1) + stop },
    right: { content: [{ type: "thinking", thinking: "hm", signature: "" }, use] }
  },
  {
    report: "qwen-code 3788",
    title: "a thought of Anthropic's wire without a signature goes back, from a whole answer",
    wire: "anthropic",
    first: { whole: message([{ type: "thinking", thinking: "hm" }, use], { stop_reason: "tool_use" }) },
    right: { content: [{ type: "thinking", thinking: "hm", signature: "" }, use] }
  },
  {
    report: "hermes-agent 22313",
    title: "a thought without a signature does not go to another provider",
    wire: "anthropic",
    first: { whole: message([{ type: "thinking", thinking: "hm" }, use], { stop_reason: "tool_use" }) },
    next: "https://api.anthropic.com/v1",
    right: { content: [use] }
  }
]

describe("fields sent back with a tool call", () => {
  for (const { first, next, report, right, title, url = deepseek, wire = "openai" } of rows) {
    it.effect(`${title} (${report})`, () =>
      Effect.gen(function*() {
        const { failure, parts } = yield* call({ ...first, url, wire })
        assert.isUndefined(failure)
        // A stored conversation is decoded from JSON.
        const kept = JSON.stringify(Prompt.fromResponseParts(parts))
        const prompt = Prompt.concat(Prompt.make("hi"), Prompt.make(JSON.parse(kept).content))
        const { request } = yield* call({ whole: answer({ content: "ok" }), url: next ?? url, wire, prompt })
        const assistant = request.messages.find(({ role }) => role === "assistant")
        for (const [field, value] of Object.entries(right)) {
          assert.deepStrictEqual(assistant?.[field], value, field)
        }
      }))
  }
})
