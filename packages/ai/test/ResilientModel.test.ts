import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Layer, Option, Random, Schema, Stream } from "effect"
import { type AiError, LanguageModel } from "effect/ai"
import { TestClock } from "effect/testing"
import * as IdempotencyKey from "@sluice/ai/IdempotencyKey"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as Turn from "@sluice/ai/testing/Turn"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { AttemptTimeout } from "@sluice/core/Sluice"
import { build, during, errorOf, plain, readAll, rejectionOf, told, valueOf } from "./support/resilient.ts"

const Question = Deduplicator.operation<string, AiError.AiError>()("question", { key: (text: string) => text })

const ok = Turn.answer("good")
const failed = Turn.status(503)
const limited = (retryAfter: Duration.Input) => Turn.refusal("rateLimit", { retryAfter })

/** One call at a time. The others are queued. */
const single = { capacity: 1, queue: 100 }

describe("where a target fails", () => {
  it.effect("the next one is asked at once, and the answer says who gave it", () =>
    Effect.gen(function*() {
      const { model, seen } = yield* build({ A: [failed], B: [ok] })
      const response = valueOf(yield* during(0, model.generateText({ prompt: "hi" })))
      assert.strictEqual(response.text, "good")
      const answer = ResilientModel.answeredBy(response)
      assert.deepInclude(answer, { target: "B", provider: "scripted", model: "B", attempts: 2, estimated: false })
      assert.deepStrictEqual(yield* seen, ["A Status failed 0-0", "B Answer complete 0-0"])
    }))

  it.effect("every remedy but the final ones moves on to the next", () =>
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
        const { ask, seen } = yield* build({ A: [turn], B: [ok] })
        assert.strictEqual(told(yield* during(0, ask)), "good", JSON.stringify(turn))
        assert.strictEqual((yield* seen).length, 2)
      }
    }))

  it.effect("and it is the only one, it is asked again after the back-off", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [failed, failed, ok] })
      assert.strictEqual(told(yield* during("3 seconds", ask)), "good")
      assert.deepStrictEqual(yield* seen, ["A Status failed 0-0", "A Status failed 1-1", "A Answer complete 3-3"])
    }))

  it.effect("and so did the others, the back-off is due before it is asked again", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [failed, ok], B: [failed] })
      assert.strictEqual(told(yield* during("10 seconds", ask)), "good")
      assert.deepStrictEqual(yield* seen, ["A Status failed 0-0", "A Answer complete 2-2", "B Status failed 0-0"])
    }))

  const closedTo = { trip: CircuitBreaker.consecutive(1), openFor: "1 hour" } as const

  it.effect("and the circuit of the other one is open, the back-off is due too", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [ok, failed, ok], B: { turns: [failed], breaker: closedTo, order: -1 } })
      yield* during(0, ask)
      assert.strictEqual(told(yield* during("1 second", ask)), "good")
      assert.deepStrictEqual(yield* seen, [
        "A Answer complete 0-0",
        "A Status failed 0-0",
        "A Answer complete 1-1",
        "B Status failed 0-0"
      ])
    }))

  it.effect("a back-off that ends past the deadline is not begun, and the provider's error is told", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build(
        { A: [ok, failed, ok], B: { turns: [failed], breaker: closedTo, order: -1 } },
        { deadline: "900 millis" }
      )
      yield* during(0, ask)
      assert.strictEqual(told(yield* during(0, ask)), "InternalProviderError")
      assert.strictEqual((yield* seen).length, 3)
    }))

  it.effect("for good, one that failed for a moment is asked again", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [failed, ok], B: [Turn.refusal("key")] })
      assert.strictEqual(told(yield* during("1 minute", ask)), "good")
      assert.deepStrictEqual(yield* seen, ["A Status failed 0-0", "A Answer complete 2-2", "B Refusal failed 0-0"])
    }))

  it.effect("for longer than anybody waits, one that failed for a moment is asked again", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [failed, ok], B: [limited("1 hour")] })
      assert.strictEqual(told(yield* during("1 minute", ask)), "good")
      assert.strictEqual((yield* seen).length, 3)
    }))

  it.effect("for good, one that asked to be left alone is waited for", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [limited("10 seconds"), ok], B: [Turn.refusal("key")] })
      assert.strictEqual(told(yield* during("1 minute", ask)), "good")
      assert.deepStrictEqual(yield* seen, ["A Refusal failed 0-0", "A Answer complete 10-10", "B Refusal failed 0-0"])
    }))

  it.effect("nobody is asked after the attempts are used up", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [failed], B: [failed], C: [failed], D: [ok] })
      const exit = yield* during("1 minute", ask)
      assert.strictEqual(told(exit), "InternalProviderError")
      assert.strictEqual((yield* seen).length, 3)
      assert.deepStrictEqual(
        Exit.isFailure(exit) ? Option.getOrUndefined(RetryPolicy.stopped(exit.cause)) : undefined,
        { why: "Attempts", attempts: 3 }
      )
    }))

  it.effect("a defect is nobody's answer: it is not retried, and stays one", () =>
    Effect.gen(function*() {
      let asked = 0
      const broken = yield* LanguageModel.make({
        generateText: () => {
          asked++
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
      assert.strictEqual(asked, 1)
    }))
})

describe("a target that is rate limited", () => {
  it.effect("is left alone until its time is over, by later calls too", () =>
    Effect.gen(function*() {
      const { ask, resilient, seen } = yield* build({ A: [limited("30 seconds"), ok], B: [ok] })
      assert.strictEqual(told(yield* during(0, ask)), "good")
      assert.deepStrictEqual((yield* resilient.targets)[0]?.coolsFor, Duration.seconds(30))
      yield* TestClock.adjust("29 seconds")
      yield* during(0, ask)
      yield* TestClock.adjust("1 second")
      yield* during(0, ask)
      assert.deepStrictEqual(yield* seen, [
        "A Refusal failed 0-0",
        "A Answer complete 30-30",
        "B Answer complete 0-0",
        "B Answer complete 29-29"
      ])
    }))

  it.effect("and is the only one, is waited for, and never asked sooner", () =>
    Effect.gen(function*() {
      for (const jitter of ["none", "full"] as const) {
        const { ask, targets: [target] } = yield* build({ A: [limited("30 seconds"), ok] }, {
          retry: plain({ jitter })
        })
        assert.strictEqual(told(yield* during("1 minute", ask)), "good")
        const [first, second] = (yield* target?.journal ?? Effect.succeed([])).map(({ startedAt }) => startedAt)
        assert.isAtLeast((second ?? 0) - (first ?? 0), 30_000)
      }
    }))

  it.effect("for longer than anybody waits, ends the call at once with the time in the error", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [limited("1 hour")] })
      const exit = yield* during(0, ask)
      assert.strictEqual(errorOf(exit).reason._tag, "RateLimitError")
      assert.deepStrictEqual(errorOf(exit).retryAfter, Duration.hours(1))
      yield* TestClock.adjust("10 minutes")
      // The next call is not even made.
      const later = yield* during(0, ask)
      const rejection = rejectionOf(later)
      assert.deepInclude(rejection, { _tag: "NoTarget" })
      assert.deepStrictEqual(errorOf(later).retryAfter, Duration.minutes(50))
      assert.strictEqual((yield* seen).length, 1)
    }))
})

