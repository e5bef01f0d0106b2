import * as Effect from "effect/Effect"
import { type CheckBodies, type Fixture, ring, short, withoutTimes } from "./check.ts"
import { expect, expectThat } from "../frame.ts"

export const read: CheckBodies = {
  "a missing key reads as closed, with generation 0 and no evidence": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const missing = circuit({ window: { calls: 10, bucketMillis: 1_000, buckets: 3 } })
      const { control, now, ...snapshot } = yield* missing.read
      yield* expect("a missing key reads as `Closed`, generation 0", {
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
      yield* expectThat("`now` is a whole number of milliseconds", Number.isSafeInteger(now), now, "a whole number")
    }
  ),

  "read writes nothing": Effect.fnUntraced(function*({ circuit, prefix, store }: Fixture) {
    const window = ring(10)
    yield* circuit({ suffix: "missing" }).read
    const listed = yield* store.list({ window, after: prefix, limit: 1 })
    yield* expect(
      "`read` does not make a circuit",
      listed.filter(({ key }) => key.startsWith(prefix)).map(({ key }) => key),
      []
    )

    const known = circuit({ suffix: "known", window })
    const { snapshot } = yield* known.record(0, "X0")
    yield* known.withWindow(ring(1)).read
    const again = yield* known.read
    yield* expect("`read` does not change a circuit", withoutTimes(again), withoutTimes(snapshot))
  }),

  "read shows the result of every other verb": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const recorded = yield* a.record(0, "X")
    yield* expect(
      "`read` returns the snapshot of the `record` before",
      withoutTimes(yield* a.read),
      withoutTimes(recorded.snapshot)
    )
    const opened = yield* a.open(recorded.snapshot.generation, "open", 0)
    yield* expect(
      "`read` returns the snapshot of the `transition` before",
      withoutTimes(yield* a.read),
      withoutTimes(opened.snapshot)
    )
    const leased = yield* a.lease(opened.snapshot.generation, "probe")
    yield* expect(
      "`read` returns the snapshot of the `lease` before",
      withoutTimes(yield* a.read),
      withoutTimes(leased.snapshot)
    )
    const settled = yield* a.record(opened.snapshot.generation, "0", "probe")
    yield* expect(
      "`read` returns the snapshot of a probe's `record` before",
      withoutTimes(yield* a.read),
      withoutTimes(settled.snapshot)
    )
  }),

  "the time of snapshots never goes back": Effect.fnUntraced(function*({ circuit, sleep }: Fixture) {
    const a = circuit()
    let latest = 0
    for (let i = 0; i < 10; i++) {
      const times = [
        (yield* a.record(0, "0")).snapshot.now,
        (yield* a.read).now,
        (yield* a.lease(0, "none")).snapshot.now
      ]
      for (const now of times) {
        yield* expectThat("`now` is not earlier than in the snapshot before", now >= latest, now, `at least ${latest}`)
        latest = now
      }
      if (i === 5) yield* sleep(short)
    }
  }),

  "later changes leave a snapshot as it is": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit({ window: { calls: 10, bucketMillis: 600_000, buckets: 3 } })
    const { snapshot: first } = yield* a.record(0, "X")
    const { snapshot: opened } = yield* a.open(first.generation, "open", 0)
    yield* a.lease(opened.generation, "one", { limit: 3 })
    const read = yield* a.read
    const before = JSON.stringify([first, read])
    yield* a.lease(opened.generation, "two", { limit: 3 })
    yield* a.record(opened.generation, "XX", "one")
    const { snapshot: closed } = yield* a.close(opened.generation, "close")
    yield* a.record(closed.generation, "Y")
    yield* expect("a snapshot shows the circuit at its `now`", JSON.stringify([first, read]), before)
  })
}
