import { assert, describe, it } from "@effect/vitest"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import * as Turn from "@sluice/ai/testing/Turn"
import { Effect, Fiber } from "effect"
import { createServer, type ServerResponse } from "node:http"
import type { Completed, Engine } from "../../src/run/Engine.ts"
import * as Limits from "../../src/run/Limits.ts"
import { engineFor, prompt } from "../support/engine.ts"
import { requests } from "../support/provider.ts"
import { processTimeout } from "../support/timeouts.ts"

/** Completes prompts with these texts, one line each, until the engine stops. */
const completeAll = (engine: Engine, texts: ReadonlyArray<string>, concurrency = 16) =>
  Effect.raceFirst(
    Effect.forEach(texts, (text, index) => engine.complete(prompt(index + 1, text)), { concurrency }),
    engine.stopped
  )

const questions = (count: number) => Array.from({ length: count }, (_, index) => `Question ${index + 1}`)

/** The status of each result, or the tag of its error. */
const endings = (all: ReadonlyArray<Completed>) =>
  all.map(({ result }) => result.status === "ok" ? "ok" : result.error.tag)

const counts = (all: ReadonlyArray<Completed>) => {
  const counted: { [ending: string]: number } = {}
  for (const ending of endings(all)) counted[ending] = (counted[ending] ?? 0) + 1
  return counted
}

const messageOf = (completed: Completed | undefined): string =>
  completed?.result.status === "failed" ? completed.result.error.message : ""

describe("a prompt that always fails by itself", { timeout: processTimeout }, () => {
  const faults: ReadonlyArray<readonly [string, Turn.Turn, string, string]> = [
    ["is silent", Turn.hang(), "Timeout", "raise --timeout"],
    ["is silent after its headers", Turn.hang({ headers: true }), "Timeout", "raise --timeout"],
    ["stalls", Turn.stall({ afterTokens: 1 }), "IdleTimeout", "raise --idle-timeout"],
    ["is reset", Turn.reset(), "NetworkError", "ECONNRESET"],
    ["is cut", Turn.cut({ afterTokens: 1 }), "TruncatedStream", ""]
  ]
  it.live.each(faults)(
    "a prompt that always %s fails after --max-attempts, also if it is the last",
    ([, turn, tag, message]) =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({
          turns: ({ prompt }) => prompt.startsWith("poison") ? turn : Turn.answer("fine")
        })
        const limits = { concurrency: 1, maxAttempts: 2, timeoutMillis: 2_000, idleTimeoutMillis: 300 }
        const engine = yield* engineFor(provider, limits)
        const all = yield* completeAll(engine, ["poison", "one", "two", "three", "poison too"], 1)
        // Both timeouts of a silent attempt end together, and either may be noticed first.
        const found = endings(all).map((ending) => ending.replace(/^(?:Attempt|FirstToken)(?=Timeout)/, ""))
        assert.deepStrictEqual(found, [tag, "ok", "ok", "ok", tag])
        assert.include(messageOf(all[0]), message)
        assert.deepStrictEqual(all.map(({ result }) => result.attempts), [2, 1, 1, 1, 2])
      })
  )

  it.live("several such prompts alone at the end of a file fail as well, although no other answer shows that the provider works", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ turns: [Turn.reset()] })
      const engine = yield* engineFor(provider, { concurrency: 2, maxAttempts: 3 })
      const all = yield* completeAll(engine, questions(3))
      assert.deepStrictEqual(counts(all), { NetworkError: 3 })
      for (const { result } of all) assert.isAtMost(result.attempts, 3 * 3)
    }))
})

describe("a refused credential", { timeout: processTimeout }, () => {
  it.live.each([401, 402, 403])("a prompt that is refused with %i fails alone", (status) =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({
        turns: ({ prompt }) => prompt === "Question 7" ? Turn.status(status) : Turn.answer("fine")
      })
      const engine = yield* engineFor(provider, { concurrency: 2 })
      const all = yield* completeAll(engine, questions(30), 2)
      assert.deepStrictEqual(all.filter(({ result }) => result.status !== "ok").map(({ result }) => result.line), [7])
      assert.isAtMost((yield* provider.journal).length, 32)
    }))

  it.live("a credential that is refused for a moment is asked again, and every prompt is answered", () =>
    Effect.gen(function*() {
      const turns = [
        ...Array.from({ length: 5 }, () => Turn.answer("fine")),
        ...Array.from({ length: 4 }, () => Turn.refusal("key")),
        Turn.answer("fine")
      ]
      const provider = yield* LoopbackProvider.make({ turns })
      const engine = yield* engineFor(provider, { concurrency: 4 })
      const all = yield* completeAll(engine, questions(20), 4)
      assert.deepStrictEqual(counts(all), { ok: 20 })
    }))

  it.live("a credential that stops working stops the run after few requests, with its source in the message", () =>
    Effect.gen(function*() {
      const provider = yield* LoopbackProvider.make({ turns: [Turn.answer("fine"), Turn.refusal("key")] })
      const unusable: Array<string | undefined> = []
      const engine = yield* engineFor(provider, { concurrency: 4 }, { unusable: (_, why) => unusable.push(why) })
      yield* engine.complete(prompt(1, "first"))
      const stopped = yield* Effect.flip(completeAll(engine, questions(30), 30))
      assert.strictEqual(stopped.why, "Unusable")
      assert.match(stopped.message, /the key from the test was refused: .*5 times in a row.*were not sent/)
      assert.strictEqual(unusable.length, 1)
      // Four were in flight together. The first refusal may concern its own prompt, so the next prompt is sent at once. The
      // second delays all, and then one prompt asks after each delay.
      assert.isAtMost((yield* provider.journal).length, 1 + 4 + 1 + 4)
    }))
})

