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

interface Sent {
  /** The headers that the API requires. */
  readonly required?: Headers.Custom | undefined
  /** The headers of every request. */
  readonly shared: Headers.Custom | undefined
  readonly config?: Pick<RequestConfig, "headers" | "idempotencyKey"> | undefined
  /** The headers of this request alone, which were not checked yet. */
  readonly own?: Headers.Custom | undefined
  /** Appended to the idempotency key, for one of several requests of a call. */
  readonly keySuffix?: string | undefined
}

/** The headers of one request. Fails if one of them cannot be sent. */
export const headersOf = Effect.fnUntraced(function*(
  { key, keyHeader }: Settings,
  origin: Failure.Origin,
  { config, keySuffix = "", own, required, shared }: Sent
): Effect.fn.Return<Record<string, string>, AiError.AiError> {
  const idempotencyKey = config?.idempotencyKey ?? (yield* CurrentIdempotencyKey)
  const idempotency: Headers.Custom = idempotencyKey === undefined
    ? {}
    : { "idempotency-key": idempotencyKey + keySuffix }
  const wrong = Headers.firstProblem({ ...own, ...idempotency }, keyHeader)
  if (wrong !== undefined) {
    return yield* Effect.fail(Failure.make(origin, new AiError.InvalidUserInputError({ description: wrong })))
  }
  const attempt = yield* CurrentAttempt
  return {
    "user-agent": "sluice",
    ...Headers.plain(required),
    ...Headers.plain(shared),
    ...Headers.plain(config?.headers),
    ...(attempt === undefined ? {} : { "x-sluice-attempt": String(attempt.attempt) }),
    ...Headers.plain(idempotency),
    ...Headers.plain(key)
  }
})
