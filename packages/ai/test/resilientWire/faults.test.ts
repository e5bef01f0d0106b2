import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { AiError } from "effect/ai"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as AiRejection from "@sluice/ai/AiRejection"
import type { Limits } from "@sluice/ai/ResilientModel"
import type * as Journal from "@sluice/ai/testing/Journal"
import * as Turn from "@sluice/ai/testing/Turn"
import {
  ask,
  askInEarnest,
  endings,
  type Method,
  methods,
  provider,
  resilient,
  settled,
  target,
  wireNames
} from "./support.ts"

// Every fault over real sockets, on both wires, for whole answers and for streams: what the caller gets from one target, and
// from two, and what the providers saw of it.

/** What becomes of a fault. */
interface Row {
  readonly what: string
  readonly turn: Turn.Turn
  /** Where it is a fault of only one kind of answer. */
  readonly method?: Method
  /** What the log calls it. */
  readonly fault: string
  /** What the error is that ends the call, if it does. */
  readonly reason: AiError.AiErrorReason["_tag"]
  /** How the provider saw it end. */
  readonly ending: Journal.Entry["ending"]
  /**
   * `again`: the same target may be asked again. `moves`: only another target may. `ends`: nobody is asked again. `paid`: the
   * answer is asked for once more, at the same target.
   */
  readonly next: "again" | "moves" | "ends" | "paid"
  /** What of the answer its consumer has by then. */
  readonly text?: string
  /** It is silent: the limit that notices it. */
  readonly limits?: Limits
}

const soon = "60 millis"
const overloaded = { type: "overloaded_error", message: "Overloaded" }
const text = "one two three four"
const server = (what: string, turn: Turn.Turn): Row => ({
  what,
  turn,
  fault: "InternalProviderError",
  reason: "InternalProviderError",
  ending: "refused",
  next: "again"
})
const truncated = (what: string, turn: Turn.Turn, more: Partial<Row> = {}): Row => ({
  what,
  turn,
  method: "streamText",
  fault: "TruncatedStream",
  reason: "InternalProviderError",
  ending: "cut",
  next: "again",
  ...more
})
const silent = (what: string, turn: Turn.Turn): ReadonlyArray<Row> => [
  {
    what,
    turn,
    method: "streamText",
    fault: "FirstTokenTimeout",
    reason: "InternalProviderError",
    ending: "clientClosed",
    next: "again",
    limits: { firstTokenTimeout: soon }
  },
  {
    what,
    turn,
    fault: "AttemptTimeout",
    reason: "InternalProviderError",
    ending: "clientClosed",
    next: "again",
    limits: { attemptTimeout: soon }
  }
]

