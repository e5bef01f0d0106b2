import * as FlightStore from "@sluice/core/FlightStore"
import * as FlightStoreContract from "@sluice/testing/FlightStoreContract"
import type * as ReferenceFlightStore from "@sluice/testing/ReferenceFlightStore"
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { subjectOf } from "./support/flights.ts"
import { load, type Mutant } from "./support/wrongStores.ts"

// Shows that every check can fail. Each of these stores is the reference with one mistake.

const mutants: ReadonlyArray<Mutant> = [
  {
    wrong: "every claim leads",
    line:
      "if (lease.id !== id) return { _tag: \"Follow\", generation: lease.generation, leaseMillis: lease.until - now }",
    becomes: "",
    caughtBy: "the first claim leads, and the others follow it"
  },
  {
    wrong: "a follower learns the end of the lease instead of how long it lasts",
    line: "leaseMillis: lease.until - now }",
    becomes: "leaseMillis: lease.until }",
    caughtBy: "the first claim leads, and the others follow it"
  },
  {
    wrong: "a repeated claim leads anew",
    line: "lease.key === key && isLive(lease, now))\n    if",
    becomes: "lease.key === key && lease.id !== id && isLive(lease, now))\n    if",
    caughtBy: "a leader whose reply was lost claims again, and leads"
  },
  {
    wrong: "a repeated claim does not renew the lease",
    line: "    lease.until = now + leaseMillis\n    return { _tag: \"Lead\"",
    becomes: "    return { _tag: \"Lead\"",
    caughtBy: "a leader whose reply was lost claims again, and leads"
  },
  {
    wrong: "a result is for all keys",
    line: "this.results.findLast(({ lease }) => lease.key === key)",
    becomes: "this.results.at(-1)",
    caughtBy: "keys are separate, and any text is a key and an id"
  },
  {
    wrong: "a lease never lapses",
    line: "!hasEnded && until > now",
    becomes: "!hasEnded && until > 0 * now",
    caughtBy: "a lapsed lease is taken over by the next claim"
  },
  {
    wrong: "a generation is used twice",
    line: "++this.generation",
    becomes: "Math.max(1, this.generation)",
    caughtBy: "a lapsed lease is taken over by the next claim"
  },
  {
    wrong: "a renewal changes nothing",
    line: "if (lease !== undefined) lease.until = now + leaseMillis",
    becomes: "",
    caughtBy: "a renewed lease does not lapse"
  },
  {
    wrong: "a lapsed lease is still held",
    line: "lease.id === id && isLive(lease, now)",
    becomes: "lease.id === id && isLive(lease, 0 * now)",
    caughtBy: "a lapsed lease cannot be renewed, completed or released"
  },
  {
    wrong: "any id holds the lease",
    line: "lease.id === id && isLive(lease, now)",
    becomes: "(id, isLive(lease, now))",
    caughtBy: "an id without a lease changes nothing"
  },
  {
    wrong: "a late leader replaces the result of its successor",
    line: "const last = this.leases.findLast(({ key }) => key === flight.key)",
    becomes: "const last = this.leases.findLast(({ id, key }) => key === flight.key && id === flight.id)\n" +
      "    if (last !== undefined && last.until <= now) last.until = now + 1",
    caughtBy: "a late leader does not touch the lease and the result of its successor"
  },
  {
    wrong: "a result is only for the followers of earlier leases",
    line: "result.lease.generation >= following",
    becomes: "result.lease.generation > following",
    caughtBy: "those who followed get the result, and no other claim does"
  },
  {
    wrong: "a result for followers is for every claim",
    line: "result.lease.generation >= following",
    becomes: "(following, true)",
    caughtBy: "those who followed get the result, and no other claim does"
  },
  {
    wrong: "the lease of a completed flight goes on",
    line: "    lease.hasEnded = true\n    const",
    becomes: "    const",
    caughtBy: "those who followed get the result, and no other claim does"
  },
  {
    wrong: "a follower gets the result of an earlier lease",
    line: "result.lease.generation >= following",
    becomes: "following < Number.POSITIVE_INFINITY",
    caughtBy: "a follower gets the result of a later lease too, and not of an earlier one"
  },
  {
    wrong: "no result is fresh",
    line: "freshUntil: now + freshMillis",
    becomes: "freshUntil: now + 0 * freshMillis",
    caughtBy: "a fresh result is for every claim"
  },
  {
    wrong: "an answer has the end of a result's freshness instead of how long it lasts",
    line: "Math.max(0, freshUntil - now)",
    becomes: "freshUntil",
    caughtBy: "a fresh result is for every claim"
  },
  {
    wrong: "a fresh result stays fresh",
    line: "freshUntil: now + freshMillis",
    becomes: "freshUntil: now + 1e9 * freshMillis",
    caughtBy: "a result is neither fresh nor kept for longer than was said"
  },
  {
    wrong: "a result is kept for ever",
    line: " && result.keptUntil > now",
    becomes: "",
    caughtBy: "a result is neither fresh nor kept for longer than was said"
  },
  {
    wrong: "a repeated completion is refused",
    line: "if (last?.id === flight.id && this.results.some(({ lease }) => lease === last)) return true",
    becomes: "if (last === undefined) return false",
    caughtBy: "a result that was completed once stays, and the repeated request is true"
  },
  {
    wrong: "a repeated completion replaces the result",
    line: "if (last?.id === flight.id && this.results.some(({ lease }) => lease === last)) return true",
    becomes: "if (last?.id === flight.id && this.results.some(({ lease }) => lease === last)) last.hasEnded = false",
    caughtBy: "the first result of a lease stays, whatever is completed later"
  },
  {
    wrong: "a release changes nothing",
    line: "if (lease !== undefined) lease.hasEnded = true",
    becomes: "",
    caughtBy: "a released lease is led by the next claim, and has no result"
  },
  {
    wrong: "the empty result is none",
    line: "if (result !== undefined && (result",
    becomes: "if (result !== undefined && result.text !== \"\" && (result",
    caughtBy: "any text is a result, the empty one too"
  },
  {
    wrong: "a purge of an operation or a tenant deletes nothing",
    line: "flight[by] === hash",
    becomes: "(by, flight.key) === hash",
    caughtBy: "purge deletes the entries of a tenant, an operation or a key, and no others"
  },
  {
    wrong: "a purge deletes everything",
    line: "flight[by] === hash",
    becomes: "(by, hash, flight.key !== hash)",
    caughtBy: "purge deletes the entries of a tenant, an operation or a key, and no others"
  },
  {
    wrong: "a purge leaves the results",
    line: "    this.results = this.results.filter(({ lease }) => !isPurged(lease))\n",
    becomes: "",
    caughtBy: "purge deletes the entries of a tenant, an operation or a key, and no others"
  },
  {
    wrong: "a purge counts leases instead of entries",
    line: "new Set(this.leases.filter(isPurged).map(({ key }) => key))",
    becomes: "new Set(this.leases.filter(isPurged).map(({ generation }) => generation))",
    caughtBy: "purge deletes the entries of a tenant, an operation or a key, and no others"
  },
  {
    wrong: "a purge leaves the leases",
    line: "    this.leases = this.leases.filter((lease) => !isPurged(lease))\n",
    becomes: "",
    caughtBy: "a lease that was purged completes nothing"
  },
  {
    wrong: "times stay as they are when the clock is set back",
    line: "Math.max(this.behind, this.latest - at)",
    becomes: "0",
    caughtBy: "a lease and a result last no longer if the clock is set back",
    isRare: true
  }
]

