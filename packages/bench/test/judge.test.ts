import { assert, describe, it } from "@effect/vitest"
import { judge, spread } from "../src/judge.ts"
import type { MeasuredRow } from "../src/report.ts"
import { rowOf } from "../src/rows.ts"
import { type Target, targets } from "../src/targets.ts"

const row = (contenders: { readonly [name: string]: ReadonlyArray<number> }): MeasuredRow => ({
  id: "breaker-closed",
  title: "breaker, closed",
  unit: "ns",
  measurements: Object.entries(contenders).map(([contender, [first = 0, ...rest]]) => ({
    contender,
    rounds: [first, ...rest]
  }))
})

const target = (at: "least" | "most", limit: number): Target => ({
  _tag: "Ratio",
  row: "breaker-closed",
  rival: "Effect",
  at,
  limit
})

const verdictOn = (target: Target, measured: MeasuredRow) => {
  const [verdict, ...others] = judge([target], [measured])
  assert.deepStrictEqual(others, [])
  return verdict
}

describe("judge", () => {
  it("a limit of at least is compared with the cost of the rival divided by ours", () => {
    const verdict = verdictOn(target("least", 15), row({ Sluice: [100], Effect: [1_700] }))
    assert.deepInclude(verdict, { isReached: true, rival: "Effect", unit: "ratio" })
    assert.strictEqual(verdict?.value.median, 17)
  })

  it("a limit of at most is compared with our cost divided by the rival's", () => {
    const verdict = verdictOn(target("most", 2.5), row({ Sluice: [300], Effect: [100] }))
    assert.deepInclude(verdict, { isReached: false })
    assert.strictEqual(verdict?.value.median, 3)
  })

  it("a value equal to the limit reaches the target", () => {
    assert.isTrue(verdictOn(target("least", 2), row({ Sluice: [100], Effect: [200] }))?.isReached)
    assert.isTrue(verdictOn(target("most", 2), row({ Sluice: [200], Effect: [100] }))?.isReached)
  })

  it("the value is the median of the ratios of each round, so that slow rounds do not matter", () => {
    // In the second round both took ten times as long, in the third only the rival was slow.
    const measured = row({ Sluice: [100, 1_000, 100], Effect: [400, 4_000, 1_200] })
    assert.deepStrictEqual(verdictOn(target("least", 4), measured)?.value, { median: 4, lower: 4, upper: 8 })
  })

  it("an added limit is compared with the difference of both costs", () => {
    const limit: Target = { _tag: "Added", row: "breaker-closed", rival: "Effect", limit: 500 }
    const measured = row({ Sluice: [700, 1_100, 600], Effect: [200, 500, 200] })
    const verdict = verdictOn(limit, measured)
    assert.deepInclude(verdict, { isReached: true, rival: "Effect", unit: "ns", at: "most" })
    assert.strictEqual(verdict?.value.median, 500)
    assert.isFalse(verdictOn({ ...limit, limit: 499 }, measured)?.isReached)
  })

  it("a limit without a rival is compared with our cost, in the unit of the row", () => {
    for (const unit of ["bytes", "ns"] as const) {
      const limit: Target = { _tag: "Own", row: "breaker-closed", unit, limit: 160 }
      assert.deepInclude(verdictOn(limit, row({ Sluice: [160] })), { isReached: true, unit })
      assert.isFalse(verdictOn(limit, row({ Sluice: [161] }))?.isReached)
    }
  })

  it("targets of rows that were not measured are skipped", () => {
    assert.deepStrictEqual(judge(targets, []), [])
  })

  it("a rival that is missing from its row is an error", () => {
    assert.throws(() => judge([target("least", 15)], [row({ Sluice: [1] })]), "Effect was not measured")
  })
})

describe("spread", () => {
  it("a spread is the median and the quartiles of the rounds in any order", () => {
    assert.deepStrictEqual(spread([3, 1, 5, 2, 4]), { median: 3, lower: 2, upper: 4 })
    assert.deepStrictEqual(spread([4, 2]), { median: 3, lower: 2.5, upper: 3.5 })
    assert.deepStrictEqual(spread([7]), { median: 7, lower: 7, upper: 7 })
  })
})

describe("targets", () => {
  it("every target names a rival and a unit that its row has", () => {
    for (const target of targets) {
      const { contenders, unit } = rowOf(target.row)
      assert.include(contenders, "Sluice", target.row)
      if (target._tag !== "Own") assert.include(contenders, target.rival, target.row)
      // A ratio has no unit of its own.
      if (target._tag !== "Ratio") assert.strictEqual(unit, target._tag === "Own" ? target.unit : "ns", target.row)
    }
  })
})
