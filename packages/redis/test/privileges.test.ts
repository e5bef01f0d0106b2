import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert } from "@effect/vitest"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import { FlightStore } from "@sluice/core/FlightStore"
import { QuotaStore } from "@sluice/core/QuotaStore"
import * as RedisStores from "@sluice/redis/RedisStores"
import * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
import * as FlightStoreContract from "@sluice/testing/FlightStoreContract"
import * as QuotaStoreContract from "@sluice/testing/QuotaStoreContract"
import { Effect, Layer } from "effect"
import { Redis } from "effect/persistence"
import { readFileSync } from "node:fs"
import { describeWithRedis, ownServer } from "./support/redis.ts"

const page = readFileSync(new URL("../../../docs/redis.md", import.meta.url), "utf8")

await describeWithRedis("a Redis user with the privileges in docs/redis.md", (it) => {
  for (const RESP of [2, 3] as const) {
    it.effect(`the stores pass their contracts with these privileges, over RESP${RESP}`, () =>
      Effect.gen(function*() {
        // Its own server, since users belong to the whole server.
        const server = yield* ownServer
        if (server === undefined) return
        const [, ...rules] = /ACL SETUSER (.*?)```/s.exec(page)?.[1]?.replaceAll("\\\n", " ").trim().split(/\s+/) ?? []
        assert.include(rules, "+evalsha")
        yield* Effect.provide(
          Redis.Redis.use((redis) => redis.send("ACL", "SETUSER", "limited", ...rules, ">secret")),
          NodeRedis.layer({ url: server.url })
        )
        const url = server.url.replace("//", "//limited:secret@")
        const Store = RedisStores.layer().pipe(Layer.provide(NodeRedis.layer({ url, RESP })))
        const sleep = (millis: number) => Effect.sleep(millis)
        yield* Effect.gen(function*() {
          const circuits = { store: yield* CircuitBreakerStore, sleep }
          yield* Effect.forEach(CircuitBreakerStoreContract.checks, ({ run }) => run(circuits))
          const quotas = { store: yield* QuotaStore, sleep }
          yield* Effect.forEach(QuotaStoreContract.checks, ({ run }) => run(quotas))
          const flights = { store: yield* FlightStore, sleep }
          yield* Effect.forEach(FlightStoreContract.checks, ({ run }) => run(flights))
        }).pipe(Effect.provide(Store))
      }))
  }
})
