/** `npm run bench`: what a protected call costs, beside Effect's own parts, in one run. */
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import * as Cache from "effect/Cache"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as EffectCircuitBreaker from "effect/persistence/CircuitBreaker"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import { measure, type Row } from "./measure.ts"

const call = Effect.succeed(1)

const rows = Effect.gen(function*() {
  const breaker = yield* CircuitBreaker.make()
  const effectBreaker = yield* EffectCircuitBreaker.make({
    tripPolicy: EffectCircuitBreaker.consecutive(5),
    openDuration: "30 seconds"
  })
  const { withPermit } = yield* Backpressure.make({ capacity: 100 })
  const semaphore = yield* Semaphore.make(100)
  const deduplicator = yield* Deduplicator.make({ timeToLive: "1 hour" })
  const key = Deduplicator.operation<number>()("bench", { key: (n: number) => n })(1)
  const cache = yield* Cache.make({ capacity: 100, lookup: () => call })
  const policy = RetryPolicy.exponential()
  const sluice = yield* Sluice.make({
    name: "bench",
    retry: policy,
    breaker: {},
    backpressure: {},
    attemptTimeout: "1 minute"
  })

  const composed = call.pipe(
    Effect.timeout("1 minute"),
    effectBreaker.execute({ key: "bench" }),
    semaphore.withPermit,
    Effect.retry({ schedule: Schedule.exponential("500 millis"), times: 2 })
  )
  const table: ReadonlyArray<Row> = [
    { what: "breaker, closed", ours: breaker.guard(call), theirs: effectBreaker.execute(call, { key: "bench" }) },
    { what: "retry, nothing fails", ours: RetryPolicy.retry(call, policy), theirs: Effect.retry(call, { times: 2 }) },
    { what: "permit, free", ours: withPermit(call), theirs: semaphore.withPermit(call) },
    { what: "dedupe, a kept result", ours: deduplicator.dedupe(call, key), theirs: Cache.get(cache, 1) },
    { what: "the whole policy", ours: sluice.protect(call), theirs: composed }
  ]
  return table
})

const program = Effect.gen(function*() {
  yield* Console.log("ns of CPU per call, median of 5 rounds; Effect's own part beside ours\n")
  yield* Console.log(`${"".padEnd(24)}${"ours".padStart(8)}${"Effect's".padStart(10)}${"ratio".padStart(8)}`)
  for (const row of yield* rows) {
    const { ours, theirs } = yield* Effect.promise(() => measure(row))
    const ratio = `${(theirs / ours).toFixed(1)}x`
    yield* Console.log(
      `${row.what.padEnd(24)}${ours.toFixed(0).padStart(8)}${theirs.toFixed(0).padStart(10)}${ratio.padStart(8)}`
    )
  }
})

await Effect.runPromise(program.pipe(
  Effect.scoped,
  Effect.provide([CircuitBreakerStore.layerMemory, EffectCircuitBreaker.layerStoreMemory()])
))
