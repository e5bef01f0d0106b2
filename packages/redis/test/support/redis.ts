import * as NodeRedis from "@effect/platform-node/NodeRedis"
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import * as RedisStores from "@sluice/redis/RedisStores"
import type { Vitest } from "@effect/vitest"
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { Redis } from "effect/persistence"
import { randomUUID } from "node:crypto"
import { afterAll, vi } from "vitest"
import type { Server } from "./server.ts"
import { findServer, startServer } from "./server.ts"

// A real server and a real clock are slow on a busy machine.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

/** The part of Redis that belongs to a suite. Keys that begin with `prefix` are deleted when the suite ends. */
export class Namespace extends Context.Service<Namespace, {
  readonly url: string
  readonly prefix: string
  /** The keys of the suite without the prefix: all, or those that begin with `start`. */
  readonly keys: (start?: string) => Effect.Effect<ReadonlyArray<string>, Redis.RedisError>
}>()("@sluice/redis/test/Namespace") {}

export type Services = Redis.Redis | NodeRedis.NodeRedis | Namespace | CircuitBreakerStore

const mustNotSkip = process.env["CI"] === "true"
const noServer = "no redis-server on the PATH"

type Tests = (it: Vitest.MethodsNonLive<Services>) => void

/**
 * A suite on a real Redis and the real clock, with a store in its own namespace. Without a Redis it prints a line and is skipped.
 * In CI it fails instead.
 */
export const describeWithRedis = async (name: string, tests: Tests): Promise<void> =>
  describeOn(await findServer(), name, "no Redis by REDIS_URL, at 127.0.0.1:6379 or on the PATH", tests)

/** `describeWithRedis` on a node that runs as a cluster. */
export const describeWithCluster = async (name: string, tests: Tests): Promise<void> =>
  describeOn(await startServer({ mode: "cluster" }), name, noServer, tests)

const describeOn = (server: Server | undefined, name: string, reason: string, tests: Tests): void => {
  if (server !== undefined) {
    afterAll(server.stop)
    return layer(layerOf(server.url), { excludeTestServices: true })(name, tests)
  }
  if (mustNotSkip) return it(name, () => assert.fail(reason))
  process.stderr.write(`${name}: skipped, ${reason}\n`)
  describe.skip(name, () => layer(layerOf(""))(tests))
}

/**
 * A server for a single test, which may change what other clients would notice. `undefined` without a `redis-server`. In CI that
 * is a failure.
 */
export const ownServer = Effect.acquireRelease(
  Effect.promise(() => startServer()),
  (server) => Effect.sync(() => server?.stop())
).pipe(Effect.tap((server) => Effect.sync(() => assert.isFalse(mustNotSkip && server === undefined, noServer))))

const namespace = (url: string) =>
  Layer.effect(
    Namespace,
    Effect.gen(function*() {
      const redis = yield* Redis.Redis
      const prefix = `sluice-test:${randomUUID()}:`
      const keys = (start = "") =>
        Effect.map(scan(redis, prefix + start), (found) => found.map((key) => key.slice(prefix.length)))
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

const scan = Effect.fnUntraced(function*(redis: Redis.Redis["Service"], start: string) {
  const found = new Set<string>()
  let cursor = "0"
  do {
    const page = yield* redis.send<[string, Array<string>]>("SCAN", cursor, "MATCH", `${start}*`, "COUNT", "1000")
    for (const key of page[1]) found.add(key)
    cursor = page[0]
  } while (cursor !== "0")
  return [...found].toSorted()
})

// One by one, since keys in different slots cannot share a command.
const remove = (redis: Redis.Redis["Service"], keys: ReadonlyArray<string>) =>
  Effect.forEach(keys, (key) => redis.send("UNLINK", key), { discard: true, concurrency: 100 })
