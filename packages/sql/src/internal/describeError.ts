import type { SqlError } from "effect/sql/SqlError"

const notADatabase = "SQLite 26"

/** Describes an error by its code and kind. Never includes its message, which may contain a key, a host or a value. */
export const describeError = ({ reason }: SqlError): string => {
  const code = codeOf(reason.cause)
  if (code === notADatabase) return "it is no file of SQLite; name another file"
  const kind = reason._tag === "UnknownError" ? "an error" : reason._tag
  const remedy = lostStatement.has(code) ? ". Behind a pooler, add pgbouncer=true to the URL" : ""
  return `the database answered with ${kind}${code === undefined ? "" : ` (${code})`}${remedy}`
}

/** A prepared statement is missing, or is there already: a pooler has changed the connection. */
const lostStatement: ReadonlySet<string | undefined> = new Set(["26000", "42P05"])

/** SQLSTATE of Postgres, the result code of SQLite, or the code of a socket. */
export const codeOf = (cause: unknown): string | undefined => {
  if (!(cause instanceof Error)) return undefined
  if ("errcode" in cause && typeof cause.errcode === "number") return `SQLite ${cause.errcode}`
  if ("code" in cause && typeof cause.code === "string" && /^[A-Z0-9_]{3,40}$/.test(cause.code)) return cause.code
  return codeOf(cause.cause)
}
