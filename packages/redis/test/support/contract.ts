import type { Vitest } from "@effect/vitest"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
import { Effect } from "effect"
import { Redis } from "effect/persistence"
import type { Services } from "./redis.ts"
import { Namespace } from "./redis.ts"

/** Everything that a circuit breaker store must do. */
export const keepsTheContract = (it: Vitest.MethodsNonLive<Services>): void => {
  for (const { name, run } of CircuitBreakerStoreContract.checks) {
    it.effect(name, () => Effect.flatMap(subject, run))
  }
  it.effect(
    "random commands are answered as by the reference",
    () => Effect.flatMap(subject, CircuitBreakerStoreContract.compare),
    { timeout: 60_000 }
  )
}

const subject = Effect.gen(function*() {
  const store = yield* CircuitBreakerStore
  const redis = yield* Redis.Redis
  const { keys, prefix } = yield* Namespace
  const forget = Effect.fnUntraced(function*(key: string) {
    for (const found of yield* keys(`circuit:{${key}}`)) yield* redis.send("UNLINK", prefix + found)
  }, Effect.orDie)
  return { store, sleep: (millis: number) => Effect.sleep(millis), forget }
})
