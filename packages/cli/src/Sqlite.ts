/** Node's SQLite, loaded without a warning, and its errors. */
import type * as Sqlite from "node:sqlite"
import * as SystemError from "./SystemError.ts"

/** Loads SQLite without the warning that Node's module is experimental, which users cannot act on. */
export const load = (): typeof Sqlite => {
  const { emitWarning } = process
  process.emitWarning = () => {}
  try {
    return process.getBuiltinModule("node:sqlite")
  } finally {
    process.emitWarning = emitWarning
  }
}

/** A write-ahead log lets processes read while another one writes. The change needs the file alone, for a moment. */
export const toWal = (database: Sqlite.DatabaseSync): void => {
  if (database.prepare("PRAGMA journal_mode").get()?.["journal_mode"] === "wal") return
  try {
    database.exec("PRAGMA journal_mode = WAL")
  } catch (error) {
    // Another process has the file open and makes the change, or the next one does.
    if (codeOf(error) !== busy) throw error
  }
}

/** SQLite's codes. */
export const busy = 5
const damaged = 11
const full = 13
const notADatabase = 26

/** The primary code of an error of SQLite. */
export const codeOf = (error: unknown): number | undefined =>
  error instanceof Error && "errcode" in error && typeof error.errcode === "number" ? error.errcode & 0xff : undefined

export const isDamage = (error: unknown): boolean => codeOf(error) === damaged || codeOf(error) === notADatabase

export const describe = (error: unknown): string => {
  switch (codeOf(error)) {
    case undefined:
      return SystemError.describe(error)
    case busy:
      return "another process keeps it locked; try again"
    case damaged:
      return "it is damaged; put a backup in its place, or name another file"
    case notADatabase:
      return "it is no file of SQLite; name another file"
    case full:
      return "the disk is full"
    default:
      // SQLite's own messages name tables and files, and no values.
      return error instanceof Error ? error.message : "unknown error"
  }
}
