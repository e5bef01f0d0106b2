import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import { Effect } from "effect"
import { existsSync } from "node:fs"
import { lines, resultsIn } from "../support/files.ts"
import { requests, says, setUp, start } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const startRun = Effect.fnUntraced(function*(firstTokenMillis: number) {
  const { env, prompts, provider, results } = yield* setUp(lines(400), { pace: { firstTokenMillis } })
  const command = yield* start([prompts, "-o", results], env)
  return { provider, results, command }
})

describe("signals during sluice run", { timeout: processTimeout }, () => {
  it.live.each([["SIGINT", 130], ["SIGTERM", 143]] as const)(
    "%s finishes running prompts, sends no others, and exits with %i",
    ([signal, exitCode]) =>
      Effect.gen(function*() {
        const { command, provider, results } = yield* startRun(800)
        yield* requests(provider, 32)
        command.process.kill(signal)
        yield* says(command, "Finishing running prompts. Press Ctrl-C again to stop now.")
        const { code, stderr } = yield* Effect.promise(() => command.ended)

        assert.strictEqual(code, exitCode, stderr)
        const written = resultsIn(results)
        assert.deepStrictEqual(written.filter(({ status }) => status !== "ok"), [])
        const { calls, endings } = Journal.summary(yield* provider.journal)
        assert.strictEqual(calls, 32)
        assert.strictEqual(endings.complete, calls)
        assert.strictEqual(written.length, calls)
        assert.include(stderr, `  answered         ${calls}\n`)
      })
  )

  it.live("a second SIGINT stops the run at once", () =>
    Effect.gen(function*() {
      const { command, provider, results } = yield* startRun(600_000)
      yield* requests(provider, 16)
      command.process.kill("SIGINT")
      yield* says(command, "again to stop now")
      command.process.kill("SIGINT")
      const { code } = yield* Effect.promise(() => command.ended)
      assert.strictEqual(code, 130)
      assert.isFalse(existsSync(results))
      assert.strictEqual((yield* provider.journal).length, 16)
    }))
})
