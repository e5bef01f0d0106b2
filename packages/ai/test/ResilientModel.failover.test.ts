import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Option, Stream } from "effect"
import { LanguageModel } from "effect/ai"
import { TestClock } from "effect/testing"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as Turn from "@sluice/ai/testing/Turn"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import {
  atOnce,
  build,
  errorOf,
  failed,
  ok,
  plainRetry,
  rejectionOf,
  runFor,
  summaryOf,
  valueOf
} from "./support/resilient.ts"

const limited = (retryAfter: Duration.Input) => Turn.refusal("rateLimit", { retryAfter })

describe("failing targets", () => {
  it.effect("a failed call moves to the next target at once, and the answer names that target", () =>
    Effect.gen(function*() {
      const { model, targetCalls } = yield* build({ A: [failed], B: [ok] }, atOnce)
      const response = valueOf(yield* runFor(0, model.generateText({ prompt: "hi" })))
      assert.strictEqual(response.text, "good")
      const answer = ResilientModel.answeredBy(response)
      assert.deepInclude(answer, { target: "B", provider: "scripted", model: "B", attempts: 2, estimated: false })
      assert.deepStrictEqual(yield* targetCalls, ["A Status failed 0-0", "B Answer complete 0-0"])
    }))

  it.effect("every failure that is not final moves the call to the next target", () =>
    Effect.gen(function*() {
      const turns: ReadonlyArray<Turn.Turn> = [
        Turn.status(500),
        Turn.status(408),
        Turn.status(409),
        Turn.status(529),
        Turn.reset(),
        Turn.refusal("rateLimit"),
        Turn.refusal("quota"),
        Turn.refusal("key"),
        Turn.refusal("permission"),
        Turn.refusal("model"),
        Turn.html(),
        Turn.redirect("http://elsewhere.invalid")
      ]
      for (const turn of turns) {
        const { generate, targetCalls } = yield* build({ A: [turn], B: [ok] }, atOnce)
        assert.strictEqual(summaryOf(yield* runFor(0, generate)), "good", JSON.stringify(turn))
        assert.strictEqual((yield* targetCalls).length, 2)
      }
    }))

  it.effect("a single target is called again after the backoff", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [failed, failed, ok] })
      assert.strictEqual(summaryOf(yield* runFor("3 seconds", generate)), "good")
      assert.deepStrictEqual(yield* targetCalls, [
        "A Status failed 0-0",
        "A Status failed 1-1",
        "A Answer complete 3-3"
      ])
    }))

  it.effect("a target is called again after the backoff if all other targets failed too", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [failed, ok], B: [failed] }, atOnce)
      assert.strictEqual(summaryOf(yield* runFor("10 seconds", generate)), "good")
      assert.deepStrictEqual(yield* targetCalls, [
        "A Status failed 0-0",
        "A Answer complete 2-2",
        "B Status failed 0-0"
      ])
    }))

  const opensAtOnce = { trip: CircuitBreaker.consecutive(1), openFor: "1 hour" } as const

  it.effect("a target is called again after the backoff if the circuit of the other target is open", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({
        A: [ok, failed, ok],
        B: { turns: [failed], breaker: opensAtOnce, order: -1 }
      })
      yield* runFor(0, generate)
      assert.strictEqual(summaryOf(yield* runFor("1 second", generate)), "good")
      assert.deepStrictEqual(yield* targetCalls, [
        "A Answer complete 0-0",
        "A Status failed 0-0",
        "A Answer complete 1-1",
        "B Status failed 0-0"
      ])
    }))

  it.effect("a backoff that would end past the deadline ends the call at once with the provider's error", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build(
        { A: [ok, failed, ok], B: { turns: [failed], breaker: opensAtOnce, order: -1 } },
        { deadline: "900 millis" }
      )
      yield* runFor(0, generate)
      assert.strictEqual(summaryOf(yield* runFor(0, generate)), "InternalProviderError")
      assert.strictEqual((yield* targetCalls).length, 3)
    }))

  it.effect("a target with a transient failure is called again if the other target failed permanently", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [failed, ok], B: [Turn.refusal("key")] }, atOnce)
      assert.strictEqual(summaryOf(yield* runFor("1 minute", generate)), "good")
      assert.deepStrictEqual(yield* targetCalls, [
        "A Status failed 0-0",
        "A Answer complete 2-2",
        "B Refusal failed 0-0"
      ])
    }))

  it.effect("a target with a transient failure is called again if the other target's Retry-After is too long", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [failed, ok], B: [limited("1 hour")] }, atOnce)
      assert.strictEqual(summaryOf(yield* runFor("1 minute", generate)), "good")
      assert.strictEqual((yield* targetCalls).length, 3)
    }))

  it.effect("a call waits for a rate-limited target if the other target failed permanently", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [limited("10 seconds"), ok], B: [Turn.refusal("key")] })
      assert.strictEqual(summaryOf(yield* runFor("1 minute", generate)), "good")
      assert.deepStrictEqual(yield* targetCalls, [
        "A Refusal failed 0-0",
        "A Answer complete 10-10",
        "B Refusal failed 0-0"
      ])
    }))

  it.effect("no target is called after the attempts are used up", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [failed], B: [failed], C: [failed], D: [ok] })
      const exit = yield* runFor("1 minute", generate)
      assert.strictEqual(summaryOf(exit), "InternalProviderError")
      assert.strictEqual((yield* targetCalls).length, 3)
      assert.deepStrictEqual(
        Exit.isFailure(exit) ? Option.getOrUndefined(RetryPolicy.stopped(exit.cause)) : undefined,
        { why: "Attempts", attempts: 3 }
      )
    }))

  it.effect("a defect is not retried and stays a defect", () =>
    Effect.gen(function*() {
      let calls = 0
      const broken = yield* LanguageModel.make({
        generateText: () => {
          calls++
          return Effect.die("bug")
        },
        streamText: () => Stream.die("bug")
      })
      const model = ResilientModel.layer({
        targets: [{ name: "A", layer: Layer.succeed(LanguageModel.LanguageModel, broken) }]
      })
      const whole = yield* Effect.exit(Effect.provide(LanguageModel.generateText({ prompt: "hi" }), model))
      const streamed = yield* Effect.exit(
        Effect.provide(Stream.runDrain(LanguageModel.streamText({ prompt: "hi" })), model)
      )
      assert.deepStrictEqual([Exit.hasDies(whole), Exit.hasDies(streamed)], [true, true])
      assert.strictEqual(calls, 1)
    }))
})

