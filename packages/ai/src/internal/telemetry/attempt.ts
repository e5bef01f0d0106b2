import * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Pull from "effect/Pull"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import * as Content from "./content.ts"
import * as ErrorType from "./errorType.ts"
import { Histogram } from "./histogram.ts"
import type { Answer, Operation } from "./operation.ts"
import * as Series from "./series.ts"
import * as Span from "./span.ts"

/** Switches content on; see `GenAiTelemetry.Content`. */
export interface ContentOptions {
  readonly maxLength?: number | undefined
}

export const CurrentContent: Context.Reference<ContentOptions | undefined> = Context.Reference<
  ContentOptions | undefined
>("@sluice/ai/GenAiTelemetry/Content", { defaultValue: () => undefined })

type Chunk<A> = readonly [A, ...Array<A>]

const defaultMaxLength = 16_384

/**
 * The telemetry of one attempt: its span, and what it adds to the metrics. It watches one effect or one stream, once.
 *
 * A caller that knows better how the attempt ended, such as a guard with an idle timeout, calls `settle` before it
 * interrupts the attempt. The first `settle` counts.
 */
export class Attempt {
  private readonly operation: Operation
  private readonly answer: Answer = {}
  private clock: Clock.Clock | undefined
  private context: Context.Context<never> = Context.empty()
  private span: Tracer.Span | undefined
  private content: ContentOptions | undefined
  private answerContent: Content.AnswerContent | undefined
  private startedAt = 0
  private answeredAt: number | undefined
  private firstChunkAt: number | undefined
  private lastChunkAt = 0
  private gaps: Histogram | undefined
  private streamError: string | undefined
  private settled = false

  constructor(operation: Operation) {
    this.operation = operation
  }

  /** Watches an effect. `read` reports its result, with `answered` or `parts`. */
  effect<A, E, R>(self: Effect.Effect<A, E, R>, read: (value: A, attempt: Attempt) => void): Effect.Effect<A, E, R> {
    const watched = Effect.flatMap(this.start, (span) =>
      span === undefined
        ? self
        : Effect.updateContext(self, (context: Context.Context<R>) => this.within(span, context)))
    return Effect.onExitPrimitive(watched, (exit) => {
      if (Exit.isSuccess(exit)) {
        this.reading(() => read(exit.value, this))
        this.complete()
      } else if (this.answeredAt !== undefined) this.complete() // A tool failed, not the model.
      else this.settle(exit)
      return undefined
    })
  }

  /** Watches a stream of parts. The attempt ends when the stream ends, fails or is closed. */
  stream<A extends Response.AnyPart, E, R>(self: Stream.Stream<A, E, R>): Stream.Stream<A, E, R> {
    // One operator for both results of a pull costs half as much as two.
    const watch = {
      onSuccess: (parts: Chunk<A>) => {
        this.chunk(parts)
        return Effect.succeed(parts)
      },
      onFailure: (cause: Cause.Cause<E | Cause.Done>) => {
        if (Pull.isDoneCause(cause)) this.ended()
        else if (this.answer.finishReason !== undefined) this.complete()
        else this.settle(Exit.failCause(cause))
        return Effect.failCause(cause)
      }
    }
    return Stream.fromChannel(
      Channel.fromTransform((_, scope) =>
        Effect.flatMap(
          Scope.addFinalizer(
            scope,
            Effect.sync(() => this.left())
          ),
          () =>
            Effect.flatMap(this.start, (span) =>
              Effect.map(
                Channel.toPullScoped(
                  Stream.toChannel(span === undefined ? self : this.streamWithin(self, span)),
                  scope
                ),
                (pull) => Effect.matchCauseEffect(pull, watch)
              ))
        )
      )
    )
  }

  /** Ends the attempt. `undefined`: with the error part of the stream. Does nothing if it has ended. */
  settle(exit: Exit.Exit<unknown, unknown> | undefined): void {
    if (this.settled || this.clock === undefined) return
    this.settled = true
    const cause = exit !== undefined && Exit.isFailure(exit) ? exit.cause : undefined
    const errorType = exit === undefined
      ? this.streamError ?? ErrorType.other
      : cause === undefined
      ? undefined
      : ErrorType.fromCause(cause)
    if (cause !== undefined) this.addUsageOf(cause)
    this.measure(this.clock, errorType)
    if (this.span === undefined) return
    Span.addAnswer(this.span, this.answer)
    if (this.firstChunkAt !== undefined) {
      this.span.attribute("gen_ai.response.time_to_first_chunk", (this.firstChunkAt - this.startedAt) / 1000)
    }
    this.answerContent?.addTo(this.span, this.answer.finishReason)
    const failed = errorType === undefined ? undefined : { errorType, cause }
    const sinceMillis = this.answeredAt === undefined ? 0 : this.clock.currentTimeMillisUnsafe() - this.answeredAt
    Span.end(
      this.span,
      this.clock.currentTimeNanosUnsafe() - BigInt(sinceMillis) * 1_000_000n,
      failed,
      this.content !== undefined
    )
  }

  answered(answer: Answer): void {
    Object.assign(this.answer, answer)
  }

  /** Reports the parts of a whole answer. */
  parts(parts: ReadonlyArray<Response.AnyPart>): void {
    for (const part of parts) this.part(part)
  }

  /** Reports that the model has answered. The time of the tools that run now does not count. */
  modelAnswered(): void {
    if (this.clock !== undefined) this.answeredAt ??= this.clock.currentTimeMillisUnsafe()
  }

