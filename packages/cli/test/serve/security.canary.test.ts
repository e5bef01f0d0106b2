import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Effect, Redacted } from "effect"
import { get } from "node:http"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { collector } from "../support/collector.ts"
import { folder } from "../support/files.ts"
import { addKey, type Answer, type Gateway, send, start } from "../support/gateway.ts"
import { says } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"
import { until, within } from "../support/witness.ts"

const providerKey = "sk-canary-provider-key"
const prompt = "canary-prompt"
const answered = "canary-answer"
/** What a client sends besides its prompt. */
const extra = "canary-extra"
const guess = "canary-guess"

/** What a provider says, with all that it knows. */
const words = `bad key ${providerKey} for ${prompt}, ${answered}`

const refusals = (...statuses: ReadonlyArray<number>) =>
  statuses.flatMap((status) => [
    Turn.status(status, { error: { message: words, code: words, param: words } }),
    Turn.status(status, { body: words, headers: { "set-cookie": words } })
  ])

const turns: ReadonlyArray<Turn.Turn> = [
  ...refusals(400, 404, 408, 409, 413, 422, 429, 500, 503),
  Turn.status(200, { body: words }),
  Turn.html(),
  Turn.redirect(`http://127.0.0.1:9/${answered}`),
  Turn.cut({ content: answered }),
  Turn.reset({ content: answered, afterTokens: 1 }),
  Turn.malformed({ content: answered, text: words }),
  Turn.error({ type: "server_error", message: words, code: words, content: answered, afterTokens: 1 }),
  Turn.error({ type: "server_error", message: words, content: answered, afterTokens: 0 }),
  Turn.stall({ content: answered }),
  Turn.hang(),
  Turn.toolCall("look", { at: answered }),
  Turn.reasoning(answered, answered),
  Turn.answer(answered),
  // No target with this key is called after them.
  ...refusals(401, 402, 403)
]

const messages = [
  { role: "system", content: `${prompt} of the system` },
  {
    role: "user",
    content: [{ type: "text", text: prompt }, {
      type: "image_url",
      image_url: { url: `https://127.0.0.1:9/${prompt}` }
    }]
  }
]
const tools = [{ type: "function", function: { name: "look", description: prompt, parameters: { type: "object" } } }]

/** Calls of a model at targets with the same API and with the other one. */
const bodies = (openAi: string, anthropic: string): ReadonlyArray<readonly [path: string, body: object]> =>
  [false, true].flatMap((stream) => {
    const chat = { stream, messages, tools, max_tokens: 9 }
    const message = { stream, max_tokens: 9, system: prompt, messages: [{ role: "user", content: prompt }] }
    return [
      ["/v1/chat/completions", { model: openAi, ...chat, user: extra, metadata: { a: extra } }],
      ["/v1/chat/completions", { model: anthropic, ...chat }],
      ["/v1/messages", { model: anthropic, ...message, metadata: { user_id: extra } }],
      ["/v1/messages", { model: openAi, ...message }]
    ] as const
  })

/** Everything that the page is sent until a moment. */
const follow = (gateway: Gateway, token: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const read = { text: "" }
      const headers = { authorization: `Bearer ${token}` }
      const request = get({ port: gateway.port, path: "/sluice/events", headers, agent: false }, (response) => {
        response.on("data", (data: Buffer) => read.text += data.toString())
        response.on("error", () => {})
      })
      request.on("error", () => {})
      return { read, request }
    }),
    ({ request }) => Effect.sync(() => request.destroy())
  )

