import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import OpenAI, { toFile } from "openai"
import { folder } from "../support/files.ts"
import { addKey, ask, type Gateway, logsOf, send, snapshot, start } from "../support/gateway.ts"
import { chatAnswer } from "../support/httpServer.ts"
import { processTimeout } from "../support/timeouts.ts"

/** A provider whose answers are written by the test. It keeps the prompts in the order of their arrival. */
const provider = (answer: (prompt: string, response: ServerResponse) => void) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly url: string; readonly prompts: Array<string>; readonly close: () => void }>((resume) => {
      const prompts: Array<string> = []
      const server = createServer((request, response) => {
        const chunks: Array<Buffer> = []
        request.on("data", (data: Buffer) => chunks.push(data))
        request.on("end", () => {
          const prompt = String(JSON.parse(Buffer.concat(chunks).toString()).messages[0].content)
          prompts.push(prompt)
          answer(prompt, response)
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo
        const close = () => {
          server.closeAllConnections()
          server.close()
        }
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}/v1`, prompts, close }))
      })
    }),
    ({ close }) => Effect.sync(close)
  )

const reply = (response: ServerResponse, body: string = JSON.stringify(usual), status = 200, headers = {}) => {
  response.writeHead(status, { "content-type": "application/json", ...headers })
  response.end(body)
}

const usual = { ...chatAnswer, usage: { prompt_tokens: 3, completion_tokens: 4 } }

const line = (id: string, content = `Say ${id}`) =>
  JSON.stringify({
    custom_id: id,
    method: "POST",
    url: "/v1/chat/completions",
    body: { model: "m", messages: [{ role: "user", content }] }
  })

const clientOf = ({ token, url }: Gateway, apiKey = token) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 })

const submit = (client: OpenAI, content: string | Uint8Array) =>
  Effect.promise(async () => {
    const file = await client.files.create({ file: await toFile(Buffer.from(content), "in.jsonl"), purpose: "batch" })
    return client.batches.create({
      input_file_id: file.id,
      endpoint: "/v1/chat/completions",
      completion_window: "24h"
    })
  })

const ended = (client: OpenAI, id: string) =>
  Effect.promise(async () => {
    for (const deadline = Date.now() + 120_000; Date.now() < deadline;) {
      const batch = await client.batches.retrieve(id)
      if (!["validating", "in_progress", "finalizing", "cancelling"].includes(batch.status)) return batch
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    throw new Error("the batch does not end")
  })

const linesOf = (client: OpenAI, file: string | null | undefined) =>
  Effect.promise(async () =>
    file === null || file === undefined
      ? []
      : (await (await client.files.content(file)).text()).trimEnd().split("\n").map((line) => JSON.parse(line))
  )

const flags = ["--batches", "sqlite:batches.sqlite", "--max-attempts", "1", "--log-format", "json"]

describe("calls of batches", { timeout: processTimeout }, () => {
  it.live("each call is in the log, the metrics and the live page, under the name of the key of its batch", () =>
    Effect.gen(function*() {
      const { url } = yield* provider((_, response) => reply(response))
      const directory = yield* folder
      const ann = yield* addKey(directory, "ann")
      const admin = yield* addKey(directory, "root", "--admin")
      const gateway = yield* start(directory, ["--target", `a=${url}#m`, "--price", "1,1", ...flags])
      const client = clientOf(gateway, ann)
      const batch = yield* submit(client, [line("1"), line("2"), line("3")].join("\n"))
      yield* ended(client, batch.id)
      const metrics = yield* send(gateway, "/metrics", { headers: { authorization: `Bearer ${admin}` } })
      assert.match(metrics.text, /sluice_gateway_tokens_total\{[^}]*key="ann"[^}]*type="output"[^}]*\} 12/)
      assert.match(metrics.text, /sluice_gateway_cost_dollars_total\{[^}]*key="ann"[^}]*\} 0.000021/)
      const { calls = [] } = yield* snapshot({ url: gateway.url, token: admin })
      assert.deepStrictEqual(
        calls.map(({ key, status }) => [key, status]),
        Array.from({ length: 3 }, () => ["ann", "answered"])
      )
      gateway.command.process.kill("SIGTERM")
      const { stderr } = yield* Effect.promise(() => gateway.command.ended)
      const requests = logsOf(stderr).filter(({ event }) => event === "request")
      assert.deepStrictEqual(
        requests.filter(({ operation }) => operation === "chat").map(({ costDollars, key, outputTokens }) => [
          key,
          outputTokens,
          costDollars
        ]),
        Array.from({ length: 3 }, () => ["ann", 4, 0.000007])
      )
    }))

  it.live("a call of a client does not wait behind those of a batch", () =>
    Effect.gen(function*() {
      const slow = (_: string, response: ServerResponse) => void setTimeout(() => reply(response), 50)
      const main = yield* provider(slow)
      const other = yield* provider(slow)
      const targets = `--target a=${main.url}#m --target b=${other.url}#m`
      const limits = "--concurrency a=1 --concurrency b=30 --models m=a"
      const gateway = yield* start(yield* folder, [...`${targets} ${limits}`.split(" "), ...flags])
      const client = clientOf(gateway)
      const batch = yield* submit(client, Array.from({ length: 40 }, (_, n) => line(`${n}`)).join("\n"))
      while (main.prompts.length < 2) yield* Effect.sleep(10)
      const before = main.prompts.length
      yield* ask(gateway, gateway.token, { messages: [{ role: "user", content: "Interactive" }] })
      const behind = main.prompts.indexOf("Interactive") - before
      assert.isAtLeast(behind, 0)
      // Some arrive while the call is on its way, and more of them on a busy machine.
      assert.isAtMost(behind, 8)
      assert.strictEqual((yield* ended(client, batch.id)).request_counts?.completed, 40)
      gateway.command.process.kill("SIGTERM")
      const { stderr } = yield* Effect.promise(() => gateway.command.ended)
      const calls = logsOf(stderr).filter(({ operation }) => operation === "chat")
      // A request that finds no permit is no call.
      assert.deepStrictEqual([calls.length, calls.filter(({ status }) => status !== 200).length], [41, 0])
    }))
})

