import { assert, describe, it } from "@effect/vitest"
import { Ids } from "../../src/run/Ids.ts"

describe("Ids", () => {
  it("of 100,000 ids only those that come again are counted", () => {
    const ids = new Ids()
    for (let line = 1; line <= 100_000; line++) ids.add(line, `ticket-${line}`)
    assert.deepStrictEqual([ids.repeated, ids.first], [0, undefined])
    ids.add(100_001, undefined)
    ids.add(100_002, undefined)
    ids.add(100_003, "ticket-77")
    ids.add(100_004, "ticket-1")
    assert.deepStrictEqual([ids.repeated, ids.first], [2, { line: 100_003, id: "ticket-77" }])
  })
})
