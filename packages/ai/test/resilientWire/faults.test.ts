import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { AiError } from "effect/ai"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as AiRejection from "@sluice/ai/AiRejection"
import type { LayerOptions } from "@sluice/ai/ResilientModel"
import type * as Journal from "@sluice/ai/testing/Journal"
import * as Turn from "@sluice/ai/testing/Turn"
import {
  callModel,
  callUntilReached,
  endings,
  type Method,
  methods,
  provider,
  resilient,
  settled,
  target,
  wireNames
} from "../support/wireCalls.ts"

// Every fault over real sockets, on both wires, for whole answers and streams, with one and two targets: the caller's result and
// the requests of the providers.

/** A fault and its expected results. */
interface Row {
  readonly what: string
  readonly turn: Turn.Turn
  /** Set if it is a fault of one method only. */
  readonly method?: Method
  /** Its type in the log. */
  readonly fault: string
  /** The reason of the error, if the call fails. */
  readonly reason: AiError.AiErrorReason["_tag"]
  /** The ending of the request at the provider. */
  readonly ending: Journal.Entry["ending"]
  /**
   * `again`: the same target can be called again. `moves`: only another target can. `ends`: the call ends. `reask`: the same
   * target is re-asked once.
   */
  readonly next: "again" | "moves" | "ends" | "reask"
  /** The text that the consumer has by then. */
  readonly text?: string
  /** The limit that ends a silent attempt. */
  readonly limits?: Pick<LayerOptions, "firstTokenTimeout" | "idleTimeout" | "attemptTimeout">
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
  server("an overload with status 503 or 529", Turn.refusal("overloaded")),
  server("status 408", Turn.status(408)),
  server("status 409", Turn.status(409)),
  server("status 425", Turn.status(425)),
  { ...server("a rate limit", Turn.refusal("rateLimit")), reason: "RateLimitError", fault: "RateLimitError" },
  {
    ...server("a refused key", Turn.refusal("key")),
    reason: "AuthenticationError",
    fault: "AuthenticationError",
    next: "moves"
  },
  {
    ...server("an exhausted quota", Turn.refusal("quota")),
    reason: "QuotaExhaustedError",
    fault: "QuotaExhaustedError",
    next: "moves"
  },
  {
    ...server("an unknown model", Turn.refusal("model")),
    reason: "InvalidRequestError",
    fault: "InvalidRequestError",
    next: "moves"
  },
  {
    ...server("an invalid request", Turn.refusal("request")),
    reason: "InvalidRequestError",
    fault: "InvalidRequestError",
    next: "ends"
  },
  {
    ...server("a content policy refusal", Turn.refusal("contentPolicy")),
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
    reason: "InternalProviderError",
    fault: "TruncatedStream",
    ending: "reset"
  },
  // ---------- truncated answers
  truncated("a cut before any text", Turn.cut({ content: text, afterTokens: 0 })),
  truncated("a cut within the text", Turn.cut({ content: text, afterTokens: 2 }), { next: "ends", text: "one two" }),
  truncated("a complete text without a finish reason", Turn.noFinish(text), { next: "ends", text, ending: "complete" }),
  truncated("a cut whole answer", Turn.cut({ content: text, afterTokens: 2 }), {
    method: "generateText",
    fault: "MalformedEvent"
  }),
  // ---------- invalid answers
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
  // ---------- errors in responses with status 200
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
  ...silent("pings without an answer", Turn.hang({ headers: true, ping: "10 millis" })),
  ...silent("a start that is too late", Turn.delay(Turn.answer(text), "1 hour")),
  {
    ...server("silence within the text", Turn.stall({ content: text, afterTokens: 2, ping: "10 millis" })),
    method: "streamText",
    fault: "IdleTimeout",
    ending: "clientClosed",
    next: "ends",
    text: "one two",
    // Long enough that the text before the silence is in time on a busy machine.
    limits: { idleTimeout: "600 millis" }
  },
  {
    ...server("an endless text", Turn.answer("word ".repeat(100_000), { tokenMillis: 5 })),
    fault: "AttemptTimeout",
    method: "generateText",
    ending: "clientClosed",
    limits: { attemptTimeout: soon }
  },
  // ---------- unusable answers
  {
    ...server("an empty answer", Turn.empty()),
    reason: "InvalidOutputError",
    fault: "EmptyAnswer",
    ending: "complete",
    next: "reask"
  }
]

/** The endings, each once after a short limit: on a busy machine the request of a call that was made again can come late. */
const endingsOf = ({ limits }: Row, requests: ReadonlyArray<Journal.Entry>): ReadonlyArray<string> =>
  limits === undefined ? endings(requests) : [...new Set(endings(requests))]

