import type { CircuitBreakerStore, Window } from "@sluice/core/CircuitBreakerStore"
import { encodeKey, type TransitionFields, untouchedJson } from "@sluice/core/StoreCodec"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { SqlError } from "effect/sql/SqlError"
import { decodeReply, decodeRow, type Reply } from "./reply.ts"
import * as Rows from "./rows.ts"
import { asyncCommit, type Row, serverMicros, type Session } from "../session.ts"

type Service = CircuitBreakerStore["Service"]
type RequestOf<V extends keyof Service> = Parameters<Service[V]>[0]
type Replied = Effect.Effect<Reply | undefined, SqlError>

/** The statements of the verbs, in one of two forms. A reply of `undefined` is an invalid row. */
export interface Verbs {
  readonly read: (circuit: RequestOf<"read">) => Replied
  readonly list: (
    page: RequestOf<"list">
  ) => Effect.Effect<ReadonlyArray<{ readonly key: string; readonly reply: Reply | undefined }>, SqlError>
  readonly lease: (request: RequestOf<"lease">, ttlMillis: number) => Replied
  readonly record: (request: RequestOf<"record">) => Replied
  readonly transition: (request: RequestOf<"transition">, fields: TransitionFields) => Replied
  /** Shifts the times of a circuit after the clock was set back. */
  readonly adjust: (circuit: RequestOf<"read">) => Replied
}

const layoutOf = ({ bucketMillis, buckets, calls }: Window): string => `${calls}/${bucketMillis}x${buckets}`

const numbers = ["generation", "since", "ends", "counts", "leased", "expires"]
const texts = ["moved_by", "target", "state", "leases"]

/** The columns of a circuit `c`. Numbers of Postgres would be bigints. */
const columnsFor = (dialect: Session["dialect"]): string =>
  [
    ...numbers.map((name) => dialect === "pg" ? `c.${name}::float8 AS ${name}` : `c.${name}`),
    ...texts.map((name) => `c.${name}`)
  ]
    .join(", ")

/** The columns of evidence `e`. */
const evidenceFor = (dialect: Session["dialect"]): string =>
  dialect === "pg"
    ? "e.generation::float8 AS evidence_generation, e.ring, array_to_string(e.wheel, ',') AS wheel"
    : "e.generation AS evidence_generation, e.ring, e.wheel"

/** Reads without a lock. `micros` is an expression of the server, or 0 on SQLite. */
const reads = (session: Session, micros: string): Pick<Verbs, "read" | "list"> => {
  const columns = `${columnsFor(session.dialect)}, ${evidenceFor(session.dialect)}`
  const now = session.dialect === "pg" ? `, floor(${micros} / 1000)::float8 AS now` : ""
  const one = session.statement(`
    SELECT ${columns}${now} FROM (SELECT 1) AS one
    LEFT JOIN sluice_circuits c ON c.key = $1
    LEFT JOIN sluice_circuit_evidence e ON e.key = c.key AND e.layout = $2`)
  const page = (after: string) =>
    session.statement(`
    SELECT c.key, ${columns}${now} FROM sluice_circuits c
    LEFT JOIN sluice_circuit_evidence e ON e.key = c.key AND e.layout = $1
    ${after} ORDER BY c.key LIMIT CAST($2 AS bigint)`)
  const [first, next] = [page(""), page("WHERE c.key > $3")]
  const timed = (rows: Effect.Effect<ReadonlyArray<Row>, SqlError>) =>
    session.dialect === "pg"
      ? rows
      : Effect.zipWith(rows, Clock.currentTimeMillis, (rows, now) => rows.map((row) => ({ ...row, now })))
  return {
    read: ({ key, window }) => Effect.map(timed(one([encodeKey(key), layoutOf(window)])), ([row]) => decodeReply(row)),
    list: ({ after, limit, window }) => {
      const params = [layoutOf(window), Math.max(0, Math.floor(limit))]
      const rows = after === undefined ? first(params) : next([...params, encodeKey(after)])
      return Effect.map(
        timed(rows),
        (rows) => rows.map((row) => ({ key: String(row["key"]), reply: decodeReply(row) }))
      )
    }
  }
}

