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
import { closeSync, openSync, type Stats, statSync } from "node:fs"
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite"

/** How many statements stay prepared. Ours are fewer. */
const preparedStatements = 200

/**
 * Opens a file, or `:memory:`, with one connection. Statements of several fibers run one after the other.
 *
 * A statement that finds the file locked by another process is repeated for `busyMillis`. The event loop runs meanwhile: SQLite's own
 * busy timeout would block it.
 *
 * A missing file is made here, and nowhere else. A file that cannot be opened does not fail the client: each statement tries again.
 */
export const make = (
  { busyMillis, filename }: { readonly filename: string; readonly busyMillis: number }
): Effect.Effect<Client.SqlClient, SqlError, Scope.Scope | Reactivity.Reactivity> =>
  Effect.gen(function*() {
    const whenFree = retryBusy(busyMillis)
    if (filename !== inMemory) yield* attempt("make the file", () => makeFile(filename))
    const database = yield* Effect.acquireRelease(
      Effect.sync(() => new Database(filename, whenFree)),
      (database) => Effect.sync(() => database.close())
    )
    const connection = Effect.suspend(() =>
      database.isReady() ? database.ready : whenFree(attempt("open", () => database.open()))
    )
    yield* filename === inMemory ? connection : Effect.ignore(connection)
    const acquirers = Client.makeSqliteAcquirers({
      connection,
      semaphore: yield* Semaphore.make(1),
      isTransaction: () => database.isTransaction
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

const inMemory = ":memory:"

/** Makes the file if it is missing. SQLite would make one that others can read. Its other files get the same mode. */
const makeFile = (filename: string): void => {
  try {
    // Opens no file that exists: closing it again would end the locks that another connection of this process has on it.
    closeSync(openSync(filename, "ax", 0o600))
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error
  }
}

/** The result codes after which the file is opened again: READONLY, IOERR, CORRUPT, CANTOPEN and NOTADB. */
const reopenAfter = new Set([8, 10, 11, 14, 26])

/** The file, and the connection to it while it is open. */
class Database {
  /** Not to be used before `isReady`. */
  ready: Effect.Effect<Connection> = Effect.die("the database is not open")
  private readonly filename: string
  private readonly whenFree: WhenFree
  private opened: { readonly db: DatabaseSync; readonly id: string | undefined } | undefined
  private hasFailed = false

  constructor(filename: string, whenFree: WhenFree) {
    this.filename = filename
    this.whenFree = whenFree
  }

  get isTransaction(): boolean {
    return this.opened?.db.isTransaction ?? false
  }

  /** Whether the connection is open, and leads to the file that has the name now. */
  isReady(): boolean {
    return this.opened !== undefined && !this.hasFailed && (this.filename === inMemory || this.opened.id === this.id())
  }

  open(): Connection {
    this.close()
    // Throws if the file is missing. A new one would have no tables, and be in the way of one that is restored.
    const id = this.filename === inMemory ? undefined : idOf(statSync(this.filename))
    const db = open(this.filename)
    const connection = connectionTo(db, this.whenFree, (code) => {
      if (reopenAfter.has(code & 0xff) && this.filename !== inMemory) this.hasFailed = true
    })
    this.opened = { db, id }
    this.hasFailed = false
    this.ready = Effect.succeed(connection)
    return connection
  }

  close(): void {
    const db = this.opened?.db
    this.opened = undefined
    db?.close()
  }

  private id(): string | undefined {
    const stats = statSync(this.filename, { throwIfNoEntry: false })
    return stats && idOf(stats)
  }
}

const idOf = ({ dev, ino }: Stats): string => `${dev} ${ino}`

const open = (filename: string): DatabaseSync => {
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
  whenFree: WhenFree,
  onFailure: (code: number) => void
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
        try {
          const statement = prepare(sql)
          statement.setReadBigInts(readBigInts)
          // SQLite refuses what it cannot store.
          return use(statement, params as Params)
        } catch (error) {
          onFailure(resultCode(error))
          throw error
        }
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

/** The result code of SQLite. 0 without one. */
const resultCode = (error: unknown): number =>
  error instanceof Error && "errcode" in error && typeof error.errcode === "number" ? error.errcode : 0

type WhenFree = <A>(run: Effect.Effect<A, SqlError>) => Effect.Effect<A, SqlError>

const retryBusy = (busyMillis: number): WhenFree => {
  // Other processes mostly hold the lock for less than a millisecond.
  const schedule = Schedule.jittered(Schedule.spaced("1 millis")).pipe(Schedule.upTo({ duration: busyMillis }))
  return (run) => Effect.retry(run, { schedule, while: ({ reason }) => reason._tag === "LockTimeoutError" })
}
