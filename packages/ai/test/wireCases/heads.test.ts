import { describe } from "@effect/vitest"
import { answer, chunk, done, table } from "../support/cases.ts"
import { blockDelta, blockStart, blockStop, message, messageDelta, messageStart, namedEvent } from "../support/wires.ts"

const event = (json: unknown) => `data: ${JSON.stringify(json)}\n\n`
const usage = { prompt_tokens: 10, completion_tokens: 7 }
const filters = event({ id: "", model: "", created: 0, object: "", choices: [], prompt_filter_results: [{}] })
const text = blockStart(0, { type: "text", text: "" }) + blockDelta(0, { type: "text_delta", text: "a" }) + blockStop(0)
const stop = (sent: object) => messageDelta("end_turn", sent) + namedEvent({ type: "message_stop" })

describe("the id, the model and the token counts of an answer", () => {
  table([
    {
      report: "vercel/ai 5577",
      title: "the first model and id that are not empty are those of the stream",
      stream: filters + chunk({ role: "assistant" }) + chunk({ content: "a" }, "stop") + done,
      right: { text: "a", model: "m1", id: "c1" }
    },
    {
      report: "brave-browser 40902",
      title: "an id and a model that come one after the other are both read",
      stream: event({ id: "c1", model: "", choices: [] }) + event({ id: "", model: "m1", choices: [] }) +
        event({ choices: [{ index: 0, delta: { content: "a" }, finish_reason: "stop" }] }) + done,
      right: { model: "m1", id: "c1" }
    },
    {
      report: "autogen 6465",
      title: "an empty id and model after the others replace nothing",
      stream: chunk({ content: "a" }) + filters + chunk({}, "stop") + done,
      right: { model: "m1", id: "c1" }
    },
    {
      report: "vercel/ai 5577",
      title: "an empty model of a whole answer is none",
      whole: answer({ content: "a" }, "stop", { model: "", id: "" }),
      right: { text: "a", model: undefined, id: undefined }
    },
    {
      report: "pi 2017",
      title: "token counts in x_groq are read",
      stream: chunk({ content: "a" }, "stop", { x_groq: { id: "req", usage } }) + done,
      right: { tokens: [10, 7] }
    },
    {
      report: "AstrBot 6614",
      title: "token counts in a choice are read",
      stream: chunk({ content: "a" }) +
        event({ choices: [{ index: 0, delta: {}, finish_reason: "stop", usage: { ...usage, cached_tokens: 4 } }] }) +
        done,
      right: { tokens: [10, 7], cached: 4 }
    },
    {
      report: "pi 2017",
      title: "token counts in a vendor's field of a whole answer are read",
      whole: answer({ content: "a" }, "stop", { x_vendor: { usage } }),
      right: { tokens: [10, 7] }
    },
    {
      report: "simonw/llm 1507",
      title: "the timings of llama.cpp are token counts where there is no usage",
      stream: chunk({ content: "a" }, "stop", { timings: { cache_n: 236, prompt_n: 1, predicted_n: 35 } }) + done,
      right: { tokens: [237, 35], cached: 236 }
    },
    {
      report: "litellm 1571",
      title: "an empty usage after the counts replaces nothing",
      stream: chunk({ content: "a" }, "stop", { usage }) + event({ choices: [], usage: {} }) + done,
      right: { tokens: [10, 7] }
    },
    {
      report: "openai-workflow 52",
      title: "counts that come with every event are those of the last",
      stream: chunk({ content: "a" }, null, { usage: { prompt_tokens: 10, completion_tokens: 3 } }) +
        chunk({ content: "b" }, "stop", { usage }) + done,
      right: { tokens: [10, 7] }
    },
    {
      report: "Arize-ai/phoenix 5729",
      title: "counts by Anthropic's names are read on the other wire",
      whole: answer({ content: "a" }, "stop", { usage: { input_tokens: 10, output_tokens: 7 } }),
      right: { tokens: [10, 7] }
    },
    {
      report: "litellm 16129",
      title: "thoughts that are counted beside the output are part of it",
      whole: answer({ content: "a" }, "stop", {
        usage: { ...usage, total_tokens: 117, completion_tokens_details: { reasoning_tokens: 100 } }
      }),
      right: { tokens: [10, 107] }
    },
    {
      report: "litellm 41406",
      title: "input tokens that are 0 at the start and counted at the end are those of the end",
      wire: "anthropic",
      stream: messageStart({ usage: { input_tokens: 0, output_tokens: 0 } }) + text +
        stop({ input_tokens: 11, output_tokens: 5 }),
      right: { tokens: [11, 5] }
    },
    {
      report: "envoy ai-gateway 1631",
      title: "input tokens that are 0 at the end replace nothing",
      wire: "anthropic",
      stream: messageStart({ usage: { input_tokens: 15, output_tokens: 1 } }) + text +
        stop({ input_tokens: 0, output_tokens: 5 }),
      right: { tokens: [15, 5] }
    },
    {
      report: "aisix 712",
      title: "a start without a usage gets the counts of the end",
      wire: "anthropic",
      stream: messageStart({ usage: undefined }) + text +
        stop({ input_tokens: 11, cache_read_input_tokens: 4, output_tokens: 5 }),
      right: { tokens: [15, 5], cached: 4 }
    },
    {
      report: "aisix 712",
      title: "the counts in Bedrock's last event are read",
      wire: "anthropic",
      stream: messageStart({ usage: undefined }) + text + messageDelta("end_turn", {}) +
        namedEvent({
          type: "message_stop",
          "amazon-bedrock-invocationMetrics": { inputTokenCount: 11, outputTokenCount: 5 }
        }),
      right: { tokens: [11, 5] }
    },
    {
      report: "sglang 20685",
      title: "counts by OpenAI's names are read on Anthropic's wire",
      wire: "anthropic",
      whole: message([{ type: "text", text: "a" }], { usage }),
      right: { tokens: [10, 7] }
    },
    {
      report: "vercel/ai 5577",
      title: "an empty model of Anthropic's first event is none",
      wire: "anthropic",
      stream: messageStart({ model: "", id: "" }) + text + stop({ output_tokens: 5 }),
      right: { model: undefined, id: undefined, text: "a" }
    }
  ])
})
