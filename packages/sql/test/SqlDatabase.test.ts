import { assert, describe, it } from "@effect/vitest"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import { Config, ConfigProvider, Context, Effect, Exit, Fiber, Layer, Redacted } from "effect"
import { SqlClient } from "effect/sql"
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync } from "node:fs"
import { tmpdir, userInfo } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { vi } from "vitest"
import { describeWithBoth, describeWithPostgres, Place } from "./support/databases.ts"

const build = (options: SqlDatabase.SqlDatabaseOptions) => Effect.scoped(Layer.build(SqlDatabase.layer(options)))

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "sluice-sqlite-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
)

describe("a URL", () => {
  const refused: ReadonlyArray<readonly [url: string, shown: string]> = [
    ["mysql://root:hunter2@db/app", "mysql:..."],
    ["https://db/app?password=hunter2", "https:..."],
    ["postgres://u:hunter2@[", "postgres:..."],
    ["sqlite:", "sqlite:..."],
    ["", "\"\""]
  ]
  for (const [url, shown] of refused) {
    it.effect(`${shown} is refused, without showing more of it`, () =>
      Effect.gen(function*() {
        for (const given of [url, Redacted.make(url)]) {
          const error = yield* Effect.flip(build({ url: given }))
          assert.strictEqual(error._tag, "InvalidOptions")
          assert.include(
            error.message,
            `SqlDatabase: url is ${shown}; must be postgres://HOST/DATABASE, sqlite:FILE or the path of a file of SQLite`
          )
          assert.notInclude(JSON.stringify(error), "hunter2")
        }
      }))
  }

  it.effect("wrong options are refused all at once", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(build({ url: "ftp://db", connections: 0, busyTimeout: "2 days" }))
      assert.strictEqual(error._tag === "InvalidOptions" ? error.issues.length : 0, 3)
    }))

  it.effect("a Postgres that is down does not fail the layer, only its statements", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const error = yield* Effect.flip(sql`SELECT 1`)
      assert.strictEqual(error.reason._tag, "ConnectionError")
    }).pipe(Effect.provide(SqlDatabase.layer({ url: "postgres://postgres@127.0.0.1:9/none" }))))

  it.effect("a path is a file of SQLite, which is readable by its owner only", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "a store.db")
      const one = SqlClient.SqlClient.use((sql) => sql`SELECT 1`)
      yield* Effect.provide(one, SqlDatabase.layer({ url: file }))
      assert.strictEqual(statSync(file).mode & 0o777, 0o600)
    }))

  it.effect("a file in a folder that does not exist fails the layer", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(build({ url: `sqlite:${join(yield* folder, "none", "store.db")}` }))
      assert.strictEqual(error._tag, "SqlError")
    }))

  it.effect("a URL comes from the configuration", () =>
    SqlClient.SqlClient.use((sql) => Effect.sync(() => assert.strictEqual(sql.driver, "sluice-node-sqlite"))).pipe(
      Effect.provide(SqlDatabase.layerConfig({ url: Config.Redacted("STORE") })),
      Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown({ STORE: "sqlite::memory:" }))
    ))
})

await describeWithPostgres("a URL of Postgres without a user", (it) => {
  it.effect("it connects as the user of the operating system, also where USER is not set or is another", () =>
    Effect.gen(function*() {
      const { url } = yield* Place
      const withoutUser = new URL(url)
      withoutUser.username = ""
      withoutUser.password = ""
      // The URL of a socket has its user in a parameter.
      withoutUser.searchParams.delete("user")
      for (const user of [undefined, "", "someone_else"]) {
        vi.stubEnv("USER", user)
        vi.stubEnv("USERNAME", undefined)
        const exit = yield* Effect.exit(
          SqlClient.SqlClient.use((sql) => sql<{ name: string }>`SELECT current_user AS name`).pipe(
            Effect.provide(SqlDatabase.layer({ url: withoutUser.href }), { local: true })
          )
        )
        // A server may have no role of this name. It says so by the name that it was given.
        const asked = Exit.isSuccess(exit) ? exit.value[0]?.name : String(exit.cause)
        assert.include(asked, userInfo().username)
      }
    }).pipe(Effect.ensuring(Effect.sync(() => vi.unstubAllEnvs()))))
})

