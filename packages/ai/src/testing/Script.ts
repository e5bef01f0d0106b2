/**
 * A script of faults for a loopback provider: a seed, rates of faults, and an outage.
 *
 * **When to use**
 *
 * For load tests and comparisons of clients, with many prompts. To script single requests, use `Turn`.
 *
 * **Details**
 *
 * A fault depends on the seed, the prompt and the attempt alone. The order of the requests, their concurrency and the
 * speed of the machine do not matter. So two clients with the same prompts see the same faults, and every run is the
 * same.
 *
 * The sum of the rates is the probability that a prompt is faulty. A faulty prompt has one kind of fault. Its first
 * attempts fail, from one up to `faultyAttempts` by the seed; later attempts succeed. So a client with enough attempts
 * always gets its answer, and the share of prompts that need a second attempt is known in advance.
 *
 * An outage is given in requests (`afterCalls`, `requests`) or in time (`fromMillis`, `forMillis`). In requests, it
 * hits a slow and a fast client at the same point.
 *
 * **Example** (A script, and the faults of a prompt)
 *
 * ```ts
 * import { Schema } from "effect"
 * import * as Script from "@sluice/ai/testing/Script"
 *
 * const script = Schema.decodeUnknownSync(Script.Script)({ seed: 7, faults: { rateLimit: 0.5, cut: 0.5 } })
 *
 * console.log(Script.fault(script, "Good morning", 1)) // => cut
 * console.log(Script.fault(script, "Good morning", 2)) // => undefined
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { uniform } from "../internal/kit/hash.ts"

/**
 * The kinds of fault.
 *
 * **Details**
 *
 * | fault | what the client sees |
 * |---|---|
 * | `rateLimit` | 429 with Retry-After |
 * | `unavailable` | 503 |
 * | `reset` | a connection reset before the answer |
 * | `hang` | silence for `hangMillis`, then a reset |
 * | `slowStart` | a complete answer, whose first token is `slowStartMillis` late |
 * | `cut` | 200, some tokens, and a clean end without finish reason or `[DONE]`; without streaming, half of the JSON |
 *
 * @since 0.1.0
 * @category models
 */
export const Fault: Schema.Literals<["rateLimit", "unavailable", "reset", "hang", "slowStart", "cut"]> = Schema
  .Literals([
    "rateLimit",
    "unavailable",
    "reset",
    "hang",
    "slowStart",
    "cut"
  ])

/**
 * @since 0.1.0
 * @category models
 */
export type Fault = typeof Fault.Type

const orElse = <A>(value: A) => Schema.withDecodingDefaultKey<Schema.Codec<A, A>>(Effect.succeed(value))

const Rate = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 })).pipe(orElse(0))
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const Millis = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

/**
 * The share of prompts with each fault: 0 to 1, in sum at most 1. Default 0.
 *
 * @since 0.1.0
 * @category models
 */
export const Faults = Schema.Struct({
  rateLimit: Rate,
  unavailable: Rate,
  reset: Rate,
  hang: Rate,
  slowStart: Rate,
  cut: Rate
}).check(
  Schema.makeFilter((rates) => Object.values(rates).reduce((sum, rate) => sum + rate, 0) <= 1 + 1e-9, {
    message: "the rates add up to more than 1"
  })
)

const refusal = {
  /** How requests are refused: with 503, or with a connection reset. Default `unavailable`. */
  how: Schema.Literals(["unavailable", "reset"]).pipe(orElse<"unavailable" | "reset">("unavailable")),
  /** The Retry-After of the 503, in seconds. Default: none. */
  retryAfterSeconds: Schema.optionalKey(Millis)
}

/**
 * An outage: every request is refused, retries too.
 *
 * **Details**
 *
 * By requests, it starts after the first attempts of `afterCalls` prompts. It ends when `requests` were refused, or
 * after `atMostMillis` if the client waits instead. By time, it starts `fromMillis` after the provider started or was
 * cleared, and lasts `forMillis`.
 *
 * @since 0.1.0
 * @category models
 */
export const Outage = Schema.Union([
  Schema.Struct({ afterCalls: Count, requests: Count, atMostMillis: Millis, ...refusal }),
  Schema.Struct({ fromMillis: Millis, forMillis: Millis, ...refusal })
])

/**
 * @since 0.1.0
 * @category models
 */
export type Outage = typeof Outage.Type

/**
 * A script. Every field has a default. `{}` is a provider without faults.
 *
 * @since 0.1.0
 * @category models
 */
export const Script = Schema.Struct({
  /** Chooses the faulty prompts. Default 1. */
  seed: Schema.Int.pipe(orElse(1)),
  faults: Faults.pipe(
    Schema.withDecodingDefaultKey(Effect.succeed({}))
  ),
  /** The most attempts of a prompt that are faulty. Default 1: every second attempt succeeds. */
  faultyAttempts: Count.pipe(orElse(1)),
  /** The Retry-After of a 429, in seconds. Default 1. A fraction is also sent as `retry-after-ms`. */
  retryAfterSeconds: Millis.pipe(orElse(1)),
  /**
   * How long a hanging request is silent before its connection is reset. Default 10 minutes, longer than most timeouts.
   */
  hangMillis: Millis.pipe(orElse(600_000)),
  /** How late the first token of a slow start is. Default 2000. */
  slowStartMillis: Millis.pipe(orElse(2_000)),
  outage: Schema.optionalKey(Outage)
})

/**
 * @since 0.1.0
 * @category models
 */
export type Script = typeof Script.Type

/**
 * A script in a file or in code: only what differs from the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export type Encoded = typeof Script.Encoded

/**
 * Decodes a script. An unknown field is an error: its fault would never happen.
 *
 * @since 0.1.0
 * @category decoding
 */
export const decode: (script: unknown) => Effect.Effect<Script, Schema.SchemaError> = Schema.decodeUnknownEffect(
  Script,
  {
    onExcessProperty: "error",
    errors: "all"
  }
)

/**
 * Returns the fault of an attempt at a prompt. The first attempt is 1. The prompt can be any text that identifies it.
 *
 * @since 0.1.0
 * @category getters
 */
export const fault = (script: Script, prompt: string, attempt: number): Fault | undefined => {
  const kind = faultOfPrompt(script, prompt)
  if (kind === undefined) return undefined
  const lasts = 1 + Math.floor(uniform(script.seed, prompt, "lasts") * script.faultyAttempts)
  return script.faultyAttempts > 0 && attempt <= lasts ? kind : undefined
}

const faultOfPrompt = (script: Script, prompt: string): Fault | undefined => {
  const drawn = uniform(script.seed, prompt, "kind")
  let upTo = 0
  for (const kind of Fault.literals) {
    upTo += script.faults[kind]
    if (drawn < upTo) return kind
  }
  return undefined
}

/**
 * Returns how many tokens a cut answer has: fewer than all, and at least one if there are two.
 *
 * @since 0.1.0
 * @category getters
 */
export const cutAfter = (script: Script, prompt: string, attempt: number, tokens: number): number =>
  tokens < 2 ? 0 : 1 + Math.floor(uniform(script.seed, prompt, attempt, "cut") * (tokens - 1))