describe("a canary in keys, prompts, answers and headers", { timeout: processTimeout }, () => {
  for (const format of ["json", "text"]) {
    it.live(`none is in a ${format} log, a metric, an event of the page, a decision log, a span or an answer to another`, () =>
      Effect.gen(function*() {
        const { got, url } = yield* collector
        // Each turn has targets of its own, since some open their circuit.
        const provider = yield* LoopbackProvider.make({
          apiKey: Redacted.make(providerKey),
          turns: ({ model }) => turns[Number(/\d+/.exec(model)?.[0])]
        })
        const directory = yield* folder
        const token = yield* addKey(directory, "ann", "--admin")
        const limited = yield* addKey(directory, "bob", "--models", "a0", "--max-cost-per-day", "0.000001")
        const settings = (more: object = {}) =>
          writeFileSync(
            join(directory, "sluice.json"),
            JSON.stringify({
              serve: {
                target: turns.flatMap((_, n) => [
                  { name: `a${n}`, url: provider.url, key: "${CANARY}", model: `m${n}` },
                  {
                    name: `b${n}`,
                    url: provider.url.replace("/v1", ""),
                    wire: "anthropic",
                    key: "${CANARY}",
                    model: `m${n}`
                  }
                ]),
                models: Object.fromEntries(turns.flatMap((_, n) => [[`a${n}`, [`a${n}`]], [`b${n}`, [`b${n}`]]])),
                maxAttempts: 1,
                ...more
              }
            })
          )
        settings()
        const flags = [
          "--log-format",
          format,
          "--first-token-timeout",
          "150ms",
          "--idle-timeout",
          "150ms",
          "--timeout",
          "1s"
        ]
        const gateway = yield* start(directory, flags, {
          CANARY: providerKey,
          OTEL_EXPORTER_OTLP_ENDPOINT: url,
          OTEL_METRIC_EXPORT_INTERVAL: "500"
        })
        const { read } = yield* follow(gateway, token)
        const headersOf = (key: string) => ({
          authorization: `Bearer ${key}`,
          "content-type": "application/json",
          cookie: extra,
          "x-custom": extra,
          traceparent: `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`,
          baggage: `user=${extra}`
        })
        const ask = (path: string, body: object | string, key = token) =>
          within(
            "an answer",
            send(gateway, `${path}?key=${extra}&x=${extra}`, {
              headers: headersOf(key),
              body: typeof body === "string" ? body : JSON.stringify(body)
            }),
            "20 seconds"
          )
        const own: Array<Answer> = []
        for (let n = 0; n < turns.length; n++) {
          const asked = bodies(`a${n}`, `b${n}`)
          own.push(...yield* Effect.forEach(asked, ([path, body]) => ask(path, body), { concurrency: 8 }))
        }
        // Answers that quote nothing of a client or a provider.
        const strict = [
          yield* ask("/v1/chat/completions", { model: "a0", messages }, guess),
          yield* ask("/v1/chat/completions", { model: extra, messages }, limited),
          yield* ask("/v1/chat/completions", { model: "a0", messages }, limited),
          yield* ask("/v1/chat/completions", `{"model":"${prompt}`),
          yield* ask("/v1/chat/completions", { model: "b0", messages, logit_bias: { [extra]: 1 } }),
          yield* ask(`/v1/${extra}/../x`, {}),
          yield* ask(`/${extra}`, {}),
          yield* ask(`/sluice/calls/${extra}`, {})
        ]
        const read_ = (path: string) => send(gateway, path, { headers: headersOf(token) })
        for (const { headers } of own) {
          const call = headers["x-sluice-call"]
          if (call !== undefined) strict.push(yield* read_(`/sluice/calls/${String(call)}`))
        }
        strict.push(yield* read_("/metrics"))

        // A file with a key in it.
        settings({ target: [{ name: "a", url: `http://user:${providerKey}@127.0.0.1:9`, key: providerKey }] })
        gateway.command.process.kill("SIGHUP")
        yield* within("the refusal", says(gateway.command, "refused"))
        // Reasons are sent every five seconds.
        yield* until("the page has reasons", Effect.sync(() => read.text.includes(`"failed HTTP`)), "20 seconds")
        gateway.command.process.kill("SIGTERM")
        const { stderr, stdout } = yield* within("the end", Effect.promise(() => gateway.command.ended), "40 seconds")

        const canaries = [providerKey, "canary-", token.slice(-43), limited.slice(-43)]
        const check = (what: string, text: string) => {
          for (const canary of canaries) {
            const at = text.indexOf(canary)
            assert.strictEqual(at, -1, `${what}: ...${text.slice(Math.max(0, at - 200), at + 100)}`)
          }
        }
        check("a log", stderr)
        check("standard output", stdout)
        check("an event", read.text)
        for (const [path, text] of got) check(`OTLP ${path}`, text)
        for (const { headers, text } of strict) check("an answer", JSON.stringify(headers) + text)
        for (const { headers, text } of own) {
          assert.notInclude(text + JSON.stringify(headers), providerKey)
          assert.notInclude(text, extra)
        }
        // They were at work.
        const sent = yield* provider.journal
        assert.isAtLeast(new Set(sent.map(({ model }) => model)).size, turns.length - 5)
        assert.include(stderr, "ann")
        assert.include(got.get("/v1/traces"), "gen_ai")
        assert.isTrue(own.some(({ text }) => text.includes(answered)))
      }))
  }
})
