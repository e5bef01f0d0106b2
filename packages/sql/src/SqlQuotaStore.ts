/**
 * Keeps the sums of quotas in Postgres or SQLite, so that all processes that use an account keep its limits together.
 *
 * On Postgres each verb of the store is one function of the database for all limits of a call, and so one round trip. A call costs two:
 * one to reserve, and one to settle, for which it does not wait.
 *
 * **When to use**
 *
 * Several processes call with the same account, and they have a database but no Redis. `SqlStores.layer` provides this store and all
 * others.
 *
 * **Details**
 *
 * | option | default | why this default |
 * |---|---|---|
 * | `functions` | `true` | one round trip for each verb. Without functions it is about ten, so set `false` only where they are not allowed |
 *
 * - The tables have to be there, see `SqlStores.migrate`. If they are missing or too old, the layer fails with `TablesOutdated`. If the
 *   database cannot be reached, the layer logs a warning and builds.
 * - The requests of a target run one after the other: each locks the target's row. So the number of calls a second is limited for each
 *   target, see docs/stores.md. `Quota` reserves slices, which need a tenth of the requests.
 * - On Postgres times are the server's, so the clocks of the processes do not matter.
 * - A crash of the server loses at most the last second of amounts in windows of up to an hour. Amounts of longer windows, such as
 *   budgets, are on disk before a call starts.
 * - A request frees the calls at once of processes that died, after the end of their leases and up to 16 each time. Amounts in
 *   windows stay until the window passes. Money that is not settled stays spent.
 * - A target is deleted after twice its longest window without use, at least two days. A budget without a window is kept for a year.
 *
 * **Gotchas**
 *
 * - Give the stores a client of their own, as `SqlDatabase.layer` makes one. See the gotchas of `SqlCircuitBreakerStore`.
 * - Amounts have to be whole numbers below 2^53.
 * - If the server's clock is set forward, windows and leases end earlier by the same amount. If it is set back, the time of a target
 *   continues from its latest time.
 *
 * **Example** (A quota of several processes)
 *
 * ```ts
 * import { Config, Layer } from "effect"
 * import * as Quota from "@sluice/core/Quota"
 * import * as SqlDatabase from "@sluice/sql/SqlDatabase"
 * import * as SqlQuotaStore from "@sluice/sql/SqlQuotaStore"
 *
 * export const OpenAiQuota = Quota.layer({ limits: [Quota.requestsPerMinute(500)], processes: 4 }).pipe(
 *   Layer.provide(SqlQuotaStore.layer()),
 *   Layer.provide(SqlDatabase.layerConfig({ url: Config.Redacted("DATABASE_URL") }))
 * )
 * ```
 *
 * @since 0.1.0
 */
import { StoreError } from "@sluice/core/CircuitBreakerStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { OptionsReader } from "@sluice/core/OptionsReader"
import { type Ask, QuotaStore } from "@sluice/core/QuotaStore"
import { decodeKey, encodeKey, isValidAsk } from "@sluice/core/StoreCodec"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { askRow } from "./internal/quota/reply.ts"
import { functionsOn, rowsOn, type Verbs } from "./internal/quota/statements.ts"
import { open, type Session } from "./internal/session.ts"
import { needed } from "./internal/tables.ts"
import type { TablesOutdated } from "./Migrations.ts"

/**
 * Options for `SqlQuotaStore.make`.
 *
 * @since 0.1.0
 * @category models
 */
export interface SqlQuotaStoreOptions {
  /**
   * Whether Postgres runs each verb as one function. Default `true`. With `false` a verb is a transaction of about ten statements. It
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
  options?: SqlQuotaStoreOptions
): Effect.Effect<QuotaStore["Service"], InvalidOptions | TablesOutdated, SqlClient> =>
  Effect.gen(function*() {
    const functions = yield* readOptions(options)
    const session = yield* open(module, (dialect) => needed(dialect, functions))
    const verbs = functions && session.dialect === "pg" ? functionsOn(session) : rowsOn(session)
    return QuotaStore.of(storeOn(session, verbs))
  })

/**
 * Provides a `QuotaStore` in Postgres or SQLite.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (
  options?: SqlQuotaStoreOptions
): Layer.Layer<QuotaStore, InvalidOptions | TablesOutdated, SqlClient> => Layer.effect(QuotaStore, make(options))

const module = "SqlQuotaStore"

type Verb = keyof QuotaStore["Service"]

const storeOn = (session: Session, verbs: Verbs): QuotaStore["Service"] => {
  const answer = <A>(operation: Verb, reply: Effect.Effect<A | undefined, SqlError>): Effect.Effect<A, StoreError> =>
    session.verb(
      operation,
      Effect.flatMap(
        reply,
        (reply) => reply === undefined ? failWith(operation, "a row of the quotas is invalid") : Effect.succeed(reply)
      )
    )
  const targets = session.statement("SELECT target FROM sluice_quotas WHERE target > $1 ORDER BY target LIMIT $2")
  return {
    // A NaN would be stored, and the sum could never be read again.
    reserve: (request) => {
      if (!request.asks.every(isValidAsk)) return failWith("reserve", invalidAsk)
      if (hasRepeated(request.asks)) return failWith("reserve", "two asks have the same scope, dimension and window")
      return answer("reserve", verbs.reserve(request))
    },
    record: (request) =>
      request.asks.every(isValidAsk)
        ? Effect.asVoid(answer("record", verbs.record(request)))
        : failWith("record", invalidAsk),
    settle: (request) => answer("settle", verbs.settle(request)),
    renew: (request) => Effect.asVoid(answer("renew", verbs.renew(request))),
    limit: (request) => answer("limit", verbs.limit(request)),
    read: (request) => answer("read", verbs.read(request)),
    targets: ({ after, limit }) => {
      const rows = targets([after === undefined ? "" : encodeKey(after), limit])
      return Effect.map(
        session.verb("targets", rows),
        (rows) => rows.flatMap(({ target }) => decodeKey(String(target)) ?? [])
      )
    }
  }
}

const hasRepeated = (asks: ReadonlyArray<Ask>): boolean =>
  new Set(asks.map((ask) => askRow(ask).name)).size < asks.length

const invalidAsk = "an ask is invalid"

const failWith = (operation: Verb, description: string): Effect.Effect<never, StoreError> =>
  Effect.suspend(() => Effect.fail(new StoreError({ operation, description })))

const readOptions = (input: SqlQuotaStoreOptions = {}): Effect.Effect<boolean, InvalidOptions> => {
  const options = new OptionsReader(module)
  const { functions = true } = options.object("options", input, { functions: true })
  if (typeof functions !== "boolean") options.refuse("functions", functions, "must be true or false")
  return options.check(functions)
}
