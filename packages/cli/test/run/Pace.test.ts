import { assert, describe, it } from "@effect/vitest"
import { Pace } from "../../src/run/Pace.ts"

/** A provider that takes this many calls in each second, and answers after 10 ms. Sends the prompts, 16 at once. */
const simulate = (perSecond: number, prompts: number) => {
  const pace = new Pace()
  let now = 1_000_000
  let restsUntil = 0
  let taken = 0
  let second = 0
  let [answered, refused] = [0, 0]
  while (answered < prompts && now < 1_000_000 + 3_600_000) {
    const free = Array.from({ length: 16 }, () => now < restsUntil ? undefined : pace.reserve(now, 5_000))
    for (const wait of free) {
      if (wait === undefined || wait > 5_000 || answered >= prompts) continue
      const at = now + wait
      if (Math.floor(at / 1_000) !== second) taken = 0
      second = Math.floor(at / 1_000)
      if (taken < perSecond) {
        taken++
        answered++
        pace.answered(at + 10)
      } else {
        refused++
        restsUntil = Math.max(restsUntil, at + pace.refused(at))
      }
    }
    now = Math.max(now + 10, ...free.map((wait) => now + (wait ?? 0)))
  }
  return { answered, refused, seconds: (now - 1_000_000) / 1_000 }
}

describe("Pace", () => {
  it.each([1, 5, 20, 200])("a provider that takes %i calls a second answers all, and refuses few", (perSecond) => {
    const prompts = 25 * perSecond
    const { answered, refused, seconds } = simulate(perSecond, prompts)
    assert.strictEqual(answered, prompts)
    // Three times as long as without a wrong guess, and a refusal for every third answer at most.
    assert.isBelow(seconds, 75)
    assert.isBelow(refused, 16 + prompts / 3)
  })

  it("a target that never limits the rate is not slowed down", () => {
    const pace = new Pace()
    for (let now = 0; now < 10_000; now++) {
      assert.strictEqual(pace.reserve(now, 5_000), 0)
      pace.answered(now)
    }
  })

  it("refusals of calls that were sent together lower the rate once", () => {
    const [one, many] = [new Pace(), new Pace()]
    for (const pace of [one, many]) for (let now = 0; now < 20; now++) pace.answered(now)
    one.refused(30)
    for (let now = 30; now < 130; now++) many.refused(now)
    const starts = (pace: Pace) => Array.from({ length: 4 }, () => pace.reserve(200, 60_000))
    assert.deepStrictEqual(starts(many), starts(one))
  })

  it("a start that is too far away is not reserved", () => {
    const pace = new Pace()
    pace.refused(0)
    const wait = pace.reserve(0, 10)
    assert.isAbove(wait, 10)
    assert.strictEqual(pace.reserve(0, 10), wait)
  })
})
