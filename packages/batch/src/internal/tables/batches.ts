/** Batches and their progress. */
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Fragment } from "effect/sql/Statement"
import type { State } from "../../Batch.ts"
import { type Db, numberOf, optionalNumber, optionalText } from "./db.ts"

export interface NewBatch {
  readonly id: string
  readonly owner: string | undefined
  readonly name: string | undefined
  readonly endpoint: string | undefined
  readonly source: string | undefined
  /** The number of the file whose requests are used. `undefined` for its own. */
  readonly items: number | undefined
  readonly priority: number
  readonly weight: number
  readonly capMicros: number | undefined
  readonly estimateMicros: number
  readonly expiresMillis: number | undefined
  readonly metadata: { readonly [name: string]: string }
  /** It was made by a repeated request, and the first one has not arrived. */
  readonly awaitsFirst: boolean
}

/** A batch with the sums over its workers. */
export interface Row {
  readonly batch: number
  readonly id: string
  readonly owner: string | undefined
  readonly name: string | undefined
  readonly state: State
  readonly items: number
  readonly endpoint: string | undefined
  readonly source: string | undefined
  readonly total: number
  /** Of the requests. */
  readonly bytes: number
  readonly run: number
  /** The run that the last retry of failures started: 0 before one. Its idempotency keys differ from those before. */
  readonly keyRun: number
  readonly fed: number
  readonly handed: number
  readonly base: number
  readonly priority: number
  readonly weight: number
  readonly capMicros: number | undefined
  readonly estimateMicros: number
  readonly interrupts: boolean
  readonly metadata: { readonly [name: string]: string }
  readonly error: string | undefined
  readonly rate: number | undefined
  readonly createdAt: number
  readonly startedAt: number | undefined
  readonly expiresAt: number | undefined
  readonly stoppingAt: number | undefined
  readonly endedAt: number | undefined
  readonly ok: number
  readonly failed: number
  readonly marked: number
  readonly inputTokens: number
  readonly outputTokens: number
  readonly micros: number
  readonly maxMicros: number
  /** The time of the database when it was read. */
  readonly now: number
}

export const answeredOf = ({ failed, marked, ok }: Pick<Row, "failed" | "marked" | "ok">): number =>
  ok + failed + marked

/** Whether the costs that are stored reach the budget. They never fall, so no further call of this run may begin. */
export const isSpent = ({ capMicros, micros }: Pick<Row, "capMicros" | "micros">): boolean =>
  capMicros !== undefined && micros >= capMicros

const toRow = (row: { readonly [column: string]: unknown }): Row => ({
  batch: numberOf(row["batch"]),
  id: String(row["id"]),
  owner: optionalText(row["owner"]),
  name: optionalText(row["name"]),
  // Only this package writes the column.
  state: row["state"] as State,
  items: numberOf(row["items"] ?? row["batch"]),
  endpoint: optionalText(row["endpoint"]),
  source: optionalText(row["source"]),
  total: numberOf(row["total"]),
  bytes: numberOf(row["bytes"]),
  run: numberOf(row["run"]),
  keyRun: numberOf(row["key_run"]),
  fed: numberOf(row["fed"]),
  handed: numberOf(row["handed"]),
  base: numberOf(row["base"]),
  priority: numberOf(row["priority"]),
  weight: numberOf(row["weight"]),
  capMicros: optionalNumber(row["cap_micros"]),
  estimateMicros: numberOf(row["estimate_micros"]),
  interrupts: numberOf(row["interrupts"]) === 1,
  metadata: metadataOf(row["metadata"]),
  error: optionalText(row["error"]),
  rate: optionalNumber(row["rate"]),
  createdAt: numberOf(row["created_at"]),
  startedAt: optionalNumber(row["started_at"]),
  expiresAt: optionalNumber(row["expires_at"]),
  stoppingAt: optionalNumber(row["stopping_at"]),
  endedAt: optionalNumber(row["ended_at"]),
  ok: numberOf(row["ok"] ?? 0),
  failed: numberOf(row["failed"] ?? 0),
  marked: numberOf(row["marked"] ?? 0),
  inputTokens: numberOf(row["input_tokens"] ?? 0),
  outputTokens: numberOf(row["output_tokens"] ?? 0),
  micros: numberOf(row["micros"] ?? 0),
  maxMicros: numberOf(row["max_micros"] ?? 0),
  now: numberOf(row["now"])
})

const metadataOf = (value: unknown): { readonly [name: string]: string } => {
  const parsed: unknown = typeof value === "string" ? JSON.parse(value) : {}
  return typeof parsed === "object" && parsed !== null
    ? Object.fromEntries(Object.entries(parsed).map(([name, value]) => [name, String(value)]))
    : {}
}

