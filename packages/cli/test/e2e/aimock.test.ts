import { LLMock } from "@copilotkit/aimock"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import { allAnswered, resultsIn, write } from "../support/files.ts"
import { filesOf, run } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const sentence = "The quick brown fox jumps over the lazy dog, and then over another one."

/** The fault in the first response to each of these prompts. The second response has none. */
const faults = ["limited", "down", "malformed", "cut", "dropped"] as const

const script = (mock: LLMock): void => {
  const once = { sequenceIndex: 0 }
  mock.on(
    { userMessage: "limited", ...once },
    { error: { message: "slow down", type: "rate_limit_error" }, status: 429, retryAfter: 1 }
  )
  mock.on(
    { userMessage: "down", ...once },
    { error: { message: "overloaded", type: "server_error" }, status: 503 }
  )
  mock.on({ userMessage: "malformed", ...once }, { content: sentence }, { chaos: { malformedRate: 1 } })
  mock.on({ userMessage: "cut", ...once }, { content: sentence }, { chunkSize: 5, truncateAfterChunks: 3 })
  mock.on({ userMessage: "dropped", ...once }, { content: sentence }, { chaos: { disconnectRate: 1 } })
  mock.on({ userMessage: "refused" }, {
    error: { message: "not this one", type: "invalid_request_error" },
    status: 400
  })
  mock.onMessage(/./, { content: sentence })
}

describe("sluice run against a third-party mock server", { timeout: processTimeout }, () => {
  it.live("rate limits, errors, malformed, truncated and dropped responses are retried, and all prompts are answered", () =>
    Effect.gen(function*() {
      const mock = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const mock = new LLMock({ port: 0, logLevel: "silent" })
          script(mock)
          await mock.start()
          return mock
        }),
        (mock) => Effect.promise(() => mock.stop())
      )
      const env = { OPENAI_BASE_URL: `${mock.url}/v1`, SLUICE_MODEL: "m" }
      const { directory, prompts, results } = yield* filesOf(
        ["well", ...faults].map((prompt) => JSON.stringify({ id: prompt, prompt }))
      )
      const { code, stderr } = yield* run([prompts, "-o", results], env)

      assert.strictEqual(code, 0, stderr)
      const answers = resultsIn(results)
      allAnswered(answers, 1 + faults.length)
      for (const answer of answers) {
        assert.strictEqual(answer.status === "ok" ? answer.text : "", sentence, answer.id)
        assert.strictEqual(answer.attempts, answer.id === "well" ? 1 : 2, answer.id)
      }
      for (const reason of ["rate limit: 1", "HTTP 503: 1", "unreadable: 1", "network: 2"]) {
        assert.include(stderr, reason)
      }
      assert.strictEqual(mock.getRequests().length, 1 + 2 * faults.length)

      const refused = write(join(directory, "refused.jsonl"), [`{"prompt":"well"}`, `{"prompt":"refused"}`])
      const second = yield* run([refused], env)
      assert.strictEqual(second.code, 1, second.stderr)
      assert.include(second.stdout, "not this one")
    }))
})
