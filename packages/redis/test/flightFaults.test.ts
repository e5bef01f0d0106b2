import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, it } from "@effect/vitest"
import * as Deduplicator from "@sluice/core/Deduplicator"
import { FlightStore } from "@sluice/core/FlightStore"
import * as RedisFlightStore from "@sluice/redis/RedisFlightStore"
import { Deferred, Effect, Fiber, Layer, Logger, Schema } from "effect"
import { Redis } from "effect/persistence"
import { within } from "../../../test/support/within.ts"
import { ownServer } from "./support/redis.ts"
import type { Server } from "./support/server.ts"

const Answer = Deduplicator.operation<string>()("answer", {
  key: (text: string) => text,
  timeToLive: "1 hour",
  success: Schema.String
})

type Fault = (server: Server, redis: Redis.Redis["Service"]) => Effect.Effect<unknown, Redis.RedisError>

/** What happens to Redis while one process leads and another follows. */
const faults: { readonly [fault: string]: Fault } = {
  "is flushed": (_, redis) => redis.send("FLUSHALL"),
  "refuses writes": (_, redis) => redis.send("CONFIG", "SET", "min-replicas-to-write", "1"),
  "hangs for 30 seconds": (_, redis) => redis.send("CLIENT", "PAUSE", "30000", "ALL"),
  "is killed": (server) => Effect.sync(server.stop)
}

for (const [fault, happen] of Object.entries(faults)) {
  it.live(`a Redis that ${fault} during a flight fails no call, and costs one call more`, () =>
    Effect.gen(function*() {
      const server = yield* ownServer
      if (server === undefined) return
      const Client = NodeRedis.layer({ url: server.url, disableOfflineQueue: true })
      yield* Effect.gen(function*() {
        const store = yield* FlightStore
        const redis = yield* Redis.Redis
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
        yield* happen(server, redis)
        assert.strictEqual(yield* within(Fiber.join(follower), 5_000), "answer 2")
        yield* Deferred.succeed(finish, undefined)
        // Nor does the leader wait for the store before it answers.
        assert.strictEqual(yield* within(Fiber.join(leader), 500), "answer 1")
        assert.strictEqual(calls, 2)
        if (fault !== "is flushed") return
        // The late result of the leader was refused. That of the follower is stored soon after its answer.
        const late = yield* store.claim(flight).pipe(
          Effect.delay(20),
          Effect.repeat({ until: ({ _tag }) => _tag === "Result" }),
          Effect.timeout("30 seconds")
        )
        assert.include(late._tag === "Result" ? late.result : late._tag, "answer 2")
      }).pipe(
        Effect.scoped,
        Effect.provide(Layer.provideMerge(RedisFlightStore.layer(), Client)),
        Effect.provide(Logger.layer([]))
      )
    }), { timeout: 300_000 })
}

const flight = { key: Answer("x").id, operation: "", tenant: "", id: "late", leaseMillis: 1_000 }
