/** Quotas over real connections: the headers of a provider, and the maximum of an answer. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import { LanguageModel, Prompt } from "effect/ai"
import * as AnthropicMessages from "@sluice/ai/AnthropicMessages"
import * as HttpTransport from "@sluice/ai/HttpTransport"
import * as OpenAiCompatible from "@sluice/ai/OpenAiCompatible"
import * as ResilientModel from "@sluice/ai/ResilientModel"
import * as TextModel from "@sluice/ai/TextModel"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import * as Quota from "@sluice/core/Quota"
import * as RetryPolicy from "@sluice/core/RetryPolicy"

const modules = { OpenAiCompatible, AnthropicMessages }
const quota = { limits: [Quota.requestsPerMinute(1_000), Quota.tokensPerMinute(1_000_000)], burst: 0 }

const provide = <A, E, R>(self: Effect.Effect<A, E, R>, options: LoopbackProvider.Options = {}) =>
  self.pipe(
    Effect.scoped,
    Effect.provide(HttpTransport.layer()),
    Effect.provide(LoopbackProvider.layer({ limits: { requestsPerMinute: 120 }, ...options }))
  )

const limitOf = (context: Context.Context<ResilientModel.ResilientModel>) =>
  Effect.map(Context.get(context, ResilientModel.ResilientModel).targets, ([target]) => target?.quota?.[0]?.limit)

describe("the quota of a target over a connection", () => {
  for (const [name, { layer, layerText }] of Object.entries(modules)) {
    it.live(`${name}: the limit in the headers of whole answers, streams and texts is followed`, () =>
      provide(Effect.gen(function*() {
        const { apiKey, url } = yield* LoopbackProvider.LoopbackProvider
        const options = { url, apiKey, model: "loopback" }
        for (const isStream of [false, true]) {
          const context = yield* Layer.build(
            ResilientModel.layer({ targets: [{ name: "A", quota, layer: layer(options) }] })
          )
          const model = Context.get(context, LanguageModel.LanguageModel)
          if (isStream) yield* Stream.runDrain(model.streamText({ prompt: "Hello" }))
          else yield* model.generateText({ prompt: "Hello" })
          assert.strictEqual(yield* limitOf(context), 120)
        }
        const context = yield* Layer.build(
          ResilientModel.layerText({ targets: [{ name: "A", quota, layer: layerText(options) }] })
        )
        yield* Context.get(context, TextModel.TextModel).ask(Prompt.make("Hello"))
        assert.strictEqual(yield* limitOf(context), 120)
      })))

    it.live(`${name}: a running call holds maxTokens of its configuration, and that of the call comes first`, () =>
      provide(
        Effect.gen(function*() {
          const { apiKey, url } = yield* LoopbackProvider.LoopbackProvider
          const withConfigOverride = name === "OpenAiCompatible"
            ? OpenAiCompatible.withConfigOverride({ maxTokens: 70 })
            : AnthropicMessages.withConfigOverride({ maxTokens: 70 })
          for (const [expected, override] of [[500, false], [70, true]] as const) {
            const context = yield* Layer.build(ResilientModel.layer({
              targets: [{
                name: "A",
                quota,
                layer: layer({ url, apiKey, model: "loopback", config: { maxTokens: 500 } })
              }]
            }))
            const ask = Context.get(context, LanguageModel.LanguageModel).generateText({ prompt: "xxxx" })
            yield* Effect.forkScoped(override ? withConfigOverride(ask) : ask)
            const tokens = Effect.map(
              Context.get(context, ResilientModel.ResilientModel).targets,
              ([target]) => target?.quota?.[1]?.used
            )
            assert.strictEqual(yield* Effect.repeat(tokens, { until: (used) => (used ?? 0) > 0 }), 1 + expected)
          }
        }),
        { turns: [Turn.hang(), Turn.hang()] }
      ))
  }

  it.live("a connection that was never made is refunded", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(ResilientModel.layer({
        retry: RetryPolicy.none,
        targets: [{
          name: "A",
          quota,
          // Port 9 is not served here.
          layer: OpenAiCompatible.layer({ url: "http://127.0.0.1:9/v1", model: "m" })
        }]
      }))
      yield* Effect.ignore(Context.get(context, LanguageModel.LanguageModel).generateText({ prompt: "Hello" }))
      const [target] = yield* Context.get(context, ResilientModel.ResilientModel).targets
      assert.deepStrictEqual(target?.quota?.map(({ used }) => used), [0, 0])
    }).pipe(Effect.scoped, Effect.provide(HttpTransport.layer())))
})
