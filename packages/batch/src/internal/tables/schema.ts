/** The tables of a batch. The engine has its own, for the queue and the cluster. */
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"

// `batch` in the tables is a number, so that an id of 30 characters is not stored with each request. The requests of a file have the
// number of the file, below zero. Times are epoch milliseconds of the database's clock. PostgreSQL pads a number to its size, so columns of a large table go by size.
const statements = (isSqlite: boolean): ReadonlyArray<string> => [
  `create table sluice_batch (
    batch ${isSqlite ? "integer primary key autoincrement" : "integer generated always as identity primary key"},
    id text not null unique, owner text, name text, state text not null, items integer, endpoint text, source text,
    total bigint not null default 0, bytes bigint not null default 0, run integer not null default 0,
    key_run integer not null default 0,
    fed bigint not null default 0, handed bigint not null default 0, base bigint not null default 0,
    priority integer not null default 0, weight integer not null default 1, cap_micros bigint, estimate_micros bigint not null default 0,
    interrupts integer not null default 0, awaits_first integer not null default 0, output_removed integer not null default 0,
    error_removed integer not null default 0, metadata text not null default '{}', error text, rate double precision,
    created_at bigint not null, started_at bigint, expires_at bigint, stopping_at bigint, ended_at bigint
  )`,
  `create index sluice_batch_created on sluice_batch (created_at desc, batch desc)`,
  // Few batches live at a time, and the feeder reads them five times a second.
  `create index sluice_batch_live on sluice_batch (state) where ended_at is null`,
  `create table sluice_batch_item (
    batch integer not null, seq integer not null, key text, request text not null,
    primary key (batch, seq), unique (batch, key)
  )${isSqlite ? " without rowid" : ""}`,
  `create table sluice_batch_result (
    batch integer not null, seq integer not null, input_tokens integer not null, output_tokens integer not null,
    micros bigint not null, at bigint not null, xid ${isSqlite ? "integer" : "xid8"} not null,
    kind text not null, body text not null, primary key (batch, seq)
  )`,
  // The order in which results were committed.
  `create index sluice_batch_result_order on sluice_batch_result (batch, xid, seq)`,
  `create table sluice_batch_file (
    file ${isSqlite ? "integer primary key autoincrement" : "integer generated always as identity primary key"},
    id text not null unique, owner text, purpose text not null, name text not null, bytes bigint not null,
    lines bigint not null, url text, problems text not null, created_at bigint not null, expires_at bigint not null
  )`,
  `create index sluice_batch_file_created on sluice_batch_file (created_at desc, file desc)`,
  // A row for each worker, so that no row is written by all of them.
  `create table sluice_batch_progress (
    batch integer not null, worker text not null,
    ok bigint not null default 0, failed bigint not null default 0, marked bigint not null default 0,
    input_tokens bigint not null default 0, output_tokens bigint not null default 0,
    micros bigint not null default 0, max_micros bigint not null default 0,
    held bigint not null default 0, beat_at bigint not null default 0,
    primary key (batch, worker)
  )`,
  `create table sluice_batch_worker (
    worker text primary key, slots bigint not null, beat_at bigint not null, waits_for text, waits_until bigint
  )`,
  `create table sluice_batch_suspect (
    batch integer not null, seq bigint not null, asked bigint not null, primary key (batch, seq)
  )`
]

/** Makes the tables, in the dialect of the database. */
export const make: Effect.Effect<void, SqlError, SqlClient.SqlClient> = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    Effect.forEach(
      statements(sql.onDialectOrElse({ sqlite: () => true, orElse: () => false })),
      (statement) => sql.unsafe(statement),
      { discard: true }
    )
)