describe("rate-limited targets", () => {
  it.effect("a rate-limited target gets no calls until its Retry-After has passed", () =>
    Effect.gen(function*() {
      const { generate, resilient, targetCalls } = yield* build({ A: [limited("30 seconds"), ok], B: [ok] })
      assert.strictEqual(summaryOf(yield* runFor(0, generate)), "good")
      assert.deepStrictEqual((yield* resilient.targets)[0]?.coolsFor, Duration.seconds(30))
      yield* TestClock.adjust("29 seconds")
      yield* runFor(0, generate)
      yield* TestClock.adjust("1 second")
      yield* runFor(0, generate)
      assert.deepStrictEqual(yield* targetCalls, [
        "A Refusal failed 0-0",
        "A Answer complete 30-30",
        "B Answer complete 0-0",
        "B Answer complete 29-29"
      ])
    }))

  it.effect("a single rate-limited target is called again, but never before its Retry-After has passed", () =>
    Effect.gen(function*() {
      for (const jitter of ["none", "full"] as const) {
        const { generate, targets: [target] } = yield* build({ A: [limited("30 seconds"), ok] }, {
          retry: plainRetry({ jitter })
        })
        assert.strictEqual(summaryOf(yield* runFor("1 minute", generate)), "good")
        const [first, second] = (yield* target?.journal ?? Effect.succeed([])).map(({ startedAt }) => startedAt)
        assert.isAtLeast((second ?? 0) - (first ?? 0), 30_000)
      }
    }))

  it.effect("a Retry-After that is too long ends the call at once and is in the error", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [limited("1 hour")] })
      const exit = yield* runFor(0, generate)
      assert.strictEqual(errorOf(exit).reason._tag, "RateLimitError")
      assert.deepStrictEqual(errorOf(exit).retryAfter, Duration.hours(1))
      yield* TestClock.adjust("10 minutes")
      // The next call makes no request.
      const later = yield* runFor(0, generate)
      const rejection = rejectionOf(later)
      assert.deepInclude(rejection, { _tag: "NoTarget" })
      assert.deepStrictEqual(errorOf(later).retryAfter, Duration.minutes(50))
      assert.strictEqual((yield* targetCalls).length, 1)
    }))
})

