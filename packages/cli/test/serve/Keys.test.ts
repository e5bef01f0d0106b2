import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Keys from "../../src/serve/Keys.ts"
import { folder } from "../support/files.ts"

const none: Keys.Limits = { isAdmin: false, costPerDay: undefined, models: [], rpm: undefined, tpm: undefined }

const path = Effect.map(folder, (directory) => join(directory, "keys.sqlite"))

const open = (path: string) =>
  Effect.acquireRelease(Effect.sync(() => Keys.KeyFile.open(path)), (file) => Effect.sync(() => file.close()))

const byId = (keys: ReadonlyArray<Keys.Key>) => new Map(keys.map((key) => [key.id, key]))

describe("a file of keys", () => {
  it.effect("a key is found by its token with its limits, and not by another token", () =>
    Effect.gen(function*() {
      const file = yield* open(yield* path)
      const limits = { isAdmin: true, costPerDay: 5_000_000, models: ["gpt-5*"], rpm: 60, tpm: 1_000 }
      const token = file.add("ann", limits, 1_000)
      file.add("bob", none, 2_000)
      const keys = byId(file.list())
      const { hash: _, id: _id, ...key } = Keys.find(keys, token)!
      assert.deepStrictEqual(key, { name: "ann", at: 1_000, ...limits })
      const last = token.endsWith("A") ? "B" : "A"
      for (const wrong of ["", token.slice(0, -1), `${token.slice(0, -1)}${last}`, ` ${token}`, token.toUpperCase()]) {
        assert.isUndefined(Keys.find(keys, wrong), wrong)
      }
      const [, bob] = [...keys.keys()]
      assert.isUndefined(Keys.find(keys, token.replace(/_[0-9a-f]{12}_/, `_${bob}_`)))
    }))

  it.effect("the token is in no file, and only this user can read the files", () =>
    Effect.gen(function*() {
      const own = yield* path
      const file = yield* open(own)
      const secret = file.add("ann", none, 0).slice(-43)
      const directory = join(own, "..")
      for (const name of readdirSync(directory)) {
        assert.notInclude(readFileSync(join(directory, name), "latin1"), secret, name)
        assert.strictEqual(statSync(join(directory, name)).mode & 0o777, 0o600, name)
      }
    }))

  it.effect("a name is used once, and is free again once its key is removed", () =>
    Effect.gen(function*() {
      const file = yield* open(yield* path)
      file.add("ann", none, 0)
      assert.throws(() => file.add("ann", none, 0), "it has a key named ann")
      assert.isTrue(file.remove("ann"))
      assert.isFalse(file.remove("ann"))
      file.add("ann", none, 0)
      assert.strictEqual(file.list().length, 1)
    }))

  it.effect("the version changes when another process changes the file", () =>
    Effect.gen(function*() {
      const own = yield* path
      const [file, other] = [yield* open(own), yield* open(own)]
      const { version } = file
      assert.strictEqual(file.version, version)
      other.add("ann", none, 0)
      assert.notStrictEqual(file.version, version)
      assert.deepStrictEqual(file.list().map(({ name }) => name), ["ann"])
    }))

  it.effect("the cost of the last 24 hours is kept, and older cost is not", () =>
    Effect.gen(function*() {
      const hour = 3_600_000
      const own = yield* path
      const file = yield* open(own)
      file.spend("a", 30, 10 * hour)
      file.spend("a", 12, 10 * hour + 1)
      file.spend("b", 5, 12 * hour)
      assert.strictEqual(file.spent("a", 12 * hour), 42)
      const other = yield* open(own)
      assert.strictEqual(other.spent("a", 34 * hour), 42)
      assert.strictEqual(other.spent("a", 35 * hour), 0)
      assert.strictEqual(other.spent("b", 35 * hour), 5)
    }))

  it.effect("a file of another kind is refused and stays as it is", () =>
    Effect.gen(function*() {
      const own = yield* path
      writeFileSync(own, "my notes, which are longer than the header of a database, or nearly so")
      assert.throws(() => Keys.KeyFile.open(own), "cannot use the keys in")
      assert.match(readFileSync(own, "utf8"), /^my notes/)
      assert.isUndefined(Keys.KeyFile.openExisting(join(own, "..", "none")))
    }))
})
