/** Results, and what they add to the progress of a worker. */
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { isEnded, type Kind, type Result, type State } from "../../Batch.ts"
import { toStorable } from "../text.ts"
import { keep, type Row } from "./batches.ts"
import { type Db, numberOf } from "./db.ts"

export interface NewResult {
  readonly batch: number
  readonly seq: number
  readonly kind: Kind
  readonly body: string
  readonly inputTokens: number
  readonly outputTokens: number
  readonly micros: number
}

const columns = {
  batch: "bigint",
  seq: "bigint",
  kind: "text",
  body: "text",
  input_tokens: "bigint",
  output_tokens: "bigint",
  micros: "bigint"
} as const

/** Kinds of results that say why a request has no answer. */
export const marks: ReadonlyArray<Kind> = ["cancelled", "expired", "capped"]

const listOfMarks = `(${marks.map((kind) => `'${kind}'`).join(", ")})`

const toRecord = ({ batch, body, inputTokens, kind, micros, outputTokens, seq }: NewResult) => ({
  batch,
  seq,
  kind,
  body: toStorable(body),
  input_tokens: toCount(inputTokens, maxInteger),
  output_tokens: toCount(outputTokens, maxInteger),
  micros: toCount(micros)
})

/** The database would refuse the whole group for one invalid number, and the writer would repeat it without end. */
const toCount = (value: number, most = maxMicros): number =>
  Number.isNaN(value) ? 0 : Math.min(most, Math.max(0, Math.round(value)))

/** Of the type `integer`. */
const maxInteger = 2 ** 31 - 1

/** A million dollars. The sum of a batch is a number that can be read. */
const maxMicros = 1e12

/**
 * Stores results and adds them to the progress of a worker, at once. The first answer to a request stays; only an `ok` replaces
 * a mark, since it was paid.
 */
export const add = (db: Db, worker: string, results: ReadonlyArray<NewResult>): Effect.Effect<void, SqlError> => {
  // One statement may not hold the same row twice. Writers take rows in one order, or they lock each other out.
  const rows = distinct(results).map(toRecord).sort((one, other) => one.batch - other.batch || one.seq - other.seq)
  return Effect.asVoid(db.isSqlite ? addOnSqlite(db, worker, rows) : addOnPostgres(db, worker, rows))
}

const distinct = (results: ReadonlyArray<NewResult>): ReadonlyArray<NewResult> => {
  const byRow = new Map<string, NewResult>()
  for (const result of results) {
    const row = `${result.batch}/${result.seq}`
    const known = byRow.get(row)
    if (known === undefined || (known.kind !== "ok" && result.kind === "ok")) byRow.set(row, result)
  }
  return Array.from(byRow.values())
}

type Record = ReturnType<typeof toRecord>

const addToProgress = `on conflict (batch, worker) do update set
  ok = sluice_batch_progress.ok + excluded.ok, failed = sluice_batch_progress.failed + excluded.failed,
  marked = sluice_batch_progress.marked + excluded.marked,
  input_tokens = sluice_batch_progress.input_tokens + excluded.input_tokens,
  output_tokens = sluice_batch_progress.output_tokens + excluded.output_tokens,
  micros = sluice_batch_progress.micros + excluded.micros`

const addOnPostgres = ({ now, rows, sql }: Db, worker: string, records: ReadonlyArray<Record>) =>
  sql`with added as (
      insert into sluice_batch_result (batch, seq, kind, body, input_tokens, output_tokens, micros, at, xid)
      select r.batch::int, r.seq, r.kind, r.body, r.input_tokens, r.output_tokens, r.micros, ${now}, pg_current_xact_id()
      from ${rows(records, columns)} where ${isKept(sql)} order by r.batch, r.seq
      on conflict (batch, seq) do update set kind = excluded.kind, body = excluded.body, input_tokens = excluded.input_tokens,
        output_tokens = excluded.output_tokens, micros = excluded.micros, at = excluded.at, xid = excluded.xid
      where sluice_batch_result.kind in ${sql.literal(listOfMarks)} and excluded.kind = 'ok'
      returning batch, kind, input_tokens, output_tokens, micros, xmax <> 0 as replaced
    )
    insert into sluice_batch_progress (batch, worker, ok, failed, marked, input_tokens, output_tokens, micros, max_micros)
    select batch, ${worker}::text, count(*) filter (where kind = 'ok'),
      count(*) filter (where kind <> 'ok' and kind not in ${sql.literal(listOfMarks)}),
      count(*) filter (where kind in ${sql.literal(listOfMarks)}) - count(*) filter (where replaced),
      sum(input_tokens), sum(output_tokens), sum(micros), max(micros)
    from added group by batch
    ${sql.literal(addToProgress)}, max_micros = greatest(sluice_batch_progress.max_micros, excluded.max_micros)`

