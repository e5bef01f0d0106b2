import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import { Effect } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync } from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"
import * as Process from "../support/command.ts"
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

  it.live("a third signal ends a run whose results are not read", () =>
    Effect.gen(function*() {
      const { directory, env, prompts } = yield* setUp(lines(20), {
        answer: () => Effect.succeed({ text: "x".repeat(2 ** 20) })
      })
      const pipe = namedPipe(directory)
      const reader = yield* Effect.acquireRelease(
        // For writing too, since it would wait for the run otherwise.
        Effect.promise(() => open(pipe, "r+")),
        (reader) => Effect.promise(() => reader.close())
      )
      const command = yield* start([prompts, "-o", pipe], env)
      // The rest of the first result does not fit into the pipe.
      yield* Effect.promise(() => reader.read(Buffer.alloc(1)))
      command.process.kill("SIGINT")
      yield* says(command, "again to stop now")
      yield* untilEnded(command, "SIGINT")
      assert.strictEqual(command.process.signalCode, "SIGINT")
    }))

  it.live("a signal while a run waits for an output to open says that nothing was sent", () =>
    Effect.gen(function*() {
      const { directory, env, prompts, provider, results } = yield* setUp(lines(20))
      const command = yield* start([prompts, "-o", results, "--log", namedPipe(directory)], env)
      while (!existsSync(`${results}.lock`)) yield* Effect.sleep(5)
      command.process.kill("SIGTERM")
      yield* says(command, "stopped by SIGTERM before the first prompt was sent")
      yield* untilEnded(command, "SIGTERM")
      assert.deepStrictEqual(yield* provider.journal, [])
    }))

  it.live("a signal while a resumed run compares its input ends it at once", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(200_000))
      yield* Effect.promise(() => Process.run(["run", prompts, "-o", results, "--limit", "1"], env))
      const command = yield* start([prompts, "-o", results, "--resume"], env)
      while (!existsSync(`${results}.lock`)) yield* Effect.sleep(1)
      command.process.kill("SIGINT")
      const { stderr } = yield* Effect.promise(() => command.ended)
      assert.include(stderr, "stopped by SIGINT before the first prompt was sent")
      assert.strictEqual(command.process.signalCode, "SIGINT")
      assert.isFalse(existsSync(`${results}.lock`))
      assert.strictEqual((yield* provider.journal).length, 1)
    }))
})

const namedPipe = (directory: string): string => {
  const path = join(directory, "pipe")
  execFileSync("mkfifo", [path])
  return path
}

/** Sends the signal again and again. Signals that are close together can arrive as one. */
const untilEnded = Effect.fnUntraced(function*(command: Process.Command, signal: NodeJS.Signals) {
  while (command.process.exitCode === null && command.process.signalCode === null) {
    command.process.kill(signal)
    yield* Effect.sleep(100)
  }
})