describe("a credential that is refused", () => {
  it.effect("is not used by any of its targets, and those of others are", () =>
    Effect.gen(function*() {
      const { ask, resilient, seen } = yield* build({
        A: { turns: [Turn.refusal("key"), ok], credential: "one" },
        B: { turns: [ok], credential: "one" },
        C: [ok]
      })
      assert.strictEqual(told(yield* during(0, ask)), "good")
      assert.strictEqual(told(yield* during(0, ask)), "good")
      assert.deepStrictEqual(
        (yield* resilient.targets).map(({ credential, credentialRestsFor }) => [credential, credentialRestsFor]),
        [["one", Duration.minutes(5)], ["one", Duration.minutes(5)], ["C", undefined]]
      )
      yield* TestClock.adjust("5 minutes")
      yield* during(0, ask)
      assert.deepStrictEqual(yield* seen, [
        "A Refusal failed 0-0",
        "A Answer complete 300-300",
        "C Answer complete 0-0",
        "C Answer complete 0-0"
      ])
    }))

  it.effect("and is the only one, is refused every time without a request, and not with another call's error", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [Turn.refusal("key")] })
      const first = errorOf(yield* during("1 minute", ask))
      const exit = yield* during("1 minute", ask)
      assert.strictEqual(first.reason._tag, "AuthenticationError")
      assert.strictEqual(errorOf(exit).reason._tag, "AuthenticationError")
      assert.notInclude(JSON.stringify(errorOf(exit)), "Incorrect API key")
      assert.deepInclude(rejectionOf(exit), {
        _tag: "NoTarget",
        targets: [{ target: "A", why: "Credential", retryAfter: Duration.minutes(4) }]
      })
      assert.strictEqual((yield* seen).length, 1)
    }))

  it.effect("is not refused for longer because the clock was set back, and nor is a target that is left alone", () =>
    Effect.gen(function*() {
      const { ask, resilient } = yield* build({
        A: [Turn.refusal("key"), ok],
        B: [limited("10 seconds"), ok]
      }, { retry: RetryPolicy.exponential({ maxAttempts: 2, maxRetryAfter: 0 }) })
      yield* TestClock.adjust("2 hours")
      yield* during(0, ask)
      yield* TestClock.setTime(Duration.toMillis(Duration.hours(1)))
      const rests = Effect.map(
        resilient.targets,
        (targets) => targets.map(({ coolsFor, credentialRestsFor }) => [coolsFor, credentialRestsFor])
      )
      assert.deepStrictEqual(yield* rests, [[undefined, Duration.minutes(5)], [Duration.seconds(10), undefined]])
      yield* TestClock.adjust("4 minutes")
      assert.deepStrictEqual(yield* rests, [[undefined, Duration.minutes(1)], [undefined, undefined]])
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(told(yield* during(0, ask)), "good")
    }))

  it.effect("stays so, whatever comes of a call that was made before", () =>
    Effect.gen(function*() {
      const { ask, resilient } = yield* build({
        A: { turns: [Turn.delay(ok, "5 seconds"), Turn.refusal("quota")], credential: "one" }
      })
      const slow = yield* Effect.forkChild(ask, { startImmediately: true })
      yield* during(0, ask)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* Fiber.join(slow), "good")
      assert.deepStrictEqual((yield* resilient.targets)[0]?.credentialRestsFor, Duration.seconds(295))
    }))
})

