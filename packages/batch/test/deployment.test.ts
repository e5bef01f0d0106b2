import * as Batches from "@sluice/batch/Batches"
import * as Feeder from "@sluice/batch/Feeder"
import * as Worker from "@sluice/batch/Worker"
import { assert } from "@effect/vitest"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import { Effect, Layer, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { randomUUID } from "node:crypto"
import { describeWithPostgres, Place } from "../../sql/test/support/databases.ts"
import { urlOfRole } from "../../sql/test/support/role.ts"
import { requests, Scripted } from "./support/machine.ts"

/** Parts of one machine of several, that connects by a URL. */
const machineAt = (url: string) =>
  Layer.merge(
    Worker.layer({ inFlight: 8 }).pipe(Layer.provide(new Scripted().layer)),
    Feeder.layerCluster()
  ).pipe(Layer.provideMerge(Batches.layer), Layer.provide(SqlDatabase.layer({ url })))

const answered = Effect.gen(function*() {
  const batches = yield* Batches.Batches
  const id = yield* batches.submit({}, requests(20))
  return (yield* Stream.runCollect(batches.results(id, { follow: true }))).length
})

await describeWithPostgres("batches in a shared database", (it) => {
  it.effect("a role with the privileges in docs/stores.md works on batches", () =>
    Effect.gen(function*() {
      yield* Batches.migrations.migrate
      const machine = machineAt(yield* urlOfRole)
      assert.strictEqual(yield* Effect.provide(answered, machine, { local: true }), 20)
    }).pipe(Effect.scoped))

  it.effect("batches in two schemas do not wait for each other's feeder", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { url } = yield* Place
      const schema = `sluice_test_${randomUUID().replaceAll("-", "")}`
      yield* Effect.acquireRelease(
        sql.unsafe(`CREATE SCHEMA ${schema}`),
        () => Effect.orDie(sql.unsafe(`DROP SCHEMA ${schema} CASCADE`))
      )
      const other = new URL(url)
      other.searchParams.set("options", `-csearch_path=${schema}`)
      yield* Batches.migrations.migrate
      yield* Effect.provide(Batches.migrations.migrate, SqlDatabase.layer({ url: other.href }), { local: true })
      const both = Effect.gen(function*() {
        // The first feeder runs while the second one starts.
        assert.strictEqual(yield* answered, 20)
        assert.strictEqual(yield* Effect.provide(answered, machineAt(other.href), { local: true }), 20)
      })
      yield* Effect.provide(both, machineAt(url), { local: true })
    }).pipe(Effect.scoped))
})
