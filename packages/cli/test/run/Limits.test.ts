import { assert, describe, it } from "@effect/vitest"
import type { Dimension } from "@sluice/core/Quota"
import * as Quota from "@sluice/core/Quota"
import * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Effect } from "effect"
import * as Limits from "../../src/run/Limits.ts"
import { engineFor, prompt } from "../support/engine.ts"

const none = { rpm: [], tpm: [], itpm: [], otpm: [] }

describe("Limits", () => {
  it("a limit is for every target, unless one names its target", () => {
    const flags = { ...none, rpm: [{ target: undefined, limit: 500 }, { target: "backup", limit: 60 }] }
    const of = (name: string) => Limits.of(flags, { name, url: "https://api.example.com/v1" }).map(({ limit }) => limit)
    assert.deepStrictEqual([of("main"), of("backup")], [[500], [60]])
    assert.deepStrictEqual(Limits.problems(flags, ["main"]), ["--rpm names backup, which is no target"])
  })

  it("limits below the stated ones are learned, also of calls at once", () => {
    const learned = new Limits.Learned()
    const level = { key: "main/rules", tenant: undefined, used: 0, counts: "actual", queued: 0 } as const
    learned.add("main", [{ ...level, dimension: "requests", limit: 500, stated: 500, windowMillis: 60_000 }])
    assert.deepStrictEqual(learned.texts(true), [])
    learned.add("main", [
      { ...level, dimension: "requests", limit: 412.4, stated: 500, windowMillis: 60_000 },
      { ...level, dimension: "atOnce", limit: 37, stated: 64, windowMillis: 0 }
    ])
    assert.deepStrictEqual(learned.texts(true), ["main: 412 of 500 requests a minute", "main: 37 of 64 calls at once"])
    assert.deepStrictEqual(learned.texts(false), ["main: 412 of 500 requests a minute"])
  })

  it("tokens are counted as the provider counts them", () => {
    const countsAt = (url: string) =>
      Limits.of({ ...none, tpm: [{ target: undefined, limit: 1_000 }] }, { name: "main", url })[0]?.counts
    assert.strictEqual(countsAt("https://api.openai.com/v1"), "reserved")
    assert.strictEqual(countsAt("https://mine.openai.azure.com/openai/v1"), "reserved")
    assert.strictEqual(countsAt("https://notopenai.com/v1"), "learned")
  })
})

describe("a run with a limit of tokens", () => {
  it.live.each([false, true])(
    "reserves the limit of tokens of each line, with noStream: %s",
    (noStream) =>
      Effect.gen(function*() {
        const { apiKey, journal, url } = yield* LoopbackProvider.make({ pace: { firstTokenMillis: 300 } })
        const limits = [Quota.per("1 minute", "outputTokens", 2_000)]
        const target = {
          name: "main",
          wire: "openai",
          url,
          model: "rules",
          apiKey,
          keySource: "the test",
          limits
        } as const
        const engine = yield* engineFor({ apiKey, url }, { targets: [target], noShare: true, noStream })
        const own = (line: number) => ({ ...prompt(line), body: { max_tokens: 20 } })
        const all = yield* Effect.forEach([1, 2, 3, 4, 5], (line) => engine.complete(own(line)), { concurrency: 5 })
        assert.deepStrictEqual(all.map(({ result }) => result.status), ["ok", "ok", "ok", "ok", "ok"])
        // All fit at once: none waited for the end of another.
        assert.strictEqual(Journal.maxOpen(yield* journal), 5)
      }),
    20_000
  )
})

// The shortest window with the guard of a minute: a request may arrive up to a second after it was sent.
const windowMillis = 8_000
const windows = 2
const limit = { requests: 50, tokens: 1_000 }

/** A run of two windows at a provider that enforces the limits of the run. */
const paced = (options: LoopbackProvider.LimitOptions, limits: ReadonlyArray<Dimension>, lines: number) =>
  Effect.scoped(Effect.gen(function*() {
    const { apiKey, journal, url } = yield* LoopbackProvider.make({
      models: ["rules"],
      pace: { firstTokenMillis: 100, tokenMillis: 5, tokensPerChunk: 2 },
      answer: () => Effect.succeed({ text: "one two three four five six seven eight nine ten" }),
      limits: { ...options, window: windowMillis }
    })
    const target = { name: "main", wire: "openai", url, model: "rules", apiKey, keySource: "the test", limits } as const
    const engine = yield* engineFor({ apiKey, url }, {
      targets: [target],
      concurrency: 50,
      noShare: true,
      maxTokens: 12
    })
    const results = yield* Effect.forEach(
      Array.from({ length: lines }, (_, index) => prompt(index + 1, `Question ${index}`)),
      (line) => engine.complete(line),
      { concurrency: engine.maxPrompts }
    )
    assert.strictEqual(results.filter(({ result }) => result.status === "ok").length, lines)
    return yield* journal
  }))

/** The most that arrived in any window. Each of the fullest windows begins with a request. */
const fullest = (journal: ReadonlyArray<Journal.Entry>): number =>
  Math.max(
    ...journal.map(({ received: { monotonic: start } }) =>
      journal.filter(({ received: { monotonic } }) => monotonic >= start && monotonic < start + windowMillis).length
    )
  )

const perMinute = (amount: number): number => amount * 60_000 / windowMillis

describe("a run with rate limits, at a strict provider", () => {
  it.live.each<"bucket" | "fixedWindow" | "log">(["bucket", "fixedWindow", "log"])(
    "keeps limits that are enforced by a %s, and takes little longer than at best",
    (enforcement) =>
      Effect.gen(function*() {
        const limits = [
          Quota.per(windowMillis, "requests", limit.requests, { perCall: 1 }),
          Quota.per(windowMillis, "tokens", limit.tokens, { counts: "learned" })
        ]
        // Compiles the code, which would delay the first requests.
        yield* paced({}, limits, 30)
        const journal = yield* paced(
          { requestsPerMinute: perMinute(limit.requests), tokensPerMinute: perMinute(limit.tokens), enforcement },
          limits,
          windows * limit.requests
        )
        const starts = journal.map(({ received }) => received.monotonic)
        const ratio = (Math.max(...starts) - Math.min(...starts)) / ((windows - 1) * windowMillis)
        assert.isAtMost(fullest(journal), limit.requests)
        assert.isAtMost(journal.filter(({ status }) => status === 429).length, 0.005 * journal.length)
        // The burst spreads the first window over a sixth of it.
        assert.isAtMost(ratio, 1.5)
      }),
    60_000
  )
})
