import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Option, Redacted } from "effect"
import { AiError, LanguageModel } from "effect/ai"
import * as AiOutcome from "@sluice/ai/AiOutcome"
import * as AiRejection from "@sluice/ai/AiRejection"
import { type Answer, event, json, rawServer, sse } from "../support/rawServer.ts"
import { errorText, failures, isStreamed, namedEvent, streamFailure, type Wire, wires } from "../support/wires.ts"
import { resilient, target } from "../support/wireCalls.ts"
import {
  credentials,
  type ErrorRow,
  prompts,
  quotations,
  quoting,
  quotingStatuses,
  refusals,
  throttlings,
  troubles
} from "./errorRows.ts"

// Errors as providers were reported to send them, on both wires: before a stream and instead of an answer, within a stream, and
// as another adapter passes them on.

const tags: { readonly [_ in AiOutcome.Remedy]?: ReadonlyArray<AiError.AiErrorReason["_tag"]> } = {
  Credential: ["AuthenticationError", "QuotaExhaustedError"],
  Retry: ["InternalProviderError"],
  Wait: ["RateLimitError"]
}

const errorEvent = (wire: Wire, error: object): string =>
  wire.module === "OpenAiCompatible" ? event({ error }) : namedEvent({ type: "error", error })

const inStreamOf = ({ body, inStream }: ErrorRow): object | undefined => {
  if (inStream !== undefined) return inStream === false ? undefined : inStream
  const error = typeof body === "object" && body !== null && "error" in body ? body.error : undefined
  return typeof error === "object" && error !== null ? error : undefined
}

const titled = ({ from, report, status }: ErrorRow) => `${from} (${report}), ${status}`

const check = (error: AiError.AiError, remedy: AiOutcome.Remedy) => {
  assert.strictEqual(AiOutcome.remedy(error), remedy, errorText(error))
  const expected = tags[remedy]
  if (expected !== undefined) assert.include(expected, error.reason._tag)
  assert.isTrue(Option.isNone(AiRejection.fromAiError(error)))
}

const each = (
  kind: string,
  rows: ReadonlyArray<ErrorRow>,
  remedy: AiOutcome.Remedy,
  tag?: AiError.AiErrorReason["_tag"]
) => {
  for (const wire of wires) {
    describe(`${kind}, ${wire.module}`, () => {
      for (const row of rows) {
        it.live(`${titled(row)}, has the remedy ${remedy}`, () =>
          Effect.gen(function*() {
            const failed = yield* failures(
              wire,
              (response) => json(response, row.status, row.body, row.headers),
              { apiKey: Redacted.make("test-key-1") }
            )
            assert.strictEqual(failed.length, 2)
            for (const error of failed) {
              check(error, remedy)
              if (tag !== undefined) assert.strictEqual(error.reason._tag, tag)
            }
          }))

        const inStream = inStreamOf(row)
        if (inStream === undefined) continue
        it.live(`${titled(row)}, within a stream has the remedy ${remedy}`, () =>
          Effect.gen(function*() {
            const { error } = yield* streamFailure(
              wire,
              (response) => sse(response, wire.head + wire.delta("a") + errorEvent(wire, inStream))
            )
            check(error, remedy)
          }))
      }
    })
  }

  describe(`${kind}, another adapter`, () => {
    for (const row of rows) {
      // An adapter with one reason for every 5xx leaves nothing to classify.
      if (row.status >= 500) continue
      it(`${titled(row)}, has the remedy ${remedy}`, () => {
        const body = typeof row.body === "string" ? row.body : JSON.stringify(row.body)
        const http = { response: { status: row.status, headers: row.headers ?? {} }, body }
        const reasons = [
          AiError.reasonFromHttpStatus({ status: row.status, http }),
          new AiError.UnknownError({ http }),
          ...(row.status === 400 ? [new AiError.InvalidRequestError({ http })] : [])
        ]
        for (const reason of reasons) {
          const error = AiError.make({ module: "Test", method: "generateText", reason })
          assert.strictEqual(AiOutcome.remedy(error), remedy, reason._tag)
        }
      })
    }
  })
}

