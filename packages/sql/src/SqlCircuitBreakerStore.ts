/**
 * Keeps circuits in Postgres or SQLite, so that all processes that call a dependency share its circuit.
 *
 * On Postgres each verb of the store is one function of the database, and so one round trip. A call of a closed circuit costs one round
 * trip, after the call. A refused call costs none.
 *
 * **When to use**
 *
 * When several processes call the same dependency, and they have a database but no Redis. `SqlStores.layer` provides this store and all
 * others.
 *
 * **Details**
 *
 * | option | default | why this default |
 * |---|---|---|
 * | `idle` | 1 hour | longer than nearly every window and `openFor`; unused circuits soon expire |
 * | `functions` | `true` | one round trip for each verb. Without functions it is up to six, so set `false` only where they are not allowed |
 *
 * - The tables have to be there, see `SqlStores.migrate`. If they are missing or too old, the layer fails with `TablesOutdated`. If the
 *   database cannot be reached, the layer logs a warning and builds: the breaker uses circuits of its process until it can.
 * - On Postgres times are the server's, so the clocks of the processes do not matter. If the server's clock is set back, the times of a
 *   circuit are shifted by as much when it is used next.
 * - The evidence is in a table that Postgres does not log. A crash of the server and a failover empty it, and circuits start to count anew.
 *   Whether a circuit is open or forced survives.
 * - Statements run outside of their caller's transaction: its rollback would undo an outcome.
 * - An unused circuit is deleted `idle` to two times `idle` after its last use, when another circuit is made. None is deleted before the
 *   end of its opening, ramp, force or window, or of its last lease. A circuit that is forced without an end is kept until it is lifted.
 * - Rows are validated. An invalid row and an unreachable database are a `StoreError`, which contains no key and no address.
 *
 * **Gotchas**
 *
 * - Give the stores a client of their own, as `SqlDatabase.layer` makes one. If the program's transactions hold all connections of a
 *   shared client, verbs wait for them. On SQLite, which has one connection, a verb in a transaction is a `StoreError`.
 * - A database with `default_transaction_isolation` above `read committed` fails concurrent verbs of one circuit. Set it for the role:
 *   `alter role app set default_transaction_isolation = 'read committed'`.
 * - On SQLite times are those of the process. Use it for processes of one machine.
 *
 * **Example** (A breaker with shared circuits)
 *
 * ```ts
 * import { Config, Layer } from "effect"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 * import * as SqlCircuitBreakerStore from "@sluice/sql/SqlCircuitBreakerStore"
 * import * as SqlDatabase from "@sluice/sql/SqlDatabase"
 *
 * export const Breaker = CircuitBreaker.layerStore({ trip: CircuitBreaker.consecutive(5) }).pipe(
 *   Layer.provide(SqlCircuitBreakerStore.layer()),
 *   Layer.provide(SqlDatabase.layerConfig({ url: Config.Redacted("DATABASE_URL") }))
 * )
 * ```
 *
 * @since 0.1.0
 */
import { type Answer, CircuitBreakerStore, type Snapshot, StoreError } from "@sluice/core/CircuitBreakerStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import {
  decodeKey,
  isValidGeneration,
  isValidSamples,
  isValidWindow,
  maxMillis,
  transitionFields
} from "@sluice/core/StoreCodec"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { type Reply, snapshotOf } from "./internal/circuit/reply.ts"
import { needsAdjustment } from "./internal/circuit/rows.ts"
import { functionsOn, rowsOn, type Verbs } from "./internal/circuit/statements.ts"
import { open, type Session } from "./internal/session.ts"
import { needed } from "./internal/tables.ts"
import type { TablesOutdated } from "./Migrations.ts"

/**
 * Options for `SqlCircuitBreakerStore.make`.
 *
 * @since 0.1.0
 * @category models
 */
export interface SqlCircuitBreakerStoreOptions {
  /**
   * How long an unused circuit is kept, 1 second to 365 days. Default 1 hour: longer than nearly every window and `openFor`, and
   * unused circuits soon expire.
   */
  readonly idle?: Duration.Input | undefined
  /**
   * Whether Postgres runs each verb as one function. Default `true`. With `false` a verb is a transaction of up to six statements. It
   * needs no functions, and shares the tables with processes that use them. SQLite has none.
   */
  readonly functions?: boolean | undefined
}

