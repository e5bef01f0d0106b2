import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlFlightStore from "@sluice/sql/SqlFlightStore"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Process from "../packages/cli/test/support/command.ts"
import { lines, write } from "../packages/cli/test/support/files.ts"
import { over } from "../packages/cli/test/support/gateway.ts"
import { says } from "../packages/cli/test/support/provider.ts"
import type { Server } from "../packages/sql/test/support/server.ts"
import * as Postgres from "../packages/sql/test/support/server.ts"
import * as PgBouncer from "./support/pgbouncer.ts"

// What docs/stores.md says about PgBouncer, on a Postgres and a PgBouncer of this test.

const against = !PgBouncer.isInstalled()
  ? "no pgbouncer is installed"
  : Postgres.isInstalled()
  ? undefined
  : "no Postgres is installed"
if (against !== undefined) process.stderr.write(`behind PgBouncer: skipped, ${against}\n`)

const answered = 60
const atOnce = 4

describe.skipIf(against !== undefined)("behind PgBouncer", { timeout: 240_000 }, () => {
  let folder = ""
  let server: Server | undefined
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "sluice-pooler-"))
    server = await Postgres.startServer()
  })
  afterAll(() => {
    server?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  it.live.each(["transaction", "session"] as const)(
    "with pool_mode = %s, tables are made, a batch of two workers ends though one is killed, circuits are held, and flights are shared",
    (mode) =>
      Effect.gen(function*() {
        const database = `sluice_${mode}`
        yield* SqlClient.SqlClient.use((sql) => sql.unsafe(`CREATE DATABASE ${database}`)).pipe(
          Effect.provide(SqlDatabase.layer({ url: server?.url ?? "" }))
        )
        const behind = new URL(`/${database}`, server?.url).href
        const port = 30_000 + process.pid % 10_000 + (mode === "session" ? 10_000 : 0)
        const { url } = yield* Effect.acquireRelease(
          Effect.promise(() => PgBouncer.start(folder, behind, mode, port)),
          ({ stop }) => Effect.sync(stop)
        )
        const env = { SLUICE_BATCHES: url, SLUICE_STORE: url, NO_COLOR: "1" }
        const sluice = (...args: ReadonlyArray<string>) =>
          Effect.map(Effect.promise(() => Process.run(args, env, folder)), ({ code, stderr, stdout }) => {
            assert.strictEqual(code, 0, stderr)
            return stdout
          })
        yield* sluice("migrate", url)

        let come = 0
        const provider = yield* LoopbackProvider.make({
          turns: () => {
            come++
            return Turn.answer("Yes", { firstTokenMillis: 300 })
          }
        })
        const targets = over(provider)
        const limits = ["--concurrency", String(atOnce), "--rpm", "10000", "--processes", "2"]
        const worker = Effect.gen(function*() {
          const command = yield* Effect.acquireRelease(
            Effect.sync(() =>
              Process.start(["batch", "work", ...targets.args, ...limits], { ...env, ...targets.env }, folder)
            ),
            ({ process }) => Effect.sync(() => process.kill("SIGKILL"))
          )
          yield* says(command, "\"event\":\"started\"")
          return command
        })
        const [first] = yield* Effect.all([worker, worker], { concurrency: 2 })
        write(join(folder, `${mode}.jsonl`), lines(answered))
        const id = (yield* sluice("batch", "submit", `${mode}.jsonl`, "--model", "m")).trim()
        const begun = Effect.gen(function*() {
          for (let tries = 0; tries < 600; tries++) {
            if (come >= 10) return
            yield* Effect.sleep("100 millis")
          }
          assert.fail(`${come} calls have come`)
        })
        yield* begun
        first.process.kill("SIGKILL")
        const results = (yield* sluice("batch", "results", id, "--follow")).trim().split("\n").map((line) =>
          JSON.parse(line)
        )
        assert.strictEqual(new Set(results.map(({ id }) => id)).size, answered)
        assert.deepStrictEqual(new Set(results.map(({ status }) => status)), new Set(["ok"]))
        assert.isAtMost(come, answered + atOnce)

        assert.include(yield* sluice("quotas", "list"), "requests/min")
        yield* sluice("circuits", "open", "a", "--reason", "the region moves")
        assert.match(yield* sluice("circuits", "list"), /gateway\/a +held open/)

        // Without LISTEN, followers ask again.
        const flights = Effect.gen(function*() {
          const store = yield* SqlFlightStore.make()
          assert.strictEqual(store.finished === undefined, mode === "transaction")
          const flight = { key: `eu-${mode}`, operation: "summary", tenant: "acme", leaseMillis: 60_000 }
          assert.strictEqual((yield* store.claim({ ...flight, id: "leader" }))._tag, "Lead")
          assert.strictEqual((yield* store.claim({ ...flight, id: "follower" }))._tag, "Follow")
        })
        yield* Effect.provide(flights, SqlDatabase.layer({ url }))
      })
  )
})
