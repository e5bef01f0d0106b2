import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { EmbeddingModel, Model } from "effect/ai"
import { CurrentIdempotencyKey } from "@sluice/ai/IdempotencyKey"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { type Answer, json, rawServer } from "./support/rawServer.ts"
import { bodyOf, errorText } from "./support/wires.ts"

// The reports are issues and pull requests on GitHub.

const layerAt = (url: string, options?: Partial<OpenAiCompatible.EmbeddingOptions>) =>
  OpenAiCompatible.layerEmbedding({ url, model: "e1", ...options }).pipe(
    Layer.provide(HttpTransport.layer({ environment: {} }))
  )

const embedMany = (texts: ReadonlyArray<string>) =>
  Effect.flatMap(EmbeddingModel.EmbeddingModel, (model) => model.embedMany(texts))

const vectorsOf = ({ embeddings }: EmbeddingModel.EmbedManyResponse) => embeddings.map(({ vector }) => vector)

const base64 = (vector: ReadonlyArray<number>) => Buffer.from(new Float32Array(vector).buffer).toString("base64")

const texts = ["a", "bb"]
const expected = [[1, 0.5], [2, 0.25]]
const usage = { prompt_tokens: 7, total_tokens: 7 }

interface Row {
  readonly what: string
  readonly report: string
  readonly data: ReadonlyArray<unknown>
}

const item = (index: number | null | undefined, embedding: unknown) => ({ object: "embedding", index, embedding })

const read: ReadonlyArray<Row> = [
  { what: "lists of numbers", report: "openai-openapi 99", data: [item(0, [1, 0.5]), item(1, [2, 0.25])] },
  {
    what: "base64",
    report: "text-embeddings-inference 288, ai-dial-sdk 138",
    data: [item(0, base64([1, 0.5])), item(1, base64([2, 0.25]))]
  },
  { what: "one of each", report: "openai-node 2150", data: [item(0, base64([1, 0.5])), item(1, [2, 0.25])] },
  {
    what: "vectors in another order",
    report: "chroma 344, statewave 225, kodit 77",
    data: [item(1, [2, 0.25]), item(0, [1, 0.5])]
  },
  { what: "no indexes", report: "mcp-memory-service 612", data: [{ embedding: [1, 0.5] }, { embedding: [2, 0.25] }] },
  { what: "null as indexes", report: "mcp-memory-service 612", data: [item(null, [1, 0.5]), item(null, [2, 0.25])] },
  {
    what: "the index 0 left out",
    report: "pi-session-search 13",
    data: [item(undefined, [1, 0.5]), item(1, [2, 0.25])]
  },
  {
    what: "the index 0 left out, in another order",
    report: "pi-session-search 13",
    data: [item(1, [2, 0.25]), item(undefined, [1, 0.5])]
  },
  { what: "0 as every index", report: "obsidian-mcp-pro 204", data: [item(0, [1, 0.5]), item(0, [2, 0.25])] }
]

