/**
 * Reads the rate-limit headers of a provider's answer, in the forms of OpenAI, Azure, Anthropic, Groq, Mistral and Cerebras.
 *
 * The quota of a target of `ResilientModel` follows these headers automatically.
 *
 * **When to use**
 *
 * - `fromHeaders` for a client of your own, with `observe` of `Quota`.
 * - `OnHeaders` in an adapter of your own, so that the quota of its target follows the headers.
 *
 * **Details**
 *
 * | headers | limit | window | sent by |
 * |---|---|---|---|
 * | `x-ratelimit-limit-requests`, `-remaining-`, `-reset-` | `requests` | by the reset | OpenAI: a minute; Groq: a day |
 * | `x-ratelimit-limit-tokens`, `-remaining-`, `-reset-` | `tokens` | by the reset | OpenAI, Azure and Groq: a minute |
 * | `x-ratelimit-limit-req-minute`, `-remaining-`, and others with `requests`, `tokens`, `second`, `hour` or `day` | `requests`, `tokens` | in the name | Mistral, Cerebras |
 * | `anthropic-ratelimit-requests-limit`, `-remaining`, `-reset` | `requests` | by the reset | Anthropic |
 * | the same with `input-tokens`, `output-tokens`, `tokens` | `inputTokens`, `outputTokens`, `tokens` | by the reset | Anthropic |
 *
 * - A limit is ignored if neither its name nor a reset states its window. A `remaining` without a limit is read, since Azure
 *   sends it.
 * - Negative numbers and a limit of 0 are ignored: Azure sends -1, and Mistral sends 0, for a limit that does not exist.
 * - A reset is read in seconds, with units (`7m12s`, `577ms`), or as a date.
 *
 * **Gotchas**
 *
 * - `remaining` may be rounded: Anthropic rounds to thousands.
 * - A header may state the daily limit where you expect the limit of a minute. `Quota` compares the window and ignores such a
 *   header.
 *
 * **Example** (Two headers of Mistral)
 *
 * ```ts
 * import * as RateLimits from "@sluice/ai/RateLimits"
 *
 * const seen = RateLimits.fromHeaders(
 *   { "x-ratelimit-limit-req-minute": "720", "x-ratelimit-remaining-req-minute": "717" },
 *   { now: 2_000, sentAt: 1_000 }
 * )
 *
 * console.log(seen.map(({ dimension, limit, remaining }) => `${dimension}: ${remaining} of ${limit}`)) // => [ 'requests: 717 of 720' ]
 * ```
 *
 * @since 0.1.0
 */
import type { Seen } from "@sluice/core/Quota"
import * as Duration from "effect/Duration"
import * as Internal from "./internal/kit/onHeaders.ts"
import * as RetryAfter from "./RetryAfter.ts"

/**
 * A function that adapters call with the headers of each response when they arrive. In a call of `ResilientModel` whose target
 * has a quota, it passes them to the quota. Otherwise it is `undefined`. `OpenAiCompatible` and `AnthropicMessages` call it.
 *
 * @since 0.1.0
 * @category references
 */
export const OnHeaders: typeof Internal.OnHeaders = Internal.OnHeaders

/**
 * Options for reading rate-limit headers.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /** When the headers arrived, in epoch milliseconds. */
  readonly now: number
  /** When the call was sent, in epoch milliseconds. A quota follows the answer to the call that was sent last. */
  readonly sentAt: number
}

/**
 * Reads the limits that the headers state, for `observe` of `Quota`. Empty if there are none.
 *
 * @since 0.1.0
 * @category getters
 */
export const fromHeaders = (headers: RetryAfter.Headers, { now, sentAt }: Options): ReadonlyArray<Seen> => {
  const found = new Map<string, Fields>()
  for (const name in headers) {
    const value = headers[name]
    if (typeof value !== "string") continue
    const [, field, unit, span] = common.exec(name) ?? []
    const [, anthropicUnit, anthropicField] = anthropic.exec(name) ?? []
    const dimension = dimensions[unit ?? anthropicUnit ?? ""]
    if (dimension === undefined) continue
    const id = `${dimension} ${span ?? ""}`
    let fields = found.get(id)
    if (fields === undefined) found.set(id, fields = { dimension, windowMillis: spans[span ?? ""] })
    read(fields, field ?? anthropicField, value, now)
  }
  const seen: Array<Seen> = []
  for (const fields of found.values()) {
    const { limit, remaining, resetMillis, windowMillis } = fields
    // A limit counts only with its window. What remains of a limit that is not named counts as it is.
    const hasWindow = windowMillis !== undefined || resetMillis !== undefined && remaining !== undefined
    const isUseful = limit === undefined ? remaining !== undefined : hasWindow
    if (isUseful) seen.push({ ...fields, sentAt })
  }
  return seen
}

interface Fields {
  readonly dimension: string
  readonly windowMillis: number | undefined
  limit?: number
  remaining?: number
  resetMillis?: number
}

const common =
  /^x-ratelimit-(limit|remaining|reset)-(req|requests|tokens|input-tokens|output-tokens)(?:-(second|minute|hour|day))?$/
const anthropic = /^anthropic-ratelimit-(requests|tokens|input-tokens|output-tokens)-(limit|remaining|reset)$/

const dimensions: { readonly [unit: string]: string } = {
  req: "requests",
  requests: "requests",
  tokens: "tokens",
  "input-tokens": "inputTokens",
  "output-tokens": "outputTokens"
}

const spans: { readonly [span: string]: number } = { second: 1_000, minute: 60_000, hour: 3_600_000, day: 86_400_000 }

const number = /^\d+(?:\.\d+)?$/
// A month, the longest window of any provider.
const maxReset = Duration.days(31)

const read = (fields: Fields, field: string | undefined, value: string, now: number): void => {
  if (field === "reset") {
    const reset = RetryAfter.fromHeaders({ "retry-after": value }, { now, max: maxReset })
    if (reset !== undefined) fields.resetMillis = Duration.toMillis(reset)
  } else if (number.test(value)) {
    const amount = Number(value)
    if (field === "remaining") fields.remaining = amount
    else if (amount >= 1) fields.limit = amount
  }
}
