import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { allAnswered, lines, resultsIn } from "../support/files.ts"
import { run, setUp } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

describe("sluice run --cache", { timeout: processTimeout }, () => {
  it.live("a second run makes no request, and says which answers it reused", () =>
    Effect.gen(function*() {
      const { directory, env, prompts, provider, results } = yield* setUp(lines(30, 20))
      const cache = ["--cache", join(directory, "cache")]
      const first = yield* run([prompts, "-o", results, ...cache], env)
      assert.strictEqual(first.code, 0, first.stderr)
      assert.include(first.stderr, "  cache            0 answers reused, 20 added\n")
      assert.strictEqual((yield* provider.journal).length, 20)

      const again = join(directory, "again.jsonl")
      const second = yield* run([prompts, "-o", again, ...cache, "--log", join(directory, "log.jsonl")], env)
      assert.strictEqual(second.code, 0, second.stderr)
      assert.strictEqual((yield* provider.journal).length, 20)
      allAnswered(resultsIn(again), 30)
      assert.deepStrictEqual([...new Set(resultsIn(again).map(({ attempts, how }) => `${how} ${attempts}`))], [
        "cached 0"
      ])
      assert.include(second.stderr, "  cache            30 answers reused, 0 added\n")
      assert.include(second.stderr, "  tokens           0 in, 0 out\n")
      assert.notInclude(first.stderr + second.stderr, "Warning")
      const texts = (path: string) =>
        resultsIn(path).map((result) => [result.line, result.status === "ok" && result.text]).sort()
      assert.deepStrictEqual(texts(again), texts(results))
    }))

  it.live("a file that is no cache is refused in one line, before the first request", () =>
    Effect.gen(function*() {
      const { directory, env, prompts, provider, results } = yield* setUp(lines(1))
      const file = join(directory, "answers-1.sqlite")
      writeFileSync(file, "my notes\n")
      const { code, stderr } = yield* run([prompts, "-o", results, "--cache", directory], env)
      assert.strictEqual(code, 2)
      assert.match(stderr, /^sluice run: cannot use the cache [^\n]*: it is not a file of sluice; name another folder/)
      assert.strictEqual(readFileSync(file, "utf8"), "my notes\n")
      assert.strictEqual((yield* provider.journal).length, 0)
    }))
})
