import * as Effect from "effect/Effect"
import { type Bench, type Bodies, expect, expectThat, lasting, ring, short } from "./check.ts"

export const read: Bodies = {
  "a key that is not there is closed, generation 0, without evidence": Effect.fnUntraced(
    function*({ circuit }: Bench) {
      const missing = circuit({ window: { calls: 10, bucketMillis: 1_000, buckets: 3 } })
      const { control, now, ...snapshot } = yield* missing.read
      yield* expect("a key that is not there reads as `Closed`, generation 0", {
        ...snapshot,
        control: { ...control, since: 0 }
      }, {
        key: missing.key,
        generation: 0,
        control: { _tag: "Closed", since: 0, until: 0, openings: 0, lastOpen: 0, reason: "", by: "" },
        evidence: { ring: "", wheel: [] },
        probing: 0,
        leaseMillis: 0
      })
      yield* expectThat("`now` is in whole milliseconds", Number.isSafeInteger(now), now, "a whole number")
    }
  ),

  "writes nothing": Effect.fnUntraced(function*({ circuit, prefix, store }: Bench) {
    const window = ring(10)
    yield* circuit({ suffix: "missing" }).read
    const listed = yield* store.list({ window, after: prefix, limit: 1 })
    yield* expect(
      "`read` makes no circuit",
      listed.filter(({ key }) => key.startsWith(prefix)).map(({ key }) => key),
      []
    )

    const known = circuit({ suffix: "known", window })
    const { snapshot } = yield* known.record(0, "X0")
    yield* known.through(ring(1)).read
    const again = yield* known.read
    yield* expect("`read` changes no circuit", lasting(again), lasting(snapshot))
  }),

  "shows what every other verb has left": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const recorded = yield* a.record(0, "X")
    yield* expect("`read` after `record`", lasting(yield* a.read), lasting(recorded.snapshot))
    const opened = yield* a.open(recorded.snapshot.generation, "open", 0)
    yield* expect("`read` after `transition`", lasting(yield* a.read), lasting(opened.snapshot))
    const leased = yield* a.lease(opened.snapshot.generation, "probe")
    yield* expect("`read` after `lease`", lasting(yield* a.read), lasting(leased.snapshot))
    const settled = yield* a.record(opened.snapshot.generation, "0", "probe")
    yield* expect("`read` after a probe's `record`", lasting(yield* a.read), lasting(settled.snapshot))
  }),

  "shows a time that never goes back": Effect.fnUntraced(function*({ circuit, sleep }: Bench) {
    const a = circuit()
    let latest = 0
    for (let i = 0; i < 10; i++) {
      const seen = [
        (yield* a.record(0, "0")).snapshot.now,
        (yield* a.read).now,
        (yield* a.lease(0, "none")).snapshot.now
      ]
      for (const now of seen) {
        yield* expectThat("a snapshot's `now` never goes back", now >= latest, now, `at least ${latest}`)
        latest = now
      }
      if (i === 5) yield* sleep(short)
    }
  }),

  "answers with a picture that later changes leave as it is": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit({ window: { calls: 10, bucketMillis: 600_000, buckets: 3 } })
    const { snapshot: first } = yield* a.record(0, "X")
    const { snapshot: opened } = yield* a.open(first.generation, "open", 0)
    yield* a.lease(opened.generation, "one", { limit: 3 })
    const taken = yield* a.read
    const before = JSON.stringify([first, taken])
    yield* a.lease(opened.generation, "two", { limit: 3 })
    yield* a.record(opened.generation, "XX", "one")
    const { snapshot: closed } = yield* a.close(opened.generation, "close")
    yield* a.record(closed.generation, "Y")
    yield* expect("a snapshot is of its `now`", JSON.stringify([first, taken]), before)
  })
}