const refused: ReadonlyArray<Row & { readonly why: RegExp }> = [
  {
    what: "too few vectors",
    report: "agno 10128, statewave 225",
    data: [item(0, [1])],
    why: /1 embeddings for 2 texts/
  },
  {
    what: "too many vectors",
    report: "agno 10128",
    data: [item(0, [1]), item(1, [1]), item(2, [1])],
    why: /3 embeddings for 2 texts/
  },
  { what: "no vectors", report: "agno 10128", data: [], why: /0 embeddings for 2 texts/ },
  { what: "equal indexes", report: "utopia 767", data: [item(1, [1]), item(1, [2])], why: /indexes/ },
  { what: "an index out of range", report: "obsidian-mcp-pro 204", data: [item(0, [1]), item(2, [2])], why: /indexes/ },
  { what: "a negative index", report: "utopia 767", data: [item(0, [1]), item(-1, [2])], why: /indexes/ },
  {
    what: "null within a vector",
    report: "obsidian-local-llm-helper 10",
    data: [item(0, [1, null]), item(1, [2, 1])],
    why: /no list of finite numbers, at 0/
  },
  {
    what: "NaN within base64",
    report: "openai-node 1646",
    data: [item(0, base64([1])), item(1, base64([Number.NaN]))],
    why: /no list of finite numbers, at 1/
  },
  {
    what: "base64 that was cut",
    report: "rssmonster 276",
    data: [item(0, base64([1])), item(1, base64([1, 2]).slice(0, 8))],
    why: /no list of finite numbers, at 1/
  },
  { what: "a text that is no base64", report: "mem0 5170", data: [item(0, "?!"), item(1, [1])], why: /at 0/ },
  { what: "an empty vector", report: "mem0 5170", data: [item(0, []), item(1, [1])], why: /at 0/ },
  { what: "a vector of vectors", report: "mem0 5170", data: [item(0, [[1]]), item(1, [1])], why: /at 0/ },
  { what: "an item that is none", report: "agno 10128", data: [7, item(1, [1])], why: /at 0/ }
]

