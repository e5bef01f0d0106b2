import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import { LanguageModel } from "effect/ai"
import { aiErrorOf, generate, streamedText } from "./support/model.ts"
import { completion, json, rawServer } from "./support/rawServer.ts"
import { calculator, calculatorHandlers } from "./support/tools.ts"
import { answering, anthropic, bodyOf, capture, errorText, openAi, type Wire, wires } from "./support/wires.ts"

// Request fields that cannot be switched off. The reports are issues and pull requests on GitHub.

type Options = NonNullable<Parameters<Wire["modelAt"]>[1]>

interface Row {
  readonly what: string
  /** The repository and number of a public report, or another source. */
  readonly report: string
  readonly wire: Wire
  readonly options: Options
  /** Default: a stream. */
  readonly call?: Effect.Effect<unknown, unknown, LanguageModel.LanguageModel>
  /** Names, and the values that some of them have. */
  readonly has: { readonly [field: string]: unknown }
  readonly hasNot: ReadonlyArray<string>
}

const withTools = LanguageModel.generateText({ prompt: "hi", toolkit: calculator }).pipe(
  Effect.provide(calculatorHandlers)
)
const perCall = (body: OpenAiCompatible.RequestConfig["body"]) =>
  generate().pipe(OpenAiCompatible.withConfigOverride({ body }), AnthropicMessages.withConfigOverride({ body }))

const rows: ReadonlyArray<Row> = [
  {
    what: "stream_options is omitted for a server that answers 422 to it",
    report: "openai-agents-python 442",
    wire: openAi,
    options: { fields: { omit: ["stream_options"] } },
    has: { stream: true },
    hasNot: ["stream_options"]
  },
  {
    what: "a field of stream_options is added",
    report: "litellm 3490",
    wire: openAi,
    options: { config: { body: { stream_options: { include_obfuscation: false } } } },
    has: { stream_options: { include_usage: true, include_obfuscation: false } },
    hasNot: []
  },
  {
    what: "a field of stream_options is not sent without a stream",
    report: "litellm 3490",
    wire: openAi,
    options: { config: { body: { stream_options: { include_obfuscation: false } } } },
    call: generate(),
    has: { stream: false },
    hasNot: ["stream_options"]
  },
  {
    what: "max_tokens has its new name for newer models on Azure",
    report: "opencode 37964, open-notebook 111, lobehub 5909",
    wire: openAi,
    options: { fields: { rename: { max_tokens: "max_completion_tokens" } }, config: { maxTokens: 99 } },
    has: { max_completion_tokens: 99 },
    hasNot: ["max_tokens"]
  },
  {
    what: "a line's own max_completion_tokens is kept, and no second limit is sent",
    report: "openai-agents-python 442, litellm 6374",
    wire: openAi,
    options: { config: { maxTokens: 5 } },
    call: perCall({ max_completion_tokens: 99 }),
    has: { max_completion_tokens: 99 },
    hasNot: ["max_tokens"]
  },
  {
    what: "a line's own max_tokens is kept, and no second limit is sent",
    report: "openai-python 1724",
    wire: openAi,
    options: { config: { maxTokens: 5 } },
    call: perCall({ max_tokens: 99 }),
    has: { max_tokens: 99 },
    hasNot: ["max_completion_tokens"]
  },
  {
    what: "a field of the call has precedence over one that is renamed to its name",
    report: "openai-agents-python 442",
    wire: openAi,
    options: { fields: { rename: { max_tokens: "max_output_tokens" } }, config: { maxTokens: 5 } },
    call: perCall({ max_output_tokens: 99 }),
    has: { max_output_tokens: 99 },
    hasNot: ["max_tokens"]
  },
  {
    what: "store and parallel_tool_calls of a call are omitted where the server refuses them",
    report: "garak 748, subwave 1693, github/app 3299",
    wire: openAi,
    options: { fields: { omit: ["store", "parallel_tool_calls"] } },
    call: perCall({ store: true, parallel_tool_calls: false, seed: 7 }),
    has: { seed: 7 },
    hasNot: ["store", "parallel_tool_calls"]
  },
  {
    what: "store and parallel_tool_calls are added",
    report: "langchain 23404",
    wire: openAi,
    options: { config: { body: { store: false, parallel_tool_calls: false } } },
    has: { store: false, parallel_tool_calls: false },
    hasNot: []
  },
  {
    what: "enable_thinking of a call is omitted",
    report: "sourcegit 2318",
    wire: openAi,
    options: { fields: { omit: ["enable_thinking"] } },
    call: perCall({ enable_thinking: false }),
    has: { model: "m1" },
    hasNot: ["enable_thinking"]
  },
  {
    what: "temperature is omitted for a model that refuses it",
    report: "py-gpt 184",
    wire: openAi,
    options: { fields: { omit: ["temperature"] }, config: { temperature: 0.5 } },
    has: { model: "m1" },
    hasNot: ["temperature"]
  },
  {
    what: "tool_choice is omitted, and the tools are sent",
    report: "pentagi 97",
    wire: openAi,
    options: { fields: { omit: ["tool_choice"] } },
    call: withTools,
    has: { stream: false },
    hasNot: ["tool_choice"]
  },
  {
    what: "model is omitted where the URL has it",
    report: "openai-python 1724",
    wire: openAi,
    options: { fields: { omit: ["model"] } },
    has: { stream: true },
    hasNot: ["model"]
  },
  {
    what: "temperature is omitted for a model that refuses it",
    report: "py-gpt 184, otoroshi-llm-extension 140",
    wire: anthropic,
    options: { fields: { omit: ["temperature"] }, config: { temperature: 0.5 } },
    has: { max_tokens: 4096 },
    hasNot: ["temperature"]
  },
  {
    what: "model is omitted and a version added for a cloud that has the model in its URL",
    report: "agent-stuff 19",
    wire: anthropic,
    options: { fields: { omit: ["model"] }, config: { body: { anthropic_version: "vertex-2023-10-16" } } },
    has: { anthropic_version: "vertex-2023-10-16" },
    hasNot: ["model"]
  },
  {
    what: "tool_choice is omitted, and the tools are sent",
    report: "opencode 23193",
    wire: anthropic,
    options: { fields: { omit: ["tool_choice"] } },
    call: withTools,
    has: { stream: false },
    hasNot: ["tool_choice"]
  },
  {
    what: "max_tokens has another name",
    report: "noop 765",
    wire: anthropic,
    options: { fields: { rename: { max_tokens: "max_output_tokens" } } },
    has: { max_output_tokens: 4096 },
    hasNot: ["max_tokens"]
  },
  {
    what: "top_p of a call is omitted",
    report: "extended_openai_conversation 428, esperanto 100",
    wire: anthropic,
    options: { fields: { omit: ["top_p"] } },
    call: perCall({ top_p: 0.1, top_k: 3 }),
    has: { top_k: 3 },
    hasNot: ["top_p"]
  }
]