describe("a prompt that is too long", () => {
  const tooLong = Turn.refusal("contextLength")

  it.effect("goes only where the context is said to be larger", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({
        small: { turns: [tooLong], contextTokens: 8_000 },
        unknown: [ok],
        same: { turns: [ok], contextTokens: 8_000 },
        large: { turns: [ok], contextTokens: 100_000 }
      })
      assert.strictEqual(told(yield* during(0, ask)), "good")
      assert.deepStrictEqual(yield* seen, ["small Refusal failed 0-0", "large Answer complete 0-0"])
    }))

  it.effect("ends after one attempt where there is none", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [tooLong], B: { turns: [ok], contextTokens: 8_000 }, C: [ok] })
      const exit = yield* during("1 minute", ask)
      assert.strictEqual(errorOf(exit).reason._tag, "InvalidRequestError")
      assert.strictEqual((yield* seen).length, 1)
    }))
})

describe("what no target can mend", () => {
  it.effect("a refusal of the content is final and keeps its reason", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [Turn.refusal("contentPolicy")], B: [ok] })
      const exit = yield* during("1 minute", ask)
      assert.strictEqual(errorOf(exit).reason._tag, "ContentPolicyError")
      assert.strictEqual((yield* seen).length, 1)
    }))

  it.effect("a bad request is made once", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [Turn.refusal("request")], B: [ok] })
      assert.strictEqual(told(yield* during("1 minute", ask)), "InvalidRequestError")
      assert.strictEqual((yield* seen).length, 1)
    }))

  it.effect("a model that does not exist is not asked for again within the call, nor elsewhere if there is no other", () =>
    Effect.gen(function*() {
      const unknown = Turn.refusal("model")
      const two = yield* build({ A: [unknown], B: [failed, ok] })
      assert.strictEqual(told(yield* during("1 minute", two.ask)), "good")
      assert.deepStrictEqual((yield* two.seen).map((line) => line.split(" ")[0]), ["A", "B", "B"])
      const one = yield* build({ A: [unknown] })
      assert.strictEqual(told(yield* during("1 minute", one.ask)), "InvalidRequestError")
      assert.strictEqual((yield* one.seen).length, 1)
    }))
})