/** Reads batches with their progress, the newest first. `which` continues the statement after `from sluice_batch b`. */
export const select = ({ now, sql }: Db, which: Fragment): Effect.Effect<ReadonlyArray<Row>, SqlError> =>
  Effect.map(
    sql<{ readonly [column: string]: unknown }>`
      select b.*, sum(p.ok) as ok, sum(p.failed) as failed, sum(p.marked) as marked, sum(p.input_tokens) as input_tokens,
        sum(p.output_tokens) as output_tokens, sum(p.micros) as micros, max(p.max_micros) as max_micros, ${now} as now
      from sluice_batch b left join sluice_batch_progress p on p.batch = b.batch
      where b.batch in (select b.batch from sluice_batch b ${which})
      group by b.batch order by b.created_at desc, b.batch desc`,
    (rows) => rows.map(toRow)
  )

export const find = (db: Db, id: string): Effect.Effect<Row | undefined, SqlError> =>
  Effect.map(select(db, db.sql`where b.id = ${id}`), (rows) => rows[0])

/**
 * Batches that have not ended: first those that have to end, then those that go first. At most a thousand, or a million small ones would
 * fill the memory. Those that are validated are left out until their time is over.
 */
export const live = (db: Db): Effect.Effect<ReadonlyArray<Row>, SqlError> => {
  const { now, sql } = db
  const isOver = sql`(b.expires_at is not null and b.expires_at <= ${now})`
  return select(
    db,
    sql`where b.ended_at is null and (b.state <> 'validating' or ${isOver})
      order by case when b.state <> 'in_progress' or ${isOver} then 0 else 1 end, b.priority desc, b.created_at, b.batch
      limit ${sql.literal(String(liveAtOnce))}`
  )
}

export const liveAtOnce = 1_000

/** Adds a batch in state `validating`, unless its id exists. Returns whether it was added. */
export const create = ({ now, sql }: Db, batch: NewBatch): Effect.Effect<boolean, SqlError> =>
  Effect.map(
    sql<{ readonly batch: unknown }>`
      insert into sluice_batch (id, owner, name, state, items, endpoint, source, priority, weight, cap_micros, estimate_micros,
        awaits_first, metadata, created_at, expires_at)
      values (${batch.id}, ${batch.owner ?? null}, ${batch.name ?? null}, 'validating', ${batch.items ?? null}, ${
      batch.endpoint ?? null
    },
        ${batch.source ?? null}, ${batch.priority}, ${batch.weight}, ${
      batch.capMicros ?? null
    }, ${batch.estimateMicros},
        ${batch.awaitsFirst ? 1 : 0}, ${textOf(batch.metadata)}, ${now}, ${
      batch.expiresMillis === undefined ? null : sql`${now} + ${sql.literal(String(Math.round(batch.expiresMillis)))}`
    })
      on conflict (id) do nothing returning batch`,
    (rows) => rows.length > 0
  )

/** Equal metadata is equal text, in whatever order a client writes the names. */
const textOf = (metadata: NewBatch["metadata"]): string =>
  JSON.stringify(Object.fromEntries(Object.entries(metadata).toSorted(([one], [other]) => one < other ? -1 : 1)))

/**
 * Returns the id of the newest equal batch of the last ten minutes. A first request takes only one that awaits it, and later first
 * requests make batches of their own. Creates of a file have to wait for each other before.
 */
export const findRepeated = (
  { now, sql }: Db,
  batch: Pick<NewBatch, "endpoint" | "items" | "metadata" | "owner">,
  isFirst: boolean
): Effect.Effect<string | undefined, SqlError> =>
  Effect.map(
    sql<{ readonly id: string }>`
      update sluice_batch set awaits_first = ${sql.literal(isFirst ? "0" : "awaits_first")} where batch = (
        select max(batch) from sluice_batch where created_at > ${now} - 600000 and run <> ${removedRun}
          and items = ${batch.items ?? null} and owner is not distinct from ${batch.owner ?? null}
          and endpoint is not distinct from ${batch.endpoint ?? null} and metadata = ${textOf(batch.metadata)}
          ${sql.literal(isFirst ? "and awaits_first = 1" : "")}
      ) returning id`,
    ([found]) => found?.id
  )

/** Starts a batch that was validated. Returns whether it still was in state `validating`. */
export const start = (
  { now, sql }: Db,
  batch: number,
  { bytes, total }: { readonly total: number; readonly bytes: number }
): Effect.Effect<boolean, SqlError> =>
  Effect.map(
    sql`update sluice_batch set state = 'in_progress', total = ${total}, bytes = ${bytes}, started_at = ${now}
      where batch = ${batch} and state = 'validating' returning batch`,
    (rows) => rows.length > 0
  )

/**
 * Keeps a batch as it is until the end of the transaction. Returns `false` if it has left this state or this run, or was removed.
 */
