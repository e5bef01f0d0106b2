/**
 * Sends a million keys through one primitive. Prints their effect on memory, time and metrics as a line of JSON. Runs
 * with `--expose-gc` in a separate process, so that nothing else is on the heap.
 */
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deduplicator from "@sluice/core/Deduplicator"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { Effect, Metric, type Scope } from "effect"

/** The measurements. */
export interface Findings {
  /** Bytes of heap in use after so many keys. */
  readonly heapBytes: { readonly after200k: number; readonly after1M: number }
  /** CPU time of a batch: medians of the first and of the last tenth. */
  readonly batchMicros: { readonly firstTenth: number; readonly lastTenth: number }
  /** Metric series after so many keys. */
  readonly series: { readonly after10: number; readonly after10k: number; readonly after1M: number }
}

type Call = (key: string, index: number) => Effect.Effect<unknown, unknown>
type Subject = Effect.Effect<Call, InvalidOptions, CircuitBreakerStore.CircuitBreakerStore | Scope.Scope>

const breaker: Subject = Effect.gen(function*() {
  const { guard } = yield* CircuitBreaker.make({ name: "million", trip: CircuitBreaker.consecutive(3) })
  const good = Effect.succeed("an answer")
  const bad = Effect.fail("503")
  // Every other dependency fails, since a circuit without failures keeps almost nothing.
  return (key, index) => Effect.ignore(guard(index % 2 === 0 ? good : bad, { key }))
})

const deduplicator: Subject = Effect.gen(function*() {
  const { dedupe } = yield* Deduplicator.make({ capacity: 10_000, timeToLive: "1 hour" })
  const Answer = Deduplicator.operation<string>()("answer", { key: (input: string) => input })
  const answer = Effect.succeed("an answer")
  return (key) => dedupe(answer, Answer(key))
})

const total = 1_000_000
const batch = 5_000

const measure = Effect.fnUntraced(function*(make: Subject) {
  const registry: Metric.MetricRegistry = new Map()
  const call = yield* Effect.provideService(make, Metric.MetricRegistry, registry)
  const series = Effect.map(
    Effect.provideService(Metric.snapshot, Metric.MetricRegistry, registry),
    (all) => all.length
  )
  const next = keys()
  const send = (from: number, to: number): Effect.Effect<void, unknown> => {
    let index = from
    return Effect.whileLoop({ while: () => index < to, body: () => call(next(), index++), step: () => {} })
  }

  yield* send(0, 10)
  const after10 = yield* series
  yield* send(10, 10_000)
  const after10k = yield* series
  const batches: Array<number> = []
  let after200k = 0
  for (let sent = 10_000; sent < total; sent += batch) {
    if (sent === 200_000) after200k = heapInUse()
    const startedAt = process.cpuUsage()
    yield* send(sent, sent + batch)
    const { system, user } = process.cpuUsage(startedAt)
    batches.push(system + user)
  }
  const tenth = Math.round(batches.length / 10)
  const findings: Findings = {
    heapBytes: { after200k, after1M: heapInUse() },
    batchMicros: { firstTenth: median(batches.slice(0, tenth)), lastTenth: median(batches.slice(-tenth)) },
    series: { after10, after10k, after1M: yield* series }
  }
  return findings
})

/** Random keys, the same in each run. */
const keys = (): () => string => {
  let state = 0x9e3779b9
  const next = (): string => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0).toString(36)
  }
  return () => `${next()}-${next()}`
}

const heapInUse = (): number => {
  if (globalThis.gc === undefined) throw new Error("run with --expose-gc")
  globalThis.gc()
  return process.memoryUsage().heapUsed
}

const median = (numbers: ReadonlyArray<number>): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN

const subjects: Record<string, Subject> = { breaker, deduplicator }
const subject = subjects[process.argv[2] ?? ""]
if (subject === undefined) throw new Error(`the subject must be one of ${Object.keys(subjects).join(", ")}`)
const program = measure(subject).pipe(Effect.scoped, Effect.provide(CircuitBreakerStore.layerMemory))
process.stdout.write(JSON.stringify(await Effect.runPromise(program)))