describe("an answer that is of no use", () => {
  const Person = Schema.Struct({ name: Schema.String })
  const person = (model: LanguageModel.LanguageModel) =>
    Effect.map(model.generateObject({ prompt: "who?", schema: Person }), ({ value }) => value.name)
  const wrong = Turn.answer("{\"nom\":1}")
  const right = Turn.answer("{\"name\":\"Ada\"}")

  it.effect("is asked for once more at the same target, with a note, and is no attempt of the retry", () =>
    Effect.gen(function*() {
      const one = yield* build({ A: [wrong, right] }, { retry: RetryPolicy.none })
      assert.strictEqual(told(yield* during(0, person(one.model))), "Ada")
      const calls = yield* one.targets[0]?.journal ?? Effect.succeed([])
      assert.deepStrictEqual(calls.map(({ startedAt }) => startedAt), [0, 0])
      assert.notStrictEqual(calls[0]?.digest, calls[1]?.digest)
      assert.include(calls[1]?.prompt ?? "", "does not have the form")
      assert.notStrictEqual(calls[0]?.idempotencyKey, calls[1]?.idempotencyKey)
    }))

  it.effect("is a budget of its own, beside the retry's", () =>
    Effect.gen(function*() {
      const { model, seen } = yield* build({ A: [wrong, failed, failed, right] }, { retry: plain({ maxAttempts: 3 }) })
      assert.strictEqual(told(yield* during("1 minute", person(model))), "Ada")
      assert.strictEqual((yield* seen).length, 4)
    }))

  it.effect("is asked for once and not twice, by default", () =>
    Effect.gen(function*() {
      const { model, seen } = yield* build({ A: [wrong, wrong, right], B: [right] })
      assert.strictEqual(told(yield* during("1 minute", person(model))), "StructuredOutputError")
      assert.strictEqual((yield* seen).length, 2)
    }))

  it.effect("is not asked for again where that is not wished", () =>
    Effect.gen(function*() {
      const { model, seen } = yield* build({ A: [wrong, right] }, { reasks: 0 })
      assert.strictEqual(told(yield* during("1 minute", person(model))), "StructuredOutputError")
      assert.strictEqual((yield* seen).length, 1)
    }))

  it.effect("if it is empty, too; and it opens no circuit", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1) }
      const { ask, seen } = yield* build({ A: { turns: [Turn.empty(), ok, Turn.empty()], breaker } })
      assert.strictEqual(told(yield* during("1 minute", ask)), "good")
      const exit = yield* during("1 minute", ask)
      assert.deepInclude(rejectionOf(exit), { _tag: "EmptyAnswer", target: "A" })
      assert.strictEqual((yield* seen).length, 4)
    }))

  it.effect("an empty answer that was cut by its length says so itself", () =>
    Effect.gen(function*() {
      const { model, seen } = yield* build({ A: [Turn.empty({ finish: "length" })] })
      const response = valueOf(yield* during(0, model.generateText({ prompt: "hi" })))
      assert.strictEqual(response.finishReason, "length")
      assert.strictEqual((yield* seen).length, 1)
    }))
})

