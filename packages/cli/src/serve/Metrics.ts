/** The metrics of the gateway itself. Those of calls are in docs/telemetry.md. */
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"

const requests = Metric.counter("sluice_gateway_requests_total", {
  description: "Requests that have ended",
  incremental: true
})
const inFlight = Metric.gauge("sluice_gateway_requests_in_flight", { description: "Requests that run" })
const refused = Metric.counter("sluice_gateway_refused_total", {
  description: "Requests that the gateway refused by itself, by the reason",
  incremental: true
})
const reloads = Metric.counter("sluice_gateway_reloads_total", {
  description: "Times that the settings were read again",
  incremental: true
})
const tokens = Metric.counter("sluice_gateway_tokens_total", {
  description: "Tokens by the key of the client",
  incremental: true
})
const cost = Metric.counter("sluice_gateway_cost_dollars_total", { description: "Cost by the key of the client" })

const maxSeries = 1_000

/** Records the metrics in Effect's registry of a context. */
export class Metrics {
  private readonly context: Context.Context<never>
  /** Metrics with their attributes, since making one costs more than a count. */
  private readonly series = new Map<string, Metric.Metric<number, unknown>>()

  constructor(context: Context.Context<never>) {
    this.context = context
  }

  ended(key: string, operation: string, status: number, result: string): void {
    this.count(requests, { key, operation, status: String(status), result })
  }

  running(count: number): void {
    inFlight.updateUnsafe(count, this.context)
  }

  refused(reason: string): void {
    this.count(refused, { reason })
  }

  reloaded(result: "ok" | "refused"): void {
    this.count(reloads, { result })
  }

  used(key: string, inputTokens: number, outputTokens: number, dollars: number): void {
    this.count(tokens, { key, type: "input" }, inputTokens)
    this.count(tokens, { key, type: "output" }, outputTokens)
    if (dollars > 0) this.count(cost, { key }, dollars)
  }

  /** All metrics of the registry in the format of Prometheus. */
  text(): string {
    return PrometheusMetrics.formatUnsafe(this.context)
  }

  private count(metric: Metric.Counter<number>, attributes: { readonly [name: string]: string }, by = 1): void {
    const name = `${metric.id} ${Object.values(attributes).join(" ")}`
    let series = this.series.get(name)
    if (series === undefined) {
      series = Metric.withAttributes(metric, attributes)
      if (this.series.size < maxSeries) this.series.set(name, series)
    }
    series.updateUnsafe(by, this.context)
  }
}

export const contentType = "text/plain; version=0.0.4; charset=utf-8"