/**
 * Builds the store on a `SqlClient`. It has no state in the process: two stores on the same tables are the same.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options?: SqlCircuitBreakerStoreOptions
): Effect.Effect<CircuitBreakerStore["Service"], InvalidOptions | TablesOutdated, SqlClient> =>
  Effect.gen(function*() {
    const { functions, idleMillis } = yield* readOptions(options)
    const session = yield* open(module, (dialect) => needed(dialect, functions))
    const verbs = functions && session.dialect === "pg"
      ? functionsOn(session, idleMillis)
      : rowsOn(session, idleMillis)
    return CircuitBreakerStore.of(storeOn(session, verbs))
  })

/**
 * Provides `CircuitBreakerStore`, kept in Postgres or SQLite.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: SqlCircuitBreakerStoreOptions
): Layer.Layer<CircuitBreakerStore, InvalidOptions | TablesOutdated, SqlClient> =>
  Layer.effect(CircuitBreakerStore, make(options))

const module = "SqlCircuitBreakerStore"

type Service = CircuitBreakerStore["Service"]
type Verb = keyof Service
type RequestOf<V extends Verb> = Parameters<Service[V]>[0]

const storeOn = (session: Session, verbs: Verbs): Service => {
  const snapshotIn = (
    operation: Verb,
    circuit: RequestOf<"read">,
    reply: Reply | undefined
  ): Effect.Effect<Snapshot, StoreError> => {
    const snapshot = reply && snapshotOf(reply, circuit, reply.now)
    return snapshot === undefined ? failWith(operation, invalidRow) : Effect.succeed(snapshot)
  }
  const answer = (operation: Verb, circuit: RequestOf<"read">, reply: Effect.Effect<Reply | undefined, SqlError>) =>
    session.verb(
      operation,
      Effect.flatMap(
        reply,
        (reply) =>
          Effect.map(
            snapshotIn(operation, circuit, reply),
            (snapshot): Answer => ({ ok: reply?.ok === true, snapshot })
          )
      )
    )
  const read = (operation: Verb, circuit: RequestOf<"read">, reply: Reply | undefined) =>
    reply?.circuit !== undefined && needsAdjustment(reply.circuit, reply.now)
      ? Effect.flatMap(verbs.adjust(circuit), (adjusted) => snapshotIn(operation, circuit, adjusted))
      : snapshotIn(operation, circuit, reply)

  return {
    read: (circuit) =>
      session.verb("read", Effect.flatMap(verbs.read(circuit), (reply) => read("read", circuit, reply))),
    lease: (request) => {
      const { ttlMillis, window } = request
      if (!isValidWindow(window) || Number.isNaN(ttlMillis)) {
        return failWith("lease", "the window or ttlMillis is invalid")
      }
      // With an infinite lease the circuit would never expire.
      const millis = Math.min(Math.max(Math.ceil(ttlMillis), 1), maxMillis)
      return answer("lease", request, verbs.lease(request, millis))
    },
    record: (request) => {
      const { generation, samples, window } = request
      if (!isValidWindow(window) || !isValidGeneration(generation) || !isValidSamples(samples)) {
        return failWith("record", "the window, the generation or a sample is invalid")
      }
      return answer("record", request, verbs.record(request))
    },
    transition: (request) => {
      const { generation, to, window } = request
      const fields = transitionFields(to)
      if (fields === undefined || !isValidWindow(window) || !isValidGeneration(generation)) {
        return failWith("transition", "the target, the window or the generation is invalid")
      }
      return answer("transition", request, verbs.transition(request, fields))
    },
    list: (page) =>
      session.verb(
        "list",
        Effect.flatMap(verbs.list(page), (rows) =>
          Effect.forEach(rows, ({ key: encoded, reply }) => {
            const key = decodeKey(encoded)
            return key === undefined ? failWith("list", invalidRow) : read("list", { key, window: page.window }, reply)
          }))
      )
  }
}

const invalidRow = "a row of the circuits is invalid"

const failWith = (operation: Verb, description: string): Effect.Effect<never, StoreError> =>
  Effect.suspend(() => Effect.fail(new StoreError({ operation, description })))

const readOptions = (input: SqlCircuitBreakerStoreOptions = {}) => {
  const options = new OptionsReader(module)
  const { functions = true, idle = "1 hour" } = options.object("options", input, { idle: true, functions: true })
  const idleMillis = options.millis("idle", idle, 1_000, 365 * 24 * 3_600_000)
  if (typeof functions !== "boolean") options.refuse("functions", functions, "must be true or false")
  return options.check({ functions, idleMillis: Math.ceil(idleMillis) })
}
