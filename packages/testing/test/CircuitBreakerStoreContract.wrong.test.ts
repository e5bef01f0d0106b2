import { assert, beforeAll, describe, it } from "@effect/vitest"
import * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
import * as ReferenceStore from "@sluice/testing/ReferenceStore"
import { Effect } from "effect"
import { around, load, type Mutant, subjectOf, type Verbs, withKeys } from "./support/wrongStores.ts"

// Shows that every check can fail. Each of these stores is the reference with one mistake.

const mutants: ReadonlyArray<Mutant> = [
  {
    wrong: "samples of any generation count",
    line: "  const isCurrent = request.generation === known.generation || (request.generation === 0 && isUntouched)",
    becomes: "  const isCurrent = request.generation > 0 || isUntouched",
    caughtBy: "samples of an older generation do not count, and the answer shows the current circuit"
  },
  {
    wrong: "times stay as they are when the clock is set back",
    line: "Math.max(0, control.since - now, leasedAt - now)",
    becomes: "0",
    caughtBy: "nothing lasts longer after the clock was set back by an hour than it was set to last"
  },
  {
    wrong: "only the start is shifted when the clock is set back",
    line: "until: before(control.until) }",
    becomes: "until: control.until }",
    caughtBy: "an opening of a moment admits a probe a moment after the clock was set back by an hour"
  },
  {
    wrong: "the hint is not shifted when the clock is set back",
    line: "hinted: before(control.hinted) }",
    becomes: "hinted: control.hinted }",
    caughtBy: "nothing lasts longer after the clock was set back by an hour than it was set to last"
  },
  {
    wrong: "leases are not shifted when the clock is set back",
    line: "map(([id, at]) => [id, at - ahead])",
    becomes: "map(([id, at]) => [id, at])",
    caughtBy: "a lease lasts no longer after the clock was set back, however old its circuit is"
  },
  {
    wrong: "the time of the last lease is not kept",
    line: "leases, leasedAt: now }",
    becomes: "leases }",
    caughtBy: "a lease lasts no longer after the clock was set back, however old its circuit is"
  },
  {
    wrong: "samples of generation 0 always count",
    line: "(request.generation === 0 && isUntouched)",
    becomes: "request.generation === 0",
    caughtBy: "samples of generation 0 count until the first transition"
  },
  {
    wrong: "samples of generation 0 never count",
    line: "(request.generation === 0 && isUntouched)",
    becomes: "(request.generation < 0 && isUntouched)",
    caughtBy: "samples of generation 0 count until the first transition"
  },
  {
    wrong: "probes of any generation count",
    line: "isLive(known, lease, now) && request.generation === known.generation",
    becomes: "isLive(known, lease, now)",
    caughtBy: "the outcome of a probe of an older generation does not count, and frees its slot"
  },
  {
    wrong: "samples of an expired lease count",
    line: "isLive(known, lease, now) && request",
    becomes: "known.leases.has(lease) && request",
    caughtBy: "the outcome of an expired lease does not count"
  },
  {
    wrong: "samples of an unknown lease count",
    line: "isLive(known, lease, now) && request",
    becomes: "request",
    caughtBy: "the outcome of a probe counts once and frees its slot"
  },
  {
    wrong: "a transition removes leases",
    line: "leases: known.leases",
    becomes: "leases: new Map()",
    caughtBy: "a transition keeps live leases, which hold their slots in the next round"
  },
  {
    wrong: "a renewed lease takes a second slot",
    line: "new Map(circuit.leases).set(request.id,",
    becomes: "new Map(circuit.leases).set(circuit.leases.has(request.id) ? `${request.id}'` : request.id,",
    caughtBy: "a live id renews its lease and takes no second slot"
  },
  {
    wrong: "a lease is not renewed while all slots are taken",
    line: "!(isFree || isLive(circuit, request.id, now))",
    becomes: "!isFree",
    caughtBy: "a live id renews its lease and takes no second slot"
  },
  {
    wrong: "a renewed lease keeps its expiry",
    line: "set(request.id, now + request.ttlMillis)",
    becomes: "set(request.id, circuit.leases.get(request.id) ?? now + request.ttlMillis)",
    caughtBy: "a live id renews its lease and takes no second slot"
  },
  {
    wrong: "a lease is refused at the very end of the open time",
    line: "now >= circuit.control.until",
    becomes: "now > circuit.control.until",
    caughtBy: "a lease is refused until the open time has elapsed by the store's clock"
  },
  {
    wrong: "a lease is granted before the open time has elapsed",
    line: " && now >= circuit.control.until",
    becomes: "",
    caughtBy: "a lease is refused until the open time has elapsed by the store's clock"
  },
  {
    wrong: "a lease is granted in a closed circuit",
    line: "circuit.control._tag === \"Open\" && now",
    becomes: "circuit.control._tag !== \"Forced\" && now",
    caughtBy: "a lease is refused in a missing, a closed and a forced circuit"
  },
  {
    wrong: "a lease of any generation is granted",
    line: "const mayProbe = circuit.generation === request.generation &&",
    becomes: "const mayProbe =",
    caughtBy: "a lease of another generation is refused, and the answer shows the current circuit"
  },
  {
    wrong: "one lease too many is granted",
    line: "evidence.ring.length < request.limit",
    becomes: "evidence.ring.length <= request.limit",
    caughtBy: "live and reported probes together are at most limit"
  },
  {
    wrong: "a probe that has reported frees its slot",
    line: "probing + evidence.ring.length < request.limit",
    becomes: "probing < request.limit",
    caughtBy: "live and reported probes together are at most limit"
  },
  {
    wrong: "an expired lease holds its slot",
    line: ".filter((at) => now < at)",
    becomes: "",
    caughtBy: "a lease expires after ttlMillis"
  },
  {
    wrong: "a lease is live at the very end of its time",
    line: ".filter((at) => now < at)",
    becomes: ".filter((at) => now <= at)",
    caughtBy: "a lease expires after ttlMillis"
  },
  {
    wrong: "an expired lease is renewed",
    line: "now < (leases.get(id) ?? now)",
    becomes: "leases.has(id)",
    caughtBy: "a lease expires after ttlMillis"
  },
  {
    wrong: "leaseMillis is the time until the last lease expires",
    line: "Math.min(...expiries) - now",
    becomes: "Math.max(...expiries) - now",
    caughtBy: "each lease expires at its own time"
  },
  {
    wrong: "a probe's record does not free its lease",
    line: ".filter(([id]) => id !== lease)",
    becomes: "",
    caughtBy: "the outcome of a probe counts once and frees its slot"
  },
  {
    wrong: "a probe's record frees every lease",
    line: ".filter(([id]) => id !== lease)",
    becomes: ".filter(() => false)",
    caughtBy: "a probe without samples frees its slot"
  },
  {
    wrong: "a record of an older generation does not free its lease",
    line: ": refuse(new Map(circuits).set(request.key, freed), request, now)",
    becomes: ": refuse(circuits, request, now)",
    caughtBy: "the outcome of a probe of an older generation does not count, and frees its slot"
  },
  {
    wrong: "the first failure does not count",
    line: "return done(circuits, request, now, added(made, request, now))",
    becomes: "return done(circuits, request, now, made)",
    caughtBy: "a record makes a missing circuit and counts in it"
  },
  {
    wrong: "an evicted circuit is not made again",
    line: "  if (known === undefined) {\n    const made",
    becomes:
      "  if (known === undefined) {\n    if (request.generation > 0) return refuse(circuits, request, now)\n    const made",
    caughtBy: "a record makes an evicted circuit again and counts in it, whatever its generation was",
    isRare: true
  },
  {
    wrong: "an evicted circuit is made again with an old generation",
    line: "nextGeneration(request.generation, now)",
    becomes: "nextGeneration(0, now)",
    caughtBy: "a record makes an evicted circuit again and counts in it, whatever its generation was",
    isRare: true
  },
  {
    wrong: "a transition after an eviction reuses a generation",
    line: "Math.max(previous + 1, Math.floor(now * 1_000))",
    becomes: "previous + 1",
    caughtBy: "a generation is never reused, even after an eviction",
    isRare: true
  },
  {
    wrong: "two transitions in a millisecond get the same generation",
    line: "Math.max(previous + 1, Math.floor(now * 1_000))",
    becomes: "Math.max(1, Math.floor(now * 1_000))",
    caughtBy: "every transition gives a greater generation"
  },
  {
    wrong: "the ring is trimmed at the wrong end",
    line: "ring.slice(Math.max(0, ring.length - window.calls))",
    becomes: "ring.slice(0, window.calls)",
    caughtBy: "the ring keeps the last outcomes, oldest first"
  },
  {
    wrong: "the ring of 0 calls is not empty",
    line: "ring.slice(Math.max(0, ring.length - window.calls))",
    becomes: "ring.slice(-window.calls)",
    caughtBy: "a window of 0 calls has no ring, and a window of 0 buckets has no wheel"
  },
  {
    wrong: "all windows share their evidence",
    line: "`${calls}/${bucketMillis}/${buckets}`",
    becomes: "`${typeof calls}${typeof bucketMillis}${typeof buckets}`",
    caughtBy: "every window has its own evidence, under a shared control"
  },
  {
    wrong: "windows with different calls share their evidence",
    line: "`${calls}/${bucketMillis}/${buckets}`",
    becomes: "`${typeof calls}/${bucketMillis}/${buckets}`",
    caughtBy: "every window has its own evidence, under a shared control"
  },
  {
    wrong: "windows with different buckets share their evidence",
    line: "`${calls}/${bucketMillis}/${buckets}`",
    becomes: "`${calls}/${bucketMillis}/${typeof buckets}`",
    caughtBy: "every window has its own evidence, under a shared control"
  },
  {
    wrong: "samples count in an open circuit",
    line: "control._tag === \"Closed\" || (control._tag === \"Forced\"",
    becomes: "control._tag !== \"Forced\" || (control._tag === \"Forced\"",
    caughtBy: "samples without a lease do not count in an open circuit"
  },
  {
    wrong: "samples count in a Disabled circuit",
    line: " && control.mode !== \"Disabled\"",
    becomes: "",
    caughtBy: "samples count in a forced circuit, unless it is Disabled"
  },
  {
    wrong: "samples count in no forced circuit",
    line: "(control._tag === \"Forced\" && control.mode !== \"Disabled\")",
    becomes: "false",
    caughtBy: "samples count in a forced circuit, unless it is Disabled"
  },
  {
    wrong: "new samples are added at the front of the ring",
    line: "[...circuit.samples, ...[...samples].map((code) => ({ code, at: now, window: addressOf(window) }))]",
    becomes: "[...[...samples].map((code) => ({ code, at: now, window: addressOf(window) })), ...circuit.samples]",
    caughtBy: "the ring keeps the last outcomes, oldest first"
  },
  {
    wrong: "the wheel keeps one bucket too few",
    line: "Array.from({ length: buckets }",
    becomes: "Array.from({ length: Math.max(0, buckets - 1) }",
    caughtBy: "buckets that are older than the window are dropped"
  },
  {
    wrong: "the wheel moves on one bucket late",
    line: "- buckets + 1 + nth)",
    becomes: "- buckets + nth)",
    caughtBy: "buckets that are older than the window are dropped"
  },
  {
    wrong: "buckets start at the time of the request",
    line: "(Math.floor(now / bucketMillis) - buckets + 1 + nth) * bucketMillis",
    becomes: "now - (buckets - 1 - nth) * bucketMillis",
    caughtBy: "each bucket sums the outcomes of its stretch of time"
  },
  {
    wrong: "empty buckets are returned",
    line: ".filter(({ calls }) => calls > 0)",
    becomes: "",
    caughtBy: "buckets that are older than the window are dropped"
  },
  {
    wrong: "a slow call adds to the weight of failures",
    line: "Math.floor((code.charCodeAt(0) - 48) / 2)",
    becomes: "Math.round((code.charCodeAt(0) - 48) / 2)",
    caughtBy: "each bucket sums the outcomes of its stretch of time"
  },
  {
    wrong: "slow calls are not counted",
    line: "(code.charCodeAt(0) - 48) % 2",
    becomes: "(code.charCodeAt(0) - 48) % 1",
    caughtBy: "each bucket sums the outcomes of its stretch of time"
  },
  {
    wrong: "a repeated transition is refused",
    line: "[{ ok: isRepeated,",
    becomes: "[{ ok: isRepeated && false,",
    caughtBy: "a transition that its winner repeats is ok and changes nothing"
  },
  {
    wrong: "a repeated transition is done again",
    line: "  if (known.generation === request.generation) {",
    becomes: "  if (known.generation === request.generation || known.control.by === request.by) {",
    caughtBy: "a transition that its winner repeats is ok and changes nothing"
  },
  {
    wrong: "the later transition wins",
    line: "  if (known.generation === request.generation) {",
    becomes: "  if (known.generation >= request.generation) {",
    caughtBy: "a refused transition returns the snapshot of the winner"
  },
  {
    wrong: "a transition of generation 0 always wins",
    line: "  if (known.generation === request.generation) {",
    becomes: "  if (known.generation === request.generation || request.generation === 0) {",
    caughtBy: "a transition needs the current generation"
  },
  {
    wrong: "a transition keeps the evidence",
    line: "now),\n      samples: [],",
    becomes: "now),\n      samples: known.samples,",
    caughtBy: "a transition empties the evidence of every window"
  },
  {
    wrong: "until is a duration",
    line: "until: now + to.forMillis",
    becomes: "until: to.forMillis",
    caughtBy: "a transition to Open sets its times by the store's clock and keeps the tally"
  },
  {
    wrong: "the hint is not kept",
    line: "hinted: inFuture(to.hintMillis)",
    becomes: "hinted: 0",
    caughtBy: "a transition to Open sets its times by the store's clock and keeps the tally"
  },
  {
    wrong: "hinted is set without a hint",
    line: "millis === 0 ? 0 : now + millis",
    becomes: "now + millis",
    caughtBy: "a transition to Open sets its times by the store's clock and keeps the tally"
  },
  {
    wrong: "the tally is not kept",
    line: "const { because, openings } = to",
    becomes: "const { openings } = to\n      const because = { calls: 0, failures: 0, slow: 0 }",
    caughtBy: "a transition to Open sets its times by the store's clock and keeps the tally"
  },
  {
    wrong: "a closed circuit loses its openings",
    line: "until: inFuture(to.rampMillis), openings,",
    becomes: "until: inFuture(to.rampMillis), openings: 0,",
    caughtBy: "a transition to Closed keeps the ramp, the openings and how long it was open"
  },
  {
    wrong: "a ramp never ends",
    line: "until: inFuture(to.rampMillis)",
    becomes: "until: 0",
    caughtBy: "a transition to Closed keeps the ramp, the openings and how long it was open"
  },
  {
    wrong: "list is not sorted",
    line: "    .sort()\n",
    becomes: "",
    caughtBy: "list returns circuits page by page in the order of their keys"
  },
  {
    wrong: "list is sorted by locale",
    line: "    .sort()\n",
    becomes: "    .sort((a, b) => a.localeCompare(b))\n",
    caughtBy: "list returns circuits page by page in the order of their keys",
    isRare: true
  },
  {
    wrong: "list includes the circuit of after",
    line: "key > after",
    becomes: "key >= after",
    caughtBy: "list returns circuits page by page in the order of their keys",
    isRare: true
  },
  {
    wrong: "list ignores limit",
    line: "    .slice(0, limit)\n",
    becomes: "",
    caughtBy: "list returns circuits page by page in the order of their keys",
    isRare: true
  },
  {
    wrong: "list ignores the window",
    line: "key) => read(circuits, { key, window }, now))",
    becomes: "key) => read(circuits, { key, window: { ...window, calls: 0 } }, now))",
    caughtBy: "list shows each circuit as read does, for the requested window"
  }
]

