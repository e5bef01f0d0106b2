/**
 * The journal of a loopback provider: one entry for each request, and functions that count them.
 *
 * **When to use**
 *
 * To measure the calls of a client: how many, how many at once, how many too early. The journal has what arrived,
 * whatever the client reports. It counts all clients by the same rules.
 *
 * **Example** (Counting requests)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Journal from "@sluice/ai/testing/Journal"
 * import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
 *
 * const program = Effect.gen(function*() {
 *   const provider = yield* LoopbackProvider.LoopbackProvider
 *   return Journal.summary(yield* provider.journal).calls
 * }).pipe(Effect.provide(LoopbackProvider.layer()))
 *
 * console.log(await Effect.runPromise(program)) // => 0
 * ```
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import * as Hash from "../internal/kit/hash.ts"
import { Fault } from "./Script.ts"
import * as Turn from "./Turn.ts"

/**
 * Returns the digest of a text. If the answer that a client reports has the digest of an entry's `answer`, it is the
 * one that was sent.
 *
 * @since 0.1.0
 * @category counting
 */
export const digest: (text: string) => string = Hash.digest

/**
 * A moment in milliseconds: since the epoch, and of a monotonic clock, for differences.
 *
 * @since 0.1.0
 * @category models
 */
export const Instant = Schema.Struct({ epoch: Schema.Finite, monotonic: Schema.Finite })

/**
 * How a request ended.
 *
 * **Details**
 *
 * | ending | meaning |
 * |---|---|
 * | `complete` | the whole answer was sent |
 * | `cut` | a script or a turn ended the answer early |
 * | `reset` | a script or a turn reset the connection |
 * | `hang` | the script was silent, then reset the connection |
 * | `refused` | an error status was sent |
 * | `clientClosed` | the client closed the connection first |
 * | `open` | the request has not ended |
 *
 * @since 0.1.0
 * @category models
 */
export const Ending: Schema.Literals<["complete", "cut", "reset", "hang", "refused", "clientClosed", "open"]> = Schema
  .Literals(["complete", "cut", "reset", "hang", "refused", "clientClosed", "open"])

/**
 * A chat request, or one for embeddings.
 *
 * @since 0.1.0
 * @category models
 */
export const Entry = Schema.Struct({
  /** The number of the request, from 1. */
  n: Schema.Int,
  /** The digest of the whole conversation. Empty if the request could not be read. */
  digest: Schema.String,
  /** The text of the last user message, unless `keepPrompts` is false. */
  prompt: Schema.optionalKey(Schema.String),
  /** The number of the attempt at this prompt: the one that the client sent, or else the provider's count. */
  attempt: Schema.Int,
  model: Schema.String,
  /** The format: OpenAI's chat completions and embeddings, or Anthropic's messages. */
  wire: Schema.optionalKey(Schema.Literals(["openai", "anthropic"])),
  /** Absent for a chat request. */
  endpoint: Schema.optionalKey(Schema.Literal("embeddings")),
  /** Whether a stream was requested. */
  stream: Schema.optionalKey(Schema.Boolean),
  /** The client's `Idempotency-Key`. */
  idempotencyKey: Schema.optionalKey(Schema.String),
  /** The turn that was played. */
  turn: Schema.optionalKey(Turn.Tag),
  /** The script's fault, if no turn was played. */
  fault: Schema.optionalKey(Fault),
  /** The limit that it exceeded. */
  limited: Schema.optionalKey(Schema.Literals(["requests", "tokens", "concurrent"])),
  /** Whether it arrived in an outage. */
  down: Schema.Boolean,
  /** The status that was sent. */
  status: Schema.optionalKey(Schema.Int),
  received: Instant,
  /** When the first byte of the response was sent. */
  firstByte: Schema.optionalKey(Instant),
  ended: Schema.optionalKey(Instant),
  ending: Ending,
  /** The Retry-After that was sent. */
  retryAfterMillis: Schema.optionalKey(Schema.Finite),
  /** Tokens of the prompt. Paid as soon as an answer has begun. */
  inputTokens: Schema.Int,
  /** Tokens that were produced. Paid even if the answer is cut. */
  outputTokens: Schema.Int,
  /** The digest of the answer, if all of it was sent. */
  answer: Schema.optionalKey(Schema.String),
  /** How many requests were open when it arrived, including itself. */
  open: Schema.Int
})

/**
 * @since 0.1.0
 * @category models
 */
export type Entry = typeof Entry.Type

/**
 * Returns the most requests that were open at once.
 *
 * @since 0.1.0
 * @category counting
 */
export const maxOpen = (entries: ReadonlyArray<{ readonly open: number }>): number =>
  entries.reduce((most, entry) => Math.max(most, entry.open), 0)

