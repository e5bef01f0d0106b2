/** The keys of a gateway's clients: an SQLite file that `sluice keys` writes and `sluice serve` reads. */
import * as Schema from "effect/Schema"
import { createHash, randomBytes, timingSafeEqual } from "node:crypto"
import { chmodSync, closeSync, existsSync, openSync } from "node:fs"
import type { DatabaseSync } from "node:sqlite"
import * as Sqlite from "../Sqlite.ts"
import * as Terminal from "../Terminal.ts"

export class KeysError extends Schema.Error<KeysError>("sluice/KeysError")({
  _tag: Schema.tag("KeysError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot use the keys in ${Terminal.escape(this.path)}: ${this.why}`
  }
}

/** What a client with a key may use. */
export interface Limits {
  /** Whether it may read metrics and the state of the gateway, besides calling models. */
  readonly isAdmin: boolean
  readonly rpm: number | undefined
  readonly tpm: number | undefined
  /** Millionths of a dollar in 24 hours. */
  readonly costPerDay: number | undefined
  /** The models that it may request. A `*` stands for any text. Empty: all. */
  readonly models: ReadonlyArray<string>
}

export interface Key extends Limits {
  readonly id: string
  readonly name: string
  /** When it was added, in epoch milliseconds. */
  readonly at: number
  /** SHA-256 of the secret. A slow hash would protect no better: the secret is 256 random bits. */
  readonly hash: Uint8Array
}

export const hashOf = (secret: string): Uint8Array => createHash("sha256").update(secret).digest()

const secretOf = () => randomBytes(32).toString("base64url")

/** A token for a client without a key of its own. */
export const randomToken = (): string => `sluice_${secretOf()}`

const tokenForm = /^sluice_([0-9a-f]{12})_([\w-]{43})$/

/** Finds the key of a token. The secret is compared in constant time. */
export const find = (keys: ReadonlyMap<string, Key>, token: string): Key | undefined => {
  const [, id = "", secret = ""] = tokenForm.exec(token) ?? []
  const key = keys.get(id)
  return key !== undefined && timingSafeEqual(hashOf(secret), key.hash) ? key : undefined
}

/** "Slky": marks the files of this program. */
const applicationId = 0x536c6b79

/** Longer than any transaction of another process takes. */
const busyMillis = 5_000

const hourMillis = 3_600_000
const hoursOfDay = 24

/** The file of keys. Throws `KeysError`. */
export class KeyFile {
  readonly path: string
  private readonly database: DatabaseSync

  private constructor(path: string) {
    this.path = path
    // Only this user can read it.
    closeSync(openSync(path, "a", 0o600))
    this.database = new (Sqlite.load().DatabaseSync)(path, { timeout: busyMillis })
    try {
      this.start()
    } catch (error) {
      this.database.close()
      throw error
    }
  }

  /** Opens the file, and creates it if it is missing. */
  static open(path: string): KeyFile {
    return guarded(path, () => new KeyFile(path))
  }

  /** Opens the file if it exists. */
  static openExisting(path: string): KeyFile | undefined {
    return existsSync(path) ? KeyFile.open(path) : undefined
  }

  /** Adds a key and returns its token, which is kept nowhere. */
  add(name: string, { costPerDay, isAdmin, models, rpm, tpm }: Limits, now: number): string {
    const id = randomBytes(6).toString("hex")
    const secret = secretOf()
    this.guarded(() => {
      if (this.database.prepare("SELECT 1 FROM keys WHERE name = ?").get(name) !== undefined) throw new Taken(name)
      this.database
        .prepare(
          "INSERT INTO keys (id, name, hash, at, admin, rpm, tpm, cost, models) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )
        .run(
          id,
          name,
          hashOf(secret),
          now,
          isAdmin ? 1 : 0,
          rpm ?? null,
          tpm ?? null,
          costPerDay ?? null,
          JSON.stringify(models)
        )
    })
    return `sluice_${id}_${secret}`
  }

  /** Removes the key with this name. Returns whether there was one. */
  remove(name: string): boolean {
    return this.guarded(() => Number(this.database.prepare("DELETE FROM keys WHERE name = ?").run(name).changes) > 0)
  }

  /** All keys, oldest first. */
  list(): ReadonlyArray<Key> {
    return this.guarded(() => this.database.prepare("SELECT * FROM keys ORDER BY at, name").all().map(keyOf))
  }

  /** A number that changes when another process changes the file. */
  get version(): number {
    return this.guarded(() => numberOf(this.database.prepare("PRAGMA data_version").get()?.["data_version"]) ?? 0)
  }

  /** Counts a cost of a key, in millionths of a dollar. */
  spend(id: string, millionths: number, now: number): void {
    this.guarded(() => {
      const hour = Math.floor(now / hourMillis)
      this.database
        .prepare(
          "INSERT INTO spent (key, hour, cost) VALUES (?, ?, ?) ON CONFLICT (key, hour) DO UPDATE SET cost = cost + excluded.cost"
        )
        .run(id, hour, millionths)
      this.database.prepare("DELETE FROM spent WHERE hour < ?").run(hour - hoursOfDay)
    })
  }

  /** The cost of a key in the last 24 hours, in millionths of a dollar. Rounded up to whole hours. */
  spent(id: string, now: number): number {
    const row = this.guarded(() =>
      this.database
        .prepare("SELECT sum(cost) AS cost FROM spent WHERE key = ? AND hour >= ?")
        .get(id, Math.floor(now / hourMillis) - hoursOfDay)
    )
    return numberOf(row?.["cost"]) ?? 0
  }

  close(): void {
    this.database.close()
  }

  private guarded<A>(run: () => A): A {
    return guarded(this.path, run)
  }

  /** Creates the tables in a new file, and refuses one of another program. */
  private start(): void {
    const { database } = this
    // Waits for another process that is creating the tables.
    database.exec("BEGIN IMMEDIATE")
    const { application_id: owner } = database.prepare("PRAGMA application_id").get() ?? {}
    if (owner !== applicationId) {
      const { tables } = database.prepare("SELECT count(*) AS tables FROM sqlite_schema").get() ?? {}
      if (owner !== 0 || tables !== 0) throw new Foreign()
      database.exec(schema)
    }
    database.exec("COMMIT")
    chmodSync(this.path, 0o600)
    Sqlite.toWal(database)
  }
}

const schema = `
  PRAGMA application_id = ${applicationId};
  CREATE TABLE keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, hash BLOB NOT NULL, at INTEGER NOT NULL, admin INTEGER NOT NULL,
    rpm INTEGER, tpm INTEGER, cost INTEGER, models TEXT NOT NULL
  );
  CREATE TABLE spent (key TEXT NOT NULL, hour INTEGER NOT NULL, cost INTEGER NOT NULL, PRIMARY KEY (key, hour));
`

const numberOf = (value: unknown): number | undefined => typeof value === "number" ? value : undefined

const Models = Schema.fromJsonString(Schema.Array(Schema.String))

const keyOf = (row: { readonly [column: string]: unknown }): Key => ({
  id: String(row["id"]),
  name: String(row["name"]),
  at: numberOf(row["at"]) ?? 0,
  hash: row["hash"] instanceof Uint8Array ? row["hash"] : new Uint8Array(32),
  isAdmin: row["admin"] === 1,
  rpm: numberOf(row["rpm"]),
  tpm: numberOf(row["tpm"]),
  costPerDay: numberOf(row["cost"]),
  models: Schema.decodeUnknownSync(Models)(row["models"])
})

/** The file is none of this program. */
class Foreign extends Error {}

class Taken extends Error {}

const guarded = <A>(path: string, run: () => A): A => {
  try {
    return run()
  } catch (error) {
    if (error instanceof KeysError) throw error
    throw new KeysError({ path, why: describe(error) })
  }
}

const describe = (error: unknown): string => {
  if (error instanceof Foreign) return "it is not a file of keys; set another file with --keys"
  if (error instanceof Taken) return `it has a key named ${Terminal.escape(error.message)}; remove that first`
  return Sqlite.describe(error)
}
