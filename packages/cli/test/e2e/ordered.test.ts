import { assert, describe, it } from "@effect/vitest"
import type * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import { allAnswered, lines, resultsIn } from "../support/files.ts"
import { requests, run, setUp, start } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const count = 400

/** Some answers take much longer than the others. */
const answer: LoopbackProvider.Options["answer"] = ({ prompt }) =>
  Effect.delay(
    Effect.succeed({ text: "fine" }),
    Number(prompt.slice("Question ".length)) % 37 === 3 ? "400 millis" : "5 millis"
  )

const inOrder = Array.from({ length: count }, (_, index) => index + 1)

describe("sluice run --ordered", { timeout: processTimeout }, () => {
  it.live("results are in the order of the input, and Ctrl-C writes a result for every line before the last", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(count), { answer })
      const args = [prompts, "-o", results, "--ordered", "--sync", "--resume", "--concurrency", "8"]
      const command = yield* start(args, env)
      yield* requests(provider, 150, command)
      command.process.kill("SIGINT")
      yield* Effect.promise(() => command.ended)
      const first = resultsIn(results).map(({ line }) => line)
      assert.deepStrictEqual(first, inOrder.slice(0, first.length))

      const second = yield* run(args, env)
      assert.strictEqual(second.code, 0, second.stderr)
      assert.deepStrictEqual(
        resultsIn(results).slice(first.length).map(({ line }) => line),
        resultsIn(results).slice(first.length).map(({ line }) => line).sort((a, b) => a - b)
      )
      allAnswered(resultsIn(results).filter(({ status }) => status === "ok"), count)
      assert.strictEqual((yield* provider.journal).length, count)
    }))

  it.live("a killed run is resumed in order, and at most the window is paid for again", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(count), { answer })
      const args = [prompts, "-o", results, "--ordered", "--resume", "--concurrency", "8", "--quiet"]
      const command = yield* start(args, env)
      yield* requests(provider, 200, command)
      command.process.kill("SIGKILL")
      yield* Effect.promise(() => command.ended)
      const { code, stderr } = yield* run(args, env)
      assert.strictEqual(code, 0, stderr)
      assert.deepStrictEqual(resultsIn(results).map(({ line }) => line), inOrder)
      assert.isAtMost((yield* provider.journal).length, count + 16 * 8)
    }))
})
