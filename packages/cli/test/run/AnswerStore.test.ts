import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, mkdirSync, openSync, readdirSync, statSync, writeFileSync, writeSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as AnswerStore from "../../src/run/AnswerStore.ts"
import { folder } from "../support/files.ts"
import { processTimeout } from "../support/timeouts.ts"

const key = (text: string) => new TextEncoder().encode(text)

const open = (path: string, options: Partial<AnswerStore.Options> = {}) =>
  Effect.acquireRelease(
    Effect.sync(() => new AnswerStore.AnswerStore({ folder: path, since: 0, maxBytes: 2 ** 20, ...options })),
    (store) => Effect.sync(() => store.close())
  )

const refusal = (path: string): string => {
  try {
    new AnswerStore.AnswerStore({ folder: path, since: 0, maxBytes: 2 ** 20 }).close()
  } catch (error) {
    return error instanceof AnswerStore.CacheError ? error.message : String(error)
  }
  return "the file was accepted"
}

describe("AnswerStore", () => {
  it.effect("keeps answers for the next run, and returns those after a time only", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "new", "cache")
      const first = yield* open(path)
      first.put(key("a"), "one", 1_000)
      first.put(key("a"), "two", 2_000)
      first.close()
      const second = yield* open(path)
      assert.deepStrictEqual(second.get(key("a"), 1_999), { answer: "two", at: 2_000 })
      assert.isUndefined(second.get(key("a"), 2_000))
      assert.isUndefined(second.get(key("b"), 0))
      const third = yield* open(path, { since: 2_000 })
      assert.isUndefined(third.get(key("a"), 0))
    }))

  it.effect("deletes the oldest answers when their sum exceeds the size, and keeps none that is larger than it", () =>
    Effect.gen(function*() {
      const store = yield* open(yield* folder, { maxBytes: 1_000_000 })
      const answer = "x".repeat(1_000)
      for (let n = 1; n <= 2_000; n++) store.put(key(`${n}`), answer, n)
      const kept = Array.from({ length: 2_000 }, (_, index) => index + 1)
        .filter((n) => store.get(key(`${n}`), 0) !== undefined)
      assert.isAtMost(kept.length, 1_000)
      assert.isAtLeast(kept.length, 900)
      assert.deepStrictEqual(kept, Array.from({ length: kept.length }, (_, index) => 2_001 - kept.length + index))
      store.put(key("large"), "x".repeat(1_000_001), 3_000)
      assert.isUndefined(store.get(key("large"), 0))
      // An answer that is replaced counts once.
      for (let n = 1; n <= 2_000; n++) store.put(key("same"), answer, 3_000)
      assert.strictEqual(store.get(key("2000"), 0)?.answer, answer)
    }))

  it.effect("no other user can read the files", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "cache")
      mkdirSync(path)
      const first = yield* open(path)
      first.put(key("a"), "one", 1)
      for (const name of readdirSync(path)) assert.strictEqual(statSync(join(path, name)).mode & 0o777, 0o600, name)
      chmodSync(first.path, 0o644)
      yield* open(path)
      assert.strictEqual(statSync(first.path).mode & 0o777, 0o600)
    }))

  it.effect("a file of another program is refused and not changed", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const file = join(path, "answers-1.sqlite")
      writeFileSync(file, "my notes\n")
      assert.strictEqual(
        refusal(path),
        `cannot use the cache ${file}: it is not a file of sluice; name another folder with --cache`
      )
      assert.strictEqual(statSync(file).size, 9)
      writeFileSync(file, "")
      const other = new DatabaseSync(file)
      other.exec("CREATE TABLE mine (a)")
      other.close()
      assert.include(refusal(path), "it is not a file of sluice")
      const inTheWay = join(path, "file")
      writeFileSync(inTheWay, "")
      assert.include(refusal(inTheWay), "--cache names a file; name a folder")
    }))

  it.effect("a damaged file of this program is replaced", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const first = yield* open(path)
      first.put(key("a"), "one", 1)
      first.close()
      const file = openSync(first.path, "r+")
      writeSync(file, Buffer.alloc(4_096 - 100, 0xff), 0, 4_096 - 100, 100)
      const second = yield* open(path)
      assert.isTrue(second.isReplaced)
      assert.isUndefined(second.get(key("a"), 0))
      second.put(key("a"), "two", 2)
      const third = yield* open(path)
      assert.deepStrictEqual([third.isReplaced, third.get(key("a"), 0)?.answer], [false, "two"])
    }))

  it.live("two processes create and write one cache at the same time", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "cache")
      const script = `
        const { AnswerStore } = await import(${JSON.stringify(import.meta.resolve("../../src/run/AnswerStore.ts"))})
        const store = new AnswerStore({ folder: process.argv[1], since: 0, maxBytes: 2 ** 30 })
        const bytes = new TextEncoder()
        for (let n = 0; n < 500; n++) store.put(bytes.encode(process.argv[2] + n), "answer", n + 1)
        store.close()
      `
      const ended = yield* Effect.promise(() =>
        Promise.all(["a", "b", "c"].map(async (name) => {
          const args = ["--conditions=@sluice/source", "--input-type=module", "-e", script, path, name]
          const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] })
          let stderr = ""
          child.stderr.on("data", (data: Buffer) => stderr += data.toString())
          const [code] = await once(child, "close")
          return [code, stderr]
        }))
      )
      // No warning that Node's module is experimental.
      assert.deepStrictEqual(ended, [[0, ""], [0, ""], [0, ""]])
      const store = yield* open(path)
      for (const name of ["a", "b", "c"]) {
        for (let n = 0; n < 500; n++) assert.strictEqual(store.get(key(name + n), -1)?.answer, "answer", name + n)
      }
    }), processTimeout)
})
