import { describe } from "@effect/vitest"
import { answer, chunk, done, table } from "../support/cases.ts"
import { blockDelta, blockStart, message, messageDelta, messageStart, namedEvent } from "../support/wires.ts"

const event = (json: unknown) => `data: ${JSON.stringify(json)}\n\n`
const failed = { error: "InternalProviderError", remedy: "Retry" } as const

describe("errors in a response with status 200", () => {
  table([
    {
      report: "claudexor 144",
      title: "an error in the message of a choice fails the answer with its code and words",
      whole: {
        choices: [{
          message: { content: "half of", error: { code: 502, message: "bad gateway upstream" } },
          finish_reason: null
        }]
      },
      right: { ...failed, message: "502): bad gateway upstream" }
    },
    {
      report: "nodetool 5755",
      title: "an error in a choice fails the answer as its code does",
      whole: {
        choices: [{
          message: { content: "" },
          finish_reason: "error",
          error: { code: 429, message: "slow down" }
        }]
      },
      right: { error: "RateLimitError" }
    },
    {
      report: "nodetool 5755",
      title: "an error in a choice of a stream fails it after its text",
      stream: [
        chunk({ content: "half" }),
        event({
          choices: [{ index: 0, delta: { content: "" }, finish_reason: "error", error: { code: 502, message: "gone" } }]
        })
      ],
      right: { ...failed, text: "half", message: "502): gone" }
    },
    {
      report: "claudexor 144",
      title: "an error in the delta of a stream fails it",
      stream: [chunk({ content: "half" }), chunk({ error: { code: 503, message: "overloaded" } }), done],
      right: { ...failed, text: "half", message: "503): overloaded" }
    },
    {
      report: "OmniRoute 8210",
      title: "an error beside empty choices of a stream fails it",
      stream: [event({ choices: [], error: { code: 502, message: "request limit reached (33/32)" } }), done],
      right: { ...failed, message: "request limit reached" }
    },
    {
      report: "guidellm 743",
      title: "an error with a gateway's code before [DONE] fails the stream",
      stream: [event({ error: { message: "TimeoutError", type: "GatewayTimeout", code: 504 } }), done],
      right: { ...failed, message: "TimeoutError" }
    },
    {
      report: "openai-python 2943",
      title: "an event that is named error fails the stream with its words",
      stream: [chunk({ content: "half" }), `event: error\ndata: {"message":"engine crashed","code":500}\n\n`],
      right: { ...failed, text: "half", message: "engine crashed" }
    },
    {
      report: "inspect_ai 3987",
      title: "a code and a message instead of an answer are an error",
      whole: { code: 400, message: "Provider returned error" },
      right: { error: "InvalidRequestError", message: "Provider returned error" }
    },
    {
      report: "QwenPaw 433",
      title: "a code of the provider's own and a message instead of a stream are an error",
      stream: [event({ code: 20015, message: "model is overloaded", data: null })],
      right: { ...failed, message: "model is overloaded" }
    },
    {
      report: "bifrost 5963",
      title: "an error beside null choices and a null usage is an error",
      whole: { choices: null, usage: null, error: { code: "server_error", message: "no capacity" } },
      right: { ...failed, message: "no capacity" }
    },
    {
      report: "qwen-code 8322",
      title: "a status in base_resp instead of an answer is an error",
      whole: { choices: null, base_resp: { status_code: 1013, status_msg: "internal service error" } },
      right: { ...failed, message: "internal service error" }
    },
    {
      report: "qwen-code 8322",
      title: "a good status in base_resp beside an answer is no error",
      whole: answer({ content: "hello" }, "stop", { base_resp: { status_code: 0, status_msg: "" } }),
      right: { text: "hello", finish: "stop" }
    },
    {
      report: "OpenChatCut 6",
      title: "a list with an error instead of a stream is an error",
      stream: [event([{ error: { code: 503, message: "high demand", status: "UNAVAILABLE" } }])],
      right: { ...failed, message: "high demand" }
    },
    {
      report: "inference-perf 744",
      title: "an error that is a text with its type beside it is an error",
      stream: [event({ error: "Model is overloaded", error_type: "overloaded" })],
      right: { ...failed, message: "Model is overloaded" }
    },
    {
      report: "vllm-ascend 15108",
      title: "an object of the kind error instead of an answer is an error",
      whole: { object: "error", message: "max_tokens is too large", type: "BadRequestError", code: 400 },
      right: { error: "InvalidRequestError", message: "max_tokens is too large" }
    },
    {
      report: "bifrost 5963",
      title: "an empty error beside an answer is no error",
      whole: answer({ content: "hello", error: "" }, "stop", { error: {} }),
      right: { text: "hello", finish: "stop" }
    },
    {
      report: "tidebreak 1122",
      title: "an error event of Anthropic's wire fails the stream after its text",
      wire: "anthropic",
      stream: [
        messageStart() + blockStart(0, { type: "text", text: "" }) +
        blockDelta(0, { type: "text_delta", text: "half" }) +
        namedEvent({ type: "error", error: { type: "overloaded_error", message: "Overloaded" } })
      ],
      right: { ...failed, text: "half", message: "Overloaded" }
    },
    {
      report: "openai-python 2943",
      title: "an error event of Anthropic's wire without the error object has its words",
      wire: "anthropic",
      stream: [messageStart() + `event: error\ndata: {"message":"engine crashed","code":500}\n\n`],
      right: { ...failed, message: "engine crashed" }
    },
    {
      report: "claudexor 144",
      title: "an error in the message of Anthropic's first event fails the stream",
      wire: "anthropic",
      stream: [messageStart({ error: { type: "api_error", message: "bad gateway" } })],
      right: { ...failed, message: "bad gateway" }
    },
    {
      report: "claudexor 144",
      title: "an error beside the content of Anthropic's whole answer fails it",
      wire: "anthropic",
      whole: message([{ type: "text", text: "half" }], { error: { type: "overloaded_error", message: "Overloaded" } }),
      right: { ...failed, message: "Overloaded" }
    },
    {
      report: "inspect_ai 3987",
      title: "a code and a message instead of Anthropic's answer are an error",
      wire: "anthropic",
      whole: { code: 502, message: "Provider returned error" },
      right: { ...failed, message: "Provider returned error" }
    },
    {
      report: "nodetool 5755",
      title: "an error in a delta of Anthropic's wire fails the stream",
      wire: "anthropic",
      stream: [
        messageStart() +
        messageDelta("end_turn").replace(`"stop_sequence"`, `"error":{"message":"gone"},"stop_sequence"`)
      ],
      right: { ...failed, message: "gone" }
    }
  ])
})
