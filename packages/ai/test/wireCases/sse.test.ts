import { describe } from "@effect/vitest"
import { chunk, done, table } from "../support/cases.ts"
import { blockDelta, blockStart, blockStop, messageDelta, messageStart, namedEvent } from "../support/wires.ts"

const text = (content: string, finish: string | null = null) => chunk({ content }, finish)
const line = (event: string) => event.trimEnd()
const truncated = { error: "InternalProviderError", remedy: "Retry" } as const
const messages = messageStart() + blockStart(0, { type: "text", text: "" }) +
  blockDelta(0, { type: "text_delta", text: "a" }) + blockStop(0)

describe("the edges of an event stream", () => {
  table([
    {
      report: "openai-node 2725",
      title: "the last event is read without a blank line after it",
      stream: text("a") + line(text("b", "stop")),
      right: { text: "ab", finish: "stop" }
    },
    {
      report: "openai-node 2725",
      title: "the last event is read with one line end after it",
      stream: text("a") + line(text("b", "stop")) + "\n",
      right: { text: "ab", finish: "stop" }
    },
    {
      report: "openai-node 2725",
      title: "an end without a line end is an end",
      stream: [text("a", "stop") + "data: [DONE]", "<reset>"],
      right: { text: "a", finish: "stop" }
    },
    {
      report: "lemonade 3448",
      title: "half an event at the end is a truncated stream",
      stream: text("a") + line(text("b", "stop")).slice(0, -10),
      right: { ...truncated, text: "a" }
    },
    {
      report: "openai-node 2725",
      title: "the last event of Anthropic's wire is read without a blank line after it",
      wire: "anthropic",
      stream: messages + line(messageDelta("end_turn")),
      right: { text: "a", finish: "stop" }
    },
    {
      report: "lemonade 3448",
      title: "half an event at the end of Anthropic's wire is a truncated stream",
      wire: "anthropic",
      stream: messages + line(messageDelta("end_turn")).slice(0, -10),
      right: { ...truncated, text: "a" }
    },
    {
      report: "openai-python 3833",
      title: "an event without data is skipped",
      stream: "retry: 1000\n\nid: 1\n\n" + text("a") + "data:\n\ndata: \n\n" + text("b", "stop") + done,
      right: { text: "ab" }
    },
    {
      report: "pi 8430",
      title: "a blank line between the name and the data of an event is ignored",
      stream: "event: message\n\n" + text("a", "stop") + done,
      right: { text: "a" }
    },
    {
      report: "eventsource-parser 31",
      title: "events with one line end between them are read as several",
      stream: [text("a"), text("b"), text("c", "stop"), done].map((event) => `${line(event)}\n`).join(""),
      right: { text: "abc", finish: "stop" }
    },
    {
      report: "llama.cpp 14268",
      title: "data that begins with another data is read",
      stream: `data: ${text("a")}data: ${text("b", "stop")}data: ${done}`,
      right: { text: "ab", finish: "stop" }
    },
    {
      report: "openai-go 227",
      title: "a comment that a proxy has turned into an event is skipped",
      stream: "data: : OPENROUTER PROCESSING\n\n" + text("a", "stop") + done,
      right: { text: "a" }
    },
    {
      report: "Clawith 106",
      title: "data without a space after the colon is read",
      stream: (text("a") + text("b", "stop") + done).replaceAll("data: ", "data:"),
      right: { text: "ab" }
    },
    {
      report: "guidellm 743",
      title: "an end in quotation marks or with white space around it is an end",
      stream: [text("a", "stop") + "data: \"[DONE]\"\n\n", 100, "<open>"],
      right: { text: "a", finish: "stop" }
    },
    {
      report: "term-llm 454",
      title: "an event with its JSON on several lines is one event",
      stream: JSON.stringify(JSON.parse(line(text("a", "stop")).slice(6)), null, 1)
        .split("\n").map((each) => `data: ${each}\n`).join("") + "\n" + done,
      right: { text: "a", finish: "stop" }
    },
    {
      report: "Moonshot, eventsource-parser 31",
      title: "events of Anthropic's wire with one line end between their data are read as several",
      wire: "anthropic",
      stream: (messages + messageDelta("end_turn") + namedEvent({ type: "message_stop" }))
        .replace(/event: .*\n/g, "").replaceAll("\n\n", "\n"),
      right: { text: "a", finish: "stop" }
    }
  ])
})
