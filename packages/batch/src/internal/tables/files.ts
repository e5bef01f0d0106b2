/** Files of requests. */
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Fragment } from "effect/sql/Statement"
import type { File, Problem } from "../../Files.ts"
import { type Db, numberOf, optionalText } from "./db.ts"
import { isConflict, type Item, itemRows } from "./items.ts"

export interface FileRow extends File {
  /** The requests of a file have this number below zero as their batch. */
  readonly file: number
  readonly url: string | undefined
}

const toRow = (row: { readonly [column: string]: unknown }): FileRow => ({
  file: numberOf(row["file"]),
  id: String(row["id"]),
  owner: optionalText(row["owner"]),
  purpose: String(row["purpose"]),
  name: String(row["name"]),
  bytes: numberOf(row["bytes"]),
  lines: numberOf(row["lines"]),
  url: optionalText(row["url"]),
  // Only this package writes the column.
  problems: JSON.parse(String(row["problems"])) as ReadonlyArray<Problem>,
  createdAt: numberOf(row["created_at"]),
  expiresAt: numberOf(row["expires_at"])
})

/** Reads files that were uploaded whole and have not expired. */
export const select = ({ now, sql }: Db, which: Fragment): Effect.Effect<ReadonlyArray<FileRow>, SqlError> =>
  Effect.map(
    sql<{ readonly [column: string]: unknown }>`
      select * from sluice_batch_file where lines >= 0 and expires_at > ${now} and ${which}`,
    (rows) => rows.map(toRow)
  )

/** Adds a file that is being uploaded. Returns its number. */
export const begin = (
  { now, sql }: Db,
  file: Pick<FileRow, "id" | "name" | "owner" | "purpose"> & { readonly expiresMillis: number }
): Effect.Effect<number, SqlError> =>
  Effect.map(
    sql<{ readonly file: unknown }>`
      insert into sluice_batch_file (id, owner, purpose, name, bytes, lines, problems, created_at, expires_at)
      values (${file.id}, ${file.owner ?? null}, ${file.purpose}, ${file.name}, 0, -1, '[]', ${now},
        ${now} + ${sql.literal(String(Math.round(file.expiresMillis)))}) returning file`,
    (rows) => numberOf(rows[0]?.file)
  )

export const complete = (
  { sql }: Db,
  file: number,
  { bytes, lines, problems, url }: Pick<FileRow, "bytes" | "lines" | "problems" | "url">
): Effect.Effect<unknown, SqlError> =>
  sql`update sluice_batch_file set bytes = ${bytes}, lines = ${lines}, url = ${url ?? null},
    problems = ${JSON.stringify(problems)} where file = ${file}`

/** Adds lines. Returns the places of those whose key another line has. They are not added. */
export const add = (db: Db, file: number, items: ReadonlyArray<Item>): Effect.Effect<ReadonlySet<number>, SqlError> => {
  const insert = db.sql`insert into sluice_batch_item (batch, seq, key, request)
    select ${db.sql.literal(String(-file))}, r.seq, r.key, r.request from ${itemRows(db, items)} where true`
  // Looking for conflicts costs PostgreSQL a third of the statement, and few files have any. In a transaction of the caller, the
  // second statement needs what is left of it.
  return Effect.as(db.sql.withTransaction(insert), noPlaces).pipe(
    Effect.catchIf(isConflict, () =>
      Effect.map(
        db.sql<{ readonly seq: unknown }>`${insert} order by r.seq on conflict do nothing returning seq`,
        (rows): ReadonlySet<number> => {
          const left = new Set(items.map(({ seq }) => seq))
          for (const { seq } of rows) left.delete(numberOf(seq))
          return left
        }
      ))
  )
}

const noPlaces: ReadonlySet<number> = new Set()

export const page = (
  { sql }: Db,
  file: number,
  after: number,
  atMost: { readonly rows: number; readonly bytes: number }
): Effect.Effect<ReadonlyArray<{ readonly seq: number; readonly request: string }>, SqlError> =>
  Effect.map(
    sql<{ readonly seq: unknown; readonly request: string }>`
      select i.seq, i.request from (
        select seq, sum(bytes) over (order by seq) - bytes as before from (
          select seq, octet_length(request) as bytes from sluice_batch_item where batch = ${-file} and seq > ${after}
          order by seq limit ${sql.literal(String(atMost.rows))}
        ) as next
      ) as page
      join sluice_batch_item i on i.batch = ${-file} and i.seq = page.seq
      where page.before < ${sql.literal(String(atMost.bytes))} order by i.seq`,
    (rows) => rows.map(({ request, seq }) => ({ seq: numberOf(seq), request }))
  )

/** Keeps a file until the end of the transaction. Returns `false` if it has expired or was deleted. */
export const keep = ({ now, sql }: Db, file: number): Effect.Effect<boolean, SqlError> =>
  Effect.map(
    sql`update sluice_batch_file set lines = lines where file = ${file} and expires_at > ${now} returning file`,
    (rows) => rows.length > 0
  )

/** Lets a file expire now, unless a batch that has not ended uses it. Returns whether it did. */
export const hide = ({ now, sql }: Db, file: number): Effect.Effect<boolean, SqlError> =>
  Effect.map(
    sql`update sluice_batch_file set expires_at = ${now} where file = ${file} and not exists (
      select 1 from sluice_batch where items = ${-file} and ended_at is null
    ) returning file`,
    (rows) => rows.length > 0
  )

/** Deletes a file with its lines, in slices. The results of a batch need them, so they stay until it is removed. */
export const remove = ({ sql }: Db, file: number, slice: number): Effect.Effect<void, SqlError> =>
  Effect.flatMap(
    // A batch that is being submitted keeps the file until it is there. One that comes later finds that the file has expired.
    sql.withTransaction(Effect.andThen(
      sql`update sluice_batch_file set lines = lines where file = ${file}`,
      sql`select 1 as used from sluice_batch where items = ${-file} limit 1`
    )),
    (used): Effect.Effect<void, SqlError> =>
      used.length > 0
        ? Effect.void
        : sql`delete from sluice_batch_item where batch = ${-file} and seq in (
            select seq from sluice_batch_item where batch = ${-file} order by seq limit ${sql.literal(String(slice))}
          ) returning seq`.pipe(
          Effect.map((rows) => rows.length),
          Effect.repeat({ while: (deleted) => deleted === slice }),
          Effect.andThen(sql`delete from sluice_batch_file where file = ${file}`),
          Effect.asVoid
        )
  )

/** Files whose time is over, and uploads that were never finished. Those of a batch stay, and must not hide the others. */
export const expired = ({ now, sql }: Db): Effect.Effect<ReadonlyArray<number>, SqlError> =>
  Effect.map(
    sql<{ readonly file: unknown }>`select file from sluice_batch_file
      where (expires_at <= ${now} or (lines < 0 and created_at < ${now} - 86400000))
        and not exists (select 1 from sluice_batch where items = -file) order by file limit 100`,
    (rows) => rows.map(({ file }) => numberOf(file))
  )
