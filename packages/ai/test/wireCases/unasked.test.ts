import { describe } from "@effect/vitest"
import { answer, chunk, done, piece, table } from "../support/cases.ts"
import { blockDelta, blockStart, blockStop, message, messageDelta, messageStart, namedEvent } from "../support/wires.ts"

const input = (index: number, partial_json: string) => blockDelta(index, { type: "input_json_delta", partial_json })
const text = (index: number, content: string) =>
  blockStart(index, { type: "text", text: "" }) + blockDelta(index, { type: "text_delta", text: content }) +
  blockStop(index)
const stop = (reason = "end_turn") => messageDelta(reason) + namedEvent({ type: "message_stop" })
const custom = { index: 0, id: "c", type: "custom", custom: { name: "shell", input: "ls" } }

describe("blocks that were not requested", () => {
  table([
    {
      report: "anthropic-sdk-python 1875",
      title: "a tool that the provider ran itself is skipped with its input, and the text is kept",
      wire: "anthropic",
      stream: messageStart() + blockStart(0, { type: "server_tool_use", id: "s", name: "web_search", input: {} }) +
        input(0, "{\"query\":") + input(0, "\"weather\"}") + blockStop(0) + text(1, "sunny") + stop(),
      right: { text: "sunny", calls: [], finish: "stop" }
    },
    {
      report: "anthropic-sdk-python 1875",
      title: "a tool that the provider ran itself is skipped in a whole answer",
      wire: "anthropic",
      whole: message([
        { type: "server_tool_use", id: "s", name: "web_search", input: { query: "weather" } },
        { type: "web_search_tool_result", tool_use_id: "s", content: [] },
        { type: "text", text: "sunny" }
      ]),
      right: { text: "sunny", calls: [], finish: "stop" }
    },
    {
      report: "SAfactory 65",
      title: "an mcp tool and a call of the caller's own tool are told apart",
      wire: "anthropic",
      stream: messageStart() +
        blockStart(0, { type: "mcp_tool_use", id: "m", name: "read", server_name: "files", input: {} }) +
        input(0, "{}") + blockStop(0) +
        blockStart(1, { type: "mcp_tool_result", tool_use_id: "m", content: [{ type: "text", text: "no" }] }) +
        blockStop(1) + blockStart(2, { type: "tool_use", id: "t", name: "now", input: {} }) + blockStop(2) +
        stop("tool_use"),
      right: { text: "", calls: [["now", {}]], finish: "tool-calls" }
    },
    {
      report: "trpc-agent-go 1649",
      title: "a text of a block of an unknown kind is skipped, as in a whole answer",
      wire: "anthropic",
      stream: messageStart() + blockStart(0, { type: "compaction", content: "" }) +
        blockDelta(0, { type: "text_delta", text: "summary" }) + blockStop(0) + text(1, "a") + stop(),
      right: { text: "a" }
    },
    {
      report: "anthropic-sdk-python 1875",
      title: "a text can reuse the index of a skipped block",
      wire: "anthropic",
      stream: messageStart() + blockStart(0, { type: "server_tool_use", id: "s", name: "web_search", input: {} }) +
        input(0, "{}") + text(0, "a") + stop(),
      right: { text: "a", calls: [] }
    },
    {
      report: "openai-openapi 576",
      title: "a custom tool call is skipped with its pieces",
      stream: piece(custom) + piece({ index: 0, custom: { input: " -l" } }) + chunk({ content: "a" }, "stop") + done,
      right: { text: "a", calls: [] }
    },
    {
      report: "openai-python 3505",
      title: "a custom tool call is skipped in a whole answer, and the call beside it is kept",
      whole: answer({
        content: null,
        tool_calls: [custom, { id: "a", type: "function", function: { name: "now", arguments: "{}" } }]
      }, "tool_calls"),
      right: { calls: [["now", {}]] }
    },
    {
      report: "pi 8504",
      title: "a function call with an empty custom field is a function call",
      stream:
        piece({ index: 0, id: "a", type: "function", custom: {}, function: { name: "add", arguments: "{\"x\"" } }) +
        piece({ index: 0, custom: {}, function: { arguments: ":1}" } }) + chunk({}, "tool_calls") + done,
      right: { calls: [["add", { x: 1 }]] }
    },
    {
      report: "openai-python 2530",
      title: "a search that the provider ran itself is skipped",
      stream: piece({ index: 0, id: "w", type: "web_search_call", status: "completed" }) +
        chunk({ content: "sunny" }, "stop") + done,
      right: { text: "sunny", calls: [] }
    },
    {
      report: "aiavatarkit 124",
      title: "a choice without a delta is skipped",
      stream: chunk({ content: "a" }) +
        `data: ${
          JSON.stringify({ id: "", choices: [{ index: 0, finish_reason: null, content_filter_offsets: {} }] })
        }\n\n` +
        chunk({ content: "b" }, "stop") + done,
      right: { text: "ab" }
    }
  ])
})