const addOnSqlite = (db: Db, worker: string, records: ReadonlyArray<Record>) => {
  const { now, rows, sql } = db
  return sql.withTransaction(Effect.gen(function*() {
    // A transaction of SQLite has the database for itself, so what is read here holds until its end.
    const before = yield* sql<{ readonly batch: number; readonly seq: number; readonly kind: Kind }>`
      select s.batch as batch, s.seq as seq, s.kind as kind from ${
      rows(records.map(({ batch, seq }) => ({ batch, seq })), { batch: "bigint", seq: "bigint" })
    }
      join sluice_batch_result s on s.batch = r.batch and s.seq = r.seq`
    const kinds = new Map(before.map(({ batch, kind, seq }) => [`${batch}/${seq}`, kind]))
    const added = records.filter(({ batch, kind, seq }) => {
      const known = kinds.get(`${batch}/${seq}`)
      return known === undefined || (isMark(known) && kind === "ok")
    })
    if (added.length === 0) return
    const stored = yield* sql<{ readonly batch: number }>`
      insert into sluice_batch_result (batch, seq, kind, body, input_tokens, output_tokens, micros, at, xid)
      select r.batch, r.seq, r.kind, r.body, r.input_tokens, r.output_tokens, r.micros, ${now},
        (select coalesce(max(xid), 0) + 1 from sluice_batch_result where batch = r.batch)
      from ${rows(added, columns)} where ${isKept(sql)}
      on conflict (batch, seq) do update set kind = excluded.kind, body = excluded.body, input_tokens = excluded.input_tokens,
        output_tokens = excluded.output_tokens, micros = excluded.micros, at = excluded.at, xid = excluded.xid returning batch`
    const kept = new Set(stored.map(({ batch }) => batch))
    for (const [batch, of] of Map.groupBy(added, ({ batch }) => batch)) {
      if (!kept.has(batch)) continue
      const replaced = of.filter(({ seq }) => kinds.has(`${batch}/${seq}`)).length
      const sum = (pick: (record: Record) => number) => of.reduce((sum, record) => sum + pick(record), 0)
      const largest = of.reduce((largest, { micros }) => Math.max(largest, micros), 0)
      yield* sql`
        insert into sluice_batch_progress (batch, worker, ok, failed, marked, input_tokens, output_tokens, micros, max_micros)
        values (${batch}, ${worker}, ${sum(({ kind }) => kind === "ok" ? 1 : 0)},
          ${sum(({ kind }) => kind !== "ok" && !isMark(kind) ? 1 : 0)},
          ${sum(({ kind }) => isMark(kind) ? 1 : 0) - replaced},
          ${sum((record) => record.input_tokens)}, ${sum((record) => record.output_tokens)},
          ${sum(({ micros }) => micros)}, ${largest})
        ${sql.literal(addToProgress)}, max_micros = max(sluice_batch_progress.max_micros, excluded.max_micros)`
    }
  }))
}

/** An answer that comes after its batch was removed would never be removed again. */
const isKept = (sql: Db["sql"]) => sql`exists (select 1 from sluice_batch b where b.batch = r.batch)`

const isMark = (kind: Kind): boolean => marks.includes(kind)

