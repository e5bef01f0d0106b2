import type { Kind, Result } from "@sluice/batch/Batch"
import { assert, describe, it } from "@effect/vitest"
import * as Lines from "../../src/openai/Line.ts"
import * as Results from "../../src/openai/Results.ts"

const result = (kind: Kind, body: string): Result => ({
  seq: 4,
  key: "a",
  kind,
  body,
  inputTokens: 0,
  outputTokens: 0,
  micros: 0,
  at: 0,
  cursor: "4"
})

const reason = JSON.stringify({ error: { message: "The worker was lost." } })

const cases: ReadonlyArray<readonly [Kind, string, unknown, unknown]> = [
  ["worker_lost", reason, null, { code: "worker_lost", message: "The worker was lost." }],
  ["rounds_exhausted", "no JSON", null, { code: "rounds_exhausted", message: "The request failed." }],
  ["failed", reason, null, { code: "request_failed", message: "The worker was lost." }],
  [
    "failed",
    Lines.encodeResponse({ status: 502, requestId: undefined, body: "<html>" }),
    { status_code: 502, request_id: "", body: "<html>" },
    null
  ],
  [
    "ok",
    Lines.encodeResponse({ status: 200, requestId: "r", body: `{"b":1,"a":2}` }),
    { status_code: 200, request_id: "r", body: { b: 1, a: 2 } },
    null
  ]
]

describe("a line of a result file", () => {
  it("has the response if there was one, and else the reason", () => {
    for (const [kind, body, response, error] of cases) {
      const line = Results.openAiLine("batch_b", result(kind, body))
      assert.isTrue(line.endsWith("\n") && !line.slice(0, -1).includes("\n"))
      assert.deepStrictEqual(JSON.parse(line), { id: "batch_req_b_4", custom_id: "a", response, error })
    }
  })
})
