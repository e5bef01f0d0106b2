import { assert } from "@effect/vitest"
import * as Quota from "@sluice/core/Quota"
import { QuotaStore } from "@sluice/core/QuotaStore"
import * as SqlCircuitBreakerStore from "@sluice/sql/SqlCircuitBreakerStore"
import * as SqlQuotaStore from "@sluice/sql/SqlQuotaStore"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Effect, Random } from "effect"
import { once } from "node:events"
import { createServer, type Socket } from "node:net"
import { atOnce, quotaOptions } from "./fixtures/caller.ts"
import { circuitOf } from "./support/circuit.ts"
import { describeWithBoth } from "./support/databases.ts"
import { kill, spawnFixture } from "./support/process.ts"

// How many processes are killed. More kills find more.
const kills = Number(process.env["SLUICE_SOAK_KILLS"] ?? 3)

/** A provider with a call for each connection. It is the witness: it counts calls where they arrive. */
const startProvider = Effect.acquireRelease(
  Effect.promise(async () => {
    const calls = new Set<Socket>()
    const seen = { calls: 0, mostAtOnce: 0, isDown: false }
    const server = createServer((socket) => {
      const nth = ++seen.calls
      const answer = seen.isDown ? "0" : "1"
      calls.add(socket)
      seen.mostAtOnce = Math.max(seen.mostAtOnce, calls.size)
      const timer = setTimeout(() => {
        // The call ends here for the provider, before the process hears of it.
        calls.delete(socket)
        socket.end(answer)
      }, nth % 20 === 0 ? 300 : 5)
      socket.on("error", () => {}).on("close", () => {
        clearTimeout(timer)
        calls.delete(socket)
      }).resume()
    })
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    return { server, seen, port: (server.address() as { readonly port: number }).port }
  }),
  ({ server }) => Effect.sync(() => server.close())
)

const startProcess = (port: number) =>
  Effect.gen(function*() {
    const child = yield* spawnFixture("caller", `${port}`, "4")
    yield* Effect.promise(() => once(child.stdout, "data"))
    return child
  })

await describeWithBoth("processes that are killed at random", (it) => {
  it.effect("they never exceed a limit at once, and their calls and circuits recover", () =>
    Effect.gen(function*() {
      yield* SqlStores.migrate()
      const store = yield* SqlCircuitBreakerStore.make()
      const { read } = circuitOf(store, "provider")
      const { port, seen } = yield* startProvider
      const start = startProcess(port)
      const processes = yield* Effect.all([start, start, start], { concurrency: 3 })
      let opened = 0
      for (let nth = 0; nth < kills; nth++) {
        seen.isDown = nth % 2 === 0
        yield* Effect.sleep(yield* Random.nextIntBetween(300, 900))
        if ((yield* read).control._tag === "Open") opened++
        const victim = yield* Random.nextIntBetween(0, 3, { halfOpen: true })
        yield* kill(processes[victim]!)
        processes[victim] = yield* start
      }
      seen.isDown = false
      const before = seen.calls
      // A killed process may have held a probe slot or a permit until the end of its lease.
      yield* read.pipe(
        Effect.delay("50 millis"),
        Effect.repeat({ until: ({ control }) => control._tag === "Closed" && seen.calls > before + 50 }),
        Effect.timeout("50 seconds")
      )
      for (const one of processes) yield* kill(one)
      assert.isAtMost(seen.mostAtOnce, atOnce)
      assert.isAbove(seen.mostAtOnce, 1)
      assert.isAbove(opened, 0)
      // All places are free when the last leases have ended.
      const quotas = yield* SqlQuotaStore.make()
      const quota = yield* Effect.provideService(Quota.make(quotaOptions), QuotaStore, quotas)
      const all = Effect.all(Array.from({ length: atOnce }, () => quota.reserve({ key: "account" })), {
        concurrency: "unbounded"
      })
      yield* Effect.timeout(all, "30 seconds")
    }).pipe(Effect.scoped), { timeout: 150_000 + kills * 5_000 })
})
