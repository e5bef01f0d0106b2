import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import { FlightStore } from "@sluice/core/FlightStore"
import { QuotaStore } from "@sluice/core/QuotaStore"
import { encodeKey } from "@sluice/core/StoreCodec"
import * as SqlCircuitBreakerStore from "@sluice/sql/SqlCircuitBreakerStore"
import * as SqlFlightStore from "@sluice/sql/SqlFlightStore"
import * as SqlQuotaStore from "@sluice/sql/SqlQuotaStore"
import * as SqlStores from "@sluice/sql/SqlStores"
import type { Subject } from "@sluice/testing/CircuitBreakerStoreContract"
import type * as FlightStoreContract from "@sluice/testing/FlightStoreContract"
import type * as QuotaStoreContract from "@sluice/testing/QuotaStoreContract"
import { Clock, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { describeWithPostgres, describeWithSqlite, type Tests } from "./databases.ts"

/** A suite on each form of the stores: SQLite, Postgres with functions, and Postgres without. */
export const describeForms = async (name: string, tests: (functions: boolean) => Tests): Promise<void> => {
  describeWithSqlite(`${name}, on SQLite`, tests(false))
  await describeWithPostgres(`${name}, on Postgres with functions`, tests(true))
  await describeWithPostgres(`${name}, on Postgres without functions`, tests(false))
}

/** Makes the tables of the suite. */
export const migrated = (functions: boolean) => SqlStores.migrate({ functions })

const sleep = (millis: number) => Effect.sleep(millis)

/** A client and a clock that can be set back. The server is shared with other suites, so what the stores read is set back instead. */
const setBackClock = (functions: boolean) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const clock = yield* Clock.Clock
    let behind = 0
    const isPostgres = sql.onDialectOrElse({ pg: () => true, orElse: () => false })
    const timeOf = () => `(clock_timestamp() - interval '${behind} milliseconds')`
    const client = isPostgres && !functions
      ? Object.assign(((...args: Parameters<typeof sql>) => sql(...args)) as typeof sql, sql, {
        unsafe: <A extends object>(text: string, params?: ReadonlyArray<unknown>) =>
          sql.unsafe<A>(text.replaceAll("clock_timestamp()", timeOf()), params)
      })
      : sql
    const setBack = (millis: number) =>
      Effect.suspend(() => {
        behind += millis
        return isPostgres && functions
          ? Effect.orDie(
            sql.unsafe(`CREATE OR REPLACE FUNCTION sluice_micros() RETURNS bigint LANGUAGE sql VOLATILE AS $$
            SELECT (extract(epoch FROM ${timeOf()}) * 1000000)::bigint $$`)
          )
          : Effect.void
      })
    const late: Clock.Clock = Object.assign(Object.create(clock), {
      currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now - behind),
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() - behind
    })
    // Undoes what another test has set.
    yield* setBack(0)
    return { client, clock: late, setBack }
  })

/** The store of circuits of a suite, as the subject of the contract. */
export const circuits = (functions: boolean): Effect.Effect<Subject, never, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    yield* migrated(functions)
    const { client, clock, setBack } = yield* setBackClock(functions)
    const store = yield* Effect.provideService(
      SqlCircuitBreakerStore.make({ functions }),
      SqlClient.SqlClient,
      client
    )
    const late = <A, E>(verb: Effect.Effect<A, E>) => Effect.provideService(verb, Clock.Clock, clock)
    const forget = Effect.fnUntraced(function*(key: string) {
      for (const table of ["sluice_circuits", "sluice_circuit_evidence"]) {
        yield* client`DELETE FROM ${client(table)} WHERE key = ${encodeKey(key)}`
      }
    }, Effect.orDie)
    return {
      store: CircuitBreakerStore.of({
        read: (request) => late(store.read(request)),
        lease: (request) => late(store.lease(request)),
        record: (request) => late(store.record(request)),
        transition: (request) => late(store.transition(request)),
        list: (request) => late(store.list(request))
      }),
      sleep,
      forget,
      setBack
    }
  }).pipe(Effect.orDie)

/** The store of quotas of a suite, as the subject of the contract. */
export const quotas = (functions: boolean): Effect.Effect<QuotaStoreContract.Subject, never, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    yield* migrated(functions)
    const { client, clock, setBack } = yield* setBackClock(functions)
    const store = yield* Effect.provideService(SqlQuotaStore.make({ functions }), SqlClient.SqlClient, client)
    const late = <A, E>(verb: Effect.Effect<A, E>) => Effect.provideService(verb, Clock.Clock, clock)
    return {
      store: QuotaStore.of({
        reserve: (request) => late(store.reserve(request)),
        settle: (request) => late(store.settle(request)),
        record: (request) => late(store.record(request)),
        renew: (request) => late(store.renew(request)),
        limit: (request) => late(store.limit(request)),
        read: (request) => late(store.read(request)),
        targets: (request) => late(store.targets(request))
      }),
      sleep,
      setBack
    }
  }).pipe(Effect.orDie)

/** The store of flights of a suite, as the subject of the contract. It uses no functions. */
export const flights: Effect.Effect<FlightStoreContract.Subject, never, SqlClient.SqlClient> = Effect.gen(function*() {
  yield* migrated(false)
  const { client, clock, setBack } = yield* setBackClock(false)
  const store = yield* Effect.provideService(SqlFlightStore.make(), SqlClient.SqlClient, client)
  const late = <A, E>(verb: Effect.Effect<A, E>) => Effect.provideService(verb, Clock.Clock, clock)
  return {
    store: FlightStore.of({
      claim: (request) => late(store.claim(request)),
      renew: (request) => late(store.renew(request)),
      complete: (request) => late(store.complete(request)),
      release: (request) => late(store.release(request)),
      purge: (request) => late(store.purge(request)),
      finished: store.finished
    }),
    sleep,
    setBack
  }
}).pipe(Effect.orDie)
