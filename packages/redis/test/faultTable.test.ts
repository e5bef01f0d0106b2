import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, it } from "@effect/vitest"
import * as RedisStores from "@sluice/redis/RedisStores"
import { Effect, Layer, Logger, Schedule } from "effect"
import { Redis } from "effect/persistence"
import { makeClock } from "../../../test/support/faults/clock.ts"
import { startProxy } from "../../../test/support/faults/proxy.ts"
import { describeFaults, recoveredIsUsedAgain, type Rig } from "../../../test/support/faults/suite.ts"
import { servers } from "../../../test/support/faults/table.ts"
import { type ServerOptions, startServer } from "./support/server.ts"

const serverOf = (options: ServerOptions = {}) =>
  Effect.acquireRelease(
    Effect.promise(async () => (await startServer(options)) ?? assert.fail("no redis-server on the PATH")),
    (server) => Effect.sync(() => server.stop())
  ).pipe(Effect.map(({ stop, url }) => ({ port: Number(new URL(url).port), stop: Effect.sync(stop) })))

const clientOf = (port: number) =>
  NodeRedis.layer({ url: `redis://127.0.0.1:${port}`, disableOfflineQueue: true }).pipe(
    // Without the warnings of Effect's client.
    Layer.provide(Logger.layer([]))
  )

/** Sends a command to a server, past the proxy. */
const send = (port: number, ...[command, ...args]: readonly [string, ...ReadonlyArray<string>]) =>
  Redis.Redis.use((redis) => redis.send(command, ...args)).pipe(
    Effect.provide(clientOf(port), { local: true }),
    Effect.orDie
  )

const rigOf = (fault: keyof typeof servers) =>
  Effect.gen(function*() {
    const clock = makeClock() ?? assert.fail("no compiler for C")
    yield* Effect.addFinalizer(() => Effect.sync(clock.remove))
    const { port, stop } = yield* serverOf({ env: clock.env })
    const proxy = yield* startProxy(port)
    const stores = RedisStores.layer().pipe(Layer.provide(clientOf(proxy.port)))
    const nothing = Effect.void
    const rig = (begin: Effect.Effect<unknown>, end: Effect.Effect<unknown> = nothing): Rig => ({
      stores,
      begin: Effect.asVoid(begin),
      end: Effect.asVoid(end)
    })
    const passes = proxy.set("passes")
    switch (fault) {
      case "refuses":
        return rig(proxy.set("refuses"), passes)
      case "slow":
        return rig(proxy.set("slow"), passes)
      case "replyLost":
        return rig(proxy.set("losesReplies"), passes)
      case "restartedEmpty": {
        const empty = yield* serverOf()
        return rig(Effect.andThen(proxy.set("refuses"), stop), Effect.andThen(proxy.moveTo(empty.port), passes))
      }
      case "flushed":
        return rig(send(port, "FLUSHALL"))
      case "readOnly":
        // As a primary that has lost its replicas, or a replica.
        return rig(
          send(port, "REPLICAOF", "127.0.0.1", "1"),
          send(port, "REPLICAOF", "NO", "ONE")
        )
      case "clockForward":
        return rig(Effect.sync(() => clock.set(3_600)))
      case "clockBack":
        return rig(Effect.sync(() => clock.set(-3_600)))
      case "processClocks":
        return rig(nothing)
      case "failover": {
        const replica = yield* serverOf({ config: { replicaof: `127.0.0.1 ${port}` } })
        // All that was written has arrived, or the test would be about what was lost.
        const isReplicated = send(port, "WAIT", "1", "1000").pipe(
          Effect.flatMap((replicas) => Effect.sync(() => assert.strictEqual(replicas, 1))),
          Effect.catchDefect(Effect.fail),
          Effect.retry(Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(100)])),
          Effect.orDie
        )
        return rig(
          isReplicated.pipe(Effect.andThen(stop), Effect.andThen(proxy.moveTo(replica.port))),
          send(replica.port, "REPLICAOF", "NO", "ONE")
        )
      }
    }
  })

describeFaults("Redis", servers, rigOf)

it.live("a recovered shared circuit is used again by every process within its own retryAfter", () =>
  Effect.gen(function*() {
    const { port } = yield* serverOf()
    yield* recoveredIsUsedAgain(RedisStores.layer().pipe(Layer.provide(clientOf(port))))
  }).pipe(Effect.scoped))
