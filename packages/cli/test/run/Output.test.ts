import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { existsSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"
import { PassThrough, Writable } from "node:stream"
import * as Output from "../../src/run/Output.ts"
import type { Result } from "../../src/run/Result.ts"
import * as RunResult from "../../src/run/Result.ts"
import { folder } from "../support/files.ts"
import { answered, failed } from "../support/results.ts"

const options = (path: string, changes: Partial<Output.OutputOptions> = {}): Output.OutputOptions => ({
  path,
  force: false,
  input: [],
  ...changes
})

const encode = (result: Result): string => RunResult.encode(result)

const writeTo = (given: Output.OutputOptions, ...lines: ReadonlyArray<number>) =>
  Effect.scoped(
    Effect.flatMap(Output.make(given), (output) =>
      Effect.forEach(lines, (line) =>
        output.write(encode(answered({ line }))), { concurrency: "unbounded", discard: true }))
  )

const readLines = (path: string): ReadonlyArray<{ readonly line: number }> =>
  readFileSync(path, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line))

describe("Output", () => {
  it.live("lines are written whole and in order", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "results.jsonl")
      yield* writeTo(options(path), ...Array.from({ length: 200 }, (_, index) => index + 1))
      assert.deepStrictEqual(readLines(path).map(({ line }) => line), Array.from({ length: 200 }, (_, i) => i + 1))
    }))

  it.live("with sync, lines are flushed to the disk before they are reported as written, and a failure is reported", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "results.jsonl")
      const handle = yield* Effect.promise(() => open(`${path}.other`, "a"))
      const prototype: { datasync: () => Promise<void> } = Object.getPrototypeOf(handle)
      const { datasync } = prototype
      yield* Effect.promise(() => handle.close())
      const flushed: Array<number> = []
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          prototype.datasync = function() {
            flushed.push(statSync(path).size)
            return flushed.length === 3 ? Promise.reject(new Error("EIO")) : datasync.call(this)
          }
        }),
        () => Effect.sync(() => prototype.datasync = datasync)
      )
      const output = yield* Output.make(options(path, { sync: true }))
      for (const line of [1, 2]) {
        yield* output.write(encode(answered({ line })))
        assert.strictEqual(flushed.at(-1), statSync(path).size)
      }
      assert.strictEqual(flushed.length, 2)
      assert.include(
        (yield* Effect.flip(output.write(encode(answered({ line: 3 }))))).message,
        "cannot flush it to the disk"
      )
    }))

  it.live("characters that control a terminal are escaped on a terminal, and written as they are elsewhere", () =>
    Effect.gen(function*() {
      const result = answered({ text: "a\x9b31m\u202Eb\x7f" })
      for (const isTTY of [true, false]) {
        const stream = Object.assign(new PassThrough(), { isTTY })
        const output = yield* Output.toWritable(options("-"), stream)
        yield* output.write(encode(result))
        const written = String(stream.read())
        assert.strictEqual(JSON.parse(written).text, result.text)
        assert.strictEqual(written.includes("\x9b"), !isTTY)
        assert.strictEqual(written.includes("\u202E"), !isTTY)
      }
    }))

  it.live("lines that are queued together are in the file, in order, when they are reported as written", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "results.jsonl")
      const output = yield* Output.make(options(path))
      const lines = Array.from({ length: 200 }, (_, index) => index + 1)
      const standing = yield* Effect.callback<ReadonlyArray<number>>((resume) => {
        for (const line of lines) {
          output.push(encode(answered({ line })), () => {
            if (line === 200) resume(Effect.sync(() => readLines(path).map((result) => result.line)))
          })
        }
      })
      assert.deepStrictEqual(standing, lines)
    }))

  it.live("closing an output waits for queued lines", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "results.jsonl")
      yield* Effect.scoped(
        Effect.map(Output.make(options(path)), (output) => output.push(encode(answered({ line: 1 })), () => {}))
      )
      assert.strictEqual(readLines(path).length, 1)
    }))

  it.live("a written result is in the file at once", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "results.jsonl")
      const output = yield* Output.make(options(path))
      yield* output.write(encode(answered({ line: 1 })))
      assert.strictEqual(readLines(path).length, 1)
    }))

  it.live("an interrupted write leaves no partial line", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "results.jsonl")
      const output = yield* Output.make(options(path))
      const writing = yield* Effect.forEach(
        [1, 2, 3],
        (line) => output.write(encode(answered({ line, text: "x".repeat(1e6) })))
      )
        .pipe(Effect.forkChild({ startImmediately: true }))
      yield* Fiber.interrupt(writing)
      for (const { line } of readLines(path)) assert.isAbove(line, 0)
    }))

  it.live("an existing file, a directory and the input file are refused", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const file = join(path, "a")
      writeFileSync(file, "kept")
      assert.include(
        (yield* Effect.flip(Output.make(options(file)))).message,
        "already exists; use --force to replace it"
      )
      assert.include((yield* Effect.flip(Output.make(options(path, { force: true })))).message, "is a directory")
      const input = [statSync(file)]
      assert.include(
        (yield* Effect.flip(Output.make(options(file, { force: true, input })))).message,
        "is the input file"
      )
      assert.include((yield* Effect.flip(Output.make(options(join(path, "no", "b"))))).message, "no such file")
      assert.strictEqual(readFileSync(file, "utf8"), "kept")
    }))

  it.live("`force` replaces a file, but only with the first write", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a")
      writeFileSync(file, "old\n".repeat(1000))
      yield* writeTo(options(file, { force: true }))
      assert.include(readFileSync(file, "utf8"), "old")
      yield* writeTo(options(file, { force: true }), 1, 2)
      assert.deepStrictEqual(readLines(file).map(({ line }) => line), [1, 2])
    }))

  it.live("a new file that another program empties gets no zeros", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a")
      const output = yield* Output.make(options(file))
      yield* output.write(encode(answered({ line: 1 })))
      truncateSync(file)
      yield* output.write(encode(answered({ line: 2 })))
      assert.deepStrictEqual(readLines(file).map(({ line }) => line), [2])
    }))

  it.live("a resumed file keeps its bytes up to `end`, and nothing is cut before the first write", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a")
      writeFileSync(file, `{"line":1}\n{"li`)
      const resume = { end: 11, needsLineFeed: false }
      yield* writeTo(options(file, { resume }))
      assert.strictEqual(readFileSync(file, "utf8"), `{"line":1}\n{"li`)
      yield* writeTo(options(file, { resume }), 2, 3)
      assert.deepStrictEqual(readLines(file).map(({ line }) => line), [1, 2, 3])
      writeFileSync(file, `{"line":1}`)
      yield* writeTo(options(file, { resume: { end: 10, needsLineFeed: true } }), 2, 3)
      assert.deepStrictEqual(readLines(file).map(({ line }) => line), [1, 2, 3])
    }))

  it.live("an output without lines leaves no file", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a")
      yield* writeTo(options(file))
      assert.isFalse(existsSync(file))
    }))

  it.live("a write waits for a slow reader", () =>
    Effect.gen(function*() {
      const slow: Array<() => void> = []
      const writable = new Writable({ write: (_, __, done) => slow.push(() => done()) })
      const output = yield* Output.toWritable(options("-"), writable)
      const writing = yield* Effect.forkChild(output.write(encode(answered({ line: 1 }))), { startImmediately: true })
      assert.isUndefined(writing.pollUnsafe())
      slow[0]!()
      yield* Fiber.join(writing)
    }))

  it.live("a closed pipe is `ReaderGone`, and any other failure is an error", () =>
    Effect.gen(function*() {
      const failWith = (code: string) => {
        const error = Object.assign(new Error(code), { code })
        return Effect.flatMap(
          Output.toWritable(options("-"), new Writable({ write: (_, __, done) => done(error) })),
          (output) => Effect.flip(output.write(encode(answered({ line: 1 }))))
        )
      }
      assert.strictEqual((yield* failWith("EPIPE"))._tag, "ReaderGone")
      assert.include((yield* failWith("ENOSPC")).message, "the disk is full")
    }))

  it.live("nothing in a result is altered, whatever it contains", () =>
    Effect.gen(function*() {
      const stream = new PassThrough()
      const output = yield* Output.toWritable(options("-"), stream)
      const text = "ollama sk-canary-4f1d0a7be93c4d55 [masked]"
      yield* output.write(encode(answered({ line: 1, id: text, text, model: text })))
      yield* output.write(encode(failed({ line: 2, id: text }, text)))
      const [first, second] = String(stream.read()).trimEnd().split("\n").map((line) => JSON.parse(line))
      assert.deepStrictEqual([first.id, first.text, first.model, second.id, second.error.message], Array(5).fill(text))
    }))
})