/**
 * Returns the requests that arrived in an outage.
 *
 * @since 0.1.0
 * @category counting
 */
export const whileDown = (entries: ReadonlyArray<Entry>): ReadonlyArray<Entry> => entries.filter((entry) => entry.down)

/**
 * Returns the retries that arrived before their Retry-After had elapsed.
 *
 * **Details**
 *
 * A retry is matched with the oldest unmatched request for the same prompt that was one attempt earlier and got a
 * Retry-After. So two callers with the same prompt are measured separately, and a first attempt is never too early.
 *
 * `tolerance`: milliseconds that a retry may be early. Default 2, since a timer can fire one millisecond early.
 *
 * @since 0.1.0
 * @category counting
 */
export const soonerThanRetryAfter = (entries: ReadonlyArray<Entry>, tolerance = 2): ReadonlyArray<Entry> => {
  const notBefore = new Map<string, Array<number>>()
  const tooSoon: Array<Entry> = []
  for (const event of inTime(entries)) {
    const { entry } = event
    if (event.what === "ended") {
      if (entry.retryAfterMillis === undefined) continue
      const key = keyOf(entry.digest, entry.attempt)
      notBefore.set(key, [...notBefore.get(key) ?? [], event.at + entry.retryAfterMillis])
    } else {
      const until = notBefore.get(keyOf(entry.digest, entry.attempt - 1))?.shift()
      if (until !== undefined && event.at < until - tolerance) tooSoon.push(entry)
    }
  }
  return tooSoon
}

const keyOf = (digest: string, attempt: number): string => `${digest}:${attempt}`

interface Event {
  readonly what: "received" | "ended"
  readonly at: number
  readonly entry: Entry
}

const inTime = (entries: ReadonlyArray<Entry>): ReadonlyArray<Event> => {
  const events = entries.flatMap((entry): ReadonlyArray<Event> => [
    { what: "received", at: entry.received.monotonic, entry },
    ...(entry.ended === undefined ? [] : [{ what: "ended", at: entry.ended.monotonic, entry }] as const)
  ])
  return events.sort((a, b) => a.at - b.at)
}

/**
 * Returns the pauses between requests for the same prompt, in milliseconds: from the end of one to the start of the
 * next. A hedged request, which starts before that end, has a negative pause.
 *
 * **Details**
 *
 * In the order of the later requests. Leaves out a request whose predecessor has not ended.
 *
 * @since 0.1.0
 * @category counting
 */
export const gaps = (entries: ReadonlyArray<Entry>): ReadonlyArray<number> => {
  const before = new Map<string, Entry>()
  const gaps: Array<number> = []
  for (const entry of entries) {
    const ended = before.get(entry.digest)?.ended
    if (ended !== undefined) gaps.push(entry.received.monotonic - ended.monotonic)
    before.set(entry.digest, entry)
  }
  return gaps
}

/**
 * Returns the sum of all input and output tokens.
 *
 * @since 0.1.0
 * @category counting
 */
export const tokensPaid = (entries: ReadonlyArray<Entry>): number =>
  entries.reduce((sum, entry) => sum + entry.inputTokens + entry.outputTokens, 0)

/**
 * Returns the last request for each prompt, by digest.
 *
 * @since 0.1.0
 * @category counting
 */
export const lastByPrompt = (entries: ReadonlyArray<Entry>): ReadonlyMap<string, Entry> =>
  new Map(entries.map((entry) => [entry.digest, entry]))

/**
 * The counts of a journal.
 *
 * @since 0.1.0
 * @category models
 */
export interface Summary {
  readonly calls: number
  /** Calls by ending. */
  readonly endings: { readonly [Ending in Entry["ending"]]: number }
  readonly whileDown: number
  readonly soonerThanRetryAfter: number
  readonly maxOpen: number
  readonly tokensPaid: number
  /** From the first request to the last end. */
  readonly millis: number
}

/**
 * Returns all counts of a journal.
 *
 * @since 0.1.0
 * @category counting
 */
export const summary = (entries: ReadonlyArray<Entry>): Summary => {
  const endings = { complete: 0, cut: 0, reset: 0, hang: 0, refused: 0, clientClosed: 0, open: 0 }
  let first = Number.POSITIVE_INFINITY
  let last = 0
  for (const entry of entries) {
    endings[entry.ending]++
    first = Math.min(first, entry.received.monotonic)
    last = Math.max(last, entry.ended?.monotonic ?? entry.received.monotonic)
  }
  return {
    calls: entries.length,
    endings,
    whileDown: whileDown(entries).length,
    soonerThanRetryAfter: soonerThanRetryAfter(entries).length,
    maxOpen: maxOpen(entries),
    tokensPaid: tokensPaid(entries),
    millis: entries.length === 0 ? 0 : last - first
  }
}