type Service = FlightStore.FlightStore["Service"]

/** A store in which those claims lead that have seen no leader before they write. */
const racy = (applies: (request: FlightStore.ClaimRequest) => boolean) => (store: Service): Partial<Service> => {
  const led = new Set<string>()
  return {
    claim: (request) =>
      Effect.gen(function*() {
        const address = `${request.key} ${request.following}`
        const isLed = led.has(address)
        yield* Effect.yieldNow
        if (isLed || !applies(request)) return yield* store.claim(request)
        led.add(address)
        yield* store.purge({ by: "key", hash: request.key })
        return yield* store.claim(request)
      })
  }
}

/** Mistakes that the reference cannot make. */
const wrongStores: ReadonlyArray<
  { readonly wrong: string; readonly caughtBy: string; readonly change: (store: Service) => Partial<Service> }
> = [
  {
    wrong: "a claim reads before it writes",
    caughtBy: "one of 20 concurrent claims leads",
    change: racy(({ following }) => following === undefined)
  },
  {
    wrong: "a takeover reads before it writes",
    caughtBy: "one of 20 concurrent claims takes over",
    change: racy(({ following }) => following !== undefined)
  },
  {
    wrong: "long results are cut",
    caughtBy: "any text is a result, the empty one too",
    change: ({ complete }) => ({
      complete: (request) => complete({ ...request, result: request.result.slice(0, 1_000) })
    })
  },
  {
    wrong: "nothing tells what is finished",
    caughtBy: "finished names a key whose lease has ended while others followed",
    change: () => ({ finished: Stream.never })
  },
  {
    wrong: "an earlier result is not shifted when a lease is renewed after the clock was set back",
    caughtBy: "an earlier result lasts no longer if a lease is renewed after the clock was set back",
    change: ({ claim, complete }) => {
      const results = new Map<string, { readonly result: string; readonly generation: number }>()
      const leases = new Map<string, number>()
      return {
        claim: (request) => {
          const kept = results.get(request.key)
          return request.following !== undefined && kept !== undefined && kept.generation >= request.following
            ? Effect.succeed({ _tag: "Result", freshMillis: 0, ...kept })
            : Effect.tap(claim(request), ({ generation }) => Effect.sync(() => leases.set(request.key, generation)))
        },
        complete: (request) => {
          results.set(request.key, { result: request.result, generation: leases.get(request.key) ?? 0 })
          return complete(request)
        }
      }
    }
  },
  {
    wrong: "a lease that is renewed after the clock was set back lapses",
    caughtBy: "a lease that is renewed after the clock was set back does not lapse",
    change: (store) => ({ renew: (request) => store.release(request) })
  }
]

