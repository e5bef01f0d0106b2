import { assert } from "@effect/vitest"
import * as Migrations from "@sluice/sql/Migrations"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { createServer } from "node:net"
import { describeWithPostgres, Place } from "../../sql/test/support/databases.ts"
import * as DatabaseError from "../src/DatabaseError.ts"

const connect = (url: string) =>
  SqlClient.SqlClient.use((sql) => sql<{ user: string }>`SELECT current_user AS user`).pipe(
    Effect.provide(SqlDatabase.layer({ url }), { local: true })
  )

const described = (url: string) => Effect.map(Effect.flip(connect(url)), DatabaseError.describe)

await describeWithPostgres("an error of a database", (it) => {
  it.effect("it says what of the URL is wrong and what to do, and has no password", () =>
    Effect.gen(function*() {
      const { url } = yield* Place
      const changed = (change: (url: URL) => void) => {
        const copy = new URL(url)
        copy.password = "canary"
        change(copy)
        return copy.href
      }
      const cases: ReadonlyArray<readonly [url: string, ...words: ReadonlyArray<string>]> = [
        ["postgres://u:canary@127.0.0.1:1/d", "no server answers there; start it"],
        ["postgres://u:canary@none.invalid/d", "host", "check"],
        ["postgres://u:canary@127.0.0.1:1/d?sslmode=canary", "the sslmode of the URL is unknown; use"],
        ["postgres://u:canary@localhost/d?host=/none/canary", "no server has its socket there; start it"],
        [changed((url) => url.pathname = "/absent_canary"), "there is no such database; name another one"],
        // The URL of a socket has its user in a parameter.
        [
          changed((url) => {
            if (url.searchParams.has("user")) url.searchParams.set("user", "absent")
            else url.username = "absent"
          }),
          "user"
        ]
      ]
      for (const [url, ...words] of cases) {
        const message = yield* described(url)
        for (const word of words) assert.include(message, word)
        assert.notInclude(message, "canary")
      }
    }))

  it.effect("a server that is none of Postgres is said to be none", () =>
    Effect.gen(function*() {
      const port = yield* Effect.acquireRelease(
        Effect.callback<{ close: () => void; port: number }>((resume) => {
          const server = createServer((socket) => void socket.on("error", () => {}))
          server.listen(0, "127.0.0.1", () => {
            const address = server.address()
            const port = typeof address === "object" && address !== null ? address.port : 0
            resume(Effect.succeed({ port, close: () => server.close() }))
          })
        }),
        ({ close }) => Effect.sync(close)
      )
      const message = yield* described(`postgres://u@127.0.0.1:${port.port}/d?connect_timeout=1`)
      assert.strictEqual(message, "no server of Postgres answers there; check the host and the port")
    }).pipe(Effect.scoped))

  it.effect("a file that is none of SQLite needs no other role", () =>
    Effect.sync(() => {
      const failed = new Migrations.MigrationFailed({ migrations: "batch", description: "it is no file of SQLite" })
      assert.strictEqual(DatabaseError.describe(failed), "it is no file of SQLite")
    }))
})
