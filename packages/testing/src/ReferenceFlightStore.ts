/**
 * The contract of flight stores as the shortest program that keeps it.
 *
 * It keeps every lease and every result in lists, and takes the time as an argument, so that a reader can verify it.
 *
 * **When to use**
 *
 * To test code that shares flights (`make`), to compare your own store with it (`FlightStoreContract.compare` does), or to look up the
 * meaning of the contract.
 *
 * **Gotchas**
 *
 * It never forgets anything and gets slower with every flight. Do not use it in production. It cannot tell what is finished.
 *
 * **Example** (A lease lapses, and another takes over)
 *
 * ```ts
 * import { ReferenceFlights } from "@sluice/testing/ReferenceFlightStore"
 *
 * const flights = new ReferenceFlights()
 * const claim = (id: string, now: number) =>
 *   flights.claim({ key: "a hash", operation: "summary", tenant: "", id, leaseMillis: 1_000 }, now)._tag
 *
 * console.log(claim("process 1", 0), claim("process 2", 999), claim("process 2", 1_000)) // => Lead Follow Lead
 * ```
 *
 * @since 0.1.0
 */
import type { Claimed, ClaimRequest, Flight } from "@sluice/core/FlightStore"
import { FlightStore } from "@sluice/core/FlightStore"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

type Service = FlightStore["Service"]
type RequestOf<Verb extends "renew" | "complete" | "purge"> = Parameters<Service[Verb]>[0]

interface Lease extends Flight {
  readonly generation: number
  /** When it lapses. It ends before if it is completed, released or purged. */
  until: number
  hasEnded: boolean
}

interface Result {
  readonly lease: Lease
  readonly text: string
  readonly freshUntil: number
  readonly keptUntil: number
}

/**
 * The state of the reference store, and a function for each verb.
 *
 * @since 0.1.0
 * @category models
 */
export class ReferenceFlights {
  private leases: ReadonlyArray<Lease> = []
  private results: ReadonlyArray<Result> = []
  private generation = 0
  private latest = Number.NEGATIVE_INFINITY
  private behind = 0

  /** See `FlightStore.claim`. */
  claim(
    { following = Number.POSITIVE_INFINITY, id, key, leaseMillis, operation, tenant }: ClaimRequest,
    at: number
  ): Claimed {
    const now = this.time(at)
    const result = this.results.findLast(({ lease }) => lease.key === key)
    const isForFollowers = result !== undefined && result.lease.generation >= following && result.keptUntil > now
    if (result !== undefined && (result.freshUntil > now || isForFollowers)) {
      const { freshUntil, lease: { generation }, text } = result
      return { _tag: "Result", generation, result: text, freshMillis: Math.max(0, freshUntil - now) }
    }
    const lease = this.leases.find((lease) => lease.key === key && isLive(lease, now))
    if (lease === undefined) {
      const generation = ++this.generation
      const until = now + leaseMillis
      this.leases = [...this.leases, { key, operation, tenant, id, generation, until, hasEnded: false }]
      return { _tag: "Lead", generation }
    }
    if (lease.id !== id) return { _tag: "Follow", generation: lease.generation, leaseMillis: lease.until - now }
    lease.until = now + leaseMillis
    return { _tag: "Lead", generation: lease.generation }
  }

  /** See `FlightStore.renew`. */
  renew({ leaseMillis, ...flight }: RequestOf<"renew">, at: number): boolean {
    const now = this.time(at)
    const lease = this.held(flight, now)
    if (lease !== undefined) lease.until = now + leaseMillis
    return lease !== undefined
  }

  /** See `FlightStore.complete`. */
  complete({ freshMillis, keepMillis, result: text, ...flight }: RequestOf<"complete">, at: number): boolean {
    const now = this.time(at)
    const last = this.leases.findLast(({ key }) => key === flight.key)
    if (last?.id === flight.id && this.results.some(({ lease }) => lease === last)) return true
    const lease = this.held(flight, now)
    if (lease === undefined) return false
    lease.hasEnded = true
    const result = { lease, text, freshUntil: now + freshMillis, keptUntil: now + keepMillis }
    this.results = [...this.results, result]
    return true
  }

  /** See `FlightStore.release`. */
  release(flight: Flight, at: number): boolean {
    const lease = this.held(flight, this.time(at))
    if (lease !== undefined) lease.hasEnded = true
    return lease !== undefined
  }

  /** See `FlightStore.purge`. */
  purge({ by, hash }: RequestOf<"purge">): number {
    const isPurged = (flight: Flight) => flight[by] === hash
    const keys = new Set(this.leases.filter(isPurged).map(({ key }) => key))
    this.leases = this.leases.filter((lease) => !isPurged(lease))
    this.results = this.results.filter(({ lease }) => !isPurged(lease))
    return keys.size
  }

  /** Whether the key has neither a lease nor a result any more. Then a store may have forgotten it. */
  isOver(key: string, at: number): boolean {
    const now = this.time(at)
    return !this.leases.some((lease) => lease.key === key && isLive(lease, now)) &&
      !this.results.some(({ freshUntil, keptUntil, lease }) =>
        lease.key === key && Math.max(freshUntil, keptUntil) > now
      )
  }

  /** The time of the store, which never goes back. */
  private time(at: number): number {
    this.behind = Math.max(this.behind, this.latest - at)
    this.latest = at + this.behind
    return this.latest
  }

  private held({ id, key }: Flight, now: number): Lease | undefined {
    return this.leases.find((lease) => lease.key === key && lease.id === id && isLive(lease, now))
  }
}

const isLive = ({ hasEnded, until }: Lease, now: number): boolean => !hasEnded && until > now

/**
 * Builds a store on the reference, with the time of `Clock`.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<Service> = Effect.map(Clock.Clock, (clock) => {
  const flights = new ReferenceFlights()
  const now = () => clock.currentTimeMillisUnsafe()
  return FlightStore.of({
    claim: (request) => Effect.sync(() => flights.claim(request, now())),
    renew: (request) => Effect.sync(() => flights.renew(request, now())),
    complete: (request) => Effect.sync(() => flights.complete(request, now())),
    release: (flight) => Effect.sync(() => flights.release(flight, now())),
    purge: (request) => Effect.sync(() => flights.purge(request)),
    finished: undefined
  })
})
