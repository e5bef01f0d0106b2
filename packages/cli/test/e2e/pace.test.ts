import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { allAnswered, lines, resultsIn } from "../support/files.ts"
import { run, setUp } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

describe("sluice run --rpm", { timeout: processTimeout }, () => {
  it.live("spreads requests over the time that the limit allows, although more may run at once", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(52))
      const { code, stderr } = yield* run([prompts, "-o", results, "--rpm", "120"], env)
      assert.strictEqual(code, 0, stderr)
      allAnswered(resultsIn(results), 52)
      const starts = (yield* provider.journal).map(({ received }) => received.monotonic)
      // A burst has six times the rate: 12 requests a second.
      assert.isAbove(Math.max(...starts) - Math.min(...starts), 2_000)
    }))
})
