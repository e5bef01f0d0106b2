/** The keys of a gateway's clients, in a file of SQLite or in Postgres: `sluice keys` writes them, and `sluice serve` reads them. */
import * as Migrations from "@sluice/sql/Migrations"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Context from "effect/Context"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"
import * as Scope from "effect/Scope"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { createHash, randomBytes, timingSafeEqual } from "node:crypto"
import { existsSync } from "node:fs"
import * as DatabaseError from "../DatabaseError.ts"
import { isDatabaseUrl } from "../Flag.ts"
import * as Sqlite from "../Sqlite.ts"
import * as Terminal from "../Terminal.ts"
import * as UrlSecrets from "../UrlSecrets.ts"

export class KeysError extends Schema.Error<KeysError>("sluice/KeysError")({
  _tag: Schema.tag("KeysError"),
  /** The file, or the URL without its password. */
  place: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot use the keys in ${Terminal.escape(this.place)}: ${this.why}`
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
  /** The models that it may request. A `*` matches any text. Empty: all. */
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

/** The owner of the files and batches of a key: its id, and its name for people. A later key of the name has another id. */
export const ownerOf = ({ id, name }: Pick<Key, "id" | "name">): string => `${name}/${id}`

/** The name of an owner. */
export const nameOf = (owner: string): string => owner.replace(/\/[0-9a-f]{12}$/, "")

export const hashOf = (secret: string): Uint8Array => createHash("sha256").update(secret).digest()

const secretOf = () => randomBytes(32).toString("base64url")

/** A token for a client without a key of its own. */
export const randomToken = (): string => `sluice_${secretOf()}`

const tokenForm = /^sluice_([0-9a-f]{12})_([\w-]{43})$/

/** Of no secret. */
const noHash = new Uint8Array(32)

/** Finds the key of a token. The time does not tell a wrong secret from an unknown key. */
export const find = (keys: ReadonlyMap<string, Key>, token: string): Key | undefined => {
  const [, id = "", secret = ""] = tokenForm.exec(token) ?? []
  const key = keys.get(id)
  return timingSafeEqual(hashOf(secret), key?.hash ?? noHash) ? key : undefined
}

/** A place of keys for a message. */
export const shown = (place: string): string => isDatabaseUrl(place) ? UrlSecrets.shown(place) : place

/** Keys in one place. All processes that use the place share them. */
export interface KeyStore {
  /** Adds a key and returns its token, which is kept nowhere. */
  readonly add: (name: string, limits: Limits) => Effect.Effect<string, KeysError>
  /** Removes the key with this name. Returns whether there was one. */
  readonly remove: (name: string) => Effect.Effect<boolean, KeysError>
  /** All keys, oldest first. */
  readonly list: Effect.Effect<ReadonlyArray<Key>, KeysError>
  /** A number that changes when keys are added or removed. */
  readonly version: Effect.Effect<number, KeysError>
  /** Counts a cost of a key, in millionths of a dollar. */
  readonly spend: (id: string, millionths: number) => Effect.Effect<void, KeysError>
  /** The cost of each key in the last 24 hours, in millionths of a dollar. Rounded up to whole hours. */
  readonly spent: Effect.Effect<ReadonlyMap<string, number>, KeysError>
}

/** Opens the file, and creates it if it is missing, or connects to the database of a URL. */
export const open = (place: string): Effect.Effect<KeyStore, KeysError, Scope.Scope> =>
  Effect.gen(function*() {
    const scope = yield* Scope.fork(yield* Scope.Scope)
    // Before the client loads it, with a warning on Node 22.
    if (!isDatabaseUrl(place)) Sqlite.load()
    const database = SqlDatabase.layer({ url: isDatabaseUrl(place) ? place : `sqlite:${place}`, connections })
    const sql = yield* Layer.buildWithScope(database, scope).pipe(
      Effect.map((context) => Context.get(context, SqlClient)),
      Effect.tap((sql) => Effect.provideService(prepare(place), SqlClient, sql)),
      guarded(place),
      Effect.tapError(() => Scope.close(scope, Exit.void))
    )
    return storeOn(sql, place)
  })

/** Opens the file if it exists, or connects to the database of a URL. */
export const openExisting = (place: string): Effect.Effect<KeyStore | undefined, KeysError, Scope.Scope> =>
  Effect.suspend(() => isDatabaseUrl(place) || existsSync(place) ? open(place) : Effect.undefined)

/** A gateway asks for the version, and counts costs. */
const connections = 2

/** A server that hangs must not keep the start, a change of keys, or the end waiting. */
const timeoutMillis = 5_000

const hourMillis = 3_600_000
const hoursOfDay = 24

/** Makes the tables of keys in a database, once. */
export const migrations = Migrations.make({
  name: "keys",
  command: "sluice migrate URL",
  steps: {
    "0001_keys": Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* sql`CREATE TABLE sluice_keys (
        id text PRIMARY KEY, name text NOT NULL UNIQUE, hash text NOT NULL, at bigint NOT NULL, admin integer NOT NULL,
        rpm bigint, tpm bigint, cost bigint, models text NOT NULL
      )`
      yield* sql`CREATE TABLE sluice_keys_spent (
        key text NOT NULL, hour bigint NOT NULL, cost bigint NOT NULL, PRIMARY KEY (key, hour)
      )`
      yield* sql`CREATE TABLE sluice_keys_version (version bigint NOT NULL)`
      yield* sql`INSERT INTO sluice_keys_version (version) VALUES (0)`
    })
  }
})

/** Makes the tables of a file. A role of a server may not be allowed to: `sluice migrate` does it. */
const prepare = (
  place: string
): Effect.Effect<void, Migrations.MigrationFailed | Migrations.TablesOutdated | SqlError, SqlClient> =>
  isDatabaseUrl(place)
    ? migrations.check
    : Effect.catchTag(migrations.check, "TablesOutdated", () => Effect.asVoid(migrations.migrate))

/** Statements that run on SQLite and on Postgres. */
const storeOn = (sql: SqlClient, place: string): KeyStore => {
  // In the transaction of a change. It also makes changes wait for each other.
  const changed = sql`UPDATE sluice_keys_version SET version = version + 1`
  const hourNow = Effect.map(Clock.currentTimeMillis, (now) => Math.floor(now / hourMillis))
  return {
    add: (name, { costPerDay = null, isAdmin, models, rpm = null, tpm = null }) =>
      Effect.gen(function*() {
        const id = randomBytes(6).toString("hex")
        const secret = secretOf()
        const hash = Buffer.from(hashOf(secret)).toString("hex")
        const at = yield* Clock.currentTimeMillis
        const added = yield* sql`
          INSERT INTO sluice_keys (id, name, hash, at, admin, rpm, tpm, cost, models)
          VALUES (${id}, ${name}, ${hash}, ${at}, ${isAdmin ? 1 : 0}, ${rpm}, ${tpm}, ${costPerDay}, ${
          JSON.stringify(models)
        })
          ON CONFLICT (name) DO NOTHING RETURNING id`
        if (added.length === 0) {
          const why = `it has a key named ${Terminal.escape(name)}; remove that first`
          return yield* new KeysError({ place: shown(place), why })
        }
        yield* changed
        return `sluice_${id}_${secret}`
      }).pipe(sql.withTransaction, guarded(place)),
    remove: (name) =>
      Effect.gen(function*() {
        const removed = yield* sql`DELETE FROM sluice_keys WHERE name = ${name} RETURNING id`
        for (const { id } of removed) yield* sql`DELETE FROM sluice_keys_spent WHERE key = ${id}`
        if (removed.length > 0) yield* changed
        return removed.length > 0
      }).pipe(sql.withTransaction, guarded(place)),
    list: Effect.flatMap(sql`SELECT * FROM sluice_keys ORDER BY at, name`, decodeRows).pipe(guarded(place)),
    version: Effect.flatMap(sql`SELECT version FROM sluice_keys_version`, decodeVersion).pipe(
      Effect.map(([row]) => row?.version ?? 0),
      guarded(place)
    ),
    spend: (id, millionths) =>
      Effect.flatMap(hourNow, (hour) =>
        Effect.andThen(
          sql`
            INSERT INTO sluice_keys_spent (key, hour, cost) VALUES (${id}, ${hour}, ${millionths})
            ON CONFLICT (key, hour) DO UPDATE SET cost = sluice_keys_spent.cost + excluded.cost`,
          sql`DELETE FROM sluice_keys_spent WHERE key = ${id} AND hour < ${hour - hoursOfDay}`
        )).pipe(guarded(place)),
    spent: Effect.flatMap(
      hourNow,
      (hour) =>
        sql`SELECT key, CAST(sum(cost) AS bigint) AS cost FROM sluice_keys_spent WHERE hour >= ${
          hour - hoursOfDay
        } GROUP BY key`
    ).pipe(
      Effect.flatMap(decodeSpent),
      Effect.map((rows) => new Map(rows.map(({ cost, key }) => [key, cost]))),
      guarded(place)
    )
  }
}

/** Postgres has numbers of 64 bits, which its driver reads as `bigint`. */
const Whole = Schema.Union([
  Schema.Int,
  Schema.BigInt.pipe(
    Schema.decodeTo(Schema.Int, SchemaTransformation.transform({ decode: Number, encode: (whole) => BigInt(whole) }))
  )
])

const decodeVersion = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ version: Whole })))

const decodeSpent = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ key: Schema.String, cost: Whole })))

const decodeKeys = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  hash: Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/)),
  at: Whole,
  admin: Schema.Literals([0, 1]),
  rpm: Schema.NullOr(Whole),
  tpm: Schema.NullOr(Whole),
  cost: Schema.NullOr(Whole),
  models: Schema.fromJsonString(Schema.Array(Schema.String))
})))

const decodeRows = (rows: ReadonlyArray<unknown>) =>
  Effect.map(decodeKeys(rows), (keys) =>
    keys.map(({ admin, cost, hash, rpm, tpm, ...key }): Key => ({
      ...key,
      hash: Buffer.from(hash, "hex"),
      isAdmin: admin === 1,
      rpm: rpm ?? undefined,
      tpm: tpm ?? undefined,
      costPerDay: cost ?? undefined
    })))

/** Ends a wait for a server that hangs, and says what is wrong without the words of a server, which could quote a value. */
const guarded = (place: string) => <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, KeysError, R> =>
  self.pipe(
    Effect.timeout(timeoutMillis),
    // The checks of a gateway would fill its traces.
    Effect.withTracerEnabled(false),
    Effect.mapError((error) =>
      error instanceof KeysError ? error : new KeysError({ place: shown(place), why: describe(error) })
    )
  )

const describe = (error: unknown): string =>
  Cause.isTimeoutError(error) ? `no answer within ${timeoutMillis / 1_000} s` : DatabaseError.describe(error)