describe("a rate limit without Retry-After", { timeout: processTimeout }, () => {
  it.live("500 prompts at a provider that takes 20 a second are all answered", () =>
    Effect.gen(function*() {
      let [second, taken] = [0, 0]
      const provider = yield* LoopbackProvider.make({
        turns: () => {
          // The clock of the provider, which runs in the real time of this test.
          const now = Math.floor(performance.now() / 1_000)
          if (now !== second) taken = 0
          second = now
          return ++taken > 20 ? Turn.status(429) : Turn.answer("fine")
        }
      })
      const engine = yield* engineFor(provider)
      const all = yield* completeAll(engine, questions(500), engine.maxPrompts)
      assert.deepStrictEqual(counts(all), { ok: 500 })
      const limited = (yield* provider.journal).filter(({ status }) => status === 429).length
      assert.isBelow(limited, 250)
    }))
})

describe("an outage in which connections hang", { timeout: processTimeout }, () => {
  it.live.each([
    { atOnce: 1, concurrency: 1, failures: 5 },
    { atOnce: 4, concurrency: 4, failures: 5 },
    // As many as --adaptive has found. Half of 20 calls open the circuit.
    { atOnce: 4, concurrency: 64, failures: 15, limits: [Limits.found(4)] }
  ])(
    "with $atOnce calls at once and a cap of $concurrency another prompt finds the provider back, long before --timeout",
    ({ atOnce, concurrency, failures, limits }) =>
      Effect.gen(function*() {
        let isDown = false
        const silent: Array<ServerResponse> = []
        const server = yield* Effect.acquireRelease(
          Effect.callback<ReturnType<typeof createServer>>((resume) => {
            const server = createServer((_, response) => {
              // Sockets that went silent stay silent.
              if (isDown) return void silent.push(response)
              response.setHeader("content-type", "application/json")
              response.end(JSON.stringify({
                id: "1",
                object: "chat.completion",
                created: 1,
                model: "m",
                choices: [{ index: 0, finish_reason: "stop", message: { role: "assistant", content: "fine" } }],
                usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 }
              }))
            })
            server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
          }),
          (server) =>
            Effect.sync(() => {
              server.closeAllConnections()
              server.close()
            })
        )
        const address = server.address()
        const url = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}/v1`
        const timeoutMillis = 30_000
        const engine = yield* engineFor({ url, apiKey: undefined }, {
          targets: [{
            name: "main",
            wire: "openai",
            url,
            model: "m",
            apiKey: undefined,
            keySource: "the test",
            limits
          }],
          concurrency,
          noStream: true,
          timeoutMillis,
          maxAttempts: 10
        })
        yield* completeAll(engine, questions(5))
        isDown = true
        const waiting = yield* Effect.forkChild(completeAll(engine, questions(30), 30), { startImmediately: true })
        while (silent.length < atOnce) yield* Effect.sleep(5)
        // Those in flight fail, and the circuit opens. The next one is silent.
        while (silent.length < failures + atOnce) {
          for (const response of silent.slice(0, failures)) response.destroy()
          yield* Effect.sleep(5)
        }
        const returnedAt = performance.now()
        isDown = false
        const all = yield* Fiber.join(waiting)
        assert.deepStrictEqual(counts(all), { ok: 30 })
        // The prompts on silent sockets are answered as well.
        assert.isBelow(performance.now() - returnedAt, timeoutMillis / 2)
      })
  )
})

describe("an open circuit that closes as a call ends", { timeout: processTimeout }, () => {
  it.live("a retryable error is not final before --max-attempts", () =>
    Effect.gen(function*() {
      // Six failures at once open the circuit. The first probe closes it while the others end.
      const provider = yield* LoopbackProvider.make({
        turns: [...Array.from({ length: 12 }, () => Turn.status(503)), Turn.answer("fine")]
      })
      const engine = yield* engineFor(provider, { concurrency: 6 })
      const all = yield* completeAll(engine, questions(40), 40)
      assert.deepStrictEqual(counts(all), { ok: 40 })
      yield* requests(provider, 52)
    }))
})

describe("a Retry-After of 30 days", { timeout: processTimeout }, () => {
  it.live.each([429, 503])(
    "with status %i it stops the run, and is shown as 30 days",
    (status) =>
      Effect.gen(function*() {
        const provider = yield* LoopbackProvider.make({ turns: [Turn.status(status, { retryAfter: "30 days" })] })
        const engine = yield* engineFor(provider)
        const stopped = yield* Effect.flip(completeAll(engine, ["The same question"]))
        assert.deepStrictEqual([stopped.why, /for (.*?);/.exec(stopped.message)?.[1]], ["Outage", "30 days"])
      })
  )
})

describe("a provider's error that repeats a key", { timeout: processTimeout }, () => {
  it.live("the key is masked in the error, and not in an answer", () =>
    Effect.gen(function*() {
      const key = "sk-canary-4f1d0a7be93c4d55"
      const provider = yield* LoopbackProvider.make({
        turns: ({ prompt }) =>
          prompt === "fail"
            ? Turn.status(400, { error: { type: "invalid_request_error", message: `not with ${key}` } })
            : Turn.answer(`It is ${key}`)
      })
      const engine = yield* engineFor(provider, { mask: (text) => text.replaceAll(key, "[masked]") })
      const [answer, error] = yield* completeAll(engine, ["answer", "fail"])
      assert.strictEqual(answer?.result.status === "ok" && answer.result.text, `It is ${key}`)
      assert.include(messageOf(error), "not with [masked]")
    }))
})