/** The verbs as functions of Postgres. */
export const functionsOn = (session: Session, idleMillis: number): Verbs => {
  const call = (name: string, types: ReadonlyArray<string>) => {
    const query = session.statement(
      `SELECT * FROM sluice_circuit_${name}(${types.map((type, nth) => `$${nth + 1}::${type}`).join(", ")})`
    )
    return (params: ReadonlyArray<unknown>): Replied => Effect.map(query(params), ([row]) => decodeReply(row))
  }
  const lease = call("lease", ["text", "text", "bigint", "text", "float8", "bigint", "bigint", "bigint"])
  const record = call("record", [
    "text",
    "text",
    "bigint",
    "text",
    "text",
    ...Array.from({ length: 7 }, () => "bigint"),
    "text"
  ])
  const transition = call("transition", [
    "text",
    "text",
    "bigint",
    "text",
    "text",
    "text",
    ...Array.from({ length: 5 }, () => "bigint")
  ])
  const adjust = call("adjust", ["text", "text"])
  return {
    ...reads(session, "sluice_micros()"),
    lease: ({ generation, id, key, limit, window }, ttlMillis) =>
      lease([
        encodeKey(key),
        layoutOf(window),
        generation,
        encodeKey(id),
        limit,
        ttlMillis,
        Rows.spanOf(window),
        idleMillis
      ]),
    record: ({ generation, key, lease, samples, window }) => {
      const { calls, failures, slow } = Rows.tallyOf(samples)
      const id = lease === undefined ? null : encodeKey(lease)
      const shape = [window.calls, window.bucketMillis, Rows.spanOf(window), idleMillis]
      const counts = [calls, failures, slow]
      return record([encodeKey(key), layoutOf(window), generation, samples, id, ...counts, ...shape, untouchedJson])
    },
    transition: ({ by, generation, key, window }, { counts, forMillis, rememberMillis, state, target }) => {
      const to = [encodeKey(by), target, state, forMillis, counts, rememberMillis]
      return transition([encodeKey(key), layoutOf(window), generation, ...to, Rows.spanOf(window), idleMillis])
    },
    adjust: ({ key, window }) => adjust([encodeKey(key), layoutOf(window)])
  }
}

