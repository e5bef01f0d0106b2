import type { Claimed } from "@sluice/core/FlightStore"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { expect, expectThat, long } from "../frame.ts"
import type { CheckBodies, Fixture } from "./fixture.ts"

/** Milliseconds that a check waits for. On a store with a real clock that takes as long. */
const short = 50

const resultIn = (claimed: Claimed): string | undefined => claimed._tag === "Result" ? claimed.result : undefined

export const claims: CheckBodies = {
  "the first claim leads, and the others follow it": Effect.fnUntraced(function*({ claim }: Fixture) {
    const first = yield* claim("a")
    yield* expect("the first leads", first._tag, "Lead")
    const second = yield* claim("b")
    yield* expect("the second follows", [second._tag, second.generation], ["Follow", first.generation])
    yield* expectThat(
      "it knows how long the lease lasts",
      second._tag === "Follow" && second.leaseMillis > long / 2 && second.leaseMillis <= long,
      second,
      `at most ${long}`
    )
  }),

  "one of 20 concurrent claims leads": Effect.fnUntraced(function*({ claim }: Fixture) {
    const ids = Array.from({ length: 20 }, (_, nth) => `${nth}`)
    const answers = yield* Effect.forEach(ids, (id) => claim(id), { concurrency: "unbounded" })
    yield* expect("one leads", answers.filter(({ _tag }) => _tag === "Lead").length, 1)
    yield* expect("all have its generation", new Set(answers.map(({ generation }) => generation)).size, 1)
  }),

  "a leader whose reply was lost claims again, and leads": Effect.fnUntraced(function*({ claim, sleep }: Fixture) {
    const first = yield* claim("a", { leaseMillis: 20 * short })
    const again = yield* claim("a")
    yield* expect("it leads with the same generation", again, first)
    yield* sleep(21 * short)
    yield* expect("the others follow", (yield* claim("b"))._tag, "Follow")
  }),

  "keys are separate, and any text is a key and an id": Effect.fnUntraced(
    function*({ claim, complete, prefix }: Fixture) {
      const texts = ["", " ", "{a}", ":", "a:b", "%", "'\"", "\n", "é", "e\u0301", "😀", "__proto__", "x".repeat(500)]
      for (const text of texts) {
        const key = `${prefix}${text}`
        yield* expect("it leads", (yield* claim(text, { key }))._tag, "Lead")
        yield* expect("it completes", yield* complete(text, `"${text}"`, { key, freshMillis: long }), true)
      }
      for (const text of texts) {
        yield* expect("it has its result", resultIn(yield* claim("z", { key: `${prefix}${text}` })), `"${text}"`)
      }
    }
  )
}

