import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Cockatiel from "cockatiel"
import * as Effect from "effect/Effect"
import * as EffectCircuitBreaker from "effect/persistence/CircuitBreaker"
import type * as Scope from "effect/Scope"
import Opossum from "opossum"
import { ofEffect, ofPromise, timed } from "../measure.ts"
import { body, call, ignore } from "./bodies.ts"
import type { Builders } from "./builders.ts"

const options = { key: "bench" }

const sluice = (options: CircuitBreaker.CircuitBreakerOptions) =>
  Effect.provide(CircuitBreaker.make(options), CircuitBreakerStore.layerMemory)

const effects = (tripPolicy: EffectCircuitBreaker.TripPolicy) =>
  Effect.provide(
    EffectCircuitBreaker.make({ tripPolicy, openDuration: "1 hour" }),
    EffectCircuitBreaker.layerStoreMemory()
  )

const cockatiel = (breaker: Cockatiel.IBreaker) =>
  Cockatiel.circuitBreaker(Cockatiel.handleAll, { halfOpenAfter: 3_600_000, breaker })

/** Without its timeout, since the others have none. Its window of 10 seconds cannot be switched off. */
const opossum = <A>(action: () => A | Promise<A>): Effect.Effect<Opossum<A>, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new Opossum(action, { timeout: false, resetTimeout: 3_600_000 })),
    (breaker) => Effect.sync(() => breaker.shutdown())
  )

const fail = (): never => {
  throw failure
}
const failure = new Error("down")

export const builders: Builders<"breaker"> = {
  "breaker-closed": Effect.gen(function*() {
    const ours = yield* sluice({ trip: CircuitBreaker.consecutive(5) })
    const theirs = yield* effects(EffectCircuitBreaker.consecutive(5))
    const other = cockatiel(new Cockatiel.ConsecutiveBreaker(5))
    const another = yield* opossum(body)
    return timed({
      "the effect alone": ofEffect(() => call),
      "Sluice": ofEffect(() => ours.guard(call, options)),
      "Effect": ofEffect(() => theirs.execute(call, options)),
      "cockatiel": ofPromise(() => other.execute(body)),
      "opossum": ofPromise(() => another.fire())
    })
  }),

  "breaker-windows": Effect.gen(function*() {
    const ours = yield* sluice({
      trip: [
        CircuitBreaker.failureRate({ rate: 0.5, within: "1 minute", minimum: 20 }),
        CircuitBreaker.slowCallRate({ rate: 0.5, within: "1 minute", minimum: 20 })
      ],
      slowAfter: "1 second"
    })
    const theirs = yield* effects(EffectCircuitBreaker.consecutive(5))
    const theirRate = yield* effects(EffectCircuitBreaker.rate({ threshold: 0.5, size: 100 }))
    const other = cockatiel(new Cockatiel.SamplingBreaker({ threshold: 0.5, duration: 60_000, minimumRps: 1 }))
    const another = yield* opossum(body)
    return timed({
      "the effect alone": ofEffect(() => call),
      "Sluice": ofEffect(() => ours.guard(call, options)),
      "Effect": ofEffect(() => theirs.execute(call, options)),
      "Effect, rate": ofEffect(() => theirRate.execute(call, options)),
      "cockatiel": ofPromise(() => other.execute(body)),
      "opossum": ofPromise(() => another.fire())
    })
  }),

  "breaker-refusing": Effect.gen(function*() {
    const ours = yield* sluice({ trip: CircuitBreaker.consecutive(1), openFor: "1 hour" })
    const theirs = yield* effects(EffectCircuitBreaker.consecutive(1))
    const other = cockatiel(new Cockatiel.ConsecutiveBreaker(1))
    const another = yield* opossum(fail)
    yield* Effect.exit(ours.guard(Effect.fail("down"), options))
    yield* Effect.exit(theirs.execute(Effect.fail("down"), options))
    yield* Effect.promise(() => other.execute(fail).catch(ignore))
    yield* Effect.promise(() => another.fire().catch(ignore))
    const refused = Effect.fail("down")
    return timed({
      "a failure alone": ofEffect(() => Effect.exit(refused)),
      "Sluice": ofEffect(() => Effect.exit(ours.guard(call, options))),
      "Effect": ofEffect(() => Effect.exit(theirs.execute(call, options))),
      "cockatiel": ofPromise(() => other.execute(body).catch(ignore)),
      "opossum": ofPromise(() => another.fire().catch(ignore))
    })
  })
}