describe("time", () => {
  const hang = Turn.hang()

  it.effect("an attempt that takes too long is given up and interrupted, and another target asked", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [hang], B: [ok] }, { attemptTimeout: "10 seconds" })
      assert.strictEqual(told(yield* during("10 seconds", ask)), "good")
      assert.deepStrictEqual(yield* seen, ["A Hang interrupted 0-10", "B Answer complete 10-10"])
    }))

  it.effect("an attempt that takes too long is a typed error that may be retried", () =>
    Effect.gen(function*() {
      const { ask } = yield* build({ A: { turns: [hang], attemptTimeout: "10 seconds" } }, { retry: RetryPolicy.none })
      const exit = yield* during("10 seconds", ask)
      assert.deepStrictEqual(rejectionOf(exit), new AttemptTimeout({ after: Duration.seconds(10) }))
      assert.strictEqual(errorOf(exit).reason._tag, "InternalProviderError")
      assert.isTrue(errorOf(exit).isRetryable)
    }))

  it.effect("a target that stayed silent is not asked again before another one was", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [hang, ok], B: [failed], C: [ok] }, { attemptTimeout: "10 seconds" })
      assert.strictEqual(told(yield* during("1 minute", ask)), "good")
      assert.deepStrictEqual((yield* seen).map((line) => line.split(" ")[0]), ["A", "B", "C"])
    }))

  it.effect("the deadline is for the call as a whole, by option or from outside, and nobody retries it", () =>
    Effect.gen(function*() {
      for (const [deadline, from] of [["5 seconds", 0], [undefined, 5]] as const) {
        const { ask, left, seen } = yield* build({ A: [failed], B: [hang] }, { deadline })
        const called = deadline === undefined ? Deadline.within(ask, "5 seconds") : ask
        const exit = yield* during("5 seconds", called)
        if (deadline === undefined) assert.isTrue(Exit.isFailure(exit))
        else {
          assert.deepInclude(rejectionOf(exit), { _tag: "DeadlineExceeded", at: "Attempt" })
          assert.isFalse(errorOf(exit).isRetryable)
        }
        assert.deepStrictEqual(yield* seen, [
          `A Status failed ${from}-${from}`,
          `B Hang interrupted ${from}-${from + 5}`
        ])
        assert.strictEqual(yield* left, 0)
      }
    }))

  it.effect("a deadline that has passed makes no request", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [hang] }, { deadline: 0 })
      assert.deepInclude(rejectionOf(yield* during(0, ask)), { _tag: "DeadlineExceeded" })
      assert.isAtMost((yield* seen).length, 1)
    }))

  it.effect("a deadline that passes counts against a circuit, if the target had a second", () =>
    Effect.gen(function*() {
      const breaker = { trip: CircuitBreaker.consecutive(1) }
      for (const [deadline, state] of [["500 millis", "Closed"], ["2 seconds", "Open"]] as const) {
        const { ask, resilient } = yield* build({ A: { turns: [hang], breaker } }, { deadline })
        yield* during("2 seconds", ask)
        assert.strictEqual((yield* resilient.targets)[0]?.circuit?._tag, state)
      }
    }))
})

describe("a resilient model as a target of another one", () => {
  it.effect("that gives up in time at the end of its attempt is silent, and no deadline has passed", () =>
    Effect.gen(function*() {
      const inner = yield* build({ A: [Turn.hang()] })
      const other = yield* build({ B: [ok] })
      const layer = ResilientModel.layer({
        attemptTimeout: "5 seconds",
        targets: [inner, other].map(({ model }, at) => ({
          name: `${at}`,
          layer: Layer.succeed(LanguageModel.LanguageModel, model)
        }))
      })
      const ask = Effect.map(LanguageModel.generateText({ prompt: "hi" }), ({ text }) => text)
      assert.strictEqual(told(yield* during("5 seconds", Effect.provide(ask, layer))), "good")
      assert.deepStrictEqual(yield* inner.seen, ["A Hang interrupted 0-5"])
    }))
})

