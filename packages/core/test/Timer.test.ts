import { afterEach, assert, beforeEach, describe, it, vi } from "@effect/vitest"
import { Context } from "effect"
import { callAfter } from "@sluice/core/Timer"

const day = 86_400_000

describe("callAfter, on the machine's clock", () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it("calls back once, when the time has gone by", () => {
    let calls = 0
    callAfter(Context.empty(), 1000, () => calls++)
    vi.advanceTimersByTime(999)
    assert.strictEqual(calls, 0)
    vi.advanceTimersByTime(100_000)
    assert.strictEqual(calls, 1)
  })

  it("waits longer than one timer of the machine can", () => {
    let calls = 0
    callAfter(Context.empty(), 60 * day, () => calls++)
    vi.advanceTimersByTime(60 * day - 1)
    assert.strictEqual(calls, 0)
    vi.advanceTimersByTime(1)
    assert.strictEqual(calls, 1)
  })

  it("leaves no timer when it is called off, also one that is not the first", () => {
    for (const before of [10, 40 * day]) {
      const cancel = callAfter(Context.empty(), 60 * day, () => assert.fail("it was called off"))
      vi.advanceTimersByTime(before)
      cancel()
      assert.strictEqual(vi.getTimerCount(), 0)
      vi.advanceTimersByTime(100 * day)
    }
  })
})
