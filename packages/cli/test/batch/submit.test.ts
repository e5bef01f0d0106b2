import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import * as Sqlite from "../../src/Sqlite.ts"
import * as Process from "../support/command.ts"
import { folder, lines, write } from "../support/files.ts"
import { processTimeout } from "../support/timeouts.ts"
import { batch, statusOf } from "./support.ts"

describe("sluice batch submit", { timeout: processTimeout }, () => {
  it.live("the same files and flags are the same batch, and other flags or lines another one", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      write(join(directory, "a.jsonl"), lines(3))
      write(join(directory, "b.jsonl"), lines(2))
      const submit = (...args: ReadonlyArray<string>) => batch(directory, "submit", ...args)
      const first = yield* submit("a.jsonl", "--model", "m")
      assert.deepStrictEqual([first.code, /^batch_[0-9a-f]{12}\n$/.test(first.stdout)], [0, true])
      assert.include(first.stderr, "Submitted 3 requests. `sluice batch work` sends them.")
      const again = yield* submit("a.jsonl", "--model", "m")
      assert.strictEqual(again.stdout, first.stdout)
      assert.include(again.stderr, "Already submitted: 3 requests.")
      const others = [yield* submit("a.jsonl", "--model", "n"), yield* submit("b.jsonl", "--model", "m")]
      assert.strictEqual(new Set([first, ...others].map(({ stdout }) => stdout)).size, 3)
      const status = yield* batch(directory, "status", "--json")
      assert.deepStrictEqual(
        status.stdout.trim().split("\n").map((line) => JSON.parse(line)).map((
          { name, state, total }
        ) => [name, state, total]),
        [["b.jsonl", "in_progress", 2], ["a.jsonl", "in_progress", 3], ["a.jsonl", "in_progress", 3]]
      )
    }))

  it.live("several files are one batch, also those with lines without ids", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const plain = [JSON.stringify({ prompt: "Hello" })]
      write(join(directory, "a.jsonl"), plain)
      write(join(directory, "b.jsonl"), plain)
      const { code, stderr, stdout } = yield* batch(
        directory,
        "submit",
        "a.jsonl",
        "b.jsonl",
        "--name",
        "both",
        "--model",
        "m"
      )
      assert.strictEqual(code, 0, stderr)
      assert.deepInclude(yield* statusOf(directory, stdout.trim()), { name: "both", total: 2 })
    }))

  it.live("lines that are no prompts are named, up to ten, and nothing is stored", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const wrong = Array.from({ length: 12 }, () => "{")
      write(join(directory, "a.jsonl"), [...lines(1), ...wrong])
      const { code, stderr, stdout } = yield* batch(directory, "submit", "a.jsonl", "--model", "m")
      assert.deepStrictEqual([code, stdout], [2, ""])
      for (const line of [2, 11]) assert.include(stderr, `line ${line}: `)
      assert.notInclude(stderr, "line 12: ")
      assert.include(stderr, "and 2 more lines")
      // Two prompts cannot have one id.
      write(join(directory, "b.jsonl"), [...lines(1), ...lines(1)])
      const doubled = yield* batch(directory, "submit", "b.jsonl", "--model", "m")
      assert.strictEqual(doubled.code, 2)
      assert.include(doubled.stderr, "Request 2 has the key of another request")
      assert.notInclude((yield* batch(directory, "status")).stdout, "in progress")
    }))

  it.live("a submit that was killed in the middle continues", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const total = 40_000
      write(join(directory, "a.jsonl"), lines(total))
      // Makes the tables.
      yield* batch(directory, "status")
      const database = yield* Effect.acquireRelease(
        Effect.sync(() => new (Sqlite.load().DatabaseSync)(join(directory, "sluice-batches.sqlite"))),
        (database) => Effect.sync(() => database.close())
      )
      const stored = () => Number(database.prepare("select count(*) as n from sluice_batch_item").get()?.["n"])
      const first = yield* Effect.acquireRelease(
        Effect.sync(() => Process.start(["batch", "submit", "a.jsonl", "--model", "m"], {}, directory)),
        ({ process }) => Effect.sync(() => process.kill("SIGKILL"))
      )
      for (let tries = 0; tries < 20_000 && stored() === 0; tries++) yield* Effect.sleep(2)
      first.process.kill("SIGKILL")
      yield* Effect.promise(() => first.ended)
      const before = stored()
      assert.isAbove(before, 0)
      assert.isBelow(before, total)
      const again = yield* batch(directory, "submit", "a.jsonl", "--model", "m")
      assert.strictEqual(again.code, 0, again.stderr)
      assert.strictEqual(stored(), total)
      assert.deepInclude(yield* statusOf(directory, again.stdout.trim()), { state: "in_progress", total })
    }))
})
