import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { Readable } from "node:stream"
import * as Input from "../../src/run/Input.ts"
import { folder } from "../support/files.ts"

const fileOf = (name: string, content: string) =>
  Effect.map(folder, (path) => {
    const file = join(path, name)
    writeFileSync(file, content)
    return file
  })

describe("Input", () => {
  it.live("a file is read, and the count matches its items", () =>
    Effect.gen(function*() {
      const path = yield* fileOf("prompts.jsonl", `{"prompt":"a"}\n\noops\n{"prompt":"b"}`)
      const input = yield* Input.make({ paths: [path] })
      const items = yield* Stream.runCollect(input.items)
      assert.deepStrictEqual(items.map(({ _tag, line }) => [_tag, line]), [
        ["Prompt", 1],
        ["Malformed", 3],
        ["Prompt", 4]
      ])
      assert.strictEqual(yield* input.count ?? Effect.succeed(0), 3)
    }))

  it.live("reading and counting stop at the limit", () =>
    Effect.gen(function*() {
      const path = yield* fileOf("prompts.jsonl", `{"prompt":"a"}\n{"prompt":"b"}\n{"prompt":"c"}\n`)
      const input = yield* Input.make({ paths: [path], limit: 2 })
      assert.strictEqual((yield* Stream.runCollect(input.items)).length, 2)
      assert.strictEqual(yield* input.count ?? Effect.succeed(0), 2)
    }))

  it.live("a line that is no prompt does not count towards the limit", () =>
    Effect.gen(function*() {
      const path = yield* fileOf("prompts.jsonl", `oops\n{"prompt":"a"}\n{}\n{"prompt":"b"}\n{"prompt":"c"}\n`)
      const input = yield* Input.make({ paths: [path], limit: 2 })
      const items = yield* Stream.runCollect(input.items)
      assert.deepStrictEqual(items.map(({ _tag }) => _tag), ["Malformed", "Prompt", "Malformed", "Prompt"])
      assert.strictEqual(yield* input.count ?? Effect.succeed(0), 4)
    }))

  it.live("a .txt file has one prompt per line", () =>
    Effect.gen(function*() {
      const path = yield* fileOf("Prompts.TXT", "a\nb\n")
      const input = yield* Input.make({ paths: [path] })
      const items = yield* Stream.runCollect(input.items)
      assert.deepStrictEqual(items.map((item) => item._tag === "Prompt" && item.messages[0]?.content), ["a", "b"])
    }))

  it.live("a missing file and a directory are refused", () =>
    Effect.gen(function*() {
      const path = yield* folder
      assert.include((yield* Effect.flip(Input.make({ paths: [join(path, "no")] }))).message, "no such file")
      assert.include((yield* Effect.flip(Input.make({ paths: [path] }))).message, "is a directory")
    }))

  it.live("input is read on demand", () =>
    Effect.gen(function*() {
      let lines = 0
      const endless = Readable.from((function*() {
        for (;;) yield Buffer.from(`{"prompt":"${lines++}"}\n`)
      })())
      const input = Input.fromReadable({ paths: ["-"] }, endless)
      assert.strictEqual((yield* Stream.runCollect(Stream.take(input.items, 3))).length, 3)
      assert.isBelow(lines, 1000)
      assert.isTrue(endless.destroyed)
    }))

  it.live("the input fails if its stream fails", () =>
    Effect.gen(function*() {
      const broken = new Readable({
        read() {
          this.destroy(new Error("gone"))
        }
      })
      const error = yield* Effect.flip(Stream.runDrain(Input.fromReadable({ paths: ["-"] }, broken).items))
      assert.strictEqual(error._tag, "InputError")
    }))
})
