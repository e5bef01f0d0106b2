import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Process from "../support/command.ts"
import { lines, resultsIn, write } from "../support/files.ts"
import { run, setUp } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

const template = ["--prompt-template", "Summarise: {{body}}"]

/** A provider, and a table with these rows. */
const table = Effect.fnUntraced(function*(rows: ReadonlyArray<string>) {
  const { directory, ...rest } = yield* setUp([])
  const csv = write(join(directory, "tickets.csv"), ["id,topic,body", ...rows])
  return { ...rest, directory, csv }
})

const inputOf = (result: object | undefined): unknown => result === undefined ? undefined : Reflect.get(result, "input")

describe("a table as input", { timeout: processTimeout }, () => {
  it.live("a CSV is sent by its template, and the columns are in the results", () =>
    Effect.gen(function*() {
      const { csv, env, provider, results } = yield* table([`1,a,"first\nline"`, "2,b", "3,c,third"])
      const { code, stderr } = yield* run([csv, "-o", results, ...template, "--concurrency", "1"], env)
      assert.strictEqual(code, 1, stderr)
      const found = [...resultsIn(results)].sort((a, b) => a.line - b.line)
      assert.deepStrictEqual(found.map((result) => [result.line, result.id, result.status, inputOf(result)]), [
        [2, "1", "ok", { id: "1", topic: "a", body: "first\nline" }],
        [4, "2", "failed", { id: "2", topic: "b", body: "" }],
        [5, "3", "ok", { id: "3", topic: "c", body: "third" }]
      ])
      assert.strictEqual((yield* provider.journal).length, 2)
      const status = yield* Effect.promise(() => Process.run(["status", results]))
      assert.match(status.stdout, /answered +2 of 3 lines/)
    }))

  it.live("resuming names a changed template, column and row, and sends only what has no answer", () =>
    Effect.gen(function*() {
      const { csv, env, provider, results } = yield* table(["1,a,first", "2,b,second"])
      const resume = [csv, "-o", results, "--resume"]
      assert.strictEqual((yield* run([...resume, ...template, "--limit", "1"], env)).code, 0)
      const other = yield* run([...resume, "--prompt-template", "Translate: {{body}}"], env)
      Process.refused(
        other,
        "line 2 (id 1) of the input is not the prompt",
        "differ from those of the run: --prompt-template"
      )
      write(csv, ["id,topic,text", "1,a,first", "2,b,second"])
      const { stderr } = yield* run([...resume, ...template], env)
      assert.include(stderr, "no field body for --prompt-template; its columns are id, topic, text")
      write(csv, ["id,topic,body", "1,a,other", "2,b,second"])
      Process.refused(yield* run([...resume, ...template], env), "line 2 (id 1)")
      // A column that the template does not use is no part of the request.
      write(csv, ["id,topic,body", "1,another,first", "2,b,second"])
      assert.strictEqual((yield* run([...resume, ...template], env)).code, 0)
      assert.deepStrictEqual(resultsIn(results).map(({ line }) => line), [2, 3])
      assert.strictEqual((yield* provider.journal).length, 2)
    }))

  it.live("`sluice retry` reads the table as the run did", () =>
    Effect.gen(function*() {
      const { directory, env, results } = yield* table([])
      const file = write(join(directory, "tickets"), ["body?", "first"])
      const flags = [
        "--input-format",
        "csv",
        "--prompt-template",
        "{{body?}}",
        "--max-attempts",
        "1",
        "--timeout",
        "1ms"
      ]
      assert.strictEqual((yield* run([file, "-o", results, ...flags], env)).code, 1)
      const retried = yield* Effect.promise(() => Process.run(["retry", results, "--timeout", "1m"], env))
      assert.strictEqual(retried.code, 0, retried.stderr)
      assert.deepStrictEqual(inputOf(resultsIn(results).at(-1)), { "body?": "first" })
    }))

  it.live("standard input is a table by its content or by the flag", () =>
    Effect.gen(function*() {
      const { env, results } = yield* table([])
      const command = Process.start(["run", "-", "-o", results, "--input-format", "tsv"], env)
      command.process.stdin.end("id\tprompt\n1\ta \"b\", c\n")
      const ended = yield* Effect.promise(() => command.ended)
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.deepStrictEqual(inputOf(resultsIn(results)[0]), { id: "1", prompt: `a "b", c` })
    }))
})

describe("several files as input", { timeout: processTimeout }, () => {
  it.live("are sent and resumed as one, and a file may be added at the end", () =>
    Effect.gen(function*() {
      const { directory, env, prompts, provider, results } = yield* setUp(lines(2))
      const second = join(directory, "more.json")
      writeFileSync(second, JSON.stringify([{ prompt: "a" }, { prompt: "b" }]))
      const first = yield* run([prompts, second, "-o", results, "--limit", "3"], env)
      assert.strictEqual(first.code, 0, first.stderr)
      const limited = yield* Effect.promise(() => Process.run(["status", results]))
      assert.match(limited.stdout, /results.jsonl: complete\n {2}answered +3 of 3 lines/)
      const third = write(join(directory, "last.txt"), ["c"])
      Process.refused(
        yield* run([second, prompts, "-o", results, "--resume"], env),
        "line 1 of the input is another prompt: without an id, in the results id p1"
      )
      const whole = yield* run([prompts, second, third, "-o", results, "--resume"], env)
      assert.strictEqual(whole.code, 0, whole.stderr)
      assert.deepStrictEqual(resultsIn(results).map(({ line }) => line).sort(), [1, 2, 3, 4, 5])
      assert.strictEqual((yield* provider.journal).length, 5)
      Process.refused(yield* run([prompts, second, "-o", second, "--force"], env), "is the input file")
      const status = yield* Effect.promise(() => Process.run(["status", results]))
      assert.match(status.stdout, /answered +5 of 5 lines in .*prompts.jsonl and 2 other files/)
    }))

  it.live("a file after the first that lacks a column, or is of another kind, is refused before the first call", () =>
    Effect.gen(function*() {
      const { directory, env, prompts, provider, results } = yield* setUp(lines(2))
      const table = write(join(directory, "table.csv"), ["id,body", "a,first"])
      const page = write(join(directory, "page.html"), ["<html>"])
      Process.refused(yield* run([prompts, table, "-o", results], env), "table.csv", "has no column prompt")
      Process.refused(yield* run([prompts, page, "-o", results], env), "page.html", "XML or HTML")
      assert.deepStrictEqual(yield* provider.journal, [])
      assert.isFalse(existsSync(results))
    }))
})

describe("--include-input", { timeout: processTimeout }, () => {
  it.live("repeats each line in its result", () =>
    Effect.gen(function*() {
      const line = { id: "a", prompt: "Question", topic: [1] }
      const { env, prompts, results } = yield* setUp([JSON.stringify(line), "oops"])
      const { stderr } = yield* run([prompts, "-o", results, "--include-input"], env)
      const found = [...resultsIn(results)].sort((a, b) => a.line - b.line)
      assert.deepStrictEqual(found.map(inputOf), [line, "oops"], stderr)
      const plain = yield* run([prompts, "-o", results, "--force"], env)
      assert.notInclude(readFileSync(results, "utf8"), `"input"`, plain.stderr)
    }))
})
