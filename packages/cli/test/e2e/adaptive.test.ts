import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import { Effect } from "effect"
import { allAnswered, lines, resultsIn } from "../support/files.ts"
import { run, setUp } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

describe("sluice run without limits", { timeout: processTimeout }, () => {
  it.live("starts with four calls at once, and finds the limit of the provider with few rejected calls", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(200), {
        limits: { concurrent: 12 },
        pace: { firstTokenMillis: 100, tokenMillis: 10, tokensPerChunk: 4 }
      })
      const { code, stderr } = yield* run([prompts, "-o", results], env)
      assert.strictEqual(code, 0, stderr)
      allAnswered(resultsIn(results), 200)
      const journal = yield* provider.journal
      assert.isAtMost(Journal.maxOpen(journal.slice(0, 4)), 4)
      assert.isAtMost(journal.filter(({ status }) => status === 429).length, 20)
      assert.isAtLeast(Journal.maxOpen(journal), 8)
      assert.match(stderr, /\n {2}learned limits +127\.0\.0\.1:\d+: \d+ of 64 calls at once\n/)
    }))
})
