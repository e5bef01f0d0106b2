/**
 * The key by which a provider knows that several requests are attempts of one call.
 *
 * **When to use**
 *
 * Around a call that may be attempted more than once, so that a provider that honours the key answers a repeated attempt
 * from memory and bills it once. A policy that retries sets it; `OpenAiCompatible` and `AnthropicMessages` send it as
 * `Idempotency-Key` with every request, unless their own configuration names a key.
 *
 * **Gotchas**
 *
 * - Providers that do not know the header ignore it. Neither OpenAI's chat completions nor Anthropic's messages promise to
 *   honour it today, and their own clients send none; gateways and payment-like backends do.
 * - One key belongs to one prompt. The same key on two different prompts may give one the answer of the other, so a call that
 *   is asked again in other words needs another key.
 *
 * **Example** (One key for all attempts of one call)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as IdempotencyKey from "@sluice/ai/IdempotencyKey"
 *
 * const key = IdempotencyKey.CurrentIdempotencyKey.pipe(
 *   Effect.provideService(IdempotencyKey.CurrentIdempotencyKey, "order-17")
 * )
 *
 * console.log(await Effect.runPromise(key)) // => order-17
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"

/**
 * The key of the call within whose reach a request is made. Default: none, and then no header is sent.
 *
 * @since 0.1.0
 * @category references
 */
export const CurrentIdempotencyKey: Context.Reference<string | undefined> = Context.Reference<string | undefined>(
  "@sluice/ai/IdempotencyKey/CurrentIdempotencyKey",
  { defaultValue: () => undefined }
)
