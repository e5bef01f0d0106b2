import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import { AiError } from "effect/ai"
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import type * as Script from "@sluice/ai/testing/Script"
import { generate, streamedText } from "./support/model.ts"
import { official, officialStream, officialText, ourModel } from "./support/provider.ts"

const prompt = "one two three four five six"
const answer = `Loopback echo: ${prompt}`

const withFault = (fault: Script.Fault, script: Script.Encoded = {}) =>
  LoopbackProvider.make({ script: { faults: { [fault]: 1 }, ...script } })

const ours = (provider: LoopbackProvider.LoopbackProvider["Service"]) =>
  [Effect.map(generate(prompt), ({ text }) => text), streamedText(prompt)].map(Effect.provide(ourModel(provider)))

const failureOf = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(self), (error) => AiError.isAiError(error) ? error : assert.fail("expected an AiError"))

const seen = (provider: LoopbackProvider.LoopbackProvider["Service"]) =>
  Effect.map(provider.journal, (entries) => entries.map(({ attempt, ending, status }) => [attempt, status, ending]))

describe("each fault, as our model and the official client meet it", () => {
  it.live("rateLimit: a typed error with the wait; the official client waits as it is told", () =>
    Effect.gen(function*() {
      const provider = yield* withFault("rateLimit", { retryAfterSeconds: 0.3 })
      for (const ask of ours(provider)) {
        yield* provider.clear
        const failed = yield* failureOf(ask)
        assert.strictEqual(failed.reason._tag, "RateLimitError")
        assert.deepStrictEqual(RetryAfter.fromAiError(failed), Duration.millis(300))
        assert.deepStrictEqual(yield* seen(provider), [[1, 429, "refused"]])
        assert.strictEqual(yield* ask, answer)
      }
      yield* provider.clear
      assert.strictEqual(yield* officialText(official(provider), prompt), answer)
      const journal = yield* provider.journal
      assert.deepStrictEqual(journal.map(({ attempt, status }) => [attempt, status]), [[1, 429], [2, 200]])
      assert.deepStrictEqual(Journal.soonerThanRetryAfter(journal), [])
      assert.strictEqual(journal[0]?.retryAfterMillis, 300)
    }))

  it.live("unavailable: a typed error; the official client asks again", () =>
    Effect.gen(function*() {
      const provider = yield* withFault("unavailable")
      for (const ask of ours(provider)) {
        yield* provider.clear
        const failed = yield* failureOf(ask)
        assert.strictEqual(failed.reason._tag, "InternalProviderError")
        assert.deepStrictEqual(yield* seen(provider), [[1, 503, "refused"]])
      }
      yield* provider.clear
      assert.strictEqual(yield* officialText(official(provider), prompt), answer)
      assert.deepStrictEqual(yield* seen(provider), [[1, 503, "refused"], [2, 200, "complete"]])
    }))

  it.live("reset: a network error; the official client asks again", () =>
    Effect.gen(function*() {
      const provider = yield* withFault("reset")
      for (const ask of ours(provider)) {
        yield* provider.clear
        const failed = yield* failureOf(ask)
        assert.strictEqual(failed.reason._tag, "NetworkError")
        assert.deepInclude(AiOutcome.fromAiError(failed), { _tag: "Failure", retryable: true })
        assert.deepStrictEqual(yield* seen(provider), [[1, undefined, "reset"]])
      }
      yield* provider.clear
      assert.strictEqual(yield* officialText(official(provider), prompt), answer)
      assert.deepStrictEqual(yield* seen(provider), [[1, undefined, "reset"], [2, 200, "complete"]])
    }))

  it.live("hang: silence until the connection is reset, or until the client has had enough", () =>
    Effect.gen(function*() {
      const patient = yield* withFault("hang", { hangMillis: 50 })
      assert.strictEqual((yield* failureOf(ours(patient)[0]!)).reason._tag, "NetworkError")
      assert.deepStrictEqual(yield* seen(patient), [[1, undefined, "hang"]])

      const provider = yield* withFault("hang")
      const asking = yield* Effect.forkChild(ours(provider)[1]!)
      yield* until(provider, (entries) => entries.length === 1)
      yield* Fiber.interrupt(asking)
      yield* until(provider, ([entry]) => entry?.ending === "clientClosed")
      assert.deepInclude((yield* provider.journal)[0], { fault: "hang", inputTokens: 0, outputTokens: 0 })
    }))

  it.live("slowStart: a good answer, late", () =>
    Effect.gen(function*() {
      const provider = yield* withFault("slowStart", { slowStartMillis: 80 })
      for (const ask of [...ours(provider), officialText(official(provider), prompt)]) {
        yield* provider.clear
        assert.strictEqual(yield* ask, answer)
        const [entry] = yield* provider.journal
        assert.isAtLeast(entry!.firstByte!.monotonic - entry!.received.monotonic, 78)
        assert.deepInclude(entry, { fault: "slowStart", ending: "complete" })
      }
    }))

  it.live("cut: a typed error, whole or streamed", () =>
    Effect.gen(function*() {
      const provider = yield* withFault("cut")
      for (const ask of ours(provider)) {
        yield* provider.clear
        const failed = yield* failureOf(ask)
        assert.strictEqual(failed.reason._tag, "InternalProviderError")
        assert.match(failed.message, /truncated|malformed/)
        assert.deepInclude(AiOutcome.fromAiError(failed), { _tag: "Failure", retryable: true })
        assert.strictEqual(yield* ask, answer)
        assert.deepStrictEqual(yield* seen(provider), [[1, 200, "cut"], [2, 200, "complete"]])
      }
    }))

  it.live("cut: the official client reports a part of a streamed answer as a success, and asks no more", () =>
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

  it.live("none: the same answer to everybody", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make()
      const client = official(provider)
      for (const ask of [...ours(provider), officialText(client, prompt), officialStream(client, prompt)]) {
        assert.strictEqual(yield* ask, answer)
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

describe("the same script", () => {
  it.live(
    "gives both clients the same faults, whatever the order and however many at once",
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

/** Waits for what a provider has seen; it hears of a closed connection a moment after its client closed it. */
const until = (
  provider: LoopbackProvider.LoopbackProvider["Service"],
  isSo: (entries: ReadonlyArray<Journal.Entry>) => boolean
): Effect.Effect<void> =>
  Effect.flatMap(
    provider.journal,
    (entries) => isSo(entries) ? Effect.void : Effect.andThen(Effect.sleep(5), until(provider, isSo))
  )
