import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import type { Vitest } from "@effect/vitest"
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { randomUUID } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, vi } from "vitest"
import { findServer } from "./server.ts"

// A real server and a real clock are slow on a busy machine.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

/** The URL of the part of a database that belongs to a suite: a schema of Postgres, or a file of SQLite. */
export class Place extends Context.Service<Place, { readonly url: string }>()("@sluice/sql/test/Place") {}

export type Services = SqlClient.SqlClient | Place

export type Tests = (it: Vitest.MethodsNonLive<Services>) => void

const noServer = "no Postgres by DATABASE_URL, at 127.0.0.1:5432 or in /usr/lib/postgresql"

/**
 * A suite on a real Postgres, in its own schema, and the real clock. Without a Postgres it prints a line and is skipped. In CI it fails
 * instead.
 */
export const describeWithPostgres = async (name: string, tests: Tests): Promise<void> => {
  const server = await findServer()
  if (server !== undefined) {
    afterAll(server.stop)
    return layer(withClient(ownSchema(server.url)), { excludeTestServices: true })(name, tests)
  }
  if (process.env["CI"] === "true") return it(name, () => assert.fail(noServer))
  process.stderr.write(`${name}: skipped, ${noServer}\n`)
  describe.skip(name, () => layer(withClient(ownFile))(tests))
}

/** A suite on a file of SQLite and the real clock. */
export const describeWithSqlite = (name: string, tests: Tests): void =>
  layer(withClient(ownFile), { excludeTestServices: true })(name, tests)

/** The same suite on both. */
export const describeWithBoth = async (name: string, tests: Tests): Promise<void> => {
  describeWithSqlite(`${name}, on SQLite`, tests)
  await describeWithPostgres(`${name}, on Postgres`, tests)
}

const ownSchema = (base: string): Layer.Layer<Place> =>
  Layer.effect(
    Place,
    Effect.gen(function*() {
      const schema = `sluice_test_${randomUUID().replaceAll("-", "")}`
      const run = (statement: string) =>
        SqlClient.SqlClient.use((sql) => sql.unsafe(statement)).pipe(
          Effect.provide(SqlDatabase.layer({ url: base })),
          Effect.orDie
        )
      yield* Effect.acquireRelease(run(`CREATE SCHEMA ${schema}`), () => run(`DROP SCHEMA ${schema} CASCADE`))
      const url = new URL(base)
      url.searchParams.set("options", `-csearch_path=${schema}`)
      return Place.of({ url: url.href })
    })
  )

const ownFile: Layer.Layer<Place> = Layer.effect(
  Place,
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "sluice-sqlite-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
    ),
    (folder) => Place.of({ url: `sqlite:${join(folder, "store.db")}` })
  )
)

const withClient = (place: Layer.Layer<Place>): Layer.Layer<Services> =>
  Layer.unwrap(Effect.map(Place, ({ url }) => SqlDatabase.layer({ url }))).pipe(Layer.orDie, Layer.provideMerge(place))
