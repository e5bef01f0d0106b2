import * as Effect from "effect/Effect"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Migrations from "../Migrations.ts"
import { circuitFunctions } from "./circuit/functions.ts"
import { quotaFunctions } from "./quota/functions.ts"

// Names of columns avoid the keywords of both databases. Numbers are whole. Times are milliseconds since 1970.

/**
 * One row for each circuit. `key`, `moved_by` and the ids in `leases` are encoded, see `StoreCodec`.
 *
 * | column | value |
 * |---|---|
 * | `target` | the requested target as JSON; only the client reads it |
 * | `since`, `ends`, `moved_by` | the start and end of the control, and the id of the transition |
 * | `state`, `counts` | `Open`, `Closed` or `Forced`; whether outcomes of calls that are not probes count: 1 or 0 |
 * | `leased`, `leases` | when a lease was last granted; a JSON object of ids and the ends of their leases |
 * | `expires` | when the row may be deleted |
 */
const circuits = `
  key text NOT NULL PRIMARY KEY,
  generation bigint NOT NULL,
  since bigint NOT NULL,
  ends bigint NOT NULL,
  moved_by text NOT NULL,
  target text NOT NULL,
  state text NOT NULL,
  counts bigint NOT NULL,
  leased bigint NOT NULL,
  leases text NOT NULL,
  expires bigint NOT NULL`

/**
 * One row for each circuit and window. Evidence of an older generation than the circuit's is void, so a transition writes nothing here.
 * `wheel` is a list of four numbers for each bucket, oldest first: its start, calls, failures in twentieths, slow calls.
 */
const evidence = (numbers: string) => `
  key text NOT NULL,
  layout text NOT NULL,
  generation bigint NOT NULL,
  ring text NOT NULL,
  wheel ${numbers} NOT NULL,
  expires bigint NOT NULL,
  PRIMARY KEY (key, layout)`

/**
 * One row for each target of quotas. Its lock makes the verbs of a target run one after the other. `latest` is the latest time that was
 * used, and `behind` by how much the clock was set back since. `learned` is a JSON object: the limit (-1: none), when it was learned, and
 * the end of the rest, by dimension.
 */
const quotas = `
  target text NOT NULL PRIMARY KEY,
  latest bigint NOT NULL,
  behind bigint NOT NULL,
  learned text NOT NULL,
  expires bigint NOT NULL`

/**
 * One row for each sum. `name` is a JSON array of scope, dimension, window (-1: it never ends) and quantum. `buckets` are the amounts from
 * the bucket `oldest` on, whose start is `oldest` times the quantum.
 */
const sums = (numbers: string) => `
  target text NOT NULL,
  name text NOT NULL,
  span double precision NOT NULL,
  quantum double precision NOT NULL,
  used bigint NOT NULL,
  oldest bigint NOT NULL,
  buckets ${numbers} NOT NULL,
  expires bigint NOT NULL,
  PRIMARY KEY (target, name)`

/** One row for each id that is live: the end of its lease, and what it holds. */
const holds = (json: string) => `
  target text NOT NULL,
  id text NOT NULL,
  ends bigint NOT NULL,
  amounts ${json} NOT NULL,
  PRIMARY KEY (target, id)`

const quotaIndexes = [
  "CREATE INDEX sluice_quotas_expires ON sluice_quotas (expires)",
  "CREATE INDEX sluice_quota_sums_expires ON sluice_quota_sums (target, expires)",
  "CREATE INDEX sluice_quota_holds_ends ON sluice_quota_holds (target, ends)"
]

const quotaTables = {
  pg: [
    `CREATE TABLE sluice_quotas (${byBytes(quotas)}) WITH (fillfactor = 50)`,
    `CREATE TABLE sluice_quota_sums (${byBytes(sums("bigint[]"))}) WITH (fillfactor = 50)`,
    `CREATE TABLE sluice_quota_holds (${byBytes(holds("jsonb"))})`,
    ...quotaIndexes
  ],
  sqlite: [
    `CREATE TABLE sluice_quotas (${quotas})`,
    `CREATE TABLE sluice_quota_sums (${sums("text")})`,
    `CREATE TABLE sluice_quota_holds (${holds("text")})`,
    ...quotaIndexes
  ]
}

