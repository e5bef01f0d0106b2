/**
 * The idempotency key: it marks several requests as attempts of one call.
 *
 * **When to use**
 *
 * In a policy of your own that retries. A provider that supports the key answers a repeated request from its cache, and
 * bills it once. `ResilientModel` sets the key by itself. `OpenAiCompatible` and `AnthropicMessages` send it as
 * `Idempotency-Key`, unless their own configuration has a key.
 *
 * **Gotchas**
 *
 * - A provider without support ignores the header. Gateways and payment-like backends support it. OpenAI's chat
 *   completions and Anthropic's messages do not promise to, and their own clients send none.
 * - Use one key for one prompt. Two prompts under one key may share an answer, so a changed prompt needs another key.
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
 * The key of the current call. Default none: no header is sent.
 *
 * @since 0.1.0
 * @category references
 */
export const CurrentIdempotencyKey: Context.Reference<string | undefined> = Context.Reference<string | undefined>(
  "@sluice/ai/IdempotencyKey/CurrentIdempotencyKey",
  { defaultValue: () => undefined }
)
