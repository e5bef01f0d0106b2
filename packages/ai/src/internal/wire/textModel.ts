import { callAfter } from "@sluice/core/Timer"
import type * as AiError from "effect/ai/AiError"
import type * as Prompt from "effect/ai/Prompt"
import type * as Response from "effect/ai/Response"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import type { Answer, TextModel } from "../../TextModel.ts"
import { setFacts } from "../kit/modelFacts.ts"
import { OnHeaders } from "../kit/onHeaders.ts"
import { CurrentCollectLimits } from "../stream/limits.ts"
import { OnMalformedEvent } from "../stream/malformed.ts"
import type { RequestConfig } from "./config.ts"
import { spanOptions } from "./exchange.ts"
import { factsOf } from "./facts.ts"
import { type Post, postOf, postThrough } from "./post.ts"
import { Reception } from "./reception.ts"
import { preparing } from "./request.ts"
import type { ProviderOptions, Settings } from "./settings.ts"
import type { Wire, WireRequest } from "./wire.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** Builds a model that collects one whole text from a stream. */
export const buildText = <C extends RequestConfig>(
  wire: Wire<C>,
  options: ProviderOptions<C>,
  settings: Settings
): Effect.Effect<TextModel, never, HttpClient.HttpClient> =>
  Effect.map(HttpClient.HttpClient, (client) => modelOver(wire, options, settings, client))

const modelOver = <C extends RequestConfig>(
  wire: Wire<C>,
  options: ProviderOptions<C>,
  settings: Settings,
  client: HttpClient.HttpClient
): TextModel => {
  const post = postOf(client) ?? postThrough(client)
  const prepare = preparing(wire, options, settings)
  const { endpoint } = settings
  const url = new URL(endpoint.url)
  const send = (
    fiber: AnyFiber,
    request: WireRequest<C>,
    headers: Record<string, string>,
    json: string,
    span?: Tracer.Span
  ) => collect({ wire, settings, post, url }, fiber, request, headers, json, span)
  const ask = (prompt: Prompt.Prompt): Effect.Effect<Answer, AiError.AiError> =>
    Effect.withFiber((fiber: AnyFiber) =>
      Effect.flatMap(
        prepare(fiber, "streamText", textCall(prompt)),
        ({ headers, request }) =>
          Effect.flatMap(wire.body(request), (json) =>
            isTraced(fiber) || options.propagateTrace === true
              ? Effect.flatMap(Effect.makeSpan("http.client POST", spanOptions(endpoint)), (span) => {
                const traced = options.propagateTrace === true
                  ? { ...headers, ...HttpTraceContext.toHeaders(span) }
                  : headers
                return send(fiber, request, traced, json, span)
              })
              : send(fiber, request, headers, json))
      )
    )
  return setFacts({ ask }, factsOf(wire, options, settings))
}

/** Whether the program has a tracer. */
const isTraced = (fiber: AnyFiber): boolean =>
  fiber.getRef(Tracer.Tracer) !== Tracer.nativeTracer && fiber.getRef(References.TracerEnabled)

const textCall = (prompt: Prompt.Prompt): WireRequest<RequestConfig>["call"] => ({ ...textOnly, prompt })

const textOnly: Omit<WireRequest<RequestConfig>["call"], "prompt"> = {
  tools: [],
  toolChoice: "none",
  responseFormat: { type: "text" }
}

interface Way<C extends RequestConfig> {
  readonly wire: Wire<C>
  readonly settings: Settings
  readonly post: Post
  readonly url: URL
}

/** Sends a request and reads the response to its end, within the limits of silence. */
const collect = <C extends RequestConfig>(
  { post, settings, url, wire }: Way<C>,
  fiber: AnyFiber,
  request: WireRequest<C>,
  headers: Readonly<Record<string, string>>,
  json: string,
  span: Tracer.Span | undefined
): Effect.Effect<Answer, AiError.AiError> =>
  Effect.callback((resume) => {
    const { context } = fiber
    const limits = fiber.getRef(CurrentCollectLimits)
    const clock = fiber.getRef(Clock.Clock)
    // Never set back, since the limits are about elapsed time.
    const now = (): number => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
    const startedAt = now()
    let length = 0
    let lastAt = startedAt
    const millisLeft = (): number => {
      if (limits === undefined) return Number.POSITIVE_INFINITY
      return (length === 0 ? startedAt + limits.firstTokenMillis : lastAt + limits.idleMillis) - now()
    }

    let cancel: (() => void) | undefined
    let firesAt = Number.POSITIVE_INFINITY
    // The content that arrives moves no timer. A timer that fires early is set again.
    const watch = (millis: number): void => {
      cancel?.()
      if (millis === Number.POSITIVE_INFINITY) return
      firesAt = now() + millis
      cancel = callAfter(context, millis, onTimer)
    }
    const onTimer = (): void => {
      const left = millisLeft()
      if (left > 0) return watch(left)
      // The reader waits for the end, and knows when to give up.
      if (limits === undefined || reception.reader?.isEnding === true) return watch(limits?.idleMillis ?? left)
      reception.close()
      resume(Effect.fail(limits.silent(length === 0 ? "first" : "idle", reception.reader?.made ?? 0)))
    }

    const onContent = (content: number): void => {
      const isFirst = length === 0
      length = content
      lastAt = now()
      if (limits === undefined) return
      if (isFirst) {
        limits.onFirst()
        if (lastAt + limits.idleMillis < firesAt) watch(limits.idleMillis)
      }
      limits.onContent(content)
    }

    const reception = new Reception({
      wire,
      request,
      bounds: settings.bounds,
      newId: "call",
      joinsDeltas: true,
      onMalformedEvent: fiber.getRef(OnMalformedEvent),
      onHeaders: fiber.getRef(OnHeaders),
      context,
      span,
      failsAt: () =>
        Math.min(limits?.failsAt ?? Number.POSITIVE_INFINITY, clock.currentTimeMillisUnsafe() + millisLeft()),
      onChange: () => {
        const content = reception.reader?.contentLength ?? 0
        if (content > length) onContent(content)
        if (!reception.isOver) return
        cancel?.()
        if (reception.defect !== undefined) resume(Effect.failCause(reception.defect))
        else if (reception.failure !== undefined) resume(Effect.fail(reception.failure))
        else resume(Effect.succeed(answerOf(reception.whole ?? reception.reader?.take() ?? [])))
      }
    })
    watch(millisLeft())
    reception.exchange = post(url, headers, json, reception, context)
    return Effect.sync(() => {
      cancel?.()
      reception.close()
    })
  })

const noUsage: Answer["usage"] = {
  inputTokens: { total: undefined, uncached: undefined, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: undefined, text: undefined, reasoning: undefined }
}

const answerOf = (parts: ReadonlyArray<Response.PartEncoded | Response.StreamPartEncoded>): Answer => {
  let id: string | undefined
  let model: string | undefined
  let text = ""
  let reasoning = ""
  let finishReason: Response.FinishReason = "unknown"
  let usage = noUsage
  for (const part of parts) {
    switch (part.type) {
      case "text":
        text += part.text
        break
      case "text-delta":
        text += part.delta
        break
      case "reasoning":
        reasoning += part.text
        break
      case "reasoning-delta":
        reasoning += part.delta
        break
      case "response-metadata":
        id = part.id ?? undefined
        model = part.modelId ?? undefined
        break
      case "finish":
        finishReason = part.reason
        usage = part.usage
        break
    }
  }
  return { id, model, text, reasoning, finishReason, usage, from: undefined }
}
