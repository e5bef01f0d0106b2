import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Effect, Redacted } from "effect"
import { folder } from "../support/files.ts"
import { ask, over, send, sendRaw, start } from "../support/gateway.ts"
import { processTimeout } from "../support/timeouts.ts"

const open = Effect.fnUntraced(function*(options: LoopbackProvider.Options = {}, flags: ReadonlyArray<string> = []) {
  const provider = yield* LoopbackProvider.make(options)
  const { args, env } = over(provider)
  return { provider, gateway: yield* start(yield* folder, [...args, ...flags], env) }
})

const body = `{"model":"m","messages":[{"role":"user","content":"Hello"}]}`
const json = { "content-type": "application/json" }

describe("a gateway under attack", { timeout: processTimeout }, () => {
  it.live("requests without the token, from other origins and to other paths reach no provider", () =>
    Effect.gen(function*() {
      const { gateway, provider } = yield* open({}, ["--allow-host", "Gateway.Example"])
      const { token } = gateway
      const bearer = { authorization: `Bearer ${token}` }
      const status = (path: string, sent: Parameters<typeof send>[2]) =>
        Effect.map(send(gateway, path, sent), ({ status }) => status)
      const chat = (headers: { readonly [name: string]: string }, method = "POST") =>
        status("/v1/chat/completions", { method, headers: { ...json, ...headers }, body })

      // Guesses.
      const guesses = [{}, { authorization: "Bearer" }, { authorization: `Basic ${token}` }, { "x-api-key": "" }]
      for (const headers of guesses) assert.strictEqual(yield* chat(headers), 401, JSON.stringify(headers))
      for (const guess of [token.slice(0, -1), `${token}x`, "sluice_", "x".repeat(10_000), provider.url]) {
        assert.strictEqual(yield* chat({ "x-api-key": guess }), 401)
      }
      assert.strictEqual(yield* status("/metrics", {}), 401)
      assert.strictEqual(yield* status("/sluice/calls/call_x", {}), 401)

      // Web pages: a name that points here, a form, a request that asks first.
      for (
        const host of ["attacker.example", "localhost.attacker.example", "127.0.0.1.attacker.example:80", "x@localhost"]
      ) {
        assert.strictEqual(yield* chat({ ...bearer, host }), 403, host)
      }
      assert.strictEqual(yield* chat({ ...bearer, "content-type": "text/plain" }), 415)
      assert.strictEqual(yield* chat({ ...bearer, "content-type": "multipart/form-data" }), 415)
      assert.strictEqual(yield* chat(bearer, "OPTIONS"), 405)
      const { headers } = yield* send(gateway, "/health", { headers: { origin: "http://attacker.example" } })
      assert.deepStrictEqual(Object.keys(headers).filter((name) => name.startsWith("access-control")), [])

      // Paths.
      const paths = [
        "/v1/../metrics",
        "/v1/%2e%2e/x",
        "/v1/..%2fx",
        "/v1//x",
        "/v1/%zz",
        "/v1/x%00",
        "/v1/..\\x",
        "/sluice/../x"
      ]
      for (const path of paths) {
        assert.strictEqual(yield* status(path, { headers: bearer }), 400, path)
      }
      for (const path of ["/", "/sluice/x", "/sluice/calls/", "/etc/passwd", "/v2/x"]) {
        assert.strictEqual(yield* status(path, { headers: bearer }), 404, path)
      }
      assert.strictEqual((yield* provider.journal).length, 0)

      for (const host of ["localhost:1", "[::1]:80", "gateway.example", "10.0.0.7"]) {
        assert.strictEqual(yield* chat({ "api-key": token, host }), 200, host)
      }
    }))

  it.live("requests of two readings are refused, and too large ones end early", () =>
    Effect.gen(function*() {
      const { gateway, provider } = yield* open()
      const head =
        `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${gateway.token}\r\n` +
        "Content-Type: application/json\r\n"
      const smuggled = `GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${gateway.token}\r\n\r\n`
      const heads = [
        `Content-Length: ${body.length}\r\nTransfer-Encoding: chunked\r\n`,
        `Content-Length: ${body.length}\r\nContent-Length: 0\r\n`,
        "Content-Length: 5, 6\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: 0\r\n x: y\r\n",
        `X: ${"x".repeat(20_000)}\r\n`
      ]
      for (const more of heads) {
        const answer = yield* sendRaw(gateway, `${head}${more}\r\n${body}${smuggled}`)
        assert.match(answer, /^HTTP\/1\.1 4(?:00|31) /, more)
        assert.notInclude(answer, "sluice_gateway", more)
      }
      const large = yield* sendRaw(gateway, `${head}Content-Length: 40000000\r\n\r\n`)
      assert.match(large, /^HTTP\/1\.1 413 /)
      const upgrade = yield* sendRaw(
        gateway,
        "GET /v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
      )
      assert.match(upgrade, /^HTTP\/1\.1 426 /)
      assert.strictEqual((yield* provider.journal).length, 0)
      assert.strictEqual((yield* ask(gateway, gateway.token)).status, 200)
    }))

  it.live("no key and no prompt is in a log, a metric, an error, a decision log or another provider's request", () =>
    Effect.gen(function*() {
      const canary = "canary-7f3a9c41d2"
      const key = `sk-${canary}-key`
      const { gateway } = yield* open({
        apiKey: Redacted.make(key),
        turns: [Turn.status(401, { body: `bad key ${key} for ${canary}-prompt` }), Turn.cut(), Turn.answer("Good")]
      })
      const bearer = { authorization: `Bearer ${gateway.token}` }
      const messages = [{ role: "user", content: `${canary}-prompt` }]
      const answers = [
        yield* ask(gateway, gateway.token, { messages }),
        yield* ask(gateway, gateway.token, { messages, stream: true }),
        yield* ask(gateway, `${canary}-token`, { messages }),
        yield* send(gateway, `/v1/chat/completions?key=${canary}`, {
          headers: { ...json, ...bearer },
          body: `{"${canary}`
        }),
        yield* send(gateway, `/v1/${canary}/../x`, { headers: bearer })
      ]
      const calls = answers.flatMap(({ headers }) => headers["x-sluice-call"] ?? [])
      for (const call of calls) answers.push(yield* send(gateway, `/sluice/calls/${String(call)}`, { headers: bearer }))
      answers.push(yield* send(gateway, "/metrics", { headers: bearer }))
      for (const { headers, text } of answers) {
        assert.notInclude(JSON.stringify(headers), canary)
        assert.notInclude(text.replaceAll(`Loopback echo: ${canary}-prompt`, ""), canary)
      }
      gateway.command.process.kill("SIGTERM")
      const { stderr, stdout } = yield* Effect.promise(() => gateway.command.ended)
      assert.notInclude(stderr, canary)
      assert.notInclude(stderr, gateway.token)
      assert.notInclude(stdout, canary)
    }))
})
