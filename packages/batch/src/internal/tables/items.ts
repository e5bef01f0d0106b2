/** The requests of a batch. */
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Fragment } from "effect/sql/Statement"
import { type Db, numberOf } from "./db.ts"

/** The limits of a request. */
export const maxKeyLength = 512
export const maxRequestBytes = 2 ** 20

/** How many requests one statement adds: few enough that SQLite does not block the process for long. */
export const atOnce = { rows: 2_000, bytes: 4 * 2 ** 20 }

export interface Item {
  readonly seq: number
  readonly key: string | null
  readonly request: string
}

const columns = { seq: "bigint", key: "text", request: "text" } as const

/** Requests as rows of `r`. PostgreSQL reads arrays in half the time of JSON. An array of nulls alone has no type. */
export const itemRows = (db: Db, items: ReadonlyArray<Item>): Fragment =>
  db.isSqlite ? db.rows(items, columns) : db.sql`(
    select seq, nullif(key, '') as key, request from unnest(
      ${items.map(({ seq }) => seq)}::integer[],
      ${items.map(({ key }) => key ?? "")}::text[],
      ${items.map(({ request }) => request)}::text[]
    ) as given(seq, key, request)
  ) as r`

/** Whether a row exists already, or its key does. */
export const isConflict = ({ reason }: SqlError): boolean =>
  reason._tag === "UniqueViolation" || reason._tag === "ConstraintError"

/** Adds requests. Those that exist stay as they are. */
export const add = (db: Db, batch: number, items: ReadonlyArray<Item>): Effect.Effect<unknown, SqlError> =>
  db.sql`insert into sluice_batch_item (batch, seq, key, request)
    select ${db.sql.literal(String(batch))}, r.seq, r.key, r.request from ${itemRows(db, items)} where true
    on conflict (batch, seq) do nothing`

/** Keeps SQLite from reading the list again for each stored request. */
const ordered = ({ isSqlite, sql }: Db) => sql.literal(isSqlite ? "cross join" : "join")

/** The first of `items` whose key another place has. */
export const taken = (db: Db, batch: number, items: ReadonlyArray<Item>): Effect.Effect<number | undefined, SqlError> =>
  Effect.map(
    db.sql<{ readonly seq: unknown }>`
      select r.seq as seq from ${db.rows(items.map(({ key, seq }) => ({ seq, key })), { seq: "bigint", key: "text" })}
      ${
      ordered(db)
    } sluice_batch_item i on i.batch = ${batch} and i.key = r.key and i.seq <> r.seq order by r.seq limit 1`,
    (rows) => rows[0] === undefined ? undefined : numberOf(rows[0].seq)
  )

/** The first of `items` that is stored with another key or request. */
export const changed = (
  db: Db,
  batch: number,
  items: ReadonlyArray<Item>
): Effect.Effect<number | undefined, SqlError> =>
  Effect.map(
    db.sql<{ readonly seq: unknown }>`
      select r.seq as seq from ${db.rows(items, columns)}
      ${ordered(db)} sluice_batch_item i on i.batch = ${batch} and i.seq = r.seq
      where i.key <> r.key or i.request <> r.request order by r.seq limit 1`,
    (rows) => rows[0] === undefined ? undefined : numberOf(rows[0].seq)
  )

/** How many requests there are, and the bytes of their texts. Counts them, so only once a batch. */
export const count = (
  db: Db,
  batch: number
): Effect.Effect<{ readonly total: number; readonly bytes: number }, SqlError> =>
  Effect.map(
    db.sql<{ readonly total: unknown; readonly bytes: unknown }>`
      select count(*) as total, coalesce(sum(octet_length(request)), 0) as bytes
      from sluice_batch_item where batch = ${batch}`,
    ([row]) => ({ total: numberOf(row?.total ?? 0), bytes: numberOf(row?.bytes ?? 0) })
  )

interface Range {
  readonly batch: number
  readonly items: number
  readonly from: number
  readonly to: number
}

const withoutResult = ({ sql }: Db, batch: number) =>
  sql`not exists (select 1 from sluice_batch_result s where s.batch = ${batch} and s.seq = i.seq)`

/** The requests of a range that have no result. */
export const open = (db: Db, { batch, from, items, to }: Range): Effect.Effect<ReadonlyArray<Item>, SqlError> =>
  Effect.map(
    db.sql<Item>`select i.seq, i.key, i.request from sluice_batch_item i
      where i.batch = ${items} and i.seq >= ${from} and i.seq < ${to} and ${withoutResult(db, batch)} order by i.seq`,
    (rows) => rows.map(({ key, request, seq }) => ({ seq: numberOf(seq), key, request }))
  )

/** The places of the next requests without a result. */
export const next = (
  db: Db,
  { batch, from, items, limit }: {
    readonly batch: number
    readonly items: number
    readonly from: number
    readonly limit: number
  }
): Effect.Effect<ReadonlyArray<number>, SqlError> =>
  Effect.map(
    db.sql<{ readonly seq: unknown }>`select i.seq as seq from sluice_batch_item i
      where i.batch = ${items} and i.seq >= ${from} and ${withoutResult(db, batch)}
      order by i.seq limit ${db.sql.literal(String(limit))}`,
    (rows) => rows.map(({ seq }) => numberOf(seq))
  )