/** Adds a cost without a result: an attempt that was paid and did not answer. */
export const spend = (
  { isSqlite, sql }: Db,
  worker: string,
  batch: number,
  micros: number
): Effect.Effect<unknown, SqlError> =>
  sql`insert into sluice_batch_progress (batch, worker, micros)
    select batch, ${worker}, ${toCount(micros)}${
    sql.literal(isSqlite ? "" : "::bigint")
  } from sluice_batch where batch = ${batch}
    on conflict (batch, worker) do update set micros = sluice_batch_progress.micros + excluded.micros`

/** Results in one order, after a cursor: at most `rows`, and not many more `bytes`. */
export const page = (
  db: Db,
  batch: { readonly batch: number; readonly items: number; readonly state: State },
  order: "input" | "completion",
  after: string | undefined,
  atMost: { readonly rows: number; readonly bytes: number }
): Effect.Effect<ReadonlyArray<Result>, SqlError> => {
  const { isSqlite, sql } = db
  const [first = "-1", second = "-1"] = after?.split(":") ?? []
  const inOrder = sql.literal(order === "input" ? "seq" : "xid, seq")
  const isAfter = order === "input"
    ? sql`seq > ${numberOf(first)}`
    // Rows of a transaction that still runs may come before rows that are already visible. They are awaited. All rows of a batch that has
    // ended are visible, and it does not wait for transactions of others.
    : isSqlite
    ? sql`(xid, seq) > (${numberOf(first)}, ${numberOf(second)})`
    : sql`(xid, seq) > (${first === "-1" ? "0" : first}::text::xid8, ${numberOf(second)}::bigint)
        ${isEnded(batch.state) ? sql`` : sql`and xid < pg_snapshot_xmin(pg_current_snapshot())`}`
  return Effect.map(
    sql<{ readonly [column: string]: unknown }>`
      select s.seq, s.kind, s.body, s.input_tokens, s.output_tokens, s.micros, s.at, ${
      sql.literal(isSqlite ? "s.xid" : "s.xid::text")
    } as xid,
        i.key as key
      from (
        select seq, xid, sum(bytes) over (order by ${inOrder}) - bytes as before from (
          select seq, xid, octet_length(body) as bytes from sluice_batch_result
          where batch = ${batch.batch} and ${isAfter} order by ${inOrder} limit ${sql.literal(String(atMost.rows))}
        ) as next
      ) as page
      join sluice_batch_result s on s.batch = ${batch.batch} and s.seq = page.seq
      join sluice_batch_item i on i.batch = ${batch.items} and i.seq = s.seq
      where page.before < ${sql.literal(String(atMost.bytes))} order by ${
      sql.literal(order === "input" ? "page.seq" : "page.xid, page.seq")
    }`,
    (rows) =>
      rows.map((row): Result => ({
        seq: numberOf(row["seq"]),
        key: String(row["key"]),
        // Only this package writes the column.
        kind: row["kind"] as Kind,
        body: String(row["body"]),
        inputTokens: numberOf(row["input_tokens"]),
        outputTokens: numberOf(row["output_tokens"]),
        micros: numberOf(row["micros"]),
        at: numberOf(row["at"]),
        cursor: order === "input" ? String(row["seq"]) : `${String(row["xid"])}:${String(row["seq"])}`
      }))
  )
}

/** Few enough that marking does not hold a lock, or SQLite's process, for long. */
export const markedAtOnce = ({ isSqlite }: Db): number => isSqlite ? 5_000 : 50_000

/**
 * Marks requests without a result from one place on, at most `limit`. Returns where the next ones begin: 0 if these were the last. Marks
 * none if the batch is in another state or run by now: a feeder that was frozen would mark those of a retry.
 */
