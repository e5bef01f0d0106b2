import { assert } from "@effect/vitest"
import * as Deduplicator from "@sluice/core/Deduplicator"
import { FlightStore } from "@sluice/core/FlightStore"
import * as SqlFlightStore from "@sluice/sql/SqlFlightStore"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Effect, Schema } from "effect"
import { SqlClient } from "effect/sql"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { createServer } from "node:http"
import { describeWithBoth } from "./support/databases.ts"
import { kill, spawnFixture } from "./support/process.ts"

/** Answers each call with its number. It is the witness: it counts calls where they arrive. The first call hangs for longer. */
const startProvider = (firstMillis: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const seen = { calls: 0 }
      const server = createServer((_, response) => {
        const nth = ++seen.calls
        setTimeout(() => response.end(`answer ${nth}`), nth === 1 ? firstMillis : 200)
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      return { server, seen, port: (server.address() as { readonly port: number }).port }
    }),
    ({ server }) =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      })
  )

/** The first text that a process writes. */
const output = (child: ChildProcess): Promise<string> => once(child.stdout!, "data").then(([data]) => String(data))

const until = <R>(holds: Effect.Effect<boolean, unknown, R>) =>
  holds.pipe(
    Effect.delay("10 millis"),
    Effect.repeat({ until: (it) => it }),
    Effect.timeout("30 seconds"),
    Effect.orDie
  )

/** Whether the entry of this call is followed. It is the only one of its suite that has a lease. */
const isFollowed = SqlClient.SqlClient.use((sql) =>
  Effect.map(
    sql<{ n: unknown }>`SELECT count(*) AS n FROM sluice_flights WHERE ends > 0 AND followed = 1`,
    ([row]) => Number(row?.n) === 1
  )
)

/** What a process that comes later gets without a call. */
const stored = (text: string) =>
  Effect.gen(function*() {
    const Answer = Deduplicator.operation<string>()("answer", { key: (text: string) => text, success: Schema.String })
    const store = yield* SqlFlightStore.make()
    const { dedupe } = yield* Effect.provideService(Deduplicator.make({ shared: true }), FlightStore, store)
    return yield* dedupe(Effect.succeed("called"), Answer(text))
  })

await describeWithBoth("processes that share flights", (it) => {
  it.effect("the leader is killed, and of two followers one makes the call, which both get", () =>
    Effect.gen(function*() {
      yield* SqlStores.migrate()
      const { port, seen } = yield* startProvider(60_000)
      const start = spawnFixture("flight", `${port}`, "killed")
      const leader = yield* start
      yield* until(Effect.sync(() => seen.calls === 1))
      const followers = [yield* start, yield* start]
      const answers = followers.map(output)
      yield* until(isFollowed)
      yield* kill(leader)
      const both = Effect.timeout(Effect.promise(() => Promise.all(answers)), "20 seconds")
      assert.deepStrictEqual(yield* both, ["answer 2", "answer 2"])
      assert.strictEqual(seen.calls, 2)
    }))

  it.effect("a leader that was frozen for longer than its lease keeps its answer to itself", () =>
    Effect.gen(function*() {
      yield* SqlStores.migrate()
      const { port, seen } = yield* startProvider(1_000)
      const start = spawnFixture("flight", `${port}`, "frozen")
      const leader = yield* start
      const late = output(leader)
      yield* until(Effect.sync(() => seen.calls === 1))
      leader.kill("SIGSTOP")
      const follower = output(yield* start)
      const within = (answer: Promise<string>) => Effect.timeout(Effect.promise(() => answer), "20 seconds")
      assert.strictEqual(yield* within(follower), "answer 2")
      leader.kill("SIGCONT")
      assert.strictEqual(yield* within(late), "answer 1")
      // The completion of the leader is on its way when it has answered.
      yield* Effect.sleep("200 millis")
      assert.strictEqual(yield* stored("frozen"), "answer 2")
      assert.strictEqual(seen.calls, 2)
    }))
})
