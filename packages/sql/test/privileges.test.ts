import { assert } from "@effect/vitest"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import { FlightStore } from "@sluice/core/FlightStore"
import { QuotaStore } from "@sluice/core/QuotaStore"
import * as Migrations from "@sluice/sql/Migrations"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlStores from "@sluice/sql/SqlStores"
import * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
import * as FlightStoreContract from "@sluice/testing/FlightStoreContract"
import * as QuotaStoreContract from "@sluice/testing/QuotaStoreContract"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { describeWithPostgres } from "./support/databases.ts"
import { urlOfRole } from "./support/role.ts"
import { migrated } from "./support/subjects.ts"

await describeWithPostgres("a role with the privileges in docs/stores.md", (it) => {
  it.effect("the stores pass their contracts, and the role can make no table", () =>
    Effect.gen(function*() {
      yield* migrated(true)
      const client = SqlDatabase.layer({ url: yield* urlOfRole })
      yield* Effect.gen(function*() {
        const sleep = (millis: number) => Effect.sleep(millis)
        const circuits = { store: yield* CircuitBreakerStore, sleep }
        yield* Effect.forEach(CircuitBreakerStoreContract.checks, ({ run }) => run(circuits))
        const quotas = { store: yield* QuotaStore, sleep }
        yield* Effect.forEach(QuotaStoreContract.checks, ({ run }) => run(quotas))
        const flights = { store: yield* FlightStore, sleep }
        yield* Effect.forEach(FlightStoreContract.checks, ({ run }) => run(flights))
      }).pipe(Effect.provide(Layer.provide(SqlStores.layer(), client), { local: true }))
      const create = SqlClient.SqlClient.use((sql) => sql`CREATE TABLE mine (id integer)`)
      const error = yield* Effect.flip(Effect.provide(create, client, { local: true }))
      assert.strictEqual(error._tag === "SqlError" ? error.reason._tag : "", "AuthorizationError")
      const { migrate } = Migrations.make({ name: "mine", steps: { "0001_a": create } })
      const failed = yield* Effect.flip(Effect.provide(migrate, client, { local: true }))
      assert.include(failed.message, "(42501); use a role that may create tables. Nothing was changed")
    }).pipe(Effect.scoped))
})