const assertFails = (subject: FlightStoreContract.Subject, name: string) =>
  Effect.gen(function*() {
    const check = FlightStoreContract.checks.find((check) => check.name === name)
    assert.isDefined(check, `there is no check "${name}"`)
    const broken = yield* Effect.flip(check.run(subject))
    assert.isTrue(broken instanceof FlightStoreContract.ContractBroken && broken.check === name)
  })

describe("the contract on wrong stores of flights", () => {
  let loaded: ReadonlyMap<Mutant, typeof ReferenceFlightStore> = new Map()
  beforeAll(async () => {
    loaded = await load("ReferenceFlightStore", mutants)
  })

  for (const mutant of mutants) {
    it.effect(`a check fails if ${mutant.wrong}`, () =>
      Effect.flatMap(subjectOf(loaded.get(mutant)!.make), (subject) => assertFails(subject, mutant.caughtBy)))
  }

  for (const { caughtBy, change, wrong } of wrongStores) {
    it.effect(`a check fails if ${wrong}`, () =>
      Effect.flatMap(
        subjectOf(FlightStore.makeMemory()),
        ({ store, ...subject }) => assertFails({ ...subject, store: { ...store, ...change(store) } }, caughtBy)
      ))
  }

  for (const mutant of mutants.filter(({ isRare }) => isRare !== true)) {
    it.effect(`compare fails if ${mutant.wrong}`, () =>
      Effect.gen(function*() {
        const subject = yield* subjectOf(loaded.get(mutant)!.make)
        const differs = yield* Effect.flip(FlightStoreContract.compare({ ...subject, runs: 100, seed: 1 }))
        assert.isTrue(differs instanceof FlightStoreContract.ModelDiffers && differs.commands.length < 10)
      }))
  }

  it("every check is one that a wrong store fails", () => {
    const caught = new Set([...mutants, ...wrongStores].map(({ caughtBy }) => caughtBy))
    assert.deepStrictEqual(FlightStoreContract.checks.map(({ name }) => name).filter((name) => !caught.has(name)), [])
  })
})
