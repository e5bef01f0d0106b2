import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import type * as Script from "@sluice/ai/testing/Script"
import { failureOf, generate, streamedText } from "./support/model.ts"
import { official, officialStream, officialText, ourModel, type Provider, waitForJournal } from "./support/provider.ts"

const prompt = "one two three four five six"
const answer = `Loopback echo: ${prompt}`

const withFault = (fault: Script.Fault, script: Script.Encoded = {}) =>
  LoopbackProvider.make({ script: { faults: { [fault]: 1 }, ...script } })

/** A whole answer and a stream of our model. */
const ours = (provider: Provider) =>
  [Effect.map(generate(prompt), ({ text }) => text), streamedText(prompt)].map(Effect.provide(ourModel(provider)))

/** The attempt, status and ending of each request. */
const requests = (provider: Provider) =>
  Effect.map(provider.journal, (entries) => entries.map(({ attempt, ending, status }) => [attempt, status, ending]))

describe("faults for our model and the official client", () => {
  it.live(
    "rateLimit is a typed error with its Retry-After, and the official client waits for it",
    () =>
      Effect.gen(function*() {
        const provider = yield* withFault("rateLimit", { retryAfterSeconds: 0.3 })
        for (const call of ours(provider)) {
          yield* provider.clear
          const failed = yield* failureOf(call)
          assert.strictEqual(failed.reason._tag, "RateLimitError")
          assert.deepStrictEqual(RetryAfter.fromAiError(failed), Duration.millis(300))
          assert.deepStrictEqual(yield* requests(provider), [[1, 429, "refused"]])
          assert.strictEqual(yield* call, answer)
        }
        yield* provider.clear
        assert.strictEqual(yield* officialText(official(provider), prompt), answer)
        const journal = yield* provider.journal
        assert.deepStrictEqual(journal.map(({ attempt, status }) => [attempt, status]), [[1, 429], [2, 200]])
        assert.deepStrictEqual(Journal.soonerThanRetryAfter(journal), [])
        assert.strictEqual(journal[0]?.retryAfterMillis, 300)
      }),
    20_000
  )

  it.live("unavailable is a typed error, and the official client retries", () =>
    Effect.gen(function*() {
      const provider = yield* withFault("unavailable")
      for (const call of ours(provider)) {
        yield* provider.clear
        const failed = yield* failureOf(call)
        assert.strictEqual(failed.reason._tag, "InternalProviderError")
        assert.deepStrictEqual(yield* requests(provider), [[1, 503, "refused"]])
      }
      yield* provider.clear
      assert.strictEqual(yield* officialText(official(provider), prompt), answer)
      assert.deepStrictEqual(yield* requests(provider), [[1, 503, "refused"], [2, 200, "complete"]])
    }), 20_000)

  it.live("reset is a network error, and the official client retries", () =>
    Effect.gen(function*() {
      const provider = yield* withFault("reset")
      for (const call of ours(provider)) {
        yield* provider.clear
        const failed = yield* failureOf(call)
        assert.strictEqual(failed.reason._tag, "NetworkError")
        assert.deepInclude(AiOutcome.fromAiError(failed), { _tag: "Failure", retryable: true })
        assert.deepStrictEqual(yield* requests(provider), [[1, undefined, "reset"]])
      }
      yield* provider.clear
      assert.strictEqual(yield* officialText(official(provider), prompt), answer)
      assert.deepStrictEqual(yield* requests(provider), [[1, undefined, "reset"], [2, 200, "complete"]])
    }), 20_000)

  it.live("hang is silence until the connection is reset or the client leaves", () =>
    Effect.gen(function*() {
      const resetting = yield* withFault("hang", { hangMillis: 50 })
      assert.strictEqual((yield* failureOf(ours(resetting)[0]!)).reason._tag, "NetworkError")
      assert.deepStrictEqual(yield* requests(resetting), [[1, undefined, "hang"]])

      const provider = yield* withFault("hang")
      const fiber = yield* Effect.forkChild(ours(provider)[1]!)
      yield* waitForJournal(provider, (entries) => entries.length === 1)
      yield* Fiber.interrupt(fiber)
      yield* waitForJournal(provider, ([entry]) => entry?.ending === "clientClosed")
      assert.deepInclude((yield* provider.journal)[0], { fault: "hang", inputTokens: 0, outputTokens: 0 })
    }))

  it.live("slowStart is a good answer that starts late", () =>
    Effect.gen(function*() {
      const provider = yield* withFault("slowStart", { slowStartMillis: 80 })
      for (const call of [...ours(provider), officialText(official(provider), prompt)]) {
        yield* provider.clear
        assert.strictEqual(yield* call, answer)
        const [entry] = yield* provider.journal
        assert.isAtLeast(entry!.firstByte!.monotonic - entry!.received.monotonic, 78)
        assert.deepInclude(entry, { fault: "slowStart", ending: "complete" })
      }
    }))

  it.live("cut is a typed error for whole answers and streams", () =>
    Effect.gen(function*() {
      const provider = yield* withFault("cut")
      for (const call of ours(provider)) {
        yield* provider.clear
        const failed = yield* failureOf(call)
        assert.strictEqual(failed.reason._tag, "InternalProviderError")
        assert.match(failed.message, /truncated|malformed/)
        assert.deepInclude(AiOutcome.fromAiError(failed), { _tag: "Failure", retryable: true })
        assert.strictEqual(yield* call, answer)
        assert.deepStrictEqual(yield* requests(provider), [[1, 200, "cut"], [2, 200, "complete"]])
      }
    }))

  it.live("the official client reports a cut stream as a success with partial output and does not retry", () =>
    Effect.gen(function*() {
      const provider = yield* withFault("cut")
      const text = yield* officialStream(official(provider), prompt)
      assert.isAbove(text.length, 0)
      assert.isBelow(text.length, answer.length)
      assert.isTrue(answer.startsWith(text))
      const [entry, ...more] = yield* provider.journal
      assert.deepStrictEqual(more, [])
      assert.deepInclude(entry, { ending: "cut", status: 200 })
      assert.isAbove(entry!.outputTokens, 0)
      assert.isUndefined(entry!.answer)
    }))

  it.live("without a fault, every client gets the same answer", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make()
      const client = official(provider)
      for (const call of [...ours(provider), officialText(client, prompt), officialStream(client, prompt)]) {
        assert.strictEqual(yield* call, answer)
      }
      const journal = yield* provider.journal
      assert.strictEqual(new Set(journal.map((entry) => entry.answer)).size, 1)
      assert.strictEqual(new Set(journal.map((entry) => entry.digest)).size, 1)
      assert.deepStrictEqual(journal.map(({ inputTokens, outputTokens }) => [inputTokens, outputTokens]), [
        [6, 8],
        [6, 8],
        [6, 8],
        [6, 8]
      ])
    }))
})

describe("one script for several clients", () => {
  it.live(
    "both clients get the same faults in any order and at any concurrency",
    () =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({
          script: { seed: 3, faults: { rateLimit: 0.2, unavailable: 0.2, cut: 0.2 }, retryAfterSeconds: 0 }
        })
        const prompts = Array.from({ length: 60 }, (_, i) => `prompt ${i}`)
        const faults = Effect.map(
          provider.journal,
          (entries) =>
            entries.filter(({ attempt }) => attempt === 1).map(({ fault, prompt }) => `${prompt}: ${fault}`).sort()
        )
        yield* Effect.forEach(prompts, (each) => Effect.ignore(streamedText(each)), { concurrency: 1 }).pipe(
          Effect.provide(ourModel(provider))
        )
        const first = yield* faults
        yield* provider.clear
        const client = official(provider, { maxRetries: 1 })
        yield* Effect.forEach(
          prompts.toReversed(),
          (each) => Effect.ignore(officialStream(client, each)),
          { concurrency: 20 }
        )
        assert.deepStrictEqual(yield* faults, first)
        assert.isAbove(first.filter((line) => !line.endsWith("undefined")).length, 20)
      }),
    20_000
  )
})
