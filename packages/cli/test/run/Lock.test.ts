import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { execFileSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { hostname } from "node:os"
import { join } from "node:path"
import * as Lock from "../../src/run/Lock.ts"
import { folder } from "../support/files.ts"

const setUp = Effect.map(folder, (directory) => {
  const path = join(directory, "results.jsonl")
  return { directory, path, lock: `${path}.lock` }
})

/** The lock of this process. */
const own = (path: string, lock: string) =>
  Effect.scoped(Effect.map(Lock.hold(path), () => JSON.parse(readFileSync(lock, "utf8"))))

/** A process that has ended. */
const gone = (): number => Number(execFileSync("sh", ["-c", "echo $$"]).toString())

describe("Lock", () => {
  it.live("a lock is held until the scope closes, and leaves no file", () =>
    Effect.gen(function*() {
      const { directory, lock, path } = yield* setUp
      const first = yield* Effect.scoped(Effect.gen(function*() {
        yield* Lock.hold(path)
        assert.strictEqual((yield* Effect.promise(() => Lock.look(path)))._tag, "held")
        const second = yield* Effect.exit(Effect.scoped(Lock.hold(path)))
        assert.isTrue(existsSync(lock))
        return second
      }))
      assert.isTrue(Exit.isFailure(first))
      assert.deepStrictEqual(readdirSync(directory), [])
      assert.strictEqual((yield* Effect.promise(() => Lock.look(path)))._tag, "free")
    }))

  it.live("a link to a file has the lock of the file", () =>
    Effect.gen(function*() {
      const { directory, path } = yield* setUp
      writeFileSync(path, "")
      symlinkSync(path, join(directory, "link"))
      yield* Lock.hold(path)
      const error = yield* Effect.flip(Effect.scoped(Lock.hold(join(directory, "link"))))
      assert.include(error.message, `another run writes it (process ${process.pid})`)
    }))

  it.live.each<readonly [name: string, change: (owner: Lock.Owner) => Lock.Owner]>([
    ["of a process that has ended", (owner) => ({ ...owner, pid: gone() })],
    ["whose process number another process has now", (owner) => ({ ...owner, start: "1" })],
    ["from before the machine was started again", (owner) => ({ ...owner, boot: "another" })]
  ])("a lock %s is taken over", ([, change]) =>
    Effect.gen(function*() {
      const { directory, lock, path } = yield* setUp
      writeFileSync(lock, JSON.stringify(change(yield* own(path, lock))))
      assert.strictEqual((yield* Effect.promise(() => Lock.look(path)))._tag, "stale")
      yield* Effect.scoped(Lock.hold(path))
      assert.deepStrictEqual(readdirSync(directory), [])
    }))

  it.live("a lock of another host or of another form is refused with the file to delete", () =>
    Effect.gen(function*() {
      const { lock, path } = yield* setUp
      const owner: Lock.Owner = yield* own(path, lock)
      assert.strictEqual(owner.host, hostname())
      writeFileSync(lock, JSON.stringify({ ...owner, pid: gone(), host: "elsewhere" }))
      const other = (yield* Effect.flip(Effect.scoped(Lock.hold(path)))).message
      assert.include(other, "on elsewhere")
      assert.include(other, `delete ${lock}`)
      writeFileSync(lock, "oops")
      assert.include((yield* Effect.flip(Effect.scoped(Lock.hold(path)))).message, `delete ${lock}`)
      assert.strictEqual(readFileSync(lock, "utf8"), "oops")
    }))

  it.live("of several that find a stale lock exactly one takes it", () =>
    Effect.gen(function*() {
      const { lock, path } = yield* setUp
      const owner: Lock.Owner = yield* own(path, lock)
      for (let round = 0; round < 20; round++) {
        writeFileSync(lock, JSON.stringify({ ...owner, start: "1" }))
        const won = yield* Effect.scoped(
          Effect.forEach(Array.from({ length: 6 }), () => Effect.exit(Lock.hold(path)), { concurrency: "unbounded" })
        )
        assert.strictEqual(won.filter(Exit.isSuccess).length, 1)
      }
    }))
})
