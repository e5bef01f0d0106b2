import type { Mode, Target } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import { type CheckBodies, type Fixture, ring, withoutTimes } from "./check.ts"
import { expect, expectThat, long } from "../frame.ts"

const because = { calls: 100, failures: 60, slow: 7 }

const targets: ReadonlyArray<Target> = [
  { _tag: "Open", forMillis: 1_000, openings: 1, hintMillis: 0, because },
  { _tag: "Open", forMillis: 2_000, openings: 1, hintMillis: 5_000, because },
  { _tag: "Closed", rampMillis: 0, openings: 1, lastOpen: 2_000, reason: "" },
  { _tag: "Closed", rampMillis: 500, openings: 1, lastOpen: 2_000, reason: "fixed" },
  { _tag: "Forced", forMillis: 0, mode: "ForcedClosed", reason: "a drill" },
  { _tag: "Forced", forMillis: 500, mode: "Disabled", reason: "a drill" },
  { _tag: "Open", forMillis: 0, openings: 1, hintMillis: 0, because }
]

export const transition: CheckBodies = {
  "a transition needs the current generation": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const missing = circuit({ suffix: "missing" })
    const refused = yield* missing.open(7, "late", long)
    yield* expect(
      "a missing circuit has generation 0 and no other",
      [refused.ok, refused.snapshot.generation, refused.snapshot.control._tag],
      [false, 0, "Closed"]
    )
    const a = circuit()
    const generation = yield* a.makeClosed
    const before = yield* a.read
    for (
      const [by, other] of [["zero", 0], ["past", generation - 1], ["future", generation + 1]] as const
    ) {
      const { ok, snapshot } = yield* a.open(other, by, long)
      yield* expect("a transition of another generation is refused and changes nothing", [ok, withoutTimes(snapshot)], [
        false,
        withoutTimes(before)
      ])
    }
    const { ok, snapshot } = yield* a.open(generation, "open", long)
    yield* expect("a transition of the current generation is done", [ok, snapshot.control._tag], [true, "Open"])
  }),

  "a refused transition returns the snapshot of the winner": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const generation = yield* a.makeClosed
    const won = yield* a.open(generation, "winner", long)
    const lost = yield* a.close(generation, "loser")
    yield* expect(
      "the loser gets the winner's snapshot",
      [won.ok, lost.ok, withoutTimes(lost.snapshot)],
      [true, false, withoutTimes(won.snapshot)]
    )
  }),

  "a transition that its winner repeats is ok and changes nothing": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    const generation = yield* a.makeClosed
    const won = yield* a.open(generation, "me", 0)
    yield* a.lease(won.snapshot.generation, "probe")
    const { snapshot: probed } = yield* a.record(won.snapshot.generation, "0", "probe")
    const repeated = yield* a.open(generation, "me", 0)
    yield* expect("a repeated `transition` with the same `by` is ok", repeated.ok, true)
    yield* expect("a repeated `transition` changes nothing", withoutTimes(repeated.snapshot), withoutTimes(probed))

    const { snapshot: closed } = yield* a.close(won.snapshot.generation, "another")
    const late = yield* a.open(generation, "me", 0)
    yield* expect(
      "a repeated `transition` changes nothing after another one",
      withoutTimes(late.snapshot),
      withoutTimes(closed)
    )
  }),

  "every transition gives a greater generation": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    let generation = 0
    for (const [nth, target] of [...targets, ...targets].entries()) {
      const { ok, snapshot } = yield* a.transition(generation, `move ${nth}`, target)
      yield* expectThat(
        "a generation is an integer that only grows",
        ok && Number.isSafeInteger(snapshot.generation) && snapshot.generation > generation,
        { ok, generation: snapshot.generation },
        `ok, and more than ${generation}`
      )
      generation = snapshot.generation
    }
  }),

  "a generation is never reused, even after an eviction": Effect.fnUntraced(
    function*({ circuit, forget, sleep }: Fixture) {
      const a = circuit()
      let latest = yield* a.makeClosed
      for (const by of ["one", "two", "three"]) latest = (yield* a.close(latest, by)).snapshot.generation
      // Without `forget` there is no eviction to test.
      if (forget === undefined) return
      const makers = [(by: string) => a.close(0, by), () => a.record(latest, "X"), () => a.record(0, "X")]
      for (const [nth, makeAgain] of makers.entries()) {
        yield* forget(a.key)
        yield* sleep(5)
        yield* expect("an evicted circuit reads as generation 0", (yield* a.read).generation, 0)
        yield* expect("a transition of the old generation is refused", (yield* a.close(latest, "late")).ok, false)
        const { ok, snapshot } = yield* makeAgain(`maker ${nth}`)
        yield* expectThat(
          "the next generation is greater than any that the key had",
          ok && snapshot.generation > latest,
          { ok, generation: snapshot.generation },
          `ok, and more than ${latest}`
        )
        latest = snapshot.generation
      }
    }
  ),

  "a transition empties the evidence of every window": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit({ window: { calls: 5, bucketMillis: long, buckets: 3 } })
    const b = a.withWindow(ring(6))
    for (const [nth, target] of targets.entries()) {
      const { generation } = yield* a.read
      const { snapshot: closed } = yield* a.close(generation, `close ${nth}`)
      yield* a.record(closed.generation, "X0")
      yield* b.record(closed.generation, "XX")
      const { snapshot } = yield* a.transition(closed.generation, `move ${nth}`, target)
      yield* expect(
        "evidence is empty after a transition",
        [snapshot.evidence, (yield* a.read).evidence, (yield* b.read).evidence],
        [{ ring: "", wheel: [] }, { ring: "", wheel: [] }, { ring: "", wheel: [] }]
      )
    }
  }),

  "a transition keeps live leases, which hold their slots in the next round": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const a = circuit()
      const first = yield* a.makeHalfOpen
      yield* a.lease(first, "first round", { limit: 2 })
      const { snapshot: closed } = yield* a.close(first, "close")
      yield* expect("a transition keeps live leases", closed.probing, 1)
      const { snapshot: { generation: second, probing } } = yield* a.open(closed.generation, "again", 0)
      yield* expect("every further transition keeps them too", probing, 1)

      const next = yield* a.lease(second, "second round", { limit: 2 })
      yield* expect("a probe that still runs holds its slot", [next.ok, next.snapshot.probing], [true, 2])
      const beyond = yield* a.lease(second, "one too many", { limit: 2 })
      yield* expect("no more than `limit` probes run", [beyond.ok, beyond.snapshot.probing], [false, 2])
      yield* a.record(first, "0", "first round")
      const freed = yield* a.lease(second, "after it", { limit: 2 })
      yield* expect("the slot is free when that probe has ended", [
        freed.ok,
        freed.snapshot.probing,
        freed.snapshot.evidence.ring
      ], [true, 2, ""])
    }
  ),

  "a transition to Open sets its times by the store's clock and keeps the tally": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const a = circuit()
      const generation = yield* a.makeClosed
      const { snapshot: { now: before } } = yield* a.record(generation, "X")
      const open = (generation: number, by: string, forMillis: number, openings: number, hintMillis: number) =>
        a.transition(generation, by, { _tag: "Open", forMillis, openings, hintMillis, because })
      const { snapshot: opened } = yield* open(generation, "open", 30_000, 1, 0)
      yield* expectSince(opened.control.since, before, opened.now)
      yield* expect(
        "`until` is `forMillis` after `since`, `hinted` is 0 without a hint, and the rest is kept",
        opened.control,
        {
          _tag: "Open",
          since: opened.control.since,
          until: opened.control.since + 30_000,
          openings: 1,
          hinted: 0,
          because,
          by: "open"
        }
      )
      const month = 30 * 24 * 3_600_000
      const { snapshot: longer } = yield* open(opened.generation, "longer", month, 17, 2 * month)
      yield* expectSince(longer.control.since, opened.now, longer.now)
      yield* expect("an open circuit can be opened for longer, with a hint", longer.control, {
        _tag: "Open",
        since: longer.control.since,
        until: longer.control.since + month,
        openings: 17,
        hinted: longer.control.since + 2 * month,
        because,
        by: "longer"
      })
    }
  ),

  "a transition to Closed keeps the ramp, the openings and how long it was open": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const a = circuit()
      const { snapshot: opened } = yield* a.open(0, "open", 0)
      const close = (generation: number, by: string, rampMillis: number, reason: string) =>
        a.transition(generation, by, { _tag: "Closed", rampMillis, openings: 3, lastOpen: 2_592_000_000, reason })
      const { snapshot: ramp } = yield* close(opened.generation, "ramp", 4_000, "")
      yield* expectSince(ramp.control.since, opened.now, ramp.now)
      const kept = { _tag: "Closed", openings: 3, lastOpen: 2_592_000_000 }
      yield* expect("`until` is `rampMillis` after `since`, and openings, lastOpen and reason are kept", ramp.control, {
        ...kept,
        since: ramp.control.since,
        until: ramp.control.since + 4_000,
        reason: "",
        by: "ramp"
      })
      const { snapshot: reset } = yield* close(ramp.generation, "reset", 0, "fixed")
      yield* expect("without a ramp `until` is 0", reset.control, {
        ...kept,
        since: reset.control.since,
        until: 0,
        reason: "fixed",
        by: "reset"
      })
    }
  ),

  "a transition to Forced keeps the mode, the reason and the end": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    let generation = 0
    const modes: ReadonlyArray<Mode> = ["ForcedOpen", "ForcedClosed", "Disabled", "ObserveOnly"]
    for (const mode of modes) {
      for (const forMillis of [0, 60_000]) {
        const by = `${mode} ${forMillis}`
        const { snapshot } = yield* a.transition(generation, by, { _tag: "Forced", forMillis, mode, reason: "a drill" })
        yield* expectSince(snapshot.control.since, 0, snapshot.now)
        const until = forMillis === 0 ? 0 : snapshot.control.since + forMillis
        yield* expect("a forced circuit has its mode, its reason, and its end (0: none)", snapshot.control, {
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

  "a forced circuit stays forced after its end, until a breaker lifts it": Effect.fnUntraced(
    function*({ circuit }: Fixture) {
      const a = circuit()
      const target = { _tag: "Forced", forMillis: 5, mode: "ForcedClosed", reason: "a drill" } as const
      const { snapshot: forced } = yield* a.transition(0, "force", target)
      const later = yield* a.waitUntil(forced.now + 10)
      yield* expect("only a transition changes the control", [later.generation, later.control], [
        forced.generation,
        forced.control
      ])
    }
  ),

  "a transition leads from every control to every other": Effect.fnUntraced(function*({ circuit }: Fixture) {
    const a = circuit()
    let generation = 0
    for (const from of targets) {
      for (const to of targets) {
        for (const target of [from, to]) {
          const { ok, snapshot } = yield* a.transition(generation, `move ${generation}`, target)
          yield* expect("every transition of the current generation is done", [ok, snapshot.control._tag], [
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
    "`since` is the time of the transition by the store's clock",
    since >= before && since <= now,
    since,
    `from ${before} to ${now}`
  )
