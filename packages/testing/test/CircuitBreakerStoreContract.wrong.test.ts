import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
import * as ReferenceStore from "@sluice/testing/ReferenceStore"
import { Effect } from "effect"
import { around, load, type Mutant, subjectOf, type Verbs, withKeys } from "./support/wrongStores.ts"

// A suite that cannot fail proves nothing. Each of these stores is the reference with one thing wrong, as is easily done.

const mutants: ReadonlyArray<Mutant> = [
  {
    wrong: "the fence is dropped",
    line: "  const stands = given.generation === known.generation || (given.generation === 0 && hasNeverMoved)",
    becomes: "  const stands = given.generation > 0 || hasNeverMoved",
    caughtBy: "record: counts nothing of an older generation, and says what stands"
  },
  {
    wrong: "generation 0 counts in whatever is closed",
    line: "(given.generation === 0 && hasNeverMoved)",
    becomes: "given.generation === 0",
    caughtBy: "record: counts under generation 0 until the circuit moves"
  },
  {
    wrong: "generation 0 counts nowhere",
    line: "(given.generation === 0 && hasNeverMoved)",
    becomes: "(given.generation < 0 && hasNeverMoved)",
    caughtBy: "record: counts under generation 0 until the circuit moves"
  },
  {
    wrong: "the fence of probes is dropped",
    line: "isLive(known, lease, now) && given.generation === known.generation",
    becomes: "isLive(known, lease, now)",
    caughtBy: "record: counts nothing of a probe of an older generation, and frees its place"
  },
  {
    wrong: "a lapsed lease still counts",
    line: "isLive(known, lease, now) && given",
    becomes: "known.leases.has(lease) && given",
    caughtBy: "record: counts nothing of a probe whose lease has lapsed"
  },
  {
    wrong: "a lease that never was counts",
    line: "isLive(known, lease, now) && given",
    becomes: "given",
    caughtBy: "record: counts a probe once, and frees its place"
  },
  {
    wrong: "leases are cleared by a transition",
    line: "leases: known.leases",
    becomes: "leases: new Map()",
    caughtBy: "transition: keeps leases, and with them their places in the next round"
  },
  {
    wrong: "a renewed lease takes a second place",
    line: "new Map(circuit.leases).set(asked.id,",
    becomes: "new Map(circuit.leases).set(circuit.leases.has(asked.id) ? `${asked.id}'` : asked.id,",
    caughtBy: "lease: is renewed by its id, and takes no second place"
  },
  {
    wrong: "a lease is not renewed when the places are taken",
    line: "!(isFree || isLive(circuit, asked.id, now))",
    becomes: "!isFree",
    caughtBy: "lease: is renewed by its id, and takes no second place"
  },
  {
    wrong: "a renewed lease keeps its end",
    line: "set(asked.id, now + asked.ttlMillis)",
    becomes: "set(asked.id, circuit.leases.get(asked.id) ?? now + asked.ttlMillis)",
    caughtBy: "lease: is renewed by its id, and takes no second place"
  },
  {
    wrong: "> for >= at the end of the open time",
    line: "now >= circuit.control.until",
    becomes: "now > circuit.control.until",
    caughtBy: "lease: is refused until the open time is over, by the store's clock"
  },
  {
    wrong: "a lease is granted before the open time is over",
    line: " && now >= circuit.control.until",
    becomes: "",
    caughtBy: "lease: is refused until the open time is over, by the store's clock"
  },
  {
    wrong: "a lease is granted in a closed circuit",
    line: "circuit.control._tag === \"Open\" && now",
    becomes: "circuit.control._tag !== \"Forced\" && now",
    caughtBy: "lease: is refused where there is no circuit, and in one that is closed or forced"
  },
  {
    wrong: "a lease is granted under any generation",
    line: "const mayProbe = circuit.generation === asked.generation &&",
    becomes: "const mayProbe =",
    caughtBy: "lease: is refused under another generation, and says what stands"
  },
  {
    wrong: "one lease too many is granted",
    line: "evidence.ring.length < asked.limit",
    becomes: "evidence.ring.length <= asked.limit",
    caughtBy: "lease: is for as many as live or have answered"
  },
  {
    wrong: "who has answered loses its place",
    line: "probing + evidence.ring.length < asked.limit",
    becomes: "probing < asked.limit",
    caughtBy: "lease: is for as many as live or have answered"
  },
  {
    wrong: "a lapsed lease holds its place",
    line: ".filter((at) => now < at)",
    becomes: "",
    caughtBy: "lease: lapses when its time is over"
  },
  {
    wrong: "<= for < at the end of a lease",
    line: ".filter((at) => now < at)",
    becomes: ".filter((at) => now <= at)",
    caughtBy: "lease: lapses when its time is over"
  },
  {
    wrong: "a lapsed lease is renewed",
    line: "now < (leases.get(id) ?? now)",
    becomes: "leases.has(id)",
    caughtBy: "lease: lapses when its time is over"
  },
  {
    wrong: "leaseMillis is the last lapse",
    line: "Math.min(...lapses) - now",
    becomes: "Math.max(...lapses) - now",
    caughtBy: "lease: is held until its own end, not until another's"
  },
  {
    wrong: "a probe's record frees nothing",
    line: ".filter(([id]) => id !== lease)",
    becomes: "",
    caughtBy: "record: counts a probe once, and frees its place"
  },
  {
    wrong: "a probe's record frees every lease",
    line: ".filter(([id]) => id !== lease)",
    becomes: ".filter(() => false)",
    caughtBy: "record: frees a probe's place without samples"
  },
  {
    wrong: "a record of an older generation frees nothing",
    line: ": refuse(new Map(circuits).set(given.key, freed), given, now)",
    becomes: ": refuse(circuits, given, now)",
    caughtBy: "record: counts nothing of a probe of an older generation, and frees its place"
  },
  {
    wrong: "the first failure is lost",
    line: "return done(circuits, given, now, added(made, given, now))",
    becomes: "return done(circuits, given, now, made)",
    caughtBy: "record: makes a circuit that is not there, and counts"
  },
  {
    wrong: "a circuit that was forgotten does not come back",
    line: "  if (known === undefined) {\n    const made",
    becomes:
      "  if (known === undefined) {\n    if (given.generation > 0) return refuse(circuits, given, now)\n    const made",
    caughtBy: "record: makes a circuit that was forgotten, and counts, whatever generation it had",
    isRare: true
  },
  {
    wrong: "a circuit that was forgotten reissues a generation",
    line: "nextGeneration(given.generation, now)",
    becomes: "nextGeneration(0, now)",
    caughtBy: "record: makes a circuit that was forgotten, and counts, whatever generation it had",
    isRare: true
  },
  {
    wrong: "a transition after an expiry reissues a generation",
    line: "Math.max(previous + 1, Math.floor(now * 1_000))",
    becomes: "previous + 1",
    caughtBy: "transition: never gives one again, also after the circuit was forgotten",
    isRare: true
  },
  {
    wrong: "two moves in a millisecond have one generation",
    line: "Math.max(previous + 1, Math.floor(now * 1_000))",
    becomes: "Math.max(1, Math.floor(now * 1_000))",
    caughtBy: "transition: gives every move a greater generation"
  },
  {
    wrong: "the ring is trimmed at the wrong end",
    line: "ring.slice(Math.max(0, ring.length - window.calls))",
    becomes: "ring.slice(0, window.calls)",
    caughtBy: "record: keeps the last outcomes, oldest first"
  },
  {
    wrong: "the ring of no calls is not trimmed",
    line: "ring.slice(Math.max(0, ring.length - window.calls))",
    becomes: "ring.slice(-window.calls)",
    caughtBy: "record: keeps no ring where no calls are asked for, and no wheel where no buckets are"
  },
  {
    wrong: "the window is ignored",
    line: "`${calls}/${bucketMillis}/${buckets}`",
    becomes: "`${typeof calls}${typeof bucketMillis}${typeof buckets}`",
    caughtBy: "record: keeps apart what different windows look at, under one control"
  },
  {
    wrong: "the number of calls is no part of the address",
    line: "`${calls}/${bucketMillis}/${buckets}`",
    becomes: "`${typeof calls}/${bucketMillis}/${buckets}`",
    caughtBy: "record: keeps apart what different windows look at, under one control"
  },
  {
    wrong: "the number of buckets is no part of the address",
    line: "`${calls}/${bucketMillis}/${buckets}`",
    becomes: "`${calls}/${bucketMillis}/${typeof buckets}`",
    caughtBy: "record: keeps apart what different windows look at, under one control"
  },
  {
    wrong: "a record counts in an open circuit",
    line: "control._tag === \"Closed\" || (control._tag === \"Forced\"",
    becomes: "control._tag !== \"Forced\" || (control._tag === \"Forced\"",
    caughtBy: "record: counts nothing without a lease in an open circuit"
  },
  {
    wrong: "a record counts in a disabled circuit",
    line: " && control.mode !== \"Disabled\"",
    becomes: "",
    caughtBy: "record: counts in a forced circuit, unless it is disabled"
  },
  {
    wrong: "a record counts in no forced circuit",
    line: "(control._tag === \"Forced\" && control.mode !== \"Disabled\")",
    becomes: "false",
    caughtBy: "record: counts in a forced circuit, unless it is disabled"
  },
  {
    wrong: "a new sample goes to the front",
    line: "[...circuit.samples, ...[...samples].map((code) => ({ code, at: now, window: addressOf(window) }))]",
    becomes: "[...[...samples].map((code) => ({ code, at: now, window: addressOf(window) })), ...circuit.samples]",
    caughtBy: "record: keeps the last outcomes, oldest first"
  },
  {
    wrong: "the wheel keeps one bucket too few",
    line: "Array.from({ length: buckets }",
    becomes: "Array.from({ length: Math.max(0, buckets - 1) }",
    caughtBy: "record: drops what is older than the window, stretch by stretch"
  },
  {
    wrong: "the wheel turns one bucket late",
    line: "- buckets + 1 + nth)",
    becomes: "- buckets + nth)",
    caughtBy: "record: drops what is older than the window, stretch by stretch"
  },
  {
    wrong: "buckets begin when they are looked at",
    line: "(Math.floor(now / bucketMillis) - buckets + 1 + nth) * bucketMillis",
    becomes: "now - (buckets - 1 - nth) * bucketMillis",
    caughtBy: "record: sums what happens in each stretch of time"
  },
  {
    wrong: "an empty bucket is shown",
    line: ".filter(({ calls }) => calls > 0)",
    becomes: "",
    caughtBy: "record: drops what is older than the window, stretch by stretch"
  },
  {
    wrong: "a slow call weighs more",
    line: "Math.floor((code.charCodeAt(0) - 48) / 2)",
    becomes: "Math.round((code.charCodeAt(0) - 48) / 2)",
    caughtBy: "record: sums what happens in each stretch of time"
  },
  {
    wrong: "a slow call is not counted",
    line: "(code.charCodeAt(0) - 48) % 2",
    becomes: "(code.charCodeAt(0) - 48) % 1",
    caughtBy: "record: sums what happens in each stretch of time"
  },
  {
    wrong: "a repeated transition is refused",
    line: "[{ ok: isRepeated,",
    becomes: "[{ ok: isRepeated && false,",
    caughtBy: "transition: is ok when its winner asks again, and moves nothing twice"
  },
  {
    wrong: "a repeated transition moves again",
    line: "  if (known.generation === wish.generation) {",
    becomes: "  if (known.generation === wish.generation || known.control.by === wish.by) {",
    caughtBy: "transition: is ok when its winner asks again, and moves nothing twice"
  },
  {
    wrong: "the later transition wins",
    line: "  if (known.generation === wish.generation) {",
    becomes: "  if (known.generation >= wish.generation) {",
    caughtBy: "transition: shows the loser what its winner made"
  },
  {
    wrong: "a transition under generation 0 always wins",
    line: "  if (known.generation === wish.generation) {",
    becomes: "  if (known.generation === wish.generation || wish.generation === 0) {",
    caughtBy: "transition: is for exactly the generation that stands"
  },
  {
    wrong: "a transition keeps the evidence",
    line: "now),\n      samples: [],",
    becomes: "now),\n      samples: known.samples,",
    caughtBy: "transition: drops the evidence, of every window"
  },
  {
    wrong: "the end of the open time is not a time",
    line: "until: now + to.forMillis",
    becomes: "until: to.forMillis",
    caughtBy: "transition: to open: by the store's clock, with what was counted"
  },
  {
    wrong: "the hint is lost",
    line: "hinted: inFuture(to.hintMillis)",
    becomes: "hinted: 0",
    caughtBy: "transition: to open: by the store's clock, with what was counted"
  },
  {
    wrong: "no hint is a hint for now",
    line: "millis === 0 ? 0 : now + millis",
    becomes: "now + millis",
    caughtBy: "transition: to open: by the store's clock, with what was counted"
  },
  {
    wrong: "what was counted is lost",
    line: "const { because, openings } = to",
    becomes: "const { openings } = to\n      const because = { calls: 0, failures: 0, slow: 0 }",
    caughtBy: "transition: to open: by the store's clock, with what was counted"
  },
  {
    wrong: "a closed circuit forgets its openings",
    line: "until: inFuture(to.rampMillis), openings,",
    becomes: "until: inFuture(to.rampMillis), openings: 0,",
    caughtBy: "transition: to closed: with its ramp, and how often and long it was open"
  },
  {
    wrong: "a ramp never ends",
    line: "until: inFuture(to.rampMillis)",
    becomes: "until: 0",
    caughtBy: "transition: to closed: with its ramp, and how often and long it was open"
  },
  {
    wrong: "a list has no order",
    line: "    .sort()\n",
    becomes: "",
    caughtBy: "list: is in the order of the keys, page by page"
  },
  {
    wrong: "a list is ordered as people do",
    line: "    .sort()\n",
    becomes: "    .sort((a, b) => a.localeCompare(b))\n",
    caughtBy: "list: is in the order of the keys, page by page",
    isRare: true
  },
  {
    wrong: "a page begins with the end of the one before",
    line: "key > after",
    becomes: "key >= after",
    caughtBy: "list: is in the order of the keys, page by page",
    isRare: true
  },
  {
    wrong: "a page has no end",
    line: "    .slice(0, limit)\n",
    becomes: "",
    caughtBy: "list: is in the order of the keys, page by page",
    isRare: true
  },
  {
    wrong: "a list looks through no window",
    line: "key) => read(circuits, { key, window }, now))",
    becomes: "key) => read(circuits, { key, window: { ...window, calls: 0 } }, now))",
    caughtBy: "list: shows each circuit as `read` does, through the window asked for"
  }
]

