import { assert, describe, it as unit } from "@effect/vitest"
import type { StoreError } from "@sluice/core/CircuitBreakerStore"
import type { QuotaStore } from "@sluice/core/QuotaStore"
import * as SqlCircuitBreakerStore from "@sluice/sql/SqlCircuitBreakerStore"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlQuotaStore from "@sluice/sql/SqlQuotaStore"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Effect, Layer, Logger, Result, Tracer } from "effect"
import { SqlClient } from "effect/sql"
import { circuitOf, closed, open, window } from "./support/circuit.ts"
import { describeWithPostgres } from "./support/databases.ts"
import { describeForms, migrated } from "./support/subjects.ts"

const ask = { scope: "all", dimension: "requests", limit: 5, windowMillis: 60_000, quantumMillis: 1_000, amount: 1 }

const reserveOne = (store: QuotaStore["Service"], target: string, id: string) =>
  store.reserve({ target, id, leaseMillis: 60_000, guardMillis: 0, asks: [ask] })

/** Every verb of both stores. */
const verbs = (functions: boolean) =>
  Effect.gen(function*() {
    const circuits = yield* SqlCircuitBreakerStore.make({ functions })
    const quotas = yield* SqlQuotaStore.make({ functions })
    const { lease, move, read, record } = circuitOf(circuits, "a key")
    return {
      "read of a circuit": read,
      lease: lease(1, "probe"),
      record: record(0, "X"),
      "record of a probe": record(1, "X", "probe"),
      transition: move(0, closed),
      list: circuits.list({ window, limit: 10 }),
      reserve: reserveOne(quotas, "a target", "a"),
      settle: quotas.settle({ target: "a target", id: "a", actual: [] }),
      "record of an amount": quotas.record({ target: "a target", asks: [ask] }),
      renew: quotas.renew({ target: "a target", ids: ["a"], leaseMillis: 1_000 }),
      limit: quotas.limit({ target: "a target", dimension: "requests", seen: 1 }),
      "read of a quota": quotas.read({ target: "a target", scopes: ["all"] })
    }
  })

await describeForms("traces", (functions) => (it) => {
  it.effect("have no spans of verbs, most of which run in the background", () =>
    Effect.gen(function*() {
      yield* SqlStores.migrate({ functions })
      const spans: Array<string> = []
      const tracer = Tracer.make({
        span: (options) => {
          spans.push(options.name)
          return new Tracer.NativeSpan(options)
        }
      })
      const all: Effect.Effect<unknown, unknown> = Effect.all(yield* verbs(functions))
      yield* Effect.withTracer(all, tracer)
      assert.deepStrictEqual(spans, [])
    }))
})

await describeForms("tables that are missing", (functions) => (it) => {
  it.effect("the layer fails, and names the command", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Effect.scoped(Layer.build(SqlStores.layer({ functions }))))
      assert.strictEqual(error._tag, "TablesOutdated")
      assert.include(error.message, "stores: the tables are missing. Run `sluice migrate URL`")
    }))

  it.effect("verbs without their tables fail, and the error names the command", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* migrated(functions)
      const tables = ["circuits", "circuit_evidence", "quotas", "quota_sums", "quota_holds"]
      for (const table of tables) {
        yield* sql.unsafe(
          `DROP TABLE sluice_${table} ${sql.onDialectOrElse({ pg: () => "CASCADE", orElse: () => "" })}`
        )
      }
      for (const [name, verb] of Object.entries(yield* verbs(functions))) {
        const error = yield* Effect.flip(verb)
        assert.strictEqual(error._tag, "StoreError")
        assert.include(error.message, "Run `sluice migrate URL`", name)
        assert.notInclude(error.message, "a key", name)
        assert.notInclude(error.message, "a target", name)
      }
    }))
})

await describeForms("a transaction of the caller", (functions) => (it) => {
  it.effect("verbs are not part of it, or fail on the only connection of SQLite", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* migrated(functions)
      const circuits = yield* SqlCircuitBreakerStore.make({ functions })
      const quotas = yield* SqlQuotaStore.make({ functions })
      const { read, record } = circuitOf(circuits, "in a transaction")
      const both = Effect.andThen(record(0, "X"), reserveOne(quotas, "in a transaction", "a"))
      const rolledBack = yield* Effect.result(
        sql.withTransaction(Effect.andThen(both, Effect.fail("rolled back" as const)))
      )
      const error = Result.isFailure(rolledBack) ? rolledBack.failure : "none"
      const used = (yield* quotas.read({ target: "in a transaction", scopes: ["all"] })).map(({ used }) => used)
      if (sql.onDialectOrElse({ pg: () => true, orElse: () => false })) {
        assert.strictEqual(error, "rolled back")
        assert.strictEqual((yield* read).evidence.ring, "X")
        assert.deepStrictEqual(used, [1])
      } else {
        assert.include(String(error), "Give the stores a client of their own")
        assert.deepStrictEqual(used, [])
      }
    }))
})