/** The verbs as transactions of a few statements, with their rules in `rows.ts`. */
export const rowsOn = (session: Session, idleMillis: number): Verbs => {
  const { dialect } = session
  const onPg = (clause: string) => dialect === "pg" ? clause : ""
  const statements = {
    circuit: session.statement(
      `SELECT ${columnsFor(dialect)} FROM sluice_circuits c WHERE key = $1 ${onPg("FOR NO KEY UPDATE")}`
    ),
    // After the lock, so that it sees what was committed while this process waited.
    evidence: session.statement(`
      SELECT ${evidenceFor(dialect)}${
      onPg(`, ${serverMicros}::float8 AS micros, ${asyncCommit}`)
    } FROM (SELECT 1) AS one
      LEFT JOIN sluice_circuit_evidence e ON e.key = $1 AND e.layout = $2`),
    insert: session.statement(
      `INSERT INTO sluice_circuits (${
        circuitColumns.join(", ")
      }) VALUES (${values}) ON CONFLICT (key) DO NOTHING RETURNING key`
    ),
    update: session.statement(`UPDATE sluice_circuits SET ${updates} WHERE key = $1`),
    count: session.statement(`
      INSERT INTO sluice_circuit_evidence (key, layout, generation, ring, wheel, expires)
      VALUES ($1, $2, CAST($3 AS bigint), $4, ${
      dialect === "pg" ? "string_to_array($5, ',')::bigint[]" : "$5"
    }, CAST($6 AS bigint))
      ON CONFLICT (key, layout) DO UPDATE SET generation = excluded.generation, ring = excluded.ring, wheel = excluded.wheel,
        expires = excluded.expires`),
    clean: ["sluice_circuits", "sluice_circuit_evidence"].map((table) => {
      const keys = table === "sluice_circuits" ? "key" : "key, layout"
      return session.statement(`
        DELETE FROM ${table} WHERE (${keys}) IN (
          SELECT ${keys} FROM ${table} WHERE expires < CAST($1 AS bigint) LIMIT 20 ${onPg("FOR UPDATE SKIP LOCKED")}
        )`)
    })
  }

  const find = Effect.fnUntraced(function*(key: string, layout: string) {
    const [circuit = { generation: null }] = yield* statements.circuit([key])
    const [evidence] = yield* statements.evidence([key, layout])
    const micros = dialect === "pg" ? evidence?.["micros"] : (yield* Clock.currentTimeMillis) * 1_000
    const decoded = decodeRow({ ...circuit, ...evidence })
    return decoded && typeof micros === "number" ? { ...decoded, micros, idleMillis } : undefined
  })

  const write = Effect.fnUntraced(
    function*(key: string, window: Window, found: Rows.Found, { circuit, evidence }: Rows.After) {
      const now = Rows.millisOf(found.micros)
      if (circuit !== undefined && circuit !== found.circuit) {
        const { leases, ...rest } = circuit
        const row = [
          key,
          rest.generation,
          rest.since,
          rest.ends,
          rest.moved_by,
          rest.target,
          rest.state,
          rest.counts,
          rest.leased
        ]
        const params = [...row, JSON.stringify(Object.fromEntries(leases)), rest.expires]
        if (found.circuit !== undefined) yield* statements.update(params)
        // Another process has made the circuit meanwhile.
        else if ((yield* statements.insert(params)).length === 0) return false
      }
      if (evidence !== undefined && evidence !== found.evidence) {
        const { generation, ring, wheel } = evidence
        const expires = now + Rows.spanOf(window) + 2 * idleMillis
        yield* statements.count([key, layoutOf(window), generation, ring, wheel.join(","), expires])
      }
      if (found.circuit === undefined) { for (const clean of statements.clean) yield* clean([now]) }
      return true
    }
  )

  const change = (
    { key, window }: { readonly key: string; readonly window: Window },
    verb: (found: Rows.Found) => Rows.After
  ): Replied => {
    const encoded = encodeKey(key)
    const attempt: Effect.Effect<Reply | undefined | "raced", SqlError> = session.transact(Effect.gen(function*() {
      const found = yield* find(encoded, layoutOf(window))
      if (found === undefined) return undefined
      const after = verb(found)
      const isWritten = yield* write(encoded, window, found, after)
      return isWritten ? { ...after, now: Rows.millisOf(found.micros) } : "raced"
    }))
    return Effect.flatMap(attempt, (reply) => reply === "raced" ? change({ key, window }, verb) : Effect.succeed(reply))
  }

  return {
    ...reads(session, serverMicros),
    lease: (request, ttlMillis) => change(request, (found) => Rows.lease(found, request, ttlMillis)),
    record: (request) => change(request, (found) => Rows.record(found, request)),
    transition: (request, fields) => change(request, (found) => Rows.transition(found, request, fields)),
    adjust: (circuit) =>
      change(circuit, ({ circuit, evidence, micros }) => ({
        ok: true,
        circuit: circuit && Rows.adjust(circuit, Rows.millisOf(micros)),
        evidence
      }))
  }
}

const circuitColumns = [
  "key",
  "generation",
  "since",
  "ends",
  "moved_by",
  "target",
  "state",
  "counts",
  "leased",
  "leases",
  "expires"
]

const valueOf = (column: string, nth: number): string =>
  numbers.includes(column) ? `CAST($${nth + 1} AS bigint)` : `$${nth + 1}`

const values = circuitColumns.map(valueOf).join(", ")
const updates = circuitColumns.map((column, nth) => `${column} = ${valueOf(column, nth)}`).slice(1).join(", ")
