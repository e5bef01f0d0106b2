import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Journal from "@sluice/ai/testing/Journal"
import * as Turn from "@sluice/ai/testing/Turn"
import type OpenAI from "openai"
import { makeProvider } from "../support/loopbackWires.ts"
import { official, question } from "../support/provider.ts"

describe("turns for the official client", () => {
  const complete = (client: OpenAI) =>
    Effect.tryPromise({
      try: () => client.chat.completions.create(question("hi")).then(({ choices }) => choices[0]!),
      catch: (error) => error as Error
    })

  it.live("the official client waits for the Retry-After and reads a tool call", () =>
    Effect.gen(function*() {
      const provider = yield* makeProvider([
        Turn.refusal("rateLimit", { retryAfter: "300 millis" }),
        Turn.refusal("overloaded"),
        Turn.toolCall("weather", { city: "Oslo" })
      ])
      const { finish_reason, message } = yield* complete(official(provider))
      const [call] = message.tool_calls!
      assert.deepStrictEqual([finish_reason, call!.type === "function" && call!.function.arguments], [
        "tool_calls",
        "{\"city\":\"Oslo\"}"
      ])
      const journal = yield* provider.journal
      assert.deepStrictEqual(journal.map(({ attempt, status }) => [attempt, status]), [[1, 429], [2, 503], [3, 200]])
      const [first, second, ...more] = Journal.gaps(journal)
      assert.deepStrictEqual(more, [])
      assert.isAtLeast(first!, 298)
      assert.isAtLeast(second!, 0)
    }), 20_000)

  it.live("the official client throws the error class of each refusal", () =>
    Effect.gen(function*() {
      const names = { key: "AuthenticationError", permission: "PermissionDeniedError", model: "NotFoundError" } as const
      for (const why of ["key", "permission", "model"] as const) {
        const provider = yield* makeProvider([Turn.refusal(why)])
        const error = yield* Effect.flip(complete(official(provider, { maxRetries: 0 })))
        assert.strictEqual(error.constructor.name, names[why])
      }
    }))

  it.live("the official client throws on an error within a stream", () =>
    Effect.gen(function*() {
      const provider = yield* makeProvider([Turn.error({ type: "server_error", message: "boom", afterTokens: 2 })])
      const read = Effect.tryPromise({
        try: async () => {
          for await (const _ of await official(provider).chat.completions.create({ ...question("hi"), stream: true })) {
            // Reads the stream to its end.
          }
        },
        catch: (error) => error as Error
      })
      assert.include((yield* Effect.flip(read)).message, "boom")
    }))

  it.live("embeddings are equal for equal texts and closer for similar texts", () =>
    Effect.gen(function*() {
      const provider = yield* makeProvider([], { limits: { requestsPerMinute: 3 } })
      const client = official(provider, { maxRetries: 0 })
      const embed = (input: string | Array<string>, dimensions?: number) =>
        Effect.tryPromise({
          try: () =>
            client.embeddings.create({ model: "m1", input, ...(dimensions === undefined ? {} : { dimensions }) }, {
              headers: { "idempotency-key": "k1" }
            }),
          catch: (error) => error as Error
        })
      const { data, usage } = yield* embed(["a red house", "a red car", "bonsai", "a red house"])
      const [house, car, bonsai, again] = data.map(({ embedding }) => embedding)
      const dot = (a: Array<number>, b: Array<number>) => a.reduce((sum, value, i) => sum + value * b[i]!, 0)
      assert.deepStrictEqual([house!.length, usage.prompt_tokens], [16, 10])
      assert.deepStrictEqual(again, house)
      assert.closeTo(dot(house!, house!), 1, 1e-6)
      assert.isAbove(dot(house!, car!), dot(house!, bonsai!))
      const float = yield* Effect.tryPromise(() =>
        client.embeddings.create({ model: "m1", input: "a red house", encoding_format: "float" })
      )
      for (const [i, value] of float.data[0]!.embedding.entries()) assert.closeTo(value, house![i]!, 1e-6)
      assert.strictEqual((yield* embed("x", 5)).data[0]!.embedding.length, 5)
      assert.strictEqual((yield* Effect.flip(embed("x"))).constructor.name, "RateLimitError")
      const [entry] = yield* provider.journal
      assert.deepInclude(entry, { endpoint: "embeddings", wire: "openai", idempotencyKey: "k1", inputTokens: 10 })
    }))
})
