import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync } from "node:fs"
import { lines } from "../support/files.ts"
import { run, setUp } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const prompt = (content: string, more: object = {}): string => JSON.stringify({ prompt: content, ...more })

describe("sluice run --dry-run", { timeout: processTimeout }, () => {
  it.live("prints lines, requests, tokens, cost and time, and sends and writes nothing", () =>
    Effect.gen(function*() {
      const lines = [prompt("x".repeat(400)), prompt("x".repeat(400)), prompt("y".repeat(4)), "oops"]
      const { env, prompts, provider, results } = yield* setUp(lines)
      const flags = ["--price", "1000,10000", "--max-tokens", "50", "--rpm", "1", "--max-cost", "2"]
      const { code, stderr, stdout } = yield* run([prompts, "-o", results, "--dry-run", ...flags], env)

      assert.deepStrictEqual([code, stderr], [0, ""])
      assert.strictEqual(
        stdout,
        [
          "  lines            4",
          "  no prompts       1, which fail as MalformedLine",
          "  requests         2 different, for rules",
          "  tokens           about 101 in, at most 100 out",
          "  cost             about $0.101 for the input, at most $1.10 with the longest",
          "                   answers",
          "  budget           $2.00",
          "  time             at least 1m 00s at 1 request a minute",
          ""
        ].join("\n")
      )
      assert.isFalse(existsSync(results))
      assert.isFalse(existsSync(`${results}.lock`))
      assert.deepStrictEqual(yield* provider.journal, [])
    }))

  it.live("each sample of a line is a request", () =>
    Effect.gen(function*() {
      const { env, prompts, results } = yield* setUp(lines(6, 4))
      const { code, stderr, stdout } = yield* run([prompts, "-o", results, "--dry-run", "--samples", "3"], env)
      assert.strictEqual(code, 0, stderr)
      assert.match(stdout, /lines +6\n/)
      assert.match(stdout, /requests +12\b/)
    }))

  it.live("samples that are added to answered lines are counted by line and by request", () =>
    Effect.gen(function*() {
      const { env, prompts, results } = yield* setUp(lines(4))
      assert.strictEqual((yield* run([prompts, "-o", results], env)).code, 0)
      const { stdout } = yield* run([prompts, "-o", results, "--resume", "--dry-run", "--samples", "3"], env)
      assert.match(stdout, /lines +4\n/)
      assert.match(stdout, /requests +8\b/)
    }))

  it.live("of a resumed run it counts the lines that are left", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp([prompt("one"), prompt("two"), prompt("three")])
      assert.strictEqual((yield* run([prompts, "-o", results, "--limit", "1"], env)).code, 0)
      const { code, stdout } = yield* run([prompts, "-o", results, "--resume", "--dry-run"], env)
      assert.strictEqual(code, 0)
      assert.match(stdout, /lines +2\n {2}answered +1 by earlier runs, left out\n {2}requests +2 different/)
      assert.match(stdout, /tokens +about 3 in, any number out; --max-tokens limits it\n/)
      assert.match(stdout, /cost +not known: a model has no price/)
      assert.strictEqual((yield* provider.journal).length, 1)
    }))

  it.live("a limit for a target that does not exist is refused", () =>
    Effect.gen(function*() {
      const { env, prompts, provider } = yield* setUp([prompt("one")])
      const target = `main=${provider.url}#rules`
      const { code, stderr } = yield* run([prompts, "--dry-run", "--target", target, "--rpm", "mian=5"], env)
      assert.deepStrictEqual([code, stderr], [2, "sluice run: --rpm names mian, which is no target\n"])
    }))
})
