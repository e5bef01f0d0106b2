import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import * as Headers from "effect/http/Headers"
import { StreamedResponse } from "../../src/internal/wire/openai/streamedResponse.ts"

const origin = {
  module: "OpenAiCompatible",
  provider: "localhost",
  method: "streamText",
  model: "m1",
  url: "http://localhost/v1",
  hasKey: false,
  mask: (text: string) => text,
  excerptLength: 100,
  maxRetryAfter: Duration.hours(1),
  now: () => 0
} as const

const bounds = { answerSize: 1_000, eventSize: 1_000, jsonDepth: 8 }

interface Json {
  readonly [field: string]: unknown
}

const choice = (delta: unknown, more: Json = {}): Json => ({ index: 0, delta, ...more })
const event = (choices: unknown, more: Json = {}): Json => ({ id: "c1", model: "m1", choices, ...more })

/** The parts and the error of a text, this event, another text, and the end. `prefix`: a line of every event. */
const read = (second: Json, prefix: string): unknown =>
  readAll([
    event([choice({ role: "assistant", content: "one" })]),
    second,
    event([choice({ content: "three" })]),
    event([choice({}, { finish_reason: "stop" })])
  ], prefix)

const readAll = (events: ReadonlyArray<Json>, prefix: string): unknown => {
  const reader = new StreamedResponse(origin, { status: 200, headers: Headers.empty }, bounds, "call")
  for (const json of events) reader.feed(new TextEncoder().encode(`${prefix}data: ${JSON.stringify(json)}\n\n`))
  reader.end()
  const { failure } = reader
  return [reader.take(), failure?.message]
}

const events: ReadonlyArray<readonly [what: string, second: Json]> = [
  ["a text", event([choice({ content: "two" })])],
  ["an empty text", event([choice({ content: "" })])],
  [
    "a text with empty fields",
    event([choice({ content: "two", refusal: null }, { finish_reason: null })], { usage: null })
  ],
  ["a reason with the text", event([choice({ content: "two" }, { finish_reason: "length" })])],
  ["counts with the text", event([choice({ content: "two" })], { usage: { prompt_tokens: 1, completion_tokens: 2 } })],
  ["counts in the choice", event([choice({ content: "two" }, { usage: { prompt_tokens: 1, completion_tokens: 2 } })])],
  ["counts of a vendor", event([choice({ content: "two" })], { x_groq: { usage: { prompt_tokens: 1 } } })],
  ["an error", event([choice({ content: "two" })], { error: { message: "broken" } })],
  ["an error in the choice", event([choice({ content: "two" }, { error: { message: "broken" } })])],
  ["an error in the delta", event([choice({ content: "two", error: { message: "broken" } })])],
  ["a second choice", event([choice({ content: "two" }), { index: 1, delta: { content: "other" } }])],
  ["a second piece of the first choice", event([choice({ content: "two" }), choice({ content: "more" })])],
  ["another choice", event([{ index: 1, delta: { content: "other" } }])],
  ["no index", event([{ delta: { content: "two" } }])],
  ["a tool call", event([choice({ content: "two", tool_calls: [{ index: 0, id: "t1", function: { name: "add" } }] })])],
  ["an old tool call", event([choice({ content: "two", function_call: { name: "add", arguments: "{}" } })])],
  ["a thought", event([choice({ content: "two", reasoning_content: "hm" })])],
  ["a refusal", event([choice({ content: "two", refusal: "no" })])],
  ["a message", event([choice({ content: "two" }, { message: { content: "onetwo" } })])],
  ["a list of texts", event([choice({ content: [{ type: "text", text: "two" }] })])],
  ["no delta", event([choice(null)])],
  ["no choice", event([])],
  ["choices of another form", event({ content: "two" })]
]

describe("an event that has text alone", () => {
  for (const [what, second] of events) {
    it(`is read without its other fields, with the result of a reader that looks at them: ${what}`, () => {
      // A named event is read by the others.
      assert.deepStrictEqual(read(second, ""), read(second, "event: chunk\n"))
    })
  }

  it("has no text cut out of another field that had the same value", () => {
    const all = [
      event([choice({ role: "assistant", content: "one" })]),
      { ...event([choice({ content: "two" })]), id: "two" },
      { ...event([choice({ content: "two" })]), id: "c2" },
      event([choice({}, { finish_reason: "stop" })])
    ]
    assert.deepStrictEqual(readAll(all, ""), readAll(all, "event: chunk\n"))
  })

  const texts = [
    "two",
    "c1",
    "m1",
    "content",
    "index",
    "a \"quote\"",
    "\\",
    "a\nline",
    "\u0001",
    "é",
    "\u2028",
    "😀",
    "",
    " ",
    "}"
  ]

  it.each([1, 2, 3, 4])(
    "has its text cut out, with the result of a reader that parses every event: streams of seed %i",
    (seed) => {
      let state = seed
      const random = (below: number): number => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
        return Math.floor(state / 2 ** 32 * below)
      }
      const pick = <A>(from: ReadonlyArray<A>, otherwise: A): A => from[random(from.length)] ?? otherwise
      for (let n = 0; n < 200; n++) {
        const ids = random(2) === 0 ? ["c1"] : ["c1", "two", "c2"]
        const between = Array.from({ length: 12 }, () => {
          if (random(8) === 0) return pick(events, ["", {}])[1]
          const delta = { content: pick(texts, "") + pick(texts, "") }
          return { ...event([choice(delta, random(6) === 0 ? { logprobs: null } : {})]), id: pick(ids, "c1") }
        })
        const all = [
          event([choice({ role: "assistant", content: "one" })]),
          ...between,
          event([choice({}, { finish_reason: "stop" })])
        ]
        assert.deepStrictEqual(readAll(all, ""), readAll(all, "event: chunk\n"))
      }
    }
  )
})
