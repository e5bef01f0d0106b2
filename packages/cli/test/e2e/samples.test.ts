import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import * as Process from "../support/command.ts"
import { lines, resultsIn, write } from "../support/files.ts"
import { requests, run, setUp, start } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

/** `line/sample` of the results with an answer. */
const answeredIn = (path: string): ReadonlyArray<string> =>
  resultsIn(path).flatMap(({ line, sample, status }) => status === "ok" ? [`${line}/${sample}`] : [])

const every = (count: number, samples: number): ReadonlyArray<string> =>
  Array.from({ length: count * samples }, (_, index) => `${Math.floor(index / samples) + 1}/${index % samples + 1}`)

describe("sluice run --samples", { timeout: processTimeout }, () => {
  it.live("each prompt has N results of N requests, and equal prompts share those of the same number", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp([...lines(20, 10), "no prompt"])
      const args = ["--samples", "3", "--ordered", "--cache", `${results}.cache`]
      const { code, stderr } = yield* run([prompts, "-o", results, ...args], env)
      assert.strictEqual(code, 1, stderr)
      assert.strictEqual((yield* provider.journal).length, 30)
      assert.deepStrictEqual(answeredIn(results), every(20, 3))
      assert.deepInclude(resultsIn(results).at(-1), { line: 21, status: "failed" })
      assert.isUndefined(resultsIn(results).at(-1)?.sample)
      const hashes = resultsIn(results).slice(0, 3).map((result) => "request" in result && result.request)
      assert.strictEqual(new Set(hashes).size, 3)

      const more = join(`${results}.more`)
      yield* run([prompts, "-o", more, "--samples", "4", "--cache", `${results}.cache`], env)
      assert.strictEqual((yield* provider.journal).length, 40)
    }))

  it.live("a run that was killed is resumed by samples, and no answer is paid for twice", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(100), { pace: { firstTokenMillis: 10 } })
      const args = [prompts, "-o", results, "--samples", "4", "--resume", "--concurrency", "8"]
      const command = yield* start(args, env)
      yield* requests(provider, 150, command)
      command.process.kill("SIGKILL")
      yield* Effect.promise(() => command.ended)
      const status = yield* Effect.promise(() => Process.run(["status", results]))
      assert.match(status.stdout, /answered {7}\d+ of 400 answers to 100 lines in /)
      const { code, stderr } = yield* run(args, env)
      assert.strictEqual(code, 0, stderr)
      assert.deepStrictEqual([...answeredIn(results)].sort(), [...every(100, 4)].sort())
      assert.isAtMost((yield* provider.journal).length, 400 + 2 * 8)
    }))

  it.live("a run is resumed with more samples, and refused with fewer", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(5))
      yield* run([prompts, "-o", results], env)
      const more = yield* run([prompts, "-o", results, "--resume", "--samples", "2"], env)
      assert.strictEqual(more.code, 0, more.stderr)
      assert.strictEqual((yield* provider.journal).length, 10)
      const fewer = yield* run([prompts, "-o", results, "--resume"], env)
      assert.strictEqual(fewer.code, 2)
      assert.include(fewer.stderr, "it has 2 samples of a line; use --samples 2")
      write(prompts, [...lines(4), `{"id":"p5","prompt":"Another question"}`])
      const changed = yield* run([prompts, "-o", results, "--resume", "--samples", "2"], env)
      assert.include(changed.stderr, "line 5 (id p5) of the input is not the prompt that was sent")
      assert.strictEqual((yield* provider.journal).length, 10)
    }))
})