export const keep = (
  { sql }: Db,
  { batch, run, state }: Pick<Row, "batch" | "run" | "state">
): Effect.Effect<boolean, SqlError> =>
  Effect.map(
    sql`update sluice_batch set run = run where batch = ${batch} and run = ${run} and state = ${state} returning batch`,
    (rows) => rows.length > 0
  )

/** Moves a batch, if it is in one of the states `from`, and in this `run` if one is given. */
export const move = (
  { now, sql }: Db,
  batch: number,
  from: ReadonlyArray<State>,
  to: State,
  options?: {
    readonly interrupts?: boolean | undefined
    readonly error?: string | undefined
    readonly run?: number | undefined
  }
): Effect.Effect<boolean, SqlError> => {
  const isStop = to === "cancelling" || to === "expiring" || to === "capping"
  return Effect.map(
    sql`update sluice_batch set state = ${to}${
      isStop
        // A repeated cancel starts no new wait, and does not take back an interruption.
        ? sql`, stopping_at = coalesce(stopping_at, ${now})${
          options?.interrupts === true ? sql`, interrupts = 1` : sql``
        }`
        : sql`, ended_at = ${now}`
    }${options?.error === undefined ? sql`` : sql`, error = ${options.error}`}
      where batch = ${batch} and ${sql.in("state", from)}${
      options?.run === undefined ? sql`` : sql` and run = ${options.run}`
    } returning batch`,
    (rows) => rows.length > 0
  )
}

/** Records that requests up to `fed` were handed out. Returns `false` if another feeder was first. */
export const feed = (
  { sql }: Db,
  { batch, before, fed, handed, run }: {
    readonly batch: number
    readonly run: number
    readonly before: number
    readonly fed: number
    readonly handed: number
  }
): Effect.Effect<boolean, SqlError> =>
  Effect.map(
    sql`update sluice_batch set fed = ${fed}, handed = ${handed}
      where batch = ${batch} and run = ${run} and fed = ${before} and state = 'in_progress' returning batch`,
    (rows) => rows.length > 0
  )

export const setRate = ({ sql }: Db, batch: number, rate: number): Effect.Effect<unknown, SqlError> =>
  sql`update sluice_batch set rate = ${rate} where batch = ${batch}`

/** Starts an ended batch again, from its first request, if one has no result. */
export const again = (
  { now, sql }: Db,
  { batch, run, state }: Pick<Row, "batch" | "run" | "state">,
  cap: { readonly micros: number; readonly estimate?: number | undefined } | undefined
): Effect.Effect<unknown, SqlError> => {
  // Read by the statement itself: another retry may forget results until it begins.
  const kept = sql`(select coalesce(sum(ok + failed + marked), 0) from sluice_batch_progress where batch = ${batch})`
  return sql`update sluice_batch set state = 'in_progress', run = run + 1, fed = 0, handed = 0, base = ${kept}, rate = null,
      started_at = ${now}, ended_at = null, stopping_at = null, interrupts = 0, expires_at = null, output_removed = 0,
      error_removed = 0${
    cap === undefined ?
      sql`` :
      sql`, cap_micros = ${cap.micros}${cap.estimate === undefined ? sql`` : sql`, estimate_micros = ${cap.estimate}`}`
  }
    where batch = ${batch} and run = ${run} and state = ${state} and total > ${kept}`
}

/** Marks an ended batch as one that is being removed, so that no retry starts it again. Returns whether it had ended. */
const beginRemoval = ({ sql }: Db, batch: number): Effect.Effect<boolean, SqlError> =>
  Effect.map(
    sql`update sluice_batch set run = ${removedRun} where batch = ${batch} and ended_at is not null returning batch`,
    (rows) => rows.length > 0
  )

/** The run of a batch that is being removed. */
export const removedRun = -1

/**
 * Deletes an ended batch, in slices. The batch itself goes last, so that an interrupted removal can be repeated. Returns `false` if it
 * has not ended.
 */
export const remove = (db: Db, batch: number, slice: number): Effect.Effect<boolean, SqlError> => {
  const { sql } = db
  const limit = sql.literal(String(slice))
  const rows = (table: string) =>
    sql`delete from ${sql(table)} where batch = ${batch} and seq in (
      select seq from ${sql(table)} where batch = ${batch} order by seq limit ${limit}
    ) returning seq`.pipe(
      Effect.map((rows) => rows.length),
      Effect.repeat({ while: (deleted) => deleted === slice })
    )
  const all = rows("sluice_batch_result").pipe(
    Effect.andThen(rows("sluice_batch_item")),
    Effect.andThen(sql`delete from sluice_batch_suspect where batch = ${batch}`),
    Effect.andThen(sql`delete from sluice_batch_progress where batch = ${batch}`),
    Effect.andThen(sql`delete from sluice_batch where batch = ${batch}`),
    Effect.as(true)
  )
  return Effect.flatMap(beginRemoval(db, batch), (hasEnded) => hasEnded ? all : Effect.succeed(false))
}