export const leases: CheckBodies = {
  "a lapsed lease is taken over by the next claim": Effect.fnUntraced(function*({ claim, sleep }: Fixture) {
    const first = yield* claim("a", { leaseMillis: short })
    yield* sleep(2 * short)
    const second = yield* claim("b", { following: first.generation })
    yield* expect("it leads", second._tag, "Lead")
    yield* expectThat("the generation grows", second.generation > first.generation, second.generation, "more")
    yield* expect("the late leader follows", (yield* claim("a"))._tag, "Follow")
  }),

  "one of 20 concurrent claims takes over": Effect.fnUntraced(function*({ claim, sleep }: Fixture) {
    const { generation: following } = yield* claim("a", { leaseMillis: short })
    yield* sleep(2 * short)
    const ids = Array.from({ length: 20 }, (_, nth) => `${nth}`)
    const answers = yield* Effect.forEach(ids, (id) => claim(id, { following }), { concurrency: "unbounded" })
    yield* expect("one leads", answers.filter(({ _tag }) => _tag === "Lead").length, 1)
  }),

  "a renewed lease does not lapse": Effect.fnUntraced(function*({ claim, renew, sleep }: Fixture) {
    yield* claim("a", { leaseMillis: 20 * short })
    yield* expect("it is renewed", yield* renew("a"), true)
    yield* sleep(21 * short)
    yield* expect("the others still follow", (yield* claim("b"))._tag, "Follow")
  }),

  "a lapsed lease cannot be renewed, completed or released": Effect.fnUntraced(
    function*({ claim, complete, release, renew, sleep }: Fixture) {
      const { generation: following } = yield* claim("a", { leaseMillis: short })
      yield* sleep(2 * short)
      yield* expect("renew", yield* renew("a"), false)
      yield* expect("complete", yield* complete("a", "late", { freshMillis: long }), false)
      yield* expect("release", yield* release("a"), false)
      yield* expect("nothing was stored", (yield* claim("b", { following }))._tag, "Lead")
    }
  ),

  "a late leader does not touch the lease and the result of its successor": Effect.fnUntraced(
    function*({ claim, complete, release, renew, sleep }: Fixture) {
      const { generation: following } = yield* claim("a", { leaseMillis: short })
      yield* sleep(2 * short)
      yield* claim("b")
      const late = [yield* renew("a"), yield* release("a"), yield* complete("a", "late", { freshMillis: long })]
      yield* expect("it is refused", late, [false, false, false])
      yield* expect("the successor leads", (yield* claim("b"))._tag, "Lead")
      yield* expect("the successor completes", yield* complete("b", "right"), true)
      yield* expect("it is refused again", yield* complete("a", "late", { freshMillis: long }), false)
      yield* expect("the result is the successor's", resultIn(yield* claim("c", { following })), "right")
    }
  ),

  "an id without a lease changes nothing": Effect.fnUntraced(
    function*({ claim, complete, release, renew }: Fixture) {
      const unknown = [yield* renew("a"), yield* complete("a", "x", { freshMillis: long }), yield* release("a")]
      yield* expect("of an unknown key", unknown, [false, false, false])
      yield* claim("a")
      const other = [yield* renew("b"), yield* complete("b", "x", { freshMillis: long }), yield* release("b")]
      yield* expect("of another's lease", other, [false, false, false])
      yield* expect("the lease is untouched", (yield* claim("a"))._tag, "Lead")
    }
  )
}

