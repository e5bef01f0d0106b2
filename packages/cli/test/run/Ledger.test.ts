import { assert, describe, it } from "@effect/vitest"
import type * as Journal from "@sluice/ai/testing/Journal"
import * as LoopbackProvider from "@sluice/ai/testing/LoopbackProvider"
import { Deferred, Effect, Fiber } from "effect"
import { Ledger, mostInputTokens } from "../../src/run/Ledger.ts"
import { costOf, Prices } from "../../src/run/Prices.ts"
import type { Target } from "../../src/run/Settings.ts"
import { engineFor, prompt } from "../support/engine.ts"

const price = { input: 1, output: 10 }

const target: Target = {
  name: "main",
  wire: "openai",
  url: "http://127.0.0.1:1/v1",
  model: "rules",
  apiKey: undefined,
  keySource: "the test"
}

const make = (maxCost: number | undefined, options: Partial<ConstructorParameters<typeof Ledger>[0]> = {}) =>
  new Ledger({ targets: [target], maxTokens: 100, omit: [], maxCost, prices: new Prices(price, []), ...options })

/** The most that an attempt of this prompt costs: its input and 100 tokens. */
const most = costOf(price, { inputTokens: mostInputTokens(prompt(1)), outputTokens: 100 })

const half = (millionths: number): number => Math.ceil(millionths / 2)

const dollars = (millionths: number): number => millionths / 1e6

describe("Ledger", () => {
  it.effect("an attempt reserves its maximum and is settled by its usage", () =>
    Effect.gen(function*() {
      const ledger = make(dollars(2 * most))
      const purse = ledger.open(prompt(1))
      yield* ledger.take(purse)
      const attempt = ledger.begin(purse, target)
      assert.strictEqual(ledger.spent, 0)
      attempt?.settle({ inputTokens: 7, outputTokens: 3 })
      assert.deepStrictEqual([ledger.spent, ledger.close({ line: 1 })], [37, 37])
    }))

  it.effect("an attempt of unknown use stays spent at its maximum, and one that was refused costs nothing", () =>
    Effect.gen(function*() {
      const ledger = make(dollars(2 * most))
      const purse = ledger.open(prompt(1))
      yield* ledger.take(purse)
      ledger.begin(purse, target)?.settle("nothing")
      ledger.begin(purse, target)?.settle(undefined)
      assert.strictEqual(ledger.close({ line: 1 }), most)
    }))

  it.effect("a line waits while running attempts could free enough, and goes on once one has", () =>
    Effect.gen(function*() {
      const ledger = make(dollars(most + 50))
      const [first, second] = [ledger.open(prompt(1)), ledger.open(prompt(2))]
      yield* ledger.take(first)
      const running = ledger.begin(first, target)
      const waiting = yield* Effect.forkChild(ledger.take(second), { startImmediately: true })
      assert.isUndefined(waiting.pollUnsafe())
      running?.settle({ inputTokens: 10, outputTokens: 4 })
      yield* Fiber.join(waiting)
      assert.strictEqual(second.held, most)
      assert.isFalse(ledger.isExhausted)
    }))

  it.effect("the budget is exhausted as soon as nothing that runs could free enough", () =>
    Effect.gen(function*() {
      let times = 0
      const ledger = make(dollars(most + 40), { onExhausted: () => times++ })
      const [first, second, third] = [ledger.open(prompt(1)), ledger.open(prompt(2)), ledger.open(prompt(3))]
      yield* ledger.take(first)
      const running = ledger.begin(first, target)
      const waiting = yield* Effect.forkChild(Effect.flip(ledger.take(second)), { startImmediately: true })
      running?.settle({ inputTokens: 10, outputTokens: 4 })
      const { message } = yield* Fiber.join(waiting)
      assert.match(message, /^the budget of \$0\.\d+ is used up: \$0\.00005 spent/)
      yield* Effect.flip(ledger.take(third))
      assert.deepStrictEqual([times, ledger.isExhausted], [1, true])
    }))

  it.effect("a line that is interrupted while it waits lets the next one pass", () =>
    Effect.gen(function*() {
      const ledger = make(dollars(most))
      const [first, second, third] = [ledger.open(prompt(1)), ledger.open(prompt(2)), ledger.open(prompt(3))]
      yield* ledger.take(first)
      const waiting = yield* Effect.forkChild(ledger.take(second), { startImmediately: true })
      const behind = yield* Effect.forkChild(ledger.take(third), { startImmediately: true })
      yield* Fiber.interrupt(waiting)
      ledger.release(first)
      yield* Fiber.join(behind)
      assert.deepStrictEqual([second.held, third.held], [0, most])
    }))

  it.effect("a repeated attempt that does not fit now is not made", () =>
    Effect.gen(function*() {
      const ledger = make(dollars(most))
      const purse = ledger.open(prompt(1))
      yield* ledger.take(purse)
      ledger.begin(purse, target)?.settle(undefined)
      assert.isUndefined(ledger.begin(purse, target))
    }))

  it("a prompt without a price or a limit of tokens has a problem that names the flag", () => {
    assert.include(make(1, { maxTokens: undefined }).problemOf(prompt(1)), "--max-tokens")
    assert.isUndefined(
      make(1, { maxTokens: undefined }).problemOf({ model: undefined, body: { max_completion_tokens: 5 } })
    )
    for (const omit of [["max_tokens"], ["max_completion_tokens"]]) {
      assert.include(make(1, { omit }).problemOf(prompt(1)), "--omit")
    }
    assert.isUndefined(make(1, { omit: ["seed"] }).problemOf(prompt(1)))
    assert.include(make(1, { prices: new Prices(undefined, []) }).problemOf(prompt(1)), "no price for model rules at")
  })

  it.effect("an attempt waits until the mark covers it, and the mark is never above the budget", () =>
    Effect.gen(function*() {
      const marks: Array<number> = []
      const written: Array<() => void> = []
      const ledger = make(dollars(3 * most))
      ledger.useMark({
        raise: (atMost) =>
          new Promise((resolve) => {
            marks.push(atMost)
            written.push(resolve)
          })
      })
      const [first, second, third] = [ledger.open(prompt(1)), ledger.open(prompt(2)), ledger.open(prompt(3))]
      const one = ledger.begin(first, target)
      const waiting = yield* Effect.forkChild(ledger.covered() ?? Effect.void, { startImmediately: true })
      yield* Effect.yieldNow
      assert.deepStrictEqual([marks, waiting.pollUnsafe()], [[half(3 * most)], undefined])
      // Begun after the mark was computed, which does not cover them.
      ledger.begin(second, target)
      ledger.begin(third, target)
      const later = yield* Effect.forkChild(ledger.covered() ?? Effect.void, { startImmediately: true })
      written.shift()?.()
      yield* Fiber.join(waiting)
      yield* Effect.yieldNow
      assert.deepStrictEqual([marks, later.pollUnsafe()], [[half(3 * most), 3 * most], undefined])
      written.shift()?.()
      yield* Fiber.join(later)
      one?.settle({ inputTokens: 1, outputTokens: 0 })
      assert.isUndefined(ledger.covered())
    }))

  it.effect("an attempt that the mark cannot cover is not sent, and the run is told", () =>
    Effect.gen(function*() {
      const ledger = make(dollars(3 * most))
      const failed = Deferred.makeUnsafe<string>()
      ledger.onUnmarked = ({ message }) => Deferred.doneUnsafe(failed, Effect.succeed(message))
      ledger.useMark({ raise: () => Promise.reject(new Error("the disk is full")) })
      ledger.begin(ledger.open(prompt(1)), target)
      const waiting = yield* Effect.forkChild(ledger.covered() ?? Effect.void, { startImmediately: true })
      assert.strictEqual(yield* Deferred.await(failed), "the disk is full")
      assert.isUndefined(waiting.pollUnsafe())
    }))

  it("earlier runs count towards the budget", () => {
    const ledger = make(1)
    ledger.addEarlier(900_000)
    assert.deepStrictEqual([ledger.spent, ledger.spentNow, ledger.before], [900_000, 0, 900_000])
  })
})

