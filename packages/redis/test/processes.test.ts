import { assert } from "@effect/vitest"
import type { Answer } from "@sluice/core/CircuitBreakerStore"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import { Effect, Fiber } from "effect"
import type * as Breaker from "./fixtures/breaker.ts"
import type * as Store from "./fixtures/store.ts"
import { circuitOf, open, window } from "./support/circuit.ts"
import { startAnswering } from "./support/process.ts"
import { describeWithRedis } from "./support/redis.ts"

// A process takes a second to start on a busy machine.
const timeout = 300_000

await describeWithRedis("processes that share a circuit", (it) => {
  const startStore = startAnswering<Store.Request>("store")
  const startBreaker = Effect.map(startAnswering<Breaker.Request>("breaker"), (process) => ({
    ...process,
    call: (request: Breaker.Request) => process.request<Breaker.Result>(request)
  }))

  it.effect("each process sees the outcomes and transitions of the other", () =>
    Effect.gen(function*() {
      const [one, other] = yield* Effect.all([startStore, startStore], { concurrency: 2 })
      const circuit = { key: "shared", window }
      const first = yield* one.request<Answer>({
        verb: "record",
        options: { ...circuit, generation: 0, samples: "XX" }
      })
      const { generation } = first.snapshot
      const second = yield* other.request<Answer>({ verb: "record", options: { ...circuit, generation, samples: "0" } })
      assert.strictEqual(second.snapshot.evidence.ring, "XX0")

      const move = { ...circuit, generation, to: open(60_000) }
      const opened = yield* one.request<Answer>({ verb: "transition", options: { ...move, by: "one" } })
      const lost = yield* other.request<Answer>({ verb: "transition", options: { ...move, by: "other" } })
      assert.deepStrictEqual([opened.ok, lost.ok], [true, false])
      assert.deepStrictEqual(lost.snapshot.control, opened.snapshot.control)
      const late = yield* other.request<Answer>({ verb: "record", options: { ...circuit, generation, samples: "X" } })
      assert.isFalse(late.ok)
      assert.deepStrictEqual(late.snapshot.control, opened.snapshot.control)
    }), { timeout })

  it.effect("the probe slot of a killed process is free when its lease expires", () =>
    Effect.gen(function*() {
      const killed = yield* startStore
      const { lease, move } = circuitOf(yield* CircuitBreakerStore, "killed")
      const { snapshot: { generation } } = yield* move(0, open(0))
      const options = { key: "killed", window, generation, id: "killed", limit: 1, ttlMillis: 500 }
      const held = yield* killed.request<Answer>({ verb: "lease", options })
      assert.isTrue(held.ok)
      yield* killed.kill
      const expiresAt = held.snapshot.now + held.snapshot.leaseMillis
      const { ok, snapshot: { now } } = yield* lease(generation, "successor").pipe(
        Effect.repeat({
          until: ({ ok, snapshot }) => {
            // Neither earlier nor later.
            assert.strictEqual(ok, snapshot.now >= expiresAt)
            return ok
          }
        })
      )
      assert.isTrue(ok)
      assert.isAtLeast(now, expiresAt)
    }), { timeout })

  it.effect("failures of both processes open the circuit for both", () =>
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

  it.effect("another process probes after the process of the probe was killed", () =>
    Effect.gen(function*() {
      const [killed, successor] = yield* Effect.all([startBreaker, startBreaker], { concurrency: 2 })
      const { read } = circuitOf(yield* CircuitBreakerStore, "probed")
      for (let i = 0; i < 3; i++) yield* killed.call({ key: "probed", call: "fails" })
      const probe = yield* Effect.gen(function*() {
        for (;;) {
          const hanging = yield* Effect.forkChild(killed.call({ key: "probed", call: "hangs" }))
          // While the circuit is open the call is refused. As a probe it hangs.
          while (hanging.pollUnsafe() === undefined) {
            if ((yield* read).probing === 1) return hanging
          }
        }
      })
      // The holder is alive and renews its lease, so other calls stay refused beyond the lease.
      const { now } = yield* read
      for (let at = now; at < now + 1_500;) {
        const answer = yield* successor.call({ key: "probed", call: "succeeds" })
        const before = at
        at = (yield* read).now
        // A machine that stands still for longer than the lease lets it expire.
        if (answer !== "refused" && at - before > 500) return
        assert.strictEqual(answer, "refused")
      }
      yield* killed.kill
      const afterKill = yield* read
      const expiresAt = afterKill.now + afterKill.leaseMillis
      assert.isAtMost(afterKill.leaseMillis, 1_000)
      let result: Breaker.Result = "refused"
      while (result === "refused") result = yield* successor.call({ key: "probed", call: "succeeds" })
      assert.strictEqual(result, "succeeded")
      const { control, now: closedAt } = yield* read
      assert.strictEqual(control._tag, "Closed")
      assert.isAtLeast(closedAt, expiresAt)
      yield* Fiber.interrupt(probe)
    }), { timeout })
})
