import * as Effect from "effect/Effect"
import { expect, expectThat } from "../frame.ts"
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

  "an ask with a least amount is granted what there is room for, or nothing": Effect.fnUntraced(
    function*({ reserve, used }: Fixture) {
      const tokens = (amount: number, least?: number) => requests(100, amount, { dimension: "tokens", least })
      const first = yield* reserve("a", [requests(10, 4, { least: 1 }), tokens(70)])
      yield* expect("all of it fits", [first.ok, first.granted], [true, [4, 70]])
      const part = yield* reserve("b", [requests(10, 4, { least: 1 }), tokens(50, 20)])
      yield* expect("a part fits", [part.ok, part.granted, part.used], [true, [4, 30], [8, 100]])
      const again = yield* reserve("b", [requests(10, 4, { least: 1 }), tokens(50, 20)])
      yield* expect("of other asks it holds none", (yield* reserve("a", [requests(1, 1, { scope: "x" })])).granted, [0])
      yield* expect("a repeated request is granted the same", [again.ok, again.granted], [true, [4, 30]])
      const none = yield* reserve("c", [requests(10, 1), tokens(50, 1)])
      yield* expect("none is left", [none.ok, none.blockedBy, none.granted], [false, 1, [0, 0]])
      yield* expect("nothing of it was added", [yield* used(requests(10)), yield* used(tokens(0))], [8, 100])
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

  "a settlement that keeps the id gives back the rest, and another one follows": Effect.fnUntraced(
    function*({ reserve, settle, used }: Fixture) {
      yield* reserve("a", [requests(10, 8), atOnce(1)])
      yield* expect("it is held", yield* settle("a", { requests: 3, atOnce: 0 }, 0, true), true)
      yield* expect("what counts", [yield* used(requests(10)), yield* used(atOnce(1))], [3, 1])
      yield* expect("again", yield* settle("a", { requests: 2 }, 0, true), true)
      yield* expect("the last one", yield* settle("a", { requests: 1 }), true)
      yield* expect("what counts in the end", [yield* used(requests(10)), yield* used(atOnce(1))], [1, 0])
      yield* expect("it is over", yield* settle("a", { requests: 0 }), false)
    }
  ),

  "a settlement that keeps the id does not let its amounts leave earlier": Effect.fnUntraced(
    function*({ reserve, settle }: Fixture) {
      const ask = requests(1, 1, { windowMillis: 2_000, quantumMillis: 10 })
      yield* reserve("a", [ask], { guardMillis: 500 })
      yield* settle("a", {}, 100, true)
      const { waitMillis } = yield* reserve("b", [ask])
      yield* expectThat("it waits for the guard too", waitMillis > 2_100, waitMillis, "more than 2100")
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
      yield* expect("it has left", yield* used(ask), 0)
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
  ),

  "a recorded amount leaves by the time of its arrival, and does not count after its window": Effect.fnUntraced(
    function*({ reserve, store, target, used }: Fixture) {
      const ask = requests(10, 6)
      yield* store.record({ target, asks: [{ ...ask, agoMillis: long / 2 }, { ...ask, agoMillis: 2 * long }] })
      yield* expect("only the newer counts", yield* used(ask), 6)
      const { waitMillis } = yield* reserve("a", [ask])
      yield* expectThat("it leaves in half a window", waitMillis < long / 2 + 60_000, waitMillis, "at most 360000")
    }
  )
}

export const lease: CheckBodies = {
  "a lease that ends frees amounts held at once, and windows keep their amounts": Effect.fnUntraced(
    function*({ reserve, settle, sleep, used }: Fixture) {
      const first = yield* reserve("a", [atOnce(1), requests(10)], { leaseMillis: 25 })
      const second = yield* reserve("b", [atOnce(1)])
      // On a slow machine the lease may have ended.
      yield* expectThat("it is full", !second.ok || second.now >= first.now + 25, second.ok, "false")
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

  "targets are listed in the order of their names, in pages": Effect.fnUntraced(
    function*({ store, target }: Fixture) {
      const names = ["", "!", "/x", "{}", "a", "é"].map((end) => `${target} list${end}`).sort()
      for (const [nth, name] of names.toReversed().entries()) {
        if (nth % 2 === 0) yield* store.limit({ target: name, dimension: "requests", seen: 5 })
        else yield* store.record({ target: name, asks: [requests(1)] })
      }
      // Other checks have other names.
      const before = `${target} lis`
      const first = yield* store.targets({ after: before, limit: 4 })
      yield* expect("the first page", first, names.slice(0, 4))
      const next = yield* store.targets({ after: first[3], limit: 2 })
      yield* expect("the next page", next, names.slice(4))
      yield* expect("without a start", (yield* store.targets({ limit: 1 })).length, 1)
      yield* expect("a read lists no target", yield* store.read({ target: `${before} read`, scopes: ["all"] }), [])
      yield* expect("it is not there", (yield* store.targets({ after: `${before} rea`, limit: 1 }))[0], names[0])
    }
  ),

  "the limit of all processes is the last that was learned, and the longest rest holds": Effect.fnUntraced(
    function*({ sleep, store, target }: Fixture) {
      const ask = { target, dimension: "requests" }
      yield* expect("unknown", yield* store.limit(ask), {
        limit: Number.POSITIVE_INFINITY,
        ageMillis: 0,
        restMillis: 0
      })
      yield* expect("learned", (yield* store.limit({ ...ask, seen: 40 })).limit, 40)
      yield* sleep(20)
      const kept = yield* store.limit(ask)
      yield* expect("kept", kept.limit, 40)
      yield* expectThat("its age", kept.ageMillis >= 20 && kept.ageMillis < 60_000, kept.ageMillis, "at least 20")
      yield* expect("the last one", (yield* store.limit({ ...ask, seen: 900 })).limit, 900)
      const { restMillis } = yield* store.limit({ ...ask, restMillis: long })
      yield* expectThat("the rest", restMillis > long - 60_000 && restMillis <= long, restMillis, "about 600000")
      const after = yield* store.limit({ ...ask, restMillis: 5 })
      yield* expectThat("the longer rest holds", after.restMillis > long - 60_000, after.restMillis, "about 600000")
      yield* expect("a rest changes no limit", after.limit, 900)
      yield* expect("another dimension", (yield* store.limit({ target, dimension: "tokens" })).limit, Infinity)
    }
  ),

  "each answer repeats what was learned of its target": Effect.fnUntraced(
    function*({ reserve, store, target }: Fixture) {
      yield* expect("nothing yet", (yield* reserve("a", [requests(10)])).learned, [])
      yield* store.limit({ target, dimension: "requests/1, %;", seen: 7 })
      yield* store.limit({ target, dimension: "", restMillis: long })
      for (const ask of [requests(10), requests(1)]) {
        const { learned } = yield* reserve("b", [ask])
        const [rest, limit] = learned.toSorted((a, b) => a.dimension < b.dimension ? -1 : 1)
        yield* expect("the names", [rest?.dimension, limit?.dimension, learned.length], ["", "requests/1, %;", 2])
        yield* expect("the limits", [rest?.limit, limit?.limit], [Infinity, 7])
        const restMillis = rest?.restMillis ?? 0
        yield* expectThat("the rest", restMillis > long - 60_000 && restMillis <= long, restMillis, "about 600000")
      }
    }
  )
}

const hour = 3_600_000

/** Checks of a store whose clock is set back. Without `setBack` they check nothing. */
export const clock: CheckBodies = {
  "a window does not last longer after the clock was set back by an hour": Effect.fnUntraced(
    function*({ reserve, setBack, sleep }: Fixture) {
      if (setBack === undefined) return
      const ask = requests(1, 1, brief)
      yield* reserve("a", [ask])
      yield* setBack(hour)
      const { ok, waitMillis } = yield* reserve("b", [ask])
      yield* expectThat("it waits for its window", !ok && waitMillis <= 1_100, waitMillis, "at most 1100")
      yield* sleep(waitMillis)
      yield* expect("it fits after the wait", (yield* reserve("b", [ask])).ok, true)
    }
  ),

  "a lease does not last longer after the clock was set back by an hour": Effect.fnUntraced(
    function*({ reserve, setBack, sleep }: Fixture) {
      if (setBack === undefined) return
      yield* reserve("a", [atOnce(1)], { leaseMillis: 200 })
      yield* setBack(hour)
      yield* reserve("b", [atOnce(1)])
      yield* sleep(250)
      yield* expect("it has ended", (yield* reserve("b", [atOnce(1)])).ok, true)
    }
  ),

  "a rest does not last longer after the clock was set back by an hour": Effect.fnUntraced(
    function*({ reserve, setBack, store, target }: Fixture) {
      if (setBack === undefined) return
      yield* reserve("a", [requests(1)])
      yield* store.limit({ target, dimension: "requests", seen: 5, restMillis: long })
      yield* setBack(hour)
      const { ageMillis, restMillis } = yield* store.limit({ target, dimension: "requests" })
      yield* expectThat("its end", restMillis <= long && ageMillis >= 0, { ageMillis, restMillis }, "at most 600000")
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
