import { assert, describe, it } from "@effect/vitest"
import * as Strip from "../../demo/Strip.ts"

const opens = (at: number) => ({ target: "first", at, circuit: { state: "open", probeAt: at + 1_000 } }) as const
const closes = (at: number) => ({ target: "first", at, circuit: { state: "closed" } }) as const

describe("Strip", () => {
  it("a circuit that never opened is closed in every cell", () => {
    assert.strictEqual(Strip.render([], 1_000, 10), "----------")
  })

  it("the strip shows when the circuit opened, was probed and closed", () => {
    assert.strictEqual(Strip.render([opens(2_500), opens(5_500), closes(8_500)], 10_000, 10), "--OOO?OO?-")
  })

  it("a cell with a probe shows the probe, whatever else happened in it", () => {
    assert.strictEqual(Strip.render([opens(10), closes(20), opens(30)], 1_000, 4), "?OOO")
  })

  it("the strip has one cell per column", () => {
    for (const columns of [1, 7, 74]) assert.strictEqual(Strip.render([opens(3)], 100, columns).length, columns)
  })
})
