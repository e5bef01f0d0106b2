import { assert } from "@effect/vitest"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import { Effect } from "effect"
import { Redis } from "effect/persistence"
import { createInterface } from "node:readline"
import type { Frees, Line, Seen } from "./fixtures/soak.ts"
import { keys, probes } from "./fixtures/soak.ts"
import { circuitOf } from "./support/circuit.ts"
import { kill, spawnFixture } from "./support/process.ts"
import { describeWithRedis, Namespace } from "./support/redis.ts"

// More of them take longer, and show more: each is half a second of calls and one process less.
const kills = Number(process.env["SLUICE_SOAK_KILLS"] ?? 5)

/** By the server's clock, over all that any process was ever told. */
const assertOneStory = (seen: ReadonlyArray<Seen>) => {
  const makers = new Map<number, string>()
  let newest = 0
  // Within a millisecond the order is not known.
  for (const { by, generation } of seen.toSorted((a, b) => a.now - b.now || a.generation - b.generation)) {
    assert.strictEqual(makers.get(generation) ?? by, by, "a generation has one winner")
    makers.set(generation, by)
    assert.isAtLeast(generation, newest, "a generation never comes back")
    newest = generation
  }
}

/** Counted twice: as the store says, and from what it granted. */
const assertFewLeases = (seen: ReadonlyArray<Seen>, frees: ReadonlyArray<Frees>) => {
  for (const { probing } of seen) assert.isAtMost(probing, probes, "leases that live, says the store")
  const freedAt = new Map(frees.map(({ id, now }) => [id, now]))
  const granted = seen.flatMap(({ lease, now }) => lease === undefined ? [] : [{ ...lease, from: now }])
  for (const { from: now } of granted) {
    const live = granted.filter(({ from, id, lapse }) => from <= now && now < Math.min(lapse, freedAt.get(id) ?? lapse))
    assert.isAtMost(new Set(live.map(({ id }) => id)).size, probes, "leases that live, of all that were granted")
  }
}

await describeWithRedis("circuits whose processes are killed again and again", (it) => {
  it.effect("stay one story that everybody tells alike, and heal", () =>
    Effect.gen(function*() {
      const store = yield* CircuitBreakerStore
      const redis = yield* Redis.Redis
      const namespace = yield* Namespace
      const journal: Array<Line> = []

      const startWorker = Effect.gen(function*() {
        const child = yield* spawnFixture("soak")
        createInterface({ input: child.stdout }).on("line", (line) => {
          // Who was killed may not have ended its last line.
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
      const look = Effect.delay(Effect.forEach(keys, (key) => circuitOf(store, key).read), "20 millis")
      yield* look.pipe(
        Effect.repeat({ until: (circuits) => circuits.every(({ control }) => control._tag === "Closed") })
      )
      for (const worker of workers) {
        yield* Effect.callback<void>((resume) => {
          worker.once("exit", () => resume(Effect.void))
          worker.stdin.end()
        })
      }
      // Those of the killed lapse; nobody asks for new ones.
      yield* look.pipe(Effect.repeat({ until: (circuits) => circuits.every(({ probing }) => probing === 0) }))

      assert.deepStrictEqual(journal.filter(({ verb }) => verb === "error"), [])
      const seen = journal.filter((line): line is Seen => line.verb !== "error" && line.verb !== "frees")
      assert.isAbove(seen.filter(({ ok, verb }) => verb === "transition" && ok).length, 5, "moves")
      assert.isAbove(seen.filter(({ ok, verb }) => verb === "lease" && ok).length, 5, "leases")
      for (const key of keys) {
        assertOneStory(seen.filter((one) => one.key === key))
        assertFewLeases(seen.filter((one) => one.key === key), journal.filter((line) => line.verb === "frees"))
      }
      for (const key of yield* namespace.keys()) {
        assert.notStrictEqual(yield* redis.send("PTTL", namespace.prefix + key), -1, `${key} has no expiry`)
      }
    }), { timeout: 60_000 + kills * 10_000 })
})