describe("files from other systems", { timeout: processTimeout }, () => {
  it.live("a byte order mark, CRLF, a missing last line end and odd ids and texts change no request", () =>
    Effect.gen(function*() {
      const { prompts, url } = yield* provider((_, response) => reply(response))
      const gateway = yield* start(yield* folder, ["--target", `a=${url}#m`, ...flags])
      const client = clientOf(gateway)
      const ids = ["__proto__", "constructor", "../../etc", "%2f%00", "ü\u2028\u{1f600}", "lone"]
      const lines = ids.map((id) => id === "lone" ? line(id).replace("Say lone", "a \\ud800 b \\u0000") : line(id))
      const batch = yield* submit(client, `\uFEFF${lines.join("\r\n")}`)
      const done = yield* ended(client, batch.id)
      assert.isNull(done.errors)
      assert.strictEqual(done.request_counts?.completed, ids.length)
      const output = yield* linesOf(client, done.output_file_id)
      assert.deepStrictEqual(output.map(({ custom_id }) => custom_id), ids)
      assert.sameMembers(prompts.filter((prompt) => prompt.startsWith("Say")), ids.slice(0, 5).map((id) => `Say ${id}`))
      assert.strictEqual(prompts.length, 6)
    }))

  it.live("an answer that is none is not ok, whatever its status is", () =>
    Effect.gen(function*() {
      const bodies = [
        "",
        "<html></html>",
        "{}",
        "[]",
        `"fine"`,
        `{"choices":[]}`,
        `{"choices":[{}]}`,
        `{"choices":"fine"}`,
        `{"id":"1"`,
        `{"choices":[{"message":null}]}`,
        `{"error":{"message":"no"}}`
      ]
      const { url } = yield* provider((prompt, response) => reply(response, bodies[Number(prompt.slice(4))]))
      const gateway = yield* start(yield* folder, ["--target", `a=${url}#m`, ...flags])
      const client = clientOf(gateway)
      const batch = yield* submit(client, bodies.map((_, n) => line(`${n}`)).join("\n"))
      yield* Effect.sleep(3_000)
      const { request_counts: counts } = yield* Effect.promise(() => client.batches.retrieve(batch.id))
      assert.strictEqual(counts?.completed, 0)
      yield* Effect.promise(() => client.batches.cancel(batch.id))
    }))
})

describe("uploads", { timeout: processTimeout }, () => {
  it.live("a form that is refused after its file leaves no file, and a line of 64 MB is refused without being kept", () =>
    Effect.gen(function*() {
      const { url } = yield* provider((_, response) => reply(response))
      const gateway = yield* start(yield* folder, ["--target", `a=${url}#m`, ...flags])
      const headers = { authorization: `Bearer ${gateway.token}`, "content-type": "multipart/form-data; boundary=x" }
      const part = (name: string, content: string) =>
        `--x\r\ncontent-disposition: form-data; ${name}\r\n\r\n${content}\r\n`
      const file = (content: string) => part(`name="file"; filename="a"`, content)
      const post = (body: string) => send(gateway, "/v1/files", { headers, body })
      const wrong = yield* post(`${file(line("1"))}${part(`name="purpose"`, "fine-tune")}--x--\r\n`)
      assert.deepInclude(wrong, { status: 400 })
      const cut = yield* post(`${part(`name="purpose"`, "batch")}${file(line("1"))}--x\r\nno`)
      assert.deepInclude(cut, { status: 400 })
      const listed = yield* send(gateway, "/v1/files", { headers })
      assert.deepStrictEqual(JSON.parse(listed.text).data, [])
      const long = yield* post(`${part(`name="purpose"`, "batch")}${file("x".repeat(2 ** 26))}--x--\r\n`)
      assert.isAtMost(JSON.parse(long.text).bytes, 2 ** 20 + 2)
    }))
})

describe("the end of a gateway", { timeout: processTimeout }, () => {
  it.live("does not wait for requests of batches that wait themselves, and loses none", () =>
    Effect.gen(function*() {
      let isRefused = true
      const { url } = yield* provider((_, response) =>
        isRefused ? reply(response, `{"error":{"message":"no"}}`, 401) : reply(response)
      )
      const directory = yield* folder
      const args = ["--target", `a=${url}#m`, "--drain-timeout", "60s", ...flags]
      const first = yield* start(directory, args)
      const batch = yield* submit(clientOf(first), Array.from({ length: 300 }, (_, n) => line(`${n}`)).join("\n"))
      yield* Effect.sleep(1_500)
      const before = performance.now()
      first.command.process.kill("SIGTERM")
      const { code } = yield* Effect.promise(() => first.command.ended)
      assert.strictEqual(code, 0)
      assert.isBelow(performance.now() - before, 45_000)
      isRefused = false
      const second = yield* start(directory, args)
      const done = yield* ended(clientOf(second), batch.id)
      assert.strictEqual(done.request_counts?.completed, 300)
    }))
})
