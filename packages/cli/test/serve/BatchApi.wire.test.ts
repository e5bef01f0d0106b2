/** The contract of OpenAI's Batch API: objects, states, counts and lines, as its official client reads them. */
import { AskLater } from "@sluice/batch/Asker"
import { Batches } from "@sluice/batch/Batches"
import { assert } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import type OpenAI from "openai"
import { Scripted } from "../../../batch/test/support/machine.ts"
import { describeWithBoth } from "../../../sql/test/support/databases.ts"
import * as Lines from "../../src/openai/Line.ts"
import { clientOf, line, upload } from "../support/batches.ts"
import { batchesWith, newTokens, serveBatches } from "../support/batchServer.ts"
import { send } from "../support/gateway.ts"

const answered = (kind: "ok" | "failed", status: number, body: string) =>
  Effect.succeed({
    kind,
    body: Lines.encodeResponse({ status, requestId: "req_1", body }),
    inputTokens: 3,
    outputTokens: 2,
    micros: 10
  })

/** Answers by the id of a line: `ok`, `bad` with status 400, and `wait`, which is never asked. */
const provider = () => {
  const scripted = new Scripted()
  scripted.answer = ({ key }) => {
    if (key.startsWith("ok")) return answered("ok", 200, `{"choices":[]}`)
    if (key.startsWith("bad")) return answered("failed", 400, `{"error":{"message":"no","code":"nope"}}`)
    return Effect.fail(new AskLater({ reason: "wait", isCall: false, retryAfter: undefined, micros: undefined }))
  }
  return scripted
}

const linesFor = (ids: ReadonlyArray<string>) => ids.map((id, n) => line(n).replace(`"c${n}"`, JSON.stringify(id)))

const create = (client: OpenAI, file: string) =>
  Effect.promise(() =>
    client.batches.create({ input_file_id: file, endpoint: "/v1/chat/completions", completion_window: "24h" })
  )

const until = (client: OpenAI, id: string, isIt: (batch: OpenAI.Batch) => boolean) =>
  Effect.gen(function*() {
    while (true) {
      const batch = yield* Effect.promise(() => client.batches.retrieve(id))
      if (isIt(batch)) return batch
      yield* Effect.sleep(20)
    }
  }).pipe(Effect.timeout("30 seconds"))

const contentOf = (client: OpenAI, file: string | null | undefined) =>
  Effect.promise(async () => {
    if (file === null || file === undefined) return []
    const text = await (await client.files.content(file)).text()
    return text.trimEnd().split("\n").map((line) => JSON.parse(line))
  })

const seconds = (value: unknown) =>
  assert.isTrue(Number.isInteger(value) && Math.abs(Number(value) - Date.now() / 1e3) < 600)

/** A client, and a batch of these lines. */
const batchOf = (ids: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const { url } = yield* serveBatches
    const owner = newTokens().ann
    const client = clientOf({ url, token: owner })
    const file = yield* upload(client, linesFor(ids))
    return { client, file, owner, batch: yield* create(client, file.id) }
  })

const countsOf = ({ request_counts: counts }: OpenAI.Batch) => [counts?.total, counts?.completed, counts?.failed]

const expired = { code: "batch_expired", message: "The batch expired before the request was sent." }
const cancelled = { code: "batch_cancelled", message: "The batch was cancelled before the request was sent." }
const capped = { code: "cost_cap", message: "The batch reached its budget before the request was sent." }

