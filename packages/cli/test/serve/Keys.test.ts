import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describeWithBoth, Place } from "../../../sql/test/support/databases.ts"
import * as Keys from "../../src/serve/Keys.ts"
import { folder } from "../support/files.ts"

const none: Keys.Limits = { isAdmin: false, costPerDay: undefined, models: [], rpm: undefined, tpm: undefined }

const path = Effect.map(folder, (directory) => join(directory, "keys.sqlite"))

/** Opens the keys of the suite with a connection of its own, as another process would. */
const opened = Effect.flatMap(
  Place,
  ({ url }) => Effect.andThen(Keys.migrations.migrate, Keys.open(url.replace(/^sqlite:/, "")))
)

/** The same keys for each test of a suite, without those of the test before. */
const emptied = Effect.tap(
  opened,
  (keys) => Effect.flatMap(keys.list, (all) => Effect.forEach(all, ({ name }) => keys.remove(name), { discard: true }))
)

const byId = (keys: ReadonlyArray<Keys.Key>) => new Map(keys.map((key) => [key.id, key]))

/** Runs an effect at this time. */
const at = (millis: number) => <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.andThen(TestClock.setTime(millis), self).pipe(Effect.provide(TestClock.layer()))

await describeWithBoth("keys", (it) => {
  it.effect("a key is found by its token with its limits, and not by another token", () =>
    Effect.gen(function*() {
      const store = yield* emptied
      const limits = { isAdmin: true, costPerDay: 5_000_000, models: ["gpt-5*"], rpm: 60, tpm: 3_000_000_000 }
      const token = yield* at(1_000)(store.add("ann", limits))
      yield* at(2_000)(store.add("bob", none))
      const keys = byId(yield* store.list)
      const { hash: _, id: _id, ...key } = Keys.find(keys, token)!
      assert.deepStrictEqual(key, { name: "ann", at: 1_000, ...limits })
      const last = token.endsWith("A") ? "B" : "A"
      for (const wrong of ["", token.slice(0, -1), `${token.slice(0, -1)}${last}`, ` ${token}`, token.toUpperCase()]) {
        assert.isUndefined(Keys.find(keys, wrong), wrong)
      }
      const [, bob] = [...keys.keys()]
      assert.isUndefined(Keys.find(keys, token.replace(/_[0-9a-f]{12}_/, `_${bob}_`)))
    }))

  it.effect("a name is used once, and is free again once its key is removed", () =>
    Effect.gen(function*() {
      const store = yield* emptied
      yield* store.add("ann", none)
      const { message } = yield* Effect.flip(store.add("ann", none))
      assert.include(message, "it has a key named ann; remove that first")
      assert.isTrue(yield* store.remove("ann"))
      assert.isFalse(yield* store.remove("ann"))
      yield* store.add("ann", none)
      assert.strictEqual((yield* store.list).length, 1)
    }))

  it.effect("keys that several processes add at the same moment are all there, and each name once", () =>
    Effect.gen(function*() {
      yield* emptied
      const stores = yield* Effect.all([opened, opened, opened])
      const names = ["ann", "ann", "ann", "bob", "cleo", "dan"]
      const added = yield* Effect.forEach(names, (name, index) => Effect.option(stores[index % 3]!.add(name, none)), {
        concurrency: 6
      })
      assert.strictEqual(added.filter(({ _tag }) => _tag === "Some").length, 4)
      const keys = yield* stores[0]!.list
      assert.deepStrictEqual(keys.map(({ name }) => name).toSorted(), ["ann", "bob", "cleo", "dan"])
    }))

  it.effect("the version changes when another process adds or removes a key", () =>
    Effect.gen(function*() {
      const [store, other] = [yield* emptied, yield* opened]
      const first = yield* store.version
      assert.strictEqual(yield* store.version, first)
      yield* other.add("ann", none)
      const second = yield* store.version
      assert.notStrictEqual(second, first)
      assert.deepStrictEqual((yield* store.list).map(({ name }) => name), ["ann"])
      yield* other.remove("ann")
      assert.notStrictEqual(yield* store.version, second)
    }))

  it.effect("the cost of the last 24 hours is kept, and older cost is not", () =>
    Effect.gen(function*() {
      const hour = 3_600_000
      const store = yield* emptied
      yield* at(10 * hour)(store.spend("a", 30))
      yield* at(10 * hour + 1)(store.spend("a", 12))
      yield* at(12 * hour)(store.spend("b", 5))
      const spentAt = (hours: number) => Effect.map(at(hours * hour)(store.spent), (spent) => [...spent].toSorted())
      assert.deepStrictEqual(yield* spentAt(12), [["a", 42], ["b", 5]])
      const other = yield* opened
      assert.deepStrictEqual(yield* Effect.map(at(34 * hour)(other.spent), (spent) => spent.get("a")), 42)
      assert.deepStrictEqual(yield* spentAt(35), [["b", 5]])
    }))

  it.effect("costs that several processes count at the same moment add up", () =>
    Effect.gen(function*() {
      const stores = yield* Effect.all([emptied, opened])
      const calls = Array.from({ length: 20 }, (_, call) => stores[call % 2]!.spend("many", 1_000_000_000))
      yield* Effect.all(calls, { concurrency: 20 })
      assert.strictEqual((yield* stores[0]!.spent).get("many"), 20_000_000_000)
    }))
})

describe("the place of keys", () => {
  it.effect("the token is in no file, and only this user can read the files", () =>
    Effect.gen(function*() {
      const own = yield* path
      const secret = (yield* Effect.flatMap(Keys.open(own), (store) => store.add("ann", none))).slice(-43)
      const directory = join(own, "..")
      for (const name of readdirSync(directory)) {
        assert.notInclude(readFileSync(join(directory, name), "latin1"), secret, name)
        assert.strictEqual(statSync(join(directory, name)).mode & 0o777, 0o600, name)
      }
    }))

  it.effect("a file of another kind is refused and stays as it is", () =>
    Effect.gen(function*() {
      const own = yield* path
      writeFileSync(own, "my notes, which are longer than the header of a database, or nearly so")
      assert.include((yield* Effect.flip(Keys.open(own))).message, "cannot use the keys in")
      assert.match(readFileSync(own, "utf8"), /^my notes/)
      assert.isUndefined(yield* Keys.openExisting(join(own, "..", "none")))
    }))

  it.live("a database that does not answer is named without its password", () =>
    Effect.gen(function*() {
      const { message } = yield* Effect.flip(Keys.open("postgres://me:canary-secret@127.0.0.1:1/team"))
      assert.strictEqual(
        message,
        "cannot use the keys in postgres://127.0.0.1:1/team: no server answers there; start it, or check the host and the port"
      )
    }))
})
