import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { join } from "node:path"
import * as Sqlite from "../../src/Sqlite.ts"
import * as Process from "../support/command.ts"
import { folder, lines, write } from "../support/files.ts"
import { processTimeout } from "../support/timeouts.ts"
import { batch, statusOf, submitted } from "./support.ts"

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
      assert.include(doubled.stderr, "line 2: another line has this id")
      write(join(directory, "c.jsonl"), ["", JSON.stringify({ prompt: "x".repeat(2 ** 20) })])
      const large = yield* batch(directory, "submit", "c.jsonl", "--model", "m")
      assert.strictEqual(large.code, 2)
      assert.include(large.stderr, "line 2: the request is larger than 1 MiB")
      write(join(directory, "d.jsonl"), ["", ""])
      const empty = yield* batch(directory, "submit", "d.jsonl", "--model", "m")
      assert.strictEqual(empty.code, 2)
      assert.include(empty.stderr, "there are no prompts in d.jsonl")
      assert.include((yield* batch(directory, "status")).stdout, "No batches in sqlite:sluice-batches.sqlite.")
    }))

  it.live("flags that would change a batch of the same prompts are refused, and the batch stays as it was", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      write(join(directory, "a.jsonl"), lines(2))
      const submit = (...args: ReadonlyArray<string>) => batch(directory, "submit", "a.jsonl", "--model", "m", ...args)
      const flags = ["--max-cost", "5", "--expires", "1h", "--priority", "3", "--name", "mine"]
      const first = yield* submit(...flags)
      assert.strictEqual(first.code, 0, first.stderr)
      for (const same of [flags, flags.slice(0, 4), []]) assert.strictEqual((yield* submit(...same)).code, 0)
      for (
        const [flag, value] of [["--max-cost", "6"], ["--expires", "2h"], ["--priority", "4"], ["--name", "b"]] as const
      ) {
        const { code, stderr } = yield* submit(flag, value)
        assert.strictEqual(code, 2)
        assert.include(stderr, `batch ${first.stdout.trim()} has the same prompts and another ${flag};`)
      }
      assert.deepInclude(yield* statusOf(directory, first.stdout.trim()), {
        name: "mine",
        priority: 3,
        maxCostDollars: 5
      })
    }))

  it.live("a pipe without prompts, or with a line that is none, leaves no batch", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const cases = [[`${JSON.stringify({ prompt: "a" })}\n{\n`, "line 2: "], ["", "no prompts"]] as const
      for (const [text, problem] of cases) {
        const command = Process.start(["batch", "submit", "-", "--model", "m"], {}, directory)
        command.process.stdin.end(text)
        const { code, stderr } = yield* Effect.promise(() => command.ended)
        assert.strictEqual(code, 2)
        assert.include(stderr, problem)
        assert.include((yield* batch(directory, "status")).stdout, "No batches")
      }
    }))

  it.live("a line that is no prompt is named by its file and its line there", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      write(join(directory, "a.jsonl"), lines(3))
      write(join(directory, "b.jsonl"), ["{"])
      write(join(directory, "c.jsonl"), ["{"])
      const { stderr } = yield* batch(directory, "submit", "a.jsonl", "b.jsonl", "c.jsonl", "--model", "m")
      assert.include(stderr, "b.jsonl, line 1: ")
      assert.include(stderr, "c.jsonl, line 1: ")
    }))

  it.live("a submit that was killed in the middle continues", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const total = 40_000
      write(join(directory, "a.jsonl"), lines(total))
      // Makes the tables.
      const id = yield* submitted(directory, 1)
      yield* batch(directory, "cancel", id)
      yield* batch(directory, "remove", id)
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
