import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { Pressure, Snapshot } from "../../Backpressure.ts"
import { Hub } from "../../Hub.ts"
import type { InvalidOptions } from "../../InvalidOptions.ts"
import { OptionsReader } from "../../OptionsReader.ts"
import { withoutStack } from "../../Refusal.ts"
import { registerMetrics, type Source, sourcesOf } from "../kit/metrics.ts"
import type { Settings } from "./options.ts"
import { type PermitRefusal, Permits, type Why } from "./permits.ts"
import { Gauge, type Level, Pace } from "./pressure.ts"
import { BackpressureShed } from "./shed.ts"

/** Permits, and everything that reports on them. */
export interface Limiter<E> {
  readonly permits: Permits<E>
  readonly pressure: Stream.Stream<Pressure>
  readonly snapshot: Effect.Effect<Snapshot>
  readonly resize: (capacity: number) => Effect.Effect<void, InvalidOptions>
  readonly drain: Effect.Effect<boolean>
  readonly resume: Effect.Effect<void>
}

/** Builds permits. `error` turns a refusal into the error of the calls. Without `reports` the permits have no metrics. */
export const makeLimiter = Effect.fnUntraced(function*<E>(
  { capacity, name, queue, softLimit = Number.POSITIVE_INFINITY, softRelease }: Settings,
  error: (refusal: PermitRefusal, shed: () => BackpressureShed) => E,
  reports = true
): Effect.fn.Return<Limiter<E>, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const changes = new Hub<Pressure>()
  const pace = new Pace()
  const now = () => clock.currentTimeMillisUnsafe()

  const gauge = new Gauge(softLimit, softRelease ?? Math.floor(softLimit * 3 / 4), (level) => {
    pace.reset()
    if (changes.hasReaders) changes.publish({ level, running: permits.running, at: now() })
  })
  const permits: Permits<E> = new Permits({
    capacity,
    queue,
    clock,
    context,
    onChange: () => gauge.update(permits),
    error: (refusal) => error(refusal, () => shedOf(name, refusal, retryAfterMillis(refusal)))
  })
  const retryAfterMillis = (refusal: PermitRefusal): number | undefined => {
    const { why } = refusal
    if (why === "Draining" || why === "TooLarge" || gauge.level !== "Full") return undefined
    const missing = permits.wanted + refusal.permits + permits.running - permits.capacity
    return pace.millisFor(Math.max(1, missing), permits, now())
  }

  if (reports) yield* registerMetrics(metricsOf(name, permits, gauge))
  yield* Effect.addFinalizer(() => Effect.andThen(Effect.sync(() => permits.drain()), changes.close))
  return {
    permits,
    pressure: changes.stream,
    snapshot: Effect.sync(() => snapshotOf(permits, gauge, changes)),
    resize: (capacity) =>
      Effect.map(readCapacity(capacity), (read) => {
        pace.reset()
        permits.resize(read)
      }),
    drain: permits.drained,
    resume: Effect.sync(() => permits.resume())
  }
})

const readCapacity = (capacity: number): Effect.Effect<number, InvalidOptions> => {
  const options = new OptionsReader("Backpressure")
  return options.check(options.integer("capacity", capacity, 1))
}

const shedOf = (policy: string, refusal: PermitRefusal, retryAfterMillis: number | undefined): BackpressureShed => {
  const { capacity, permits, queued, running, waitedMillis, why } = refusal
  return withoutStack(() =>
    new BackpressureShed({
      policy,
      why,
      permits,
      running,
      queued,
      capacity,
      ...(waitedMillis === undefined ? undefined : { waited: Duration.millis(waitedMillis) }),
      ...(retryAfterMillis === undefined ? undefined : { retryAfter: Duration.millis(retryAfterMillis) })
    })
  )
}

const snapshotOf = <E>(permits: Permits<E>, gauge: Gauge, changes: Hub<Pressure>): Snapshot => ({
  capacity: permits.capacity,
  running: permits.running,
  queued: permits.queued,
  queue: permits.queue,
  slots: permits.slots,
  level: gauge.level,
  draining: permits.isDraining,
  admitted: permits.admitted,
  shed: { ...permits.shed },
  abandoned: permits.abandoned,
  dropped: changes.dropped
})

const reasons: ReadonlyArray<Why> = ["Full", "MaxWait", "Draining", "TooLarge"]
const levels: ReadonlyArray<Level> = ["Normal", "Soft", "Full"]

const metricsOf = <E>(policy: string, permits: Permits<E>, gauge: Gauge): ReadonlyArray<Source> => {
  const { counter, gauge: gaugeOf } = sourcesOf(policy)
  const id = (name: string) => `sluice_backpressure_${name}`
  return [
    gaugeOf(id("running"), "Permits in use", () => permits.running),
    gaugeOf(id("queued"), "Calls queued for a permit", () => permits.queued),
    gaugeOf(id("capacity"), "How many permits there are", () => permits.capacity),
    counter(id("admitted_total"), "Calls that got their permits", () => permits.admitted),
    counter(
      id("abandoned_total"),
      "Calls that left the queue: interrupted, or past their deadline",
      () => permits.abandoned
    ),
    ...reasons.map((why) => counter(id("shed_total"), "Calls refused", () => permits.shed[why], { why })),
    ...levels.map((level) =>
      counter(id("levels_total"), "How often each level was reached", () => gauge.reached[level], { level })
    )
  ]
}
