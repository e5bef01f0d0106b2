import type { Answered, Failed } from "../../src/run/Result.ts"

/** An answered result with these changes. */
export const answered = (changes: Partial<Answered> = {}): Answered => ({
  line: 1,
  id: undefined,
  status: "ok",
  text: "fine",
  target: "main",
  model: "m",
  finish: "stop",
  usage: { inputTokens: 10, outputTokens: 5, estimated: false },
  attempts: 1,
  how: "led",
  milliseconds: 100,
  ...changes
})

/** A failed result with these changes. */
export const failed = (changes: Partial<Failed> = {}, message = "it is down"): Failed => ({
  line: 1,
  id: undefined,
  status: "failed",
  target: "main",
  model: "m",
  attempts: 5,
  how: "led",
  milliseconds: 100,
  error: { tag: "InternalProviderError", message, retryAfter: undefined },
  ...changes
})
