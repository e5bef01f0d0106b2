import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import { join } from "node:path"
import { allAnswered, folder, lines, resultsIn, write } from "./support/files.ts"
import { environment, run } from "./support/provider.ts"

describe("a provider that limits some prompts", () => {
  it.live(
    "is left alone for as long as it wants, by all of them, and all are answered",
    () =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({
          script: { faults: { rateLimit: 0.1 }, retryAfterSeconds: 0.5 }
        })
        const directory = yield* folder
        const prompts = write(join(directory, "prompts.jsonl"), lines(100))
        const results = join(directory, "results.jsonl")
        const args = [prompts, "-o", results, "--concurrency", "4"]
        const { code, stderr } = yield* run(args, environment(provider))

        assert.strictEqual(code, 0, stderr)
        allAnswered(resultsIn(results), 100)
        const journal = yield* provider.journal
        const limited = journal.filter(({ status }) => status === 429)
        assert.isAbove(limited.length, 4)
        assert.strictEqual(journal.length, 100 + limited.length)
        assert.isAtMost(Journal.maxOpen(journal), 4)
        for (const { ended } of limited) {
          // What was on its way may still arrive, but no more than that.
          const from = ended?.monotonic ?? 0
          const sooner = journal.filter(({ received: { monotonic } }) => monotonic > from && monotonic < from + 400)
          assert.isBelow(sooner.length, 10)
        }
      }),
    30_000
  )
})

describe("a prompt that the provider cannot digest", () => {
  it.live(
    "fails with its own error, though the circuit opens at its tries and nobody else is left to close it",
    () =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({
          answer: ({ prompt }) =>
            prompt.includes("poison")
              ? Effect.fail(new LoopbackProvider.AnswerError({ status: 500, message: "no answer to that" }))
              : Effect.succeed({ text: "an answer" })
        })
        const directory = yield* folder
        const poison = JSON.stringify({ id: "bad", prompt: "poison" })
        const prompts = write(join(directory, "prompts.jsonl"), [...lines(5), poison])
        const results = join(directory, "results.jsonl")
        const { code, stderr } = yield* run([prompts, "-o", results, "--concurrency", "1"], environment(provider))

        assert.strictEqual(code, 1, stderr)
        const written = resultsIn(results)
        assert.strictEqual(written.filter(({ status }) => status === "ok").length, 5)
        const failed = written.find(({ id }) => id === "bad")
        assert.strictEqual(failed?.status === "failed" && failed.error.tag, "InternalProviderError")
        // Two rounds of the default of five tries.
        assert.strictEqual((yield* provider.journal).length, 5 + 10)
      }),
    60_000
  )
})
