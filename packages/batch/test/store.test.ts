import * as Batches from "@sluice/batch/Batches"
import { assert, describe, it } from "@effect/vitest"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { requests } from "./support/machine.ts"

const database = Batches.layer.pipe(
  Layer.provide(Batches.migrations.layer),
  Layer.provideMerge(SqlDatabase.layer({ url: "sqlite::memory:" }))
)

describe("a database without space", () => {
  it.effect("refuses requests with the remedy, and the submitter continues when there is space", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const batches = yield* Batches.Batches
      const submit = batches.submit({ id: "file" }, requests(5_000))
      // Smaller than the database: it cannot grow.
      yield* sql`pragma max_page_count = 1`
      const error = yield* Effect.flip(submit)
      assert.match(error.message, /^The database failed to .* \(DiskFull\)\. Free space on the disk of the database$/)
      yield* sql`pragma max_page_count = 100000`
      yield* submit
      assert.deepInclude(yield* batches.status("file"), { state: "in_progress", total: 5_000 })
    }).pipe(Effect.provide(database)))
})