export const ends: CheckBodies = {
  "those who followed get the result, and no other claim does": Effect.fnUntraced(
    function*({ claim, complete }: Fixture) {
      yield* claim("a")
      const { generation: following } = yield* claim("b")
      yield* expect("the leader completes", yield* complete("a", "42"), true)
      const followed = yield* claim("b", { following })
      const expected = { _tag: "Result", generation: following, result: "42", freshMillis: 0 }
      yield* expect("a follower has the result", followed, expected)
      yield* expect("a later claim leads", (yield* claim("c"))._tag, "Lead")
      yield* expect("another follower still has it", resultIn(yield* claim("d", { following })), "42")
    }
  ),

  "a follower gets the result of a later lease too, and not of an earlier one": Effect.fnUntraced(
    function*({ claim, complete }: Fixture) {
      const first = yield* claim("a")
      yield* complete("a", "first")
      const second = yield* claim("b")
      const early = yield* claim("c", { following: second.generation })
      yield* expect("the earlier result is not for it", [early._tag, early.generation], ["Follow", second.generation])
      yield* complete("b", "second")
      yield* expect("a follower of the first", resultIn(yield* claim("d", { following: first.generation })), "second")
      yield* expect("a follower of the second", resultIn(yield* claim("c", { following: second.generation })), "second")
    }
  ),

  "a fresh result is for every claim": Effect.fnUntraced(function*({ claim, complete }: Fixture) {
    yield* claim("a")
    yield* complete("a", "42", { freshMillis: long })
    const found = yield* claim("b")
    yield* expect("it is returned", resultIn(found), "42")
    yield* expectThat(
      "it says for how long",
      found._tag === "Result" && found.freshMillis > long / 2 && found.freshMillis <= long,
      found,
      `at most ${long}`
    )
  }),

  "a result is neither fresh nor kept for longer than was said": Effect.fnUntraced(
    function*({ claim, complete, sleep }: Fixture) {
      const { generation: following } = yield* claim("a")
      yield* complete("a", "42", { freshMillis: short, keepMillis: 20 * short })
      yield* sleep(2 * short)
      yield* expect("a follower has it", resultIn(yield* claim("b", { following })), "42")
      yield* sleep(20 * short)
      yield* expect("then it leads", (yield* claim("b", { following }))._tag, "Lead")
    }
  ),

  "a result that was completed once stays, and the repeated request is true": Effect.fnUntraced(
    function*({ claim, complete }: Fixture) {
      yield* claim("a")
      const twice = [
        yield* complete("a", "42", { freshMillis: long }),
        yield* complete("a", "42", { freshMillis: long })
      ]
      yield* expect("the lost reply can be repeated", twice, [true, true])
      yield* expect("the result is there", resultIn(yield* claim("b")), "42")
    }
  ),

  "the first result of a lease stays, whatever is completed later": Effect.fnUntraced(
    function*({ claim, complete, sleep }: Fixture) {
      const { generation: following } = yield* claim("a")
      yield* complete("a", "first", { freshMillis: 20 * short, keepMillis: 20 * short })
      yield* complete("a", "second", { freshMillis: long, keepMillis: long })
      yield* expect("it is there", resultIn(yield* claim("b", { following })), "first")
      yield* sleep(21 * short)
      yield* expect("it ends at its time", (yield* claim("b", { following }))._tag, "Lead")
    }
  ),

  "a released lease is led by the next claim, and has no result": Effect.fnUntraced(
    function*({ claim, complete, release }: Fixture) {
      yield* claim("a")
      const { generation: following } = yield* claim("b")
      yield* expect("it is released", yield* release("a"), true)
      yield* expect("it cannot be completed", yield* complete("a", "42", { freshMillis: long }), false)
      const next = yield* claim("b", { following })
      yield* expect("the follower leads", next._tag, "Lead")
      yield* expectThat("the generation grows", next.generation > following, next.generation, `above ${following}`)
    }
  ),

  "any text is a result, the empty one too": Effect.fnUntraced(function*({ claim, complete, prefix }: Fixture) {
    for (const result of ["", "0", "null", "'\"\\", "é😀", "{\"a\":[1,2]}", "x".repeat(200_000)]) {
      const key = `${prefix}${result.length} ${result.slice(0, 9)}`
      yield* claim("a", { key })
      yield* complete("a", result, { key, freshMillis: long })
      yield* expect("it is returned", resultIn(yield* claim("b", { key })), result)
    }
  }),

  "finished names a key whose lease has ended while others followed": Effect.fnUntraced(
    function*({ claim, complete, key, release, sleep, store }: Fixture) {
      if (store.finished === undefined) return
      const heard = yield* Effect.forkChild(
        Stream.runDrain(Stream.take(Stream.filter(store.finished, (finished) => finished === key), 2)),
        { startImmediately: true }
      )
      // It can lose keys, above all before it has started.
      for (let round = 0; round < 200 && heard.pollUnsafe() === undefined; round++) {
        yield* claim(`a${round}`)
        yield* claim("follower")
        yield* round % 2 === 0 ? complete(`a${round}`, "42") : release(`a${round}`)
        yield* sleep(25)
      }
      yield* expectThat("it was named", heard.pollUnsafe() !== undefined, "never", "twice")
      yield* Fiber.interrupt(heard)
    }
  )
}