await describeWithBoth("a batch on the wire", (it) => {
  it.effect("has every field of OpenAI's object, and its files have every line once", () =>
    Effect.gen(function*() {
      const { batch: created, client, file } = yield* batchOf(["ok-1", "bad-1", "ok-2"])
      assert.strictEqual(Number(file.expires_at) - file.created_at, 30 * 86_400)
      assert.include(["validating", "in_progress"], created.status)
      assert.deepStrictEqual([created.output_file_id, created.error_file_id], [null, null] as never)
      const batch = yield* until(client, created.id, ({ status }) => status === "completed")
      for (const at of [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at]) seconds(at)
      assert.deepStrictEqual(batch as unknown, {
        ...batch,
        object: "batch",
        endpoint: "/v1/chat/completions",
        errors: null,
        input_file_id: file.id,
        completion_window: "24h",
        status: "completed",
        output_file_id: `file-output-${batch.id}`,
        error_file_id: `file-error-${batch.id}`,
        expires_at: batch.created_at + 86_400,
        failed_at: null,
        expired_at: null,
        cancelling_at: null,
        cancelled_at: null,
        request_counts: { total: 3, completed: 2, failed: 1 },
        usage: {
          input_tokens: 9,
          input_tokens_details: { cached_tokens: 0 },
          output_tokens: 6,
          output_tokens_details: { reasoning_tokens: 0 },
          total_tokens: 15
        },
        metadata: null
      })
      const output = yield* contentOf(client, batch.output_file_id)
      const response = { status_code: 200, request_id: "req_1", body: { choices: [] } }
      const suffix = batch.id.replace("batch_", "")
      assert.deepStrictEqual(output, [
        { id: `batch_req_${suffix}_0`, custom_id: "ok-1", response, error: null },
        { id: `batch_req_${suffix}_2`, custom_id: "ok-2", response, error: null }
      ])
      const errors = yield* contentOf(client, batch.error_file_id)
      assert.deepStrictEqual(errors, [{
        id: `batch_req_${suffix}_1`,
        custom_id: "bad-1",
        response: { status_code: 400, request_id: "req_1", body: { error: { message: "no", code: "nope" } } },
        error: null
      }])
      for (const id of [`file-output-${batch.id}`, `file-error-${batch.id}`]) {
        const found = yield* Effect.promise(() => client.files.retrieve(id))
        assert.deepInclude(found, { id, object: "file", purpose: "batch_output" })
      }
    }).pipe(Effect.provide(batchesWith(provider()))))

  it.effect("has result files that are listed, deleted one by one, and made again by a retry", () => {
    const scripted = provider()
    return Effect.gen(function*() {
      const { batch: created, client, file } = yield* batchOf(["ok-1", "bad-1", "ok-2"])
      const batch = yield* until(client, created.id, ({ status }) => status === "completed")
      const [output, error] = [`file-output-${batch.id}`, `file-error-${batch.id}`]
      const listed = (query: OpenAI.FileListParams) =>
        Effect.promise(async () => {
          const ids: Array<string> = []
          for await (const { id } of client.files.list(query)) ids.push(id)
          return ids
        })
      const removed = (id: string) => Effect.promise(() => client.files.delete(id))
      const statusOf = (answer: () => PromiseLike<unknown>) =>
        Effect.promise(async () => Promise.resolve(answer()).then(() => 200, ({ status }) => Number(status)))
      for (const limit of [1, 2, 10]) {
        assert.deepStrictEqual(yield* listed({ limit, order: "asc" }), [file.id, output, error])
        assert.deepStrictEqual(yield* listed({ limit }), [error, output, file.id])
        assert.deepStrictEqual(yield* listed({ limit, purpose: "batch_output" }), [error, output])
      }
      assert.deepStrictEqual(yield* listed({ purpose: "batch" }), [file.id])

      assert.deepStrictEqual(yield* removed(output), { id: output, object: "file", deleted: true } as never)
      for (
        const gone of [
          () => client.files.retrieve(output),
          () => client.files.content(output),
          () => client.files.delete(output)
        ]
      ) assert.strictEqual(yield* statusOf(gone), 404)
      assert.deepStrictEqual(yield* listed({}), [error, file.id])
      assert.strictEqual((yield* contentOf(client, error)).length, 1)
      // The batch stays as it was, as at OpenAI.
      assert.deepStrictEqual(yield* until(client, batch.id, () => true), batch)
      const batches = yield* Batches
      const left = yield* Stream.runCollect(batches.results(batch.id))
      assert.deepStrictEqual(left.map(({ key }) => key), ["bad-1"])

      scripted.answer = () => answered("ok", 200, "{}")
      assert.strictEqual(yield* batches.retry(batch.id), 1)
      const again = yield* until(client, batch.id, ({ status }) => status === "completed")
      assert.deepStrictEqual(countsOf(again), [3, 3, 0])
      assert.deepStrictEqual((yield* contentOf(client, output)).map((line) => line.custom_id), ["bad-1"])
      assert.deepStrictEqual(yield* listed({ purpose: "batch_output" }), [output])
      assert.deepStrictEqual(scripted.asked.map(({ key }) => key).toSorted(), ["bad-1", "bad-1", "ok-1", "ok-2"])
    }).pipe(Effect.provide(batchesWith(scripted)))
  })

  it.effect("that expires keeps paid answers, and has the rest in its error file and not among the failed", () =>
    Effect.gen(function*() {
      const { batch: created, client } = yield* batchOf(["ok-1", "wait-1", "bad-1", "wait-2"])
      yield* until(client, created.id, (batch) => countsOf(batch)[1] === 1 && countsOf(batch)[2] === 1)
      const sql = yield* SqlClient
      yield* sql`update sluice_batch set expires_at = created_at where id = ${created.id}`
      const batch = yield* until(client, created.id, ({ status }) => status === "expired")
      seconds(batch.expired_at)
      assert.deepStrictEqual(countsOf(batch), [4, 1, 1])
      assert.deepStrictEqual((yield* contentOf(client, batch.output_file_id)).map(({ custom_id }) => custom_id), [
        "ok-1"
      ])
      const errors = yield* contentOf(client, batch.error_file_id)
      assert.deepStrictEqual(
        errors.map(({ custom_id, error, response }) => [custom_id, response?.status_code, error]),
        [
          ["wait-1", undefined, expired],
          ["bad-1", 400, null],
          ["wait-2", undefined, expired]
        ]
      )
    }).pipe(Effect.provide(batchesWith(provider()))))

  it.effect("that is cancelled before an answer has no output file, and all lines in its error file", () =>
    Effect.gen(function*() {
      const { batch: created, client } = yield* batchOf(["wait-1", "wait-2"])
      const cancelling = yield* Effect.promise(() => client.batches.cancel(created.id))
      assert.include(["cancelling", "cancelled"], cancelling.status)
      seconds(cancelling.cancelling_at)
      const batch = yield* until(client, created.id, ({ status }) => status === "cancelled")
      seconds(batch.cancelled_at)
      assert.deepStrictEqual(countsOf(batch), [2, 0, 0])
      assert.isNull(batch.output_file_id)
      const errors = yield* contentOf(client, batch.error_file_id)
      assert.deepStrictEqual(errors.map(({ custom_id, error, response }) => [custom_id, response, error]), [
        ["wait-1", null, cancelled],
        ["wait-2", null, cancelled]
      ])
      const again = yield* Effect.promise(() => client.batches.cancel(created.id))
      assert.strictEqual(again.status, "cancelled")
      const missing = yield* Effect.promise(() =>
        client.files.content(`file-output-${created.id}`).then(() => 200, (error) => error.status)
      )
      assert.strictEqual(missing, 404)
    }).pipe(Effect.provide(batchesWith(provider()))))

  it.effect("that reaches its budget is completed, and counts what was not asked as failed", () =>
    Effect.gen(function*() {
      const { batch: { input_file_id: file }, client, owner } = yield* batchOf(["ok-1", "ok-2", "ok-3"])
      const batches = yield* Batches
      const id = yield* batches.submit(
        { file, owner, source: file, endpoint: "/v1/chat/completions", maxCost: { micros: 20, estimate: 10 } },
        Stream.empty
      )
      const batch = yield* until(client, id, ({ status }) => status === "completed")
      assert.deepStrictEqual(countsOf(batch), [3, 2, 1])
      const errors = yield* contentOf(client, batch.error_file_id)
      assert.deepStrictEqual(errors.map(({ error, response }) => [response, error]), [[null, capped]])
    }).pipe(Effect.provide(batchesWith(provider()))))

  it.effect("whose file is wrong is failed, with its lines named and none asked", () => {
    const scripted = provider()
    return Effect.gen(function*() {
      const { batch } = yield* batchOf(["ok-1", "ok-1"])
      assert.strictEqual(batch.status, "failed")
      seconds(batch.failed_at)
      assert.deepStrictEqual(batch.errors as unknown, {
        object: "list",
        data: [{
          code: "duplicate_custom_id",
          line: 2,
          message: "Another line has this custom_id.",
          param: "custom_id"
        }]
      })
      assert.deepStrictEqual(countsOf(batch), [0, 0, 0])
      assert.deepStrictEqual(scripted.asked, [])
    }).pipe(Effect.provide(batchesWith(scripted)))
  })

  it.effect("is made and read by requests as openai-python sends them", () =>
    Effect.gen(function*() {
      const { port } = yield* serveBatches
      const { ann } = newTokens()
      const call = (method: string, path: string, body?: string, type = "application/json") =>
        send({ port }, path, {
          method,
          headers: {
            Authorization: `Bearer ${ann}`,
            Accept: "application/json",
            "Content-Type": type,
            "User-Agent": "OpenAI/Python 2.8.1",
            "X-Stainless-Lang": "python",
            "x-stainless-retry-count": "0"
          },
          ...(body === undefined ? {} : { body })
        })
      const form = [
        `--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n`,
        `--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\nContent-Type: application/octet-stream\r\n\r\n`,
        `${linesFor(["ok-1", "wait-1"]).join("\n")}\n\r\n--b--\r\n`
      ].join("")
      const uploaded = yield* call("POST", "/v1/files", form, "multipart/form-data; boundary=b")
      assert.strictEqual(uploaded.status, 200, uploaded.text)
      const { id: input_file_id } = JSON.parse(uploaded.text)
      const fields = { completion_window: "24h", endpoint: "/v1/chat/completions", input_file_id, metadata: null }
      const { id } = JSON.parse((yield* call("POST", "/v1/batches", JSON.stringify(fields))).text)
      const status = Effect.map(call("GET", `/v1/batches/${id}`), ({ text }) => JSON.parse(text))
      while ((yield* status).request_counts.completed < 1) yield* Effect.sleep(20)
      // It has no body, and the type of one.
      assert.strictEqual((yield* call("POST", `/v1/batches/${id}/cancel`)).status, 200)
      while ((yield* status).status !== "cancelled") yield* Effect.sleep(20)
      const { output_file_id: output } = yield* status
      const { headers, text } = yield* call("GET", `/v1/files/${output}/content`)
      assert.strictEqual(headers["content-type"], "application/jsonl")
      assert.strictEqual(JSON.parse(text).custom_id, "ok-1")
      assert.strictEqual((yield* call("DELETE", `/v1/files/${output}`)).status, 200)
      const removed = yield* call("DELETE", `/v1/files/${input_file_id}`)
      assert.deepStrictEqual(JSON.parse(removed.text), { id: input_file_id, object: "file", deleted: true })
      assert.strictEqual((yield* call("GET", `/v1/files/${input_file_id}`)).status, 404)
      assert.deepStrictEqual((yield* status).request_counts, { total: 2, completed: 1, failed: 0 })
    }).pipe(Effect.provide(batchesWith(provider()))))
})