describe("embeddings of OpenAiCompatible", () => {
  for (const { data, report, what } of read) {
    it.live(`the model reads ${what} (${report})`, () =>
      Effect.gen(function*() {
        const server = yield* rawServer((response) => json(response, 200, { object: "list", data, usage }))
        const answer = yield* Effect.provide(embedMany(texts), layerAt(server.url))
        assert.deepStrictEqual(vectorsOf(answer), expected)
        assert.strictEqual(answer.usage.inputTokens, 7)
      }))
  }

  for (const { data, report, what, why } of refused) {
    it.live(`the model fails on ${what} (${report})`, () =>
      Effect.gen(function*() {
        const server = yield* rawServer((response) => json(response, 200, { object: "list", data, usage }))
        const failed = yield* Effect.flip(Effect.provide(embedMany(texts), layerAt(server.url)))
        if (failed._tag !== "AiError") return assert.fail(failed._tag)
        assert.strictEqual(failed.reason._tag, "InvalidResponseError")
        assert.match(failed.message, why)
      }))
  }

  it.live("a request has the model, the texts and what was configured, with its headers", () =>
    Effect.gen(function*() {
      const server = yield* rawServer(answering)
      const call = (options?: Partial<OpenAiCompatible.EmbeddingOptions>) =>
        Effect.provide(embedMany(texts), layerAt(server.url, options))
      yield* call()
      yield* call({
        dimensions: 2,
        encoding: "base64",
        body: { user: "u1", model: "other" },
        fields: { omit: ["user"], rename: { dimensions: "output_dimensionality" } },
        apiKey: Redacted.make("sk-test-key"),
        keyHeader: "api-key",
        headers: { "x-team": "a" }
      })
      const [plain, full] = server.requests
      assert.deepInclude(plain, { method: "POST", path: "/v1/embeddings" })
      assert.deepStrictEqual(bodyOf(server), { model: "e1", input: texts })
      assert.isUndefined(plain?.headers.authorization)
      assert.deepStrictEqual(bodyOf(server, 1), {
        output_dimensionality: 2,
        encoding_format: "base64",
        model: "e1",
        input: texts
      })
      assert.deepInclude(full?.headers, { "api-key": "sk-test-key", "x-team": "a", "user-agent": "sluice" })
    }))

  it.live("the URL may be the base, that of the chat completions, or the whole one, with a query", () =>
    Effect.gen(function*() {
      const server = yield* rawServer(answering)
      const urls = ["", "/", "/embeddings", "/chat/completions", "?api-version=1"].map((end) => server.url + end)
      for (const url of urls) yield* Effect.provide(embedMany(texts), layerAt(url))
      assert.deepStrictEqual(server.requests.map(({ path }) => path), [
        "/v1/embeddings",
        "/v1/embeddings",
        "/v1/embeddings",
        "/v1/embeddings",
        "/v1/embeddings?api-version=1"
      ])
    }))

  // gel 9032, vercel/ai 16101, onyx 2343: a provider refuses more than so many texts at once.
  it.live("more texts than a request may have are sent in several, in order, and their usage is added", () =>
    Effect.gen(function*() {
      const server = yield* rawServer(answering)
      const many = Array.from({ length: 250 }, (_, n) => "x".repeat(n + 1))
      const keyed = Effect.provideService(embedMany(many), CurrentIdempotencyKey, "k")
      const answer = yield* Effect.provide(keyed, layerAt(server.url))
      assert.deepStrictEqual(vectorsOf(answer), many.map((text) => [text.length]))
      assert.strictEqual(answer.usage.inputTokens, 250)
      assert.deepStrictEqual(server.requests.map((_, n) => bodyOf(server, n).input.length), [100, 100, 50])
      assert.deepStrictEqual(server.requests.map(({ headers }) => headers["idempotency-key"]), ["k-1", "k-2", "k-3"])
      yield* Effect.provide(
        Effect.provideService(embedMany(["a"]), CurrentIdempotencyKey, "k"),
        layerAt(server.url, { batchSize: 1 })
      )
      assert.strictEqual(server.requests[3]?.headers["idempotency-key"], "k")
    }))

  it.live("one of several requests that fails is the failure of the call", () =>
    Effect.gen(function*() {
      const server = yield* rawServer((response, received, n) =>
        n === 2
          ? json(response, 429, { error: { message: "slow down" } }, { "retry-after": "7" })
          : answering(response, received, n)
      )
      const failed = yield* Effect.flip(
        Effect.provide(embedMany(["a", "b", "c"]), layerAt(server.url, { batchSize: 1 }))
      )
      assert.strictEqual(failed._tag === "AiError" && failed.reason._tag, "RateLimitError")
      assert.strictEqual(server.requests.length, 2)
    }))

  it.live("single texts that run together share a request unless their idempotency keys differ", () =>
    Effect.gen(function*() {
      const server = yield* rawServer(answering)
      const embed = (text: string, key?: string) =>
        Effect.provideService(
          Effect.flatMap(EmbeddingModel.EmbeddingModel, (model) => model.embed(text)),
          CurrentIdempotencyKey,
          key
        )
      const calls = [embed("a"), embed("bb"), embed("ccc", "k1"), embed("dddd", "k2")]
      const answers = yield* Effect.provide(Effect.all(calls, { concurrency: "unbounded" }), layerAt(server.url))
      assert.deepStrictEqual(answers.map(({ vector }) => vector), [[1], [2], [3], [4]])
      const sent = server.requests.map((request, n) => [request.headers["idempotency-key"], bodyOf(server, n).input])
      assert.sameDeepMembers(sent, [[undefined, ["a", "bb"]], ["k1", ["ccc"]], ["k2", ["dddd"]]])
    }))

  it.live("vectors of another length than was requested fail the call", () =>
    Effect.gen(function*() {
      const server = yield* rawServer(answering)
      const failed = yield* Effect.flip(Effect.provide(embedMany(["a"]), layerAt(server.url, { dimensions: 2 })))
      assert.include(failed.message, "an embedding of 1 numbers, where 2 were requested")
    }))

  it.live("the usage is read from where servers put it, and is unknown without it", () =>
    Effect.gen(function*() {
      const cases = [[{ total_tokens: 3 }, 3], [{ input_tokens: 4 }, 4], [{ prompt_tokens: 0 }, 0], [null, undefined], [
        {},
        undefined
      ]]
      for (const [usage, tokens] of cases) {
        const server = yield* rawServer((response) => json(response, 200, { data: [item(0, [1])], usage }))
        assert.strictEqual((yield* Effect.provide(embedMany(["a"]), layerAt(server.url))).usage.inputTokens, tokens)
      }
    }))

  it.live("errors are read as those of the language model, without the key", () =>
    Effect.gen(function*() {
      const apiKey = Redacted.make("topsecret-key-1")
      const cases: ReadonlyArray<readonly [Answer, reason: string]> = [
        [(response) => json(response, 401, { error: { message: "wrong key topsecret-key-1" } }), "AuthenticationError"],
        [(response) => json(response, 503, { error: { message: "busy" } }), "InternalProviderError"],
        [(response) => json(response, 200, { error: { message: "busy", code: 503 } }), "InternalProviderError"],
        [(response) => json(response, 200, { object: "list" }), "InvalidResponseError"],
        [(response) => json(response, 200, "[]"), "InvalidResponseError"],
        [(response) => json(response, 200, "{\"data\": ["), "InternalProviderError"],
        [
          (response) => json(response, 200, { data: [item(0, Array.from({ length: 5_000 }, () => 1))] }),
          "InvalidResponseError"
        ],
        [(response) => void response.socket?.destroy(), "NetworkError"]
      ]
      for (const [answer, reason] of cases) {
        const server = yield* rawServer(answer)
        const layer = layerAt(server.url, { apiKey, maxAnswerSize: 5_000 })
        const failed = yield* Effect.flip(Effect.provide(embedMany(["a"]), layer))
        if (failed._tag !== "AiError") return assert.fail(failed._tag)
        assert.strictEqual(failed.reason._tag, reason)
        assert.strictEqual(failed.method, "embedMany")
        assert.notInclude(errorText(failed), "topsecret-key-1")
      }
    }))

  it.effect("options that cannot be used are refused", () =>
    Effect.gen(function*() {
      const options: object = {
        batchSize: 0,
        dimensions: 1.5,
        encoding: "hex",
        config: {},
        fields: { omit: ["input"] }
      }
      const invalid = yield* Effect.flip(Effect.provide(embedMany(["a"]), layerAt("https://api.example.com", options)))
      if (invalid._tag !== "InvalidOptions") return assert.fail(invalid._tag)
      assert.sameMembers(invalid.issues.map(({ option }) => option), [
        "config",
        "fields.omit",
        "batchSize",
        "dimensions",
        "encoding"
      ])
    }))

  it.live("the layer names its provider and model, and is a target of a resilient model", () =>
    Effect.gen(function*() {
      let failing = true
      const server = yield* rawServer((response, received, n) => {
        if (!failing) return answering(response, received, n)
        failing = false
        json(response, 503, { error: { message: "busy" } })
      })
      const names = Effect.all([Model.ProviderName, Model.ModelName])
      assert.deepStrictEqual(yield* Effect.provide(names, layerAt(server.url)), ["127.0.0.1", "e1"])
      const resilient = ResilientModel.layerEmbedding({ targets: [{ name: "main", layer: layerAt(server.url) }] })
      assert.deepStrictEqual(vectorsOf(yield* Effect.provide(embedMany(texts), resilient)), [[1], [2]])
      assert.strictEqual(server.requests.length, 2)
    }))

  it.live("the local provider returns equal vectors in both forms", () =>
    Effect.gen(function*() {
      const { apiKey, url } = yield* LoopbackProvider.LoopbackProvider
      const [float, encoded] = yield* Effect.forEach(["float", "base64"] as const, (encoding) =>
        Effect.map(Effect.provide(embedMany(texts), layerAt(url, { apiKey, encoding, dimensions: 4 })), vectorsOf))
      assert.deepStrictEqual(
        float?.map((vector) =>
          vector.map(Math.fround)
        ),
        encoded
      )
    }).pipe(Effect.provide(LoopbackProvider.layer())))
})

/** Answers with the length of each text. */
const answering: Answer = (response, { body }) => {
  const { input, encoding_format, output_dimensionality } = JSON.parse(body)
  json(response, 200, {
    data: input.map((text: string, index: number) => {
      const vector = Array.from({ length: output_dimensionality ?? 1 }, () => text.length)
      return item(index, encoding_format === "base64" ? base64(vector) : vector)
    }),
    usage: { prompt_tokens: input.length }
  })
}
