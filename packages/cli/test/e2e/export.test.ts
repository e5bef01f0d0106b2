import { assert, describe, it } from "@effect/vitest"
import { parse } from "csv-parse/sync"
import { Effect } from "effect"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Process from "../support/command.ts"
import { folder } from "../support/files.ts"
import { processTimeout } from "../support/timeouts.ts"

const failed = (line: number, more: object = {}) => ({
  line,
  id: `p${line}`,
  status: "failed",
  request: "0123456789abcdef",
  error: { tag: "RateLimitError", message: "too many, \"really\"" },
  target: "main",
  attempts: 5,
  how: "led",
  milliseconds: 3,
  ...more
})

const answered = (line: number, text: string, more: object = {}) => ({
  line,
  id: `p${line}`,
  status: "ok",
  request: "0123456789abcdef",
  cost: 0.25,
  text,
  target: "main",
  model: "rules",
  finish: "content-filter",
  usage: { inputTokens: 3, outputTokens: 4 },
  attempts: 1,
  how: "led",
  milliseconds: 3,
  ...more
})

/** Exports these results, and returns what was printed. */
const exported = Effect.fnUntraced(function*(results: ReadonlyArray<object | string>, args: ReadonlyArray<string>) {
  const path = join(yield* folder, "results.jsonl")
  writeFileSync(path, results.map((each) => typeof each === "string" ? each : `${JSON.stringify(each)}\n`).join(""))
  return { path, ...yield* Effect.promise(() => Process.run(["export", path, ...args])) }
})

describe("sluice export", { timeout: processTimeout }, () => {
  it.live("samples of a line are results of their own", () =>
    Effect.gen(function*() {
      const sample = (line: number, number: number, text: string) => {
        const { line: _, ...rest } = answered(line, text)
        return { line, sample: number, ...rest }
      }
      const results = [sample(2, 2, "d"), sample(1, 2, "old"), sample(2, 1, "c"), sample(1, 2, "b"), sample(1, 1, "a")]
      const csv = yield* exported(results, [])
      assert.strictEqual(csv.code, 0, csv.stderr)
      const rows: ReadonlyArray<{ readonly [name: string]: string }> = parse(csv.stdout, { columns: true })
      assert.deepStrictEqual(rows.map(({ line, sample, text }) => [line, sample, text]), [
        ["1", "1", "a"],
        ["1", "2", "b"],
        ["2", "1", "c"],
        ["2", "2", "d"]
      ])
      const openAi = yield* exported(results, ["--format", "openai"])
      assert.deepStrictEqual(
        openAi.stdout.trimEnd().split("\n").map((line) => JSON.parse(line).custom_id),
        ["p1#1", "p1#2", "p2#1", "p2#2"]
      )
    }))

  it.live("writes CSV in the order of the input, with its columns, and the last answer of each line", () =>
    Effect.gen(function*() {
      const row = { ID: "p2", text: "a \"b\",\nc", topic: "x" }
      const results = [
        failed(4),
        answered(2, "first", { input: row }),
        failed(3, { input: { ID: "p3", other: [1], topic: " y" } }),
        failed(2, { input: row }),
        failed(4),
        answered(4, "=1+1\r\n\0"),
        `{"line":5,"id":"p`
      ]
      const { code, stderr, stdout } = yield* exported(results, [])
      assert.strictEqual(code, 0, stderr)
      const [header, ...rows]: ReadonlyArray<ReadonlyArray<string>> = parse(stdout)
      const own = [
        "line",
        "id",
        "status",
        "text",
        "error",
        "finish",
        "target",
        "model",
        "input_tokens",
        "output_tokens",
        "cost"
      ]
      assert.deepStrictEqual(header, ["input_text", "topic", "other", ...own])
      const rest = ["content-filter", "main", "rules", "3", "4", "0.25"]
      assert.deepStrictEqual(rows, [
        ["a \"b\",\nc", "x", "", "2", "p2", "ok", "first", "", ...rest],
        ["", " y", "[1]", "3", "p3", "failed", "", "RateLimitError: too many, \"really\"", "", "main", "", "", "", ""],
        ["", "", "", "4", "p4", "ok", "=1+1\r\n\0", "", ...rest]
      ])
    }))

  it.live("writes the output file of OpenAI's Batch API", () =>
    Effect.gen(function*() {
      const results = [answered(2, "b"), failed(1, { id: undefined }), `${JSON.stringify(answered(3, "c"))}`]
      const { code, stderr, stdout } = yield* exported(results, ["--format", "openai"])
      assert.strictEqual(code, 0, stderr)
      const lines = stdout.trimEnd().split("\n").map((line): unknown => JSON.parse(line))
      assert.deepStrictEqual(lines[0], {
        id: "sluice_1",
        custom_id: "line-1",
        response: null,
        error: { code: "RateLimitError", message: "too many, \"really\"" }
      })
      assert.containSubset(lines.slice(1), [
        {
          custom_id: "p2",
          response: {
            status_code: 200,
            request_id: "0123456789abcdef",
            body: {
              object: "chat.completion",
              model: "rules",
              choices: [{ index: 0, message: { role: "assistant", content: "b" }, finish_reason: "content_filter" }],
              usage: { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 }
            }
          },
          error: null
        },
        { custom_id: "p3", error: null }
      ])
    }))

  it.live("refuses a file of another kind and an existing output, and leaves both as they are", () =>
    Effect.gen(function*() {
      Process.refused(yield* exported(["{}\n"], []), "its line 1 is no result of sluice run")
      Process.refused(yield* exported([], ["--format", "xml"]), "--format is \"xml\"; it must be one of csv, openai")
      Process.refused(yield* Effect.promise(() => Process.run(["export", "/no/such"])), "no such file")
      const output = join(yield* folder, "out.csv")
      const results = [answered(1, "x".repeat(3_000_000)), answered(2, "b")]
      const first = yield* exported(results, ["-o", output])
      assert.strictEqual(first.code, 0, first.stderr)
      assert.strictEqual(readFileSync(output, "utf8").split("\n").length, 4)
      Process.refused(yield* exported(results, ["-o", output]), "already exists; use --force")
      Process.refused(
        yield* Effect.promise(() => Process.run(["export", first.path, "-o", first.path, "--force"])),
        "is the input file"
      )
      assert.strictEqual((yield* exported([], ["-o", output, "--force"])).code, 0)
    }))
})
