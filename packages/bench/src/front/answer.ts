/** What the provider of the group `front` answers. */
const event = (data: unknown): string => `data: ${JSON.stringify(data)}\n\n`

const common = { id: "chatcmpl-1", object: "chat.completion.chunk", created: 1_700_000_000, model: "m1" }

const chunk = (delta: object, finish_reason: string | null = null): string =>
  event({ ...common, choices: [{ index: 0, delta, logprobs: null, finish_reason }] })

export const deltas = 64

const usage = { prompt_tokens: 12, completion_tokens: deltas, total_tokens: 12 + deltas }

export const delta = chunk({ content: "word " })

/** The writes of a stream. */
export const pieces: ReadonlyArray<string> = [
  chunk({ role: "assistant", content: "", refusal: null }),
  ...Array.from({ length: deltas }, () => delta),
  chunk({}, "stop"),
  "data: [DONE]\n\n"
]

export const whole = Buffer.from(JSON.stringify({
  ...common,
  object: "chat.completion",
  choices: [{
    index: 0,
    message: { role: "assistant", content: "word ".repeat(deltas), refusal: null },
    logprobs: null,
    finish_reason: "stop"
  }],
  usage
}))
