import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Stream } from "effect"
import { Readable } from "node:stream"
import { gzipSync } from "node:zlib"
import * as Input from "../../src/run/Input.ts"

/** Reads bytes in chunks of this size. */
const itemsOf = (content: string | Uint8Array, path = "-", chunk = 7) => {
  const bytes = Buffer.from(content)
  const chunks = Array.from(
    { length: Math.ceil(bytes.length / chunk) },
    (_, index) => bytes.subarray(index * chunk, (index + 1) * chunk)
  )
  return Stream.runCollect(Input.fromReadable({ paths: [path] }, Readable.from(chunks)).items)
}

const utf16be = (text: string): Buffer => Buffer.from(text, "utf16le").swap16()

const records = [{ prompt: "a", id: 1 }, { prompt: "b", id: 2 }]

describe("a file of another kind has one error with its likely kind and the remedy", () => {
  it.effect.each<readonly [kind: string, content: string | Uint8Array, parts: ReadonlyArray<string>]>([
    ["a pretty-printed object", JSON.stringify(records[0], null, 2), ["JSON over several lines", "jq -c ."]],
    ["pretty-printed objects", records.map((r) => JSON.stringify(r, null, 2)).join("\n"), ["JSON over several lines"]],
    ["an object with a list", `{"data": [\n  {\n "prompt": "a"\n }\n]}`, ["JSON over several lines"]],
    ["a table without a column for prompts", "id,text\n1,Hello\n", [
      "it seems to be a table, and it has no column prompt; its columns are id, text",
      `--prompt-template "Summarise: {{text}}"`,
      "--input-format text"
    ]],
    ["plain text", "Hello there.\nHow are you?\n", ["plain text", "--input-format text", ".txt"]],
    ["JSON texts", `"Hello"\n"Bye"\n`, ["JSON, but no objects"]],
    ["XML", `<?xml version="1.0"?>\n<a/>\n`, ["XML or HTML"]],
    ["UTF-16 with a mark", Buffer.from(`\uFEFF{"prompt":"a"}\n`, "utf16le"), [
      "it is UTF-16",
      "iconv -f UTF-16 -t UTF-8"
    ]],
    ["big-endian UTF-16 with a mark", utf16be(`\uFEFF{"prompt":"a"}\n`), ["it is UTF-16"]],
    ["UTF-16 without a mark", Buffer.from(`{"prompt":"abcdef"}\n`, "utf16le"), ["seems to be UTF-16", "UTF-16LE"]],
    ["big-endian UTF-16 without a mark", utf16be(`{"prompt":"abcdef"}\n`), ["seems to be UTF-16", "UTF-16BE"]],
    ["gzip", gzipSync(`{"prompt":"a"}\n`), ["compressed with gzip", "gunzip -c"]],
    ["zstd", Buffer.from("28b52ffd04000000000000000000000000", "hex"), ["compressed with zstd"]],
    ["bzip2", Buffer.from("425a6839314159265359000000000000000000", "hex"), ["compressed with bzip2"]],
    ["xz", Buffer.from("fd377a585a000004e6d6b4460000000000", "hex"), ["compressed with xz"]],
    ["a ZIP", Buffer.from("504b0304140000000800000000000000000000", "hex"), ["ZIP archive or an Office document"]],
    ["a PDF", "%PDF-1.7\n%more of a file\n", ["a PDF"]],
    ["Parquet", "PAR1 and more bytes of a file", ["Parquet"]],
    ["another binary", Buffer.from("cafebabe0000003400000000000000000000ff00", "hex"), ["not text"]],
    ["lines that end with a carriage return", `{"prompt":"a"}\r{"prompt":"b"}\r`, ["carriage return alone", "tr"]]
  ])("%s", ([, content, parts]) =>
    Effect.gen(function*() {
      for (const chunk of [1, 7, 100_000]) {
        const error = yield* Effect.flip(itemsOf(content, "-", chunk))
        assert.include(error.message, "cannot read standard input: ")
        for (const part of parts) assert.include(error.message, part)
        assert.notInclude(error.message, "\n")
      }
    }))
})

describe("a file of lines is read, although some lines are no prompts", () => {
  it.effect.each<readonly [kind: string, content: string, tags: ReadonlyArray<string>]>([
    ["prompts", `{"prompt":"a"}\n{"prompt":"b"}`, ["Prompt", "Prompt"]],
    ["a broken first line", `{"prompt":"a\n{"prompt":"b"}\n`, ["Malformed", "Prompt"]],
    ["a broken first line that ends with a comma", `{"prompt":"a",\n{"prompt":"b"}\n`, ["Malformed", "Prompt"]],
    ["a text among prompts", `oops\n{"prompt":"b"}\n`, ["Malformed", "Prompt"]],
    ["an array among prompts", `[1]\n{"prompt":"b"}\n`, ["Malformed", "Prompt"]],
    ["one broken line", `{"prompt":"a"`, ["Malformed"]],
    ["a prompt with a table", `{"prompt":"id,prompt\\n1,a"}\n`, ["Prompt"]],
    ["blank lines and a byte order mark", `\uFEFF\r\n\r\n{"prompt":"a"}\r\n`, ["Prompt"]],
    ["nothing", "", []],
    ["blank lines", "\n \n", []]
  ])("%s", ([, content, tags]) =>
    Effect.gen(function*() {
      for (const chunk of [1, 100_000]) {
        assert.deepStrictEqual((yield* itemsOf(content, "-", chunk)).map(({ _tag }) => _tag), tags)
      }
    }))

  it.effect("a plain file may have any text, and no binary data", () =>
    Effect.gen(function*() {
      for (const content of [`[\n1\n]`, "id,prompt\n1,a\nb", "<a>\n<b>\n<c>"]) {
        assert.strictEqual((yield* itemsOf(content, "a.txt")).length, 3)
      }
      assert.isTrue(Exit.isFailure(yield* Effect.exit(itemsOf(gzipSync("a\nb\n"), "a.txt"))))
    }))

  it.effect("the first prompt is read before more of the input comes", () =>
    Effect.gen(function*() {
      const open = new Readable({ read() {} })
      open.push(`{"prompt":"a"}\n`)
      const first = yield* Stream.runHead(Input.fromReadable({ paths: ["-"] }, open).items)
      assert.strictEqual(first._tag, "Some")
    }))
})
