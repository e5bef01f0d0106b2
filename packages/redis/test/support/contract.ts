import type { Vitest } from "@effect/vitest"
import * as RedisCircuitBreakerStore from "@sluice/redis/RedisCircuitBreakerStore"
import * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
import { Effect } from "effect"
import { Redis } from "effect/persistence"
import type { Services } from "./redis.ts"
import { Namespace } from "./redis.ts"
import { setBackRedis } from "./setBackRedis.ts"

/** The checks of `CircuitBreakerStoreContract` as tests of the store in the context. */
export const testContract = (it: Vitest.MethodsNonLive<Services>): void => {
  for (const { name, run } of CircuitBreakerStoreContract.checks) {
    it.effect(name, () => Effect.flatMap(subject, run))
  }
  it.effect(
    "the store answers random commands like the reference store",
    () => Effect.flatMap(subject, CircuitBreakerStoreContract.compare),
    { timeout: 60_000 }
  )
}

const subject = Effect.gen(function*() {
  const { service, setBack } = yield* setBackRedis
  const redis = yield* Redis.Redis
  const { keys, prefix } = yield* Namespace
  const store = yield* RedisCircuitBreakerStore.make({ prefix }).pipe(
    Effect.provideService(Redis.Redis, service),
    Effect.orDie
  )
  const forget = Effect.fnUntraced(function*(key: string) {
    for (const found of yield* keys(`circuit:{${key}}`)) yield* redis.send("UNLINK", prefix + found)
  }, Effect.orDie)
  return { store, sleep: (millis: number) => Effect.sleep(millis), forget, setBack }
})
