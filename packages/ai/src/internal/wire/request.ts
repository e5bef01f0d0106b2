import type * as AiError from "effect/ai/AiError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { CurrentModel } from "../kit/currentModel.ts"
import { merge, type RequestConfig } from "./config.ts"
import type { Origin } from "./failure.ts"
import { fixedHeaders, headersOf, originOf } from "./requestHeaders.ts"
import type { ProviderOptions, Settings } from "./settings.ts"
import type { Wire, WireRequest } from "./wire.ts"

/** The request of one call, and its headers. */
export interface Prepared<C extends RequestConfig> {
  readonly request: WireRequest<C>
  readonly headers: Record<string, string>
}

/** Prepares the requests of a model. Fails if a header of the call cannot be sent. */
export const preparing = <C extends RequestConfig>(
  wire: Wire<C>,
  options: ProviderOptions<C>,
  settings: Settings
) => {
  const fixed = fixedHeaders(settings, wire.headers, options.headers)
  const { endpoint, fields } = settings
  return (
    fiber: Fiber.Fiber<unknown, unknown>,
    method: Origin["method"],
    call: WireRequest<C>["call"],
    streams: boolean
  ): Effect.Effect<Prepared<C>, AiError.AiError> => {
    const inner = fiber.getRef(wire.config)
    const config = options.config === undefined ? inner : merge(options.config, inner)
    const model = fiber.getRef(CurrentModel) ?? config.model ?? options.model
    const clock = fiber.getRef(Clock.Clock)
    const origin = originOf(wire, settings, method, model, () => clock.currentTimeMillisUnsafe(), inner.headers)
    const request: WireRequest<C> = { origin, endpoint, config, fields, call, streams }
    return Effect.map(
      headersOf(settings, origin, { fixed, config, own: inner.headers }),
      (headers): Prepared<C> => ({ request, headers })
    )
  }
}
