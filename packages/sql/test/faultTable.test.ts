import { assert, it } from "@effect/vitest"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Effect, Layer, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import { randomUUID } from "node:crypto"
import { afterAll } from "vitest"
import { makeClock } from "../../../test/support/faults/clock.ts"
import { startProxy } from "../../../test/support/faults/proxy.ts"
import { describeFaults, recoveredIsUsedAgain, type Rig } from "../../../test/support/faults/suite.ts"
import { servers } from "../../../test/support/faults/table.ts"
import { isInstalled, type ServerOptions, startServer } from "./support/server.ts"

const noServer = "Postgres is not installed"

const start = async (options?: ServerOptions) => (await startServer(options)) ?? assert.fail(noServer)

const portOf = (url: string) => Number(new URL(url).port)

const serverOf = (options: ServerOptions) =>
  Effect.acquireRelease(Effect.promise(() => start(options)), (server) => Effect.sync(() => server.stop()))

/** Runs a statement, past the proxy. */
const run = (port: number, database: string, ...statements: ReadonlyArray<string>) =>
  SqlClient.SqlClient.use((sql) =>
    Effect.forEach(statements, (statement) => sql.unsafe<{ readonly value: unknown }>(statement))
  ).pipe(
    Effect.map((rows) => rows.at(-1)?.[0]?.value),
    Effect.provide(SqlDatabase.layer({ url: urlOf(port, database), connections: 1 }), { local: true }),
    Effect.orDie
  )

const urlOf = (port: number, database: string) => `postgres://postgres@127.0.0.1:${port}/${database}`

const databaseOf = (port: number, database: string) => SqlDatabase.layer({ url: urlOf(port, database), connections: 3 })

const migrate = (port: number, database: string) =>
  SqlStores.migrate().pipe(Effect.provide(databaseOf(port, database), { local: true }), Effect.orDie)

/** The server of the faults that need none of their own. Each has a database. */
const shared = isInstalled() ? await start() : undefined
if (shared !== undefined) afterAll(shared.stop)

const needsOwn = (fault: keyof typeof servers) =>
  fault === "failover" || fault === "clockForward" || fault === "clockBack"

const rigOf = (fault: keyof typeof servers) =>
  Effect.gen(function*() {
    const clock = makeClock() ?? assert.fail("no compiler for C")
    yield* Effect.addFinalizer(() => Effect.sync(clock.remove))
    const server = needsOwn(fault) ? yield* serverOf({ env: clock.env }) : shared ?? assert.fail(noServer)
    const port = portOf(server.url)
    const database = `faults_${randomUUID().replaceAll("-", "")}`
    yield* run(port, "postgres", `CREATE DATABASE ${database}`)
    yield* migrate(port, database)
    const proxy = yield* startProxy(port)
    const nothing = Effect.void
    const rig = (begin: Effect.Effect<unknown>, end: Effect.Effect<unknown> = nothing): Rig => ({
      stores: SqlStores.layer().pipe(Layer.provide(databaseOf(proxy.port, database))),
      begin: Effect.asVoid(begin),
      end: Effect.asVoid(end)
    })
    const passes = proxy.set("passes")
    const hangUp = proxy.moveTo(port)
    const admin = (...statements: ReadonlyArray<string>) => run(port, "postgres", ...statements)
    switch (fault) {
      case "refuses":
        return rig(proxy.set("refuses"), passes)
      case "slow":
        return rig(proxy.set("slow"), passes)
      case "replyLost":
        return rig(proxy.set("losesReplies"), passes)
      case "restartedEmpty":
        // Without tables, as from another data directory, until they are made.
        return rig(
          admin(`DROP DATABASE ${database} WITH (FORCE)`, `CREATE DATABASE ${database}`),
          migrate(port, database)
        )
      case "flushed":
        return rig(run(
          port,
          database,
          `DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT tablename FROM pg_tables WHERE tablename LIKE 'sluice\\_%' AND tablename NOT LIKE '%migrations%'
            LOOP EXECUTE 'TRUNCATE ' || name; END LOOP; END $$`
        ))
      case "readOnly":
        // New sessions have the setting, so the old ones end.
        return rig(
          Effect.andThen(admin(`ALTER DATABASE ${database} SET default_transaction_read_only = on`), hangUp),
          Effect.andThen(admin(`ALTER DATABASE ${database} RESET default_transaction_read_only`), hangUp)
        )
      case "clockForward":
        return rig(Effect.sync(() => clock.set(3_600)))
      case "clockBack":
        return rig(Effect.sync(() => clock.set(-3_600)))
      case "processClocks":
        return rig(nothing)
      case "failover": {
        const replica = portOf((yield* serverOf({ replicaOf: port })).url)
        // All that was written has arrived, or the test would be about what was lost.
        const isReplicated = Effect.gen(function*() {
          const written = yield* run(port, "postgres", "SELECT pg_current_wal_insert_lsn()::text AS value")
          const behind = `SELECT pg_last_wal_replay_lsn() < '${String(written)}'::pg_lsn AS value`
          if ((yield* run(replica, "postgres", behind)) === true) return yield* Effect.fail("behind" as const)
        }).pipe(Effect.retry(Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(200)])), Effect.orDie)
        return rig(
          isReplicated.pipe(
            Effect.andThen(Effect.sync(() => server.crash())),
            Effect.andThen(proxy.moveTo(replica))
          ),
          run(replica, "postgres", "SELECT pg_promote()")
        )
      }
    }
  })

if (shared === undefined && process.env["CI"] !== "true") {
  process.stderr.write(`faults of Postgres: skipped, ${noServer}\n`)
  it.skip(`faults of Postgres: ${noServer}`, () => {})
} else {
  describeFaults("Postgres", servers, rigOf)

  it.live("a recovered shared circuit is used again by every process within its own retryAfter", () =>
    Effect.flatMap(rigOf("processClocks"), ({ stores }) => recoveredIsUsedAgain(stores)).pipe(Effect.scoped))
}
