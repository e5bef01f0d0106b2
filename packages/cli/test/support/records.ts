import type { Attempt, CallLog, Skipped } from "@sluice/ai/CallLog"
import type { CallRecord } from "../../src/run/CallRecord.ts"

/** An attempt that succeeded, from 100 ms to 200 ms after the start, with these changes. */
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

/** An attempt that failed with this status. */
export const refused = (status: number, changes: Partial<Attempt> = {}): Attempt => {
  const { usage: _, ...failed } = attempt({
    outcome: status === 429 ? "Throttled" : "Failure",
    fault: { type: status === 429 ? "RateLimitError" : "InternalProviderError", message: `HTTP ${status}`, status },
    next: "Fallback",
    ...changes
  })
  return failed
}

/** A call with these steps. */
export const call = (...steps: ReadonlyArray<Attempt | Skipped>): CallLog => ({
  id: "call_1",
  method: "streamText",
  startedAt: 1_000,
  endedAt: 1_500,
  result: "Success",
  steps,
  usage: { inputTokens: 10, outputTokens: 5, estimated: false }
})

/** The record of a prompt answered by its own call, with these changes. */
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

/** Text that attacks a terminal and a page. */
export const hostile = `"><script>alert(1)</script><img src=x onerror='a()'>&amp;\u202egnp.\x1b[31m\u0007`
