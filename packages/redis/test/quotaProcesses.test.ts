import { assert } from "@effect/vitest"
import * as Quota from "@sluice/core/Quota"
import { QuotaStore } from "@sluice/core/QuotaStore"
import { Effect, Random } from "effect"
import { once } from "node:events"
import { createServer, type Socket } from "node:net"
import { createInterface } from "node:readline"
import { kill, spawnFixture } from "./support/process.ts"
import { describeWithRedis, Namespace } from "./support/redis.ts"
import * as RedisQuotaStore from "@sluice/redis/RedisQuotaStore"

/** A provider with a call for each connection. It is the witness: it counts calls where they arrive. */
const startProvider = (millisOf: (nth: number) => number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const calls = new Set<Socket>()
      const seen = { arrivals: Array<number>(), mostAtOnce: 0, longest: 0 }
      const server = createServer((socket) => {
        const startedAt = performance.now()
        seen.arrivals.push(startedAt)
        calls.add(socket)
        seen.mostAtOnce = Math.max(seen.mostAtOnce, calls.size)
        const timer = setTimeout(() => {
          // The call ends here for the provider, before the process hears of it.
          calls.delete(socket)
          seen.longest = Math.max(seen.longest, performance.now() - startedAt)
          socket.end()
        }, millisOf(seen.arrivals.length))
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

const startProcess = (port: number, options: Quota.QuotaOptions, concurrency: number) =>
  Effect.gen(function*() {
    const child = yield* spawnFixture("quota", `${port}`, JSON.stringify(options), `${concurrency}`)
    const lines = createInterface({ input: child.stdout })
    const next = () => once(lines, "line").then(([line]) => JSON.parse(String(line)) as unknown)
    yield* Effect.promise(next)
    /** Ends the input. The process finishes its calls, and returns its numbers. */
    const end = Effect.promise(() => {
      child.stdin.end()
      return next() as Promise<{ readonly calls: number; readonly sent: number }>
    })
    return { kill: kill(child), end }
  })

/** The most arrivals in any time of this length. */
const mostIn = (millis: number, arrivals: ReadonlyArray<number>): number => {
  const times = arrivals.toSorted((a, b) => a - b)
  let most = 0
  let first = 0
  for (const [last, time] of times.entries()) {
    while ((times[first] ?? 0) <= time - millis) first++
    most = Math.max(most, last - first + 1)
  }
  return most
}

await describeWithRedis("processes that share a quota", (it) => {
  it.effect(
    "processes that are killed at random never exceed a limit at once, and free their calls after the lease",
    () =>
      Effect.gen(function*() {
        // Some calls take longer than the lease, which the process has to renew.
        const { port, seen } = yield* startProvider((nth) => nth % 25 === 0 ? 4_500 : 5 + nth % 40)
        const options = { limits: [Quota.atOnce(8), Quota.requestsPerMinute(1_000_000)], burst: 0, lease: 2_000 }
        const start = startProcess(port, options, 4)
        const processes = yield* Effect.all([start, start, start, start], { concurrency: 4 })
        for (let kills = 0; kills < 6; kills++) {
          yield* Effect.sleep(yield* Random.nextIntBetween(200, 1_200))
          const victim = yield* Random.nextIntBetween(0, 4, { halfOpen: true })
          yield* processes[victim]!.kill
          processes[victim] = yield* start
        }
        yield* Effect.sleep(5_000)
        for (const one of processes) yield* one.kill
        assert.isAtMost(seen.mostAtOnce, 8)
        assert.isAbove(seen.mostAtOnce, 5)
        assert.isAbove(seen.arrivals.length, 100)
        assert.isAbove(seen.longest, 4_000)
        // All places are free when the last leases have ended.
        const { prefix } = yield* Namespace
        const store = yield* Effect.orDie(RedisQuotaStore.make({ prefix }))
        const quota = yield* Effect.provideService(Quota.make(options), QuotaStore, store)
        const all = Effect.all(Array.from({ length: 8 }, () => quota.reserve({ key: "account" })), { concurrency: 8 })
        yield* Effect.timeout(all, "30 seconds")
      }),
    { timeout: 400_000 }
  )

  it.effect(
    "four processes with slices use a limit up and never exceed it, with few requests to the store",
    () =>
      Effect.gen(function*() {
        const { port, seen } = yield* startProvider(() => 20)
        const options: Quota.QuotaOptions = {
          limits: [Quota.per("6 seconds", "requests", 3_000, { perCall: 1 })],
          burst: "3 seconds",
          slice: { life: 200 },
          processes: 4
        }
        const start = startProcess(port, options, 64)
        const processes = yield* Effect.all([start, start, start, start], { concurrency: 4 })
        yield* Effect.sleep("17 seconds")
        const numbers = yield* Effect.all(processes.map(({ end }) => end), { concurrency: 4 })
        const calls = numbers.reduce((sum, one) => sum + one.calls, 0)
        const sent = numbers.reduce((sum, one) => sum + one.sent, 0)
        assert.strictEqual(calls, seen.arrivals.length)
        assert.isAtMost(mostIn(6_000, seen.arrivals), 3_000)
        // A busy machine is slow, so it does not use all of it.
        assert.isAbove(calls, 4_000)
        assert.isAtMost(sent / calls, 0.15)
      }),
    { timeout: 400_000 }
  )
})
