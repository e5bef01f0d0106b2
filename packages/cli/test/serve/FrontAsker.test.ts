import type * as Asker from "@sluice/batch/Asker"
import type { Sink } from "@sluice/ai/Front"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as FrontAsker from "../../src/serve/FrontAsker.ts"
import type { Current } from "../../src/serve/Reloads.ts"

// Of the gateway, the asker uses no more than this.
const current = {
  front: { call: () => undefined, targets: Effect.succeed([]) },
  settings: {},
  enter: () => {},
  leave: () => {}
} as unknown as Current

const asked = (url: string): Asker.Asked => ({
  batch: "b",
  owner: undefined,
  endpoint: url,
  key: "k",
  idempotencyKey: "b/0",
  hasBudget: false,
  body: JSON.stringify({ custom_id: "k", method: "POST", url, body: { model: "m" } })
})

/** Asks a front that answers in this way. */
const ask = (answer: (sink: Sink) => void, url = "/v1/chat/completions") => {
  const asker = FrontAsker.make(() => current, (_owner, _exchange, sink) => answer(sink))
  return { asker, later: Effect.flip(asker.ask(asked(url))) }
}

const refused = (status: number, code: string, attempts: number) => (sink: Sink) => {
  sink.head(status, { "x-sluice-code": code, "x-sluice-attempts": String(attempts) })
  sink.end("{}")
}

describe("the asker of a gateway", () => {
  it.effect("counts what can be met again without an end, and no refusal", () =>
    Effect.gen(function*() {
      const isCall = (answer: (sink: Sink) => void) => Effect.map(ask(answer).later, ({ isCall }) => isCall)
      assert.isFalse(yield* isCall(refused(503, "circuit_open", 0)))
      assert.isFalse(yield* isCall(refused(503, "backpressure_shed", 0)))
      assert.isFalse(yield* isCall(refused(504, "deadline_exceeded", 0)))
      assert.isTrue(yield* isCall(refused(504, "deadline_exceeded", 1)))
      assert.isTrue(yield* isCall(refused(502, "connection_failed", 3)))
      assert.isTrue(yield* isCall(refused(500, "internal_error", 0)))
      assert.isTrue(yield* isCall((sink) => sink.abort()))
    }))

  it.effect("does not take the code of a provider for that of the front, nor put it into a reason", () =>
    Effect.gen(function*() {
      const later = yield* ask((sink) => {
        sink.head(429, { "x-sluice-attempts": "1" })
        sink.end(JSON.stringify({ error: { code: "quota_exceeded" } }))
      }).later
      assert.deepInclude(later, { isCall: true, reason: "HTTP 429" })
    }))

  it.effect("waits for half a minute after a key was refused, at the endpoints of both APIs", () =>
    Effect.forEach(["/v1/chat/completions", "/v1/messages"], (url) =>
      Effect.gen(function*() {
        const { asker, later } = ask(refused(502, "credential_refused", 1), url)
        assert.isUndefined(yield* asker.waiting)
        assert.isFalse((yield* later).isCall)
        assert.strictEqual((yield* asker.waiting)?.for, "a target refuses its key")
        yield* TestClock.adjust("30 seconds")
        assert.isUndefined(yield* asker.waiting)
      })))
})