describe("fields of requests", () => {
  for (const { call = streamedText(), has, hasNot, options, report, what, wire } of rows) {
    it.live(`${what}, ${wire.module} (${report})`, () =>
      Effect.gen(function*() {
        const body = bodyOf(yield* capture(wire, call, options))
        assert.deepInclude(body, has)
        for (const field of hasNot) assert.notProperty(body, field)
        assert.isNotEmpty(body.messages)
      }))
  }

  it.live("a server that answers whole though a stream was requested needs no stream in the request", () =>
    Effect.gen(function*() {
      for (const wire of wires) {
        const server = yield* capture(wire, streamedText(), { fields: { omit: ["stream", "stream_options"] } })
        assert.notProperty(bodyOf(server), "stream")
      }
    }))

  it.effect("max_completion_tokens has its old name at api.openai.com if it is renamed", () =>
    Effect.gen(function*() {
      let body: unknown
      const transport = HttpClient.make((request) =>
        Effect.sync(() => {
          if (request.body._tag === "Uint8Array") body = JSON.parse(new TextDecoder().decode(request.body.body))
          return HttpClientResponse.fromWeb(request, Response.json(completion({ content: "hello" })))
        })
      )
      const options: OpenAiCompatible.Options = {
        url: "https://api.openai.com/v1",
        model: "m1",
        config: { maxTokens: 5 },
        fields: { rename: { max_completion_tokens: "max_tokens" } }
      }
      yield* generate().pipe(
        Effect.provide(OpenAiCompatible.layer(options)),
        Effect.provideService(HttpClient.HttpClient, transport)
      )
      assert.deepInclude(body, { max_tokens: 5 })
      assert.notProperty(body, "max_completion_tokens")
    }))
})

/** Options as they come from a file, which no compiler has checked. */
const unchecked = (options: object): Options => options

