/** The database of batches. */
import * as Batches from "@sluice/batch/Batches"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import type * as Migrations from "@sluice/sql/Migrations"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as DatabaseError from "./DatabaseError.ts"
import * as Terminal from "./Terminal.ts"
import * as UrlSecrets from "./UrlSecrets.ts"

/** Everything that the database of a command can fail with. */
export type StoreError = InvalidOptions | Migrations.MigrationFailed | Migrations.TablesOutdated | SqlError

export const isPostgres = (url: string): boolean => /^postgres(?:ql)?:/i.test(url)

/** Connects to a database. The command makes the tables of a file of SQLite, but not those of a server: its role may not be allowed to. */
export const layer = (url: string): Layer.Layer<Batches.Batches | SqlClient, StoreError> => {
  const tables: Layer.Layer<never, StoreError, SqlClient> = isPostgres(url) ? Layer.empty : Batches.migrations.layer
  return Batches.layer.pipe(
    Layer.provide(tables),
    Layer.provideMerge(SqlDatabase.layer({ url: Redacted.make(url) }))
  )
}

/** The message of an error of the database of batches. */
export const messageOf = (url: string, error: StoreError): string =>
  `cannot use the batches in ${Terminal.escape(UrlSecrets.shown(url))}: ${DatabaseError.describe(error)}`
