import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { folder, lines, resultsIn, write } from "./support/files.ts"
import { environment, requests, says, start } from "./support/provider.ts"

const begun = Effect.fnUntraced(function*(firstTokenMillis: number) {
  const provider = yield* LoopbackProvider.make({ pace: { firstTokenMillis } })
  const directory = yield* folder
  const prompts = write(join(directory, "prompts.jsonl"), lines(400))
  const results = join(directory, "results.jsonl")
  const command = yield* start([prompts, "-o", results], environment(provider))
  return { provider, results, command }
})

describe("Ctrl-C", () => {
  it.live.each([["SIGINT", 130], ["SIGTERM", 143]] as const)(
    "finishes what runs and asks no more: %s ends with %i",
    ([signal, exitCode]) =>
      Effect.gen(function*() {
        const { command, provider, results } = yield* begun(800)
        yield* requests(provider, 32)
        command.process.kill(signal)
        yield* says(command, "Finishing what runs; once more to stop at once.")
        const { code, stderr } = yield* Effect.promise(() => command.ended)

        assert.strictEqual(code, exitCode, stderr)
        const written = resultsIn(results)
        assert.deepStrictEqual(written.filter(({ status }) => status !== "ok"), [])
        const { calls, endings } = Journal.summary(yield* provider.journal)
        assert.strictEqual(calls, 32)
        assert.strictEqual(endings.complete, calls)
        assert.strictEqual(written.length, calls)
        assert.include(stderr, `  answered    ${calls}\n`)
      }),
    30_000
  )

  it.live("twice stops at once", () =>
    Effect.gen(function*() {
      const { command, provider, results } = yield* begun(600_000)
      yield* requests(provider, 16)
      command.process.kill("SIGINT")
      yield* says(command, "once more to stop at once")
      command.process.kill("SIGINT")
      const { code } = yield* Effect.promise(() => command.ended)
      assert.strictEqual(code, 130)
      assert.isFalse(existsSync(results))
      assert.strictEqual((yield* provider.journal).length, 16)
    }), 30_000)
})
