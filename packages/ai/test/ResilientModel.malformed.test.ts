/** `malformedEvent` and events of a stream that are not JSON: scripted, and over both wires. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import { LanguageModel } from "effect/ai"
import type { CallLog } from "@sluice/ai/CallLog"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as Turn from "@sluice/ai/testing/Turn"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { build, ok, readAll, runFor, valueOf } from "./support/resilient.ts"
import { callModel, provider, resilient, target, wireNames } from "./support/wireCalls.ts"

const content = "one two three four"
const once = { retry: RetryPolicy.none }

const skippedIn = (log: CallLog | undefined): ReadonlyArray<number | undefined> =>
  log?.steps.map((step) => step._tag === "Attempt" ? step.skippedEvents : undefined) ?? []

const kinds: ReadonlyArray<readonly [string, string]> = [
  ["cut JSON", "{\"choices\":[{\"ind"],
  ["a page", "<html><body>502</body></html>"],
  ["a word", "heartbeat"],
  ["two objects", "{}{}"],
  ["NaN", "NaN"]
]

describe("malformedEvent", () => {
  it.effect("a stream fails with MalformedEvent by default and skips with \"skip\", by layer or by target", () =>
    Effect.gen(function*() {
      const turns = [Turn.malformed({ content, afterTokens: 2 })]
      const cases = [
        [undefined, undefined, "MalformedEvent"],
        ["fail", undefined, "MalformedEvent"],
        ["skip", undefined, "end"],
        ["fail", "skip", "end"],
        ["skip", "fail", "MalformedEvent"]
      ] as const
      for (const [ofLayer, ofTarget, expected] of cases) {
        const { resilient, stream } = yield* build({ A: { turns, malformedEvent: ofTarget } }, {
          ...once,
          malformedEvent: ofLayer
        })
        const [exit, [log]] = valueOf(yield* runFor("1 second", ResilientModel.withLogs(readAll(stream))))
        const { end, text } = valueOf(exit)
        const isSkipped = expected === "end"
        assert.strictEqual(end, expected)
        assert.strictEqual(text, isSkipped ? content : "one two")
        assert.deepStrictEqual(skippedIn(log), [isSkipped ? 1 : undefined])
        const [target] = yield* resilient.targets
        assert.strictEqual(target?.skippedEvents, isSkipped ? 1 : 0)
      }
    }))

  it.effect("an event after the beginning of a tool call fails the stream in any case", () =>
    Effect.gen(function*() {
      const turn = Turn.malformed({
        content: [{ type: "tool-call", name: "refund", params: { order: 7, reason: "broken" } }],
        afterTokens: 1
      })
      const { stream } = yield* build({ A: [turn] }, { ...once, malformedEvent: "skip" })
      assert.strictEqual(valueOf(yield* runFor("1 second", readAll(stream))).end, "MalformedEvent")
    }))

  it.effect("the setting of a nested layer applies to its own targets", () =>
    Effect.gen(function*() {
      for (const [outer, inner, expected] of [["skip", "fail", "MalformedEvent"], ["fail", "skip", "end"]] as const) {
        const nested = yield* build({ A: [Turn.malformed({ content, afterTokens: 2 })] }, {
          ...once,
          malformedEvent: inner
        })
        const layer = ResilientModel.layer({
          ...once,
          malformedEvent: outer,
          targets: [{ name: "nested", layer: Layer.succeed(LanguageModel.LanguageModel, nested.model) }]
        })
        const context = yield* Layer.build(layer)
        const stream = Context.get(context, LanguageModel.LanguageModel).streamText({ prompt: "hi" })
        assert.strictEqual(valueOf(yield* runFor("1 second", readAll(stream))).end, expected)
      }
    }))

  it.effect("each attempt has its own count", () =>
    Effect.gen(function*() {
      const cut = Turn.stall({ content, afterTokens: 0 })
      const { resilient, stream } = yield* build({
        A: [cut],
        B: [Turn.malformed({ content, afterTokens: 0 })],
        C: [ok]
      }, { malformedEvent: "skip", firstTokenTimeout: "1 second" })
      const [, [log]] = valueOf(yield* runFor("1 minute", ResilientModel.withLogs(Stream.runDrain(stream))))
      assert.deepStrictEqual(skippedIn(log), [undefined, 1])
      assert.deepStrictEqual((yield* resilient.targets).map(({ skippedEvents }) => skippedEvents), [0, 1, 0])
    }))

  for (const wire of wireNames) {
    for (const [kind, text] of kinds) {
      it.live(`${kind} among the events of ${wire} is skipped, and fails a stream without the option`, () =>
        Effect.gen(function*() {
          const at = yield* provider([Turn.malformed({ content, afterTokens: 2, text })])
          const call = (options: { readonly malformedEvent?: "skip" }) =>
            Effect.provide(callModel("streamText"), resilient([target("A", wire, at)], { ...once, ...options }))
          const skipping = yield* call({ malformedEvent: "skip" })
          assert.isUndefined(skipping.error)
          assert.strictEqual(skipping.text, content)
          assert.strictEqual(skipping.finish, "stop")
          assert.deepStrictEqual(skippedIn(skipping.log), [1])
          assert.deepStrictEqual((yield* call({})).attempts, ["MalformedEvent"])
        }))
    }

    it.live(`an event after the beginning of a tool call fails a stream of ${wire} in any case`, () =>
      Effect.gen(function*() {
        const params = { order: 7, reason: "it came broken" }
        const turn = Turn.malformed({ content: [{ type: "tool-call", name: "refund", params }], afterTokens: 2 })
        const at = yield* provider([turn])
        const { attempts } = yield* Effect.provide(
          callModel("streamText"),
          resilient([target("A", wire, at)], { ...once, malformedEvent: "skip" })
        )
        assert.deepStrictEqual(attempts, ["MalformedEvent"])
      }))

    it.live(`a whole answer of ${wire} that is not JSON fails in any case`, () =>
      Effect.gen(function*() {
        const at = yield* provider([Turn.malformed()])
        const { attempts } = yield* Effect.provide(
          callModel("generateText"),
          resilient([target("A", wire, at)], { ...once, malformedEvent: "skip" })
        )
        assert.deepStrictEqual(attempts, ["MalformedEvent"])
      }))
  }
})
