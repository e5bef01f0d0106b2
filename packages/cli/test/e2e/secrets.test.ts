import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect, Redacted } from "effect"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { folder, lines, write } from "./support/files.ts"
import { environment, run } from "./support/provider.ts"

const canary = "sk-canary-4f1d0a7be93c4d55"

/** Whether the run told the key, in whatever it printed and wrote. */
const ranWith = Effect.fnUntraced(function*(answer: LoopbackProvider.Answer, args: ReadonlyArray<string> = []) {
  const provider = yield* LoopbackProvider.make({ apiKey: Redacted.make(canary), answer })
  const directory = yield* folder
  const prompts = write(join(directory, "prompts.jsonl"), lines(20))
  const results = join(directory, "results.jsonl")
  const ended = yield* run([prompts, "-o", results, ...args], environment(provider))
  const written = existsSync(results) ? readFileSync(results, "utf8") : ""
  assert.notInclude(ended.stdout + ended.stderr + written, canary)
  assert.isAbove((yield* provider.journal).length, 0)
  return { ...ended, written }
})

const refuse = (status: number) =>
  Effect.fail(new LoopbackProvider.AnswerError({ status, message: `your key ${canary} is not liked` }))

describe("the key", () => {
  it.live("is masked where an answer repeats it", () =>
    Effect.gen(function*() {
      const { code, written } = yield* ranWith(() => Effect.succeed({ text: `You sent ${canary}, and this.` }))
      assert.strictEqual(code, 0)
      assert.include(written, "You sent [masked], and this.")
    }), 30_000)

  it.live("is masked where the refusal of a line repeats it", () =>
    Effect.gen(function*() {
      const { code, written } = yield* ranWith(({ prompt }) =>
        prompt === "Question 1" ? Effect.succeed({ text: "fine" }) : refuse(prompt === "Question 2" ? 503 : 400), [
        "--max-attempts",
        "2"
      ])
      assert.strictEqual(code, 1)
      assert.include(written, "is not liked")
    }), 30_000)

  it.live("is masked where the refusal of the whole run repeats it", () =>
    Effect.gen(function*() {
      for (const status of [401, 403, 404]) {
        const { code, stderr } = yield* ranWith(() => refuse(status))
        assert.strictEqual(code, 2, stderr)
        assert.match(stderr, /^sluice run: [^\n]*\n$/)
      }
    }), 30_000)
})