export const purge: CheckBodies = {
  "purge deletes the entries of a tenant, an operation or a key, and no others": Effect.fnUntraced(
    function*({ claim, complete, key, prefix, store }: Fixture) {
      const flights = ["1", "2"].flatMap((tenant) =>
        ["1", "2"].map((operation) => ({
          key: `${prefix}${tenant}${operation}`,
          operation: `${prefix}o${operation}`,
          tenant: `${prefix}t${tenant}`
        }))
      )
      const fill = Effect.forEach(flights, (flight) =>
        Effect.andThen(
          claim("a", flight),
          complete("a", flight.key, { ...flight, freshMillis: long })
        ))
      const left = Effect.map(
        Effect.forEach(flights, (flight) => claim("b", flight)),
        (found) => found.map(resultIn).map((result) => result?.slice(prefix.length))
      )
      yield* fill
      yield* expect("of a tenant", yield* store.purge({ by: "tenant", hash: `${prefix}t1` }), 2)
      yield* expect("of the other tenant they stay", yield* left, [undefined, undefined, "21", "22"])
      // The claims have made the purged entries anew.
      yield* expect("of an operation", yield* store.purge({ by: "operation", hash: `${prefix}o1` }), 2)
      yield* expect("of the other operation they stay", (yield* left).slice(2), [undefined, "22"])
      yield* expect("of a key", yield* store.purge({ by: "key", hash: `${prefix}22` }), 1)
      yield* expect("none is left", (yield* left).slice(2), [undefined, undefined])
      yield* expect("of an unknown tenant", yield* store.purge({ by: "tenant", hash: `${prefix}t3` }), 0)
      for (const id of ["c", "d"]) yield* Effect.andThen(claim(id), complete(id, "42"))
      yield* expect("of a key with two leases", yield* store.purge({ by: "key", hash: key }), 1)
    }
  ),

  "a lease that was purged completes nothing": Effect.fnUntraced(
    function*({ claim, complete, prefix, renew, store }: Fixture) {
      const first = yield* claim("a")
      yield* expect("it is purged", yield* store.purge({ by: "tenant", hash: `${prefix}t` }), 1)
      yield* expect("it cannot be renewed", yield* renew("a"), false)
      yield* expect("it cannot be completed", yield* complete("a", "42", { freshMillis: long }), false)
      const next = yield* claim("b", { following: first.generation })
      yield* expect("the next claim leads", next._tag, "Lead")
      yield* expectThat("the generation grows", next.generation > first.generation, next.generation, "more")
    }
  )
}

export const clock: CheckBodies = {
  "a lease and a result last no longer if the clock is set back": Effect.fnUntraced(
    function*({ claim, complete, prefix, setBack, sleep }: Fixture) {
      if (setBack === undefined) return
      const result = `${prefix}result`
      yield* claim("a", { leaseMillis: 4 * short })
      yield* claim("a", { key: result })
      yield* complete("a", "42", { key: result, freshMillis: 4 * short, keepMillis: 4 * short })
      yield* setBack(long)
      yield* claim("b")
      yield* claim("b", { key: result })
      yield* sleep(5 * short)
      yield* expect("the lease has lapsed", (yield* claim("b"))._tag, "Lead")
      yield* expect("the result is not fresh", (yield* claim("b", { key: result }))._tag, "Lead")
    }
  ),

  "an earlier result lasts no longer if a lease is renewed after the clock was set back": Effect.fnUntraced(
    function*({ claim, complete, renew, setBack, sleep }: Fixture) {
      if (setBack === undefined) return
      const { generation: following } = yield* claim("a")
      yield* complete("a", "42", { keepMillis: 20 * short })
      yield* claim("b")
      yield* setBack(long)
      yield* renew("b")
      yield* sleep(21 * short)
      yield* expect("it is over", (yield* claim("c", { following }))._tag, "Follow")
    }
  ),

  "a lease that is renewed after the clock was set back does not lapse": Effect.fnUntraced(
    function*({ claim, renew, setBack }: Fixture) {
      if (setBack === undefined) return
      yield* claim("a", { leaseMillis: long })
      yield* setBack(2 * long)
      yield* expect("it is renewed", yield* renew("a"), true)
      yield* expect("the others follow", (yield* claim("b"))._tag, "Follow")
    }
  )
}
