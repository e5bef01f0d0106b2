/** A logger, a tracer and a metric registry that report everything to `secrets.ts`. */
import { Cause, Context, Effect, Exit, Layer, Logger, LogLevel, Metric, References, Tracer } from "effect"
import { show } from "./secrets.ts"

const logger = Logger.make(({ cause, fiber, message }) => {
  for (const part of Array.isArray(message) ? message : [message]) show("a log line", part)
  if (cause.reasons.length > 0) show("the cause of a log line", Cause.pretty(cause))
  showFields("a log annotation", fiber.getRef(References.CurrentLogAnnotations))
  for (const [label] of fiber.getRef(References.CurrentLogSpans)) show("a log span", label)
})

const showFields = (where: string, fields: Readonly<Record<string, unknown>>): void => {
  for (const [name, value] of Object.entries(fields)) {
    show(`the name of ${where}`, name)
    show(`${where} ${name}`, value)
  }
}

class ShownSpan extends Tracer.NativeSpan {
  constructor(options: ConstructorParameters<typeof Tracer.NativeSpan>[0]) {
    super(options)
    show("the name of a span", options.name)
    this.showLinks(options.links)
  }
  override attribute(key: string, value: unknown): void {
    showFields(`an attribute of span ${this.name},`, { [key]: value })
    super.attribute(key, value)
  }
  override event(name: string, startTime: bigint, attributes?: Record<string, unknown>): void {
    show(`an event of span ${this.name}`, name)
    showFields(`an event of span ${this.name},`, attributes ?? {})
    super.event(name, startTime, attributes)
  }
  override addLinks(links: ReadonlyArray<Tracer.SpanLink>): void {
    this.showLinks(links)
    super.addLinks(links)
  }
  // Exporters write the message and the stack of the failure.
  override end(endTime: bigint, exit: Exit.Exit<unknown, unknown>): void {
    if (Exit.isFailure(exit)) show(`the failure of span ${this.name}`, Cause.pretty(exit.cause))
    super.end(endTime, exit)
  }
  private showLinks(links: ReadonlyArray<Tracer.SpanLink>): void {
    for (const { attributes } of links) showFields(`a link of span ${this.name},`, attributes)
  }
}

const tracer = Tracer.make({ span: (options) => new ShownSpan(options) })

class ShownRegistry extends Map<string, Metric.Metric.Metadata<unknown, unknown>> {
  override set(key: string, metric: Metric.Metric.Metadata<unknown, unknown>): this {
    show("the id of a metric", metric.id)
    show("the description of a metric", metric.description ?? "")
    showFields(`a label of metric ${metric.id},`, metric.attributes ?? {})
    return super.set(key, metric)
  }
}

// Existing loggers keep their level. This one gets every line.
const observed = (context: Context.Context<never>): Context.Context<never> => {
  const minimum = Context.get(context, References.MinimumLogLevel)
  const others = [...Context.get(context, Logger.CurrentLoggers)].map((other) =>
    Logger.make<unknown, void>((line) => {
      if (LogLevel.isGreaterThanOrEqualTo(line.logLevel, minimum)) other.log(line)
    })
  )
  return context.pipe(
    Context.add(Logger.CurrentLoggers, new Set([...others, logger])),
    Context.add(References.MinimumLogLevel, "All"),
    Context.add(Tracer.Tracer, tracer),
    Context.add(Metric.MetricRegistry, new ShownRegistry())
  )
}

/** Runs a test with the observing tracer, registry and logger. */
export const observe = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  // `observed` only adds services, so the context still has what the test needs.
  Effect.updateContext(self, (context: Context.Context<R>) => observed(context) as Context.Context<R>)

/** `observe` for a layer. */
export const observers: Layer.Layer<never> = Layer.effectContext(Effect.map(Effect.context<never>(), observed))
