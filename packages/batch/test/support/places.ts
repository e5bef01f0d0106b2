import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { randomUUID } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { findServer, type OwnServer, type Server, startServer } from "../../../sql/test/support/server.ts"

/** The part of a database that belongs to a scenario. */
export interface Place extends AsyncDisposable {
  readonly url: string
}

export const sqlite = (): Promise<Place> => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-sqlite-"))
  return Promise.resolve({
    url: `sqlite:${join(folder, "batches.db")}`,
    [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true })
  })
}

/** A new schema of a server. */
export const postgres = async (server: Server): Promise<Place> => {
  const schema = `sluice_test_${randomUUID().replaceAll("-", "")}`
  const run = (statement: string) =>
    Effect.runPromise(
      SqlClient.SqlClient.use((sql) => sql.unsafe(statement)).pipe(
        Effect.provide(SqlDatabase.layer({ url: server.url }))
      )
    )
  await run(`create schema ${schema}`)
  const url = new URL(server.url)
  url.searchParams.set("options", `-csearch_path=${schema}`)
  return { url: url.href, [Symbol.asyncDispose]: async () => void await run(`drop schema ${schema} cascade`) }
}

const required = <S>(server: S | undefined): S => {
  if (server === undefined) throw new Error("no Postgres by DATABASE_URL, at 127.0.0.1:5432 or in /usr/lib/postgresql")
  return server
}

export const server = async (): Promise<Server> => required(await findServer())

/** A server that a scenario may restart. */
export const ownServer = async (): Promise<OwnServer> => required(await startServer())
