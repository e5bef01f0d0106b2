import { assert } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import { Place } from "./databases.ts"

const page = readFileSync(new URL("../../../../docs/stores.md", import.meta.url), "utf8")

/** Makes a role with the privileges in docs/stores.md, for the tables that exist now. Returns the URL with which it connects. */
export const urlOfRole: Effect.Effect<string, SqlError.SqlError, Place | Scope.Scope | SqlClient.SqlClient> = Effect
  .gen(
    function*() {
      const sql = yield* SqlClient.SqlClient
      const { url } = yield* Place
      const role = `sluice_test_${randomUUID().replaceAll("-", "")}`
      const schema = (yield* sql<{ schema: string }>`SELECT current_schema() AS schema`)[0]?.schema ?? ""
      const grants = /```sql\n(GRANT[\s\S]*?)```/.exec(page)?.[1]?.split(";").filter((grant) => grant.trim() !== "") ??
        []
      assert.isNotEmpty(grants)
      yield* Effect.acquireRelease(
        sql.unsafe(`CREATE ROLE ${role} LOGIN`),
        () => Effect.orDie(Effect.andThen(sql.unsafe(`DROP OWNED BY ${role}`), sql.unsafe(`DROP ROLE ${role}`)))
      )
      for (const grant of grants) yield* sql.unsafe(grant.replaceAll("app_role", role).replaceAll("app_schema", schema))
      const limited = new URL(url)
      if (limited.searchParams.has("user")) limited.searchParams.set("user", role)
      else limited.username = role
      return limited.href
    }
  )
