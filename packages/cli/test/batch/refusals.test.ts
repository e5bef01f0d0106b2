import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describeWithPostgres, Place } from "../../../sql/test/support/databases.ts"
import * as UrlSecrets from "../../src/UrlSecrets.ts"
import * as Process from "../support/command.ts"
import { folder, lines, write } from "../support/files.ts"
import { processTimeout } from "../support/timeouts.ts"
import { batch, statusOf, submitted } from "./support.ts"

describe("sluice batch", { timeout: processTimeout }, () => {
  it.live("what it cannot do is refused with exit code 2 and one line that says what to change", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      write(join(directory, "a.jsonl"), lines(1))
      const cases: ReadonlyArray<readonly [ReadonlyArray<string>, ...ReadonlyArray<string>]> = [
        [["stats"], "ACTION must be one of submit,", "did you mean status?"],
        [["submit"], "submit needs a file: sluice batch submit FILE"],
        [["work", "x"], "work takes no name"],
        [["status", "a", "b"], "status takes one id, or none"],
        [["status", "--batches", "mysql://host/name"], "postgres://host/database"],
        [["submit", "a.jsonl", "--priority", "high"], "--priority"],
        [["submit", "a.jsonl", "--concurrency", "9"], "--concurrency is a flag of work, not of submit"],
        [["work", "--max-tokens", "9"], "--max-tokens is a flag of submit, not of work"],
        [["cancel", "a", "--model", "m"], "--model is a flag of submit and work, not of cancel"],
        [["status", "--batches", "sqlite:a.jsonl"], "sqlite:a.jsonl: it is no file of SQLite; name another file"]
      ]
      for (const [args, ...parts] of cases) Process.refused(yield* batch(directory, ...args), ...parts)
    }))

  it.live("a password in a URL is never printed, and must be in a variable", () =>
    Effect.gen(function*() {
      const url = "postgres://ann:canary@127.0.0.1:1/name"
      const refused = [
        yield* Effect.promise(() => Process.run(["batch", "status", "--batches", url])),
        yield* Effect.promise(() => Process.run(["batch", "status"], { SLUICE_BATCHES: url })),
        yield* Effect.promise(() => Process.run(["batch", "status", "--batches", `${url}:`])),
        yield* Effect.promise(() => Process.run(["migrate", url])),
        yield* Effect.promise(() => Process.run(["migrate", "${URL}"], { URL: url })),
        yield* Effect.promise(() => Process.run(["batch", "work", "--target", "a=https://ann:canary@host/v1"]))
      ]
      for (const one of refused) {
        Process.refused(one)
        assert.notInclude(one.stderr, "canary")
      }
    }))

  it.live("sluice.json has its settings under the key batch, which other commands leave alone", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const settings = { concurrency: 3, batch: { batches: "sqlite:own.sqlite", priority: 7, weight: 3 } }
      writeFileSync(join(directory, "sluice.json"), JSON.stringify(settings))
      const id = yield* submitted(directory, 1)
      assert.deepInclude(yield* statusOf(directory, id), { priority: 7, weight: 3 })
      for (const action of [["status"], ["results", id], ["cancel", id], ["retry", id], ["remove", id]]) {
        const refused = yield* batch(directory, ...action, "--batches", "sqlite:other.sqlite")
        Process.refused(refused, "there is no file other.sqlite; `sluice batch submit FILE` makes it")
      }
      assert.notInclude(readdirSync(directory), "other.sqlite")
      const config = yield* Effect.promise(() => Process.run(["config", "--model", "m"], {}, directory))
      assert.include(config.stdout, "concurrency")
      writeFileSync(join(directory, "sluice.json"), JSON.stringify({ batch: { prioritty: 1 } }))
      Process.refused(yield* batch(directory, "status"), "unknown key prioritty in batch of sluice.json")
    }))

  it.live("--watch prints plain tables into a pipe until the batches have ended, and lines of JSON with --json", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const id = yield* submitted(directory, 1)
      const watch = Process.start(["batch", "status", id, "--watch"], {}, directory)
      const json = Process.start(["batch", "status", id, "--watch", "--json"], {}, directory)
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => [watch, json].forEach(({ process }) => process.kill("SIGKILL")))
      )
      yield* Effect.promise(() => Promise.all([watch.says("waits: no worker runs"), json.says("in_progress")]))
      Process.refused(yield* batch(directory, "retry", id), `batch ${id} is in progress; cancel it first`)
      const results = yield* batch(directory, "results", id)
      assert.deepInclude(results, { code: 0, stdout: "" })
      assert.include(results.stderr, "Wrote 0 of 1 results. --follow waits for the rest.")
      // No worker runs, so the cancel itself ends the batch, and with it the watches.
      assert.include((yield* batch(directory, "cancel", id)).stderr, "The batch has ended: cancelled.")
      const [table, text] = yield* Effect.promise(() => Promise.all([watch.ended, json.ended]))
      assert.notInclude(table.stdout, "\u001b")
      for (const line of table.stdout.split("\n")) assert.isAtMost(line.length, 80, line)
      for (const line of text.stdout.trim().split("\n")) assert.strictEqual(JSON.parse(line).id, id)
    }))
})

await describeWithPostgres("batches in Postgres", (it) => {
  it.effect("a database without the tables is refused with the command that makes them, which can be repeated", () =>
    Effect.gen(function*() {
      const { url } = yield* Place
      const directory = yield* folder
      const env = { SLUICE_BATCHES: url }
      const refused = yield* Effect.promise(() => Process.run(["batch", "status"], env, directory))
      Process.refused(refused, "cannot use the batches in", ": the tables are missing", "`sluice migrate URL`")
      assert.notInclude(refused.stderr, "batch: the tables")
      const migrate = Effect.promise(() => Process.run(["migrate", "${SLUICE_BATCHES}"], env, directory))
      const first = yield* migrate
      assert.strictEqual(first.code, 0, first.stderr)
      assert.match(first.stdout, /^batches: made \S*batches/m)
      assert.include((yield* migrate).stdout, "batches: up to date")
      const status = yield* Effect.promise(() => Process.run(["batch", "status"], env, directory))
      assert.deepStrictEqual([status.code, status.stdout], [
        0,
        `No batches in ${UrlSecrets.shown(url)}. \`sluice batch submit FILE\` adds one.\n`
      ])
    }))
})
