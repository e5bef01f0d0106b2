import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect, Fiber } from "effect"
import { engineFor, prompt } from "../support/engine.ts"
import { allAnswered, lines, resultsIn } from "../support/files.ts"
import { requests, run, setUp } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const callers = 500

describe("500 equal prompts at once", { timeout: processTimeout }, () => {
  it.live("500 equal prompts make one request and are all answered", () =>
    Effect.gen(function*() {
      const { env, prompts, provider, results } = yield* setUp(lines(callers, 1), { pace: { firstTokenMillis: 300 } })
      const { code, stderr } = yield* run([prompts, "-o", results, "--concurrency", String(callers)], env)

      assert.strictEqual(code, 0, stderr)
      assert.strictEqual((yield* provider.journal).length, 1)
      const answers = resultsIn(results)
      allAnswered(answers, callers)
      assert.deepStrictEqual(
        [...new Set(answers.map((answer) => answer.status === "ok" ? answer.text : ""))],
        ["Loopback echo: Question 1"]
      )
      assert.strictEqual(answers.filter(({ how }) => how === "led").length, 1)
      assert.include(stderr, "  requests         1\n")
    }))

  it.live("the request continues for the others if the caller that began it is interrupted", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ pace: { firstTokenMillis: 500 } })
      const engine = yield* engineFor(provider)
      const first = yield* Effect.forkChild(engine.complete(prompt(1)), { startImmediately: true })
      yield* requests(provider, 1)
      const others = yield* Effect.forEach(
        Array.from({ length: callers - 1 }, (_, index) => prompt(index + 2)),
        (other) => Effect.forkChild(engine.complete(other), { startImmediately: true })
      )
      yield* Fiber.interrupt(first)
      const answers = yield* Fiber.joinAll(others)

      assert.strictEqual(answers.length, callers - 1)
      for (const { result } of answers) {
        assert.deepInclude(result, { status: "ok", text: "Loopback echo: The same question", how: "joined" })
      }
      assert.deepStrictEqual((yield* provider.journal).map(({ ending }) => ending), ["complete"])
    }))

  it.live("the request is cancelled once all callers are interrupted", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ pace: { firstTokenMillis: 600_000 } })
      const engine = yield* engineFor(provider)
      const all = yield* Effect.forEach(
        Array.from({ length: callers }, (_, index) => prompt(index + 1)),
        (each) => Effect.forkChild(engine.complete(each), { startImmediately: true })
      )
      yield* requests(provider, 1)
      yield* Fiber.interruptAll(all)
      while ((yield* provider.journal).some(({ ending }) => ending === "open")) yield* Effect.sleep(5)
      assert.deepStrictEqual((yield* provider.journal).map(({ ending }) => ending), ["clientClosed"])
    }))
})
