import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { engineFor, prompt } from "../support/engine.ts"
import { chatAnswer, httpServer } from "../support/httpServer.ts"

describe("the cache of answers", () => {
  it.live("is bounded by bytes: the least recently used answers are requested again", () =>
    Effect.gen(function*() {
      const choices = [{ index: 0, message: { content: "x".repeat(4_000_000) }, finish_reason: "stop" }]
      const { bodies, url } = yield* httpServer(() => ({ json: { ...chatAnswer, choices } }))
      const engine = yield* engineFor({ apiKey: undefined, url }, { noStream: true, dedupeTtlMillis: 3_600_000 })
      const ask = (line: number) =>
        Effect.map(engine.complete(prompt(line, `Question ${line}`)), ({ result }) => [result.status, result.how])
      // 8 MB each, since a character can take two bytes.
      for (let line = 1; line <= 12; line++) assert.deepStrictEqual(yield* ask(line), ["ok", "led"])
      assert.deepStrictEqual(yield* ask(12), ["ok", "cached"])
      assert.deepStrictEqual(yield* ask(1), ["ok", "led"])
      assert.strictEqual(bodies.length, 13)
    }).pipe(Effect.scoped))
})
