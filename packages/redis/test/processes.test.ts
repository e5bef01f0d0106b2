import { assert } from "@effect/vitest"
import type { Answer } from "@sluice/core/CircuitBreakerStore"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import { Effect, Fiber } from "effect"
import type * as Breaker from "./fixtures/breaker.ts"
import type * as Store from "./fixtures/store.ts"
import { circuitOf, open, window } from "./support/circuit.ts"
import { startAnswering } from "./support/process.ts"
import { describeWithRedis } from "./support/redis.ts"

// Starting a process takes a second on a busy machine.
const timeout = 60_000

await describeWithRedis("processes that share a circuit", (it) => {
  const startStore = startAnswering<Store.Asked>("store")
  const startBreaker = Effect.map(startAnswering<Breaker.Asked>("breaker"), (process) => ({
    ...process,
    call: (asked: Breaker.Asked) => process.ask<Breaker.Ended>(asked)
  }))

  it.effect("see each other's outcomes and moves", () =>
    Effect.gen(function*() {
      const [one, other] = yield* Effect.all([startStore, startStore], { concurrency: 2 })
      const circuit = { key: "shared", window }
      const first = yield* one.ask<Answer>({ verb: "record", options: { ...circuit, generation: 0, samples: "XX" } })
      const { generation } = first.snapshot
      const second = yield* other.ask<Answer>({ verb: "record", options: { ...circuit, generation, samples: "0" } })
      assert.strictEqual(second.snapshot.evidence.ring, "XX0")

      const move = { ...circuit, generation, to: open(60_000) }
      const opened = yield* one.ask<Answer>({ verb: "transition", options: { ...move, by: "one" } })
      const lost = yield* other.ask<Answer>({ verb: "transition", options: { ...move, by: "other" } })
      assert.deepStrictEqual([opened.ok, lost.ok], [true, false])
      assert.deepStrictEqual(lost.snapshot.control, opened.snapshot.control)
      const late = yield* other.ask<Answer>({ verb: "record", options: { ...circuit, generation, samples: "X" } })
      assert.isFalse(late.ok)
      assert.deepStrictEqual(late.snapshot.control, opened.snapshot.control)
    }), { timeout })

  it.effect("get a probe's place when its lease lapses, if its holder was killed", () =>
    Effect.gen(function*() {
      const doomed = yield* startStore
      const { lease, move } = circuitOf(yield* CircuitBreakerStore, "killed")
      const { snapshot: { generation } } = yield* move(0, open(0))
      const ask = { key: "killed", window, generation, id: "doomed", limit: 1, ttlMillis: 500 }
      const held = yield* doomed.ask<Answer>({ verb: "lease", options: ask })
      assert.isTrue(held.ok)
      yield* doomed.kill
      const lapse = held.snapshot.now + held.snapshot.leaseMillis
      const { ok, snapshot: { now } } = yield* lease(generation, "heir").pipe(
        Effect.repeat({
          until: ({ ok, snapshot }) => {
            // Not a moment earlier, and not a moment later.
            assert.strictEqual(ok, snapshot.now >= lapse)
            return ok
          }
        })
      )
      assert.isTrue(ok)
      assert.isAtLeast(now, lapse)
    }), { timeout })

  it.effect("open it together, and refuse what the other one has not seen", () =>
    Effect.gen(function*() {
      const [one, other] = yield* Effect.all([startBreaker, startBreaker], { concurrency: 2 })
      const key = "opened together"
      assert.strictEqual(yield* other.call({ key, call: "succeeds" }), "succeeded")
      assert.strictEqual(yield* one.call({ key, call: "fails" }), "failed")
      assert.strictEqual(yield* other.call({ key, call: "fails" }), "failed")
      assert.strictEqual(yield* one.call({ key, call: "fails" }), "failed")
      assert.strictEqual(yield* other.call({ key, call: "succeeds" }), "refused")
      assert.strictEqual(yield* one.call({ key, call: "succeeds" }), "refused")
    }), { timeout })

  it.effect("go on when the one is killed whose call is the probe", () =>
    Effect.gen(function*() {
      const [doomed, heir] = yield* Effect.all([startBreaker, startBreaker], { concurrency: 2 })
      const { read } = circuitOf(yield* CircuitBreakerStore, "probed")
      for (let i = 0; i < 3; i++) yield* doomed.call({ key: "probed", call: "fails" })
      const probe = yield* Effect.gen(function*() {
        for (;;) {
          const hanging = yield* Effect.forkChild(doomed.call({ key: "probed", call: "hangs" }))
          // Refused as long as the circuit is open; as a probe it hangs.
          while (hanging.pollUnsafe() === undefined) {
            if ((yield* read).probing === 1) return hanging
          }
        }
      })
      // The holder lives and renews: nobody else gets in, however long it takes.
      const { now } = yield* read
      for (let at = now; at < now + 1_500; at = (yield* read).now) {
        assert.strictEqual(yield* heir.call({ key: "probed", call: "succeeds" }), "refused")
      }
      yield* doomed.kill
      const dead = yield* read
      const lapse = dead.now + dead.leaseMillis
      assert.isAtMost(dead.leaseMillis, 1_000)
      let ended = "refused"
      while (ended === "refused") ended = yield* heir.call({ key: "probed", call: "succeeds" })
      assert.strictEqual(ended, "succeeded")
      const { control, now: healed } = yield* read
      assert.strictEqual(control._tag, "Closed")
      assert.isAtLeast(healed, lapse)
      yield* Fiber.interrupt(probe)
    }), { timeout })
})
