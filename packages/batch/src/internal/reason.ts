/** Why the database refused, without its message, which can name values. */
import type { SqlError } from "effect/sql/SqlError"

/** The kind of an error. A full disk has no kind in Effect. */
export const reasonOf = ({ reason }: SqlError): string => isFullDisk(reason.cause) ? diskFull : reason._tag

export const diskFull = "DiskFull"

/** SQLSTATE of PostgreSQL and the result code of SQLite. */
const isFullDisk = (cause: unknown): boolean =>
  cause instanceof Error &&
  (("code" in cause && cause.code === "53100") || ("errcode" in cause && cause.errcode === 13) ||
    isFullDisk(cause.cause))
