import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { folder } from "../support/files.ts"
import { addKey, ask, keysIn, logsOf, send, start } from "../support/gateway.ts"
import { begin, finish, streamingProvider, word } from "../support/streamingProvider.ts"
import { processTimeout } from "../support/timeouts.ts"
import { snapshot, until, within } from "../support/witness.ts"

describe("sluice serve --dedupe", { timeout: processTimeout }, () => {
  it.live("identical requests of one key share a call, whose use counts once", () =>
    Effect.gen(function*() {
      const provider = yield* streamingProvider((received) => begin(received))
      const directory = yield* folder
      const ann = yield* addKey(directory, "ann", "--rpm", "10", "--tpm", "50k")
      const bob = yield* addKey(directory, "bob", "--rpm", "10")
      const admin = yield* addKey(directory, "boss", "--admin")
      const args = ["--target", `a=${provider.url}`, "--keys", keysIn(directory), "--dedupe"]
      const gateway = { ...(yield* start(directory, args)), token: admin }
      const answers = yield* Effect.forkScoped(
        Effect.all([ann, ann, bob].map((key) => ask(gateway, key, { stream: true })), { concurrency: "unbounded" })
      )
      yield* until("three calls run", Effect.map(snapshot(gateway), ({ head }) => head.inFlight === 3))
      yield* until("each key has a call", Effect.sync(() => provider.received.length === 2))
      const usage = `data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n`
      for (const { response } of provider.received) {
        response.end(word("fine") + finish.replace("data: [DONE]", `${usage}data: [DONE]`))
      }

      const got = yield* within("the answers", Fiber.join(answers))
      for (const { text } of got) assert.include(text, "fine")
      assert.deepStrictEqual(got.map(({ headers }) => headers["x-sluice-shared"]).toSorted(), [
        "true",
        undefined,
        undefined
      ])
      yield* until("all have ended", Effect.map(snapshot(gateway), ({ head }) => head.calls === 3))
      const { text } = yield* send(gateway, "/metrics", { headers: { authorization: `Bearer ${admin}` } })
      for (const key of ["ann", "bob"]) {
        assert.include(text, `sluice_gateway_tokens_total{key="${key}",type="output"} 4`)
      }
      gateway.command.process.kill("SIGTERM")
      const { stderr } = yield* Effect.promise(() => gateway.command.ended)
      const requests = logsOf(stderr).filter(({ event }) => event === "request")
      assert.deepStrictEqual(
        requests.map(({ key, outputTokens, shared }) => [key, outputTokens, shared]).toSorted(),
        [["ann", undefined, true], ["ann", 4, undefined], ["bob", 4, undefined]]
      )
      assert.lengthOf(provider.received, 2)
    }))
})