/** A store with a mistake that no changed line of the reference has. */
interface WrongStore {
  readonly wrong: string
  readonly subject: Effect.Effect<CircuitBreakerStoreContract.Subject>
  /** The name of the check that has to fail. */
  readonly caughtBy: string
}

const racing = subjectOf(ReferenceStore, Effect.yieldNow)

const wrongStores: ReadonlyArray<WrongStore> = [
  {
    wrong: "concurrent records overwrite each other",
    subject: racing,
    caughtBy: "50 concurrent records all count"
  },
  {
    wrong: "concurrent leases do not see each other",
    subject: racing,
    caughtBy: "20 concurrent leases are granted up to the limit"
  },
  {
    wrong: "concurrent transitions do not see each other",
    subject: racing,
    caughtBy: "one of 20 concurrent transitions wins, and every answer shows it"
  },
  {
    wrong: "concurrent records of one probe do not see each other",
    subject: racing,
    caughtBy: "the outcome of a probe that is sent 10 times at once counts once"
  },
  {
    wrong: "a read after the clock was set back does not keep the shifted times",
    subject: subjectOf({ ...ReferenceStore, adjustToClock: (circuits) => circuits }),
    caughtBy: "a read after the clock was set back moves the end once, not at every read"
  },
  {
    wrong: "read makes a circuit",
    subject: around(({ read, record }) => ({
      read: (request) => Effect.andThen(record({ ...request, generation: 0, samples: "" }), read(request))
    })),
    caughtBy: "read writes nothing"
  },
  {
    wrong: "every answer is the same object",
    subject: around(({ read, record }) => {
      const only = {}
      return {
        read: (request) => Effect.map(read(request), (snapshot) => Object.assign(only, snapshot)),
        record: (request) =>
          Effect.map(record(request), ({ ok, snapshot }) => ({ ok, snapshot: Object.assign(only, snapshot) }))
      }
    }),
    caughtBy: "later changes leave a snapshot as it is"
  },
  {
    wrong: "the clock goes back from time to time",
    subject: around(({ read }) => {
      let reads = 0
      return {
        read: (request) => Effect.map(read(request), (snapshot) => ({ ...snapshot, now: snapshot.now - (++reads % 2) }))
      }
    }),
    caughtBy: "the time of snapshots never goes back"
  },
  {
    wrong: "the clock does not advance",
    subject: Effect.map(subjectOf(ReferenceStore), (subject) => ({ ...subject, sleep: () => Effect.void })),
    caughtBy: "a lease expires after ttlMillis"
  },
  {
    wrong: "keys ignore case",
    subject: withKeys((key) => key.toLowerCase()),
    caughtBy: "any text is a key, and no two keys share a circuit"
  },
  {
    wrong: "keys are trimmed",
    subject: withKeys((key) => key.trim()),
    caughtBy: "any text is a key, and no two keys share a circuit"
  },
  {
    wrong: "keys are normalised",
    subject: withKeys((key) => key.normalize()),
    caughtBy: "any text is a key, and no two keys share a circuit"
  },
  {
    wrong: "keys are truncated",
    subject: withKeys((key) => key.slice(0, 255)),
    caughtBy: "any text is a key, and no two keys share a circuit"
  },
  {
    wrong: "circuits are properties of an object",
    subject: withKeys((key) => key === "__proto__" ? "[object Object]" : key),
    caughtBy: "names of object properties and the empty text are ordinary keys"
  },
  {
    wrong: "all keys share one circuit",
    subject: withKeys(() => "the only one"),
    caughtBy: "concurrent records of several circuits count each in its own circuit"
  },
  {
    wrong: "reasons are truncated",
    subject: around(({ transition }) => ({
      transition: (request) =>
        transition({
          ...request,
          to: request.to._tag === "Forced" ? { ...request.to, reason: request.to.reason.slice(0, 255) } : request.to
        })
    })),
    caughtBy: "reasons and transition ids are kept, whatever their text"
  }
]