each("a refusal of one prompt", refusals, "Final", "ContentPolicyError")
each("trouble with the key or the account", credentials, "Credential")
each("a 4xx that means the server's trouble", troubles, "Retry")
each("throttling with status 400", throttlings, "Wait")

for (const wire of wires) {
  describe(`errors that quote the prompt, ${wire.module}`, () => {
    for (const row of quotations) {
      it.live(`a ${row.status} that quotes the prompt, ${JSON.stringify(row.body).slice(0, 60)}, has the remedy ${row.remedy}`, () =>
        Effect.gen(function*() {
          for (const error of yield* failures(wire, (response) => json(response, row.status, row.body))) {
            assert.strictEqual(AiOutcome.remedy(error), row.remedy, errorText(error))
            const body = typeof row.body === "string" ? row.body : JSON.stringify(row.body)
            const http = { response: { status: row.status, headers: {} }, body }
            const reason = AiError.reasonFromHttpStatus({ status: row.status, http })
            assert.strictEqual(AiOutcome.remedy(AiError.make({ module: "Test", method: "m", reason })), row.remedy)
          }
        }))
    }
  })

  describe(`statuses with an echo of the prompt, ${wire.module}`, () => {
    for (const [status, type, remedy] of quotingStatuses) {
      it.live(`a ${status} that quotes the prompt has the remedy ${remedy}, however it quotes it`, () =>
        Effect.forEach(prompts, (prompt, nth) => {
          const bodies = quoting(type, prompt)
          const body = bodies[nth % bodies.length]
          return Effect.map(failures(wire, (response) => json(response, status, body)), (failed) => {
            for (const error of failed) assert.strictEqual(AiOutcome.remedy(error), remedy, errorText(error))
          })
        }))
    }
  })

  describe(`firewalls, ${wire.module}`, () => {
    it.live("a 403 with a page does not refuse the credential (Roo-Code 5724)", () =>
      Effect.gen(function*() {
        const failed = yield* failures(wire, (response) => {
          response.writeHead(403, { "content-type": "text/html" })
          response.end("<!doctype html><title>Request blocked</title>")
        })
        for (const error of failed) {
          assert.strictEqual(AiOutcome.remedy(error), "Elsewhere")
          assert.include(error.message, "HTTP 403 with a page instead of JSON")
        }
      }))
  })

  describe(`errors of one call and the others, ${wire.module}`, () => {
    const name = wire.module === "OpenAiCompatible" ? "openai" : "anthropic"
    const ask = (prompt: string) => Effect.exit(LanguageModel.generateText({ prompt }))

    it.live("of eight prompts one is refused with 403, and seven are answered (sub2api 4785)", () =>
      Effect.gen(function*() {
        const server = yield* rawServer((response, { body }) =>
          body.includes("letter refused")
            ? json(response, 403, refusals[0]?.body)
            : json(response, 200, wire.whole("good"))
        )
        const prompts = ["one", "two", "refused", "four", "five", "six", "seven", "eight"].map((word) =>
          `letter ${word}`
        )
        const exits = yield* Effect.provide(Effect.forEach(prompts, ask), resilient([target("A", name, server)]))
        assert.deepStrictEqual(exits.map(Exit.isSuccess), prompts.map((prompt) => prompt !== "letter refused"))
        assert.strictEqual(server.requests.length, 8)
      }).pipe(Effect.scoped))

    it.live("a 429 that has the prompt stops no other call, whatever the prompt says", () =>
      Effect.gen(function*() {
        const server = yield* rawServer((response, { body }) =>
          body.includes("letter")
            ? json(response, 200, wire.whole("good"))
            : json(response, 429, {
              error: { type: "rate_limit_error", message: "Slow down" },
              request: JSON.parse(body)
            })
        )
        const exits = yield* Effect.provide(
          Effect.forEach(
            ["my credit balance is too low for it", "insufficient_quota?", "letter one", "letter two"],
            ask
          ),
          resilient([target("A", name, { url: server.url, apiKey: Redacted.make("test-key-1") })])
        )
        assert.deepStrictEqual(exits.map(Exit.isSuccess), [false, false, true, true])
        assert.isAtLeast(server.requests.length, 4)
      }).pipe(Effect.scoped))

    it.live("the next target answers if the first refuses the key with 400 (openai-scala-client 109)", () =>
      Effect.gen(function*() {
        const first = yield* rawServer((response) => json(response, 400, credentials[0]?.body))
        const answer: Answer = (response, { body }) =>
          isStreamed(body)
            ? sse(response, wire.head + wire.delta("backup") + wire.finish + wire.done)
            : json(response, 200, wire.whole("backup"))
        const backup = yield* rawServer(answer)
        const model = resilient([target("A", name, first), target("B", name, backup)])
        const texts = yield* Effect.provide(
          Effect.forEach(["letter one", "letter two"], (prompt) => LanguageModel.generateText({ prompt })),
          model
        )
        assert.deepStrictEqual(texts.map(({ text }) => text), ["backup", "backup"])
        assert.strictEqual(first.requests.length, 1)
      }).pipe(Effect.scoped))
  })
}

