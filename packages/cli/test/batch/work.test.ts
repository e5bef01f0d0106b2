import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Process from "../support/command.ts"
import { folder } from "../support/files.ts"
import { processTimeout } from "../support/timeouts.ts"
import { batch, counting, ended, statusOf, submitted, worker } from "./support.ts"

const all = (count: number) => Array.from({ length: count }, (_, n) => `p${n + 1}`).sort()

const idsOf = (results: ReadonlyArray<{ readonly [field: string]: unknown }>) => results.map(({ id }) => id).sort()

describe("sluice batch work", { timeout: processTimeout }, () => {
  it.live("requests go to the next target while the first is down, and results are in both formats and orders", () =>
    Effect.gen(function*() {
      const down = yield* LoopbackProvider.make({})
      yield* down.down
      const turns = ({ prompt }: { readonly prompt: string }) => prompt === "Question 7" ? Turn.status(400) : undefined
      const up = yield* LoopbackProvider.make({ turns })
      const directory = yield* folder
      const id = yield* submitted(directory, 30)
      yield* worker(directory, [down, up])
      const results = yield* ended(directory, id)
      assert.deepStrictEqual(idsOf(results), all(30))
      assert.deepStrictEqual(results.filter(({ status }) => status !== "ok").map(({ id }) => id), ["p7"])
      const inOrder = yield* batch(directory, "results", id, "--order", "input", "--format", "openai")
      // A result is a failure.
      assert.strictEqual(inOrder.code, 1)
      const lines = inOrder.stdout.trim().split("\n").map((line) => JSON.parse(line))
      assert.deepStrictEqual(lines.map(({ custom_id }) => custom_id), Array.from({ length: 30 }, (_, n) => `p${n + 1}`))
      assert.deepStrictEqual(
        lines.slice(5, 8).map(({ error, response }) => [response.status_code, error]),
        [[200, null], [400, null], [200, null]]
      )
      const toFile = yield* batch(directory, "results", id, "-o", "out.jsonl")
      assert.deepStrictEqual([toFile.code, toFile.stdout], [1, ""])
      const taken = yield* batch(directory, "results", id, "-o", "out.jsonl")
      assert.strictEqual(taken.code, 2)
      assert.include(taken.stderr, "out.jsonl")
      const table = yield* batch(directory, "status")
      assert.strictEqual(table.code, 1)
      assert.match(table.stdout, /completed +30\/30 +1 /)
      assert.deepInclude(yield* statusOf(directory, id), { state: "completed", ok: 29, failed: 1, total: 30 })

      // The failed request is sent again.
      const again = yield* batch(directory, "retry", id)
      assert.include(again.stderr, "1 request will be sent again.")
      assert.lengthOf(yield* ended(directory, id), 30)
      const removed = yield* batch(directory, "remove", id)
      assert.strictEqual(removed.code, 0, removed.stderr)
      const gone = yield* batch(directory, "status", id)
      assert.deepStrictEqual([gone.code, gone.stdout], [2, ""])
      assert.include(gone.stderr, `no batch has the id ${id}`)
    }))

  it.live("an outage of the only target fails no request, and the status says what the batch waits for", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({})
      yield* provider.down
      const directory = yield* folder
      const id = yield* submitted(directory, 20)
      yield* worker(directory, [provider], "--concurrency", "5")
      let text = ""
      for (let tries = 0; tries < 60 && !text.includes("waits: the circuit of a is open"); tries++) {
        text = (yield* batch(directory, "status", id)).stdout
      }
      assert.include(text, "waits: the circuit of a is open")
      yield* provider.up
      const results = yield* ended(directory, id)
      assert.deepStrictEqual(results.map(({ status }) => status), Array.from({ length: 20 }, () => "ok"))
    }))

  it.live("a budget without a price sends nothing, and with the price of the worker it is kept", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({})
      const directory = yield* folder
      const id = yield* submitted(directory, 3, "--max-cost", "1")
      const unpriced = yield* worker(directory, [provider])
      const refused = yield* ended(directory, id)
      assert.deepStrictEqual(
        refused.map(({ error }) => Object(error).code),
        Array.from({ length: 3 }, () => "no_price")
      )
      assert.lengthOf(yield* provider.journal, 0)
      unpriced.process.kill("SIGTERM")
      yield* Effect.promise(() => unpriced.ended)
      yield* batch(directory, "retry", id)
      yield* worker(directory, [provider], "--price", "1,2")
      assert.deepStrictEqual((yield* ended(directory, id)).map(({ status }) => status), ["ok", "ok", "ok"])
      const again = yield* batch(directory, "submit", "prompts.jsonl", "--model", "m")
      assert.include(again.stderr, `Already submitted: 3 requests, completed. \`sluice batch results ${id}\``)
    }))

  it.live("a batch that has spent its budget is sent again only with a larger one", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({})
      const directory = yield* folder
      const id = yield* submitted(directory, 3, "--max-cost", "0.000001")
      yield* worker(directory, [provider], "--price", "1,2")
      yield* ended(directory, id)
      assert.deepInclude(yield* statusOf(directory, id), { state: "capped", ok: 1, marked: 2 })
      Process.refused(
        yield* batch(directory, "retry", id, "--unasked"),
        `batch ${id} has spent $`,
        "set a larger --max-cost, which includes what is spent"
      )
      const { code, stderr } = yield* batch(directory, "retry", id, "--unasked", "--max-cost", "1")
      assert.strictEqual(code, 0, stderr)
      assert.include(stderr, "2 requests will be sent again.")
      yield* ended(directory, id)
      assert.deepInclude(yield* statusOf(directory, id), { state: "completed", ok: 3, marked: 0 })
    }))

  it.live("two workers share a file of SQLite, and send each request once", () =>
    Effect.gen(function*() {
      const turns = () => Turn.answer("Yes", { firstTokenMillis: 20 })
      const [a, b] = [yield* LoopbackProvider.make({ turns }), yield* LoopbackProvider.make({ turns })]
      const directory = yield* folder
      yield* Effect.all([worker(directory, [a], "--concurrency", "4"), worker(directory, [b], "--concurrency", "4")], {
        concurrency: 2
      })
      const id = yield* submitted(directory, 200)
      assert.deepStrictEqual(idsOf(yield* ended(directory, id)), all(200))
      const counts = [(yield* a.journal).length, (yield* b.journal).length]
      assert.isAbove(Math.min(...counts), 0, `${counts}`)
      assert.strictEqual(counts[0]! + counts[1]!, 200)
    }))

  it.live("SIGTERM takes no further request, lets calls finish, and leaves the rest to another worker", () =>
    Effect.gen(function*() {
      const slow = yield* counting(() => Turn.answer("Yes", { firstTokenMillis: 3_000 }))
      const fast = yield* LoopbackProvider.make({})
      const directory = yield* folder
      const id = yield* submitted(directory, 20)
      const first = yield* worker(directory, [slow.provider], "--concurrency", "4")
      yield* slow.begun(4)
      first.process.kill("SIGTERM")
      const { code, stderr } = yield* Effect.promise(() => first.ended)
      assert.strictEqual(code, 0, stderr)
      const sent = slow.come()
      assert.strictEqual(sent, 4)
      assert.deepInclude(yield* statusOf(directory, id), { state: "in_progress", ok: sent })
      const idle = yield* batch(directory, "status", id)
      assert.include(idle.stdout, "waits: no worker runs")
      yield* worker(directory, [fast])
      assert.deepStrictEqual(idsOf(yield* ended(directory, id)), all(20))
      assert.lengthOf(yield* fast.journal, 20 - sent)
    }))

  it.live("SIGTERM does not wait for requests that wait before their next attempt", () =>
    Effect.gen(function*() {
      const busy = yield* counting(() => Turn.status(429, { retryAfter: "20 seconds" }))
      const directory = yield* folder
      const id = yield* submitted(directory, 1)
      const command = yield* worker(directory, [busy.provider], "--drain-timeout", "10m")
      yield* busy.begun(1)
      yield* Effect.sleep("200 millis")
      command.process.kill("SIGTERM")
      const { code, stderr } = yield* Effect.timeout(Effect.promise(() => command.ended), "12 seconds")
      assert.strictEqual(code, 0, stderr)
      assert.deepInclude(yield* statusOf(directory, id), { state: "in_progress", ok: 0, failed: 0 })
      yield* worker(directory, [yield* LoopbackProvider.make({})])
      assert.deepStrictEqual(idsOf(yield* ended(directory, id)), all(1))
      assert.strictEqual(busy.come(), 1)
    }))

  it.live("a second signal ends a worker at once", () =>
    Effect.gen(function*() {
      const { begun, provider } = yield* counting(() => Turn.hang())
      const directory = yield* folder
      yield* submitted(directory, 4)
      const command = yield* worker(directory, [provider], "--drain-timeout", "10m", "--concurrency", "4")
      yield* begun(4)
      command.process.kill("SIGTERM")
      yield* Effect.sleep("500 millis")
      command.process.kill("SIGTERM")
      const { code } = yield* Effect.timeout(Effect.promise(() => command.ended), "30 seconds")
      assert.strictEqual(code, 0)
    }))

  it.live("a cancelled batch has a result for each request, and what was not sent can be sent later", () =>
    Effect.gen(function*() {
      let hangs = true
      const { begun, provider } = yield* counting(() => hangs ? Turn.hang() : Turn.answer("Yes"))
      const directory = yield* folder
      const id = yield* submitted(directory, 12)
      yield* worker(directory, [provider], "--concurrency", "4")
      yield* begun(4)
      const running = yield* batch(directory, "remove", id)
      assert.strictEqual(running.code, 2)
      assert.include(running.stderr, `batch ${id} is in progress; cancel it first`)
      const { code, stderr } = yield* batch(directory, "cancel", id, "--interrupt")
      assert.strictEqual(code, 0, stderr)
      assert.include(stderr, "No further request is sent. Calls that run are interrupted.")
      const results = yield* ended(directory, id)
      assert.deepStrictEqual(idsOf(results), all(12))
      assert.deepInclude(yield* statusOf(directory, id), { state: "cancelled", ok: 0, marked: 12 })
      hangs = false
      const retried = yield* batch(directory, "retry", id, "--unasked")
      assert.include(retried.stderr, "12 requests will be sent again.")
      yield* ended(directory, id)
      assert.deepInclude(yield* statusOf(directory, id), { state: "completed", ok: 12 })
    }))
})
