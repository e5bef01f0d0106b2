import { afterEach, assert, beforeEach, describe, it, vi } from "@effect/vitest"
import { Context } from "effect"
import { callAfter } from "@sluice/core/Timer"

const day = 86_400_000

describe("callAfter on setTimeout", () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it("callAfter calls back once, after the time", () => {
    let calls = 0
    callAfter(Context.empty(), 1000, () => calls++)
    vi.advanceTimersByTime(999)
    assert.strictEqual(calls, 0)
    vi.advanceTimersByTime(100_000)
    assert.strictEqual(calls, 1)
  })

  it("callAfter waits longer than one setTimeout can", () => {
    let calls = 0
    callAfter(Context.empty(), 60 * day, () => calls++)
    vi.advanceTimersByTime(60 * day - 1)
    assert.strictEqual(calls, 0)
    vi.advanceTimersByTime(1)
    assert.strictEqual(calls, 1)
  })

  it("cancelling callAfter leaves no timer, also after its first timer", () => {
    for (const before of [10, 40 * day]) {
      const cancel = callAfter(Context.empty(), 60 * day, () => assert.fail("it was cancelled"))
      vi.advanceTimersByTime(before)
      cancel()
      assert.strictEqual(vi.getTimerCount(), 0)
      vi.advanceTimersByTime(100 * day)
    }
  })
})
