import { CurrentAttempt } from "@sluice/core/RetryPolicy"
import * as AiError from "effect/ai/AiError"
import * as Effect from "effect/Effect"
import { CurrentIdempotencyKey } from "../../IdempotencyKey.ts"
import type { RequestConfig } from "./config.ts"
import * as Failure from "./failure.ts"
import * as Headers from "./headers.ts"
import * as Mask from "./mask.ts"
import type { Settings, WireOfSettings } from "./settings.ts"

/** Returns the values that all errors of a request share. `own`: the headers of this request alone. */
export const originOf = (
  wire: WireOfSettings,
  { endpoint, mask, maxErrorExcerpt, maxRetryAfter, secrets }: Settings,
  method: Failure.Origin["method"],
  model: string,
  now: () => number,
  own?: Headers.Custom
): Failure.Origin => {
  const ownSecrets = Headers.secrets(own)
  return {
    module: wire.module,
    provider: endpoint.host,
    method,
    model,
    url: endpoint.shown,
    hasKey: secrets.length > 0,
    mask: ownSecrets.length === 0 ? mask : Mask.make([...secrets, ...ownSecrets]),
    excerptLength: maxErrorExcerpt,
    maxRetryAfter,
    now
  }
}

/** The headers that all requests of a model share. */
export interface FixedHeaders {
  readonly first: Record<string, string>
  /** The key, which nothing overrides. */
  readonly last: Record<string, string>
}

/** `required`: the headers of the API. `shared`: those of the options. */
export const fixedHeaders = (
  { key }: Settings,
  required: Headers.Custom | undefined,
  shared: Headers.Custom | undefined
): FixedHeaders => ({
  first: { "user-agent": "sluice", ...Headers.plain(required), ...Headers.plain(shared) },
  last: Headers.plain(key)
})

interface Sent {
  readonly fixed: FixedHeaders
  readonly config?: Pick<RequestConfig, "headers" | "idempotencyKey"> | undefined
  /** The headers of this request alone, which were not checked yet. */
  readonly own?: Headers.Custom | undefined
  /** Appended to the idempotency key, for one of several requests of a call. */
  readonly keySuffix?: string | undefined
}

/** The headers of one request. Fails if one of them cannot be sent. */
export const headersOf = (
  { keyHeader }: Settings,
  origin: Failure.Origin,
  { config, fixed, keySuffix = "", own }: Sent
): Effect.Effect<Record<string, string>, AiError.AiError> =>
  Effect.withFiber((fiber) => {
    const idempotencyKey = config?.idempotencyKey ?? fiber.getRef(CurrentIdempotencyKey)
    const idempotency: Headers.Custom = idempotencyKey === undefined
      ? {}
      : { "idempotency-key": idempotencyKey + keySuffix }
    const wrong = Headers.firstProblem({ ...own, ...idempotency }, keyHeader)
    if (wrong !== undefined) {
      return Effect.fail(Failure.make(origin, new AiError.InvalidUserInputError({ description: wrong })))
    }
    const attempt = fiber.getRef(CurrentAttempt)
    return Effect.succeed({
      ...fixed.first,
      ...Headers.plain(config?.headers),
      ...(attempt === undefined ? {} : { "x-sluice-attempt": String(attempt.attempt) }),
      ...Headers.plain(idempotency),
      ...fixed.last
    })
  })
