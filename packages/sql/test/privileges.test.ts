import { assert } from "@effect/vitest"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import { QuotaStore } from "@sluice/core/QuotaStore"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlStores from "@sluice/sql/SqlStores"
import * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
import * as QuotaStoreContract from "@sluice/testing/QuotaStoreContract"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { readFileSync } from "node:fs"
import { describeWithPostgres, Place } from "./support/databases.ts"
import { migrated } from "./support/subjects.ts"

const page = readFileSync(new URL("../../../docs/stores.md", import.meta.url), "utf8")

await describeWithPostgres("a role with the privileges in docs/stores.md", (it) => {
  it.effect("the stores pass their contracts, and the role can make no table", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { url } = yield* Place
      yield* migrated(true)
      const role = `sluice_test_${process.pid}`
      const schema = (yield* sql<{ schema: string }>`SELECT current_schema() AS schema`)[0]?.schema ?? ""
      const grants = /```sql\n(GRANT[\s\S]*?)```/.exec(page)?.[1]?.split(";").filter((grant) => grant.trim() !== "") ??
        []
      assert.isNotEmpty(grants)
      yield* Effect.acquireRelease(
        sql.unsafe(`CREATE ROLE ${role} LOGIN`),
        () => Effect.orDie(Effect.andThen(sql.unsafe(`DROP OWNED BY ${role}`), sql.unsafe(`DROP ROLE ${role}`)))
      )
      for (const grant of grants) {
        yield* sql.unsafe(grant.replaceAll("app_role", role).replaceAll("app_schema", schema))
      }
      const limited = new URL(url)
      if (limited.searchParams.has("user")) limited.searchParams.set("user", role)
      else limited.username = role
      const client = SqlDatabase.layer({ url: limited.href })
      yield* Effect.gen(function*() {
        const sleep = (millis: number) => Effect.sleep(millis)
        const circuits = { store: yield* CircuitBreakerStore, sleep }
        yield* Effect.forEach(CircuitBreakerStoreContract.checks, ({ run }) => run(circuits))
        const quotas = { store: yield* QuotaStore, sleep }
        yield* Effect.forEach(QuotaStoreContract.checks, ({ run }) => run(quotas))
      }).pipe(Effect.provide(Layer.provide(SqlStores.layer(), client), { local: true }))
      const create = SqlClient.SqlClient.use((sql) => sql`CREATE TABLE mine (id integer)`)
      const error = yield* Effect.flip(Effect.provide(create, client, { local: true }))
      assert.strictEqual(error._tag === "SqlError" ? error.reason._tag : "", "AuthorizationError")
    }).pipe(Effect.scoped))
})
