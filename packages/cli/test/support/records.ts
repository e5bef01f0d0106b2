import type { Attempt, CallLog, Skipped } from "@sluice/ai/CallLog"
import type { CallRecord } from "../../src/run/CallRecord.ts"

/** A try that answered, 100 ms after the beginning and for as long, with these differences. */
export const attempt = (changes: Partial<Attempt> = {}): Attempt => ({
  _tag: "Attempt",
  n: 1,
  target: "main",
  waitedMillis: 0,
  startedAt: 1_100,
  endedAt: 1_200,
  outcome: "Success",
  usage: { inputTokens: 10, outputTokens: 5, estimated: false },
  next: "Done",
  ...changes
})

/** A try that got this status. */
export const refused = (status: number, changes: Partial<Attempt> = {}): Attempt => {
  const { usage: _, ...failed } = attempt({
    outcome: status === 429 ? "Throttled" : "Failure",
    fault: { type: status === 429 ? "RateLimitError" : "InternalProviderError", message: `HTTP ${status}`, status },
    next: "Fallback",
    ...changes
  })
  return failed
}

/** A call of these steps. */
export const call = (...steps: ReadonlyArray<Attempt | Skipped>): CallLog => ({
  id: "call_1",
  method: "streamText",
  startedAt: 1_000,
  endedAt: 1_500,
  result: "Success",
  steps,
  usage: { inputTokens: 10, outputTokens: 5, estimated: false }
})

/** A prompt that was answered by a call of its own, with these differences. */
export const record = (changes: Partial<CallRecord> = {}): CallRecord => ({
  line: 1,
  id: "p1",
  status: "ok",
  how: "led",
  startedAt: 1_000,
  milliseconds: 500,
  attempts: 1,
  target: "main",
  model: "small",
  finish: "stop",
  call: "call_1",
  calls: [call(attempt())],
  leftOut: 0,
  ...changes
})

/** Text that would do harm on a terminal and on a page. */
export const hostile = `"><script>alert(1)</script><img src=x onerror='a()'>&amp;\u202egnp.\x1b[31m\u0007`
