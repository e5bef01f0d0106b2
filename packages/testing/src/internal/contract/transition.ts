import type { Mode, Target } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import { type Bench, type Bodies, expect, expectThat, lasting, long, ring } from "./check.ts"

const because = { calls: 100, failures: 60, slow: 7 }

const targets: ReadonlyArray<Target> = [
  { _tag: "Open", forMillis: 1_000, openings: 1, hintMillis: 0, because },
  { _tag: "Open", forMillis: 2_000, openings: 1, hintMillis: 5_000, because },
  { _tag: "Closed", rampMillis: 0, openings: 1, lastOpen: 2_000, reason: "" },
  { _tag: "Closed", rampMillis: 500, openings: 1, lastOpen: 2_000, reason: "mended" },
  { _tag: "Forced", forMillis: 0, mode: "ForcedClosed", reason: "a drill" },
  { _tag: "Forced", forMillis: 500, mode: "Disabled", reason: "a drill" },
  { _tag: "Open", forMillis: 0, openings: 1, hintMillis: 0, because }
]

export const transition: Bodies = {
  "is for exactly the generation that stands": Effect.fnUntraced(function*({ circuit }: Bench) {
    const missing = circuit({ suffix: "missing" })
    const forgotten = yield* missing.open(7, "late", long)
    yield* expect(
      "a circuit that is not there has generation 0 and no other",
      [forgotten.ok, forgotten.snapshot.generation, forgotten.snapshot.control._tag],
      [false, 0, "Closed"]
    )
    const a = circuit()
    const generation = yield* a.fresh
    const before = yield* a.read
    for (
      const [by, other] of [["of none", 0], ["of the past", generation - 1], ["of the future", generation + 1]] as const
    ) {
      const { ok, snapshot } = yield* a.open(other, by, long)
      yield* expect("nothing moves under another generation", [ok, lasting(snapshot)], [false, lasting(before)])
    }
    const { ok, snapshot } = yield* a.open(generation, "open", long)
    yield* expect("it moves under its own", [ok, snapshot.control._tag], [true, "Open"])
  }),

  "shows the loser what its winner made": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.fresh
    const won = yield* a.open(generation, "winner", long)
    const lost = yield* a.close(generation, "loser")
    yield* expect(
      "who loses gets the winner's snapshot",
      [won.ok, lost.ok, lasting(lost.snapshot)],
      [true, false, lasting(won.snapshot)]
    )
  }),

  "is ok when its winner asks again, and moves nothing twice": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.fresh
    const won = yield* a.open(generation, "me", 0)
    yield* a.lease(won.snapshot.generation, "probe")
    const { snapshot: probed } = yield* a.record(won.snapshot.generation, "0", "probe")
    const repeated = yield* a.open(generation, "me", 0)
    yield* expect("a repeated `transition` with the same `by` is ok", repeated.ok, true)
    yield* expect("and changes nothing", lasting(repeated.snapshot), lasting(probed))

    const { snapshot: closed } = yield* a.close(won.snapshot.generation, "another")
    const late = yield* a.open(generation, "me", 0)
    yield* expect("nor when it comes after the next one", lasting(late.snapshot), lasting(closed))
  }),

  "gives every move a greater generation": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    let generation = 0
    for (const [nth, target] of [...targets, ...targets].entries()) {
      const { ok, snapshot } = yield* a.transition(generation, `move ${nth}`, target)
      yield* expectThat(
        "a generation is a whole number that only grows",
        ok && Number.isSafeInteger(snapshot.generation) && snapshot.generation > generation,
        { ok, generation: snapshot.generation },
        `ok, and more than ${generation}`
      )
      generation = snapshot.generation
    }
  }),

  "never gives one again, also after the circuit was forgotten": Effect.fnUntraced(
    function*({ circuit, forget, sleep }: Bench) {
      const a = circuit()
      let latest = yield* a.fresh
      for (const by of ["one", "two", "three"]) latest = (yield* a.close(latest, by)).snapshot.generation
      // Without it this check shows only what `record` does with a generation of the past.
      if (forget === undefined) return
      const revivals = [(by: string) => a.close(0, by), () => a.record(latest, "X"), () => a.record(0, "X")]
      for (const [nth, revive] of revivals.entries()) {
        yield* forget(a.key)
        yield* sleep(5)
        yield* expect("what is forgotten reads as generation 0", (yield* a.read).generation, 0)
        yield* expect("and does not move under its former one", (yield* a.close(latest, "late")).ok, false)
        const { ok, snapshot } = yield* revive(`revival ${nth}`)
        yield* expectThat(
          "the next generation is greater than any that the key had before",
          ok && snapshot.generation > latest,
          { ok, generation: snapshot.generation },
          `ok, and more than ${latest}`
        )
        latest = snapshot.generation
      }
    }
  ),

  "drops the evidence, of every window": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit({ window: { calls: 5, bucketMillis: long, buckets: 3 } })
    const b = a.through(ring(6))
    for (const [nth, target] of targets.entries()) {
      const { generation } = yield* a.read
      const { snapshot: closed } = yield* a.close(generation, `close ${nth}`)
      yield* a.record(closed.generation, "X0")
      yield* b.record(closed.generation, "XX")
      const { snapshot } = yield* a.transition(closed.generation, `move ${nth}`, target)
      yield* expect(
        "evidence starts empty",
        [snapshot.evidence, (yield* a.read).evidence, (yield* b.read).evidence],
        [{ ring: "", wheel: [] }, { ring: "", wheel: [] }, { ring: "", wheel: [] }]
      )
    }
  }),

  "keeps leases, and with them their places in the next round": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const first = yield* a.halfOpen
    yield* a.lease(first, "of the first round", { limit: 2 })
    const { snapshot: closed } = yield* a.close(first, "close")
    yield* expect("leases that live stay", closed.probing, 1)
    const { snapshot: { generation: second, probing } } = yield* a.open(closed.generation, "again", 0)
    yield* expect("over every transition", probing, 1)

    const next = yield* a.lease(second, "of the second", { limit: 2 })
    yield* expect("a probe that still runs holds its place", [next.ok, next.snapshot.probing], [true, 2])
    const beyond = yield* a.lease(second, "one too many", { limit: 2 })
    yield* expect("or more than `limit` would run", [beyond.ok, beyond.snapshot.probing], [false, 2])
    yield* a.record(first, "0", "of the first round")
    const freed = yield* a.lease(second, "after it", { limit: 2 })
    yield* expect("until it is over", [freed.ok, freed.snapshot.probing, freed.snapshot.evidence.ring], [true, 2, ""])
  }),

  "to open: by the store's clock, with what was counted": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const generation = yield* a.fresh
    const { snapshot: { now: before } } = yield* a.record(generation, "X")
    const open = (generation: number, by: string, forMillis: number, openings: number, hintMillis: number) =>
      a.transition(generation, by, { _tag: "Open", forMillis, openings, hintMillis, because })
    const { snapshot: opened } = yield* open(generation, "open", 30_000, 1, 0)
    yield* expectSince(opened.control.since, before, opened.now)
    yield* expect("`until` is `forMillis` away; without a hint `hinted` is 0; the rest is kept", opened.control, {
      _tag: "Open",
      since: opened.control.since,
      until: opened.control.since + 30_000,
      openings: 1,
      hinted: 0,
      because,
      by: "open"
    })
    const month = 30 * 24 * 3_600_000
    const { snapshot: longer } = yield* open(opened.generation, "longer", month, 17, 2 * month)
    yield* expectSince(longer.control.since, opened.now, longer.now)
    yield* expect("an open circuit may be opened for longer, with a hint", longer.control, {
      _tag: "Open",
      since: longer.control.since,
      until: longer.control.since + month,
      openings: 17,
      hinted: longer.control.since + 2 * month,
      because,
      by: "longer"
    })
  }),

  "to closed: with its ramp, and how often and long it was open": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const { snapshot: opened } = yield* a.open(0, "open", 0)
    const close = (generation: number, by: string, rampMillis: number, reason: string) =>
      a.transition(generation, by, { _tag: "Closed", rampMillis, openings: 3, lastOpen: 2_592_000_000, reason })
    const { snapshot: ramp } = yield* close(opened.generation, "ramp", 4_000, "")
    yield* expectSince(ramp.control.since, opened.now, ramp.now)
    const kept = { _tag: "Closed", openings: 3, lastOpen: 2_592_000_000 }
    yield* expect("`until` is `rampMillis` away; openings, lastOpen and reason are kept", ramp.control, {
      ...kept,
      since: ramp.control.since,
      until: ramp.control.since + 4_000,
      reason: "",
      by: "ramp"
    })
    const { snapshot: reset } = yield* close(ramp.generation, "reset", 0, "mended")
    yield* expect("without a ramp `until` is 0", reset.control, {
      ...kept,
      since: reset.control.since,
      until: 0,
      reason: "mended",
      by: "reset"
    })
  }),

  "to forced: in its mode, for its time or until it is lifted": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    let generation = 0
    const modes: ReadonlyArray<Mode> = ["ForcedOpen", "ForcedClosed", "Disabled", "ObserveOnly"]
    for (const mode of modes) {
      for (const forMillis of [0, 60_000]) {
        const by = `${mode} ${forMillis}`
        const { snapshot } = yield* a.transition(generation, by, { _tag: "Forced", forMillis, mode, reason: "a drill" })
        yield* expectSince(snapshot.control.since, 0, snapshot.now)
        const until = forMillis === 0 ? 0 : snapshot.control.since + forMillis
        yield* expect("a forced circuit has its mode, its end (0 for none) and its reason", snapshot.control, {
          _tag: "Forced",
          since: snapshot.control.since,
          until,
          mode,
          reason: "a drill",
          by
        })
        generation = snapshot.generation
      }
    }
  }),

  "to forced stays so when its time is over: the breaker lifts it": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    const target = { _tag: "Forced", forMillis: 5, mode: "ForcedClosed", reason: "a drill" } as const
    const { snapshot: forced } = yield* a.transition(0, "force", target)
    const later = yield* a.waitUntil(forced.now + 10)
    yield* expect("only a transition changes the control", [later.generation, later.control], [
      forced.generation,
      forced.control
    ])
  }),

  "from every control to every other": Effect.fnUntraced(function*({ circuit }: Bench) {
    const a = circuit()
    let generation = 0
    for (const from of targets) {
      for (const to of targets) {
        for (const target of [from, to]) {
          const { ok, snapshot } = yield* a.transition(generation, `move ${generation}`, target)
          yield* expect("a store has no opinion on where a circuit goes", [ok, snapshot.control._tag], [
            true,
            target._tag
          ])
          generation = snapshot.generation
        }
      }
    }
  })
}

const expectSince = (since: number, before: number, now: number) =>
  expectThat(
    "`since` is the store's present",
    since >= before && since <= now,
    since,
    `from ${before} to ${now}`
  )