describe("refused credentials", () => {
  it.effect("a refused credential disables all targets that use it and no others", () =>
    Effect.gen(function*() {
      const { generate, resilient, targetCalls } = yield* build({
        A: { turns: [Turn.refusal("key"), ok], credential: "one" },
        B: { turns: [ok], credential: "one" },
        C: [ok]
      })
      assert.strictEqual(summaryOf(yield* runFor(0, generate)), "good")
      assert.strictEqual(summaryOf(yield* runFor(0, generate)), "good")
      assert.deepStrictEqual(
        (yield* resilient.targets).map(({ credential, credentialRestsFor }) => [credential, credentialRestsFor]),
        [["one", Duration.minutes(5)], ["one", Duration.minutes(5)], ["C", undefined]]
      )
      yield* TestClock.adjust("5 minutes")
      yield* runFor(0, generate)
      assert.deepStrictEqual(yield* targetCalls, [
        "A Refusal failed 0-0",
        "A Answer complete 300-300",
        "C Answer complete 0-0",
        "C Answer complete 0-0"
      ])
    }))

  it.effect("a single refused credential fails later calls without a request and without the first call's error text", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [Turn.refusal("key")] })
      const first = errorOf(yield* runFor("1 minute", generate))
      const exit = yield* runFor("1 minute", generate)
      assert.strictEqual(first.reason._tag, "AuthenticationError")
      assert.strictEqual(errorOf(exit).reason._tag, "AuthenticationError")
      assert.notInclude(JSON.stringify(errorOf(exit)), "Incorrect API key")
      assert.deepInclude(rejectionOf(exit), {
        _tag: "NoTarget",
        targets: [{ target: "A", why: "Credential", retryAfter: Duration.minutes(4) }]
      })
      assert.strictEqual((yield* targetCalls).length, 1)
    }))

  it.effect("setting the clock back does not prolong the rest of a credential or a rate-limited target", () =>
    Effect.gen(function*() {
      const { generate, resilient } = yield* build({
        A: [Turn.refusal("key"), ok],
        B: [limited("10 seconds"), ok]
      }, { retry: RetryPolicy.exponential({ maxAttempts: 2, maxRetryAfter: 0 }) })
      yield* TestClock.adjust("2 hours")
      yield* runFor(0, generate)
      yield* TestClock.setTime(Duration.toMillis(Duration.hours(1)))
      const restTimes = Effect.map(
        resilient.targets,
        (targets) => targets.map(({ coolsFor, credentialRestsFor }) => [coolsFor, credentialRestsFor])
      )
      assert.deepStrictEqual(yield* restTimes, [[undefined, Duration.minutes(5)], [Duration.seconds(10), undefined]])
      yield* TestClock.adjust("4 minutes")
      assert.deepStrictEqual(yield* restTimes, [[undefined, Duration.minutes(1)], [undefined, undefined]])
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(summaryOf(yield* runFor(0, generate)), "good")
    }))

  it.effect("a refused credential keeps resting when an earlier call succeeds", () =>
    Effect.gen(function*() {
      const { generate, resilient } = yield* build({
        A: { turns: [Turn.delay(ok, "5 seconds"), Turn.refusal("quota")], credential: "one" }
      })
      const slow = yield* Effect.forkChild(generate, { startImmediately: true })
      yield* runFor(0, generate)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* Fiber.join(slow), "good")
      assert.deepStrictEqual((yield* resilient.targets)[0]?.credentialRestsFor, Duration.seconds(295))
    }))
})

describe("prompts that are too long", () => {
  const tooLong = Turn.refusal("contextLength")

  it.effect("a prompt that is too long moves only to a target with a larger declared context", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({
        small: { turns: [tooLong], contextTokens: 8_000 },
        unknown: [ok],
        same: { turns: [ok], contextTokens: 8_000 },
        large: { turns: [ok], contextTokens: 100_000 }
      })
      assert.strictEqual(summaryOf(yield* runFor(0, generate)), "good")
      assert.deepStrictEqual(yield* targetCalls, ["small Refusal failed 0-0", "large Answer complete 0-0"])
    }))

  it.effect("a prompt that is too long ends the call if no target has a larger context", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({
        A: [tooLong],
        B: { turns: [ok], contextTokens: 8_000 },
        C: [ok]
      })
      const exit = yield* runFor("1 minute", generate)
      assert.strictEqual(errorOf(exit).reason._tag, "InvalidRequestError")
      assert.strictEqual((yield* targetCalls).length, 1)
    }))
})

describe("final failures", () => {
  it.effect("a content policy refusal is final and keeps its reason", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [Turn.refusal("contentPolicy")], B: [ok] })
      const exit = yield* runFor("1 minute", generate)
      assert.strictEqual(errorOf(exit).reason._tag, "ContentPolicyError")
      assert.strictEqual((yield* targetCalls).length, 1)
    }))

  it.effect("a bad request is made once", () =>
    Effect.gen(function*() {
      const { generate, targetCalls } = yield* build({ A: [Turn.refusal("request")], B: [ok] })
      assert.strictEqual(summaryOf(yield* runFor("1 minute", generate)), "InvalidRequestError")
      assert.strictEqual((yield* targetCalls).length, 1)
    }))

  it.effect("a target without the model is not called again within the call, and ends the call if it is the only one", () =>
    Effect.gen(function*() {
      const unknown = Turn.refusal("model")
      const two = yield* build({ A: [unknown], B: [failed, ok] })
      assert.strictEqual(summaryOf(yield* runFor("1 minute", two.generate)), "good")
      assert.deepStrictEqual((yield* two.targetCalls).map((line) => line.split(" ")[0]), ["A", "B", "B"])
      const one = yield* build({ A: [unknown] })
      assert.strictEqual(summaryOf(yield* runFor("1 minute", one.generate)), "InvalidRequestError")
      assert.strictEqual((yield* one.targetCalls).length, 1)
    }))
})
