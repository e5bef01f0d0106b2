import { assert, describe, it } from "@effect/vitest"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import { Effect, Layer } from "effect"
import * as Redis from "effect/persistence/Redis"
import { SqlClient } from "effect/sql"
import * as Audit from "../../src/fleet/Audit.ts"

const entry = (id: string, at: number): Audit.Entry => ({
  id,
  at,
  kind: "circuit",
  name: "gateway/main",
  what: "open",
  reason: "region moves",
  forMs: null,
  who: "ann@host"
})

/** A list of Redis with these entries. */
const redisWith = (entries: ReadonlyArray<unknown>) =>
  Layer.effect(
    Redis.Redis,
    Redis.make({
      // Only the caller needs the result of a command.
      send: <A>() => Effect.succeed(entries as A),
      subscribe: () => Effect.die("not used"),
      connect: Effect.die("not used")
    })
  )

describe("the changes by hand", () => {
  it.effect("in Redis are shown although another program wrote some that cannot be read", () => {
    const entries = [
      "no JSON",
      JSON.stringify(entry("a", 2)),
      JSON.stringify({ ...entry("b", 1), kind: "planet" }),
      null,
      JSON.stringify(entry("c", 1))
    ]
    return Effect.gen(function*() {
      const { recent } = yield* Audit.Audit
      assert.deepStrictEqual(yield* recent(10), [entry("a", 2), entry("c", 1)])
    }).pipe(Effect.provide(Layer.provide(Audit.layerRedis, redisWith(entries))))
  })

  it.live("in a database are shown although a newer version wrote some that cannot be read", () =>
    Effect.gen(function*() {
      yield* Audit.migrations.migrate
      const sql = yield* SqlClient.SqlClient
      const { add, recent } = yield* Audit.Audit
      yield* add(entry("a", 1))
      yield* add(entry("b", 2))
      yield* add(entry("c", 3))
      yield* sql`update sluice_audit set kind = 'planet' where id = 'b'`
      assert.deepStrictEqual((yield* recent(10)).map(({ id }) => id), ["c", "a"])
    }).pipe(
      Effect.provide(Layer.provideMerge(Audit.layerSql, SqlDatabase.layer({ url: "sqlite::memory:" })))
    ))
})
