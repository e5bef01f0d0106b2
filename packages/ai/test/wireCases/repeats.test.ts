import { describe } from "@effect/vitest"
import { chunk, done, piece, said, table } from "../support/cases.ts"
import { blockDelta, blockStart, blockStop, messageDelta, messageStart, namedEvent } from "../support/wires.ts"

const text = (content: string, finish: string | null = null) => chunk({ content }, finish)
const delta = (content: string) => blockDelta(0, { type: "text_delta", text: content })
const start = (content: string) => messageStart() + blockStart(0, { type: "text", text: content })
const stop = blockStop(0) + messageDelta("end_turn") + namedEvent({ type: "message_stop" })
const thinking = (content: string) => blockDelta(0, { type: "thinking_delta", thinking: content })

describe("text that a stream repeats", () => {
  table([
    {
      report: "hermes-browser-extension 11",
      title: "a whole message after the deltas adds nothing",
      stream: text("one ") + text("two") + said({ content: "one two" }, "stop") + done,
      right: { text: "one two", finish: "stop" }
    },
    {
      report: "hermes-browser-extension 11",
      title: "a whole message after the finish reason adds nothing",
      stream: text("one ") + text("two", "stop") + said({ content: "one two" }, "stop") + done,
      right: { text: "one two", finish: "stop" }
    },
    {
      report: "hermes-browser-extension 11",
      title: "a whole message beside a delta that is null adds nothing",
      stream: text("one ") + text("two") + said({ content: "one two" }, "stop", { delta: null }) + done,
      right: { text: "one two" }
    },
    {
      report: "GoModel 1068",
      title: "a whole message after the deltas adds what they lack",
      stream: text("one ") + said({ content: "one two" }, "stop", { delta: {} }) + done,
      right: { text: "one two" }
    },
    {
      report: "GoModel 1068",
      title: "a whole message that trims the white space of the deltas adds nothing",
      stream: text("\n\none ") + text("two\n") + said({ content: "one two" }, "stop") + done,
      right: { text: "\n\none two\n" }
    },
    {
      report: "GoModel 1068",
      title: "messages that each have all text so far are one text",
      stream: said({ content: "one" }) + said({ content: "one two" }) + said({ content: "one two" }, "stop") + done,
      right: { text: "one two" }
    },
    {
      report: "alfredapp/openai-workflow 52",
      title: "messages that each have a piece are put together",
      stream: said({ content: "one " }) + said({ content: "two " }) + said({ content: "three" }, "stop") + done,
      right: { text: "one two three" }
    },
    {
      report: "GoModel 1068",
      title: "the thoughts of a whole message after the deltas add nothing",
      stream: chunk({ reasoning_content: "h" }) + chunk({ reasoning_content: "m" }) + text("two") +
        said({ reasoning_content: "hm", content: "two" }, "stop") + done,
      right: { thoughts: "hm", text: "two" }
    },
    {
      report: "GoModel 1068",
      title: "a whole message after thoughts alone has the text",
      stream: chunk({ reasoning_content: "hm" }) +
        said({ reasoning_content: "hm", content: [{ type: "text", text: "a" }, { type: "text", text: "b" }] }, "stop") +
        done,
      right: { thoughts: "hm", text: "ab" }
    },
    {
      report: "GoModel 1068",
      title: "a call that a whole message without its id repeats is one call",
      stream: text("I look.") + piece({ index: 0, id: "a", function: { name: "add", arguments: "{\"x\":1}" } }) +
        said({
          content: "I look.",
          tool_calls: [{ function: { name: "add", arguments: "{ \"x\": 1 }" } }]
        }, "tool_calls") + done,
      right: { text: "I look.", calls: [["add", { x: 1 }]] }
    },
    {
      report: "cline 9215",
      title: "a text of a block's start that its deltas repeat is one text",
      wire: "anthropic",
      stream: start("one") + delta("one") + delta(" two") + stop,
      right: { text: "one two" }
    },
    {
      report: "cline 9215",
      title: "a text of a block's start that its deltas repeat in pieces is one text",
      wire: "anthropic",
      stream: start("one") + delta("o") + delta("ne two") + stop,
      right: { text: "one two" }
    },
    {
      report: "cline 9215",
      title: "a text of a block's start that its deltas continue is kept",
      wire: "anthropic",
      stream: start("one") + delta(" two") + delta("one") + stop,
      right: { text: "one twoone" }
    },
    {
      report: "cline 9215",
      title: "a delta that begins like the text of the start, and is the last one, is kept",
      wire: "anthropic",
      stream: start("one") + delta("on") + stop,
      right: { text: "oneon" }
    },
    {
      report: "cline 9215",
      title: "a thought of a block's start that its deltas repeat is one thought",
      wire: "anthropic",
      stream: messageStart() + blockStart(0, { type: "thinking", thinking: "h" }) + thinking("h") + thinking("m") +
        blockStop(0) + blockStart(1, { type: "text", text: "" }) + blockDelta(1, { type: "text_delta", text: "a" }) +
        blockStop(1) + messageDelta("end_turn") + namedEvent({ type: "message_stop" }),
      right: { thoughts: "hm", text: "a" }
    },
    {
      report: "cline 9215",
      title: "a delta of Anthropic's wire without a type is read by its field",
      wire: "anthropic",
      stream: start("") + blockDelta(0, { text: "one" }) + stop,
      right: { text: "one" }
    }
  ])
})
