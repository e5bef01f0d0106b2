import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Option, Schema } from "effect"
import { AiError } from "effect/ai"
import * as AiRejection from "@sluice/ai/AiRejection"
import { BackpressureShed } from "@sluice/core/Backpressure"
import { CircuitOpen } from "@sluice/core/CircuitBreaker"
import { DeadlineExceeded } from "@sluice/core/Deadline"
import { AttemptTimeout } from "@sluice/core/Sluice"
import { throughJson } from "./support/json.ts"

const seconds = Duration.seconds
const rateLimited = { target: "A", why: "RateLimited", retryAfter: seconds(3) } as const
const wrongKey = { target: "A", why: "Credential", retryAfter: seconds(300) } as const

const rejections: ReadonlyArray<
  readonly [AiRejection.Rejection, reason: string, isRetryable: boolean, retryAfter?: Duration.Duration]
> = [
  [
    new CircuitOpen({
      policy: "model/A",
      key: "model/A",
      state: "Open",
      retryAfter: seconds(12),
      calls: 5,
      failures: 5,
      slow: 0
    }),
    "RateLimitError",
    true,
    seconds(12)
  ],
  [
    new BackpressureShed({
      policy: "model/A",
      why: "Full",
      permits: 1,
      running: 2,
      queued: 1,
      capacity: 2,
      retryAfter: seconds(1)
    }),
    "RateLimitError",
    true,
    seconds(1)
  ],
  [new AiRejection.NoTarget({ targets: [rateLimited], retryAfter: seconds(3) }), "RateLimitError", true, seconds(3)],
  [new AiRejection.NoTarget({ targets: [{ target: "A", why: "Busy" }] }), "RateLimitError", true],
  [new AiRejection.NoTarget({ targets: [wrongKey], retryAfter: seconds(300) }), "AuthenticationError", false],
  [new DeadlineExceeded({ at: "Attempt", budget: seconds(5) }), "UnknownError", false],
  [new AiRejection.ModelNotOffered({ model: "huge", offered: ["large"] }), "UnknownError", false],
  [new AttemptTimeout({ after: seconds(10) }), "InternalProviderError", true],
  [new AiRejection.FirstTokenTimeout({ target: "A", limit: seconds(10) }), "InternalProviderError", true],
  [new AiRejection.IdleTimeout({ target: "A", limit: seconds(10), parts: 3 }), "InternalProviderError", true],
  [new AiRejection.TruncatedStream({ target: "A", parts: 3, hadOutput: true }), "InternalProviderError", true],
  [new AiRejection.MalformedEvent({ target: "A", sample: "{\"choices\":[" }), "InternalProviderError", true],
  [new AiRejection.EmptyAnswer({ target: "A" }), "InvalidOutputError", true]
]

describe("AiRejection", () => {
  for (const [rejection, reason, isRetryable, retryAfter] of rejections) {
    it(`${rejection._tag}${retryAfter === undefined ? "" : " with a retryAfter"} is carried by ${reason} and read back unchanged`, () => {
      const error = AiRejection.toAiError(rejection, "streamText")
      assert.strictEqual(error.reason._tag, reason)
      assert.strictEqual(error.isRetryable, isRetryable)
      assert.deepStrictEqual(error.retryAfter, retryAfter)
      assert.strictEqual(Option.getOrThrow(AiRejection.fromAiError(error)), rejection)

      const decoded = throughJson(AiError.AiError, error)
      assert.strictEqual(decoded.isRetryable, isRetryable)
      assert.deepStrictEqual(decoded.retryAfter, retryAfter)
      const read = Option.getOrThrow(AiRejection.fromAiError(decoded))
      assert.deepStrictEqual({ ...read }, { ...rejection })
      assert.strictEqual(read.message, rejection.message)
      assert.isTrue(AiRejection.is(rejection._tag, decoded))

      const exit = throughJson(Schema.Exit(Schema.String, AiError.AiError, Schema.Defect()), Exit.fail(error))
      const failed = Exit.isFailure(exit) ? Option.getOrThrow(Cause.findErrorOption(exit.cause)) : undefined
      assert.deepStrictEqual({ ...Option.getOrThrow(AiRejection.fromAiError(failed)) }, { ...rejection })
    })
  }

  it.effect("fromAiError finds no rejection in errors without a known one", () =>
    Effect.sync(() => {
      const reason = new AiError.RateLimitError({ metadata: { sluice: { rejection: { _tag: "Strange" } } } })
      const unknown = AiError.make({ module: "Test", method: "m", reason })
      for (const error of [unknown, new Error("no"), undefined, "text", new AiRejection.EmptyAnswer({ target: "A" })]) {
        assert.isTrue(Option.isNone(AiRejection.fromAiError(error)))
        assert.isFalse(AiRejection.is("EmptyAnswer", error))
      }
    }))
})
