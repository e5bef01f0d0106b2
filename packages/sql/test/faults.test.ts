import { assert, it } from "@effect/vitest"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import { CircuitBreakerStore, type StoreError } from "@sluice/core/CircuitBreakerStore"
import * as Quota from "@sluice/core/Quota"
import { QuotaStore } from "@sluice/core/QuotaStore"
import * as SqlDatabase from "@sluice/sql/SqlDatabase"
import * as SqlStores from "@sluice/sql/SqlStores"
import { Effect, Layer, Logger, Schedule } from "effect"
import { vi } from "vitest"
import { within } from "../../../test/support/within.ts"
import { circuitOf, open } from "./support/circuit.ts"
import { startServer } from "./support/server.ts"

vi.setConfig({ testTimeout: 60_000 })

const noServer = "Postgres is not installed"

/** A server for a single test, which may crash it. `undefined` without a Postgres. In CI that is a failure. */
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

const rate = { scope: "all", dimension: "requests", limit: 9, windowMillis: 60_000, quantumMillis: 1_000, amount: 1 }
const money = { ...rate, dimension: "money", windowMillis: Number.POSITIVE_INFINITY, amount: 5 }

it.live("a server that crashes keeps openings and budgets, and the same client works when it is back", () =>
  Effect.gen(function*() {
    const server = yield* ownServer
    if (server === undefined) return
    const stores = SqlStores.layerMigrate().pipe(Layer.provide(SqlDatabase.layer({ url: server.url })))
    yield* Effect.gen(function*() {
      const circuits = yield* CircuitBreakerStore
      const quotas = yield* QuotaStore
      const counted = circuitOf(circuits, "counted")
      const opened = circuitOf(circuits, "opened")
      const { snapshot: { generation } } = yield* counted.record(0, "XX")
      yield* opened.move(0, open(600_000))
      const reserve = quotas.reserve({
        target: "budget",
        id: "a",
        leaseMillis: 60_000,
        guardMillis: 0,
        asks: [rate, money]
      })
      yield* reserve
      // Asynchronous commits are on disk after a moment.
      yield* Effect.sleep("1 second")
      server.crash()
      const verbs: ReadonlyArray<Effect.Effect<unknown, StoreError>> = [
        counted.read,
        counted.record(generation, "0"),
        reserve
      ]
      for (const verb of verbs) {
        const error = yield* Effect.flip(verb)
        assert.strictEqual(error._tag, "StoreError")
        assert.notInclude(error.message, "127.0.0.1")
      }
      server.start()
      const { control } = yield* Effect.retry(
        opened.read,
        Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(100)])
      )
      assert.strictEqual(control._tag, "Open")
      // Evidence is not logged. The circuit goes on in its generation.
      assert.strictEqual((yield* counted.read).evidence.ring, "")
      assert.strictEqual((yield* counted.record(generation, "0")).snapshot.evidence.ring, "0")
      const used = (yield* quotas.read({ target: "budget", scopes: ["all"] })).map(({ used }) => used)
      assert.deepStrictEqual(used, [5, 1])
      assert.deepStrictEqual((yield* reserve).granted, [1, 5])
    }).pipe(Effect.provide(stores))
  }).pipe(Effect.scoped))

it.live("a server that hangs fails no call: the breaker and the quota go on in their process", () =>
  Effect.gen(function*() {
    const server = yield* ownServer
    if (server === undefined) return
    const stores = SqlStores.layerMigrate().pipe(Layer.provide(SqlDatabase.layer({ url: server.url })))
    yield* Effect.gen(function*() {
      const breaker = yield* CircuitBreaker.make({ trip: CircuitBreaker.consecutive(2), storeTimeout: "200 millis" })
      const quota = yield* Quota.make({ limits: [Quota.requestsPerMinute(1_000)], burst: 0 })
      const call = (answer: Effect.Effect<string, string>) =>
        answer.pipe(breaker.guard({ key: "provider" }), quota.withQuota({ key: "account", usage: () => ({}) }))
      assert.strictEqual(yield* call(Effect.succeed("before")), "before")
      server.freeze(true)
      yield* Effect.gen(function*() {
        // The timeouts are 1 s and 0.2 s. A client that waits until the statement is cancelled would take 5 s longer.
        assert.strictEqual(yield* within(call(Effect.succeed("first")), 4_000), "first")
        for (let nth = 0; nth < 5; nth++) assert.strictEqual(yield* call(Effect.succeed("during")), "during")
        yield* Effect.exit(call(Effect.fail("503")))
        yield* Effect.exit(call(Effect.fail("503")))
        const error = yield* Effect.flip(call(Effect.succeed("never")))
        assert.strictEqual(typeof error === "string" ? error : error._tag, "CircuitOpen")
      }).pipe(Effect.timeout("50 seconds"), Effect.ensuring(Effect.sync(() => server.freeze(false))))
    }).pipe(Effect.provide(stores), Effect.provide(Logger.layer([])))
  }).pipe(Effect.scoped))