await describeForms("rows that another client has changed", (functions) => (it) => {
  const circuitRows: { readonly [description: string]: string } = {
    "a generation of 0": "UPDATE sluice_circuits SET generation = 0",
    "a negative start": "UPDATE sluice_circuits SET since = -1",
    "a target that is not JSON": "UPDATE sluice_circuits SET target = '{'",
    "a target with an unknown tag": "UPDATE sluice_circuits SET target = '{\"_tag\":\"HalfOpen\"}'",
    "an id that is not encoded": "UPDATE sluice_circuits SET moved_by = 'a b'",
    "leases that are a list": "UPDATE sluice_circuits SET leases = '[1]'",
    "a ring with another character": "UPDATE sluice_circuit_evidence SET ring = 'Z'"
  }
  for (const [description, statement] of Object.entries(circuitRows)) {
    it.effect(`a circuit with ${description} is a StoreError`, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* migrated(functions)
        const store = yield* SqlCircuitBreakerStore.make({ functions })
        yield* sql`DELETE FROM sluice_circuits`
        const { read, record } = circuitOf(store, "changed")
        const { snapshot } = yield* record(0, "X")
        yield* sql.unsafe(statement)
        const verbs: ReadonlyArray<Effect.Effect<unknown, StoreError>> = [
          read,
          record(snapshot.generation, "0"),
          store.list({ window, limit: 1 })
        ]
        for (const verb of verbs) {
          const error = yield* Effect.flip(verb)
          assert.match(error.message, /a row of the circuits is invalid|the database answered with/)
        }
      }))
  }

  it.effect("a quota with invalid JSON is a StoreError", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* migrated(functions)
      const store = yield* SqlQuotaStore.make({ functions })
      yield* reserveOne(store, "changed", "a")
      yield* sql.unsafe("UPDATE sluice_quotas SET learned = '{\"requests\":1}'")
      const error = yield* Effect.flip(reserveOne(store, "changed", "b"))
      assert.match(error.message, /a row of the quotas is invalid|the database answered with/)
    }))
})

await describeForms("rows that have expired", (functions) => (it) => {
  const count = (table: string) =>
    SqlClient.SqlClient.use((sql) => sql<{ n: unknown }>`SELECT count(*) AS n FROM ${sql(table)}`).pipe(
      Effect.map(([row]) => Number(row?.n))
    )

  it.effect("circuits that expired are deleted when another is made, and no others", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* migrated(functions)
      const store = yield* SqlCircuitBreakerStore.make({ functions })
      for (const key of ["old", "forced", "used"]) yield* circuitOf(store, key).record(0, "X")
      const { snapshot: { generation } } = yield* circuitOf(store, "forced").record(0, "X")
      yield* circuitOf(store, "forced").move(generation, {
        _tag: "Forced",
        forMillis: 0,
        mode: "ForcedOpen",
        reason: "maintenance"
      })
      yield* sql`UPDATE sluice_circuits SET expires = 1 WHERE expires < 9000000000000000 AND key <> 'used'`
      yield* sql`UPDATE sluice_circuit_evidence SET expires = 1 WHERE key = 'old'`
      yield* circuitOf(store, "new").record(0, "X")
      const keys = (yield* store.list({ window, limit: 10 })).map(({ key }) => key)
      assert.deepStrictEqual(keys, ["forced", "new", "used"])
      assert.strictEqual(yield* count("sluice_circuit_evidence"), 3)
    }))

  it.effect("a record keeps its circuit for longer", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* migrated(functions)
      const store = yield* SqlCircuitBreakerStore.make({ functions, idle: "1 hour" })
      yield* circuitOf(store, "kept").record(0, "X")
      yield* sql`UPDATE sluice_circuits SET expires = 1 WHERE key = 'kept'`
      const { snapshot: { now } } = yield* circuitOf(store, "kept").record(0, "X")
      const [row] = yield* sql<{ expires: unknown }>`SELECT expires FROM sluice_circuits WHERE key = 'kept'`
      assert.isAtLeast(Number(row?.expires), now + 3_600_000)
    }))

  it.effect("a settlement whose bucket has been dropped changes no sum", () =>
    Effect.gen(function*() {
      yield* migrated(functions)
      const store = yield* SqlQuotaStore.make({ functions })
      const brief = { ...ask, windowMillis: 200, quantumMillis: 10, amount: 3 }
      const reserve = (id: string) =>
        store.reserve({ target: "dropped", id, leaseMillis: 60_000, guardMillis: 0, asks: [brief] })
      yield* reserve("a")
      yield* Effect.sleep("300 millis")
      // Drops the bucket of the first.
      yield* reserve("b")
      const actual = [{ scope: "all", dimension: "requests", amount: 0 }]
      assert.isTrue(yield* store.settle({ target: "dropped", id: "a", actual }))
      yield* store.settle({ target: "dropped", id: "b", actual })
      const [level] = yield* store.read({ target: "dropped", scopes: ["all"] })
      assert.strictEqual(level?.used, 0)
    }))

  it.effect("targets that expired are deleted with their sums and ids when another is made", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* migrated(functions)
      const store = yield* SqlQuotaStore.make({ functions })
      const tables = ["sluice_quotas", "sluice_quota_sums", "sluice_quota_holds"]
      for (const table of tables) yield* sql`DELETE FROM ${sql(table)}`
      yield* reserveOne(store, "old", "a")
      yield* reserveOne(store, "used", "a")
      yield* sql`UPDATE sluice_quotas SET expires = 1 WHERE target = 'old'`
      yield* reserveOne(store, "new", "a")
      for (const table of tables) assert.strictEqual(yield* count(table), 2, table)
    }))
})

