import { Context, Effect, Exit, Layer, Metric, Option, Stream, Tracer } from "effect"
import { AiError, LanguageModel, type Response } from "effect/ai"

/** A tracer that keeps its spans. */
export const makeTracer = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { spans, layer: Layer.succeed(Tracer.Tracer, tracer) }
}

export const attributesOf = (span: Tracer.Span | undefined): Readonly<Record<string, unknown>> =>
  Object.fromEntries(span?.attributes ?? [])

export const parentOf = (span: Tracer.Span | undefined): string | undefined =>
  span === undefined ? undefined : Option.getOrUndefined(span.parent)?.spanId

/** Milliseconds from the start of a span to its end. */
export const lengthOf = (span: Tracer.Span | undefined): number | undefined =>
  span?.status._tag === "Ended" ? Number((span.status.endTime - span.status.startTime) / 1_000_000n) : undefined

export const exitOf = (span: Tracer.Span | undefined): Exit.Exit<unknown, unknown> | undefined =>
  span?.status._tag === "Ended" ? span.status.exit : undefined

/** All text in the spans: names, attributes and errors. */
export const spanText = (spans: ReadonlyArray<Tracer.Span>): string =>
  spans.map((span) => {
    const exit = exitOf(span)
    const errors = exit !== undefined && Exit.isFailure(exit)
      ? exit.cause.reasons.map((reason) =>
        reason._tag === "Fail" ? `${String(reason.error)} ${JSON.stringify(reason)}` : ""
      )
      : []
    return [span.name, JSON.stringify([...span.attributes]), ...errors].join("\n")
  }).join("\n")

export interface CallMetric {
  readonly id: string
  readonly attributes: Readonly<Record<string, string>>
  readonly state: Metric.HistogramState
}

/** Runs the effect with its own metric registry and returns the histograms of calls. */
export const collectMetrics = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<ReadonlyArray<CallMetric>, never, R> =>
  Effect.exit(self).pipe(
    Effect.andThen(Metric.snapshot),
    Effect.map((all) =>
      all.flatMap((metric) =>
        metric.type === "Histogram" && metric.id.startsWith("gen_ai.")
          ? [{ id: metric.id, attributes: metric.attributes ?? {}, state: metric.state }]
          : []
      )
    ),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )

export const metricsOf = (metrics: ReadonlyArray<CallMetric>, id: string) =>
  metrics.filter((metric) => metric.id === id)

export const usage = { input: 30, cacheRead: 20, cacheWrite: 5, output: 12, reasoning: 7 }

export const metadata: Response.PartEncoded & Response.StreamPartEncoded = {
  type: "response-metadata",
  id: "resp-1",
  modelId: "m1-2026",
  timestamp: undefined
}

export const finish: Response.PartEncoded & Response.StreamPartEncoded = {
  type: "finish",
  reason: "stop",
  response: undefined,
  usage: {
    inputTokens: { uncached: 5, total: usage.input, cacheRead: usage.cacheRead, cacheWrite: usage.cacheWrite },
    outputTokens: { total: usage.output, text: 5, reasoning: usage.reasoning }
  }
}

export const delta = (text: string): Response.StreamPartEncoded => ({ type: "text-delta", id: "1", delta: text })

export const start: Response.StreamPartEncoded = { type: "text-start", id: "1" }
export const end: Response.StreamPartEncoded = { type: "text-end", id: "1" }

export const failure = (reason: AiError.AiErrorReason) => AiError.make({ module: "Test", method: "test", reason })

type Streamed = Stream.Stream<Response.StreamPartEncoded, AiError.AiError>

/** A model with the given answers. */
export const modelOf = (
  answers: {
    readonly whole?: (
      options: LanguageModel.ProviderOptions
    ) => Effect.Effect<Array<Response.PartEncoded>, AiError.AiError>
    readonly streamed?: (options: LanguageModel.ProviderOptions) => Streamed
  }
): Effect.Effect<LanguageModel.LanguageModel> =>
  LanguageModel.make({
    generateText: answers.whole ?? (() => Effect.succeed([metadata, { type: "text", text: "hello" }, finish])),
    streamText: answers.streamed ??
      (() => Stream.fromIterable([metadata, start, delta("hel"), delta("lo"), end, finish]))
  })

export const layerOf = (model: LanguageModel.LanguageModel) =>
  Layer.succeedContext(Context.make(LanguageModel.LanguageModel, model))
