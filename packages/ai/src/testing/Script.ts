/**
 * What goes wrong at a loopback provider, and when: a seed, rates of faults, and an outage.
 *
 * **Details**
 *
 * A fault is decided by the seed, the prompt and the attempt, and by nothing else. It does not depend on which request
 * came first, how many ran at once, or how fast the machine is, so that two clients with the same prompts meet the same
 * faults, and so does the same client tomorrow.
 *
 * A prompt is faulty with the sum of the rates as its probability, and has one kind of fault. It keeps it for its first
 * attempts, from one to `faultyAttempts`, as many as the seed decides; later attempts are clean. So a client that comes
 * back often enough always gets its answer, and the share of prompts that need one more attempt is known beforehand.
 *
 * An outage is counted in requests (`afterCalls`, `requests`), so that it is met at the same place by a slow and by a fast
 * client, or given in time (`fromMillis`, `forMillis`) for tests that run by the clock.
 *
 * **Example** (A script, and what it does to a prompt)
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
import { uniform } from "../internal/hash.ts"

/**
 * The kinds of fault.
 *
 * **Details**
 *
 * | fault | what the client sees |
 * |---|---|
 * | `rateLimit` | 429 with Retry-After |
 * | `unavailable` | 503 |
 * | `reset` | the connection is reset before any answer |
 * | `hang` | silence, for `hangMillis`, then a reset |
 * | `slowStart` | a good answer whose first token comes `slowStartMillis` late |
 * | `cut` | 200, some tokens, and a clean end without finish reason or `[DONE]`; half of the JSON if it is no stream |
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
 * The share of prompts with each fault, 0 to 1, together at most 1. Default 0.
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

const manner = {
  /** How requests are turned away: 503, or a connection that is reset. Default `unavailable`. */
  how: Schema.Literals(["unavailable", "reset"]).pipe(orElse<"unavailable" | "reset">("unavailable")),
  /** The Retry-After of the 503, in seconds. Default: none. */
  retryAfterSeconds: Schema.optionalKey(Millis)
}

/**
 * A time in which every request is turned away, retries too.
 *
 * **Details**
 *
 * By count it begins with the first attempt that comes after `afterCalls` others, and ends when `requests` have been turned
 * away, or `atMostMillis` after it began if a client waits it out. By time it lasts `forMillis`, `fromMillis` after the
 * provider began or was cleared.
 *
 * @since 0.1.0
 * @category models
 */
export const Outage = Schema.Union([
  Schema.Struct({ afterCalls: Count, requests: Count, atMostMillis: Millis, ...manner }),
  Schema.Struct({ fromMillis: Millis, forMillis: Millis, ...manner })
])

/**
 * @since 0.1.0
 * @category models
 */
export type Outage = typeof Outage.Type

/**
 * A script. Everything has a default, and `{}` is a provider without faults.
 *
 * @since 0.1.0
 * @category models
 */
export const Script = Schema.Struct({
  /** Other seeds, other prompts with faults. Default 1. */
  seed: Schema.Int.pipe(orElse(1)),
  faults: Faults.pipe(
    Schema.withDecodingDefaultKey(Effect.succeed({}))
  ),
  /** How many of a prompt's first attempts may be faulty, at most. Default 1: every second attempt is clean. */
  faultyAttempts: Count.pipe(orElse(1)),
  /** The Retry-After of a 429, in seconds. Default 1. A fraction is also sent as `retry-after-ms`. */
  retryAfterSeconds: Millis.pipe(orElse(1)),
  /** How long a hanging request is silent before its connection is reset. Default ten minutes: longer than any patience. */
  hangMillis: Millis.pipe(orElse(600_000)),
  /** How late the first token of a slow start comes. Default 2000. */
  slowStartMillis: Millis.pipe(orElse(2_000)),
  outage: Schema.optionalKey(Outage)
})

/**
 * @since 0.1.0
 * @category models
 */
export type Script = typeof Script.Type

/**
 * A script as it is written down, in a file or in code: only what differs from the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export type Encoded = typeof Script.Encoded

/**
 * Reads a script. A field that it does not know is an error: it would be a fault that never happens.
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
 * The fault of a prompt's attempt, counted from 1. The prompt may be any text that stands for it, such as its digest.
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
 * After how many of its tokens the answer of a cut attempt ends: at least one if there are two, never all.
 *
 * @since 0.1.0
 * @category getters
 */
export const cutAfter = (script: Script, prompt: string, attempt: number, tokens: number): number =>
  tokens < 2 ? 0 : 1 + Math.floor(uniform(script.seed, prompt, attempt, "cut") * (tokens - 1))
