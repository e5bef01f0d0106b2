import type { Claimed, ClaimRequest, Flight, FlightStore } from "@sluice/core/FlightStore"
import { encodeKey } from "@sluice/core/StoreCodec"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { type Row, serverMicros, type Session } from "../session.ts"

type RequestOf<Verb extends "renew" | "complete" | "purge"> = Parameters<FlightStore["Service"][Verb]>[0]

/** The verbs, as one statement each. A reply of `undefined` is an invalid row. */
export interface Verbs {
  readonly claim: (request: ClaimRequest) => Effect.Effect<Claimed | undefined, SqlError>
  readonly renew: (request: RequestOf<"renew">) => Effect.Effect<boolean, SqlError>
  readonly complete: (request: RequestOf<"complete">) => Effect.Effect<boolean, SqlError>
  readonly release: (request: Flight) => Effect.Effect<boolean, SqlError>
  readonly purge: (request: RequestOf<"purge">) => Effect.Effect<number, SqlError>
}

/** The channel of Postgres that names the keys of flights that have ended while others followed. */
export const channel = "sluice_flights"

/** How long an entry stays after its end, in milliseconds. */
const keptAfter = 60_000

/** How many expired entries the end of a flight deletes. */
const sweptAtOnce = 20

export const verbsOn = (session: Session): Verbs => {
  const { dialect } = session
  const isPg = dialect === "pg"
  const max = isPg ? "greatest" : "max"
  // One row with the time, which is that of the process in SQLite: the last parameter.
  const timeIn = (parameter: string) =>
    isPg ? `(SELECT (${serverMicros})::bigint AS micros)` : `(SELECT CAST(${parameter} AS bigint) AS micros)`
  const withTime = (params: ReadonlyArray<unknown>) =>
    isPg ? Effect.succeed(params) : Effect.map(Clock.currentTimeMillis, (now) => [...params, now * 1_000])
  const run = (text: string) => {
    const statement = session.statement(text)
    return (params: ReadonlyArray<unknown>) => Effect.flatMap(withTime(params), statement)
  }
  // NOTIFY refuses payloads of 8,000 bytes. A key is a hash, and so much shorter, unless a `KeyHash` makes it long.
  const ended = (update: string) =>
    isPg
      ? `WITH ended AS (${update} RETURNING key, followed)
        SELECT CASE WHEN followed = 1 AND length(key) < 7000 THEN pg_notify('${channel}', key)::text END FROM ended`
      : `${update} RETURNING key`

  // If the clock was set back, all times are shifted by as much.
  const behind = `${max}(0, f.seen - excluded.seen)`
  const hasResult = `(f.fresh - ${behind} > excluded.seen
    OR ($6 >= 0 AND f.done >= $6 AND f.kept - ${behind} > excluded.seen))`
  const isLeased = `(f.ends - ${behind} > excluded.seen)`
  const leads = `(NOT ${hasResult} AND (NOT ${isLeased} OR f.id = excluded.id))`
  const claim = run(
    `INSERT INTO sluice_flights AS f
      (key, operation, tenant, id, generation, ends, followed, done, result, fresh, kept, seen, expires)
    SELECT $1, $2, $3, $4, ${max}(micros, $6 + 1), micros / 1000 + $5, 0, 0, '', 0, 0, micros / 1000,
      micros / 1000 + $5 + ${keptAfter}
    FROM ${timeIn("$7")} AS t WHERE true
    ON CONFLICT (key) DO UPDATE SET
      generation = CASE WHEN ${hasResult} OR ${isLeased} THEN f.generation
        ELSE ${max}(excluded.generation, f.generation + 1) END,
      id = CASE WHEN ${leads} THEN excluded.id ELSE f.id END,
      ends = CASE WHEN ${leads} THEN excluded.ends ELSE f.ends - ${behind} END,
      followed = CASE WHEN ${hasResult} THEN f.followed WHEN NOT ${isLeased} THEN 0
        WHEN f.id <> excluded.id THEN 1 ELSE f.followed END,
      fresh = f.fresh - ${behind},
      kept = f.kept - ${behind},
      seen = excluded.seen,
      expires = CASE WHEN ${leads} THEN ${max}(excluded.expires, f.expires - ${behind}) ELSE f.expires - ${behind} END
    RETURNING generation, id, ends, done, fresh, kept, seen,
      CASE WHEN fresh > seen OR ($6 >= 0 AND done >= $6 AND kept > seen) THEN result ELSE '' END AS result`
      .replaceAll(/\$[56]/g, (parameter) => `CAST(${parameter} AS bigint)`)
  )
  const renewedBehind = `${max}(0, seen - micros / 1000)`
  const renew = run(
    `UPDATE sluice_flights SET ends = micros / 1000 + CAST($3 AS bigint), seen = micros / 1000,
      fresh = fresh - ${renewedBehind}, kept = kept - ${renewedBehind},
      expires = ${max}(expires - ${renewedBehind}, micros / 1000 + CAST($3 AS bigint) + ${keptAfter})
    FROM ${timeIn("$4")} AS t WHERE key = $1 AND id = $2 AND ends > micros / 1000 RETURNING key`
  )
  const complete = run(ended(
    `UPDATE sluice_flights SET ends = 0, done = generation, result = $3, seen = micros / 1000,
      fresh = micros / 1000 + CAST($4 AS bigint), kept = micros / 1000 + CAST($5 AS bigint),
      expires = micros / 1000 + ${max}(CAST($4 AS bigint), CAST($5 AS bigint)) + ${keptAfter}
    FROM ${timeIn("$6")} AS t WHERE key = $1 AND id = $2 AND ends > micros / 1000`
  ))
  const wasCompleted = session.statement(
    "SELECT 1 FROM sluice_flights WHERE key = $1 AND id = $2 AND done = generation"
  )
  const release = run(ended(
    `UPDATE sluice_flights SET ends = 0 FROM ${timeIn("$3")} AS t WHERE key = $1 AND id = $2 AND ends > micros / 1000`
  ))
  // A single value, so that Postgres reads only the expired entries of the index.
  const sweep = run(
    `DELETE FROM sluice_flights WHERE key IN (
      SELECT key FROM sluice_flights WHERE expires < (SELECT micros / 1000 FROM ${timeIn("$1")} AS t)
      ORDER BY expires LIMIT ${sweptAtOnce} ${isPg ? "FOR UPDATE SKIP LOCKED" : ""})`
  )
  const purge = {
    key: session.statement("DELETE FROM sluice_flights WHERE key = $1 RETURNING 1"),
    operation: session.statement("DELETE FROM sluice_flights WHERE operation = $1 RETURNING 1"),
    tenant: session.statement("DELETE FROM sluice_flights WHERE tenant = $1 RETURNING 1")
  }
  const hasRow = (rows: ReadonlyArray<Row>): boolean => rows.length > 0
  const swept = <A>(verb: Effect.Effect<A, SqlError>) => Effect.tap(verb, () => Effect.ignore(sweep([])))

  return {
    claim: ({ following = -1, id, key, leaseMillis, operation, tenant }) => {
      const holder = encodeKey(id)
      const hashes = [key, operation, tenant].map(encodeKey)
      return Effect.map(
        claim([...hashes, holder, Math.ceil(leaseMillis), following]),
        ([row]) => row === undefined ? undefined : claimedIn(row, holder, following)
      )
    },
    renew: ({ id, key, leaseMillis }) =>
      Effect.map(renew([encodeKey(key), encodeKey(id), Math.ceil(leaseMillis)]), hasRow),
    complete: ({ freshMillis, id, keepMillis, key, result }) => {
      const lease = [encodeKey(key), encodeKey(id)]
      const completed = complete([...lease, result, Math.ceil(freshMillis), Math.ceil(keepMillis)])
      return swept(Effect.map(
        Effect.flatMap(completed, (rows) => hasRow(rows) ? Effect.succeed(rows) : wasCompleted(lease)),
        hasRow
      ))
    },
    release: ({ id, key }) => swept(Effect.map(release([encodeKey(key), encodeKey(id)]), hasRow)),
    purge: ({ by, hash }) => Effect.map(purge[by]([encodeKey(hash)]), (rows) => rows.length)
  }
}

// The statement has changed no field that it decides by, so its decision shows in the row.
const claimedIn = (row: Row, id: string, following: number): Claimed | undefined => {
  const [generation, ends, done, fresh, kept, seen] = ["generation", "ends", "done", "fresh", "kept", "seen"]
    .map((column) => Number(row[column]))
  const { result } = row
  if (generation === undefined || ends === undefined || done === undefined) return undefined
  if (fresh === undefined || kept === undefined || seen === undefined || typeof result !== "string") return undefined
  if (![generation, ends, done, fresh, kept, seen].every(Number.isSafeInteger)) return undefined
  if (fresh > seen || (following >= 0 && done >= following && kept > seen)) {
    return { _tag: "Result", generation: done, result, freshMillis: Math.max(0, fresh - seen) }
  }
  return row["id"] === id ? { _tag: "Lead", generation } : { _tag: "Follow", generation, leaseMillis: ends - seen }
}
