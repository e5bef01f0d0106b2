import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { folder } from "../support/files.ts"
import { says } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"
import { ended, submitted, worker } from "./support.ts"

describe("the log of sluice batch work", { timeout: processTimeout }, () => {
  it.live("a worker without a terminal logs its start, its batches, its circuits and its totals, and no prompt and no key", () =>
    Effect.gen(function*() {
      const down = yield* LoopbackProvider.make({})
      yield* down.down
      const up = yield* LoopbackProvider.make({})
      const directory = yield* folder
      const id = yield* submitted(directory, 20)
      const command = yield* worker(directory, [down, up], "--price", "1,2")
      const told = yield* Effect.forkChild(says(command, `"event":"batch ended"`), { startImmediately: true })
      yield* ended(directory, id)
      yield* Effect.timeout(Fiber.join(told), "60 seconds")
      command.process.kill("SIGTERM")
      const { code, stderr, stdout } = yield* Effect.promise(() => command.ended)
      assert.deepStrictEqual([code, stdout], [0, ""], stderr)
      const lines = stderr.trim().split("\n").map((line): { readonly [field: string]: unknown } => JSON.parse(line))
      const events = lines.map(({ event }) => event)
      assert.strictEqual(events[0], "started", stderr)
      assert.deepStrictEqual(events.slice(-2), ["draining", "stopped"], stderr)
      const first = (event: string) => lines.find((line) => line["event"] === event)
      assert.deepInclude(first("started"), { batches: "sqlite:sluice-batches.sqlite", targets: 2 })
      assert.deepInclude(first("batch started"), { batch: id })
      assert.deepInclude(first("batch ended"), { batch: id, state: "completed", ok: 20, failed: 0 })
      assert.deepInclude(first("circuit"), { target: "a", from: "Closed", to: "Open" })
      assert.deepInclude(first("stopped"), { answered: 20, failed: 0, givenBack: 0 })
      for (const { apiKey } of [down, up]) {
        if (apiKey !== undefined) assert.notInclude(stderr, Redacted.value(apiKey))
      }
      assert.notInclude(stderr, "Question")
    }))
})