describe("the budget of attempts", () => {
  it.effect("is shared with a retry around the call", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [failed] }, { retry: plain({ maxAttempts: 3 }) })
      const retried = RetryPolicy.retry(ask, plain({ maxAttempts: 2 }))
      assert.strictEqual(told(yield* during("1 minute", retried)), "InternalProviderError")
      assert.strictEqual((yield* seen).length, 2)
    }))

  it.effect("is shared with a layer inside", () =>
    Effect.gen(function*() {
      const inner = yield* build({ A: [failed] }, { retry: plain({ maxAttempts: 3 }) })
      const layer = Layer.succeed(LanguageModel.LanguageModel, inner.model)
      const outer = ResilientModel.layer({ retry: plain({ maxAttempts: 4 }), targets: [{ name: "inner", layer }] })
      const ask = Effect.provide(LanguageModel.generateText({ prompt: "hi" }), outer)
      yield* during("10 minutes", ask)
      assert.strictEqual((yield* inner.seen).length, 4)
    }))
})

describe("circuits", () => {
  const breaker = { trip: CircuitBreaker.consecutive(2), openFor: "30 seconds" } as const
  const down: ReadonlyArray<Turn.Turn> = [failed, failed]

  it.effect("a single target's open circuit refuses with its evidence and the time, in an error that waits", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: { turns: [...down, ok], breaker } }, { retry: RetryPolicy.none })
      yield* during(0, ask)
      yield* during(0, ask)
      yield* TestClock.adjust("10 seconds")
      const exit = yield* during(0, ask)
      assert.deepInclude(rejectionOf(exit), { _tag: "CircuitOpen", policy: "model/A", failures: 2 })
      assert.strictEqual(errorOf(exit).reason._tag, "RateLimitError")
      assert.deepStrictEqual(errorOf(exit).retryAfter, Duration.seconds(20))
      assert.strictEqual((yield* seen).length, 2)
    }))

  it.effect("one that opens within a call ends it, with what the provider said; the next call is refused", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: { turns: [...down, ok], breaker } }, { retry: plain({ maxAttempts: 5 }) })
      assert.strictEqual(told(yield* during("10 minutes", ask)), "InternalProviderError")
      assert.strictEqual((yield* seen).length, 2)
      const again = yield* build({ A: { turns: [...down, ok], breaker } })
      yield* during("3 seconds", again.ask)
      assert.strictEqual(told(yield* during(0, again.ask)), "CircuitOpen")
      assert.strictEqual((yield* again.seen).length, 2)
    }))

  it.effect("and other reasons: the refusal has the targets in their order", () =>
    Effect.gen(function*() {
      const { ask } = yield* build({
        A: { turns: down, breaker: { ...breaker, trip: CircuitBreaker.consecutive(1) } },
        B: [limited("1 hour")],
        C: [Turn.refusal("key")]
      })
      yield* during(0, ask)
      const rejection = rejectionOf(yield* during(0, ask))
      assert.deepStrictEqual(
        rejection._tag === "NoTarget" ? rejection.targets.map(({ target, why }) => `${target} ${why}`) : [],
        ["A CircuitOpen", "B RateLimited", "C Credential"]
      )
    }))

  it.effect("all of them open: refused with the soonest time, and why each was", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({
        A: { turns: down, breaker },
        B: { turns: down, breaker: { ...breaker, openFor: "12 seconds" } }
      }, { retry: plain({ maxAttempts: 4 }) })
      yield* during("6 seconds", ask)
      const exit = yield* during(0, ask)
      const rejection = rejectionOf(exit)
      assert.strictEqual(rejection._tag, "NoTarget")
      assert.deepStrictEqual(
        rejection._tag === "NoTarget" ? rejection.targets.map(({ target, why }) => `${target} ${why}`) : [],
        ["A CircuitOpen", "B CircuitOpen"]
      )
      const { retryAfter } = errorOf(exit)
      assert.isTrue(retryAfter !== undefined && Duration.isLessThanOrEqualTo(retryAfter, Duration.seconds(12)))
      assert.strictEqual((yield* seen).length, 4)
    }))

  it.effect("all of them open: the least bad is asked, by option", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({
        A: { turns: [...down, ok], breaker },
        B: { turns: [...down, ok], breaker: { ...breaker, openFor: "12 seconds" } }
      }, { retry: plain({ maxAttempts: 4 }), whenAllOpen: "leastBad" })
      yield* during("6 seconds", ask)
      assert.strictEqual(told(yield* during(0, ask)), "good")
      assert.strictEqual((yield* seen).at(-1)?.startsWith("B Answer"), true)
    }))

  it.effect("a call with the time for it waits until the first may be asked again", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: { turns: [...down, ok], breaker } }, { retry: RetryPolicy.none })
      yield* during(0, ask)
      yield* during(0, ask)
      const exit = yield* during("40 seconds", Deadline.within(ask, "1 minute"))
      assert.strictEqual(told(exit), "good")
      assert.strictEqual((yield* seen).at(-1), "A Answer complete 30-30")
    }))

  it.effect("recovers by a probe", () =>
    Effect.gen(function*() {
      const { ask, resilient, seen } = yield* build({ A: { turns: [...down, ok], breaker }, B: [ok] })
      yield* during(0, ask)
      yield* during(0, ask)
      const state = Effect.map(resilient.targets, ([first]) => first?.circuit?._tag)
      assert.strictEqual(yield* state, "Open")
      yield* during(0, ask)
      yield* TestClock.adjust("30 seconds")
      yield* during(0, ask)
      assert.strictEqual(yield* state, "Closed")
      assert.deepStrictEqual(yield* seen, [
        "A Status failed 0-0",
        "A Status failed 0-0",
        "A Answer complete 30-30",
        "B Answer complete 0-0",
        "B Answer complete 0-0",
        "B Answer complete 0-0"
      ])
    }))

  it.effect("who comes while a probe runs goes elsewhere", () =>
    Effect.gen(function*() {
      const slow = Turn.delay(ok, "5 seconds")
      const { ask, seen } = yield* build({ A: { turns: [...down, slow], breaker }, B: [ok] })
      yield* during(0, ask)
      yield* during(0, ask)
      yield* TestClock.adjust("30 seconds")
      const both = yield* during("5 seconds", Effect.all([ask, ask], { concurrency: 2 }))
      assert.deepStrictEqual(valueOf(both), ["good", "good"])
      assert.strictEqual((yield* seen).filter((line) => line.startsWith("A")).length, 3)
    }))

  it.effect("there is none where none is wished", () =>
    Effect.gen(function*() {
      const { ask, resilient, seen } = yield* build({ A: { turns: [failed], breaker: false } })
      for (let i = 0; i < 20; i++) yield* during("10 seconds", ask)
      assert.strictEqual((yield* seen).length, 60)
      assert.isUndefined((yield* resilient.targets)[0]?.circuit)
    }))
})