const assertFails = (subject: CircuitBreakerStoreContract.Subject, name: string) =>
  Effect.gen(function*() {
    const check = CircuitBreakerStoreContract.checks.find((check) => check.name === name)
    assert.isDefined(check, `there is no check "${name}"`)
    const broken = yield* Effect.flip(check.run(subject))
    assert.isTrue(broken instanceof CircuitBreakerStoreContract.ContractBroken && broken.check === name)
  })

describe("the contract on wrong stores", () => {
  let loaded: ReadonlyMap<Mutant, Verbs> = new Map()
  beforeAll(async () => {
    loaded = await load("ReferenceStore", mutants)
  })

  for (const mutant of mutants) {
    it.effect(`a check fails if ${mutant.wrong}`, () =>
      Effect.gen(function*() {
        yield* assertFails(yield* subjectOf(loaded.get(mutant)!), mutant.caughtBy)
      }))
  }

  for (const { caughtBy, subject, wrong } of wrongStores) {
    it.effect(`a check fails if ${wrong}`, () => Effect.flatMap(subject, (subject) => assertFails(subject, caughtBy)))
  }

  for (const mutant of mutants.filter(({ isRare }) => isRare !== true)) {
    it.effect(`compare fails if ${mutant.wrong}`, () =>
      Effect.gen(function*() {
        const subject = yield* subjectOf(loaded.get(mutant)!)
        const differs = yield* Effect.flip(CircuitBreakerStoreContract.compare({ ...subject, runs: 100, seed: 1 }))
        assert.isTrue(differs instanceof CircuitBreakerStoreContract.ModelDiffers && differs.commands.length < 10)
      }))
  }
})

it.effect("the checks and compare pass on the unchanged reference", () =>
  Effect.gen(function*() {
    const subject = yield* subjectOf(ReferenceStore)
    yield* Effect.forEach(CircuitBreakerStoreContract.checks, ({ run }) => run(subject), { discard: true })
    yield* CircuitBreakerStoreContract.compare({ ...subject, runs: 100, seed: 1 })
  }))
