import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { folder } from "../support/files.ts"
import { type Gateway, send, sendRaw, start } from "../support/gateway.ts"
import { begin, finish, streamingProvider, word } from "../support/streamingProvider.ts"
import { processTimeout } from "../support/timeouts.ts"
import { within } from "../support/witness.ts"

/** A server that must not be called. Counts the connections to it. */
const trap = Effect.acquireRelease(
  Effect.callback<{ readonly port: number; readonly calls: () => number; readonly close: () => void }>((resume) => {
    let calls = 0
    const server = createServer((_, response) => response.end("{}"))
    server.on("connection", () => calls++)
    server.listen(0, "127.0.0.1", () => {
      // It listens on a port, so its address is no path.
      const { port } = server.address() as AddressInfo
      const close = () => {
        server.closeAllConnections()
        server.close()
      }
      resume(Effect.succeed({ port, calls: () => calls, close }))
    })
  }),
  ({ close }) => Effect.sync(close)
)

const answer = JSON.stringify({
  id: "1",
  model: "m",
  choices: [{ index: 0, message: { role: "assistant", content: "fine" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 1, completion_tokens: 1 }
})

const message = JSON.stringify({
  id: "1",
  type: "message",
  role: "assistant",
  model: "m",
  content: [{ type: "text", text: "fine" }],
  stop_reason: "end_turn",
  usage: { input_tokens: 1, output_tokens: 1 }
})

const response = JSON.stringify({ id: "1", object: "response", status: "completed", model: "m", output: [] })

const embeddings = JSON.stringify({
  object: "list",
  model: "m",
  data: [{ object: "embedding", index: 0, embedding: [0.5] }],
  usage: { prompt_tokens: 1, total_tokens: 1 }
})

const answers = [["messages", message], ["responses", response], ["embeddings", embeddings]] as const

/** A provider with both APIs. */
const provider = streamingProvider((received) => {
  const { request: { url = "" }, response: answered, body } = received
  if (body.includes(`"stream":true`)) {
    begin(received)
    return void answered.end(word("fine") + finish)
  }
  answered.writeHead(200, { "content-type": "application/json" })
  answered.end(answers.find(([path]) => url.includes(path))?.[1] ?? answer)
})

const post = (gateway: Gateway, path: string, body: unknown, headers: { readonly [name: string]: string } = {}) =>
  within(
    "an answer",
    send(gateway, path, {
      headers: { authorization: `Bearer ${gateway.token}`, "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body)
    }),
    "20 seconds"
  )

describe("what sluice serve connects to", { timeout: processTimeout }, () => {
  it.live("names of models, URLs in requests and headers of clients lead to no other server and no other path", () =>
    Effect.gen(function*() {
      const { calls, port } = yield* trap
      const own = yield* provider
      const gateway = yield* start(yield* folder, ["--target", `a=${own.url}`])
      const at = `127.0.0.1:${port}`
      const models = [
        `http://${at}/`,
        `http://${at}/v1#m`,
        `//${at}/`,
        `@${at}`,
        "http://169.254.169.254/latest/meta-data/",
        "../../admin",
        "..%2f..%2fadmin",
        "../../../etc/passwd",
        "file:///etc/passwd",
        `m\r\nHost: ${at}\r\n\r\nGET / HTTP/1.1`,
        "m?key=x#y",
        "\u0000",
        "__proto__",
        "constructor"
      ]
      const messages = [{ role: "user", content: "Hello" }]
      for (const model of models) {
        for (const stream of [false, true]) yield* post(gateway, "/v1/chat/completions", { model, messages, stream })
        yield* post(gateway, "/v1/responses", { model, input: "Hello" })
        yield* post(gateway, "/v1/embeddings", { model, input: "Hello" })
        yield* post(gateway, `/v1/models/${encodeURIComponent(model)}`, { model })
        yield* post(gateway, `/openai/deployments/${encodeURIComponent(model)}/chat/completions`, { messages })
        yield* post(gateway, "/v1/batches", { model, input_file_id: model, endpoint: model })
      }

      const url = `http://${at}/image.png`
      const content = [
        { type: "text", text: url },
        { type: "image_url", image_url: { url } },
        { type: "file", file: { file_data: url, filename: url } },
        { type: "input_audio", input_audio: { data: url, format: "wav" } }
      ]
      for (const stream of [false, true]) {
        yield* post(gateway, "/v1/chat/completions", { model: "m", stream, messages: [{ role: "user", content }] })
      }
      yield* post(gateway, "/v1/responses", {
        model: "m",
        input: [{
          role: "user",
          content: [{ type: "input_image", image_url: url }, { type: "input_file", file_url: url }]
        }],
        tools: [{ type: "mcp", server_label: "x", server_url: url }],
        webhook: url
      })
      yield* post(gateway, "/v1/files", { url, file: `@${url}` })
      const headers = {
        forwarded: `host=${at}`,
        "x-forwarded-host": at,
        "x-forwarded-for": at,
        "x-original-url": `http://${at}/`,
        "x-rewrite-url": `http://${at}/`,
        "x-http-method-override": "DELETE",
        "x-sluice-target": `http://${at}/`,
        "x-portkey-custom-host": `http://${at}/`,
        "proxy-connection": "keep-alive"
      }
      yield* post(gateway, "/v1/chat/completions", { model: "m", messages, api_base: url, base_url: url }, headers)
      for (const target of [`http://${at}/v1/models`, `//${at}/v1/models`, `/v1/@${at}/x`, `/v1/http://${at}/x`]) {
        yield* within(
          "an answer",
          sendRaw(
            gateway,
            `GET ${target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer ${gateway.token}\r\n\r\n`
          ),
          "20 seconds"
        )
      }

      assert.strictEqual(calls(), 0)
      assert.isAbove(own.received.length, models.length * 3)
      const known = /^\/v1\/(?:chat\/completions|responses|embeddings|batches|files|models\/[^/?]+|@[\d.:]+\/x)$/
      for (const { request } of own.received) {
        assert.match(request.url ?? "", known)
        assert.strictEqual(`http://${request.headers.host}/v1`, own.url)
        for (const name of ["forwarded", "x-forwarded-host", "x-forwarded-for", "x-sluice-target", "authorization"]) {
          assert.isUndefined(request.headers[name], name)
        }
      }
    }))

  it.live("a URL of an image is passed on and not fetched when a request is translated", () =>
    Effect.gen(function*() {
      const { calls, port } = yield* trap
      const own = yield* provider
      const gateway = yield* start(yield* folder, ["--target", `a=anthropic:${own.url.replace("/v1", "")}#m`])
      const url = `http://127.0.0.1:${port}/image.png`
      const answers = []
      for (const image of [url, url.replace("http:", "https:"), "file:///etc/passwd", "data:text/html,<b>"]) {
        const content = [{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url: image } }]
        answers.push(
          yield* post(gateway, "/v1/chat/completions", {
            model: "m",
            max_tokens: 9,
            messages: [{ role: "user", content }]
          })
        )
      }
      assert.strictEqual(calls(), 0)
      assert.isTrue(answers.every(({ status }) => status === 200 || status === 400))
      assert.isAbove(own.received.length, 0)
      assert.isTrue(own.received.every(({ body }) => !body.includes("passwd")))
    }))

  it.live("a redirect of a provider is not followed, and the key does not go there", () =>
    Effect.gen(function*() {
      const { calls, port } = yield* trap
      let status = 301
      const moved = yield* streamingProvider(({ response }) => {
        response.writeHead(status, { location: `http://127.0.0.1:${port}/v1/chat/completions` })
        response.end()
      })
      const flags = ["--target", `a=${moved.url}`, "--max-attempts", "1"]
      const gateway = yield* start(yield* folder, flags, { SLUICE_KEY_A: "sk-canary-key" })
      for (status of [301, 302, 303, 307, 308]) {
        const asked = { model: "m", messages: [] }
        const { headers, status: got, text } = yield* post(gateway, "/v1/chat/completions", asked)
        assert.isAtLeast(got, 500)
        assert.notInclude(text + JSON.stringify(headers), "canary")
        yield* post(gateway, "/v1/files", "{}")
      }
      assert.isAbove(moved.received.length, 5)
      assert.strictEqual(calls(), 0)
    }))

  it.live("a file is passed on byte by byte, without the token of the client", () =>
    Effect.gen(function*() {
      const own = yield* provider
      const gateway = yield* start(yield* folder, ["--target", `a=${own.url}`])
      const bytes = Buffer.from(Array.from({ length: 4_096 }, (_, n) => n % 256)).toString("latin1")
      const body =
        `--x\r\nContent-Disposition: form-data; name="file"; filename="../../../etc/cron.d/x"\r\n\r\n${bytes}\r\n--x--\r\n`
      const sent = Buffer.from(body, "latin1")
      const answer = yield* within(
        "an answer",
        sendRaw(
          gateway,
          Buffer.concat([
            Buffer.from(
              `POST /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer ${gateway.token}\r\n` +
                `Content-Type: multipart/form-data; boundary=x\r\nContent-Length: ${sent.length}\r\n\r\n`
            ),
            sent
          ])
        ),
        "20 seconds"
      )
      assert.match(answer, /^HTTP\/1\.1 200 /)
      const [file] = own.received
      assert.strictEqual(file?.body, body)
      assert.notInclude(JSON.stringify(file?.request.headers), gateway.token)
      assert.strictEqual(file?.request.headers["content-type"], "multipart/form-data; boundary=x")
    }))
})