for (const wire of wireNames) {
  describe(`faults over the ${wire} wire`, () => {
    for (const method of methods) {
      for (const row of rows) {
        if (row.method !== undefined && row.method !== method) continue
        if (row.fault === "AttemptTimeout" && method === "streamText") continue

        /** Checks a call that ends with the fault. */
        const assertEnded = (result: { readonly error: AiError.AiError | undefined; readonly text: string }) => {
          assert.strictEqual(result.error?.reason._tag, row.reason)
          assert.strictEqual(result.text, row.text ?? "")
          const rejection = AiRejection.fromAiError(result.error)
          const named: string | undefined = rejection._tag === "Some" ? rejection.value._tag : undefined
          assert.strictEqual(named, row.fault === row.reason ? undefined : row.fault)
        }

        it.live(`${row.what} at a single target, ${method}`, () =>
          Effect.gen(function*() {
            const isSilent = row.limits !== undefined
            const a = yield* provider(isSilent ? [row.turn] : [row.turn, Turn.answer("well")])
            // On a busy machine, the short limit of a silent fault could also end the good answer.
            const model = resilient([target("A", wire, a, row.limits)], isSilent ? { retry: RetryPolicy.none } : {})
            const result = yield* callUntilReached(method, model, [a])
            const requests = yield* settled(a)
            assert.strictEqual(requests[0]?.ending, row.ending)
            const isOver = isSilent || row.next === "moves" || row.next === "ends"
            if (isOver) {
              assertEnded(result)
              assert.deepStrictEqual(result.attempts, [row.fault])
              assert.deepStrictEqual(endingsOf(row, requests), [row.ending])
              return
            }
            assert.deepStrictEqual([result.error, result.text], [undefined, "well"])
            assert.deepStrictEqual(result.attempts, [row.fault, "ok"])
            assert.deepStrictEqual(endings(requests), [row.ending, "complete"])
            const keys = requests.map(({ idempotencyKey }) => idempotencyKey)
            assert.isDefined(keys[0])
            if (row.next === "reask") assert.notStrictEqual(keys[0], keys[1], "a re-ask has another key")
            else assert.strictEqual(keys[0], keys[1])
          }).pipe(Effect.scoped))

        it.live(`${row.what} at the first of two targets, ${method}`, () =>
          Effect.gen(function*() {
            const a = yield* provider([row.turn])
            const b = yield* provider([Turn.answer("well")])
            const model = resilient([target("A", wire, a, row.limits), target("B", wire, b)], { retriesHere: 0 })
            const result = yield* callUntilReached(method, model, [a], [b])
            const [atA, atB] = [yield* settled(a), yield* settled(b)]
            if (row.next === "ends") {
              assertEnded(result)
              assert.deepStrictEqual([endingsOf(row, atA), endings(atB)], [[row.ending], []])
              return
            }
            if (row.next === "reask") {
              // The target is re-asked once and not again, since the second answer is empty too.
              assert.strictEqual(result.error?.reason._tag, row.reason)
              assert.deepStrictEqual([endings(atA), endings(atB)], [[row.ending, row.ending], []])
              return
            }
            assert.deepStrictEqual([result.error, result.text], [undefined, "well"])
            assert.deepStrictEqual(result.attempts, [row.fault, "ok"])
            assert.strictEqual(result.answeredBy?.target, "B")
            assert.deepStrictEqual([endingsOf(row, atA), endingsOf(row, atB)], [[row.ending], ["complete"]])
            const keys = new Set(atA.map(({ idempotencyKey }) => idempotencyKey))
            assert.isTrue(atB.some(({ idempotencyKey }) => keys.has(idempotencyKey)))
          }).pipe(Effect.scoped))
      }
    }
  })
}

for (const wire of wireNames) {
  describe(`answers without a fault over the ${wire} wire`, () => {
    const answers: ReadonlyArray<readonly [what: string, turn: Turn.Turn, finish: string]> = [
      ["an answer without its last event", Turn.answer(text, { done: false }), "stop"],
      ["an answer with the finish reason length", Turn.answer(text, { finish: "length" }), "length"],
      ["an answer without token counts", Turn.answer(text, { usage: "none" }), "stop"],
      ["a slow start", Turn.answer(text, { firstTokenMillis: 60 }), "stop"],
      ["a pause within the text", Turn.stall({ content: text, duration: "60 millis" }), "stop"]
    ]
    for (const method of methods) {
      for (const [what, turn, finish] of answers) {
        it.live(`${what} is no fault, ${method}`, () =>
          Effect.gen(function*() {
            const a = yield* provider([turn])
            const result = yield* Effect.provide(callModel(method), resilient([target("A", wire, a)]))
            assert.deepStrictEqual([result.text, result.finish, result.attempts], [text, finish, ["ok"]])
            assert.strictEqual(result.answeredBy?.estimated, "usage" in turn)
            assert.deepStrictEqual(endings(yield* settled(a)), ["complete"])
          }).pipe(Effect.scoped))
      }
    }
  })
}
