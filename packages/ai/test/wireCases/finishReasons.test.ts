import { describe } from "@effect/vitest"
import { answer, chunk, done, type Row, table } from "../support/cases.ts"
import { blockDelta, blockStart, blockStop, message, messageDelta, messageStart } from "../support/wires.ts"

/** One finish reason after a text, as a stream and as a whole answer of both wires. */
const afterText = (report: string, sent: unknown, right: Row["right"]): ReadonlyArray<Row> => [
  {
    report,
    title: `${JSON.stringify(sent)} after the text of a stream is read`,
    stream: [chunk({ content: "a" }), chunk({}, sent), done],
    right: { text: "a", ...right }
  },
  {
    report,
    title: `${JSON.stringify(sent)} of a whole answer is read`,
    whole: answer({ content: "a" }, sent),
    right: right.error === undefined ? { text: "a", ...right } : right
  },
  {
    report,
    title: `${JSON.stringify(sent)} on Anthropic's wire is read`,
    wire: "anthropic",
    whole: message([{ type: "text", text: "a" }], { stop_reason: sent }),
    right: right.error === undefined ? { text: "a", ...right } : right
  }
]

const brokeOff = { error: "InternalProviderError", remedy: "Retry" } as const
const badCall = { error: "ToolParameterValidationError", remedy: "Reask" } as const

describe("finish reasons of other providers", () => {
  table([
    ...afterText("hermes-agent 92161", "network_error", brokeOff),
    ...afterText("opencode 1.18.21", "network-error", brokeOff),
    ...afterText("xtuner 1755", "abort", brokeOff),
    ...afterText("hermes-agent 92161", "insufficient_system_resource", brokeOff),
    ...afterText("together-python 153", "error", brokeOff),
    ...afterText("qwen-code 9884", "STOP", { finish: "stop" }),
    ...afterText("qwen-code 9884", "MAX_TOKENS", { finish: "length" }),
    ...afterText("any-llm 1202", "FinishReason.MAX_TOKENS", { finish: "length" }),
    ...afterText("any-llm 1202", "SAFETY", { finish: "content-filter" }),
    ...afterText("spring-ai 4900", "eos_token", { finish: "stop" }),
    ...afterText("vespa 33327", "eos", { finish: "stop" }),
    ...afterText("promptfoo 9905", "sensitive", { finish: "content-filter" }),
    ...afterText("sglang 446", { type: "length", length: 10 }, { finish: "length" }),
    ...afterText("vercel/ai 2665", "something_new", { finish: "other" }),
    ...afterText("litellm 40857", "content_filter", { finish: "content-filter" }),
    {
      report: "hermes-agent 83886",
      title: "a tool call that the provider could not read is asked again, in a stream",
      stream: [chunk({ content: "" }), chunk({}, "function_call_filter: MALFORMED_FUNCTION_CALL"), done],
      right: badCall
    },
    {
      report: "pydantic-ai 631",
      title: "a tool call that the provider could not read is asked again, in a whole answer",
      whole: answer({ content: null }, "MALFORMED_FUNCTION_CALL"),
      right: badCall
    },
    {
      report: "hermes-agent 83882",
      title: "an unexpected tool call is asked again, on Anthropic's wire",
      wire: "anthropic",
      stream: [
        messageStart() + blockStart(0, { type: "text", text: "" }) + blockDelta(0, { type: "text_delta", text: "" }) +
        blockStop(0) + messageDelta("UNEXPECTED_TOOL_CALL") +
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
      ],
      right: badCall
    },
    {
      report: "ollama 4357",
      title: "an empty finish reason beside a piece of text is none",
      stream: [chunk({ content: "a" }, ""), 9000, chunk({ content: "b" }, "stop"), done],
      right: { text: "ab", finish: "stop" }
    }
  ])
})

describe("answers without content", () => {
  const empty = { error: "InvalidOutputError", remedy: "Reask", requests: 2 } as const
  table([
    {
      report: "vllm 53255",
      title: "a whole answer with the reason tool_calls and no call is empty and asked again",
      isResilient: true,
      whole: answer({ content: null, tool_calls: [] }, "tool_calls"),
      right: empty
    },
    {
      report: "vllm 53255",
      title: "a stream with the reason tool_calls and no call is empty and asked again",
      isResilient: true,
      stream: chunk({ content: "" }) + chunk({}, "tool_calls") + done,
      right: empty
    },
    {
      report: "vercel/ai 2665",
      title: "a whole answer with an unknown reason and no content is empty",
      isResilient: true,
      whole: answer({ content: "" }, "something_new"),
      right: empty
    },
    {
      report: "gcli2api 406",
      title: "a stream with an unknown reason and no content is empty",
      isResilient: true,
      stream: chunk({ content: "" }) + chunk({}, "something_new") + done,
      right: empty
    },
    {
      report: "sub2api 7098",
      title: "a message of Anthropic's wire with the reason tool_use and no call is empty",
      wire: "anthropic",
      isResilient: true,
      whole: message([], { stop_reason: "tool_use" }),
      right: empty
    },
    {
      report: "hermes-agent 83886",
      title: "a tool call that the provider could not read is asked again once",
      isResilient: true,
      stream: chunk({ content: "" }) + chunk({}, "function_call_filter: MALFORMED_FUNCTION_CALL") + done,
      right: { error: "ToolParameterValidationError", remedy: "Reask", requests: 2 }
    },
    {
      report: "qwen-code 9884",
      title: "an empty answer at its limit is not asked again, in any spelling of the reason",
      isResilient: true,
      whole: answer({ content: "" }, "MAX_TOKENS"),
      right: { text: "", finish: "length", requests: 1 }
    },
    {
      report: "promptfoo 9905",
      title: "an empty answer that a filter cut is not asked again, in any spelling of the reason",
      isResilient: true,
      stream: chunk({ content: "" }) + chunk({}, "sensitive") + done,
      right: { text: "", finish: "content-filter", requests: 1 }
    }
  ])
})
