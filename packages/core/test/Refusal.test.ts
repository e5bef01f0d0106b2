import { BackpressureShed } from "@sluice/core/Backpressure"
import * as Refusal from "@sluice/core/Refusal"
import { assert, it } from "@effect/vitest"

it("isRefusal narrows an unknown value, and is false for a value that is no refusal", () => {
  const shed: unknown = new BackpressureShed({
    policy: "gpt",
    why: "Full",
    permits: 1,
    running: 1,
    queued: 0,
    capacity: 1
  })
  const refusal: Refusal.Refusal = Refusal.isRefusal(shed) ? shed : assert.fail("a refusal")
  assert.isTrue(Refusal.TypeId in refusal)
  for (const value of [undefined, null, "503", new Error("503"), {}, [], () => shed]) {
    assert.isFalse(Refusal.isRefusal(value))
  }
})
