/**
 * What a loopback provider saw: one entry per request, and functions that count them.
 *
 * **When to use**
 *
 * To claim something about calls: how many there were, how many at once, how many too soon. A client's own counters count
 * what it believes that it did; the journal is what arrived. Any client is counted by the same functions.
 *
 * **Example** (Counting what a client did)
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
import * as Hash from "../internal/hash.ts"
import { Fault } from "./Script.ts"
import * as Turn from "./Turn.ts"

/**
 * The name that a journal gives to a text: an answer that a client reports is the one that was sent if their names are the
 * same.
 *
 * @since 0.1.0
 * @category counting
 */
export const digest: (text: string) => string = Hash.digest

/**
 * A moment: by the calendar, and on a clock that never goes back, for differences. Both in milliseconds.
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
 * | ending | what happened |
 * |---|---|
 * | `complete` | all of the answer was sent |
 * | `cut` | the answer was ended early, by a script or a turn |
 * | `reset` | the connection was reset, by a script or a turn |
 * | `hang` | the script was silent and then reset the connection |
 * | `refused` | an error status was sent |
 * | `clientClosed` | the client closed the connection first |
 * | `open` | it has not ended |
 *
 * @since 0.1.0
 * @category models
 */
export const Ending: Schema.Literals<["complete", "cut", "reset", "hang", "refused", "clientClosed", "open"]> = Schema
  .Literals(["complete", "cut", "reset", "hang", "refused", "clientClosed", "open"])

/**
 * One request for an answer of a model, or for embeddings.
 *
 * @since 0.1.0
 * @category models
 */
export const Entry = Schema.Struct({
  /** Counts the requests from 1, in the order in which they came. */
  n: Schema.Int,
  /** Stands for the whole conversation. Empty if the request could not be read. */
  digest: Schema.String,
  /** The text of the last message of the user, unless the provider was told not to keep it. */
  prompt: Schema.optionalKey(Schema.String),
  /** Which attempt at this prompt it was, as the client says, or else as the provider counts. */
  attempt: Schema.Int,
  model: Schema.String,
  /** The format that was asked: OpenAI's chat completions or embeddings, or Anthropic's messages. */
  wire: Schema.optionalKey(Schema.Literals(["openai", "anthropic"])),
  /** What was asked for. Left out: an answer. */
  endpoint: Schema.optionalKey(Schema.Literal("embeddings")),
  /** Whether a stream was asked for. */
  stream: Schema.optionalKey(Schema.Boolean),
  /** The client's `Idempotency-Key`, as it is. */
  idempotencyKey: Schema.optionalKey(Schema.String),
  /** What it met, if turns say so. */
  turn: Schema.optionalKey(Turn.Tag),
  /** What the script did to it, if no turn did. */
  fault: Schema.optionalKey(Fault),
  /** Which limit it was one too many for. */
  limited: Schema.optionalKey(Schema.Literals(["requests", "tokens", "concurrent"])),
  /** Whether it came in an outage. */
  down: Schema.Boolean,
  /** The status that was sent, if one was. */
  status: Schema.optionalKey(Schema.Int),
  received: Instant,
  /** When the first byte of the answer was sent. */
  firstByte: Schema.optionalKey(Instant),
  ended: Schema.optionalKey(Instant),
  ending: Ending,
  /** How long the client was asked to stay away. */
  retryAfterMillis: Schema.optionalKey(Schema.Finite),
  /** Tokens of the prompt, paid as soon as the model has begun. */
  inputTokens: Schema.Int,
  /** Tokens that were produced, paid whatever became of them. */
  outputTokens: Schema.Int,
  /** Stands for the answer, if all of it was sent. */
  answer: Schema.optionalKey(Schema.String),
  /** How many requests were open when it came, with itself. */
  open: Schema.Int
})

/**
 * @since 0.1.0
 * @category models
 */
export type Entry = typeof Entry.Type

/**
 * The most requests that were open at once.
 *
 * @since 0.1.0
 * @category counting
 */
export const maxOpen = (entries: ReadonlyArray<{ readonly open: number }>): number =>
  entries.reduce((most, entry) => Math.max(most, entry.open), 0)

/**
 * The requests that came in an outage.
 *
 * @since 0.1.0
 * @category counting
 */
export const whileDown = (entries: ReadonlyArray<Entry>): ReadonlyArray<Entry> => entries.filter((entry) => entry.down)

/**
 * The repeated requests that came sooner than the provider had asked.
 *
 * **Details**
 *
 * A repetition is matched with the oldest request for the same prompt that is one attempt before it, was answered with a
 * Retry-After, and is not matched yet. So a call for the same prompt that is no repetition is not blamed for what another
 * was told, and of two callers with the same prompt each is measured against one answer.
 *
 * `tolerance` in milliseconds, default 2: timers of a millisecond's precision fire up to one early.
 *
 * @since 0.1.0
 * @category counting
 */
export const soonerThanRetryAfter = (entries: ReadonlyArray<Entry>, tolerance = 2): ReadonlyArray<Entry> => {
  const asked = new Map<string, Array<number>>()
  const tooSoon: Array<Entry> = []
  for (const event of inTime(entries)) {
    const { entry } = event
    if (event.what === "ended") {
      if (entry.retryAfterMillis === undefined) continue
      const key = keyOf(entry.digest, entry.attempt)
      asked.set(key, [...asked.get(key) ?? [], event.at + entry.retryAfterMillis])
    } else {
      const until = asked.get(keyOf(entry.digest, entry.attempt - 1))?.shift()
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
 * How long a client stayed away before each repetition, in milliseconds: from the end of a request to the next one for the same
 * prompt. Negative if that came before the end, as a hedged request does.
 *
 * **Details**
 *
 * In the order of the later requests. A request whose predecessor has not ended is left out.
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
 * All tokens that were paid for, in and out.
 *
 * @since 0.1.0
 * @category counting
 */
export const tokensPaid = (entries: ReadonlyArray<Entry>): number =>
  entries.reduce((sum, entry) => sum + entry.inputTokens + entry.outputTokens, 0)

/**
 * The last request for each prompt, by digest: what became of the prompt in the end.
 *
 * @since 0.1.0
 * @category counting
 */
export const lastByPrompt = (entries: ReadonlyArray<Entry>): ReadonlyMap<string, Entry> =>
  new Map(entries.map((entry) => [entry.digest, entry]))

/**
 * The numbers of a table.
 *
 * @since 0.1.0
 * @category models
 */
export interface Summary {
  readonly calls: number
  /** By how they ended. */
  readonly endings: { readonly [Ending in Entry["ending"]]: number }
  readonly whileDown: number
  readonly soonerThanRetryAfter: number
  readonly maxOpen: number
  readonly tokensPaid: number
  /** From the first request to the last end. */
  readonly millis: number
}

/**
 * Counts everything.
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
