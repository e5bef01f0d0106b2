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

/** Whether spans go anywhere: without a tracer of the program's own, Effect would make them for nobody. */
export const isTraced = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  fiber.getRef(Tracer.Tracer) !== Tracer.nativeTracer && fiber.getRef(References.TracerEnabled)

/** Makes the span of an operation, a child of the span around it. */
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

/** The longest string of a provider's that a span shows. */
const maxLength = 256

/** Notes what is known of the answer. */
export const note = (span: Tracer.Span, answer: Answer): void => {
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

/** Ends the span. What it says of a failure is the type alone, since an error holds a provider's words. */
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

/** What a span shows in the place of an error: no message of a provider's, no stack, no cause. */
class OperationFailed extends Error {
  readonly _tag = "OperationFailed"

  constructor(errorType: string) {
    super(errorType)
    this.name = errorType
  }
}

/**
 * The context of what runs within the span.
 *
 * Effect's own model opens a span of its own, which would say the same once more, with the error in full. It is folded: the model
 * gets this span in its place, and what a provider's adapter notes comes to stand here.
 */
export const within = <R>(
  span: Tracer.Span,
  operation: Operation,
  context: Context.Context<R>,
  showsContent: boolean
): Context.Context<R> => {
  const outer = Context.get(context, Tracer.Tracer)
  const parent = borrowed(span, showsContent)
  const folded = borrowed(span, showsContent)
  // Effect's span of a stream is nobody's parent, so that a model that is called by a tool could be taken for the one above it.
  let left = operation.streams ? 1 : Infinity
  const tracer = Tracer.make({
    ...(outer.context === undefined ? {} : { context: outer.context.bind(outer) }),
    span: (options) => {
      const isFolded = left > 0 && isModels.test(options.name) && Option.getOrUndefined(options.parent) === parent
      if (!isFolded) return outer.span(options)
      left--
      return folded
    }
  })
  return Context.add(Context.add(context, Tracer.ParentSpan, parent), Tracer.Tracer, tracer)
}

const isModels = /^(?:LanguageModel|EmbeddingModel)\./

// What a toolkit notes on the span around it: the arguments of a tool are a part of the answer.
const ofTools: ReadonlySet<string> = new Set(["tool", "parameters"])

/** The same span for somebody who may not end it, and may not note on it what is content. */
const borrowed = (span: Tracer.Span, showsContent: boolean): Tracer.Span => {
  const copy: Borrowed = Object.create(prototypeOf(span))
  copy[Lender] = { span, showsContent }
  // What a tracer of its own kind looks for in its spans.
  for (const [key, value] of Object.entries(span)) if (!delegated.has(key)) Reflect.set(copy, key, value)
  return copy
}

const Lender = Symbol("@sluice/ai/Lender")

interface Borrowed extends Tracer.Span {
  [Lender]: { readonly span: Tracer.Span; readonly showsContent: boolean }
}

// One per class of spans: properties that are defined for each span anew cost 4 us of its 9.
const prototypes = new WeakMap<object, object>()

const prototypeOf = (span: Tracer.Span): object => {
  const own: object = Object.getPrototypeOf(span)
  const known = prototypes.get(own)
  if (known !== undefined) return known
  const prototype: object = Object.create(own, descriptors)
  prototypes.set(own, prototype)
  return prototype
}

const lent = <A>(read: (span: Tracer.Span) => A): PropertyDescriptor => ({
  get(this: Borrowed) {
    return read(this[Lender].span)
  }
})

const method = (value: (this: Borrowed, ...args: ReadonlyArray<never>) => void): PropertyDescriptor => ({ value })

const descriptors: PropertyDescriptorMap = {
  spanId: lent(({ spanId }) => spanId),
  traceId: lent(({ traceId }) => traceId),
  status: lent(({ status }) => status),
  attributes: lent(({ attributes }) => attributes),
  links: lent(({ links }) => links),
  attribute: method(function(key: string, value: unknown) {
    const { showsContent, span } = this[Lender]
    if (showsContent || !ofTools.has(key)) span.attribute(key, value)
  }),
  event: method(function(name: string, at: bigint, attributes?: Record<string, unknown>) {
    this[Lender].span.event(name, at, attributes)
  }),
  addLinks: method(function(links: ReadonlyArray<Tracer.SpanLink>) {
    this[Lender].span.addLinks(links)
  }),
  end: method(() => {})
}

const delegated: ReadonlySet<string> = new Set(Object.keys(descriptors))
