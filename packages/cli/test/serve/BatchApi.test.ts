import { assert } from "@effect/vitest"
import { Batches } from "@sluice/batch/Batches"
import { Effect, Stream } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import { request } from "node:http"
import { describeWithBoth } from "../../../sql/test/support/databases.ts"
import { Scripted } from "../../../batch/test/support/machine.ts"
import * as Lines from "../../src/openai/Line.ts"
import * as Upload from "../../src/serve/Upload.ts"
import { clientOf, line, upload } from "../support/batches.ts"
import { batchesWith, newTokens, serveBatches, serveBatchesWith } from "../support/batchServer.ts"
import { send } from "../support/gateway.ts"

/** A worker whose answers are those of a provider. */
const answering = () => {
  const scripted = new Scripted()
  scripted.answer = () =>
    Effect.succeed({
      kind: "ok",
      body: Lines.encodeResponse({ status: 200, requestId: "r", body: "{}" }),
      inputTokens: 1,
      outputTokens: 1,
      micros: 0
    })
  return scripted
}

type Server = { readonly port: number; readonly url: string }

const json = "application/json"

/** Sends a request as a client of Python does: with the headers and body that a test says, and no retries. */
const call = (
  { port }: Server,
  method: string,
  path: string,
  token: string,
  body?: unknown,
  headers: { readonly [name: string]: string } = {}
) =>
  Effect.map(
    send({ port }, path, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { "content-type": json }),
        ...headers
      },
      ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) })
    }),
    ({ status, text }) => ({ status, body: JSON.parse(text) })
  )

const create = (file: string, fields: object = {}) => ({
  input_file_id: file,
  endpoint: "/v1/chat/completions",
  completion_window: "24h",
  ...fields
})

const uploadAs = ({ url }: Server, token: string, lines: ReadonlyArray<string> = [line(1)]) =>
  upload(clientOf({ url, token }), lines)

const [nul, half] = ["a\0b", "a\ud800b"]

/** Creates that are refused: what is other than in a right one, the status and the field that is named. */
const creates: ReadonlyArray<readonly [object, number, string | null]> = [
  [{ input_file_id: nul }, 404, "input_file_id"],
  [{ input_file_id: half }, 404, "input_file_id"],
  [{ input_file_id: "" }, 404, "input_file_id"],
  [{ input_file_id: "x".repeat(100_000) }, 404, "input_file_id"],
  [{ input_file_id: 7 }, 400, "input_file_id"],
  [{ input_file_id: undefined }, 400, "input_file_id"],
  [{ endpoint: nul }, 400, "endpoint"],
  [{ endpoint: "/v1/images/generations" }, 400, "endpoint"],
  [{ endpoint: undefined }, 400, "endpoint"],
  [{ completion_window: "7d" }, 400, "completion_window"],
  [{ completion_window: "24H" }, 400, "completion_window"],
  [{ completion_window: 24 }, 400, "completion_window"],
  [{ completion_window: undefined }, 400, "completion_window"],
  [{ metadata: { a: nul } }, 400, "metadata"],
  [{ metadata: { a: half } }, 400, "metadata"],
  [{ metadata: { [nul]: "a" } }, 400, "metadata"],
  [{ metadata: { description: nul } }, 400, "metadata"],
  [{ metadata: { a: 1 } }, 400, "metadata"],
  [{ metadata: "a" }, 400, "metadata"],
  [{ metadata: { ["x".repeat(65)]: "a" } }, 400, "metadata"],
  [{ metadata: { a: "x".repeat(513) } }, 400, "metadata"],
  [{ metadata: Object.fromEntries(Array.from({ length: 17 }, (_, n) => [`k${n}`, "v"])) }, 400, "metadata"]
]

/** Queries that are refused, with the field that is named. */
const queries: ReadonlyArray<readonly [string, number, string]> = [
  ...["batches", "files"].flatMap((kind) =>
    ["-1", "0", "1e9", "NaN", "1.5", "", "%00", "99999999999999999999"].map((limit) =>
      [`${kind}?limit=${limit}`, 400, "limit"] as const
    )
  ),
  ["batches?limit=101", 400, "limit"],
  ["files?limit=10001", 400, "limit"],
  ...["batches", "files"].flatMap((kind) =>
    ["%00", "%ED%A0%80", "batch_none", "", "'%20or%201=1"].map((after) =>
      [`${kind}?after=${after}`, 404, "after"] as const
    )
  ),
  ["files?order=up", 400, "order"],
  ["files?order=%00", 400, "order"]
]

