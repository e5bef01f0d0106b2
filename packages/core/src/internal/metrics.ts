import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"

/** A number that somebody keeps anyway, read when metrics are read: no call pays for it. */
export interface Source {
  readonly kind: "Counter" | "Gauge"
  /** As in `sluice_backpressure_shed_total`. */
  readonly id: string
  readonly description: string
  /** Few values each, known beforehand: a policy's name or an outcome, never a key. */
  readonly attributes: Readonly<Record<string, string>>
  readonly read: () => number
}

/** What one series shows: the sum over all policies of that name that live, and what counters of gone ones had come to. */
interface Series {
  readonly sources: Set<Source>
  readonly registration: Metric.Registration
  gone: number
}

// By registry, since a program may have several: a test brings one of its own.
const registered = new WeakMap<object, Map<string, Series>>()

/**
 * Shows sources as metrics until the scope closes. Two policies of one name share a series and add up: a registry would
 * let the second replace the first.
 */
export const show = (sources: ReadonlyArray<Source>): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.context<never>().pipe(Effect.map((context) => sources.map((source) => add(source, context)))),
    (removes) =>
      Effect.sync(() => {
        for (const remove of removes) remove()
      })
  )

const add = (source: Source, context: Context.Context<never>): () => void => {
  const registry = Context.get(context, Metric.MetricRegistry)
  let series = registered.get(registry)
  if (series === undefined) registered.set(registry, series = new Map())
  const attributes = { ...Context.get(context, Metric.CurrentMetricAttributes), ...source.attributes }
  const id = JSON.stringify([source.id, Object.entries(attributes).toSorted(([a], [b]) => a < b ? -1 : 1)])
  let entry = series.get(id)
  if (entry === undefined) series.set(id, entry = register(source, context))
  const { registration, sources } = entry
  sources.add(source)
  return () => {
    if (!sources.delete(source)) return
    if (source.kind === "Counter") entry.gone += source.read()
    if (sources.size > 0) return
    registration.remove()
    series.delete(id)
  }
}

const register = (source: Source, context: Context.Context<never>): Series => {
  const sources = new Set<Source>()
  const sum = () => {
    let sum = entry.gone
    for (const { read } of sources) sum += read()
    return sum
  }
  const ignore = () => {}
  const { attributes, description, id } = source
  const registration = source.kind === "Counter"
    ? Metric.registerUnsafe(Metric.counter(id, { description, attributes, incremental: true }), context, {
      get: () => ({ count: sum(), incremental: true }),
      update: ignore,
      modify: ignore
    })
    : Metric.registerUnsafe(Metric.gauge(id, { description, attributes }), context, {
      get: () => ({ value: sum() }),
      update: ignore,
      modify: ignore
    })
  const entry: Series = { sources, registration, gone: 0 }
  return entry
}
