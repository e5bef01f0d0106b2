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

  for (const [kind, share] of [["bucket10", 0.01], ["bucket1", 0.03]] as const) {
    it.effect(`${kind}: a limit that is enforced over a shorter time is learned`, () =>
      Effect.gen(function*() {
        const { most, ratio, rejected } = yield* sendRequests({ kind, limit: 300, seed: 7 })
        assert.isAtMost(rejected, share)
        assert.isAtMost(ratio, 1.15)
        assert.isAtMost(most, 300)
      }))
  }
})

describe("requests a minute, with a stated limit that is too high", () => {
  for (const kind of ["fixed", "bucket", "log"] as const) {
    it.effect(`${kind}: half of the stated limit is learned from rejected calls`, () =>
      Effect.gen(function*() {
        const { ratio, rejected, snapshot } = yield* sendRequests({ kind, share: 0.5, seed: 3 })
        assert.isAtMost(rejected, 0.03)
        assert.isAtMost(ratio, 1.12)
        assert.isBelow(snapshot.levels[0]?.limit ?? 0, statedLimit * 0.8)
      }))

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
