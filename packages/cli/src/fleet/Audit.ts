/** The changes by hand of a fleet: who changed what, when, why, and for how long. They are kept where the circuits are. */
import { StoreError } from "@sluice/core/CircuitBreakerStore"
import * as StoreCodec from "@sluice/core/StoreCodec"
import * as Migrations from "@sluice/sql/Migrations"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redis from "effect/persistence/Redis"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { SqlClient } from "effect/sql/SqlClient"
import { isSqlError } from "effect/sql/SqlError"
import { randomUUID } from "node:crypto"
import * as Terminal from "../Terminal.ts"

/** One change. */
export interface Entry {
  readonly id: string
  /** By the clock of the process that made it, in epoch milliseconds. */
  readonly at: number
  readonly kind: "circuit" | "quota" | "batch"
  /** The key of the circuit or quota, or the id of the batch. */
  readonly name: string
  /** `open`, `close`, `reset` and `drain` of a circuit, `cancel` of a batch, the change of a quota in words. */
  readonly what: string
  /** Empty for a batch. */
  readonly reason: string
  /** `null` without an end. */
  readonly forMs: number | null
  /** The name of a gateway's key, or the user and the machine of a command. */
  readonly who: string
}

export const entry = (fields: Omit<Entry, "id">): Entry => ({ id: randomUUID(), ...fields })

const shortestReason = 4
const longestReason = 200

export const reasonRule = `must have ${shortestReason} to ${longestReason} characters, all of which can be printed`

/** The reason without spaces around it. `undefined` if it breaks the rule. */
export const readReason = (text: string): string | undefined => {
  const reason = text.trim()
  const length = [...reason].length
  return length < shortestReason || length > longestReason || Terminal.escape(reason) !== reason ? undefined : reason
}

export const leastMillis = 1_000
export const mostMillis = Duration.toMillis("30 days")
/** Long enough to repair something, and short enough to be forgotten. */
export const defaultMillis = Duration.toMillis("1 hour")

/** The last 1,000 changes. */
export class Audit extends Context.Service<Audit, {
  readonly add: (entry: Entry) => Effect.Effect<void, StoreError>
  /** The newest first. */
  readonly recent: (limit: number) => Effect.Effect<ReadonlyArray<Entry>, StoreError>
}>()("sluice/fleet/Audit") {}

const kept = 1_000

/** Of one process. */
export const layerMemory: Layer.Layer<Audit> = Layer.sync(Audit, () => {
  const entries: Array<Entry> = []
  return {
    add: (entry) =>
      Effect.sync(() => {
        entries.unshift(entry)
        entries.length = Math.min(entries.length, kept)
      }),
    recent: (limit) => Effect.sync(() => entries.slice(0, limit))
  }
})

const fields = {
  id: Schema.String,
  kind: Schema.Literals(["circuit", "quota", "batch"]),
  what: Schema.String,
  reason: Schema.String,
  who: Schema.String
}

/** Leaves out what another version or program wrote, so that it does not hide the others. */
const readable = <A>(
  values: ReadonlyArray<unknown>,
  decode: (value: unknown) => Option.Option<A>
): ReadonlyArray<A> => values.flatMap((value) => Option.toArray(decode(value)))

// ---------- Redis

const EntryJson = Schema.fromJsonString(
  Schema.Struct({ ...fields, at: Schema.Int, name: Schema.String, forMs: Schema.NullOr(Schema.Int) })
)
const encodeEntry = Schema.encodeSync(EntryJson)
const decodeEntry = Schema.decodeUnknownOption(EntryJson)

const redisKey = "sluice:audit"

/** In a list of Redis. */
export const layerRedis: Layer.Layer<Audit, never, Redis.Redis> = Layer.effect(
  Audit,
  Effect.map(Redis.Redis, (redis) => ({
    add: (entry) =>
      Effect.andThen(
        redis.send("LPUSH", redisKey, encodeEntry(entry)),
        redis.send("LTRIM", redisKey, "0", String(kept - 1))
      ).pipe(guarded("add")),
    recent: (limit) =>
      Effect.map(
        redis.send("LRANGE", redisKey, "0", String(limit - 1)),
        (entries) => readable(Array.isArray(entries) ? entries : [], decodeEntry)
      ).pipe(guarded("recent"))
  }))
)

// ---------- SQL

/** Makes the table of changes in a database, once. */
export const migrations = Migrations.make({
  name: "audit",
  command: "sluice migrate URL",
  steps: {
    "0001_audit": Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* sql`CREATE TABLE sluice_audit (
        id text PRIMARY KEY, at bigint NOT NULL, kind text NOT NULL, name text NOT NULL, what text NOT NULL,
        reason text NOT NULL, millis bigint, who text NOT NULL
      )`
      yield* sql`CREATE INDEX sluice_audit_at ON sluice_audit (at)`
    })
  }
})

/** Postgres has numbers of 64 bits, which its driver reads as `bigint`. */
const Whole = Schema.Union([
  Schema.Int,
  Schema.BigInt.pipe(
    Schema.decodeTo(Schema.Int, SchemaTransformation.transform({ decode: Number, encode: (whole) => BigInt(whole) }))
  )
])

const decodeRow = Schema.decodeUnknownOption(
  Schema.Struct({ ...fields, at: Whole, name: Schema.String, millis: Schema.NullOr(Whole) })
)

/** In a table of Postgres or SQLite. */
export const layerSql: Layer.Layer<Audit, never, SqlClient> = Layer.effect(
  Audit,
  Effect.map(SqlClient, (sql) => ({
    add: ({ at, forMs, id, kind, name, reason, what, who }) =>
      Effect.andThen(
        // A key can have any character, of which Postgres refuses some.
        sql`INSERT INTO sluice_audit (id, at, kind, name, what, reason, millis, who)
          VALUES (${id}, ${at}, ${kind}, ${StoreCodec.encodeKey(name)}, ${what}, ${reason}, ${forMs}, ${who})`,
        sql`DELETE FROM sluice_audit WHERE at < (SELECT at FROM sluice_audit ORDER BY at DESC LIMIT 1 OFFSET ${kept})`
      ).pipe(guarded("add")),
    recent: (limit) =>
      sql`SELECT * FROM sluice_audit ORDER BY at DESC, id LIMIT ${limit}`.pipe(
        Effect.map((rows) =>
          readable(rows, decodeRow).map(({ at, id, kind, millis, name, reason, what, who }): Entry => ({
            id,
            at,
            kind,
            name: StoreCodec.decodeKey(name) ?? name,
            what,
            reason,
            forMs: millis,
            who
          }))
        ),
        guarded("recent")
      )
  }))
)

/** A server that hangs must not keep a command or the live page waiting. */
const timeoutMillis = 2_000

/** The words of a server are left out, since they can quote values. */
const guarded = (operation: string) => <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, StoreError, R> =>
  self.pipe(
    Effect.timeout(timeoutMillis),
    // The reads of a gateway would fill its traces.
    Effect.withTracerEnabled(false),
    Effect.mapError((error) =>
      new StoreError({
        operation: `audit ${operation}`,
        description: isSqlError(error) ? error.reason._tag : error instanceof Error ? error.name : "an error"
      })
    )
  )
