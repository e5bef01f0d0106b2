import * as NodeRedis from "@effect/platform-node/NodeRedis"
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import * as RedisStores from "@sluice/redis/RedisStores"
import type { Vitest } from "@effect/vitest"
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { Redis } from "effect/persistence"
import { randomUUID } from "node:crypto"
import { afterAll } from "vitest"
import type { Server } from "./server.ts"
import { findServer, startServer } from "./server.ts"

/** What a suite has of its Redis: keys that begin with `prefix` are its own, and gone when it ends. */
export class Namespace extends Context.Service<Namespace, {
  readonly url: string
  readonly prefix: string
  /** All keys of the suite, or those that begin with more, without the prefix. */
  readonly keys: (begin?: string) => Effect.Effect<ReadonlyArray<string>, Redis.RedisError>
}>()("@sluice/redis/test/Namespace") {}

export type Services = Redis.Redis | NodeRedis.NodeRedis | Namespace | CircuitBreakerStore

const isComplete = process.env["CI"] === "true"
const noServer = "no redis-server on the PATH"

type Tests = (it: Vitest.MethodsNonLive<Services>) => void

/**
 * A suite that talks to a real Redis, on the real clock, with a store in its namespace. Without a Redis it says so and is
 * skipped; where nothing may be skipped unseen, it fails.
 */
export const describeWithRedis = async (name: string, tests: Tests): Promise<void> =>
  describeOn(await findServer(), name, "no Redis by REDIS_URL, at 127.0.0.1:6379 or on the PATH", tests)

/** The same on a node that runs as a cluster. */
export const describeWithCluster = async (name: string, tests: Tests): Promise<void> =>
  describeOn(await startServer("cluster"), name, noServer, tests)

const describeOn = (server: Server | undefined, name: string, absent: string, tests: Tests): void => {
  if (server !== undefined) {
    afterAll(server.stop)
    return layer(layerOf(server.url), { excludeTestServices: true })(name, tests)
  }
  if (isComplete) return it(name, () => assert.fail(absent))
  process.stderr.write(`${name}: skipped, ${absent}\n`)
  describe.skip(name, () => layer(layerOf(""))(tests))
}

/**
 * A server for one test, which may do to it what concerns all its clients. Undefined where none can be started; where nothing may
 * be skipped unseen, that is a failure.
 */
export const ownServer = Effect.acquireRelease(
  Effect.promise(() => startServer()),
  (server) => Effect.sync(() => server?.stop())
).pipe(Effect.tap((server) => Effect.sync(() => assert.isFalse(isComplete && server === undefined, noServer))))

const namespace = (url: string) =>
  Layer.effect(
    Namespace,
    Effect.gen(function*() {
      const redis = yield* Redis.Redis
      const prefix = `sluice-test:${randomUUID()}:`
      const keys = (begin = "") =>
        Effect.map(scan(redis, prefix + begin), (found) => found.map((key) => key.slice(prefix.length)))
      const clear = Effect.flatMap(keys(), (found) => remove(redis, found.map((key) => prefix + key)))
      yield* Effect.addFinalizer(() => Effect.orDie(clear))
      return Namespace.of({ url, prefix, keys })
    })
  )

const layerOf = (url: string): Layer.Layer<Services, unknown> =>
  Layer.unwrap(Effect.map(Namespace, ({ prefix }) => RedisStores.layer({ prefix }))).pipe(
    Layer.provideMerge(namespace(url)),
    Layer.provideMerge(NodeRedis.layer({ url, disableOfflineQueue: true }))
  )

const scan = Effect.fnUntraced(function*(redis: Redis.Redis["Service"], begin: string) {
  const found = new Set<string>()
  let cursor = "0"
  do {
    const page = yield* redis.send<[string, Array<string>]>("SCAN", cursor, "MATCH", `${begin}*`, "COUNT", "1000")
    for (const key of page[1]) found.add(key)
    cursor = page[0]
  } while (cursor !== "0")
  return [...found].toSorted()
})

// One by one: they lie in different slots.
const remove = (redis: Redis.Redis["Service"], keys: ReadonlyArray<string>) =>
  Effect.forEach(keys, (key) => redis.send("UNLINK", key), { discard: true, concurrency: 100 })
