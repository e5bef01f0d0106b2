import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import { withoutStack } from "@sluice/core/Refusal"
import type { Answer, Operation } from "./operation.ts"

/** Whether the program has a tracer. Without one, spans would be built and then dropped. */
export const isTraced = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  fiber.getRef(Tracer.Tracer) !== Tracer.nativeTracer && fiber.getRef(References.TracerEnabled)

/** Starts the span of an operation, as a child of the current span. */
export const make = (operation: Operation): Effect.Effect<Tracer.Span> => {
  const { attempt, name, output, place, streams } = operation
  return Effect.makeSpan(`${name} ${place.model}`, {
    kind: "client",
    attributes: {
      "gen_ai.operation.name": name,
      "gen_ai.provider.name": place.provider,
      "gen_ai.request.model": place.model,
      ...(place.server === undefined ? {} : { "server.address": place.server.address }),
      ...(place.server?.port === undefined ? {} : { "server.port": place.server.port }),
      ...(name === "chat" ? { "gen_ai.request.stream": streams } : {}),
      ...(output === undefined ? {} : { "gen_ai.output.type": output }),
      "sluice.target": place.target,
      "sluice.attempt": attempt
    }
  })
}

/** How many characters of a provider's string a span shows. */
const maxLength = 256

/** Adds the attributes of the answer. */
export const addAnswer = (span: Tracer.Span, answer: Answer): void => {
  const attribute = (name: string, value: string | number | ReadonlyArray<string> | undefined): void => {
    if (value !== undefined) span.attribute(name, typeof value === "string" ? value.slice(0, maxLength) : value)
  }
  attribute("gen_ai.response.id", answer.id)
  attribute("gen_ai.response.model", answer.model)
  attribute("gen_ai.response.finish_reasons", answer.finishReason === undefined ? undefined : [answer.finishReason])
  attribute("gen_ai.usage.input_tokens", answer.inputTokens)
  attribute("gen_ai.usage.output_tokens", answer.outputTokens)
  attribute("gen_ai.usage.cache_read.input_tokens", answer.cacheReadTokens)
  attribute("gen_ai.usage.cache_creation.input_tokens", answer.cacheCreationTokens)
  attribute("gen_ai.usage.reasoning.output_tokens", answer.reasoningTokens)
}

/** Ends the span. Of a failure it shows the type alone, since an error can hold text of a provider. */
export const end = (
  span: Tracer.Span,
  at: bigint,
  failed: { readonly errorType: string; readonly cause: Cause.Cause<unknown> | undefined } | undefined,
  showsCause: boolean
): void => {
  if (failed === undefined) return span.end(at, Exit.void)
  span.attribute("error.type", failed.errorType)
  const { cause, errorType } = failed
  if (cause !== undefined && (showsCause || Cause.hasInterruptsOnly(cause))) return span.end(at, Exit.failCause(cause))
  span.end(at, Exit.fail(withoutStack(() => new OperationFailed(errorType))))
}

/** Replaces the error on a span. It has no message of a provider, no stack and no cause. */
class OperationFailed extends Error {
  readonly _tag = "OperationFailed"

  constructor(errorType: string) {
    super(errorType)
    this.name = errorType
  }
}

/**
 * The context for an effect that runs within the span.
 *
 * Effect's model opens a span of its own, which would repeat this one and show the full error. So the model gets this
 * span instead, and the attributes of a provider's adapter are added here.
 */
export const within = <R>(
  span: Tracer.Span,
  operation: Operation,
  context: Context.Context<R>,
  showsContent: boolean
): Context.Context<R> => {
  const outer = Context.get(context, Tracer.Tracer)
  const parent = viewOf(span, showsContent)
  const replacement = viewOf(span, showsContent)
  // Effect's span of a stream is no parent. So the span of a model that a tool calls looks the same, and only the first
  // one is replaced.
  let left = operation.streams ? 1 : Infinity
  const tracer = Tracer.make({
    ...(outer.context === undefined ? {} : { context: outer.context.bind(outer) }),
    span: (options) => {
      const isOfModel = modelSpan.test(options.name) && Option.getOrUndefined(options.parent) === parent
      if (left === 0 || !isOfModel) return outer.span(options)
      left--
      return replacement
    }
  })
  return Context.add(Context.add(context, Tracer.ParentSpan, parent), Tracer.Tracer, tracer)
}

const modelSpan = /^(?:LanguageModel|EmbeddingModel)\./

// The attributes that a toolkit adds to the current span. The arguments of a tool are content.
const toolAttributes: ReadonlySet<string> = new Set(["tool", "parameters"])

/** A view of the span. It cannot end the span, and adds content only if `showsContent`. */
const viewOf = (span: Tracer.Span, showsContent: boolean): Tracer.Span => {
  const view: SpanView = Object.create(prototypeOf(span))
  view[Viewed] = { span, showsContent }
  // A tracer may read fields of its own from its spans.
  for (const [key, value] of Object.entries(span)) if (!delegated.has(key)) Reflect.set(view, key, value)
  return view
}

const Viewed = Symbol("@sluice/ai/Viewed")

interface SpanView extends Tracer.Span {
  [Viewed]: { readonly span: Tracer.Span; readonly showsContent: boolean }
}

// One for each class of spans. Defining the properties for each span would cost 4 us of its 9.
const prototypes = new WeakMap<object, object>()

const prototypeOf = (span: Tracer.Span): object => {
  const own: object = Object.getPrototypeOf(span)
  const known = prototypes.get(own)
  if (known !== undefined) return known
  const prototype: object = Object.create(own, descriptors)
  prototypes.set(own, prototype)
  return prototype
}

const getter = <A>(read: (span: Tracer.Span) => A): PropertyDescriptor => ({
  get(this: SpanView) {
    return read(this[Viewed].span)
  }
})

const method = (value: (this: SpanView, ...args: ReadonlyArray<never>) => void): PropertyDescriptor => ({ value })

const descriptors: PropertyDescriptorMap = {
  spanId: getter(({ spanId }) => spanId),
  traceId: getter(({ traceId }) => traceId),
  status: getter(({ status }) => status),
  attributes: getter(({ attributes }) => attributes),
  links: getter(({ links }) => links),
  attribute: method(function(key: string, value: unknown) {
    const { showsContent, span } = this[Viewed]
    if (showsContent || !toolAttributes.has(key)) span.attribute(key, value)
  }),
  event: method(function(name: string, at: bigint, attributes?: Record<string, unknown>) {
    this[Viewed].span.event(name, at, attributes)
  }),
  addLinks: method(function(links: ReadonlyArray<Tracer.SpanLink>) {
    this[Viewed].span.addLinks(links)
  }),
  end: method(() => {})
}

const delegated: ReadonlySet<string> = new Set(Object.keys(descriptors))
