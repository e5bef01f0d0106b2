import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Turn from "@sluice/ai/testing/Turn"

const every: ReadonlyArray<Turn.Turn> = [
  Turn.answer(),
  Turn.answer("Good morning", {
    firstTokenMillis: 5,
    tokenMillis: 2,
    tokensPerChunk: 3,
    usage: { inputTokens: 7, outputTokens: 8 },
    finish: "length",
    done: false
  }),
  Turn.answer([{ type: "text", text: "a" }, { type: "tool-call", name: "t", params: { a: [1, null] }, id: "c1" }]),
  Turn.toolCall("t", { city: "Oslo" }, { usage: "none", id: "c2" }),
  Turn.reasoning("hm", "yes"),
  Turn.empty(),
  Turn.noFinish("all of it"),
  Turn.stall({ afterTokens: 2, duration: "30 seconds", ping: 5, content: "a b c" }),
  Turn.cut(),
  Turn.reset(),
  Turn.reset({ afterTokens: 0, tokenMillis: 4 }),
  Turn.malformed({ text: "<html>" }),
  Turn.error({ type: "overloaded_error", message: "Overloaded", code: 529 }),
  Turn.status(429, { retryAfter: "1500 millis", headers: { "X-A": "b" }, error: { code: null, message: "slow down" } }),
  Turn.status(418, { body: "teapot" }),
  Turn.redirect("https://elsewhere.example/v1"),
  Turn.html(502),
  Turn.refusal("contextLength"),
  Turn.hang(),
  Turn.hang({ headers: true, ping: "1 second" }),
  Turn.delay(Turn.status(503), "3 seconds")
]

const errorFor = (turn: unknown) => Effect.map(Effect.flip(Turn.decode(turn)), ({ message }) => message)

describe("Turn", () => {
  it.effect("turns are unchanged after encoding and decoding", () =>
    Effect.gen(function*() {
      const text = JSON.stringify(Schema.encodeSync(Schema.Array(Turn.Turn))(every))
      assert.deepStrictEqual(yield* Turn.decodeAll(JSON.parse(text)), every)
    }))

  it("a turn has no undefined fields", () => {
    assert.deepStrictEqual(Turn.answer(undefined, { tokenMillis: undefined }), { _tag: "Answer", done: true })
    assert.deepStrictEqual(Turn.stall(), { _tag: "Stall", afterTokens: 1 })
    assert.deepStrictEqual(Turn.reset(), { _tag: "Reset" })
    assert.deepStrictEqual(Turn.reset({ afterTokens: undefined }), { _tag: "Reset" })
    assert.deepStrictEqual(Turn.status(503, { retryAfter: "2 seconds" }), {
      _tag: "Status",
      status: 503,
      retryAfterMillis: 2000
    })
    for (const turn of every) assert.notInclude(Object.values(turn), undefined)
  })

  it.effect("missing fields of a turn get their defaults", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(
        yield* Turn.decodeAll([
          { _tag: "Answer" },
          { _tag: "Stall" },
          { _tag: "Cut" },
          { _tag: "Reset" },
          { _tag: "Malformed" },
          { _tag: "Error", type: "t", message: "m" },
          { _tag: "Hang" }
        ]),
        [
          Turn.answer(),
          Turn.stall(),
          Turn.cut(),
          Turn.reset(),
          Turn.malformed(),
          Turn.error({ type: "t", message: "m" }),
          Turn.hang()
        ]
      )
    }))

  it.effect("a decoding error names the invalid field", () =>
    Effect.gen(function*() {
      assert.include(yield* errorFor({ _tag: "Stall", afterTokens: -1 }), "afterTokens")
      assert.include(yield* errorFor({ _tag: "Stall", aftrTokens: 1 }), "aftrTokens")
      assert.include(yield* errorFor({ _tag: "Status", status: 99 }), "status")
      assert.include(yield* errorFor({ _tag: "Answer", content: [{ type: "text" }] }), "[\"content\"][0][\"text\"]")
      assert.include(yield* errorFor({ _tag: "Refusal", why: "mood" }), "why")
      assert.include(yield* errorFor({ _tag: "Error", type: "t" }), "message")
      assert.include(yield* errorFor({ _tag: "Stal" }), "Stall")
      const inList = yield* Effect.flip(Turn.decodeAll([{ _tag: "Answer" }, { _tag: "Answer", tokenMillis: "5" }]))
      assert.include(inList.message, "[1][\"tokenMillis\"]")
    }))

  it("delay and repeat take the turn first or last", () => {
    const turn = Turn.status(503)
    assert.deepStrictEqual(Turn.delay("2 seconds")(turn), { ...turn, delayMillis: 2000 })
    assert.deepStrictEqual(Turn.delay(Turn.delay(turn, "2 seconds"), 500), { ...turn, delayMillis: 2500 })
    assert.deepStrictEqual(Turn.repeat(turn, 2), [turn, turn])
    assert.deepStrictEqual(Turn.repeat(3)(turn), [turn, turn, turn])
  })
})
