import { assert, describe, it } from "@effect/vitest"
import { Limits } from "../../src/internal/loopback/limits.ts"

const make = (enforcement: "bucket" | "fixedWindow" | "log") =>
  new Limits({
    requestsPerMinute: 600,
    tokensPerMinute: undefined,
    concurrent: undefined,
    enforcement,
    windowMillis: 1_000
  }, 0)

/** How many of these requests, at each of these moments, are admitted. */
const admitted = (limits: Limits, count: number, ...moments: ReadonlyArray<number>): ReadonlyArray<number> =>
  moments.map((now) =>
    Array.from({ length: count }, () => limits.enter(1, now)).filter((limited) => limited === undefined).length
  )

const retryAfter = (limits: Limits, now: number) => limits.enter(1, now)?.retryAfterMillis

describe("limits of a loopback provider: 600 a minute, enforced over a second", () => {
  it("a bucket refills while time passes", () => {
    const limits = make("bucket")
    assert.deepStrictEqual(admitted(limits, 20, 0, 500, 1_000), [10, 5, 5])
    assert.strictEqual(retryAfter(limits, 1_000), 100)
  })

  it("a fixed window admits its limit at its end, and again at the beginning of the next one", () => {
    const limits = make("fixedWindow")
    assert.deepStrictEqual(admitted(limits, 20, 999, 1_000, 1_500), [10, 10, 0])
    assert.strictEqual(retryAfter(limits, 1_500), 500)
  })

  it("a log never admits more than its limit in any window", () => {
    const limits = make("log")
    assert.deepStrictEqual(admitted(limits, 4, 0, 400, 800, 1_000, 1_400), [4, 4, 2, 4, 4])
    assert.strictEqual(retryAfter(limits, 1_500), 300)
  })
})
