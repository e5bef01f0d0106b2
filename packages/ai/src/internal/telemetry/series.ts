import * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import { other } from "./errorType.ts"
import { Histogram } from "./histogram.ts"
import type { Operation, Place } from "./operation.ts"

// The buckets of the conventions.
const seconds = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
const tokens = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]
const perChunk = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5]
const firstChunk = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]

interface Definition {
  readonly id: string
  readonly unit: string
  readonly description: string
  readonly boundaries: ReadonlyArray<number>
}

export const operationDuration: Definition = {
  id: "gen_ai.client.operation.duration",
  unit: "s",
  description: "How long an operation took",
  boundaries: seconds
}

export const tokenUsage: Definition = {
  id: "gen_ai.client.token.usage",
  unit: "{token}",
  description: "How many tokens an operation was billed for",
  boundaries: tokens
}

export const timeToFirstChunk: Definition = {
  id: "gen_ai.client.operation.time_to_first_chunk",
  unit: "s",
  description: "How long a streamed answer took to begin",
  boundaries: firstChunk
}

export const timePerOutputChunk: Definition = {
  id: "gen_ai.client.operation.time_per_output_chunk",
  unit: "s",
  description: "How long each chunk of a streamed answer after the first took to arrive",
  boundaries: perChunk
}

/** How many response models metrics show for each target, besides the requested one. */
export const maxResponseModels = 20

/** The longest name of a response model that metrics show. A longer one becomes `_OTHER`. */
export const maxModelLength = 128

/** The four metrics with one set of attributes. */
export class Series {
  private readonly registered: Registered
  private readonly attributes: Readonly<Record<string, string>>
  private readonly open = new Map<string, Histogram>()

  constructor(registered: Registered, attributes: Readonly<Record<string, string>>) {
    this.registered = registered
    this.attributes = attributes
  }

  histogram(definition: Definition, tokenType?: "input" | "output"): Histogram {
    const key = tokenType ?? definition.id
    const known = this.open.get(key)
    if (known !== undefined) return known
    const attributes = tokenType === undefined
      ? this.attributes
      : { ...this.attributes, "gen_ai.token.type": tokenType }
    const histogram = this.registered.histogram(definition, attributes)
    this.open.set(key, histogram)
    return histogram
  }
}

/** The series of one metric registry. A program can have several, and a test has its own. */
export class Registered {
  private readonly histograms = new Map<string, Histogram>()
  /** By target. */
  private readonly responseModels = new Map<string, Set<string>>()
  private readonly byPlace = new WeakMap<Place, Map<string, Series>>()
  private readonly contextual: Readonly<Record<string, string>>
  private readonly context: Context.Context<never>

  constructor(context: Context.Context<never>, contextual: Readonly<Record<string, string>>) {
    // Only what a registration reads. The series must not keep the rest of a request's context alive.
    this.context = Context.make(Metric.MetricRegistry, Context.get(context, Metric.MetricRegistry)).pipe(
      Context.add(Metric.CurrentMetricAttributes, contextual)
    )
    this.contextual = contextual
  }

  series(
    { name, place }: Operation,
    responseModel: string | undefined,
    errorType: string | undefined
  ): Series {
    const model = responseModel === undefined ? undefined : this.shown(place, responseModel)
    let ofPlace = this.byPlace.get(place)
    if (ofPlace === undefined) this.byPlace.set(place, ofPlace = new Map())
    const key = `${name} ${errorType ?? ""} ${model ?? ""}`
    const known = ofPlace.get(key)
    if (known !== undefined) return known
    const address = place.server?.address
    const port = place.server?.port
    const series = new Series(this, {
      "gen_ai.operation.name": name,
      "gen_ai.provider.name": place.provider,
      "gen_ai.request.model": place.model,
      ...(model === undefined ? {} : { "gen_ai.response.model": model }),
      ...(address === undefined ? {} : { "server.address": address }),
      ...(port === undefined ? {} : { "server.port": String(port) }),
      ...(errorType === undefined ? {} : { "error.type": errorType })
    })
    ofPlace.set(key, series)
    return series
  }

  histogram(definition: Definition, attributes: Readonly<Record<string, string>>): Histogram {
    const { boundaries, description, id, unit } = definition
    const key = JSON.stringify([id, attributes])
    const known = this.histograms.get(key)
    if (known !== undefined) return known
    const histogram = new Histogram(boundaries)
    const metric = Metric.histogram(id, { description, boundaries, attributes: { ...attributes, unit } })
    const ignore = () => {}
    Metric.registerUnsafe(metric, this.context, { get: () => histogram.state, update: ignore, modify: ignore })
    this.histograms.set(key, histogram)
    return histogram
  }

  /** The label of a response model. A provider can send any name, so their number is bounded. */
  private shown({ model, target }: Place, responseModel: string): string {
    if (responseModel === model) return model
    let seen = this.responseModels.get(target)
    if (seen === undefined) this.responseModels.set(target, seen = new Set())
    if (seen.has(responseModel)) return responseModel
    if (seen.size >= maxResponseModels || responseModel.length > maxModelLength) return other
    seen.add(responseModel)
    return responseModel
  }

  isFor(contextual: Readonly<Record<string, string>>): boolean {
    return this.contextual === contextual
  }
}

interface Registry {
  /** That of the last call. Nearly all calls have the same contextual attributes. */
  latest: Registered
  readonly all: Map<string, Registered>
}

const registries = new WeakMap<object, Registry>()

/** The series that a fiber with this context writes to. */
export const registeredIn = (context: Context.Context<never>): Registered => {
  const registry = Context.get(context, Metric.MetricRegistry)
  const contextual = Context.get(context, Metric.CurrentMetricAttributes)
  const known = registries.get(registry)
  if (known?.latest.isFor(contextual) === true) return known.latest
  const key = JSON.stringify(Object.entries(contextual).toSorted(([a], [b]) => a < b ? -1 : 1))
  const registered = known?.all.get(key) ?? new Registered(context, contextual)
  if (known === undefined) registries.set(registry, { latest: registered, all: new Map([[key, registered]]) })
  else {
    known.latest = registered
    known.all.set(key, registered)
  }
  return registered
}
