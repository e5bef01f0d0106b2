/** The answers of `--cache`: an SQLite file that several runs share, bounded by size, oldest answers first. */
import * as Schema from "effect/Schema"
import { chmodSync, closeSync, mkdirSync, openSync, readSync, rmSync } from "node:fs"
import { join } from "node:path"
import type { DatabaseSync, StatementSync } from "node:sqlite"
import * as Sqlite from "../Sqlite.ts"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"

export class CacheError extends Schema.Error<CacheError>("sluice/CacheError")({
  _tag: Schema.tag("CacheError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot use the cache ${Terminal.escape(this.path)}: ${this.why}`
  }
}

export interface Options {
  /** Created if missing. */
  readonly folder: string
  /** Answers given before this time are deleted and not returned, in epoch milliseconds. */
  readonly since: number
  /** Bytes of answers to keep. */
  readonly maxBytes: number
}

export interface Kept {
  readonly answer: string
  /** When it was put, in epoch milliseconds. */
  readonly at: number
}

/** "Slce": marks the files of this program. */
const applicationId = 0x536c6365

/** Changes with the tables, so that no version reads the file of another. */
const fileName = "answers-1.sqlite"

/** Longer than any transaction of another run takes. */
const busyMillis = 5_000

/** Throws `CacheError`. `get` takes some 0.02 ms and `put` 0.2 ms, apart from waits for another run that is writing. */
export class AnswerStore {
  readonly path: string
  /** Whether a damaged file was replaced. */
  isReplaced = false
  private readonly options: Options
  private database: DatabaseSync
  private select: StatementSync
  private insert: StatementSync
  private bytes: StatementSync
  private oldest: StatementSync

  constructor(options: Options) {
    this.options = options
    this.path = join(options.folder, fileName)
    this.database = this.open()
    try {
      this.start()
    } catch (error) {
      this.close()
      if (!Sqlite.isDamage(error)) throw this.error(error)
      this.replace()
    }
    this.select = this.database.prepare("SELECT answer, at FROM answers WHERE key = ? AND at > ?")
    this.insert = this.database.prepare(
      "INSERT INTO answers (key, at, bytes, answer) VALUES (?, ?, ?, ?) " +
        "ON CONFLICT (key) DO UPDATE SET at = excluded.at, bytes = excluded.bytes, answer = excluded.answer"
    )
    this.bytes = this.database.prepare("SELECT bytes FROM size")
    this.oldest = this.database.prepare(
      "DELETE FROM answers WHERE key IN (SELECT key FROM answers ORDER BY at LIMIT 64)"
    )
  }

  /** Returns an answer given after a time in epoch milliseconds. */
  get(key: Uint8Array, since: number): Kept | undefined {
    const row = this.guarded(() => this.select.get(key, since))
    const { answer, at } = row ?? {}
    return typeof answer === "string" && typeof at === "number" ? { answer, at } : undefined
  }

  /** Keeps an answer, unless it is larger than the whole cache. */
  put(key: Uint8Array, answer: string, now: number): void {
    const bytes = Buffer.byteLength(answer)
    if (bytes > this.options.maxBytes) return
    this.guarded(() => {
      this.insert.run(key, now, bytes, answer)
      this.evict()
    })
  }

  close(): void {
    try {
      this.database.close()
    } catch {
      // Each answer was written when it was put.
    }
  }

  private evict(): void {
    while (Number(this.bytes.get()?.["bytes"]) > this.options.maxBytes && this.oldest.run().changes > 0);
  }

  private guarded<A>(run: () => A): A {
    try {
      return run()
    } catch (error) {
      throw this.error(error)
    }
  }

  private error(error: unknown): CacheError {
    if (error instanceof CacheError) return error
    return new CacheError({ path: this.path, why: describe(error) })
  }

  /** Creates the folder and the file, which only this user can read. */
  private open(): DatabaseSync {
    return this.guarded(() => {
      mkdirSync(this.options.folder, { recursive: true, mode: 0o700 })
      closeSync(openSync(this.path, "a", 0o600))
      return new (Sqlite.load().DatabaseSync)(this.path, { timeout: busyMillis })
    })
  }

  /** Creates the tables in a new file, refuses one of another program, and deletes expired answers. */
  private start(): void {
    const { database } = this
    // No effect on an existing file.
    database.exec("PRAGMA auto_vacuum = INCREMENTAL")
    // Waits for another run that is creating the tables.
    database.exec("BEGIN IMMEDIATE")
    const { application_id: owner } = database.prepare("PRAGMA application_id").get() ?? {}
    if (owner !== applicationId) {
      const { tables } = database.prepare("SELECT count(*) AS tables FROM sqlite_schema").get() ?? {}
      if (owner !== 0 || tables !== 0) throw new Foreign()
      database.exec(schema)
    }
    database.exec("COMMIT")
    chmodSync(this.path, 0o600)
    database.exec("PRAGMA synchronous = NORMAL")
    Sqlite.toWal(database)
    const { changes } = database.prepare("DELETE FROM answers WHERE at <= ?").run(this.options.since)
    if (changes > 0) database.exec("PRAGMA incremental_vacuum")
  }

  private replace(): void {
    this.guarded(() => {
      if (!isOurs(this.path)) throw new Foreign()
      for (const end of ["", "-wal", "-shm"]) rmSync(this.path + end, { force: true })
      this.database = this.open()
      this.start()
      this.isReplaced = true
    })
  }
}

const schema = `
  PRAGMA application_id = ${applicationId};
  CREATE TABLE answers (key BLOB PRIMARY KEY, at INTEGER NOT NULL, bytes INTEGER NOT NULL, answer TEXT NOT NULL);
  CREATE INDEX answers_at ON answers (at);
  CREATE TABLE size (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL);
  INSERT INTO size (one, bytes) VALUES (1, 0);
  CREATE TRIGGER answers_added AFTER INSERT ON answers
    BEGIN UPDATE size SET bytes = bytes + new.bytes; END;
  CREATE TRIGGER answers_removed AFTER DELETE ON answers
    BEGIN UPDATE size SET bytes = bytes - old.bytes; END;
  CREATE TRIGGER answers_replaced AFTER UPDATE ON answers
    BEGIN UPDATE size SET bytes = bytes - old.bytes + new.bytes; END;
`

// ---------- files and errors

/** The file is no cache of this program. */
class Foreign extends Error {}

const headerBytes = 100
const magic = "SQLite format 3\0"
const applicationIdAt = 68

/** Whether a file that SQLite cannot read has the header of this program. */
const isOurs = (path: string): boolean => {
  const file = openSync(path, "r")
  try {
    const head = Buffer.alloc(headerBytes)
    readSync(file, head, 0, headerBytes, 0)
    return head.toString("latin1", 0, magic.length) === magic && head.readUInt32BE(applicationIdAt) === applicationId
  } finally {
    closeSync(file)
  }
}

const describe = (error: unknown): string => {
  if (error instanceof Foreign) return "it is not a file of sluice; name another folder with --cache"
  if (SystemError.codeOf(error) === "EEXIST") return "--cache names a file; name a folder"
  if (Sqlite.codeOf(error) === Sqlite.busy) {
    return "another run keeps it locked; try again, or name another folder with --cache"
  }
  return Sqlite.describe(error)
}
