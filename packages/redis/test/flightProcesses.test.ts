import { assert } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { once } from "node:events"
import { createServer } from "node:http"
import type { Request } from "./fixtures/flight.ts"
import { startAnswering } from "./support/process.ts"
import { describeWithRedis } from "./support/redis.ts"

/** Answers each call with its number, after a time. It is the witness: it counts calls where they arrive. */
const startProvider = (millis: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const seen = { calls: 0 }
      const server = createServer((_, response) => {
        const nth = ++seen.calls
        setTimeout(() => response.end(`answer ${nth}`), millis)
      })
      server.listen(0, "127.0.0.1")
      await once(server, "listening")
      return { server, seen, port: (server.address() as { readonly port: number }).port }
    }),
    ({ server }) =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      })
  )

const startProcesses = (count: number) =>
  Effect.forEach(Array.from({ length: count }), () => startAnswering<Request>("flight"), { concurrency: count })

/** Waits until the provider has seen so many calls. */
const untilCalls = (seen: { readonly calls: number }, calls: number) =>
  Effect.timeout(
    Effect.whileLoop({ while: () => seen.calls < calls, body: () => Effect.sleep(5), step: () => {} }),
    "20 seconds"
  )

await describeWithRedis("processes that share flights", (it) => {
  it.effect("processes that ask the same make one call, tenants never share, and later processes get the result", () =>
    Effect.gen(function*() {
      const { port, seen } = yield* startProvider(500)
      const processes = yield* startProcesses(4)
      const ask = (tenant: string) =>
        Effect.forEach(processes, ({ request }) => request<string>({ text: "same", tenant, port }), { concurrency: 4 })
      const answers = yield* Effect.all([ask("1"), ask("2")], { concurrency: 2 })
      assert.strictEqual(seen.calls, 2)
      assert.strictEqual(new Set(answers[0]).size, 1)
      assert.strictEqual(new Set(answers[1]).size, 1)
      assert.notStrictEqual(answers[0][0], answers[1][0])
      const [late] = yield* startProcesses(1)
      assert.strictEqual(yield* late!.request<string>({ text: "same", tenant: "1", port }), answers[0][0])
      assert.strictEqual(seen.calls, 2)
    }))

  it.effect("the leader is killed, and of three followers one makes the call, which all of them get", () =>
    Effect.gen(function*() {
      const { port, seen } = yield* startProvider(1_000)
      const [leader, ...followers] = yield* startProcesses(4)
      const request = { text: "killed", tenant: "", port }
      yield* Effect.forkChild(leader!.request<string>(request))
      yield* untilCalls(seen, 1)
      const answers = yield* Effect.forkChild(
        Effect.forEach(followers, (one) => one.request<string>(request), { concurrency: 3 })
      )
      yield* Effect.sleep(300)
      yield* leader!.kill
      const answer = Effect.timeout(Fiber.join(answers), "20 seconds")
      assert.deepStrictEqual(yield* answer, ["answer 2", "answer 2", "answer 2"])
      assert.strictEqual(seen.calls, 2)
    }))

  it.effect("a leader that was frozen for longer than its lease keeps its answer to itself", () =>
    Effect.gen(function*() {
      const { port, seen } = yield* startProvider(1_000)
      const [leader, follower] = yield* startProcesses(2)
      const request = { text: "frozen", tenant: "", port }
      const late = yield* Effect.forkChild(leader!.request<string>(request))
      yield* untilCalls(seen, 1)
      yield* leader!.signal("SIGSTOP")
      assert.strictEqual(yield* Effect.timeout(follower!.request<string>(request), "20 seconds"), "answer 2")
      yield* leader!.signal("SIGCONT")
      assert.strictEqual(yield* Effect.timeout(Fiber.join(late), "20 seconds"), "answer 1")
      const [third] = yield* startProcesses(1)
      assert.strictEqual(yield* third!.request<string>(request), "answer 2")
      assert.strictEqual(seen.calls, 2)
    }))
})
