import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import type * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import { existsSync, writeFileSync } from "node:fs"
import { costOf } from "../../src/run/Prices.ts"
import type { Result } from "../../src/run/Result.ts"
import { refused, split } from "../support/command.ts"
import { allAnswered, lines, resultsIn } from "../support/files.ts"
import { requests, run, setUp, start } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const price = { input: 1_000, output: 10_000 }

const costIn = (journal: ReadonlyArray<{ readonly inputTokens: number; readonly outputTokens: number }>): number =>
  journal.reduce((sum, entry) => sum + costOf(price, entry), 0) / 1e6

const sumOf = (results: ReadonlyArray<Result>): number => results.reduce((sum, { cost = 0 }) => sum + cost, 0)

/** Answers have ten words, and take long enough that all places are in use. */
const options: LoopbackProvider.Options = {
  pace: { firstTokenMillis: 600, tokenMillis: 2, tokensPerChunk: 4 },
  answer: () => Effect.succeed({ text: "one two three four five six seven eight nine ten" })
}

const flags = ["--price", "1000,10000", "--max-tokens", "12", "--concurrency", "64"]

describe("sluice run --max-cost", { timeout: processTimeout }, () => {
  it.live("ends with exit code 4 within the budget, with 64 calls in flight, and the printed command completes the run", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(200), options)
      const first = yield* run([prompts, "-o", results, ...flags, "--max-cost", "12"], env)

      assert.strictEqual(first.code, 4, first.stderr)
      const journal = yield* provider.journal
      assert.strictEqual(Journal.maxOpen(journal), 64)
      const paid = costIn(journal)
      assert.isAtMost(paid, 12)
      assert.isAbove(paid, 11)
      const written = resultsIn(results)
      const answered = written.filter(({ status }) => status === "ok").length
      assert.isAtLeast(answered, 100)
      assert.isBelow(answered, 200)
      assert.closeTo(sumOf(written), paid, 1e-9)
      assert.match(first.stderr, /\n {2}cost +\$11\.\d\d, of at most \$12\.00\n/)
      assert.match(first.stderr, /\nsluice run: the budget of \$12\.00 is used up: \$11\.\d\d spent, [^\n]*\n/)

      const [, advice = ""] = /To go on:\n {2}sluice ([^\n]*)\n/.exec(first.stderr) ?? []
      const [, ...args] = yield* Effect.promise(() => split(advice))
      assert.includeMembers(args, ["--resume", "--max-cost"])
      const second = yield* run(args, env)
      assert.strictEqual(second.code, 0, second.stderr)
      const all = resultsIn(results)
      allAnswered(all.filter(({ status }) => status === "ok"), 200)
      assert.closeTo(sumOf(all), costIn(yield* provider.journal), 1e-9)
      assert.match(second.stderr, /\n {2}cost +\$\d+\.\d\d, \$\d+\.\d\d with earlier runs, of at most \$/)
    }))

  it.live("costs at most the budget although the run is killed and resumed several times", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(1_000), {
        ...options,
        pace: { firstTokenMillis: 50, tokenMillis: 100, tokensPerChunk: 1 }
      })
      // A kill loses about $1: eight calls that run.
      const budget = ["--price", "1000,10000", "--max-tokens", "12", "--concurrency", "8", "--max-cost", "10"]
      const args = [prompts, "-o", results, "--resume", ...budget]
      for (let kill = 0; kill < 4; kill++) {
        const before = (yield* provider.journal).length
        const command = yield* start(args, env)
        // The first kill comes before there is a result.
        yield* requests(provider, before + (kill === 0 ? 8 : 12), command)
        yield* Effect.sleep(700)
        command.process.kill("SIGKILL")
        yield* Effect.promise(() => command.ended)
      }
      const last = yield* run(args, env)
      assert.strictEqual(last.code, 4, last.stderr)
      assert.match(last.stderr, /\ncalls without a result may have cost \$\d\.\d\d, which the budget counts\n/)
      const paid = costIn(yield* provider.journal)
      assert.isAtMost(paid, 10)
      assert.isAbove(paid, sumOf(resultsIn(results)) + 2)
      // What was lost stays counted after a run that ended.
      const calls = (yield* provider.journal).length
      assert.strictEqual((yield* run(args, env)).code, 4)
      assert.strictEqual((yield* provider.journal).length, calls)
    }))

  it.live("a run that ends leaves no mark beside its results, and a damaged one is refused", () =>
    Effect.gen(function*() {
      const { env, prompts, results } = yield* setUp(lines(8), options)
      const args = [prompts, "-o", results, "--resume", ...flags, "--max-cost", "50"]
      assert.strictEqual((yield* run([...args, "--limit", "4"], env)).code, 0)
      const mark = `${results}.budget`
      assert.isFalse(existsSync(mark))
      writeFileSync(mark, "{")
      const { code, stderr } = yield* run(args, env)
      assert.deepStrictEqual(
        [code, /results\.jsonl\.budget: it is damaged\. Delete it/.test(stderr)],
        [2, true],
        stderr
      )
    }))

  it.live("the printed budget is enough for the rest, also if a small part was sent", () =>
    Effect.gen(function*() {
      const { env, prompts, results } = yield* setUp(lines(40), { ...options, pace: {} })
      const first = yield* run([prompts, "-o", results, ...flags, "--max-cost", "0.7"], env)
      assert.strictEqual(first.code, 4, first.stderr)
      const answered = resultsIn(results).filter(({ status }) => status === "ok").length
      assert.isAbove(answered, 0)
      assert.isBelow(answered, 10)
      const [, advice = ""] = /To go on:\n {2}sluice ([^\n]*)\n/.exec(first.stderr) ?? []
      const second = yield* run((yield* Effect.promise(() => split(advice))).slice(1), env)
      assert.strictEqual(second.code, 0, second.stderr)
    }))

  it.live("what earlier runs spent counts, so the same budget sends nothing more", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(8), options)
      const args = [prompts, "-o", results, ...flags, "--max-cost", "0.7"]
      assert.strictEqual((yield* run(args, env)).code, 4)
      const calls = (yield* provider.journal).length
      assert.isAbove(calls, 0)
      assert.strictEqual((yield* run([...args, "--resume"], env)).code, 4)
      assert.strictEqual((yield* provider.journal).length, calls)
    }))

  it.live("a run that cannot be priced is refused before any call, and leaves no results", () =>
    Effect.gen(function*() {
      const other = JSON.stringify({ prompt: "Question", model: "other" })
      const { env, prompts, provider, results } = yield* setUp([...lines(3), other], options)
      const base = [prompts, "-o", results, "--max-cost", "5"]
      refused(
        yield* run([...base, "--max-tokens", "5"], env),
        "line 1: no price for model rules at 127.0.0.1:",
        "--price"
      )
      refused(
        yield* run([...base, "--price", "1,2"], env),
        "line 1: --max-cost needs a limit of tokens",
        "--max-tokens"
      )
      refused(yield* run([...base, "--price", "1,2", "--price-file", "x"], env), "not both")
      assert.deepStrictEqual(yield* provider.journal, [])
    }))

  it.live("without a price results have no cost, and with one each has its own", () =>
    Effect.gen(function*() {
      const { env, prompts, results } = yield* setUp(lines(4, 2), options)
      assert.strictEqual((yield* run([prompts, "-o", results], env)).code, 0)
      assert.deepStrictEqual(resultsIn(results).map(({ cost }) => cost), [undefined, undefined, undefined, undefined])
      assert.strictEqual((yield* run([prompts, "-o", results, "--force", "--price", "1,2"], env)).code, 0)
      const costs = resultsIn(results).toSorted((a, b) => a.line - b.line).map(({ cost = -1 }) => cost)
      assert.isAbove(Math.min(...costs.slice(0, 2)), 0)
      assert.deepStrictEqual(costs.slice(2), [0, 0])
    }))
})