const costIn = (journal: ReadonlyArray<Journal.Entry>): number =>
  journal.reduce((sum, entry) => sum + costOf(price, entry), 0)

/** A run with faults after which the use of an attempt is unknown. Its budget is enough for about half of the lines. */
const randomRun = (seed: number) =>
  Effect.scoped(Effect.gen(function*() {
    const { apiKey, journal, url } = yield* LoopbackProvider.make({
      models: ["rules"],
      pace: { firstTokenMillis: 1, tokenMillis: 0, tokensPerChunk: 4 },
      script: { seed, faults: { cut: 0.15, reset: 0.1, unavailable: 0.05, rateLimit: 0.05 }, retryAfterSeconds: 0 }
    })
    const own = { ...target, url, apiKey }
    const ledger = make(dollars(most * (2 + seed % 5)), { targets: [own], maxTokens: 20 + seed % 80 })
    const engine = yield* engineFor({ apiKey, url }, {
      targets: [own],
      ledger,
      maxTokens: 20 + seed % 80,
      concurrency: 1 + seed % 5,
      noShare: true,
      maxAttempts: 3
    })
    yield* Effect.forEach(
      Array.from({ length: 12 }, (_, index) => prompt(index + 1, `Question ${seed} ${index}`)),
      (line) => Effect.map(engine.complete(line), () => ledger.close(line)),
      { concurrency: 1 + seed % 5 }
    )
    return { seed, limit: ledger.limit, spent: ledger.spent, paid: costIn(yield* journal), ledger }
  }))

describe("a run with a budget", () => {
  it.live(
    "never costs more than it by the provider's own count, in 200 runs with failures without usage",
    () =>
      Effect.gen(function*() {
        const runs = yield* Effect.forEach(Array.from({ length: 200 }, (_, seed) => seed), randomRun, {
          concurrency: 200
        })
        for (const { limit, paid, seed, spent } of runs) {
          assert.isAtMost(paid, spent, `seed ${seed}: more was paid than the ledger has`)
          assert.isAtMost(spent, limit, `seed ${seed}`)
        }
        assert.isAbove(runs.filter(({ ledger }) => ledger.isExhausted).length, 50)
      }),
    120_000
  )
})
