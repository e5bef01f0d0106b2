import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import type { IncomingMessage } from "node:http"
import { Readable } from "node:stream"
import { Scripted } from "../../../batch/test/support/machine.ts"
import { describeWithBoth } from "../../../sql/test/support/databases.ts"
import * as Upload from "../../src/serve/Upload.ts"
import { line } from "../support/batches.ts"
import { batchesWith } from "../support/batchServer.ts"

const limits = { bytes: 1_000, lines: 5, kept: 10_000 }

const part = (head: string, content: string) => `--x\r\ncontent-disposition: form-data; ${head}\r\n\r\n${content}\r\n`
const purpose = (value: string) => part(`name="purpose"`, value)
const file = (content: string) => part(`name="file"; filename="in.jsonl"`, content)

/** A request with a form, in pieces of 100 bytes. */
const formOf = (text: string, headers: object = {}) => {
  const bytes = Buffer.from(`${text}--x--\r\n`)
  const pieces = Array.from({ length: Math.ceil(bytes.length / 100) }, (_, n) => bytes.subarray(n * 100, n * 100 + 100))
  const source = Readable.from(pieces)
  const request = Object.assign(source, {
    headers: { "content-type": "multipart/form-data; boundary=x", ...headers }
  })
  // Of a request, an upload uses the headers and the bytes.
  return request as unknown as IncomingMessage
}

const stored = Effect.gen(function*() {
  const sql = yield* SqlClient
  const [row] =
    yield* sql`select (select count(*) from sluice_batch_file) as files, (select count(*) from sluice_batch_item) as lines`
  return [Number(row?.["files"]), Number(row?.["lines"])]
})

const short = (count: number) => Array.from({ length: count }, (_, n) => `{"n":${n}}`).join("\n")

const refused: ReadonlyArray<readonly [string, () => IncomingMessage, number, string]> = [
  ["an announced size above the limit", () => formOf("", { "content-length": "70000" }), 413, "file_too_large"],
  ["a file above the limit", () => formOf(purpose("batch") + file("x".repeat(1_001))), 413, "file_too_large"],
  ["a file of many lines", () => formOf(purpose("batch") + file(short(6))), 413, "too_many_lines"],
  ["another purpose before the file", () => formOf(purpose("fine-tune") + file(line(1))), 400, "invalid_purpose"],
  ["another purpose after the file", () => formOf(file(line(1)) + purpose("fine-tune")), 400, "invalid_purpose"],
  ["no purpose", () => formOf(file(line(1))), 400, "invalid_purpose"],
  ["no file", () => formOf(purpose("batch")), 400, "missing_file"],
  [
    "a field of a form instead of a file",
    () => formOf(purpose("batch") + part(`name="file"`, "a")),
    400,
    "missing_file"
  ],
  [
    "a body that is no form",
    () => formOf(file(line(1)), { "content-type": "application/json" }),
    415,
    "unsupported_media_type"
  ],
  ["a form without its boundary", () => formOf("no"), 400, "invalid_form"]
]

await describeWithBoth("an upload", (it) => {
  it.effect("is refused for a wrong form or a file above the limits, and leaves nothing", () =>
    Effect.gen(function*() {
      const before = yield* stored
      for (const [what, request, status, code] of refused) {
        const error = yield* Effect.flip(Upload.read(request(), "ann", limits))
        assert.strictEqual(error._tag, "Refused", what)
        if (error._tag === "Refused") assert.deepInclude(error.refusal, { status, code }, what)
        assert.deepStrictEqual(yield* stored, before, what)
      }
    }).pipe(Effect.provide(batchesWith(new Scripted()))))

  it.effect("of a file at the limits is stored whole", () =>
    Effect.gen(function*() {
      const content = `${short(4)}\n`.padEnd(1_000, "x")
      const { bytes, lines, owner } = yield* Upload.read(formOf(purpose("batch") + file(content)), "ann", limits)
      assert.deepStrictEqual({ bytes, lines, owner }, { bytes: 1_001, lines: 5, owner: "ann" })
    }).pipe(Effect.provide(batchesWith(new Scripted()))))

  it.effect("with double ids stores each line once, and names the lines in their order", () =>
    Effect.gen(function*() {
      const before = yield* stored
      const count = 5_000
      const ids = Array.from({ length: count }, (_, n) => n === 2_100 ? 3 : n === 4_999 ? 4_998 : n)
      const content = [...ids.map((n) => line(n)), "{"].join("\n")
      const { lines, problems } = yield* Upload.read(formOf(purpose("batch") + file(content)), "ann", {
        ...Upload.usual,
        kept: Infinity
      })
      assert.strictEqual(lines, count + 1)
      assert.deepStrictEqual(problems.map(({ code, line }) => [line, code]), [
        [2_101, "duplicate_custom_id"],
        [5_000, "duplicate_custom_id"],
        [5_001, "invalid_json_line"]
      ])
      assert.strictEqual((yield* stored)[1], (before[1] ?? 0) + count + 1)
    }).pipe(Effect.provide(batchesWith(new Scripted()))))
})