const rows: ReadonlyArray<Row> = [
  // ---------- statuses
  server("status 500", Turn.status(500)),
  server(
    "status 502",
    Turn.status(502, { body: "<html>Bad gateway</html>", headers: { "content-type": "text/html" } })
  ),
  server("status 503", Turn.status(503)),
  server("status 504", Turn.status(504)),
  server("an overload, 503 or 529", Turn.refusal("overloaded")),
  server("status 408", Turn.status(408)),
  server("status 409", Turn.status(409)),
  server("status 425", Turn.status(425)),
  { ...server("a rate limit", Turn.refusal("rateLimit")), reason: "RateLimitError", fault: "RateLimitError" },
  {
    ...server("a key that is refused", Turn.refusal("key")),
    reason: "AuthenticationError",
    fault: "AuthenticationError",
    next: "moves"
  },
  {
    ...server("a quota that is used up", Turn.refusal("quota")),
    reason: "QuotaExhaustedError",
    fault: "QuotaExhaustedError",
    next: "moves"
  },
  {
    ...server("a model that it does not have", Turn.refusal("model")),
    reason: "InvalidRequestError",
    fault: "InvalidRequestError",
    next: "moves"
  },
  {
    ...server("a prompt of wrong form", Turn.refusal("request")),
    reason: "InvalidRequestError",
    fault: "InvalidRequestError",
    next: "ends"
  },
  {
    ...server("a prompt that it will not answer", Turn.refusal("contentPolicy")),
    reason: "ContentPolicyError",
    fault: "ContentPolicyError",
    next: "ends"
  },
  // ---------- connections
  {
    ...server("a reset before any answer", Turn.reset()),
    reason: "NetworkError",
    fault: "NetworkError",
    ending: "reset"
  },
  {
    ...server("a reset within a whole answer", Turn.reset({ content: text, afterTokens: 2 })),
    method: "generateText",
    reason: "NetworkError",
    fault: "NetworkError",
    ending: "reset"
  },
  // ---------- answers that break off
  truncated("a cut before any text", Turn.cut({ content: text, afterTokens: 0 })),
  truncated("a cut within the text", Turn.cut({ content: text, afterTokens: 2 }), { next: "ends", text: "one two" }),
  truncated("all of the text, and no finish", Turn.noFinish(text), { next: "ends", text, ending: "complete" }),
  truncated("half of a whole answer", Turn.cut({ content: text, afterTokens: 2 }), {
    method: "generateText",
    fault: "MalformedEvent"
  }),
  // ---------- what cannot be read
  truncated("a malformed event before any text", Turn.malformed({ content: text, afterTokens: 0 }), {
    fault: "MalformedEvent",
    ending: "complete"
  }),
  truncated("a malformed event within the text", Turn.malformed({ content: text, afterTokens: 2 }), {
    fault: "MalformedEvent",
    ending: "complete",
    next: "ends",
    text: "one two"
  }),
  truncated("a malformed whole answer", Turn.malformed(), { method: "generateText", fault: "MalformedEvent" }),
  {
    ...server("a page with status 200", Turn.html()),
    reason: "InvalidResponseError",
    fault: "InvalidResponseError",
    ending: "complete",
    next: "moves"
  },
  {
    ...server("a redirect", Turn.redirect("http://127.0.0.1:9/v1/chat/completions")),
    reason: "InvalidRequestError",
    fault: "InvalidRequestError",
    next: "moves"
  },
  // ---------- errors within an answer whose status was 200
  {
    ...server("an error before any text", Turn.error({ ...overloaded, content: text, afterTokens: 0 })),
    ending: "cut"
  },
  {
    ...server("an error within the text", Turn.error({ ...overloaded, content: text, afterTokens: 2 })),
    method: "streamText",
    ending: "cut",
    next: "ends",
    text: "one two"
  },
  // ---------- silence
  ...silent("silence", Turn.hang()),
  ...silent("silence after the headers", Turn.hang({ headers: true })),
  ...silent("signs of life, and no answer", Turn.hang({ headers: true, ping: "10 millis" })),
  ...silent("a start that is too slow", Turn.delay(Turn.answer(text), "1 hour")),
  {
    ...server("silence within the text", Turn.stall({ content: text, afterTokens: 2, ping: "10 millis" })),
    method: "streamText",
    fault: "IdleTimeout",
    ending: "clientClosed",
    next: "ends",
    text: "one two",
    limits: { idleTimeout: soon }
  },
  {
    ...server("a text that never ends", Turn.answer("word ".repeat(100_000), { tokenMillis: 5 })),
    fault: "AttemptTimeout",
    method: "generateText",
    ending: "clientClosed",
    limits: { attemptTimeout: soon }
  },
  // ---------- answers of no use
  {
    ...server("an answer that is complete and empty", Turn.empty()),
    reason: "InvalidOutputError",
    fault: "EmptyAnswer",
    ending: "complete",
    next: "paid"
  }
]

