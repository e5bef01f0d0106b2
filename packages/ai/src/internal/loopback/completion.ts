// The JSON of this wire, as a provider writes it.

export interface Head {
  readonly id: string
  /** Epoch seconds. */
  readonly created: number
  readonly model: string
}

export interface Counts {
  readonly input: number
  readonly output: number
}

export type FinishReason = "stop" | "length"

const usage = (counts: Counts) => ({
  prompt_tokens: counts.input,
  completion_tokens: counts.output,
  total_tokens: counts.input + counts.output
})

export const whole = (head: Head, content: string, finish_reason: FinishReason, counts: Counts) => ({
  id: head.id,
  object: "chat.completion",
  created: head.created,
  model: head.model,
  choices: [{ index: 0, message: { role: "assistant", content }, logprobs: null, finish_reason }],
  usage: usage(counts)
})

const event = (head: Head, choices: ReadonlyArray<unknown>, more?: object): string => {
  const chunk = {
    id: head.id,
    object: "chat.completion.chunk",
    created: head.created,
    model: head.model,
    choices,
    ...more
  }
  return `data: ${JSON.stringify(chunk)}\n\n`
}

export const first = (head: Head): string =>
  event(head, [{ index: 0, delta: { role: "assistant", content: "" }, finish_reason: null }])

export const delta = (head: Head, content: string): string =>
  event(head, [{ index: 0, delta: { content }, finish_reason: null }])

export const last = (head: Head, finish_reason: FinishReason, counts: Counts | undefined): string =>
  event(head, [{ index: 0, delta: {}, finish_reason }]) +
  (counts === undefined ? "" : event(head, [], { usage: usage(counts) })) +
  "data: [DONE]\n\n"

export const error = (message: string, type: string, code: string | null, param: string | null = null) => ({
  error: { message, type, param, code }
})

export const models = (names: ReadonlyArray<string>) => ({
  object: "list",
  data: names.map((id) => ({ id, object: "model", created: 0, owned_by: "loopback" }))
})