/**
 * One row for each key of a flight. `key`, `operation`, `tenant` and `id` are encoded hashes and ids.
 *
 * | column | value |
 * |---|---|
 * | `generation`, `id`, `ends` | the last lease: its generation, its holder, and its end. `ends` is 0 if it was completed or released |
 * | `followed` | whether others follow the lease: 1 or 0 |
 * | `done`, `result`, `fresh`, `kept` | the last result: its generation, its text, and until when it is for all, and for followers |
 * | `seen` | the time of the last request, to notice a clock that was set back |
 */
const flights = `
  key text NOT NULL PRIMARY KEY,
  operation text NOT NULL,
  tenant text NOT NULL,
  id text NOT NULL,
  generation bigint NOT NULL,
  ends bigint NOT NULL,
  followed bigint NOT NULL,
  done bigint NOT NULL,
  result text NOT NULL,
  fresh bigint NOT NULL,
  kept bigint NOT NULL,
  seen bigint NOT NULL,
  expires bigint NOT NULL`

const flightIndexes = [
  "CREATE INDEX sluice_flights_expires ON sluice_flights (expires)",
  "CREATE INDEX sluice_flights_operation ON sluice_flights (operation)",
  "CREATE INDEX sluice_flights_tenant ON sluice_flights (tenant)"
]

// A lost entry costs another call, which is less than the cost of logging each result.
const flightTables = {
  pg: [`CREATE UNLOGGED TABLE sluice_flights (${byBytes(flights)}) WITH (fillfactor = 70)`, ...flightIndexes],
  sqlite: [`CREATE TABLE sluice_flights (${flights})`, ...flightIndexes]
}

const indexes = [
  "CREATE INDEX sluice_circuits_expires ON sluice_circuits (expires)",
  "CREATE INDEX sluice_circuit_evidence_expires ON sluice_circuit_evidence (expires)"
]

// Rows are updated often, in columns without an index. Room on their pages lets Postgres do so without new index entries. Evidence
// is lost when the server crashes, and not replicated: it is worth less than the cost of logging each outcome. `key` and the like
// are compared by bytes in any database.
const postgres = [
  `CREATE TABLE sluice_circuits (${byBytes(circuits)}) WITH (fillfactor = 70)`,
  `CREATE UNLOGGED TABLE sluice_circuit_evidence (${byBytes(evidence("bigint[]"))}) WITH (fillfactor = 50)`,
  ...indexes
]

const sqlite = [
  `CREATE TABLE sluice_circuits (${circuits})`,
  `CREATE TABLE sluice_circuit_evidence (${evidence("text")})`,
  ...indexes
]

function byBytes(columns: string): string {
  return columns.replaceAll(/\b(key|layout|operation|target|tenant|name|id) text\b/g, "$1 text COLLATE \"C\"")
}

const runAll = (statements: ReadonlyArray<string>): Effect.Effect<void, SqlError, SqlClient> =>
  SqlClient.use((sql) => Effect.forEach(statements, (statement) => sql.unsafe(statement), { discard: true }))

const onDialect = (statements: { readonly pg: ReadonlyArray<string>; readonly sqlite: ReadonlyArray<string> }) =>
  SqlClient.use((sql) =>
    sql.onDialectOrElse({ pg: () => runAll(statements.pg), orElse: () => runAll(statements.sqlite) })
  )

/** The tables of the stores. */
export const tables: Migrations.Migrations = Migrations.make({
  name: "stores",
  command: "sluice migrate URL",
  steps: {
    "0001_circuits": onDialect({ pg: postgres, sqlite }),
    "0002_quotas": onDialect(quotaTables),
    "0003_flights": onDialect(flightTables)
  }
})

/** The functions of the stores on Postgres. */
export const functions: Migrations.Migrations = Migrations.make({
  name: "store_functions",
  command: "sluice migrate URL",
  steps: { "0001_circuits": runAll(circuitFunctions), "0002_quotas": runAll(quotaFunctions) }
})

/** What has to be there for stores that use functions, or do not. */
export const needed = (dialect: "pg" | "sqlite", uses: boolean): ReadonlyArray<Migrations.Migrations> =>
  dialect === "pg" && uses ? [tables, functions] : [tables]
