import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import { allAnswered, lines, resultsIn } from "../support/files.ts"
import { run, setUp } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

describe("sluice run with a provider that refuses some prompts", { timeout: processTimeout }, () => {
  it.live("all prompts wait for a Retry-After, and all are answered", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(100), {
        script: { faults: { rateLimit: 0.1 }, retryAfterSeconds: 0.5 }
      })
      const { code, stderr } = yield* run([prompts, "-o", results, "--concurrency", "4"], env)

      assert.strictEqual(code, 0, stderr)
      allAnswered(resultsIn(results), 100)
      const journal = yield* provider.journal
      const limited = journal.filter(({ status }) => status === 429)
      assert.isAbove(limited.length, 4)
      assert.strictEqual(journal.length, 100 + limited.length)
      assert.isAtMost(Journal.maxOpen(journal), 4)
      for (const { ended } of limited) {
        // Requests that were already on their way may still arrive.
        const from = ended?.monotonic ?? 0
        const sooner = journal.filter(({ received: { monotonic } }) => monotonic > from && monotonic < from + 400)
        assert.isBelow(sooner.length, 10)
      }
    }))

  it.live("a prompt that always fails ends with its own error, even if its attempts keep the circuit open", () =>
    Effect.gen(function*() {
      const poison = JSON.stringify({ id: "bad", prompt: "poison" })
      const { env, prompts, provider, results } = yield* setUp([...lines(5), poison], {
        answer: ({ prompt }) =>
          prompt.includes("poison")
            ? Effect.fail(new LoopbackProvider.AnswerError({ status: 500, message: "no answer to that" }))
            : Effect.succeed({ text: "the letter is fine" })
      })
      const { code, stderr } = yield* run([prompts, "-o", results, "--concurrency", "1"], env)

      assert.strictEqual(code, 1, stderr)
      const written = resultsIn(results)
      assert.strictEqual(written.filter(({ status }) => status === "ok").length, 5)
      const failed = written.find(({ id }) => id === "bad")
      assert.strictEqual(failed?.status === "failed" && failed.error.tag, "InternalProviderError")
      // Five attempts, the default.
      assert.strictEqual((yield* provider.journal).length, 5 + 5)
    }))
})