await describeWithBoth("the API of batches", (it) => {
  it.effect("a request with unusable texts or numbers is refused with the name of its field", () =>
    Effect.gen(function*() {
      const server = yield* serveBatches
      const tokens = newTokens()
      const file = yield* uploadAs(server, tokens.ann)
      for (const [fields, status, param] of creates) {
        const answer = yield* call(server, "POST", "/v1/batches", tokens.ann, create(file.id, fields))
        assert.deepStrictEqual([answer.status, answer.body.error.param], [status, param], JSON.stringify(fields))
      }
      for (const [path, status, param] of queries) {
        const answer = yield* call(server, "GET", `/v1/${path}`, tokens.ann)
        assert.deepStrictEqual([answer.status, answer.body.error?.param], [status, param], path)
      }
      for (const body of ["", "{", "[]", "null", `"${"x".repeat(10)}"`, "[".repeat(100_000)]) {
        const answer = yield* call(server, "POST", "/v1/batches", tokens.ann, body)
        assert.deepStrictEqual([answer.status, answer.body.error.code], [400, "invalid_body"], body.slice(0, 10))
      }
      const large = yield* call(server, "POST", "/v1/batches", tokens.ann, JSON.stringify({ a: "x".repeat(2 ** 21) }))
      assert.strictEqual(large.status, 413)
      for (
        const path of ["files/%00", "files/%00/content", "batches/%00", "batches/a%ED%A0%80", "files/file-output-%00"]
      ) {
        assert.strictEqual((yield* call(server, "GET", `/v1/${path}`, tokens.ann)).status, 404, path)
      }
      assert.strictEqual((yield* call(server, "POST", "/v1/batches/%00/cancel", tokens.ann, {})).status, 404)
      assert.strictEqual((yield* call(server, "DELETE", "/v1/files/%00", tokens.ann)).status, 404)
      assert.deepStrictEqual((yield* call(server, "GET", "/v1/batches", tokens.ann)).body.data, [])
    }).pipe(Effect.provide(batchesWith(answering()))))

  it.effect("a file with unusable texts is kept as far as the database can, and its problems name the lines", () =>
    Effect.gen(function*() {
      const server = yield* serveBatches
      const tokens = newTokens()
      const lines = [
        JSON.stringify({ custom_id: nul, method: "POST", url: "/v1/chat/completions", body: {} }),
        JSON.stringify({ custom_id: half, method: "POST", url: "/v1/chat/completions", body: {} }),
        JSON.stringify({ custom_id: "c", method: "POST", url: `/v1/${nul}`, body: {} }),
        JSON.stringify({ custom_id: "d", method: "POST", url: `/v1/${half}`, body: {} }),
        JSON.stringify({ custom_id: "e", method: nul, url: "/v1/chat/completions", body: {} }),
        `{"custom_id": "f\0"}`,
        JSON.stringify({ custom_id: "g", method: "POST", url: "/v1/chat/completions", body: { [nul]: half } })
      ]
      const file = yield* uploadAs(server, tokens.ann, lines)
      const { body, status } = yield* call(server, "POST", "/v1/batches", tokens.ann, create(file.id))
      assert.strictEqual(status, 200)
      assert.deepInclude(body, { status: "failed" })
      const named = body.errors.data.map(({ code, line, param }: { [field: string]: unknown }) => [line, code, param])
      assert.deepStrictEqual(named, [
        [1, "invalid_custom_id", "custom_id"],
        [2, "invalid_custom_id", "custom_id"],
        [3, "invalid_url", "url"],
        [4, "invalid_url", "url"],
        [5, "invalid_method", "method"],
        [6, "invalid_json_line", null]
      ])
      const content = yield* send(server, `/v1/files/${file.id}/content`, {
        headers: { authorization: `Bearer ${tokens.ann}` }
      })
      assert.strictEqual(content.text, `${lines.join("\n").replace("f\0", "f\ufffd")}\n`)
    }).pipe(Effect.provide(batchesWith(answering()))))

  it.effect("names of files with any character do not refuse the file", () =>
    Effect.gen(function*() {
      const server = yield* serveBatches
      const tokens = newTokens()
      const post = (name: string) =>
        send(server, "/v1/files", {
          headers: { authorization: `Bearer ${tokens.ann}`, "content-type": "multipart/form-data; boundary=x" },
          body: `--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n` +
            `--x\r\ncontent-disposition: form-data; name="file"; ${name}\r\n\r\n${line(1)}\r\n--x--\r\n`
        })
      const names = [
        [`filename="%00"`, "%00"],
        [`filename*=UTF-8''a%00b`, "a\ufffdb"],
        [`filename="../ü\u{1f600}"`, "../ü\u{1f600}"]
      ] as const
      for (const [given, kept] of names) {
        const { status, text } = yield* post(given)
        assert.deepStrictEqual([status, JSON.parse(text).filename], [200, kept], given)
      }
      // No header has a NUL.
      assert.strictEqual((yield* post(`filename="a\0b"`)).status, 400)
      assert.strictEqual((yield* post(`filename="${"x".repeat(1_000)}"`)).status, 200)
    }).pipe(Effect.provide(batchesWith(answering()))))

  it.effect("an upload whose client leaves in the middle leaves nothing", () =>
    Effect.gen(function*() {
      const { port } = yield* serveBatches
      const { ann } = newTokens()
      const sql = yield* SqlClient
      const files = Effect.map(
        sql`select lines from sluice_batch_file where owner = ${ann}`,
        (rows) => rows.map(({ lines }) => Number(lines))
      )
      const sent = request({
        port,
        host: "127.0.0.1",
        method: "POST",
        path: "/v1/files",
        headers: { authorization: `Bearer ${ann}`, "content-type": "multipart/form-data; boundary=x" }
      })
      sent.on("error", () => {})
      sent.write(`--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n`)
      sent.write(`--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n${line(1)}\n`)
      while ((yield* files).length === 0) yield* Effect.sleep(20)
      assert.deepStrictEqual(yield* files, [-1])
      sent.destroy()
      while ((yield* files).length > 0) yield* Effect.sleep(20)
    }).pipe(Effect.provide(batchesWith(answering()))))

  it.effect("a create that the client repeats makes no second batch, also after a restart and at another gateway", () =>
    Effect.gen(function*() {
      const first = yield* serveBatches
      const tokens = newTokens()
      const file = yield* uploadAs(first, tokens.ann)
      const post = (server: Server, retry: number, fields: object = {}, token = tokens.ann) =>
        Effect.map(
          call(server, "POST", "/v1/batches", token, create(file.id, fields), {
            "x-stainless-retry-count": `${retry}`
          }),
          ({ body }): string => body.id
        )
      const metadata = { b: "2", a: "1" }
      const id = yield* post(first, 0, { metadata })
      assert.strictEqual(yield* post(first, 1, { metadata: { a: "1", b: "2" } }), id)
      // The same database, as after a restart.
      const second = yield* serveBatches.pipe(Effect.provide(batchesWith(answering())))
      assert.strictEqual(yield* post(second, 2, { metadata }), id)
      const others = [
        yield* post(second, 0, { metadata }),
        yield* post(second, 1, { metadata: { a: "1" } }),
        yield* post(second, 1, { metadata }, tokens.boss)
      ]
      assert.strictEqual(new Set([id, ...others]).size, 4)
      assert.strictEqual(
        (yield* call(first, "GET", "/v1/batches", tokens.ann)).body.data.length,
        3
      )
      const sql = yield* SqlClient
      yield* sql`update sluice_batch set created_at = created_at - 600001`
      assert.notInclude([id, ...others], yield* post(first, 1, { metadata }))
    }).pipe(Effect.provide(batchesWith(answering()))))

  it.effect("a create and its repetitions make one batch, in whatever order they arrive", () =>
    Effect.gen(function*() {
      const servers = [yield* serveBatches, yield* serveBatches.pipe(Effect.provide(batchesWith(answering())))] as const
      const tokens = newTokens()
      for (const retries of [[1, 0], [2, 1, 0, 3]]) {
        const file = yield* uploadAs(servers[0], tokens.ann)
        const post = (retry: number) =>
          Effect.map(
            call(servers[retry % 2] ?? servers[0], "POST", "/v1/batches", tokens.ann, create(file.id), {
              "x-stainless-retry-count": `${retry}`
            }),
            ({ body }): string => body.id
          )
        const ids = yield* Effect.forEach(retries, post)
        // Another create of the client, and its repetition.
        ids.push(yield* post(0), yield* post(1))
        const [one, other] = [ids[0], ids.at(-1)]
        assert.notStrictEqual(one, other)
        assert.deepStrictEqual(ids, [...retries.map(() => one), other, other])
        const atOnce = yield* uploadAs(servers[0], tokens.ann)
        const many = yield* Effect.forEach(
          [3, 0, 1, 2, 5, 4],
          (retry) =>
            call(servers[retry % 2] ?? servers[0], "POST", "/v1/batches", tokens.ann, create(atOnce.id), {
              "x-stainless-retry-count": `${retry}`
            }),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(new Set(many.map(({ body }) => body.id)).size, 1)
      }
      const { body } = yield* call(servers[0], "GET", "/v1/batches", tokens.ann)
      assert.strictEqual(body.data.length, 6)
    }).pipe(Effect.provide(batchesWith(answering()))))

  it.effect("creates with one Idempotency-Key make one batch, and the key of another request is refused", () =>
    Effect.gen(function*() {
      const server = yield* serveBatches
      const tokens = newTokens()
      const file = yield* uploadAs(server, tokens.ann)
      const post = (key: string, body: object = create(file.id), token = tokens.ann) =>
        call(server, "POST", "/v1/batches", token, body, { "idempotency-key": key })
      const many = yield* Effect.forEach([1, 2, 3, 4], () => post("a"), { concurrency: "unbounded" })
      assert.deepStrictEqual(many.map(({ status }) => status), [200, 200, 200, 200])
      const ids = new Set(many.map(({ body }) => body.id))
      assert.strictEqual(ids.size, 1)
      assert.isFalse(ids.has((yield* post("b")).body.id))
      assert.isFalse(ids.has((yield* post("a", create(file.id), tokens.boss)).body.id))
      const reused = yield* post("a", create(file.id, { metadata: { a: "1" } }))
      assert.deepStrictEqual([reused.status, reused.body.error.code], [422, "idempotency_key_reused"])
      assert.strictEqual((yield* post("x".repeat(256))).body.error.code, "invalid_idempotency_key")
    }).pipe(Effect.provide(batchesWith(answering()))))

  it.effect("a repeated create continues a batch whose gateway was killed before it started", () =>
    Effect.gen(function*() {
      const server = yield* serveBatches
      const tokens = newTokens()
      const file = yield* uploadAs(server, tokens.ann)
      const { body: { id } } = yield* call(server, "POST", "/v1/batches", tokens.ann, create(file.id))
      const sql = yield* SqlClient
      yield* sql`update sluice_batch set state = 'validating', total = 0, started_at = null, ended_at = null where id = ${id}`
      const { body } = yield* call(server, "POST", "/v1/batches", tokens.ann, create(file.id), {
        "x-stainless-retry-count": "1"
      })
      assert.strictEqual(body.id, id)
      assert.include(["in_progress", "completed"], body.status)
    }).pipe(Effect.provide(batchesWith(answering()))))

  it.effect("an upload expires when its client says, and a batch of it goes on", () =>
    Effect.gen(function*() {
      const { port, url } = yield* serveBatches
      const token = newTokens().ann
      const client = clientOf({ url, token })
      const uploadWith = (anchor: string, seconds: number) =>
        client.files.create({
          file: new File([line(1)], "in.jsonl"),
          purpose: "batch",
          // A client without types can send another anchor.
          expires_after: { anchor: anchor as "created_at", seconds }
        })
      const before = (yield* call({ port, url }, "GET", "/v1/files", token)).body.data
      for (const [anchor, seconds] of [["created_at", 3_599], ["created_at", 2_592_001], ["now", 3_600]] as const) {
        const error = yield* Effect.promise(() =>
          uploadWith(anchor, seconds).then(() => assert.fail("accepted"), (error: object) => error)
        )
        assert.deepInclude(error, { status: 400, code: "invalid_expires_after", param: "expires_after" })
      }
      assert.deepStrictEqual((yield* call({ port, url }, "GET", "/v1/files", token)).body.data, before)
      const file = yield* Effect.promise(() => uploadWith("created_at", 3_600))
      assert.strictEqual(Number(file.expires_at) - file.created_at, 3_600)
      const { body: batch } = yield* call({ port, url }, "POST", "/v1/batches", token, create(file.id))
      const sql = yield* SqlClient
      yield* sql`update sluice_batch_file set expires_at = 1 where id = ${file.id}`
      assert.strictEqual((yield* call({ port, url }, "GET", `/v1/files/${file.id}`, token)).status, 404)
      const late = yield* call({ port, url }, "POST", "/v1/batches", token, create(file.id))
      assert.deepStrictEqual([late.status, late.body.error.param], [404, "input_file_id"])
      const batches = yield* Batches
      const results = yield* Stream.runCollect(batches.results(batch.id, { follow: true }))
      assert.deepStrictEqual(results.map(({ key, kind }) => [key, kind]), [["c1", "ok"]])
    }).pipe(Effect.provide(batchesWith(answering()))))

  it.effect("a key whose files have reached the bound can upload again after it deleted one", () =>
    Effect.gen(function*() {
      const content = line(1)
      const size = Buffer.byteLength(content) + 1
      const server = yield* serveBatchesWith({ ...Upload.usual, kept: 2 * size })
      const { ann, bob } = newTokens()
      const client = clientOf({ url: server.url, token: ann })
      const { id } = yield* uploadAs(server, ann, [content])
      const refused = (lines: ReadonlyArray<string>) =>
        Effect.promise(() =>
          client.files.create({ file: new File([lines.join("\n")], "in.jsonl"), purpose: "batch" })
            .then(() => assert.fail("accepted"), (error: object) => error)
        )
      const full = { status: 413, code: "file_storage_full", param: "file" }
      assert.deepInclude(yield* refused([content, line(2)]), full)
      yield* uploadAs(server, ann, [content])
      assert.deepInclude(yield* refused([content]), full)
      yield* uploadAs(server, bob, [content])
      yield* Effect.promise(() => client.files.delete(id))
      yield* uploadAs(server, ann, [content])
      assert.strictEqual((yield* call(server, "GET", "/v1/files", ann)).body.data.length, 2)
    }).pipe(Effect.provide(batchesWith(answering()))))

  it.effect("pages of files and batches continue after an id, in both orders", () =>
    Effect.gen(function*() {
      const server = yield* serveBatches
      const tokens = newTokens()
      const client = clientOf({ url: server.url, token: tokens.ann })
      const files: Array<string> = []
      for (let n = 0; n < 5; n++) files.push((yield* uploadAs(server, tokens.ann)).id)
      yield* uploadAs(server, tokens.bob)
      const batches: Array<string> = []
      for (const file of files) {
        batches.push((yield* call(server, "POST", "/v1/batches", tokens.ann, create(file))).body.id)
      }
      const all = (page: AsyncIterable<{ readonly id: string }>) =>
        Effect.promise(async () => {
          const ids: Array<string> = []
          for await (const { id } of page) ids.push(id)
          return ids
        })
      assert.deepStrictEqual(yield* all(client.files.list({ limit: 2, order: "asc", purpose: "batch" })), files)
      assert.deepStrictEqual(yield* all(client.files.list({ limit: 2, purpose: "batch" })), files.toReversed())
      assert.deepStrictEqual(yield* all(client.batches.list({ limit: 2 })), batches.toReversed())
      const { body } = yield* call(server, "GET", "/v1/files?limit=2&purpose=batch", tokens.ann)
      assert.deepInclude(body, { object: "list", has_more: true, first_id: files[4], last_id: files[3] })
      const last = yield* call(server, "GET", "/v1/files?limit=5&order=asc&purpose=batch", tokens.ann)
      assert.deepInclude(last.body, { has_more: false, first_id: files[0], last_id: files[4] })
      assert.deepStrictEqual((yield* call(server, "GET", "/v1/files?purpose=fine-tune", tokens.ann)).body.data, [])
      const ofBob = yield* call(server, "GET", `/v1/files?after=${files[0]}`, tokens.bob)
      assert.deepStrictEqual([ofBob.status, ofBob.body.error.param], [404, "after"])
    }).pipe(Effect.provide(batchesWith(answering()))))

  it.effect("files and batches belong to a key, and not to a later key of the same name", () =>
    Effect.gen(function*() {
      const server = yield* serveBatches
      const tokens = newTokens()
      const file = yield* uploadAs(server, tokens.ann)
      const { body: batch } = yield* call(server, "POST", "/v1/batches", tokens.ann, create(file.id))
      const paths = [
        ["GET", `/v1/files/${file.id}`],
        ["GET", `/v1/files/${file.id}/content`],
        ["DELETE", `/v1/files/${file.id}`],
        ["GET", `/v1/batches/${batch.id}`],
        ["POST", `/v1/batches/${batch.id}/cancel`],
        ["GET", `/v1/files/file-output-${batch.id}`],
        ["GET", `/v1/files/file-output-${batch.id}/content`],
        ["DELETE", `/v1/files/file-output-${batch.id}`]
      ] as const
      for (const token of [tokens.annAgain, tokens.bob]) {
        for (const [method, path] of paths) {
          const body = method === "POST" ? {} : undefined
          assert.strictEqual((yield* call(server, method, path, token, body)).status, 404, path)
        }
        assert.deepStrictEqual((yield* call(server, "GET", "/v1/files", token)).body.data, [])
        assert.deepStrictEqual((yield* call(server, "GET", "/v1/batches", token)).body.data, [])
        const used = yield* call(server, "POST", "/v1/batches", token, create(file.id))
        assert.deepStrictEqual([used.status, used.body.error.param], [404, "input_file_id"])
      }
      for (const token of [tokens.ann, tokens.boss]) {
        const listed = yield* call(server, "GET", "/v1/batches", token)
        assert.include(listed.body.data.map(({ id }: { id: string }) => id), batch.id)
      }
    }).pipe(Effect.provide(batchesWith(answering()))))
})
