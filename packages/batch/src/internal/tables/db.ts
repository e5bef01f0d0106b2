/** What PostgreSQL and SQLite write differently. */
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import type { Fragment } from "effect/sql/Statement"

type ColumnType = "bigint" | "text"

export interface Db {
  readonly sql: SqlClient.SqlClient
  readonly isSqlite: boolean
  /** The time of the database in epoch milliseconds. Clocks of processes may differ. */
  readonly now: Fragment
  /** A list of JSON objects as rows of `r`. */
  readonly rows: (list: ReadonlyArray<object>, columns: { readonly [name: string]: ColumnType }) => Fragment
}

export const make: Effect.Effect<Db, never, SqlClient.SqlClient> = Effect.map(SqlClient.SqlClient, (client) => {
  const sql = client.withoutTransforms()
  const isSqlite = sql.onDialectOrElse({ sqlite: () => true, orElse: () => false })
  return {
    sql,
    isSqlite,
    now: sql.literal(
      isSqlite
        ? "cast(unixepoch('subsec') * 1000 as integer)"
        : "(extract(epoch from clock_timestamp()) * 1000)::bigint"
    ),
    rows: (list, columns) => {
      const json = JSON.stringify(list)
      const names = Object.entries(columns)
      return isSqlite
        ? sql`(select ${
          sql.literal(names.map(([name]) => `value ->> '${name}' as ${name}`).join(", "))
        } from json_each(${json})) as r`
        : sql`json_to_recordset(${json}::text::json) as r(${
          sql.literal(names.map(([name, type]) => `${name} ${type}`).join(", "))
        })`
    }
  }
})

/** How many rows a statement deletes: few enough that it holds no lock, and blocks no process of SQLite, for long. */
export const deletedAtOnce = 10_000

/** Drivers return 64-bit integers as numbers, as `bigint` or as text. All of ours are below 2^53. */
export const numberOf = (value: unknown): number => Number(value)

export const optionalText = (value: unknown): string | undefined => typeof value === "string" ? value : undefined

export const optionalNumber = (value: unknown): number | undefined =>
  value === null || value === undefined ? undefined : Number(value)
