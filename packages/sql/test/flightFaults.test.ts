import { assert, it } from "@effect/vitest"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlFlightStore from "@sluice/sql/SqlFlightStore"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Deferred, Effect, Fiber, Layer, Logger, Schema } from "effect"
import { SqlClient } from "effect/sql"
import { type OwnServer, startServer } from "./support/server.ts"
import { within } from "../../../test/support/within.ts"

const Answer = Deduplicator.operation<string>()("answer", {
  key: (text: string) => text,
  timeToLive: "1 hour",
  success: Schema.String
})

const noServer = "Postgres is not installed"

const ownServer = Effect.acquireRelease(
  Effect.promise(() => startServer()),
  (server) => Effect.sync(() => server?.stop())
).pipe(
  Effect.tap((server) =>
    Effect.sync(() => {
      if (server !== undefined) return
      assert.notStrictEqual(process.env["CI"], "true", noServer)
      process.stderr.write(`faults of Postgres: skipped, ${noServer}\n`)
    })
  )
)

type Fault = (server: OwnServer, sql: SqlClient.SqlClient) => Effect.Effect<unknown, unknown>

/** What happens to Postgres while one process leads and another follows. */
const faults: { readonly [fault: string]: Fault } = {
  "crashes": (server) => Effect.sync(server.crash),
  "freezes": (server) => Effect.sync(() => server.freeze(true)),
  "becomes read-only": (_, sql) =>
    Effect.andThen(
      sql.unsafe("ALTER SYSTEM SET default_transaction_read_only = on"),
      sql.unsafe("SELECT pg_reload_conf()")
    ),
  "loses the rows": (_, sql) => sql.unsafe("TRUNCATE sluice_flights")
}

for (const [fault, happen] of Object.entries(faults)) {
  it.live(
    `a Postgres that ${fault} during a flight fails no call, and costs one call more`,
    () =>
      Effect.gen(function*() {
        const server = yield* ownServer
        if (server === undefined) return
        yield* Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const make = Deduplicator.make({ shared: true })
          const [a, b] = [yield* make, yield* make]
          const finish = yield* Deferred.make<void>()
          let calls = 0
          const call = Effect.suspend(() =>
            Effect.as(calls++ === 0 ? Deferred.await(finish) : Effect.void, `answer ${calls}`)
          )
          const leader = yield* Effect.forkChild(a.dedupe(call, Answer("x")), { startImmediately: true })
          yield* Effect.repeat(Effect.sleep(5), { until: () => calls === 1 })
          const follower = yield* Effect.forkChild(b.dedupe(call, Answer("x")), { startImmediately: true })
          yield* Effect.sleep(200)
          assert.strictEqual(calls, 1)
          yield* happen(server, sql)
          assert.strictEqual(yield* within(Fiber.join(follower), 5_000), "answer 2")
          yield* Deferred.succeed(finish, undefined)
          // Nor does the leader wait for the store before it answers.
          assert.strictEqual(yield* within(Fiber.join(leader), 500), "answer 1")
          assert.strictEqual(calls, 2)
        }).pipe(
          Effect.ensuring(Effect.sync(() => fault === "freezes" && server.freeze(false))),
          Effect.scoped,
          Effect.provide(
            SqlFlightStore.layer().pipe(
              Layer.provideMerge(Layer.effectDiscard(SqlStores.migrate())),
              Layer.provideMerge(SqlDatabase.layer({ url: server.url }))
            )
          ),
          Effect.provide(Logger.layer([]))
        )
      }),
    { timeout: 300_000 }
  )
}
