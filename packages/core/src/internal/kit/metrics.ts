import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"

/** A metric over a counter that exists anyway. It is read only when metrics are read, so that calls pay nothing. */
export interface Source {
  readonly kind: "Counter" | "Gauge"
  /** The name of the metric: `sluice_backpressure_shed_total`. */
  readonly id: string
  readonly description: string
  /** Of low cardinality: the policy's name or an outcome, never a key. */
  readonly attributes: Readonly<Record<string, string>>
  readonly read: () => number
}

type MakeSource = (
  id: string,
  description: string,
  read: () => number,
  attributes?: Readonly<Record<string, string>>
) => Source

/** Makes sources that have the name of their policy as an attribute. */
export const sourcesOf = (policy: string): { readonly counter: MakeSource; readonly gauge: MakeSource } => {
  const make = (kind: Source["kind"]): MakeSource => (id, description, read, attributes) => ({
    kind,
    id,
    description,
    attributes: { policy, ...attributes },
    read
  })
  return { counter: make("Counter"), gauge: make("Gauge") }
}

/** One series: the sum over all open policies of one name, plus the final counts of closed ones. */
interface Series {
  readonly sources: Set<Source>
  readonly registration: Metric.Registration
  closed: number
}

// By registry, since a program can have several: a test uses its own.
const registered = new WeakMap<object, Map<string, Series>>()

/**
 * Registers sources as metrics until the scope closes. Policies of the same name share a series, which is their sum: in the
 * registry alone the second would replace the first.
 */
export const registerMetrics = (sources: ReadonlyArray<Source>): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.context<never>().pipe(Effect.map((context) => sources.map((source) => add(source, context)))),
    (removes) =>
      Effect.sync(() => {
        for (const remove of removes) remove()
      })
  )

const add = (source: Source, context: Context.Context<never>): () => void => {
  const registry = Context.get(context, Metric.MetricRegistry)
  let allSeries = registered.get(registry)
  if (allSeries === undefined) registered.set(registry, allSeries = new Map())
  const attributes = { ...Context.get(context, Metric.CurrentMetricAttributes), ...source.attributes }
  const id = JSON.stringify([source.id, Object.entries(attributes).toSorted(([a], [b]) => a < b ? -1 : 1)])
  let series = allSeries.get(id)
  if (series === undefined) allSeries.set(id, series = register(source, context))
  const { registration, sources } = series
  sources.add(source)
  return () => {
    if (!sources.delete(source)) return
    if (source.kind === "Counter") series.closed += source.read()
    if (sources.size > 0) return
    registration.remove()
    allSeries.delete(id)
  }
}

const register = (source: Source, context: Context.Context<never>): Series => {
  const sources = new Set<Source>()
  const sum = () => {
    let sum = series.closed
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
  const series: Series = { sources, registration, closed: 0 }
  return series
}
