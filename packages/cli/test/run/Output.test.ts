import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { PassThrough, Writable } from "node:stream"
import * as Mask from "../../src/Mask.ts"
import * as Output from "../../src/run/Output.ts"
import type { Result } from "../../src/run/Result.ts"
import * as RunResult from "../../src/run/Result.ts"
import { answered, failed } from "../support/results.ts"

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "sluice-output-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const options = (path: string, changes: Partial<Output.OutputOptions> = {}): Output.OutputOptions => ({
  path,
  force: false,
  input: undefined,
  ...changes
})

const encode = (result: Result, mask = (text: string) => text): string => RunResult.encode(result, mask)

const writeTo = (given: Output.OutputOptions, ...lines: ReadonlyArray<number>) =>
  Effect.scoped(
    Effect.flatMap(Output.make(given), (output) =>
      Effect.forEach(lines, (line) =>
        output.write(encode(answered({ line }))), { concurrency: "unbounded", discard: true }))
  )

const readLines = (path: string): ReadonlyArray<{ readonly line: number }> =>
  readFileSync(path, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line))

describe("Output", () => {
  it.live("writes whole lines, in the order they come", () =>
    Effect.gen(function*() {
      const path = join(yield* directory, "results.jsonl")
      yield* writeTo(options(path), ...Array.from({ length: 200 }, (_, index) => index + 1))
      assert.deepStrictEqual(readLines(path).map(({ line }) => line), Array.from({ length: 200 }, (_, i) => i + 1))
    }))

  it.live("shows a result as soon as it is written", () =>
    Effect.gen(function*() {
      const path = join(yield* directory, "results.jsonl")
      const output = yield* Output.make(options(path))
      yield* output.write(encode(answered({ line: 1 })))
      assert.strictEqual(readLines(path).length, 1)
    }))

  it.live("writes no half a line when it is interrupted", () =>
    Effect.gen(function*() {
      const path = join(yield* directory, "results.jsonl")
      const output = yield* Output.make(options(path))
      const writing = yield* Effect.forEach(
        [1, 2, 3],
        (line) => output.write(encode(answered({ line, text: "x".repeat(1e6) })))
      )
        .pipe(Effect.forkChild({ startImmediately: true }))
      yield* Fiber.interrupt(writing)
      for (const { line } of readLines(path)) assert.isAbove(line, 0)
    }))

  it.live("refuses an existing file, a directory and the input itself", () =>
    Effect.gen(function*() {
      const path = yield* directory
      const file = join(path, "a")
      writeFileSync(file, "kept")
      assert.include((yield* Effect.flip(Output.make(options(file)))).message, "it exists; --force replaces it")
      assert.include((yield* Effect.flip(Output.make(options(path, { force: true })))).message, "it is a directory")
      const input = statSync(file)
      assert.include(
        (yield* Effect.flip(Output.make(options(file, { force: true, input })))).message,
        "it is the input"
      )
      assert.include((yield* Effect.flip(Output.make(options(join(path, "no", "b"))))).message, "no such file")
      assert.strictEqual(readFileSync(file, "utf8"), "kept")
    }))

  it.live("replaces a file by force, but not before there is something to replace it with", () =>
    Effect.gen(function*() {
      const file = join(yield* directory, "a")
      writeFileSync(file, "old\n".repeat(1000))
      yield* writeTo(options(file, { force: true }))
      assert.include(readFileSync(file, "utf8"), "old")
      yield* writeTo(options(file, { force: true }), 1, 2)
      assert.deepStrictEqual(readLines(file).map(({ line }) => line), [1, 2])
    }))

  it.live("leaves no empty file behind", () =>
    Effect.gen(function*() {
      const file = join(yield* directory, "a")
      yield* writeTo(options(file))
      assert.isFalse(existsSync(file))
    }))

  it.live("waits for a slow reader", () =>
    Effect.gen(function*() {
      const slow: Array<() => void> = []
      const writable = new Writable({ write: (_, __, done) => slow.push(() => done()) })
      const output = yield* Output.toWritable(options("-"), writable)
      const writing = yield* Effect.forkChild(output.write(encode(answered({ line: 1 }))), { startImmediately: true })
      assert.isUndefined(writing.pollUnsafe())
      slow[0]!()
      yield* Fiber.join(writing)
    }))

  it.live("tells a reader that went away from a fault", () =>
    Effect.gen(function*() {
      const fails = (code: string) => {
        const error = Object.assign(new Error(code), { code })
        return Effect.flatMap(
          Output.toWritable(options("-"), new Writable({ write: (_, __, done) => done(error) })),
          (output) => Effect.flip(output.write(encode(answered({ line: 1 }))))
        )
      }
      assert.strictEqual((yield* fails("EPIPE"))._tag, "ReaderGone")
      assert.include((yield* fails("ENOSPC")).message, "the disk is full")
    }))

  it.live("masks the key wherever it stands", () =>
    Effect.gen(function*() {
      const stream = new PassThrough()
      const mask = Mask.make(["sk-secret-key"])
      const output = yield* Output.toWritable(options("-"), stream)
      yield* output.write(encode(answered({ line: 1, id: "sk-secret-key", text: "it is sk-secret-key." }), mask))
      yield* output.write(encode(failed({ line: 2 }, "no sk-secret-key for you"), mask))
      assert.notInclude(String(stream.read()), "secret")
    }))
})