for (const wire of wires) {
  describe(`options for requests, ${wire.module}`, () => {
    const refused: ReadonlyArray<readonly [what: string, options: Options, issues: ReadonlyArray<string>]> = [
      ["an unknown option", unchecked({ feilds: {} }), ["feilds"]],
      ["an unknown rule", unchecked({ fields: { remove: ["store"] } }), ["fields.remove"]],
      ["rules that are no object", unchecked({ fields: "store" }), ["fields"]],
      ["a name instead of a list", unchecked({ fields: { omit: "store" } }), ["fields.omit"]],
      ["an empty name", { fields: { omit: [""] } }, ["fields.omit"]],
      ["a name that is none", { fields: { omit: ["a b"], rename: { __proto__x: "y" } } }, [
        "fields.omit",
        "fields.rename"
      ]],
      ["messages omitted", { fields: { omit: ["messages"] } }, ["fields.omit"]],
      ["messages renamed", { fields: { rename: { messages: "prompt" } } }, ["fields.rename"]],
      ["a field with the name of the messages", { fields: { rename: { store: "messages" } } }, ["fields.rename.store"]],
      ["a field with the name of the model", { fields: { rename: { store: "model" } } }, ["fields.rename.store"]],
      ["a field with the name of stream", { fields: { rename: { store: "stream" } } }, ["fields.rename.store"]],
      ["one name for two fields", { fields: { rename: { a: "c", b: "c" } } }, ["fields.rename.b"]],
      ["a field omitted and renamed", { fields: { omit: ["a"], rename: { a: "b" } } }, ["fields.omit", "fields.omit"]],
      ["a field with an omitted name", { fields: { omit: ["b"], rename: { a: "b" } } }, ["fields.rename.a"]],
      ["a header that is none", { keyHeader: "api key" }, ["keyHeader"]],
      ["a header of the transport", { keyHeader: "Content-Length" }, ["keyHeader"]]
    ]
    for (const [what, options, issues] of refused) {
      it.effect(`${what} is refused`, () =>
        Effect.gen(function*() {
          const apiKey = Redacted.make("hunter22")
          const invalid = yield* Effect.flip(
            Effect.provide(generate(), wire.modelAt("https://api.example.com", { apiKey, ...options }))
          )
          if (invalid._tag !== "InvalidOptions") return assert.fail(invalid._tag)
          assert.deepStrictEqual([...new Set(invalid.issues.map(({ option }) => option))], [...new Set(issues)])
          assert.notInclude(invalid.message, "hunter22")
        }))
    }

    // noop 765, grafana-llm-app 907, openwiki 388, flexible-graphrag 16: gateways that take the key in another header.
    const keyHeaders: ReadonlyArray<readonly [keyHeader: string, value: string]> = [
      ["api-key", "sk-test-key"],
      ["X-LiteLLM-Api-Key", "sk-test-key"],
      ["Ocp-Apim-Subscription-Key", "sk-test-key"],
      ["Authorization", "Bearer sk-test-key"],
      ["x-api-key", "sk-test-key"]
    ]
    for (const [keyHeader, value] of keyHeaders) {
      it.live(`the key is sent as ${keyHeader} and in no other header`, () =>
        Effect.gen(function*() {
          const apiKey = Redacted.make("sk-test-key")
          const { headers } = (yield* capture(wire, generate(), { apiKey, keyHeader })).requests[0] ??
            assert.fail("none")
          const withKey = Object.entries(headers).filter(([, sent]) => String(sent).includes("sk-test-key"))
          assert.deepStrictEqual(withKey, [[keyHeader.toLowerCase(), value]])
        }))
    }

    it.live("a key in another header is masked, needs https, and lets the API's own header be used", () =>
      Effect.gen(function*() {
        const apiKey = Redacted.make("azure-secret")
        const options = { apiKey, keyHeader: "api-key" }
        const server = yield* rawServer((response, { headers }) =>
          json(response, 401, wire.error({ message: `wrong key ${headers["api-key"]}` }))
        )
        const failed = yield* Effect.flip(Effect.provide(generate(), wire.modelAt(server.url, options)))
        assert.include(errorText(aiErrorOf(failed)), "wrong key [masked]")
        assert.notInclude(errorText(aiErrorOf(failed)), "azure-secret")
        for (const invalid of [{ headers: { "Api-Key": "other" } }, { config: { headers: { "Api-Key": "other" } } }]) {
          const refused = yield* Effect.flip(
            Effect.provide(generate(), wire.modelAt("https://api.example.com", { ...options, ...invalid }))
          )
          assert.strictEqual(refused._tag, "InvalidOptions")
        }
        const insecure = yield* Effect.flip(Effect.provide(generate(), wire.modelAt("http://api.example.com", options)))
        assert.strictEqual(insecure._tag, "InvalidOptions")
        const headers = { [wire.keyHeader]: "mine" }
        const both = yield* capture(wire, generate(), { ...options, headers })
        assert.deepInclude(both.requests[0]?.headers, { "api-key": "azure-secret", [wire.keyHeader]: "mine" })
      }))

    it.live("the query of the URL is sent and never shown", () =>
      Effect.gen(function*() {
        const server = yield* rawServer((response) => json(response, 400, wire.error({ message: "no" })))
        const url = `${server.url}?api-version=2024-10-21&key=hunter22`
        const failed = aiErrorOf(yield* Effect.flip(Effect.provide(generate(), wire.modelAt(url))))
        assert.include(server.requests[0]?.path, "?api-version=2024-10-21&key=hunter22")
        assert.notInclude(errorText(failed), "hunter22")
      }))
  })
}

it.live("the caller's anthropic-version takes precedence over the module's", () =>
  Effect.gen(function*() {
    const server = yield* rawServer(answering(anthropic))
    for (const headers of [{}, { "Anthropic-Version": "2030-01-01" }]) {
      yield* Effect.provide(generate(), anthropic.modelAt(server.url, { headers }))
    }
    assert.deepStrictEqual(server.requests.map(({ headers }) => headers["anthropic-version"]), [
      "2023-06-01",
      "2030-01-01"
    ])
  }))
