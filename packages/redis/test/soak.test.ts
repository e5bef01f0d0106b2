import { assert } from "@effect/vitest"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import { Effect } from "effect"
import { Redis } from "effect/persistence"
import { createInterface } from "node:readline"
import type { Frees, Line, Observed } from "./fixtures/soak.ts"
import { keys, probes } from "./fixtures/soak.ts"
import { circuitOf } from "./support/circuit.ts"
import { kill, spawnFixture } from "./support/process.ts"
import { describeWithRedis, Namespace } from "./support/redis.ts"

// How many processes are killed, one every half second. More kills find more.
const kills = Number(process.env["SLUICE_SOAK_KILLS"] ?? 5)

/** All answers that any process got, in the order of the server's clock. */
const assertOneHistory = (observed: ReadonlyArray<Observed>) => {
  const winners = new Map<number, string>()
  let newest = 0
  // Answers of the same millisecond are ordered by generation.
  for (const { by, generation } of observed.toSorted((a, b) => a.now - b.now || a.generation - b.generation)) {
    assert.strictEqual(winners.get(generation) ?? by, by, "a generation has one winner")
    winners.set(generation, by)
    assert.isAtLeast(generation, newest, "generations only grow")
    newest = generation
  }
}

/** Checks the number of live leases that the store reports, and the number that it has granted. */
const assertLeaseLimit = (observed: ReadonlyArray<Observed>, frees: ReadonlyArray<Frees>) => {
  for (const { probing } of observed) assert.isAtMost(probing, probes, "live leases as reported")
  const freedAt = new Map(frees.map(({ id, now }) => [id, now]))
  const granted = observed.flatMap(({ lease, now }) => lease === undefined ? [] : [{ ...lease, from: now }])
  for (const { from: now } of granted) {
    const live = granted.filter(({ expiresAt, from, id }) =>
      from <= now && now < Math.min(expiresAt, freedAt.get(id) ?? expiresAt)
    )
    assert.isAtMost(new Set(live.map(({ id }) => id)).size, probes, "live leases as granted")
  }
}

await describeWithRedis("processes that are killed repeatedly", (it) => {
  it.effect("every process sees the same history, and the circuits close again", () =>
    Effect.gen(function*() {
      const store = yield* CircuitBreakerStore
      const redis = yield* Redis.Redis
      const namespace = yield* Namespace
      const journal: Array<Line> = []

      const startWorker = Effect.gen(function*() {
        const child = yield* spawnFixture("soak")
        createInterface({ input: child.stdout }).on("line", (line) => {
          // The last line of a killed process may be incomplete.
          if (line.endsWith("}")) journal.push(JSON.parse(line) as Line)
        })
        yield* Effect.callback<void>((resume) => void child.stdout.once("data", () => resume(Effect.void)))
        return child
      })

      const workers = yield* Effect.all([startWorker, startWorker, startWorker], { concurrency: 3 })
      for (let nth = 0; nth < kills; nth++) {
        yield* Effect.sleep("500 millis")
        const oldest = workers.shift()
        if (oldest !== undefined) yield* kill(oldest)
        workers.push(yield* startWorker)
      }
      for (const worker of workers) worker.stdin.write("heal\n")
      const readAll = Effect.delay(Effect.forEach(keys, (key) => circuitOf(store, key).read), "20 millis")
      yield* readAll.pipe(
        Effect.repeat({ until: (circuits) => circuits.every(({ control }) => control._tag === "Closed") })
      )
      for (const worker of workers) {
        yield* Effect.callback<void>((resume) => {
          worker.once("exit", () => resume(Effect.void))
          worker.stdin.end()
        })
      }
      // The leases of killed processes expire, and no new ones are requested.
      yield* readAll.pipe(Effect.repeat({ until: (circuits) => circuits.every(({ probing }) => probing === 0) }))

      assert.deepStrictEqual(journal.filter(({ verb }) => verb === "error"), [])
      const observed = journal.filter((line): line is Observed => line.verb !== "error" && line.verb !== "frees")
      assert.isAbove(observed.filter(({ ok, verb }) => verb === "transition" && ok).length, 5, "moves")
      assert.isAbove(observed.filter(({ ok, verb }) => verb === "lease" && ok).length, 5, "leases")
      for (const key of keys) {
        assertOneHistory(observed.filter((one) => one.key === key))
        assertLeaseLimit(observed.filter((one) => one.key === key), journal.filter((line) => line.verb === "frees"))
      }
      for (const key of yield* namespace.keys()) {
        assert.notStrictEqual(yield* redis.send("PTTL", namespace.prefix + key), -1, `${key} has no expiry`)
      }
    }), { timeout: 60_000 + kills * 10_000 })
})
