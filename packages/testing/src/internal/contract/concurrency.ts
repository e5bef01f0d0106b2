import * as Effect from "effect/Effect"
import { type Bench, type Bodies, expect, expectThat, long, ring } from "./check.ts"

const atOnce = <A, E>(times: number, ask: (nth: number) => Effect.Effect<A, E>): Effect.Effect<Array<A>, E> =>
  Effect.all(Array.from({ length: times }, (_, nth) => ask(nth)), { concurrency: "unbounded" })

export const concurrency: Bodies = {
  "of 50 records none is lost": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit({ window: { calls: 100, bucketMillis: long, buckets: 3 } })
    const answers = yield* atOnce(50, () => a.record(0, "X"))
    yield* expect("all count", answers.filter(({ ok }) => ok).length, 50)
    const { evidence: { ring, wheel }, generation } = yield* a.read
    yield* expect("in one circuit", new Set(answers.map(({ snapshot }) => snapshot.generation)), new Set([generation]))
    yield* expect("the ring has every one", ring, "X".repeat(50))
    yield* expect("and so has the wheel", wheel.reduce((sum, { failures }) => sum + failures, 0), 50 * 20)
  }),

  "of 20 leases no more than the limit are granted": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.halfOpen
    const answers = yield* atOnce(20, (nth) => a.lease(generation, `probe ${nth}`, { limit: 3 }))
    yield* expect("as many as there are places", answers.filter(({ ok }) => ok).length, 3)
    yield* expect("and live", (yield* a.read).probing, 3)
  }),

  "of 20 transitions one wins, and all others see it": Effect.fnUntraced(function*({ circuit }: Bench) {
    for (const isThere of [false, true]) {
      const a = circuit({ suffix: isThere ? "known" : "new" })
      const generation = isThere ? yield* a.fresh : 0
      const answers = yield* atOnce(20, (nth) => a.open(generation, `caller ${nth}`, long))
      yield* expect("a generation has one winner", answers.filter(({ ok }) => ok).length, 1)
      const winner = answers.findIndex(({ ok }) => ok)
      const seen = new Set(answers.map(({ snapshot: { control, generation } }) => `${generation}, ${control.by}`))
      const { generation: stands } = yield* a.read
      yield* expect("and every answer shows it", [...seen], [`${stands}, caller ${winner}`])
    }
  }),

  "one transition asked for 10 times happens once": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.fresh
    const answers = yield* atOnce(10, () => a.open(generation, "me", long))
    yield* expect("all are ok", answers.filter(({ ok }) => ok).length, 10)
    yield* expect("and of one generation", new Set(answers.map(({ snapshot }) => snapshot.generation)).size, 1)
  }),

  "one probe's outcome told 10 times counts once": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit({ window: ring(20) })
    const generation = yield* a.halfOpen
    yield* a.lease(generation, "probe")
    const answers = yield* atOnce(10, () => a.record(generation, "0", "probe"))
    yield* expect("one is ok", answers.filter(({ ok }) => ok).length, 1)
    yield* expect("and counts", (yield* a.read).evidence.ring, "0")
  }),

  "what races with a transition counts before it or nowhere": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit({ window: { calls: 100, bucketMillis: long, buckets: 3 } })
    let generation = yield* a.fresh
    for (let round = 0; round < 5; round++) {
      const stands = generation
      const answers = yield* atOnce(20, (nth) =>
        nth === 10
          ? a.close(stands, `close ${round}`)
          : a.record(stands, "X"))
      for (const { ok, snapshot } of answers.filter((_, nth) => nth !== 10)) {
        yield* expectThat(
          "a sample counts in the generation that it was admitted under",
          ok === (snapshot.generation === stands),
          { ok, generation: snapshot.generation },
          `ok if the generation is ${stands}`
        )
      }
      const { evidence, generation: next } = yield* a.read
      yield* expect("and the next one starts empty", evidence, { ring: "", wheel: [] })
      generation = next
    }
  }),

  "what happens to many circuits happens to each": Effect.fnUntraced(function*({ circuit }: Bench) {
    const circuits = Array.from({ length: 10 }, (_, nth) => circuit({ suffix: `circuit ${nth}` }))
    yield* atOnce(50, (nth) => circuits[nth % 10]?.record(0, nth % 10 < 5 ? "X" : "0") ?? Effect.void)
    for (const [nth, circuit] of circuits.entries()) {
      const { evidence: { ring } } = yield* circuit.read
      yield* expect("a circuit's evidence is its own", ring, (nth < 5 ? "X" : "0").repeat(5))
    }
  })
}