await describeWithBoth("a database", (it) => {
  it.effect("a transaction that fails changes nothing", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE rolled (id integer PRIMARY KEY)`
      const insert = sql`INSERT INTO rolled VALUES (1)`
      yield* Effect.ignore(sql.withTransaction(Effect.andThen(insert, Effect.fail("no"))))
      assert.lengthOf(yield* sql`SELECT * FROM rolled`, 0)
      yield* sql.withTransaction(Effect.andThen(
        insert,
        Effect.ignore(sql.withTransaction(Effect.andThen(sql`INSERT INTO rolled VALUES (2)`, Effect.fail("inner"))))
      ))
      assert.deepStrictEqual((yield* sql<{ id: number }>`SELECT id FROM rolled`).map(({ id }) => id), [1])
    }))

  it.effect("two connections that write at once both succeed", () =>
    Effect.gen(function*() {
      const { url } = yield* Place
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE counted (n integer)`
      yield* sql`INSERT INTO counted VALUES (0)`
      const add = SqlClient.SqlClient.use((sql) =>
        Effect.repeat(
          sql.withTransaction(
            Effect.andThen(Effect.yieldNow, sql`UPDATE counted SET n = n + 1`)
          ),
          { times: 49 }
        )
      ).pipe(Effect.provide(SqlDatabase.layer({ url }), { local: true }))
      yield* Effect.all([add, add, add], { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* sql`SELECT n FROM counted`.values, [[150]])
    }))
})

describe("a file of SQLite", () => {
  const sqlOf = (url: string) =>
    Effect.map(
      Layer.build(Layer.fresh(SqlDatabase.layer({ url, busyTimeout: "50 millis" }))),
      (context) => Context.get(context, SqlClient.SqlClient)
    )

  it.live("a file that is locked when the program starts fails statements, not the layer, until it is free", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "store.db")
      const holder = new DatabaseSync(file)
      holder.exec("BEGIN EXCLUSIVE")
      const sql = yield* sqlOf(file)
      assert.strictEqual((yield* Effect.flip(sql`SELECT 1`)).reason._tag, "LockTimeoutError")
      holder.close()
      assert.lengthOf(yield* sql`SELECT 1`, 1)
    }))

  it.live("a file that was deleted fails statements, which do not make another, until there is one", () =>
    Effect.gen(function*() {
      const file = join(yield* folder, "store.db")
      const sql = yield* sqlOf(file)
      yield* sql`CREATE TABLE kept (n integer)`
      for (const end of ["", "-wal", "-shm"]) rmSync(file + end, { force: true })
      yield* Effect.flip(sql`SELECT n FROM kept`)
      assert.isFalse(existsSync(file))
      const other = yield* sqlOf(file)
      yield* other`CREATE TABLE other (n integer)`
      assert.lengthOf(yield* sql`SELECT n FROM other`, 0)
    }))

  it.live("a file that was replaced by another is that one for the next statement", () =>
    Effect.gen(function*() {
      const place = yield* folder
      const [file, restored] = [join(place, "store.db"), join(place, "restored.db")]
      const sql = yield* sqlOf(file)
      yield* sql`CREATE TABLE old (n integer)`
      const backup = new DatabaseSync(restored)
      backup.exec("CREATE TABLE restored (n integer)")
      backup.close()
      for (const end of ["-wal", "-shm"]) rmSync(file + end, { force: true })
      renameSync(restored, file)
      assert.lengthOf(yield* sql`SELECT n FROM restored`, 0)
    }))

  it.live("another client of the process leaves the locks on the file as they are", () =>
    Effect.gen(function*() {
      // Without them another process takes itself for the last user of the file, and deletes its log.
      if (!existsSync("/proc/locks")) return
      const file = join(yield* folder, "store.db")
      const sql = yield* sqlOf(file)
      yield* sql`CREATE TABLE kept (n integer)`
      const { ino } = statSync(file)
      const locks = () => readFileSync("/proc/locks", "utf8").split("\n").filter((line) => line.includes(`:${ino} `))
      assert.lengthOf(locks(), 1)
      yield* sqlOf(file)
      assert.lengthOf(locks(), 1)
    }))
})

describe("a file of SQLite that another program has locked", () => {
  it.live("a statement waits for busyTimeout without blocking the event loop, then fails", () =>
    Effect.gen(function*() {
      const url = join(yield* folder, "store.db")
      const holder = yield* Layer.build(SqlDatabase.layer({ url }))
      const waiter = yield* Layer.build(Layer.fresh(SqlDatabase.layer({ url, busyTimeout: "200 millis" })))
      const lock = SqlClient.SqlClient.use((sql) => sql.withTransaction(Effect.sleep("2 seconds")))
      const held = yield* Effect.forkScoped(Effect.provide(lock, holder))
      const write = SqlClient.SqlClient.use((sql) => sql`CREATE TABLE waited (id integer)`)
      yield* Effect.yieldNow
      let turns = 0
      const turn = Effect.repeat(Effect.andThen(Effect.sleep(5), Effect.sync(() => turns++)), { times: 1_000 })
      const turning = yield* Effect.forkScoped(turn)
      const error = yield* Effect.flip(Effect.provide(write, waiter))
      assert.strictEqual(error.reason._tag, "LockTimeoutError")
      assert.isAbove(turns, 3)
      yield* Fiber.interrupt(held)
      yield* Fiber.interrupt(turning)
      yield* Effect.provide(write, waiter)
    }))
})
