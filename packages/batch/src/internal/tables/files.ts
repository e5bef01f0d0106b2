/** Files of requests. */
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Fragment } from "effect/sql/Statement"
import type { File, Problem } from "../../Files.ts"
import { removedRun, type Row } from "./batches.ts"
import { type Db, numberOf, optionalNumber, optionalText } from "./db.ts"
import { isConflict, type Item, itemRows } from "./items.ts"

export interface FileRow extends File {
  /** The requests of a file have this number below zero as their batch. For a file of results, the number of the batch. */
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
  results: partOf(row),
  createdAt: numberOf(row["created_at"]),
  expiresAt: optionalNumber(row["expires_at"])
})

type Results = NonNullable<File["results"]>

/** Files of one time go by their part: uploads are 0. */
const parts = { output: 1, error: 2 } as const

const partOf = (row: { readonly [column: string]: unknown }): Results | undefined => {
  const part = numberOf(row["part"])
  return part === 0 ? undefined : { batch: String(row["batch"]), kind: part === parts.output ? "output" : "error" }
}

/** Where a file is in a list. */
const placeOf = ({ createdAt, file, results }: FileRow) =>
  [createdAt, results === undefined ? 0 : parts[results.kind], file] as const

const read = ({ sql }: Db, from: Fragment): Effect.Effect<ReadonlyArray<FileRow>, SqlError> =>
  Effect.map(sql<{ readonly [column: string]: unknown }>`select * from (${from}) as f`, (rows) => rows.map(toRow))

/** Files that were uploaded whole and have not expired. */
const uploads = ({ now, sql }: Db): Fragment =>
  sql`select 0 as part, null as batch, file, id, owner, purpose, name, bytes, lines, url, problems, created_at, expires_at
    from sluice_batch_file where lines >= 0 and expires_at > ${now}`

/** The files of ended batches that have lines. They are made from the results when they are read. */
const outputs = ({ sql }: Db, kind: Results["kind"], which: Fragment): Fragment =>
  sql`select ${sql.literal(String(parts[kind]))} as part, r.id as batch, r.batch as file, ${
    sql.literal(`'file-${kind}-' || r.id`)
  } as id, r.owner, 'batch_output' as purpose, ${
    sql.literal(`r.id || '_${kind}.jsonl'`)
  } as name, 0 as bytes, r.lines, null as url, '[]' as problems, r.ended_at as created_at, null as expires_at
    from (
      select b.batch, b.id, b.owner, b.ended_at, (
        select sum(${sql.literal(kind === "output" ? "p.ok" : "p.failed + p.marked")})
        from sluice_batch_progress p where p.batch = b.batch
      ) as lines
      from sluice_batch b where b.ended_at is not null and b.run <> ${sql.literal(String(removedRun))} and ${
    removed(sql, kind)
  } = 0 and ${which}
    ) as r where r.lines > 0`

const removed = (sql: Db["sql"], kind: Results["kind"]): Fragment => sql.literal(`${kind}_removed`)

/** The bytes of all uploads of an owner. */
export const bytesOf = (db: Db, owner: string): Effect.Effect<number, SqlError> =>
  Effect.map(
    db.sql<{ readonly bytes: unknown }>`select sum(bytes) as bytes from (${uploads(db)} and owner = ${owner}) as f`,
    ([sum]) => numberOf(sum?.bytes ?? 0)
  )

export const findUpload = (db: Db, id: string): Effect.Effect<FileRow | undefined, SqlError> =>
  Effect.map(read(db, db.sql`${uploads(db)} and id = ${id}`), ([file]) => file)

export const find = (db: Db, id: string): Effect.Effect<FileRow | undefined, SqlError> => {
  const [, kind, batch] = /^file-(output|error)-(.+)$/s.exec(id) ?? []
  return batch === undefined || (kind !== "output" && kind !== "error")
    ? findUpload(db, id)
    : Effect.map(read(db, outputs(db, kind, db.sql`b.id = ${batch}`)), ([file]) => file)
}

export const list = (db: Db, { after, limit, order, owner, purpose }: {
  readonly owner: string | undefined
  readonly purpose: string | undefined
  readonly after: FileRow | undefined
  readonly order: "asc" | "desc"
  readonly limit: number
}): Effect.Effect<ReadonlyArray<FileRow>, SqlError> => {
  const { sql } = db
  const direction = sql.literal(order)
  const conditions = [
    sql`1 = 1`,
    ...(owner === undefined ? [] : [sql`owner = ${owner}`]),
    ...(purpose === undefined ? [] : [sql`purpose = ${purpose}`]),
    ...(after === undefined ? [] : [
      sql`(created_at, part, file) ${sql.literal(order === "desc" ? "<" : ">")} (${
        sql.literal(placeOf(after).join(", "))
      })`
    ])
  ]
  const all = sql`${uploads(db)} union all ${outputs(db, "output", sql`1 = 1`)} union all ${
    outputs(db, "error", sql`1 = 1`)
  }`
  return read(
    db,
    sql`select * from (${all}) as a where ${
      sql.and(conditions)
    } order by created_at ${direction}, part ${direction}, file ${direction} limit ${limit}`
  )
}

/** Marks a file of results as removed, unless its batch was started again. */
export const removeResults = ({ sql }: Db, batch: Pick<Row, "batch" | "run">, kind: Results["kind"]) =>
  sql`update sluice_batch set ${removed(sql, kind)} = 1
    where batch = ${batch.batch} and run = ${batch.run} and ended_at is not null`

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

/** Lets a file expire a time after it was created. */
export const expireAfter = ({ sql }: Db, file: number, millis: number): Effect.Effect<unknown, SqlError> =>
  sql`update sluice_batch_file set expires_at = created_at + ${
    sql.literal(String(Math.round(millis)))
  } where file = ${file}`

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