/** What is wrong, and the check that must find it. */
interface Other {
  readonly wrong: string
  readonly subject: Effect.Effect<CircuitBreakerStoreContract.Subject>
  readonly caughtBy: string
}

const racing = subjectOf(ReferenceStore, Effect.yieldNow)

/** What no line of the reference could be changed to. */
const others: ReadonlyArray<Other> = [
  {
    wrong: "something comes between a look and its change, and records are lost",
    subject: racing,
    caughtBy: "at once: of 50 records none is lost"
  },
  {
    wrong: "something comes between a look and its change, and too many leases are granted",
    subject: racing,
    caughtBy: "at once: of 20 leases no more than the limit are granted"
  },
  {
    wrong: "something comes between a look and its change, and several transitions win",
    subject: racing,
    caughtBy: "at once: of 20 transitions one wins, and all others see it"
  },
  {
    wrong: "something comes between a look and its change, and a probe counts twice",
    subject: racing,
    caughtBy: "at once: one probe's outcome told 10 times counts once"
  },
  {
    wrong: "a look makes a circuit",
    subject: around(({ read, record }) => ({
      read: (asked) => Effect.andThen(record({ ...asked, generation: 0, samples: "" }), read(asked))
    })),
    caughtBy: "read: writes nothing"
  },
  {
    wrong: "every answer is the same object, brought up to date",
    subject: around(({ read, record }) => {
      const only = {}
      return {
        read: (asked) => Effect.map(read(asked), (snapshot) => Object.assign(only, snapshot)),
        record: (given) =>
          Effect.map(record(given), ({ ok, snapshot }) => ({ ok, snapshot: Object.assign(only, snapshot) }))
      }
    }),
    caughtBy: "read: answers with a picture that later changes leave as it is"
  },
  {
    wrong: "its clock goes back now and then",
    subject: around(({ read }) => {
      let reads = 0
      return { read: (asked) => Effect.map(read(asked), (seen) => ({ ...seen, now: seen.now - (++reads % 2) })) }
    }),
    caughtBy: "read: shows a time that never goes back"
  },
  {
    wrong: "its clock stands still",
    subject: Effect.map(subjectOf(ReferenceStore), (subject) => ({ ...subject, sleep: () => Effect.void })),
    caughtBy: "lease: lapses when its time is over"
  },
  {
    wrong: "keys have no case",
    subject: withKeys((key) => key.toLowerCase()),
    caughtBy: "keys: are any text, and no two are the same"
  },
  {
    wrong: "keys are trimmed",
    subject: withKeys((key) => key.trim()),
    caughtBy: "keys: are any text, and no two are the same"
  },
  {
    wrong: "keys are normalised",
    subject: withKeys((key) => key.normalize()),
    caughtBy: "keys: are any text, and no two are the same"
  },
  {
    wrong: "keys are cut",
    subject: withKeys((key) => key.slice(0, 255)),
    caughtBy: "keys: are any text, and no two are the same"
  },
  {
    wrong: "circuits are the fields of an object",
    subject: withKeys((key) => key === "__proto__" ? "[object Object]" : key),
    caughtBy: "keys: may be what an object has already, or nothing"
  },
  {
    wrong: "all circuits are one",
    subject: withKeys(() => "the only one"),
    caughtBy: "at once: what happens to many circuits happens to each"
  },
  {
    wrong: "reasons are cut",
    subject: around(({ transition }) => ({
      transition: (wish) =>
        transition({
          ...wish,
          to: wish.to._tag === "Forced" ? { ...wish.to, reason: wish.to.reason.slice(0, 255) } : wish.to
        })
    })),
    caughtBy: "texts: are kept as they are"
  }
]