describe("permits", () => {
  const slow = Turn.delay(ok, "10 seconds")

  it.effect("a target that is busy is passed over", () =>
    Effect.gen(function*() {
      const { ask, left, seen } = yield* build({ A: { turns: [slow], backpressure: single }, B: [slow] })
      const exit = yield* during("10 seconds", Effect.all([ask, ask], { concurrency: 2 }))
      assert.deepStrictEqual(valueOf(exit), ["good", "good"])
      assert.deepStrictEqual(yield* seen, ["A Answer complete 0-10", "B Answer complete 0-10"])
      assert.strictEqual(yield* left, 0)
    }))

  it.effect("where all are busy the call waits in line", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: { turns: [slow], backpressure: single } })
      const exit = yield* during("20 seconds", Effect.all([ask, ask], { concurrency: 2 }))
      assert.deepStrictEqual(valueOf(exit), ["good", "good"])
      assert.deepStrictEqual(yield* seen, ["A Answer complete 0-10", "A Answer complete 10-20"])
    }))

  it.effect("in a run that callers without a deadline share, the line is as patient as without one", () =>
    Effect.gen(function*() {
      const { ask, left, stream } = yield* build({ A: { turns: [slow], backpressure: single } })
      const { dedupe } = yield* Deduplicator.make()
      const shared = (question: string) => dedupe(ask, Question(question))
      const streamed = dedupe(Effect.map(readAll(stream), ({ text }) => text), Question("c"))
      const exit = yield* during("30 seconds", Effect.all([shared("a"), shared("b"), streamed], { concurrency: 3 }))
      assert.deepStrictEqual(valueOf(exit), ["good", "good", "good"])
      assert.strictEqual(yield* left, 0)
    }))

  it.effect("nobody waits longer than the target says, nor past the deadline", () =>
    Effect.gen(function*() {
      const backpressure = { capacity: 1, queue: 10, maxWait: "2 seconds" } as const
      const options = [[9_000, "BackpressureShed"], [undefined, "BackpressureShed"], [
        1_000,
        "DeadlineExceeded"
      ]] as const
      for (const [millis, expected] of options) {
        const { ask, left, seen } = yield* build({ A: { turns: [Turn.delay(ok, "8 seconds")], backpressure } })
        yield* Effect.forkChild(Effect.exit(ask), { startImmediately: true })
        const now = yield* Clock.currentTimeMillis
        const deadline = millis === undefined ? undefined : { at: now + millis, budgetMillis: millis }
        const exit = yield* during("2 seconds", Effect.provideService(ask, Deadline.Deadline, deadline))
        assert.strictEqual(told(exit), expected)
        yield* TestClock.adjust("8 seconds")
        assert.strictEqual((yield* seen).length, 1)
        assert.strictEqual(yield* left, 0)
      }
    }))
})

