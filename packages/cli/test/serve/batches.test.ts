import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type OpenAI from "openai"
import { batchOf, clientOf, line, upload } from "../support/batches.ts"
import * as Process from "../support/command.ts"
import { folder } from "../support/files.ts"
import { addKey, ask, keys, keysIn, over, send, snapshot, start } from "../support/gateway.ts"
import { processTimeout } from "../support/timeouts.ts"

const ended = (client: OpenAI, id: string) =>
  Effect.promise(async () => {
    const deadline = Date.now() + 30_000
    while (true) {
      const batch = await client.batches.retrieve(id)
      if (!["validating", "in_progress", "finalizing", "cancelling"].includes(batch.status)) return batch
      if (Date.now() > deadline) throw new Error(`the batch is ${batch.status}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  })

const linesOf = (client: OpenAI, file: string | null | undefined) =>
  Effect.promise(async () => {
    if (file === null || file === undefined) return []
    const text = await (await client.files.content(file)).text()
    return text.trimEnd().split("\n").map((line) => JSON.parse(line))
  })

describe("the batches of sluice serve", { timeout: processTimeout }, () => {
  it.live("the official client gets a batch answered by any target, its errors in a file of their own", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({
        turns: ({ prompt }) => prompt === "Say 7" ? Turn.status(400) : undefined
      })
      const { args, env } = over(provider, provider)
      const gateway = yield* start(yield* folder, [...args, "--batches", "sqlite:batches.sqlite"], env)
      const client = clientOf(gateway)
      const file = yield* upload(client, Array.from({ length: 40 }, (_, n) => line(n)))
      assert.deepInclude(file, { object: "file", purpose: "batch", filename: "in.jsonl" })
      const created = yield* Effect.promise(() =>
        client.batches.create({
          input_file_id: file.id,
          endpoint: "/v1/chat/completions",
          completion_window: "24h",
          metadata: { job: "nightly" }
        })
      )
      assert.deepInclude(created, { object: "batch", input_file_id: file.id, completion_window: "24h" })
      assert.deepStrictEqual(created.metadata, { job: "nightly" })
      const batch = yield* ended(client, created.id)
      assert.strictEqual(batch.status, "completed")
      assert.deepStrictEqual(batch.request_counts, { total: 40, completed: 39, failed: 1 })
      const output = yield* linesOf(client, batch.output_file_id)
      const errors = yield* linesOf(client, batch.error_file_id)
      assert.strictEqual(output.length + errors.length, 40)
      assert.include(output[0].response.body.choices[0].message.content, "Say 0")
      assert.strictEqual(output[0].response.status_code, 200)
      assert.deepStrictEqual(errors.map(({ custom_id, response }) => [custom_id, response.status_code]), [["c7", 400]])
      const listed = yield* Effect.promise(() => client.batches.list({ limit: 1 }))
      assert.deepStrictEqual(listed.data.map(({ id }) => id), [created.id])
      const content = yield* linesOf(client, file.id)
      assert.strictEqual(content.length, 40)
    }))

  it.live("a file with problems makes a failed batch that names the lines", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({})
      const { args, env } = over(provider, provider)
      const gateway = yield* start(yield* folder, [...args, "--batches", "sqlite:batches.sqlite"], env)
      const client = clientOf(gateway)
      const file = yield* upload(client, [line(1), "{", line(1)])
      const batch = yield* Effect.promise(() =>
        client.batches.create({ input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h" })
      )
      assert.strictEqual(batch.status, "failed")
      assert.deepStrictEqual(batch.errors?.data?.map(({ code, line }) => [line, code]), [
        [2, "invalid_json_line"],
        [3, "duplicate_custom_id"]
      ])
      assert.deepStrictEqual(batch.request_counts, { total: 0, completed: 0, failed: 0 })
    }))

  it.live("a client sees its own files and batches only", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({})
      const { args, env } = over(provider, provider)
      const directory = yield* folder
      const [ann, bob] = [yield* addKey(directory, "ann"), yield* addKey(directory, "bob")]
      const gateway = yield* start(directory, [...args, "--batches", "sqlite:batches.sqlite"], env)
      const file = yield* upload(clientOf(gateway, ann), [line(1)])
      const other = clientOf(gateway, bob)
      const statusOf = (call: Promise<unknown>) => Effect.promise(() => call.then(() => 200, (error) => error.status))
      assert.strictEqual(yield* statusOf(other.files.retrieve(file.id)), 404)
      assert.strictEqual(yield* statusOf(other.files.content(file.id)), 404)
      assert.strictEqual(
        yield* statusOf(
          other.batches.create({ input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h" })
        ),
        404
      )
      assert.deepStrictEqual((yield* Effect.promise(() => other.files.list())).data, [])
    }))

  it.live("a key with the name of a removed one sees nothing of it, and the operator sees both", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({})
      const { args, env } = over(provider)
      const directory = yield* folder
      const first = yield* addKey(directory, "ann")
      const admin = yield* addKey(directory, "boss", "--admin")
      const flags = ["--keys", keysIn(directory), "--batches", "sqlite:batches.sqlite"]
      const gateway = { ...yield* start(directory, [...args, ...flags], env), token: first }
      const id = yield* batchOf(gateway, ["Hello"])
      yield* ended(clientOf(gateway), id)
      const call = `/sluice/calls/${(yield* ask(gateway, first)).headers["x-sluice-call"]}`
      const look = (path: string, token: string) =>
        Effect.map(send(gateway, path, { headers: { authorization: `Bearer ${token}` } }), ({ status }) => status)
      assert.strictEqual(yield* look(call, first), 200)
      yield* keys(directory, "remove", "ann")
      const second = yield* addKey(directory, "ann")
      const client = clientOf(gateway, second)
      // The gateway looks for new keys four times a second.
      const listed = yield* Effect.promise(async () => {
        while (true) {
          const page = await client.batches.list().catch((error) => {
            if (error.status !== 401) throw error
          })
          if (page !== undefined) return page.data
          await new Promise((resolve) => setTimeout(resolve, 50))
        }
      })
      assert.deepStrictEqual(listed, [])
      assert.deepStrictEqual((yield* Effect.promise(() => client.files.list())).data, [])
      for (const path of [call, `/v1/batches/${id}`, `/v1/files/file-output-${id}/content`]) {
        assert.deepStrictEqual([yield* look(path, second), yield* look(path, admin)], [404, 200], path)
      }
      const page = yield* snapshot({ url: gateway.url, token: admin })
      assert.deepStrictEqual([...new Set(page["calls"]?.map(({ key }) => key))], ["ann"])
      const { stdout } = yield* Effect.promise(() =>
        Process.run(["batch", "status", "--json", "--batches", "sqlite:batches.sqlite"], {}, directory)
      )
      assert.include(stdout, id)
    }))

  it.live("the live page gets batches with their progress, and an admin cancels one by hand", () =>
    Effect.gen(function*() {
      const turns = ({ prompt }: { readonly prompt: string }) => prompt === "hang" ? Turn.hang() : undefined
      const { args, env } = over(yield* LoopbackProvider.make({ turns }))
      const directory = yield* folder
      const [admin, user] = [yield* addKey(directory, "boss", "--admin"), yield* addKey(directory, "ann")]
      const flags = ["--keys", keysIn(directory), "--batches", "sqlite:batches.sqlite", "--concurrency", "4"]
      const gateway = { ...yield* start(directory, [...args, ...flags], env), token: admin }
      const shown = Effect.map(snapshot(gateway), ({ audit, batches }) => ({
        audit,
        // An object, unlike the other fields.
        batches: batches as unknown as { readonly rows: ReadonlyArray<{ readonly [field: string]: unknown }> }
      }))
      const cancel = (id: string, headers: { readonly [name: string]: string }) =>
        send(gateway, `/sluice/batches/${id}/cancel`, { headers, body: "{}" })
      const json = { "content-type": "application/json" }
      const bearer = { authorization: `Bearer ${admin}`, ...json }
      const done = yield* batchOf(gateway, ["Hello"])
      yield* ended(clientOf(gateway), done)
      const id = yield* batchOf(gateway, ["Hello", "hang", "hang"])
      /** A page gets the rows after its snapshot, so another one is asked. */
      const until = (state: string, count: number) =>
        Effect.gen(function*() {
          for (let tries = 0; tries < 300; tries++) {
            const { audit, batches: { rows } } = yield* shown
            if (rows[0]?.["state"] === state && rows[0]["done"] === count) return { audit, rows }
            yield* Effect.sleep("100 millis")
          }
          return yield* Effect.die(new Error(`no batch is ${state}`))
        })
      const { rows } = yield* until("in_progress", 1)
      assert.deepStrictEqual(
        rows.map((
          { id, key, state, done, total, failed, maxCost, waits }
        ) => [id, key, state, done, total, failed, maxCost, waits]),
        [
          [id, "boss", "in_progress", 1, 3, 0, null, null],
          [done, "boss", "completed", 1, 1, 0, null, null]
        ]
      )

      const refusals = [
        [401, json, id],
        [403, { authorization: `Bearer ${user}`, ...json }, id],
        [403, { ...bearer, origin: "http://attacker.example" }, id],
        [404, bearer, "batch_none"],
        [409, bearer, done],
        [415, { ...bearer, "content-type": "text/plain" }, id]
      ] as const
      for (const [status, headers, batch] of refusals) {
        assert.strictEqual((yield* cancel(batch, headers)).status, status, JSON.stringify(headers))
      }
      assert.deepStrictEqual((yield* shown).audit, [])
      const { status, text } = yield* cancel(id, bearer)
      assert.strictEqual(status, 200, text)
      assert.deepInclude(JSON.parse(text), { batch: id, what: "cancel", who: "boss" })
      const { audit } = yield* until("cancelling", 1)
      assert.deepInclude(audit?.[0], { batch: id, what: "cancel", who: "boss" })
    }))
})