const caught = (subject: CircuitBreakerStoreContract.Subject, name: string) =>
  Effect.gen(function*() {
    const check = CircuitBreakerStoreContract.checks.find((check) => check.name === name)
    assert.isDefined(check, `there is no check "${name}"`)
    const broken = yield* Effect.flip(check.run(subject))
    assert.isTrue(broken instanceof CircuitBreakerStoreContract.ContractBroken && broken.check === name)
  })

describe("the checks find what is wrong:", () => {
  let loaded: ReadonlyMap<Mutant, Verbs> = new Map()
  beforeAll(async () => {
    loaded = await load(mutants)
  })

  for (const mutant of mutants) {
    it.effect(mutant.wrong, () =>
      Effect.gen(function*() {
        yield* caught(yield* subjectOf(loaded.get(mutant)!), mutant.caughtBy)
      }))
  }

  for (const { caughtBy, subject, wrong } of others) {
    it.effect(wrong, () => Effect.flatMap(subject, (subject) => caught(subject, caughtBy)))
  }

  for (const mutant of mutants.filter(({ isRare }) => isRare !== true)) {
    it.effect(`${mutant.wrong}, and by comparison`, () =>
      Effect.gen(function*() {
        const subject = yield* subjectOf(loaded.get(mutant)!)
        const differs = yield* Effect.flip(CircuitBreakerStoreContract.compare({ ...subject, runs: 100, seed: 1 }))
        assert.isTrue(differs instanceof CircuitBreakerStoreContract.ModelDiffers && differs.commands.length < 10)
      }))
  }
})

it.effect("they find nothing where nothing is wrong", () =>
  Effect.gen(function*() {
    const subject = yield* subjectOf(ReferenceStore)
    yield* Effect.forEach(CircuitBreakerStoreContract.checks, ({ run }) => run(subject), { discard: true })
    yield* CircuitBreakerStoreContract.compare({ ...subject, runs: 100, seed: 1 })
  }))
