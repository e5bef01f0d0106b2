import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect, Redacted } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { lines } from "../support/files.ts"
import { run, setUp } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const canary = "sk-canary-4f1d0a7be93c4d55"

/** Runs prompts and asserts that neither the output nor the results contain the key. */
const ranWith = Effect.fnUntraced(function*(answer: LoopbackProvider.Answer, args: ReadonlyArray<string> = []) {
  const { env, prompts, provider, results } = yield* setUp(lines(20), { apiKey: Redacted.make(canary), answer })
  const ended = yield* run([prompts, "-o", results, ...args], env)
  const written = existsSync(results) ? readFileSync(results, "utf8") : ""
  assert.notInclude(ended.stdout + ended.stderr + written, canary)
  assert.isAbove((yield* provider.journal).length, 0)
  return { ...ended, written }
})

const refuse = (status: number) =>
  Effect.fail(new LoopbackProvider.AnswerError({ status, message: `your key ${canary} is not liked` }))

describe("masking of the key", { timeout: processTimeout }, () => {
  it.live("the key is masked in an answer that repeats it", () =>
    Effect.gen(function*() {
      const { code, written } = yield* ranWith(() => Effect.succeed({ text: `You sent ${canary}, and this.` }))
      assert.strictEqual(code, 0)
      assert.include(written, "You sent [masked], and this.")
    }))

  it.live("the key is masked in the error of a prompt that repeats it", () =>
    Effect.gen(function*() {
      const { code, written } = yield* ranWith(({ prompt }) =>
        prompt === "Question 1" ? Effect.succeed({ text: "fine" }) : refuse(prompt === "Question 2" ? 503 : 400), [
        "--max-attempts",
        "2"
      ])
      assert.strictEqual(code, 1)
      assert.include(written, "is not liked")
    }))

  it.live("the key is masked in the error of the run that repeats it", () =>
    Effect.gen(function*() {
      for (const status of [401, 403, 404]) {
        const { code, stderr } = yield* ranWith(() => refuse(status))
        assert.strictEqual(code, 2, stderr)
        assert.match(stderr, /^sluice run: [^\n]*\n$/)
      }
    }))
})
