import { describe } from "@effect/vitest"
import { answer, chunk, done, piece, table } from "../support/cases.ts"
import { blockDelta, blockStart, blockStop, message, messageDelta, messageStart, namedEvent } from "../support/wires.ts"

const thought = (text: string) => ({ type: "thinking", thinking: [{ type: "text", text }], closed: true })
const end = chunk({}, "tool_calls") + done
const stop = (reason = "end_turn") => messageDelta(reason) + namedEvent({ type: "message_stop" })

describe("values in another JSON type", () => {
  table([
    {
      report: "n8n 37352",
      title: "a thought and a text in a list of parts are read in a stream",
      stream: chunk({ content: [thought("hm"), { type: "text", text: "391" }] }, "stop") + done,
      right: { thoughts: "hm", text: "391" }
    },
    {
      report: "n8n 37352",
      title: "a thought and a text in a list of parts are read in a whole answer",
      whole: answer({ content: [thought("hm"), { type: "text", text: "391" }] }),
      right: { thoughts: "hm", text: "391" }
    },
    {
      report: "symfony/ai 2422",
      title: "a stream whose content is a list at first and a text then is read",
      stream: chunk({ content: [thought("h")] }) + chunk({ content: [thought("m")] }) +
        chunk({ content: "391" }, "stop") +
        done,
      right: { thoughts: "hm", text: "391" }
    },
    {
      report: "hermes-agent 4748",
      title: "parts of kinds that are no text are left out",
      whole: answer({ content: [{ type: "reference", reference_ids: [1] }, { type: "text", text: "a" }] }),
      right: { text: "a" }
    },
    {
      report: "isair/jarvis 560",
      title: "a content that is the object which the model wrote is its JSON",
      whole: answer({ content: { answer: 42 } }),
      right: { text: "{\"answer\":42}" }
    },
    {
      report: "isair/jarvis 560",
      title: "a content that is a number is its digits",
      stream: chunk({ content: 42 }, "stop") + done,
      right: { text: "42" }
    },
    {
      report: "llama.cpp 20198",
      title: "arguments that are an object are read in a whole answer",
      whole: answer({ tool_calls: [{ id: "a", function: { name: "add", arguments: { x: 1 } } }] }, "tool_calls"),
      right: { calls: [["add", { x: 1 }]] }
    },
    {
      report: "claudette 238",
      title: "arguments that are an object are read in a stream",
      stream: piece({ index: 0, id: "a", function: { name: "add", arguments: { x: 1 } } }) + end,
      right: { calls: [["add", { x: 1 }]] }
    },
    {
      report: "openclaw 40425",
      title: "arguments that are encoded twice are read",
      whole: answer({
        tool_calls: [{ id: "a", function: { name: "add", arguments: JSON.stringify("{\"x\":1}") } }]
      }, "tool_calls"),
      right: { calls: [["add", { x: 1 }]] }
    },
    {
      report: "screenpipe 6905",
      title: "arguments that are null are no arguments",
      whole: answer({ tool_calls: [{ id: "a", function: { name: "now", arguments: "null" } }] }, "tool_calls"),
      right: { calls: [["now", {}]] }
    },
    {
      report: "qwen-code 3788",
      title: "an index that is a text and an id that is a number are read",
      stream: piece({ index: "0", id: 1, function: { name: "add", arguments: "{\"x\":" } }) +
        piece({ index: "1", id: 2, function: { name: "multiply", arguments: "{\"x\":2}" } }) +
        piece({ index: "0", function: { arguments: "1}" } }) + end,
      right: { calls: [["add", { x: 1 }], ["multiply", { x: 2 }]] }
    },
    {
      report: "sglang 446",
      title: "a finish reason that is an object is read",
      stream: chunk({ content: "a" }) + chunk({}, { type: "stop", matched: 2 }) + done,
      right: { text: "a", finish: "stop" }
    },
    {
      report: "OpenRouter ai-sdk-provider 491",
      title: "a thought that is a list of parts is read",
      stream: chunk({ reasoning: [{ type: "text", text: "h" }, { type: "text", text: "m" }] }) +
        chunk({ content: "a" }, "stop") + done,
      right: { thoughts: "hm", text: "a" }
    },
    {
      report: "opencode 37553",
      title: "a thought is read if the other name for it is there and empty",
      stream: chunk({ reasoning_content: "", reasoning: "hm" }) + chunk({ content: "a" }, "stop") + done,
      right: { thoughts: "hm", text: "a" }
    },
    {
      report: "pi 987",
      title: "a thought that comes as details alone is read",
      stream: chunk({ reasoning_details: [{ type: "reasoning.text", text: "hm", index: 0 }] }) +
        chunk({ content: "a" }, "stop") + done,
      right: { thoughts: "hm", text: "a" }
    },
    {
      report: "perplexity api-discussion 209",
      title: "a stream that also repeats the whole message is read once",
      stream: [1, 2].map((n) =>
        `data: ${
          JSON.stringify({
            choices: [{
              index: 0,
              delta: { content: `${n}` },
              message: { content: "12".slice(0, n) },
              finish_reason: null
            }]
          })
        }\n\n`
      ).join("") + chunk({}, "stop") + done,
      right: { text: "12" }
    },
    {
      report: "alfredapp/openai-workflow 52",
      title: "a whole message in the event of a stream is read",
      stream: `data: ${
        JSON.stringify({ choices: [{ index: 0, message: { content: "a" }, finish_reason: "stop" }] })
      }\n\n`,
      right: { text: "a", finish: "stop" }
    },
    {
      report: "ChatMock 114",
      title: "a function call by its old name is a tool call, in a stream",
      stream: chunk({ function_call: { name: "add", arguments: "{\"x\":" } }) +
        chunk({ function_call: { arguments: "1}" } }) + chunk({}, "function_call") + done,
      right: { calls: [["add", { x: 1 }]], finish: "tool-calls" }
    },
    {
      report: "ChatMock 114",
      title: "a function call by its old name is a tool call, in a whole answer",
      whole: answer({ content: null, function_call: { name: "add", arguments: "{\"x\":1}" } }, "function_call"),
      right: { calls: [["add", { x: 1 }]], finish: "tool-calls" }
    },
    {
      report: "rig 1964",
      title: "an input of Anthropic's whole answer that is the text of the JSON is read",
      wire: "anthropic",
      whole: message([{ type: "tool_use", id: "a", name: "add", input: "{\"x\":1}" }], { stop_reason: "tool_use" }),
      right: { calls: [["add", { x: 1 }]] }
    },
    {
      report: "trpc-agent-go 1649",
      title: "an input of Anthropic's stream that comes whole with the start, as a text, is read",
      wire: "anthropic",
      stream: messageStart() + blockStart(0, { type: "tool_use", id: "a", name: "add", input: "{\"x\":1}" }) +
        blockStop(0) + stop("tool_use"),
      right: { calls: [["add", { x: 1 }]] }
    },
    {
      report: "claudette 238",
      title: "a piece of an input that is an object is read",
      wire: "anthropic",
      stream: messageStart() + blockStart(0, { type: "tool_use", id: "a", name: "add", input: {} }) +
        blockDelta(0, { type: "input_json_delta", partial_json: { x: 1 } }) + blockStop(0) + stop("tool_use"),
      right: { calls: [["add", { x: 1 }]] }
    },
    {
      report: "litellm 27492",
      title: "a content of Anthropic's whole answer that is a text is read",
      wire: "anthropic",
      whole: { ...message([]), content: "hello" },
      right: { text: "hello", finish: "stop" }
    },
    {
      report: "pi 8430",
      title: "an event of Anthropic's wire with its type in the name alone is read",
      wire: "anthropic",
      stream: (messageStart() + blockStart(0, { type: "text", text: "" }) +
        blockDelta(0, { type: "text_delta", text: "a" }) + blockStop(0) + stop())
        .replace(/"type":"(message_|content_)\w+",?/g, ""),
      right: { text: "a", finish: "stop" }
    }
  ])
})