describe("statuses with an echo of the prompt, another adapter", () => {
  for (const [status, type, remedy] of quotingStatuses) {
    it(`a ${status} that quotes the prompt has the remedy ${remedy}, whatever the prompt is and however it quotes it`, () => {
      for (const prompt of prompts) {
        for (const body of quoting(type, prompt)) {
          const text = typeof body === "string" ? body : JSON.stringify(body)
          const http = { response: { status, headers: {} }, body: text }
          for (
            const reason of [{ http }, { http, description: text }, { http, description: `HTTP ${status}: ${text}` }]
          ) {
            const error = AiError.make({
              module: "Test",
              method: "m",
              reason: AiError.reasonFromHttpStatus({ status, ...reason })
            })
            assert.strictEqual(AiOutcome.remedy(error), remedy, text)
          }
        }
      }
    })
  }
})

describe("the words of a gateway and of its upstream", () => {
  it.live("an error has the messages of both", () =>
    Effect.gen(function*() {
      const raw = JSON.stringify([{
        error: { code: 429, message: "Resource exhausted.", status: "RESOURCE_EXHAUSTED" }
      }])
      const body = {
        error: { message: "Provider returned error", code: 400, metadata: { raw, provider_name: "Google" } }
      }
      const [error] = yield* failures(wires[0]!, (response) => json(response, 400, body))
      // forgecode 372
      assert.strictEqual(error?.reason._tag, "RateLimitError")
      const [other] = yield* failures(wires[0]!, (response) => json(response, 502, body))
      assert.include(other?.message, "(RESOURCE_EXHAUSTED): Provider returned error: Resource exhausted.")
    }))
})

describe("x-should-retry", () => {
  const reasonsOf = (status: number, advice: string): ReadonlyArray<AiError.AiErrorReason> => {
    const http = { response: { status, headers: { "x-should-retry": advice, "retry-after": "3" } } }
    return [
      AiError.reasonFromHttpStatus({ status, http }),
      new AiError.InternalProviderError({ description: "why", http }),
      new AiError.InvalidRequestError({ http }),
      new AiError.UnknownError({ http })
    ]
  }
  const errorOf = (reason: AiError.AiErrorReason) => AiError.make({ module: "Test", method: "generateText", reason })

  for (const status of [408, 409, 424, 425, 529]) {
    it(`x-should-retry outranks status ${status}, and the failure counts for the circuit`, () => {
      for (const reason of reasonsOf(status, "false")) {
        assert.strictEqual(AiOutcome.remedy(errorOf(reason)), "Elsewhere", reason._tag)
        assert.deepInclude(AiOutcome.fromAiError(errorOf(reason)), { _tag: "Failure", retryable: false })
      }
      for (const reason of reasonsOf(status, "true")) {
        assert.strictEqual(AiOutcome.remedy(errorOf(reason)), "Retry", reason._tag)
        assert.deepInclude(AiOutcome.fromAiError(errorOf(reason)), { retryable: true, retryAfter: Duration.seconds(3) })
      }
    })
  }
})