export const mark = (
  db: Db,
  batch: Pick<Row, "batch" | "items" | "run" | "state">,
  kind: Kind,
  { from, limit }: { readonly from: number; readonly limit: number }
): Effect.Effect<number, SqlError> => {
  const { now, sql } = db
  const insert = sql<{ readonly seq: unknown }>`
    insert into sluice_batch_result (batch, seq, kind, body, input_tokens, output_tokens, micros, at, xid)
    select ${sql.literal(String(batch.batch))}, i.seq, ${sql.literal(`'${kind}'`)}, '', 0, 0, 0, ${now}, ${
    sql.literal(
      db.isSqlite
        ? `(select coalesce(max(xid), 0) + 1 from sluice_batch_result where batch = ${batch.batch})`
        : "pg_current_xact_id()"
    )
  }
    from sluice_batch_item i where i.batch = ${batch.items} and i.seq >= ${from} and not exists (
      select 1 from sluice_batch_result s where s.batch = ${batch.batch} and s.seq = i.seq
    ) order by i.seq limit ${sql.literal(String(limit))}
    on conflict (batch, seq) do nothing returning seq`
  return sql.withTransaction(Effect.gen(function*() {
    if (!(yield* keep(db, batch))) return 0
    const marked = yield* insert
    if (marked.length > 0) {
      yield* sql`insert into sluice_batch_progress (batch, worker, marked) values (${batch.batch}, 'feeder', ${marked.length})
        on conflict (batch, worker) do update set marked = sluice_batch_progress.marked + excluded.marked`
    }
    return marked.length < limit ? 0 : marked.reduce((last, { seq }) => Math.max(last, numberOf(seq)), 0) + 1
  }))
}

/**
 * Deletes results of these kinds, at most `limit`, and takes them from the progress. Returns how many. `undefined` if the batch is in
 * another state or run by now: another retry was faster, and its requests would have no result for ever. After failures, the next run has
 * new idempotency keys, since a provider may repeat what it answered to a key.
 */
export const forget = (
  db: Db,
  row: Pick<Row, "batch" | "run" | "state">,
  kinds: ReadonlyArray<Kind>,
  limit: number
): Effect.Effect<number | undefined, SqlError> =>
  db.sql.withTransaction(Effect.gen(function*() {
    const { sql } = db
    const { batch, run } = row
    if (!(yield* keep(db, row))) return undefined
    const gone = yield* sql<{ readonly kind: Kind }>`
      delete from sluice_batch_result where batch = ${batch} and seq in (
        select seq from sluice_batch_result where batch = ${batch} and ${sql.in("kind", kinds)}
        order by seq limit ${sql.literal(String(limit))}
      ) returning kind`
    const marked = gone.filter(({ kind }) => isMark(kind)).length
    if (gone.length > 0) {
      yield* sql`insert into sluice_batch_progress (batch, worker, failed, marked)
        values (${batch}, 'feeder', ${marked - gone.length}, ${-marked})
        on conflict (batch, worker) do update set failed = sluice_batch_progress.failed + excluded.failed,
          marked = sluice_batch_progress.marked + excluded.marked`
      yield* sql`delete from sluice_batch_suspect where batch = ${batch}`
      if (marked < gone.length) yield* sql`update sluice_batch set key_run = ${run + 1} where batch = ${batch}`
    }
    return gone.length
  }))

/**
 * Erases the bodies of the answers, or of all others, from one place on, at most `limit`. The rows stay: a retry and the sums need them.
 * Returns where the next ones begin, 0 if these were the last, and `undefined` if the batch is in another state or run by now.
 */
export const erase = (
  db: Db,
  row: Pick<Row, "batch" | "run" | "state">,
  of: "answers" | "others",
  { from, limit }: { readonly from: number; readonly limit: number }
): Effect.Effect<number | undefined, SqlError> =>
  db.sql.withTransaction(Effect.gen(function*() {
    const { sql } = db
    if (!(yield* keep(db, row))) return undefined
    const erased = yield* sql<{ readonly seq: unknown }>`
      update sluice_batch_result set body = '', at = ${erasedAt} where batch = ${row.batch} and seq in (
        select seq from sluice_batch_result where batch = ${row.batch} and seq >= ${from}
          and kind ${sql.literal(of === "answers" ? "=" : "<>")} 'ok' order by seq limit ${sql.literal(String(limit))}
      ) returning seq`
    return erased.length < limit ? 0 : erased.reduce((last, { seq }) => Math.max(last, numberOf(seq)), 0) + 1
  }))

/** The time of a result that was erased. */
const erasedAt = 0

export const isErased = ({ at }: Result): boolean => at === erasedAt
