/** Which workers live, what they hold, and which requests may have killed one. */
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { State, Waiting } from "../../Batch.ts"
import { isSpent } from "./batches.ts"
import { type Db, numberOf, optionalNumber } from "./db.ts"

/** A worker without a sign of life for this long counts as dead. */
export const silentMillis = 10_000

export interface LiveWorker {
  readonly worker: string
  readonly slots: number
  readonly beatAt: number
  readonly waiting: Waiting | undefined
}

/** Says that a worker lives, how many requests it holds of each batch, and what it waits for. */
export const beat = (
  db: Db,
  { held, slots, waiting, worker }: {
    readonly worker: string
    readonly slots: number
    readonly waiting: Waiting | undefined
    readonly held: ReadonlyArray<{ readonly batch: number; readonly held: number }>
  }
): Effect.Effect<void, SqlError> => {
  const { now, rows, sql } = db
  const progress: Effect.Effect<unknown, SqlError> = held.length === 0 ? Effect.void : sql`
    insert into sluice_batch_progress (batch, worker, held, beat_at)
    select r.batch${sql.literal(db.isSqlite ? "" : "::int")}, ${worker}, r.held, ${now}
    from ${rows(held, { batch: "bigint", held: "bigint" })}
    where exists (select 1 from sluice_batch b where b.batch = r.batch) order by r.batch
    on conflict (batch, worker) do update set held = excluded.held, beat_at = excluded.beat_at`
  const self = sql`
    insert into sluice_batch_worker (worker, slots, beat_at, waits_for, waits_until)
    values (${worker}, ${slots}, ${now}, ${waiting?.for ?? null}, ${waiting?.until ?? null})
    on conflict (worker) do update set slots = excluded.slots, beat_at = excluded.beat_at,
      waits_for = excluded.waits_for, waits_until = excluded.waits_until`
  // Write what it holds first, so that a reader of the beat also reads what was held then.
  return Effect.asVoid(Effect.andThen(progress, self))
}

export const leave = ({ sql }: Db, worker: string): Effect.Effect<unknown, SqlError> =>
  sql`delete from sluice_batch_worker where worker = ${worker}`

export const live = ({ now, sql }: Db): Effect.Effect<ReadonlyArray<LiveWorker>, SqlError> =>
  Effect.map(
    sql<{ readonly [column: string]: unknown }>`
      select worker, slots, beat_at, waits_for, waits_until from sluice_batch_worker
      where beat_at > ${now} - ${sql.literal(String(silentMillis))} order by worker`,
    (rows) =>
      rows.map((row) => ({
        worker: String(row["worker"]),
        slots: numberOf(row["slots"]),
        beatAt: numberOf(row["beat_at"]),
        waiting: typeof row["waits_for"] === "string"
          ? { for: row["waits_for"], until: optionalNumber(row["waits_until"]) }
          : undefined
      }))
  )

/** How many requests of a batch the workers said they hold. */
export const heldOf = ({ sql }: Db, batch: number): Effect.Effect<ReadonlyMap<string, number>, SqlError> =>
  Effect.map(
    sql<{ readonly worker: string; readonly held: unknown }>`
      select worker, held from sluice_batch_progress where batch = ${batch} and held > 0`,
    (rows) => new Map(rows.map(({ held, worker }) => [worker, numberOf(held)]))
  )

/** Forgets workers that died more than a day ago. */
export const forgetDead = ({ now, sql }: Db): Effect.Effect<unknown, SqlError> =>
  sql`delete from sluice_batch_worker where beat_at < ${now} - 86400000`

export interface HeldState {
  readonly batch: number
  readonly run: number
  readonly state: State
  readonly interrupts: boolean
  /** Its budget is spent. */
  readonly isSpent: boolean
}

export const statesOf = (
  { sql }: Db,
  batches: ReadonlyArray<number>
): Effect.Effect<ReadonlyArray<HeldState>, SqlError> =>
  Effect.map(
    sql<{
      readonly batch: unknown
      readonly run: unknown
      readonly state: State
      readonly interrupts: unknown
      readonly cap_micros: unknown
      readonly micros: unknown
    }>`
      select b.batch, b.run, b.state, b.interrupts, b.cap_micros,
        (select sum(p.micros) from sluice_batch_progress p where p.batch = b.batch and b.cap_micros is not null) as micros
      from sluice_batch b where ${sql.in("batch", batches)}`,
    (rows) =>
      rows.map(({ batch, cap_micros, interrupts, micros, run, state }) => ({
        batch: numberOf(batch),
        run: numberOf(run),
        state,
        interrupts: numberOf(interrupts) === 1,
        isSpent: isSpent({ capMicros: optionalNumber(cap_micros), micros: numberOf(micros ?? 0) })
      }))
  )

/** A request by its place in its batch. */
export interface Place {
  readonly batch: number
  readonly seq: number
}

/** Counts that requests are about to be asked, before they are. Returns how often each was, with this time. */
export const suspect = (
  db: Db,
  requests: ReadonlyArray<Place>
): Effect.Effect<ReadonlyArray<number>, SqlError> =>
  Effect.map(
    db.sql<{ readonly asked: unknown }>`
      insert into sluice_batch_suspect (batch, seq, asked)
      select r.batch${db.sql.literal(db.isSqlite ? "" : "::int")}, r.seq, 1
      from ${db.rows(requests, { batch: "bigint", seq: "bigint" })} where true order by r.batch, r.seq
      on conflict (batch, seq) do update set asked = sluice_batch_suspect.asked + 1 returning asked`,
    (rows) => rows.map(({ asked }) => numberOf(asked))
  )

/** Takes back one time that requests were asked: their calls ended without a result, or were not made. */
export const clear = (db: Db, requests: ReadonlyArray<Place>): Effect.Effect<unknown, SqlError> =>
  db.sql`update sluice_batch_suspect set asked = asked - 1 from ${
    db.rows(requests, { batch: "bigint", seq: "bigint" })
  } where sluice_batch_suspect.batch = r.batch and sluice_batch_suspect.seq = r.seq`

/** The requests of a range that were asked before. */
export const suspects = (
  { sql }: Db,
  { batch, from, to }: { readonly batch: number; readonly from: number; readonly to: number }
): Effect.Effect<ReadonlySet<number>, SqlError> =>
  Effect.map(
    sql<{ readonly seq: unknown }>`
      select seq from sluice_batch_suspect where batch = ${batch} and seq >= ${from} and seq < ${to} and asked > 0`,
    (rows) => new Set(rows.map(({ seq }) => numberOf(seq)))
  )
