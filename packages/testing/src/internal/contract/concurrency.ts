import * as Effect from "effect/Effect"
import { type CheckBodies, type Fixture, ring } from "./check.ts"
import { expect, expectThat, long } from "../frame.ts"

const concurrently = <A, E>(times: number, run: (nth: number) => Effect.Effect<A, E>): Effect.Effect<Array<A>, E> =>
  Effect.all(Array.from({ length: times }, (_, nth) => run(nth)), { concurrency: "unbounded" })

export const concurrency: CheckBodies = {
  "50 concurrent records all count": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit({ window: { calls: 100, bucketMillis: long, buckets: 3 } })
    const answers = yield* concurrently(50, () => a.record(0, "X"))
    yield* expect("all 50 records are ok", answers.filter(({ ok }) => ok).length, 50)
    const { evidence: { ring, wheel }, generation } = yield* a.read
    yield* expect(
      "all records count in one circuit",
      new Set(answers.map(({ snapshot }) => snapshot.generation)),
      new Set([generation])
    )
    yield* expect("the ring has all 50 samples", ring, "X".repeat(50))
    yield* expect("the wheel has all 50 samples", wheel.reduce((sum, { failures }) => sum + failures, 0), 50 * 20)
  }),

  "20 concurrent leases are granted up to the limit": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const generation = yield* a.makeHalfOpen
    const answers = yield* concurrently(20, (nth) => a.lease(generation, `probe ${nth}`, { limit: 3 }))
    yield* expect("`limit` leases are granted", answers.filter(({ ok }) => ok).length, 3)
    yield* expect("`limit` leases are live", (yield* a.read).probing, 3)
  }),

  "one of 20 concurrent transitions wins, and every answer shows it": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      for (const isMissing of [true, false]) {
        const a = circuit({ suffix: isMissing ? "missing" : "known" })
        const generation = isMissing ? 0 : yield* a.makeClosed
        const answers = yield* concurrently(20, (nth) => a.open(generation, `caller ${nth}`, long))
        yield* expect("one transition wins", answers.filter(({ ok }) => ok).length, 1)
        const winner = answers.findIndex(({ ok }) => ok)
        const shown = new Set(answers.map(({ snapshot: { control, generation } }) => `${generation}, ${control.by}`))
        const { generation: current } = yield* a.read
        yield* expect("every answer shows the winner", [...shown], [`${current}, caller ${winner}`])
      }
    }
  ),

  "a transition that is sent 10 times at once happens once": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const generation = yield* a.makeClosed
    const answers = yield* concurrently(10, () => a.open(generation, "me", long))
    yield* expect("every answer is ok", answers.filter(({ ok }) => ok).length, 10)
    yield* expect(
      "every answer has the same generation",
      new Set(answers.map(({ snapshot }) => snapshot.generation)).size,
      1
    )
  }),

  "the outcome of a probe that is sent 10 times at once counts once": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const a = circuit({ window: ring(20) })
      const generation = yield* a.makeHalfOpen
      yield* a.lease(generation, "probe")
      const answers = yield* concurrently(10, () => a.record(generation, "0", "probe"))
      yield* expect("one answer is ok", answers.filter(({ ok }) => ok).length, 1)
      yield* expect("one sample counts", (yield* a.read).evidence.ring, "0")
    }
  ),

  "a record that races with a transition counts before it or not at all": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const a = circuit({ window: { calls: 100, bucketMillis: long, buckets: 3 } })
      let generation = yield* a.makeClosed
      for (let round = 0; round < 5; round++) {
        const current = generation
        const answers = yield* concurrently(20, (nth) =>
          nth === 10
            ? a.close(current, `close ${round}`)
            : a.record(current, "X"))
        for (const { ok, snapshot } of answers.filter((_, nth) => nth !== 10)) {
          yield* expectThat(
            "a sample counts only in the generation of its record",
            ok === (snapshot.generation === current),
            { ok, generation: snapshot.generation },
            `ok if the generation is ${current}`
          )
        }
        const { evidence, generation: next } = yield* a.read
        yield* expect("the next generation starts without evidence", evidence, { ring: "", wheel: [] })
        generation = next
      }
    }
  ),

  "concurrent records of several circuits count each in its own circuit": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const circuits = Array.from({ length: 10 }, (_, nth) => circuit({ suffix: `circuit ${nth}` }))
      yield* concurrently(50, (nth) => circuits[nth % 10]?.record(0, nth % 10 < 5 ? "X" : "0") ?? Effect.void)
      for (const [nth, circuit] of circuits.entries()) {
        const { evidence: { ring } } = yield* circuit.read
        yield* expect("a circuit has the samples of its own records", ring, (nth < 5 ? "X" : "0").repeat(5))
      }
    }
  )
}
