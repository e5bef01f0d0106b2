import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import * as Cockatiel from "cockatiel"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as EffectCircuitBreaker from "effect/persistence/CircuitBreaker"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { ofEffect, ofPromise, timed } from "../measure.ts"
import { answer, body, bodyLater, call, callLater } from "./bodies.ts"
import type { Builders } from "./builders.ts"

const attemptTimeout = Duration.minutes(1)
const capacity = 100
const failures = 5
const openFor = Duration.seconds(30)

const sluice = Effect.provide(
  Sluice.make({
    name: "bench",
    retry: RetryPolicy.exponential({ maxAttempts: 3 }),
    breaker: { trip: CircuitBreaker.consecutive(failures), openFor },
    backpressure: { capacity },
    attemptTimeout
  }),
  Sluice.layerStoresMemory
)

/** The same policy, composed of Effect's parts. */
const effects = Effect.gen(function*() {
  const breaker = yield* EffectCircuitBreaker.make({
    tripPolicy: EffectCircuitBreaker.consecutive(failures),
    openDuration: openFor
  })
  const semaphore = yield* Semaphore.make(capacity)
  const options = { key: "bench" }
  const retry = { schedule: Schedule.exponential("500 millis"), times: 2 }
  return (call: Effect.Effect<number>) =>
    call.pipe(
      Effect.timeout(attemptTimeout),
      breaker.execute(options),
      semaphore.withPermit,
      Effect.retry(retry)
    )
}).pipe(Effect.provide(EffectCircuitBreaker.layerStoreMemory()))

const cockatiel = () =>
  Cockatiel.wrap(
    Cockatiel.retry(Cockatiel.handleAll, { maxAttempts: 2, backoff: new Cockatiel.ExponentialBackoff() }),
    Cockatiel.bulkhead(capacity),
    Cockatiel.circuitBreaker(Cockatiel.handleAll, {
      halfOpenAfter: Duration.toMillis(openFor),
      breaker: new Cockatiel.ConsecutiveBreaker(failures)
    }),
    Cockatiel.timeout(Duration.toMillis(attemptTimeout), Cockatiel.TimeoutStrategy.Aggressive)
  )

const around = Effect.fnUntraced(function*(call: Effect.Effect<number>, body: () => number | Promise<number>) {
  const ours = yield* sluice
  const composed = yield* effects
  const wrapped = cockatiel()
  return timed({
    "the effect alone": ofEffect(() => call),
    "Sluice": ofEffect(() => ours.protect(call)),
    "Effect": ofEffect(() => composed(call)),
    "cockatiel": ofPromise(() => wrapped.execute(body))
  })
})

export const builders: Builders<"policy"> = {
  "policy-sync": around(call, body),
  "policy-promise": around(callLater, bodyLater),

  "policy-stream": Effect.map(sluice, (ours) => {
    const stream = Stream.make(answer)
    return timed({
      "the stream alone": ofEffect(() => Stream.runDrain(stream)),
      "Sluice": ofEffect(() => Stream.runDrain(ours.protectStream(stream)))
    })
  })
}
