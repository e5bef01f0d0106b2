import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect, Fiber } from "effect"
import { join } from "node:path"
import { engineFor, prompt } from "./support/engine.ts"
import { allAnswered, folder, lines, resultsIn, write } from "./support/files.ts"
import { environment, requests, run } from "./support/provider.ts"

const callers = 500

describe("500 identical prompts at once", () => {
  it.live("make one request and get 500 right answers", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ pace: { firstTokenMillis: 300 } })
      const directory = yield* folder
      const prompts = write(join(directory, "prompts.jsonl"), lines(callers, 1))
      const results = join(directory, "results.jsonl")
      const args = [prompts, "-o", results, "--concurrency", String(callers)]
      const { code, stderr } = yield* run(args, environment(provider))

      assert.strictEqual(code, 0, stderr)
      assert.strictEqual((yield* provider.journal).length, 1)
      const answers = resultsIn(results)
      allAnswered(answers, callers)
      assert.deepStrictEqual(
        [...new Set(answers.map((answer) => answer.status === "ok" ? answer.text : ""))],
        ["Loopback echo: Question 1"]
      )
      assert.strictEqual(answers.filter(({ how }) => how === "led").length, 1)
      assert.include(stderr, "  calls       1\n")
    }), 30_000)

  it.live("make one request also if the one who made it leaves", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ pace: { firstTokenMillis: 500 } })
      const engine = yield* engineFor(provider)
      const first = yield* Effect.forkChild(engine.ask(prompt(1)), { startImmediately: true })
      yield* requests(provider, 1)
      const others = yield* Effect.forEach(
        Array.from({ length: callers - 1 }, (_, index) => prompt(index + 2)),
        (other) => Effect.forkChild(engine.ask(other), { startImmediately: true })
      )
      yield* Fiber.interrupt(first)
      const answers = yield* Fiber.joinAll(others)

      assert.strictEqual(answers.length, callers - 1)
      for (const { result } of answers) {
        assert.deepInclude(result, { status: "ok", text: "Loopback echo: The same question", how: "joined" })
      }
      assert.deepStrictEqual((yield* provider.journal).map(({ ending }) => ending), ["complete"])
    }), 30_000)

  it.live("make no request that anyone waits for once all of them have left", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ pace: { firstTokenMillis: 600_000 } })
      const engine = yield* engineFor(provider)
      const all = yield* Effect.forEach(
        Array.from({ length: callers }, (_, index) => prompt(index + 1)),
        (each) => Effect.forkChild(engine.ask(each), { startImmediately: true })
      )
      yield* requests(provider, 1)
      yield* Fiber.interruptAll(all)
      while ((yield* provider.journal).some(({ ending }) => ending === "open")) yield* Effect.sleep(5)
      assert.deepStrictEqual((yield* provider.journal).map(({ ending }) => ending), ["clientClosed"])
    }), 30_000)
})
