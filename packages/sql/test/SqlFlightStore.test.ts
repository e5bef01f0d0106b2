import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, it as unit } from "@effect/vitest"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlFlightStore from "@sluice/sql/SqlFlightStore"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Effect, Redacted, Result } from "effect"
import { SqlClient } from "effect/sql"
import { describeWithBoth, describeWithPostgres, Place } from "./support/databases.ts"

const flight = (key: string) => ({ key, operation: "an operation", tenant: "a tenant", id: "a" })

const migrated = Effect.andThen(SqlStores.migrate(), SqlFlightStore.make())

await describeWithBoth("SqlFlightStore", (it) => {
  it.effect("entries that expired are deleted when another flight ends, and no others", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const store = yield* migrated
      for (const key of ["old", "live", "kept"]) yield* store.claim({ ...flight(key), leaseMillis: 60_000 })
      const result = { result: "42", freshMillis: 60_000, keepMillis: 0 }
      yield* store.complete({ ...flight("kept"), ...result })
      yield* sql`UPDATE sluice_flights SET expires = 1 WHERE key = 'old'`
      yield* store.claim({ ...flight("new"), leaseMillis: 60_000 })
      yield* store.complete({ ...flight("new"), ...result })
      const rows = yield* sql<{ key: string; spare: unknown }>`SELECT key, expires - seen AS spare FROM sluice_flights
        ORDER BY key`
      assert.deepStrictEqual(rows.map(({ key }) => key), ["kept", "live", "new"])
      for (const { spare } of rows) assert.isAbove(Number(spare), 119_000)
    }))

  it.effect("a row that another client has changed is a StoreError", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const store = yield* migrated
      yield* store.claim({ ...flight("changed"), leaseMillis: 60_000 })
      yield* sql`UPDATE sluice_flights SET generation = 9007199254740993 WHERE key = 'changed'`
      const error = yield* Effect.flip(store.claim({ ...flight("changed"), leaseMillis: 60_000 }))
      assert.match(error.message, /a row of the flights is invalid|the database answered with/)
    }))

  it.effect("a duration that is no number is refused before it is sent", () =>
    Effect.gen(function*() {
      const store = yield* migrated
      const wrong = [
        store.claim({ ...flight("nan"), leaseMillis: Number.NaN }),
        store.renew({ ...flight("nan"), leaseMillis: Number.POSITIVE_INFINITY }),
        store.complete({ ...flight("nan"), result: "", freshMillis: -1, keepMillis: 0 })
      ]
      for (const verb of wrong) {
        assert.match((yield* Effect.flip(verb as Effect.Effect<unknown, Error>)).message, /is invalid/)
      }
    }))

  it.effect("verbs without their table fail, and the error names the command and no key", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const store = yield* migrated
      yield* sql`ALTER TABLE sluice_flights RENAME TO sluice_flights_away`
      const verbs: ReadonlyArray<Effect.Effect<unknown, Error>> = [
        store.claim({ ...flight("a key"), leaseMillis: 1 }),
        store.renew({ ...flight("a key"), leaseMillis: 1 }),
        store.complete({ ...flight("a key"), result: "a result", freshMillis: 0, keepMillis: 0 }),
        store.release(flight("a key")),
        store.purge({ by: "tenant", hash: "a tenant" })
      ]
      const errors = yield* Effect.forEach(verbs, (verb) => Effect.flip(verb))
      yield* sql`ALTER TABLE sluice_flights_away RENAME TO sluice_flights`
      for (const { message } of errors) {
        assert.include(message, "Run `sluice migrate URL`")
        assert.notMatch(message, /a key|a result|a tenant/)
      }
    }))

  it.effect("the rollback of the caller's transaction leaves a claim, or SQLite refuses it", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const store = yield* migrated
      const claim = store.claim({ ...flight("in a transaction"), leaseMillis: 60_000 })
      const rolledBack = yield* Effect.result(
        sql.withTransaction(Effect.andThen(claim, Effect.fail("rolled back" as const)))
      )
      const error = Result.isFailure(rolledBack) ? rolledBack.failure : "none"
      const next = yield* store.claim({ ...flight("in a transaction"), id: "b", leaseMillis: 60_000 })
      if (error === "rolled back") assert.strictEqual(next._tag, "Follow")
      else assert.include(String(error), "Give the stores a client of their own")
    }))
})

await describeWithPostgres("SqlFlightStore on Postgres", (it) => {
  it.effect("the store is notified, except by a pool of one connection, which it would take away, and behind a pooler", () =>
    Effect.gen(function*() {
      const { url } = yield* Place
      yield* migrated
      const pooled = new URL(url)
      pooled.searchParams.set("pgbouncer", "true")
      const notified = (url: string, connections: number) =>
        Effect.provide(
          Effect.map(SqlFlightStore.make(), ({ finished }) => finished !== undefined),
          SqlDatabase.layer({ url, connections }),
          { local: true }
        )
      assert.deepStrictEqual(
        [yield* notified(url, 2), yield* notified(url, 1), yield* notified(pooled.href, 2)],
        [true, false, false]
      )
    }))
})

await describeWithPostgres("SqlFlightStore on a client without a pool", (it) => {
  it.effect("leaves its only connection to the statements", () =>
    Effect.gen(function*() {
      const { url } = yield* Place
      yield* Effect.gen(function*() {
        const store = yield* migrated
        assert.isUndefined(store.finished)
        assert.strictEqual((yield* store.claim({ ...flight("single"), leaseMillis: 1_000 }))._tag, "Lead")
      }).pipe(Effect.provide(PgClient.layerFrom(PgClient.makeClient({ url: Redacted.make(url) }))))
    }))
})

unit.effect("a store on SQLite cannot be notified", () =>
  Effect.gen(function*() {
    assert.isUndefined((yield* migrated).finished)
  }).pipe(Effect.provide(SqlDatabase.layer({ url: "sqlite::memory:" }))))
