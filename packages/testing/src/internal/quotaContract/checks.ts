import * as Effect from "effect/Effect"
import { expect, expectThat } from "../contract/check.ts"
import { atOnce, type CheckBodies, type Fixture, fixtureOf, long, requests } from "./fixture.ts"

/** A window that passes during a check. */
const brief = { windowMillis: 1_000, quantumMillis: 10 }

const ids = (count: number) => Array.from({ length: count }, (_, nth) => `id ${nth}`)

export const reserve: CheckBodies = {
  "all asks are added, or none": Effect.fnUntraced(function*({ reserve, used }: Fixture) {
    const tokens = (amount: number) => requests(100, amount, { dimension: "tokens" })
    yield* expect("the first fits", (yield* reserve("a", [requests(10), tokens(80)])).ok, true)
    const verdict = yield* reserve("b", [requests(10), tokens(30)])
    yield* expect("the second does not", [verdict.ok, verdict.blockedBy], [false, 1])
    yield* expectThat("it has to wait", verdict.waitMillis >= 1, verdict.waitMillis, "at least 1")
    yield* expect("the answer has the sums", verdict.used, [1, 80])
    yield* expect("nothing of it was added", [yield* used(requests(10)), yield* used(tokens(0))], [1, 80])
  }),

  "a live id again is ok and takes nothing": Effect.fnUntraced(function*({ reserve, used }: Fixture) {
    yield* reserve("a", [requests(1), atOnce(1)])
    const again = yield* reserve("a", [requests(1), atOnce(1)])
    yield* expect("the lost reply can be repeated", [again.ok, again.used], [true, [1, 1]])
    yield* expect("it counts once", [yield* used(requests(1)), yield* used(atOnce(1))], [1, 1])
  }),

  "an amount above its limit fits only if nothing else counts": Effect.fnUntraced(
    function*({ reserve, settle }: Fixture) {
      yield* expect("alone", (yield* reserve("a", [requests(10, 50)])).ok, true)
      yield* expect("not beside another", (yield* reserve("b", [requests(10, 50)])).ok, false)
      yield* settle("a", { requests: 0 })
      yield* expect("alone again", (yield* reserve("c", [requests(10, 50)])).ok, true)
    }
  ),

  "an infinite limit only counts": Effect.fnUntraced(function*({ reserve, used }: Fixture) {
    const ask = requests(Number.POSITIVE_INFINITY, 1_000_000)
    yield* reserve("a", [ask])
    yield* expect("it fits", (yield* reserve("b", [ask])).ok, true)
    yield* expect("it counts", yield* used(ask), 2_000_000)
  }),

  "targets, scopes, dimensions and windows have separate sums": Effect.fnUntraced(
    function*({ reserve, sleep, store, target }: Fixture) {
      const asks = [
        requests(1),
        requests(1, 1, { scope: "t:b" }),
        requests(1, 1, { dimension: "tokens" }),
        requests(1, 1, { windowMillis: 2 * long })
      ]
      for (const [nth, ask] of asks.entries()) yield* expect("it fits", (yield* reserve(`${nth}`, [ask])).ok, true)
      const other = fixtureOf({ store, sleep }, `${target} other`)
      yield* expect("another target", (yield* other.reserve("0", [requests(1)])).ok, true)
    }
  ),

  "any text is a target, a scope, a dimension and an id": Effect.fnUntraced(
    function*({ sleep, store, target }: Fixture) {
      const texts = [
        "",
        " ",
        "{a}",
        ":",
        ",",
        ";",
        "%",
        "ü",
        "\u0000",
        "\ud800",
        "\ud801",
        "__proto__",
        "a\nb",
        "'\"\\"
      ]
      for (const text of texts) {
        const { reserve, settle, used } = fixtureOf({ store, sleep }, target + text)
        const ask = requests(1, 1, { scope: text, dimension: `d${text}` })
        yield* expect(`"${text}" fits`, (yield* reserve(text, [ask])).ok, true)
        yield* expect(`"${text}" counts`, yield* used(ask), 1)
        yield* expect(`"${text}" is settled`, yield* settle(text), true)
      }
    }
  ),

  "an amount leaves when its window has passed, and not before": Effect.fnUntraced(
    function*({ reserve, sleep }: Fixture) {
      const ask = requests(1, 1, brief)
      yield* reserve("a", [ask])
      const { ok, waitMillis } = yield* reserve("b", [ask])
      yield* expect("it does not fit yet", ok, false)
      yield* expectThat("the wait is of the window", waitMillis <= 1_100, waitMillis, "at most 1100")
      yield* sleep(waitMillis)
      yield* expect("it fits after the wait", (yield* reserve("b", [ask])).ok, true)
    }
  ),

  "an amount leaves later by the guard, and earlier if its settlement shows an earlier arrival": Effect.fnUntraced(
    function*({ reserve, settle, sleep }: Fixture) {
      const ask = requests(1, 1, { windowMillis: 2_000, quantumMillis: 10 })
      yield* reserve("a", [ask], { guardMillis: 500 })
      const guarded = (yield* reserve("b", [ask])).waitMillis
      yield* expectThat("it is later by the guard", guarded > 2_300, guarded, "more than 2300")
      yield* sleep(100)
      yield* settle("a", {}, 100)
      const anchored = (yield* reserve("b", [ask])).waitMillis
      yield* expectThat("it is anchored at its arrival", anchored <= 2_070, anchored, "at most 2070")
    }
  )
}

