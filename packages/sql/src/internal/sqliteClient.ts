/**
 * A `SqlClient` on `node:sqlite`. It goes when `@effect/sql-sqlite-node` has a version for Effect 4.1: its latest, a beta, imports
 * modules that 4.1 no longer has.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Reactivity from "effect/reactivity/Reactivity"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Client from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { classifySqliteError, SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import { closeSync, openSync } from "node:fs"
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite"

/** How many statements stay prepared. Ours are fewer. */
const preparedStatements = 200

/**
 * Opens a file, or `:memory:`, with one connection. Statements of several fibers run one after the other.
 *
 * A statement that finds the file locked by another process is repeated for `busyMillis`. The event loop runs meanwhile: SQLite's own
 * busy timeout would block it.
 */
export const make = (
  { busyMillis, filename }: { readonly filename: string; readonly busyMillis: number }
): Effect.Effect<Client.SqlClient, SqlError, Scope.Scope | Reactivity.Reactivity> =>
  Effect.gen(function*() {
    const whenFree = retryBusy(busyMillis)
    const db = yield* Effect.acquireRelease(
      whenFree(attempt("open", () => open(filename))),
      (db) => Effect.sync(() => db.close())
    )
    const acquirers = Client.makeSqliteAcquirers({
      connection: Effect.succeed(connectionTo(db, whenFree)),
      semaphore: yield* Semaphore.make(1),
      isTransaction: () => db.isTransaction
    })
    return yield* Client.make({
      ...acquirers,
      compiler: Statement.makeCompilerSqlite(),
      // A transaction that reads first and then writes would fail if another process has written in between.
      beginTransaction: "BEGIN IMMEDIATE",
      releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
      prepareTransactionControls: true,
      driver: "sluice-node-sqlite",
      spanAttributes: [["db.system.name", "sqlite"]]
    })
  })

const open = (filename: string): DatabaseSync => {
  // SQLite would make a file that others can read. Its other files get the same mode.
  if (filename !== ":memory:") closeSync(openSync(filename, "a", 0o600))
  const db = new DatabaseSync(filename, { timeout: 0 })
  try {
    // A write-ahead log lets other processes read while one writes. Synchronised at checkpoints, it survives a killed process; a
    // power cut can lose the last transactions.
    db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

const connectionTo = (
  db: DatabaseSync,
  whenFree: <A>(run: Effect.Effect<A, SqlError>) => Effect.Effect<A, SqlError>
): Connection => {
  const prepared = new Map<string, StatementSync>()
  const prepare = (sql: string): StatementSync => {
    let statement = prepared.get(sql)
    if (statement === undefined) {
      statement = db.prepare(sql)
      const [oldest] = prepared.keys()
      if (prepared.size >= preparedStatements && oldest !== undefined) prepared.delete(oldest)
      prepared.set(sql, statement)
    }
    return statement
  }
  const run = <A>(sql: string, params: ReadonlyArray<unknown>, use: (rows: StatementSync, params: Params) => A) =>
    whenFree(Effect.withFiber<A, SqlError>((fiber) => {
      const readBigInts = Context.get(fiber.context, Client.SafeIntegers)
      return attempt("execute", () => {
        const statement = prepare(sql)
        statement.setReadBigInts(readBigInts)
        // SQLite refuses what it cannot store.
        return use(statement, params as Params)
      })
    }))
  const all = (sql: string, params: ReadonlyArray<unknown>) =>
    run(sql, params, (statement, params): ReadonlyArray<Row> => statement.all(...params))
  const values = (sql: string, params: ReadonlyArray<unknown>) =>
    run(sql, params, (statement, params) => {
      statement.setReturnArrays(true)
      try {
        // `setReturnArrays` is not known to the types.
        return statement.all(...params) as unknown as ReadonlyArray<ReadonlyArray<unknown>>
      } finally {
        statement.setReturnArrays(false)
      }
    })
  const execute: Connection["execute"] = (sql, params, transformRows) =>
    transformRows === undefined ? all(sql, params) : Effect.map(all(sql, params), transformRows)
  return {
    execute,
    executeUnprepared: execute,
    executeRaw: (sql, params) => run(sql, params, (statement, params) => statement.run(...params)),
    executeValues: values,
    executeValuesUnprepared: values,
    // Reads all rows at once. A statement that stays open would keep the file locked.
    executeStream: (sql, params, transformRows) => Stream.fromIterableEffect(execute(sql, params, transformRows))
  }
}

type Params = ReadonlyArray<SQLInputValue>
type Row = ReturnType<StatementSync["all"]>[number]

const attempt = <A>(operation: string, run: () => A): Effect.Effect<A, SqlError> =>
  Effect.try({
    try: run,
    catch: (cause) =>
      new SqlError({
        reason: classifySqliteError(withCode(cause), { message: `SQLite could not ${operation}`, operation })
      })
  })

/** The classifier looks for the result code in `errno`; `node:sqlite` has it in `errcode`. */
const withCode = (cause: unknown): unknown =>
  cause instanceof Error && "errcode" in cause ? Object.assign(cause, { errno: cause.errcode }) : cause

const retryBusy = (busyMillis: number) => {
  // Other processes mostly hold the lock for less than a millisecond.
  const schedule = Schedule.jittered(Schedule.spaced("1 millis")).pipe(Schedule.upTo({ duration: busyMillis }))
  return <A>(run: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> =>
    Effect.retry(run, { schedule, while: ({ reason }) => reason._tag === "LockTimeoutError" })
}
