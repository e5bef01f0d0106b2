import { assert } from "@effect/vitest"
import * as Migrations from "@sluice/sql/Migrations"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { describeWithBoth, describeWithPostgres, Place } from "./support/databases.ts"

const table = (name: string) => SqlClient.SqlClient.use((sql) => sql`CREATE TABLE ${sql(name)} (id text PRIMARY KEY)`)
const tables = SqlClient.SqlClient.use((sql) =>
  sql.onDialectOrElse({
    pg: () =>
      sql<
        { name: string }
      >`SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema() AND tablename LIKE 'sluice_%'`,
    orElse: () => sql<{ name: string }>`SELECT name FROM sqlite_master WHERE type = 'table'`
  })
).pipe(Effect.map((rows) => rows.map(({ name }) => name).toSorted()))

await describeWithBoth("migrations", (it) => {
  it.effect("a missing table fails the check, and the error names the command of these migrations, or `migrate`", () =>
    Effect.gen(function*() {
      const steps = { "0001_a": table("sluice_missing") } as const
      const error = yield* Effect.flip(Migrations.make({ name: "missing", command: "npm run tables", steps }).check)
      assert.strictEqual(error._tag, "TablesOutdated")
      assert.strictEqual(
        error.message,
        "missing: the tables are missing. Run `npm run tables` with a role that may create tables"
      )
      assert.strictEqual(
        (yield* Effect.flip(Migrations.make({ name: "missing", steps }).check)).message,
        "missing: the tables are missing. Run `migrate` of these migrations, with a role that may create tables"
      )
    }))

  it.effect("steps run once, in the order of their numbers", () =>
    Effect.gen(function*() {
      const first = { "0001_a": table("sluice_order_a") } as const
      const all = { ...first, "0010_c": table("sluice_order_c"), "0002_b": table("sluice_order_b") } as const
      const old = Migrations.make({ name: "order", steps: first })
      const now = Migrations.make({ name: "order", steps: all })
      assert.deepStrictEqual(yield* old.migrate, ["0001_a"])
      yield* old.check
      const error = yield* Effect.flip(now.check)
      assert.include(error.message, "the tables have version 1, and version 10 is needed")
      assert.deepStrictEqual(yield* now.migrate, ["0002_b", "0010_c"])
      assert.deepStrictEqual(yield* now.migrate, [])
      yield* now.check
    }))

  it.effect("tables that are newer than the program pass the check", () =>
    Effect.gen(function*() {
      const steps = { "0001_a": Effect.void, "0002_b": Effect.void } as const
      yield* Migrations.make({ name: "newer", steps }).migrate
      yield* Migrations.make({ name: "newer", steps: { "0001_a": Effect.void } }).check
    }))

  it.effect("a step that fails leaves nothing behind, and the error has its name and code but no value", () =>
    Effect.gen(function*() {
      const broken = SqlClient.SqlClient.use((sql) => sql`INSERT INTO sluice_absent VALUES (${"a secret"})`)
      const { check, migrate } = Migrations.make({
        name: "broken",
        steps: { "0001_a": table("sluice_broken_a"), "0002_b": broken }
      })
      const error = yield* Effect.flip(migrate)
      assert.match(
        error.message,
        /^broken: Migration "2_b" failed: the database answered with .* \((42P01|SQLite 1)\)\./
      )
      assert.notInclude(error.message, "secret")
      assert.notInclude(error.message, "role", "another role would not help")
      assert.notInclude(yield* tables, "sluice_broken_a")
      assert.strictEqual((yield* Effect.flip(check))._tag, "TablesOutdated")
    }))

  it.effect("several processes that migrate at once run each step once", () =>
    Effect.gen(function*() {
      const { url } = yield* Place
      const { migrate } = Migrations.make({
        name: "many",
        steps: { "0001_a": table("sluice_many_a"), "0002_b": table("sluice_many_b") }
      })
      // Each has its own connections, as another process has.
      const each = Effect.provide(migrate, SqlDatabase.layer({ url }), { local: true })
      const done = yield* Effect.all(Array.from({ length: 5 }, () => each), { concurrency: "unbounded" })
      assert.deepStrictEqual(done.flat().toSorted(), ["0001_a", "0002_b"])
    }))
})

await describeWithPostgres("migrations on Postgres", (it) => {
  it.effect("an error of a pooler that has lost a prepared statement says what to add to the URL", () =>
    Effect.gen(function*() {
      const lost = SqlClient.SqlClient.use((sql) => sql.unsafe("EXECUTE sluice_absent"))
      const error = yield* Effect.flip(Migrations.make({ name: "pooled", steps: { "0001_a": lost } }).migrate)
      assert.include(error.message, "(26000). Behind a pooler, add pgbouncer=true to the URL")
    }))
})