for (const wire of wireNames) {
  describe(`a fault over ${wire}'s wire`, () => {
    for (const method of methods) {
      for (const row of rows) {
        if (row.method !== undefined && row.method !== method) continue
        if (row.fault === "AttemptTimeout" && method === "streamText") continue

        /** Where the call ends with it. */
        const ends = (told: { readonly error: AiError.AiError | undefined; readonly text: string }) => {
          assert.strictEqual(told.error?.reason._tag, row.reason)
          assert.strictEqual(told.text, row.text ?? "")
          const rejection = AiRejection.fromAiError(told.error)
          const named: string | undefined = rejection._tag === "Some" ? rejection.value._tag : undefined
          assert.strictEqual(named, row.fault === row.reason ? undefined : row.fault)
        }

        it.live(`${row.what}, ${method}: one target`, () =>
          Effect.gen(function*() {
            const a = yield* provider([row.turn, Turn.answer("well")])
            // A limit that is short for the fault would be short for the good answer too, on a machine that is busy.
            const isSilent = row.limits !== undefined
            const model = resilient([target("A", wire, a, row.limits)], isSilent ? { retry: RetryPolicy.none } : {})
            const told = yield* askInEarnest(method, model, [a])
            const seen = yield* settled(a)
            assert.strictEqual(seen[0]?.ending, row.ending)
            const isOver = isSilent || row.next === "moves" || row.next === "ends"
            if (isOver) {
              ends(told)
              assert.deepStrictEqual(told.attempts, [row.fault])
              assert.strictEqual(seen.length, 1)
              return
            }
            assert.deepStrictEqual([told.error, told.text], [undefined, "well"])
            assert.deepStrictEqual(told.attempts, [row.fault, "ok"])
            assert.deepStrictEqual(endings(seen), [row.ending, "complete"])
            const keys = seen.map(({ idempotencyKey }) => idempotencyKey)
            assert.isDefined(keys[0])
            if (row.next === "paid") assert.notStrictEqual(keys[0], keys[1], "another question")
            else assert.strictEqual(keys[0], keys[1])
          }).pipe(Effect.scoped))

        it.live(`${row.what}, ${method}: two targets`, () =>
          Effect.gen(function*() {
            const a = yield* provider([row.turn])
            const b = yield* provider([Turn.answer("well")])
            const model = resilient([target("A", wire, a, row.limits), target("B", wire, b)])
            const told = yield* askInEarnest(method, model, [a], [b])
            const [atA, atB] = [yield* settled(a), yield* settled(b)]
            if (row.next === "ends") {
              ends(told)
              assert.deepStrictEqual([endings(atA), endings(atB)], [[row.ending], []])
              return
            }
            if (row.next === "paid") {
              // It is asked for once more where it was, and that is all: the second is a complete answer as well.
              assert.strictEqual(told.error?.reason._tag, row.reason)
              assert.deepStrictEqual([endings(atA), endings(atB)], [[row.ending, row.ending], []])
              return
            }
            assert.deepStrictEqual([told.error, told.text], [undefined, "well"])
            assert.deepStrictEqual(told.attempts, [row.fault, "ok"])
            assert.strictEqual(told.answeredBy?.target, "B")
            assert.deepStrictEqual([endings(atA), endings(atB)], [[row.ending], ["complete"]])
            assert.strictEqual(atA[0]?.idempotencyKey, atB[0]?.idempotencyKey)
          }).pipe(Effect.scoped))
      }
    }
  })
}

for (const wire of wireNames) {
  describe(`what is no fault over ${wire}'s wire`, () => {
    const good: ReadonlyArray<readonly [what: string, turn: Turn.Turn, finish: string]> = [
      ["an answer without its last event", Turn.answer(text, { done: false }), "stop"],
      ["an answer that was cut by its length limit, and says so", Turn.answer(text, { finish: "length" }), "length"],
      ["an answer without token counts", Turn.answer(text, { usage: "none" }), "stop"],
      ["a start that is slow", Turn.answer(text, { firstTokenMillis: 60 }), "stop"],
      ["a pause within the text", Turn.stall({ content: text, duration: "60 millis" }), "stop"]
    ]
    for (const method of methods) {
      for (const [what, turn, finish] of good) {
        it.live(`${what}, ${method}`, () =>
          Effect.gen(function*() {
            const a = yield* provider([turn])
            const told = yield* Effect.provide(ask(method), resilient([target("A", wire, a)]))
            assert.deepStrictEqual([told.text, told.finish, told.attempts], [text, finish, ["ok"]])
            assert.strictEqual(told.answeredBy?.estimated, "usage" in turn)
            assert.deepStrictEqual(endings(yield* settled(a)), ["complete"])
          }).pipe(Effect.scoped))
      }
    }
  })
}
