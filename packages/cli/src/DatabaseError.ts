/** What went wrong with a database, without the words of a server, which could quote a value. */
import * as Migrations from "@sluice/sql/Migrations"
import * as Schema from "effect/Schema"
import { isSqlError } from "effect/sql/SqlError"
import * as Sqlite from "./Sqlite.ts"
import * as SystemError from "./SystemError.ts"

/** Codes of Postgres and of sockets. */
const words = new Map([
  ["28P01", "the password or the user is wrong; check both in the URL"],
  ["28000", "the server refuses the user, or has no such role; name another user in the URL"],
  ["3D000", "there is no such database; name another one in the URL, or make it with createdb"],
  [
    "42501",
    "the role may not use its tables; grant it the rights of the documentation, or name another user in the URL"
  ],
  ["53300", "the server has too many connections; close some, or raise its max_connections"],
  ["26000", "a pooler has lost a prepared statement; add pgbouncer=true to the URL"],
  ["42P05", "a pooler has mixed prepared statements; add pgbouncer=true to the URL"],
  ["ECONNREFUSED", "no server answers there; start it, or check the host and the port"],
  ["ETIMEDOUT", "no server answers there; check the host, the port and the firewall"],
  ["EHOSTUNREACH", "there is no route to the host; check it and the network"],
  ["ENOTFOUND", "there is no such host; check its name"],
  ["EAI_AGAIN", "the name of the host cannot be looked up now; check the network, or try again"],
  ["ENOENT", "there is no such folder; make it, or name another one"],
  ["EACCES", "permission denied"]
])

/** Faults for which the driver of Postgres has no code, by the beginning of its words. */
const driverWords: ReadonlyArray<readonly [beginning: string, words: string]> = [
  ["Connection timed out", "no server of Postgres answers there; check the host and the port"],
  [
    "The server requested password",
    "the server wants a password; put it into the URL, or into a variable that the URL names"
  ],
  ["The server does not support TLS", "the server has no TLS; leave sslmode out of the URL, or switch TLS on"],
  ["Unrecognized sslmode", "the sslmode of the URL is unknown; use disable, prefer, require or verify-full"],
  ["Invalid port", "the port of the URL must be a number from 1 to 65535"],
  ["Invalid connect_timeout", "the connect_timeout of the URL must be a number of seconds"],
  ["Invalid percent-encoding", "the URL has a % that encodes no sign; write % as %25"]
]

export const describe = (error: unknown): string => {
  if (error instanceof Migrations.MigrationFailed) return error.description
  // The command says which tables it needs.
  if (error instanceof Migrations.TablesOutdated) return error.message.slice(`${error.migrations}: `.length)
  if (Schema.isSchemaError(error)) return "it has rows of another program"
  const cause = isSqlError(error) ? error.reason.cause : error
  if (Sqlite.codeOf(cause) !== undefined) return Sqlite.describe(cause)
  const code = codeOf(cause)
  if (code === undefined) return wordsOfDriver(cause) ?? "the database answered with an error"
  // A socket of Postgres is a file.
  if (code === "ENOENT" && isConnect(cause)) return "no server has its socket there; start it, or check the folder"
  return words.get(code) ?? code
}

const wordsOfDriver = (cause: unknown): string | undefined =>
  cause instanceof Error
    ? driverWords.find(([beginning]) => cause.message.startsWith(beginning))?.[1]
    : undefined

const isConnect = (cause: unknown): boolean =>
  cause instanceof Error && "syscall" in cause && cause.syscall === "connect"

const codeOf = (error: unknown): string | undefined =>
  error instanceof Error ? SystemError.codeOf(error) ?? codeOf(error.cause) : undefined