await describeForms("two forms and two windows", (functions) => (it) => {
  it.effect("invalid input is refused before it is sent", () =>
    Effect.gen(function*() {
      yield* migrated(functions)
      const circuits = yield* SqlCircuitBreakerStore.make({ functions })
      const quotas = yield* SqlQuotaStore.make({ functions })
      const a = circuitOf(circuits, "invalid", { calls: Number.NaN, bucketMillis: 0, buckets: 0 })
      for (const verb of [a.record(0, "X"), a.lease(1, "id"), a.move(0, closed)]) {
        assert.match((yield* Effect.flip(verb)).description, / is invalid$/)
      }
      const b = circuitOf(circuits, "invalid")
      for (const verb of [b.record(Number.NaN, "X"), b.record(0, "Z"), b.move(0, open(Number.NaN))]) {
        assert.match((yield* Effect.flip(verb)).description, / is invalid$/)
      }
      const reserve = (more: Partial<typeof ask>) =>
        quotas.reserve({ target: "t", id: "i", leaseMillis: 1, guardMillis: 0, asks: [{ ...ask, ...more }] })
      for (const wrong of [{ amount: 1.5 }, { amount: -1 }, { amount: Number.NaN }, { quantumMillis: 0 }]) {
        assert.strictEqual((yield* Effect.flip(reserve(wrong))).description, "an ask is invalid")
      }
      const twice = quotas.reserve({ target: "t", id: "i", leaseMillis: 1, guardMillis: 0, asks: [ask, ask] })
      assert.strictEqual(
        (yield* Effect.flip(twice)).description,
        "two asks have the same scope, dimension and window"
      )
      assert.deepStrictEqual(yield* circuits.list({ window, limit: 1 }), [])
    }))
})

await describeWithPostgres("a process with functions and a process without", (it) => {
  it.effect("they share circuits and quotas", () =>
    Effect.gen(function*() {
      yield* migrated(true)
      const forms = [true, false]
      const circuits = yield* Effect.forEach(forms, (functions) => SqlCircuitBreakerStore.make({ functions }))
      const quotas = yield* Effect.forEach(forms, (functions) => SqlQuotaStore.make({ functions }))
      const [a, b] = circuits.map((store) => circuitOf(store, "shared"))
      if (a === undefined || b === undefined) return
      yield* a.record(0, "X")
      const { snapshot: { generation } } = yield* b.record(0, "Y")
      assert.strictEqual((yield* a.record(generation, "0")).snapshot.evidence.ring, "XY0")
      const opened = yield* a.move(generation, open(0))
      assert.isTrue((yield* b.lease(opened.snapshot.generation, "from b")).ok)
      assert.strictEqual((yield* a.read).probing, 1)
      assert.isTrue((yield* a.record(opened.snapshot.generation, "0", "from b")).ok)
      assert.deepStrictEqual((yield* b.read).evidence, (yield* a.read).evidence)

      const [one, other] = quotas
      if (one === undefined || other === undefined) return
      yield* reserveOne(one, "shared", "one")
      yield* reserveOne(other, "shared", "other")
      assert.deepStrictEqual((yield* reserveOne(one, "shared", "other")).granted, [1])
      assert.isTrue(
        yield* other.settle({
          target: "shared",
          id: "one",
          actual: [{ scope: "all", dimension: "requests", amount: 0 }]
        })
      )
      yield* one.limit({ target: "shared", dimension: "requests", seen: 7 })
      assert.strictEqual((yield* other.limit({ target: "shared", dimension: "requests" })).limit, 7)
      assert.deepStrictEqual((yield* one.read({ target: "shared", scopes: ["all"] })).map(({ used }) => used), [1])
    }))
})

describe("a database that cannot be reached when the layer is built", () => {
  unit.effect(
    "the layer builds with a warning, and verbs are a StoreError without the address",
    () =>
      Effect.gen(function*() {
        const lines: Array<string> = []
        const logger = Logger.make(({ message }) => void lines.push(String(message)))
        const all = yield* verbs(true).pipe(
          Effect.provide(SqlDatabase.layer({ url: "postgres://postgres:hunter2@127.0.0.1:9/none" })),
          Effect.provide(Logger.layer([logger]))
        )
        assert.deepStrictEqual(lines, [
          "SqlCircuitBreakerStore: the database answered with ConnectionError (ECONNREFUSED). Its tables could not be checked",
          "SqlQuotaStore: the database answered with ConnectionError (ECONNREFUSED). Its tables could not be checked"
        ])
        assert.isNotEmpty(Object.keys(all))
      })
  )
})
