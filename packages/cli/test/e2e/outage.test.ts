import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect, Exit, Fiber, Redacted, Scope } from "effect"
import { engineFor, prompt } from "../support/engine.ts"
import { allAnswered, lines, resultsIn } from "../support/files.ts"
import { environment, filesOf, requests, setUp, start } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const concurrency = 16

describe("sluice run with a provider that goes down during the run", { timeout: processTimeout }, () => {
  it.live("1,500 prompts are answered despite an outage of 12 seconds, with fewer than 50 requests during it", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(1_500), { pace: { firstTokenMillis: 10 } })
      const command = yield* start([prompts, "-o", results, "--concurrency", String(concurrency)], env)
      yield* requests(provider, 500, command)
      yield* provider.down
      yield* Effect.sleep("12 seconds")
      const soFar = resultsIn(results).length
      yield* provider.up
      const { code, stderr } = yield* Effect.promise(() => command.ended)

      assert.strictEqual(code, 0, stderr)
      allAnswered(resultsIn(results), 1_500)
      assert.isBelow(soFar, 1_500)
      const journal = yield* provider.journal
      const whileDown = Journal.whileDown(journal).length
      assert.isAbove(whileDown, 0)
      assert.isBelow(whileDown, 50)
      // On busy cores not all of them are open at one moment.
      assert.isAtMost(Journal.maxOpen(journal), concurrency)
      assert.isAbove(Journal.maxOpen(journal), concurrency / 4)
      assert.include(stderr, "provider down")
    }))

  it.live("all prompts are answered after a provider that refused connections for 3 seconds listens again", () =>
    Effect.gen(function*() {
      const options = { apiKey: Redacted.make("the-same-before-and-after"), pace: { firstTokenMillis: 10 } }
      const before = yield* Scope.make()
      const first = yield* LoopbackProvider.make(options).pipe(Scope.provide(before))
      const { prompts, results } = yield* filesOf(lines(600))
      const command = yield* start([prompts, "-o", results], environment(first))
      yield* requests(first, 200, command)
      yield* Scope.close(before, Exit.void)
      yield* Effect.sleep("3 seconds")
      const second = yield* LoopbackProvider.make({ ...options, port: first.port })
      const { code, stderr } = yield* Effect.promise(() => command.ended)

      assert.strictEqual(code, 0, stderr)
      allAnswered(resultsIn(results), 600)
      assert.isAbove((yield* second.journal).length, 0)
      assert.match(stderr, /failed attempts {2}[^\n]*network: \d+/)
    }))

  it.live("an outage longer than --max-outage stops the run with exit code 3, the summary and the reason", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(2_000), { pace: { firstTokenMillis: 10 } })
      const command = yield* start([prompts, "-o", results, "--max-outage", "2s"], env)
      yield* requests(provider, 100, command)
      yield* provider.down
      const { code, stderr, stdout } = yield* Effect.promise(() => command.ended)

      assert.strictEqual(code, 3, stderr)
      assert.match(
        stderr,
        /^(?:[\d,]+\/2,000 done [^\n]*\n)* {2}answered [^]*\n {2}time [^\n]*\nsluice run: the provider was down for 2\.0s; the remaining prompts were not sent\. Raise --max-outage to wait longer\nTo go on:\n[^\n]* --resume [^\n]*\n$/
      )
      assert.strictEqual(stdout, "")
      const written = resultsIn(results)
      const answered = written.filter(({ status }) => status === "ok").length
      assert.isAbove(answered, 0)
      assert.isBelow(answered, 200)
      // Every line that was read has a result: the lines have no gap, and the last ones say that the run stopped.
      const read = written.map(({ line }) => line).sort((a, b) => a - b)
      assert.deepStrictEqual(read, read.map((_, index) => index + 1))
      const tags = new Set(written.flatMap((result) => result.status === "failed" ? [result.error.tag] : []))
      assert.deepStrictEqual([...tags].filter((tag) => tag !== "NotSent" && tag !== "Unfinished"), [])
      assert.isAbove(written.length, answered)
    }))

  it.live("each request carries the number of its attempt, counted over all calls of the prompt", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make()
      const engine = yield* engineFor(provider, { concurrency: 1 })
      yield* provider.down
      const completing = yield* Effect.forkChild(engine.complete(prompt(1)), { startImmediately: true })
      yield* requests(provider, 7)
      yield* provider.up
      const { attempts, status } = (yield* Fiber.join(completing)).result
      assert.deepStrictEqual([status, attempts], ["ok", 8])
      assert.deepStrictEqual((yield* provider.journal).map(({ attempt }) => attempt), [1, 2, 3, 4, 5, 6, 7, 8])
    }))
})