  /** Makes the spans of the stream children of this one, and not those of its consumer. */
  private streamWithin<A, E, R>(self: Stream.Stream<A, E, R>, span: Tracer.Span): Stream.Stream<A, E, R> {
    return Stream.updateContext(self, (context: Context.Context<R>) => this.within(span, context))
  }

  within<R>(span: Tracer.Span, context: Context.Context<R>): Context.Context<R> {
    return Span.within(span, this.operation, context, this.content !== undefined)
  }

  /**
   * Starts the attempt, for a caller that reports its parts with `chunk`, and its end with `complete`, `settle` or
   * `left`.
   */
  readonly start: Effect.Effect<Tracer.Span | undefined> = Effect.withFiber((fiber) => {
    this.clock = fiber.getRef(Clock.Clock)
    this.context = fiber.context
    this.startedAt = this.lastChunkAt = this.clock.currentTimeMillisUnsafe()
    return Span.isTraced(fiber) ? this.trace(fiber) : Effect.undefined
  })

  private trace(fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<Tracer.Span> {
    const content = this.content = fiber.getRef(CurrentContent)
    return Effect.map(Span.make(this.operation), (span) => {
      this.span = span
      const request = this.operation.content
      if (content !== undefined && request !== undefined) {
        const maxLength = content.maxLength ?? defaultMaxLength
        this.answerContent = new Content.AnswerContent(maxLength)
        this.reading(() => Content.addRequest(span, request(), maxLength))
      }
      return span
    })
  }

  /** Reads content. Content that cannot be read must not fail the call. */
  private reading(read: () => void): void {
    try {
      read()
    } catch {
      this.span?.attribute("sluice.telemetry.unreadable", true)
    }
  }

  /** Reports parts that arrived together. */
  chunk(parts: ReadonlyArray<Response.AnyPart>): void {
    let output = 0
    for (const part of parts) if (this.part(part)) output++
    if (output > 0) this.output(output)
  }

  /** Reports that so many pieces of output arrived together, by default now. */
  output(output: number, now = this.clock?.currentTimeMillisUnsafe()): void {
    if (now === undefined) return
    if (this.firstChunkAt === undefined) this.firstChunkAt = now
    else {
      this.gaps ??= new Histogram(Series.timePerOutputChunk.boundaries)
      this.gaps.add((now - this.lastChunkAt) / 1000)
    }
    this.lastChunkAt = now
    // The other parts of the chunk arrived at the same time.
    if (output > 1) (this.gaps ??= new Histogram(Series.timePerOutputChunk.boundaries)).add(0, output - 1)
  }

  /** Reads a part. Returns whether it is output. */
  private part(part: Response.AnyPart): boolean {
    this.answerContent?.add(part)
    switch (part.type) {
      case "text-delta":
      case "reasoning-delta":
      case "tool-params-start":
      case "tool-params-delta":
      case "tool-call":
      case "text":
      case "reasoning":
      case "file":
      case "source":
        return true
      case "tool-result":
        return part.providerExecuted
      case "response-metadata":
        this.answer.id = part.id
        this.answer.model = part.modelId
        return false
      case "finish": {
        const { inputTokens, outputTokens } = part.usage
        this.answer.finishReason = part.reason
        this.answer.inputTokens = inputTokens.total
        this.answer.outputTokens = outputTokens.total
        this.answer.cacheReadTokens = inputTokens.cacheRead
        this.answer.cacheCreationTokens = inputTokens.cacheWrite
        this.answer.reasoningTokens = outputTokens.reasoning
        this.modelAnswered()
        return false
      }
      case "error":
        this.streamError ??= ErrorType.ofStreamError(part.error)
        return false
      default:
        return false
    }
  }

  private ended(): void {
    if (this.answer.finishReason === undefined) this.streamError ??= "TruncatedStream"
    this.complete()
  }

  /** Reports that the stream was closed. Before its finish part or an error, that means that its consumer left. */
  left(): void {
    if (this.answer.finishReason === undefined && this.streamError === undefined) {
      this.settle(Exit.failCause(Cause.interrupt()))
    } else this.complete()
  }

  /** Reports that the stream ended. It failed if it had an error part. */
  complete(): void {
    this.settle(this.streamError === undefined ? Exit.void : undefined)
  }

  /** An unusable answer was paid for. Its error has the usage. */
  private addUsageOf(cause: Cause.Cause<unknown>): void {
    const error = cause.reasons.find(Cause.isFailReason)?.error
    if (!AiError.isAiError(error) || !("usage" in error.reason)) return
    this.answer.inputTokens ??= error.reason.usage?.promptTokens
    this.answer.outputTokens ??= error.reason.usage?.completionTokens
  }

  private measure(clock: Clock.Clock, errorType: string | undefined): void {
    const { answer } = this
    const endedAt = this.answeredAt ?? clock.currentTimeMillisUnsafe()
    const series = Series.registeredIn(this.context).series(this.operation, answer.model, errorType)
    series.histogram(Series.operationDuration).add((endedAt - this.startedAt) / 1000)
    if (isCount(answer.inputTokens)) series.histogram(Series.tokenUsage, "input").add(answer.inputTokens)
    if (isCount(answer.outputTokens)) series.histogram(Series.tokenUsage, "output").add(answer.outputTokens)
    if (this.firstChunkAt !== undefined) {
      series.histogram(Series.timeToFirstChunk).add((this.firstChunkAt - this.startedAt) / 1000)
    }
    if (this.gaps !== undefined) series.histogram(Series.timePerOutputChunk).addAll(this.gaps)
  }
}

const isCount = (tokens: number | undefined): tokens is number =>
  tokens !== undefined && Number.isFinite(tokens) && tokens >= 0