describe("which target is asked first", () => {
  it.effect("is a matter of order, and of their place in the list", () =>
    Effect.gen(function*() {
      const { ask, seen } = yield* build({ A: [ok], B: { turns: [ok], order: -1 } })
      yield* during(0, ask)
      assert.deepStrictEqual(yield* seen, ["B Answer complete 0-0"])
    }))

  it.effect("is a matter of weight among those of one order", () =>
    Effect.gen(function*() {
      const { ask, targets } = yield* build({
        A: { turns: [ok], order: 0 },
        B: { turns: [ok], order: 0, weight: 3 }
      })
      const calls = 2_000
      yield* Effect.repeat(ask, { times: calls - 1 }).pipe(Random.withSeed("a seed"))
      const counts = yield* Effect.forEach(targets, ({ journal }) => Effect.map(journal, ({ length }) => length))
      assert.strictEqual((counts[0] ?? 0) + (counts[1] ?? 0), calls)
      assert.closeTo((counts[1] ?? 0) / calls, 0.75, 0.03)
    }))
})

describe("the idempotency key", () => {
  const keysOf = (
    targets: ReadonlyArray<{ readonly journal: Effect.Effect<ReadonlyArray<{ readonly idempotencyKey?: string }>> }>
  ) =>
    Effect.map(
      Effect.forEach(targets, ({ journal }) => journal),
      (all) => all.flat().map(({ idempotencyKey }) => idempotencyKey)
    )

  it.effect("is one for all attempts of a call, and another for the next", () =>
    Effect.gen(function*() {
      const { ask, targets } = yield* build({ A: [failed, failed, ok, ok] })
      yield* during("1 minute", ask)
      yield* during("1 minute", ask)
      const keys = yield* keysOf(targets)
      assert.strictEqual(keys.length, 4)
      assert.match(keys[0] ?? "", /^call_[0-9a-z]{16}$/)
      assert.strictEqual(new Set(keys.slice(0, 3)).size, 1)
      assert.notStrictEqual(keys[3], keys[0])
    }))

  it.effect("is the caller's, if there is one", () =>
    Effect.gen(function*() {
      const { ask, targets } = yield* build({ A: [failed, ok] })
      yield* during("1 minute", Effect.provideService(ask, IdempotencyKey.CurrentIdempotencyKey, "order-17"))
      assert.deepStrictEqual(yield* keysOf(targets), ["order-17", "order-17"])
    }))
})
