import { StoreError } from "@sluice/core/CircuitBreakerStore"
import { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import { BeginTransaction, SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Migrations from "../Migrations.ts"
import { codeOf, describeError } from "./describeError.ts"

/** A row that is not yet decoded. */
export type Row = { readonly [column: string]: unknown }

/** The time of Postgres in microseconds. SQLite has no server: its time is that of the process. */
export const serverMicros = "floor(extract(epoch FROM clock_timestamp()) * 1000000)"

/** An expression that lets the commit of a transaction on Postgres not wait for the disk. */
export const asyncCommit = "set_config('synchronous_commit', 'off', true)"

/** A client, for the stores: their statements run outside of their caller's transaction. */
export interface Session {
  readonly dialect: "pg" | "sqlite"
  /** A statement, with its parameters as `$1`. */
  readonly statement: (text: string) => (params: ReadonlyArray<unknown>) => Effect.Effect<ReadonlyArray<Row>, SqlError>
  /** Runs statements in one transaction, which sees what was committed before each statement. */
  readonly transact: <A, E>(body: Effect.Effect<A, E>) => Effect.Effect<A, E | SqlError>
  /** Runs a verb of a store: outside of the caller's transaction, and with its errors as `StoreError`. */
  readonly verb: <A>(operation: string, body: Effect.Effect<A, SqlError | StoreError>) => Effect.Effect<A, StoreError>
}

/**
 * Checks the client, and the version of its tables. A database that cannot be reached passes with a warning: it may be back before the
 * first call.
 */
export const open = (
  module: string,
  needs: (dialect: Session["dialect"]) => ReadonlyArray<Migrations.Migrations>
): Effect.Effect<Session, InvalidOptions | Migrations.TablesOutdated, SqlClient> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient
    const dialect = sql.onDialectOrElse({
      pg: () => "pg" as const,
      sqlite: () => "sqlite" as const,
      orElse: () => undefined
    })
    if (dialect === undefined) return yield* unsupported(module, sql.driver)
    yield* Effect.forEach(needs(dialect), ({ check }) => check, { discard: true }).pipe(
      Effect.catchTag("SqlError", (error) =>
        Effect.logWarning(`${module}: ${describeError(error)}. Its tables could not be checked`))
    )
    return sessionOn(sql, dialect)
  })

const unsupported = (module: string, driver: string) =>
  new InvalidOptions({
    module,
    issues: [{ option: "the driver of SqlClient", actual: driver, requirement: "must be one for Postgres or SQLite" }]
  })

const sessionOn = (sql: SqlClient, dialect: Session["dialect"]): Session => {
  // The caller's rollback would undo a record, and its locks would block those of other callers. Most verbs run in the background,
  // where each statement would be a trace of its own.
  const omitTransaction = Context.omit(sql.transactionService)
  const outsideOf = (context: Context.Context<never>) =>
    Context.add(omitTransaction(context), References.TracerEnabled, false)
  const toStoreError = (operation: string) => (error: SqlError | StoreError): StoreError =>
    error._tag === "SqlError" ? new StoreError({ operation, description: explain(error) }) : error
  return {
    dialect,
    statement: (text) => {
      const native = dialect === "pg" ? text : text.replaceAll(/\$(\d+)/g, "?$1")
      return (params) => sql.unsafe<Row>(native, params).withoutTransform
    },
    transact: (body) =>
      // Another level would see no rows that were committed while it waited for a lock.
      dialect === "pg"
        ? Effect.provideService(sql.withTransaction(body), BeginTransaction, "BEGIN ISOLATION LEVEL READ COMMITTED")
        : Effect.provideService(sql.withTransaction(body), BeginTransaction, undefined),
    verb: (operation, body) =>
      Effect.withFiber((fiber) => {
        if (dialect === "sqlite" && Context.getOrUndefined(fiber.context, sql.transactionService) !== undefined) {
          // It would wait for the connection, which its caller holds.
          return Effect.fail(new StoreError({ operation, description: inTransaction }))
        }
        const outside = Effect.updateContext(body, outsideOf)
        return Effect.mapError(dialect === "pg" ? leavable(outside) : outside, toStoreError(operation))
      })
  }
}

/**
 * Ends at once when it is interrupted. A statement of Postgres ends when the server has confirmed that it is cancelled. A server that
 * hangs takes 5 seconds for that, and the timeouts of breaker and quota are much shorter.
 */
const leavable = <A, E>(statement: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      Effect.forkDetach(restore(statement), { startImmediately: true }),
      (fiber) => Effect.onInterrupt(restore(Fiber.join(fiber)), () => Effect.forkDetach(Fiber.interrupt(fiber)))
    )
  )

const inTransaction =
  "the caller has a transaction on the only connection to the file. Give the stores a client of their own"

/** A missing table, function, column or type. */
const isOutdated = (error: SqlError): boolean => {
  const { cause } = error.reason
  return ["42P01", "42883", "42703", "42704"].includes(codeOf(cause) ?? "") ||
    (cause instanceof Error && cause.message.startsWith("no such table"))
}

const explain = (error: SqlError): string =>
  isOutdated(error) ? `${describeError(error)}. Run \`sluice migrate URL\`` : describeError(error)
