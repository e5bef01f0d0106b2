import type * as AiError from "effect/ai/AiError"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as HttpClient from "effect/http/HttpClient"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import { OnHeaders } from "../kit/onHeaders.ts"
import { OnMalformedEvent } from "../stream/malformed.ts"
import type { RequestConfig } from "./config.ts"
import { spanOptions } from "./exchange.ts"
import type { Origin } from "./failure.ts"
import { postOf, postThrough } from "./post.ts"
import { Reception, type ReceptionOptions } from "./reception.ts"
import { preparing } from "./request.ts"
import type { ProviderOptions, Settings } from "./settings.ts"
import type { Wire, WireRequest } from "./wire.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** How a response is received. */
export type Receiving<C extends RequestConfig> = Pick<ReceptionOptions<C>, "failsAt" | "joinsDeltas" | "onChange">

/** A request that is ready to be sent. */
export interface Ready<C extends RequestConfig> {
  readonly fiber: AnyFiber
  readonly request: WireRequest<C>
  /** Sends it. */
  readonly send: (receiving: Receiving<C>) => Reception<C>
}

export interface Call<C extends RequestConfig> extends Pick<WireRequest<C>, "call" | "streams"> {
  readonly method: Origin["method"]
  /** The prefix of ids for tool calls that have none. */
  readonly newId: string
}

/** Whether the program has a tracer. Without one, spans would be built and then dropped. */
export const isTraced = (fiber: AnyFiber): boolean =>
  fiber.getRef(Tracer.Tracer) !== Tracer.nativeTracer && fiber.getRef(References.TracerEnabled)

/** Prepares the requests of a model. Fails if the API has no form for one. */
export const sending = <C extends RequestConfig>(
  wire: Wire<C>,
  options: ProviderOptions<C>,
  settings: Settings,
  client: HttpClient.HttpClient
): (call: Call<C>) => Effect.Effect<Ready<C>, AiError.AiError> => {
  const post = postOf(client) ?? postThrough(client)
  const prepare = preparing(wire, options, settings)
  const { bounds, endpoint } = settings
  const url = new URL(endpoint.url)
  const traces = options.propagateTrace === true
  return ({ call, method, newId, streams }) =>
    Effect.withFiber((fiber: AnyFiber) =>
      Effect.flatMap(
        prepare(fiber, method, call, streams),
        ({ headers, request }) =>
          Effect.flatMap(wire.body(request), (json) => {
            const { context } = fiber
            const ready = (span: Tracer.Span | undefined): Ready<C> => ({
              fiber,
              request,
              send: (receiving) => {
                const onMalformedEvent = fiber.getRef(OnMalformedEvent)
                const reception = new Reception<C>({
                  ...receiving,
                  wire,
                  request,
                  bounds,
                  newId,
                  onMalformedEvent,
                  onHeaders: fiber.getRef(OnHeaders),
                  span,
                  context
                })
                const traced = traces && span !== undefined ? HttpTraceContext.toHeaders(span) : undefined
                reception.exchange = post(
                  {
                    method: "POST",
                    url,
                    headers: { ...headers, ...traced, "content-type": "application/json" },
                    body: json
                  },
                  reception,
                  context
                )
                return reception
              }
            })
            // The client's own span would hold the request, with prompt and key, for every tracer that looks into results.
            return traces || isTraced(fiber)
              ? Effect.map(Effect.makeSpan("http.client POST", spanOptions(endpoint)), ready)
              : Effect.succeed(ready(undefined))
          })
      )
    )
}
