import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import { Effect } from "effect"
import { lines, resultsIn } from "../support/files.ts"
import { requests, says, setUp, start } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const concurrency = 16

const startRun = Effect.fnUntraced(function*(firstTokenMillis: number) {
  const { env, prompts, provider, results } = yield* setUp(lines(400), { pace: { firstTokenMillis } })
  const command = yield* start([prompts, "-o", results, "--concurrency", String(concurrency)], env)
  return { provider, results, command }
})

describe("signals during sluice run", { timeout: processTimeout }, () => {
  it.live.each([["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]] as const)(
    "%s finishes running prompts, sends no others, and exits with %i",
    ([signal, exitCode]) =>
      Effect.gen(function*() {
        const { command, provider, results } = yield* startRun(800)
        yield* requests(provider, 32, command)
        command.process.kill(signal)
        yield* says(command, "Finishing running prompts.")
        const { code, stderr } = yield* Effect.promise(() => command.ended)

        assert.strictEqual(code, exitCode, stderr)
        const written = resultsIn(results)
        const { calls, endings } = Journal.summary(yield* provider.journal)
        // A busy machine may deliver the signal after the next prompts were sent.
        assert.isBelow(calls, 400)
        assert.strictEqual(endings.complete, calls)
        assert.strictEqual(written.filter(({ status }) => status === "ok").length, calls)
        const unsent = written.flatMap((result) => result.status === "failed" ? [result.error.tag] : [])
        assert.deepStrictEqual([...new Set(unsent)], ["NotSent"])
        assert.deepStrictEqual(stderr.includes("Ctrl-C"), signal === "SIGINT")
        assert.include(stderr, `  answered         ${calls}\n`)
      })
  )

  it.live("a standard error that is closed does not stop the run", () =>
    Effect.gen(function*() {
      const { command, results } = yield* startRun(10)
      command.process.stderr.destroy()
      const { code } = yield* Effect.promise(() => command.ended)
      assert.strictEqual(code, 0)
      assert.strictEqual(resultsIn(results).filter(({ status }) => status === "ok").length, 400)
    }))

  it.live("a second SIGINT stops the run at once", () =>
    Effect.gen(function*() {
      const { command, provider, results } = yield* startRun(600_000)
      yield* requests(provider, concurrency, command)
      command.process.kill("SIGINT")
      yield* says(command, "again to stop now")
      command.process.kill("SIGINT")
      const { code } = yield* Effect.promise(() => command.ended)
      assert.strictEqual(code, 130)
      const tags = resultsIn(results).flatMap((result) => result.status === "failed" ? [result.error.tag] : [])
      assert.strictEqual(tags.filter((tag) => tag === "Unfinished").length, concurrency)
      assert.deepStrictEqual([...new Set(tags)].sort(), ["NotSent", "Unfinished"])
      assert.strictEqual((yield* provider.journal).length, concurrency)
    }))
})