export const settle: CheckBodies = {
  "a settlement replaces the named amounts, keeps the rest, and frees amounts held at once": Effect.fnUntraced(
    function*({ reserve, settle, used }: Fixture) {
      const tokens = requests(100, 80, { dimension: "tokens" })
      yield* reserve("a", [requests(10, 3), tokens, atOnce(1)])
      yield* expect("it is held", yield* settle("a", { tokens: 7, atOnce: 9 }), true)
      const after = [yield* used(requests(10)), yield* used(tokens), yield* used(atOnce(1))]
      yield* expect("what counts", after, [3, 7, 0])
    }
  ),

  "an amount of 0 is reserved and settled": Effect.fnUntraced(function*({ reserve, settle, used }: Fixture) {
    yield* reserve("a", [requests(10, 0), atOnce(1, 0)])
    yield* expect("it is held", yield* settle("a", { requests: 0 }), true)
    yield* expect("what counts", [yield* used(requests(10)), yield* used(atOnce(1))], [0, 0])
  }),

  "an id that is not held is not settled": Effect.fnUntraced(function*({ reserve, settle, used }: Fixture) {
    yield* reserve("a", [requests(10, 3)])
    yield* expect("unknown", yield* settle("b", { requests: 0 }), false)
    yield* settle("a", { requests: 2 })
    yield* expect("twice", yield* settle("a", { requests: 0 }), false)
    yield* expect("what counts", yield* used(requests(10)), 2)
  }),

  "a settlement above the reservation is a debt, and a later one never makes a sum negative": Effect.fnUntraced(
    function*({ reserve, settle, used }: Fixture) {
      yield* reserve("a", [requests(10, 3)])
      yield* settle("a", { requests: 25 })
      yield* expect("the debt counts", yield* used(requests(10)), 25)
      yield* expect("nothing fits", (yield* reserve("b", [requests(10)])).ok, false)
    }
  ),

  "an amount that has left its window takes no settlement": Effect.fnUntraced(
    function*({ reserve, settle, sleep, used }: Fixture) {
      const ask = requests(10, 5, brief)
      yield* reserve("a", [ask])
      yield* sleep(1_200)
      yield* settle("a", { requests: 0 })
      yield* expect("the sum is not negative", yield* used(ask), 0)
      yield* reserve("b", [ask])
      yield* expect("and counts on", yield* used(ask), 5)
    }
  ),

  "a recorded amount counts, also above the limit": Effect.fnUntraced(
    function*({ reserve, store, target, used }: Fixture) {
      yield* store.record({ target, asks: [requests(10, 12)] })
      yield* expect("it counts", yield* used(requests(10)), 12)
      yield* expect("nothing fits", (yield* reserve("a", [requests(10)])).ok, false)
    }
  )
}

export const lease: CheckBodies = {
  "a lease that ends frees amounts held at once, and windows keep their amounts": Effect.fnUntraced(
    function*({ reserve, settle, sleep, used }: Fixture) {
      yield* reserve("a", [atOnce(1), requests(10)], { leaseMillis: 25 })
      yield* expect("it is full", (yield* reserve("b", [atOnce(1)])).ok, false)
      yield* sleep(30)
      yield* expect("it is free", (yield* reserve("b", [atOnce(1)])).ok, true)
      yield* expect("the window", yield* used(requests(10)), 1)
      yield* expect("the dead id is not held", yield* settle("a", { requests: 0 }), false)
    }
  ),

  "a renewed lease does not end at its first time": Effect.fnUntraced(
    function*({ reserve, sleep, store, target }: Fixture) {
      yield* reserve("a", [atOnce(1)], { leaseMillis: 200 })
      yield* store.renew({ target, ids: ["a", "unknown"], leaseMillis: long })
      yield* sleep(250)
      yield* expect("it is full", (yield* reserve("b", [atOnce(1)])).ok, false)
    }
  ),

  "the limit of all processes is the last that was learned, at most the stated one": Effect.fnUntraced(
    function*({ store, target }: Fixture) {
      const ask = { target, dimension: "requests", stated: 100 }
      yield* expect("unknown", (yield* store.limit(ask)).limit, 100)
      yield* expect("learned", (yield* store.limit({ ...ask, seen: 40 })).limit, 40)
      yield* expect("kept", (yield* store.limit(ask)).limit, 40)
      yield* expect("capped", (yield* store.limit({ ...ask, seen: 900 })).limit, 100)
      const { restMillis } = yield* store.limit({ ...ask, restMillis: long })
      yield* expectThat("the rest", restMillis > long - 60_000 && restMillis <= long, restMillis, "about 600000")
      const { restMillis: after } = yield* store.limit({ ...ask, restMillis: 5 })
      yield* expectThat("the longer rest holds", after > long - 60_000, after, "about 600000")
    }
  )
}

export const concurrency: CheckBodies = {
  "200 asks at once for 33 places give exactly 33, and all settled to nothing leave 0": Effect.fnUntraced(
    function*({ reserve, settle, used }: Fixture) {
      const asks = [requests(33), atOnce(50), requests(1_000, 7, { dimension: "tokens" })]
      const verdicts = yield* Effect.forEach(
        ids(200),
        (id) => Effect.map(reserve(id, asks), ({ ok }) => ({ id, ok })),
        {
          concurrency: "unbounded"
        }
      )
      const granted = verdicts.filter(({ ok }) => ok)
      yield* expect("granted", granted.length, 33)
      yield* Effect.forEach(granted, ({ id }) => settle(id, { requests: 0, tokens: 0 }), { concurrency: "unbounded" })
      yield* expect("left", yield* Effect.forEach(asks, used), [0, 0, 0])
    }
  )
}
