/** What went wrong with a database, without the words of a server, which could quote a value. */
import * as Migrations from "@sluice/sql/Migrations"
import * as Schema from "effect/Schema"
import { isSqlError } from "effect/sql/SqlError"
import * as Sqlite from "./Sqlite.ts"
import * as SystemError from "./SystemError.ts"

/** Codes of Postgres and of sockets. */
const words = new Map([
  ["28P01", "the password is wrong"],
  ["28000", "the role is refused"],
  ["3D000", "there is no such database"],
  ["42501", "the role may not use its tables"],
  ["53300", "the server has too many connections"],
  ["26000", "a pooler has lost a prepared statement; add pgbouncer=true to the URL"],
  ["42P05", "a pooler has mixed prepared statements; add pgbouncer=true to the URL"],
  ["ECONNREFUSED", "no server answers there"],
  ["ENOTFOUND", "there is no such host"],
  ["ENOENT", "there is no such folder"],
  ["EACCES", "permission denied"]
])

export const describe = (error: unknown): string => {
  if (error instanceof Migrations.MigrationFailed || error instanceof Migrations.TablesOutdated) return error.message
  if (Schema.isSchemaError(error)) return "it has rows of another program"
  const cause = isSqlError(error) ? error.reason.cause : error
  if (Sqlite.codeOf(cause) !== undefined) return Sqlite.describe(cause)
  const code = codeOf(cause)
  return code === undefined ? "the database answered with an error" : words.get(code) ?? code
}

const codeOf = (error: unknown): string | undefined =>
  error instanceof Error ? SystemError.codeOf(error) ?? codeOf(error.cause) : undefined
