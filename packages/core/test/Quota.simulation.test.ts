/** The quota against strict providers, on the test's clock. All arrivals are checked by the provider's journal. */
import * as Quota from "@sluice/core/Quota"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { runQuota } from "./support/quotaRun.ts"
import {
  callsOf,
  type Counting,
  type Enforcement,
  minimumMillis,
  mostInAMinute,
  randomOf,
  StrictProvider,
  wan
} from "./support/strictProvider.ts"

const statedLimit = 60
const windows = 10

interface Requests {
  readonly kind: Enforcement
  /** The true limit, as a share of the stated one. */
  readonly share?: number
  readonly seed: number
  readonly follow?: boolean
  readonly limit?: number
}

/** Ten windows of requests. */
const sendRequests = ({ follow = false, kind, limit = statedLimit, seed, share = 1 }: Requests) =>
  Effect.gen(function*() {
    const random = randomOf(seed)
    const rpm = limit * share
    const calls = callsOf(windows * limit, random)
    const provider = new StrictProvider({ kind, rpm, phase: Math.floor(random() * 60_000) })
    const { lastStart, rejected, snapshot } = yield* runQuota({
      options: { limits: [Quota.requestsPerMinute(limit)] },
      provider,
      calls,
      delay: wan(random),
      concurrency: 200,
      ...(follow
        ? { seen: ({ remaining }, sentAt) => [{ dimension: "requests", limit: rpm, remaining, sentAt }] }
        : undefined)
    })
    return {
      ratio: lastStart / minimumMillis(kind, rpm, calls.length),
      rejected,
      most: mostInAMinute(provider.accepted.map((at) => [at, 1])),
      accepted: provider.accepted.length,
      snapshot
    }
  })

const tpm = 200_000

/** Ten windows of tokens. */
const sendTokens = (kind: Enforcement, counting: Counting, counts: Quota.Counts, seed: number) =>
  Effect.gen(function*() {
    const random = randomOf(seed)
    const calls = callsOf(2_000, random)
    const provider = new StrictProvider({ kind, rpm: 1_000_000, tpm, counting, phase: Math.floor(random() * 60_000) })
    const { lastStart, rejected, snapshot } = yield* runQuota({
      options: { limits: [Quota.tokensPerMinute(tpm, counts)] },
      provider,
      calls,
      delay: wan(random),
      concurrency: 64,
      amounts: ({ input, max }) => ({ tokens: { known: input, atMost: input + max } }),
      used: ({ input, output }) => ({ tokens: input + output }),
      latency: ({ output }) => 300 + 12 * output
    })
    const total = calls.reduce(
      (sum, { input, max, output }) => sum + input + (counting === "reserved" ? max : output),
      0
    )
    return {
      ratio: lastStart / ((total - tpm) / tpm * 60_000),
      rejected,
      most: mostInAMinute(provider.tokens) / tpm,
      counts: snapshot.levels[0]?.counts
    }
  })

describe("requests a minute, against a provider that enforces them strictly", () => {
  for (const kind of ["fixed", "bucket", "log"] as const) {
    for (const seed of [1, 2, 3, 4, 5]) {
      it.effect(`${kind}, seed ${seed}: no call is rejected, no minute exceeds the limit, and 3 % of the time are lost`, () =>
        Effect.gen(function*() {
          const { accepted, most, ratio, rejected } = yield* sendRequests({ kind, seed })
          assert.strictEqual(accepted, windows * statedLimit)
          assert.strictEqual(rejected, 0)
          assert.isAtMost(most, statedLimit)
          assert.isAtMost(ratio, 1.03)
        }))
    }
  }

  for (const kind of ["bucket10", "bucket1"] as const) {
    for (const seed of [1, 2, 3, 4, 5]) {
      it.effect(`${kind}, seed ${seed}: a limit that is enforced over a shorter time is learned`, () =>
        Effect.gen(function*() {
          const { most, ratio, rejected } = yield* sendRequests({ kind, limit: 300, seed })
          assert.isAtMost(rejected, 0.015)
          assert.isAtMost(ratio, 1.15)
          assert.isAtMost(most, 300)
        }))
    }
  }
})

describe("requests a minute, with a stated limit that is too high", () => {
  for (const kind of ["fixed", "bucket", "log"] as const) {
    for (const share of [0.5, 0.8]) {
      for (const seed of [1, 2, 3, 4, 5]) {
        it.effect(`${kind}, seed ${seed}: ${share} of the stated limit is learned from rejected calls`, () =>
          Effect.gen(function*() {
            const { ratio, rejected, snapshot } = yield* sendRequests({ kind, limit: 300, share, seed })
            assert.isAtMost(rejected, 0.01)
            assert.isAtMost(ratio, 1.08)
            assert.isBelow(snapshot.levels[0]?.limit ?? 0, 300 * (share + 0.1))
          }))
      }
    }

    it.effect(`${kind}: half of the stated limit is learned from headers, with hardly any rejected call`, () =>
      Effect.gen(function*() {
        const { ratio, rejected } = yield* sendRequests({ kind, share: 0.5, seed: 3, follow: true })
        assert.isAtMost(rejected, 0.01)
        assert.isAtMost(ratio, 1.12)
      }))
  }
})

describe("tokens a minute, against a provider that enforces them strictly", () => {
  for (const counting of ["actual", "reservedThenActual", "reserved"] as const) {
    for (const kind of ["fixed", "bucket", "log"] as const) {
      it.effect(`${kind}: a provider that counts ${counting} tokens, by the options too, rejects hardly any call`, () =>
        Effect.gen(function*() {
          const { most, ratio, rejected } = yield* sendTokens(kind, counting, counting, 11)
          assert.isAtMost(rejected, counting === "actual" ? 0.01 : 0)
          assert.isAtMost(most, 1.06)
          assert.isAtMost(ratio, 1.3)
        }))

      it.effect(`${kind}: "learned" finds out that a provider counts ${counting} tokens`, () =>
        Effect.gen(function*() {
          const { rejected, counts } = yield* sendTokens(kind, counting, "learned", 11)
          assert.isAtMost(rejected, 0.01)
          if (counting === "reserved") assert.strictEqual(counts, "reserved")
        }))
    }
  }
})

describe("calls of very different sizes", () => {
  const tokens = 60_000
  for (const [overtake, least, most] of [[0, 1.08, 1.13], [0.5, 1, 1.05]] as const) {
    it.effect(`small calls that may use ${overtake} of the size of a large one take at most ${most} of the least time`, () =>
      Effect.gen(function*() {
        const random = randomOf(5)
        // A large one in 300 needs half of the limit.
        const calls = Array.from({ length: 9_000 }, (_, index) => ({
          input: index % 300 === 150 ? 30_000 : 150,
          output: 0,
          max: 0
        }))
        const provider = new StrictProvider({ kind: "log", rpm: 1_000_000, tpm: tokens, phase: 0 })
        const { lastStart, rejected } = yield* runQuota({
          options: { limits: [Quota.tokensPerMinute(tokens)], overtake },
          provider,
          calls,
          delay: wan(random),
          concurrency: 9_000,
          amounts: ({ input }) => ({ tokens: input }),
          used: ({ input }) => ({ tokens: input })
        })
        const total = calls.reduce((sum, { input }) => sum + input, 0)
        assert.strictEqual(rejected, 0)
        assert.isAtMost(mostInAMinute(provider.tokens), tokens)
        const ratio = lastStart / ((total - tokens) / tokens * 60_000)
        assert.isAtLeast(ratio, least)
        assert.isAtMost(ratio, most)
      }))
  }
})
