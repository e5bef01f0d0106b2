import { assert, describe, it } from "@effect/vitest"
import * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect, Exit, Fiber, Redacted, Scope } from "effect"
import { join } from "node:path"
import { engineFor, prompt } from "./support/engine.ts"
import { allAnswered, folder, lines, resultsIn, write } from "./support/files.ts"
import { environment, requests, start } from "./support/provider.ts"

const concurrency = 16

describe("a provider that goes down in the middle of a file", () => {
  it.live(
    "for 20 seconds: 5,000 lines are answered, and it is called fewer than 50 times meanwhile, by 16 at once at most",
    () =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({ pace: { firstTokenMillis: 10 } })
        const directory = yield* folder
        const prompts = write(join(directory, "prompts.jsonl"), lines(5_000))
        const results = join(directory, "results.jsonl")
        const command = yield* start([prompts, "-o", results], environment(provider))
        yield* requests(provider, 2_000)
        yield* provider.down
        yield* Effect.sleep("20 seconds")
        const soFar = resultsIn(results).length
        yield* provider.up
        const { code, stderr } = yield* Effect.promise(() => command.ended)

        assert.strictEqual(code, 0, stderr)
        allAnswered(resultsIn(results), 5_000)
        assert.isBelow(soFar, 5_000)
        const journal = yield* provider.journal
        const whileDown = Journal.whileDown(journal).length
        assert.isAbove(whileDown, 0)
        assert.isBelow(whileDown, 50)
        assert.strictEqual(Journal.maxOpen(journal), concurrency)
        assert.include(stderr, "provider down")
      }),
    120_000
  )

  it.live(
    "and is really gone, for 3 seconds: all lines are answered when it listens again",
    () =>
      Effect.gen(function*() {
        const key = Redacted.make("the-same-before-and-after")
        const options = { apiKey: key, pace: { firstTokenMillis: 10 } }
        const before = yield* Scope.make()
        const first = yield* LoopbackProvider.make(options).pipe(Scope.provide(before))
        const directory = yield* folder
        const prompts = write(join(directory, "prompts.jsonl"), lines(600))
        const results = join(directory, "results.jsonl")
        const command = yield* start([prompts, "-o", results], environment(first))
        yield* requests(first, 200)
        yield* Scope.close(before, Exit.void)
        yield* Effect.sleep("3 seconds")
        const second = yield* LoopbackProvider.make({ ...options, port: first.port })
        const { code, stderr } = yield* Effect.promise(() => command.ended)

        assert.strictEqual(code, 0, stderr)
        allAnswered(resultsIn(results), 600)
        assert.isAbove((yield* second.journal).length, 0)
        assert.match(stderr, /retried {5}[^\n]*network \d+/)
      }),
    60_000
  )

  it.live("for longer than --max-outage: the rest is not asked, and one line says so", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ pace: { firstTokenMillis: 10 } })
      const directory = yield* folder
      const prompts = write(join(directory, "prompts.jsonl"), lines(2_000))
      const results = join(directory, "results.jsonl")
      const command = yield* start([prompts, "-o", results, "--max-outage", "2s"], environment(provider))
      yield* requests(provider, 100)
      yield* provider.down
      const { code, stderr, stdout } = yield* Effect.promise(() => command.ended)

      assert.strictEqual(code, 3, stderr)
      assert.match(
        stderr,
        /^(?:[\d,]+\/2,000 done [^\n]*\n)*sluice run: the provider was down for 2\.0s; the rest is not asked\. See --max-outage\n$/
      )
      assert.strictEqual(stdout, "")
      const written = resultsIn(results)
      assert.isAbove(written.length, 0)
      assert.isBelow(written.length, 200)
      assert.deepStrictEqual(written.filter(({ status }) => status !== "ok"), [])
    }), 60_000)

  it.live(
    "is told the number of every try at a prompt, however often the circuit opened in between",
    () =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make()
        const engine = yield* engineFor(provider, { concurrency: 1 })
        yield* provider.down
        const asked = yield* Effect.forkChild(engine.ask(prompt(1)), { startImmediately: true })
        yield* requests(provider, 7)
        yield* provider.up
        const { attempts, status } = (yield* Fiber.join(asked)).result
        assert.deepStrictEqual([status, attempts], ["ok", 8])
        assert.deepStrictEqual((yield* provider.journal).map(({ attempt }) => attempt), [1, 2, 3, 4, 5, 6, 7, 8])
      }),
    60_000
  )
})
