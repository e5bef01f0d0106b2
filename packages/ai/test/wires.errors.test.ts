import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Option, Redacted } from "effect"
import type { AiError } from "effect/ai"
import * as AiRejection from "@sluice/ai/AiRejection"
import * as RetryAfter from "@sluice/ai/RetryAfter"
import { json, sse } from "./support/rawServer.ts"
import { errorText, failures, httpOf, isStreamed, streamFailure, textAt, wires } from "./support/wires.ts"

// Behaviour that both wires share, on each of them, over real sockets.

for (const wire of wires) {
  describe(`invalid responses, ${wire.module}`, () => {
    it.live("a page of another server with status 200 is an invalid response", () =>
      Effect.gen(function*() {
        const failed = yield* failures(wire, (response) => {
          response.writeHead(200, { "content-type": "text/html" })
          response.end("<!doctype html><title>Sign in</title>")
        })
        for (const error of failed) {
          assert.strictEqual(error.reason._tag, "InvalidResponseError")
          assert.include(error.message, `${wire.module}.`)
          assert.include(error.message, "text/html instead of JSON: \"<!doctype html>")
        }
      }))

    it.live("JSON of another form is an invalid response", () =>
      Effect.gen(function*() {
        for (const body of ["{}", "[]", "null", "\"hi\"", "{\"content\":7,\"choices\":7}"]) {
          const failed = yield* failures(wire, (response, request) =>
            isStreamed(request.body) ? sse(response, `data: ${body}\n\n`) : json(response, 200, body))
          assert.strictEqual(failed[0]?.reason._tag, "InvalidResponseError", body)
          assert.include(["InvalidResponseError", "InternalProviderError"], failed[1]?.reason._tag, body)
        }
      }))

    it.live("a malformed response fails with a rejection that has its first 80 characters, masked", () =>
      Effect.gen(function*() {
        const key = "topsecret-key-1"
        const broken = `{"choices": <<<${key} ${"x".repeat(200)}`
        const failed = yield* failures(
          wire,
          (response, { body }) =>
            isStreamed(body) ? sse(response, `${wire.head}data: ${broken}\n\n`) : json(response, 200, broken),
          { apiKey: Redacted.make(key) }
        )
        for (const error of failed) {
          assert.strictEqual(error.reason._tag, "InternalProviderError")
          assert.strictEqual(httpOf(error)?.response?.status, 200)
          assert.notInclude(errorText(error), key)
          const rejection = Option.getOrThrow(AiRejection.fromAiError(error))
          if (rejection._tag !== "MalformedEvent") return assert.fail(rejection._tag)
          assert.strictEqual(rejection.target, "127.0.0.1")
          assert.strictEqual(rejection.sample, `{"choices": <<<[masked] ${"x".repeat(56)}`)
        }
      }))
  })

  describe(`provider errors, ${wire.module}`, () => {
    const table: ReadonlyArray<readonly [number, string, AiError.AiErrorReason["_tag"]]> = [
      [400, "invalid_request_error", "InvalidRequestError"],
      [401, "authentication_error", "AuthenticationError"],
      [402, "billing_error", "QuotaExhaustedError"],
      [403, "permission_error", "AuthenticationError"],
      [404, "not_found_error", "InvalidRequestError"],
      [408, "timeout", "InternalProviderError"],
      [409, "conflict", "InternalProviderError"],
      [413, "request_too_large", "InvalidRequestError"],
      [422, "invalid_request_error", "InvalidRequestError"],
      [429, "rate_limit_error", "RateLimitError"],
      [429, "insufficient_quota", "QuotaExhaustedError"],
      [500, "api_error", "InternalProviderError"],
      [502, "api_error", "InternalProviderError"],
      [503, "server_error", "InternalProviderError"],
      [504, "timeout_error", "InternalProviderError"],
      [529, "overloaded_error", "InternalProviderError"]
    ]
    for (const [status, type, tag] of table) {
      it.live(`status ${status} with ${type} is a ${tag}`, () =>
        Effect.gen(function*() {
          const failed = yield* failures(
            wire,
            (response) => json(response, status, wire.error({ type, message: "why" }))
          )
          for (const error of failed) {
            assert.strictEqual(error.reason._tag, tag)
            assert.strictEqual(httpOf(error)?.response?.status, status)
            assert.include(httpOf(error)?.body, "why")
            assert.isTrue(Option.isNone(AiRejection.fromAiError(error)))
          }
        }))
    }

    const withoutStatus = new Map(table.map(([, type, tag]) => [type, tag] as const))
    for (const [type, tag] of withoutStatus) {
      if (type === "conflict" || type === "timeout") continue
      it.live(`${type} with status 200 is a ${tag}`, () =>
        Effect.gen(function*() {
          const { error, parts } = yield* streamFailure(
            wire,
            (response) => sse(response, wire.head + wire.delta("a") + wire.errorEvent({ type, message: "why" }))
          )
          assert.strictEqual(error.reason._tag, tag)
          assert.include(parts, "text-delta")
          assert.strictEqual(httpOf(error)?.response?.status, 200)
          const [whole] = yield* failures(wire, (response) => json(response, 200, wire.error({ type, message: "why" })))
          assert.strictEqual(whole?.reason._tag, tag)
          assert.notInclude(whole?.message, "HTTP")
        }))
    }

    it.live("an exhausted quota is recognised by its text alone", () =>
      Effect.gen(function*() {
        const message = "Your credit balance is too low to access the API. Please go to Plans & Billing to upgrade."
        const type = "invalid_request_error"
        for (const error of yield* failures(wire, (response) => json(response, 400, wire.error({ type, message })))) {
          assert.strictEqual(error.reason._tag, "QuotaExhaustedError")
        }
        const { error } = yield* streamFailure(wire, (response) => sse(response, wire.errorEvent({ type, message })))
        assert.strictEqual(error.reason._tag, "QuotaExhaustedError")
      }))

    it.live("an error has its Retry-After even if its reason has no field for it", () =>
      Effect.gen(function*() {
        for (const status of [429, 503, 529]) {
          const failed = yield* failures(
            wire,
            (response) => json(response, status, wire.error({ message: "later" }), { "retry-after": "7" })
          )
          for (const error of failed) assert.deepStrictEqual(RetryAfter.fromAiError(error), Duration.seconds(7))
        }
      }))

    it.live("an error event after the finish reason is ignored", () =>
      Effect.gen(function*() {
        const error = wire.errorEvent({ type: "overloaded_error", message: "late" })
        const sent = wire.head + wire.delta("whole") + wire.finish + error
        assert.strictEqual(yield* textAt(wire, (response) => sse(response, sent)), "whole")
      }))
  })
}
