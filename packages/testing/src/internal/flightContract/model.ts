import type { StoreError } from "@sluice/core/CircuitBreakerStore"
import type { Claimed, Flight } from "@sluice/core/FlightStore"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type { Subject } from "../../FlightStoreContract.ts"
import { ReferenceFlights } from "../../ReferenceFlightStore.ts"
import { type Difference, freshPrefix, long } from "../frame.ts"
import { type Command, type Duration, flights, type Who } from "./commands.ts"

/** How long a brief duration is. A wait lasts longer. */
const briefMillis = 5

const millisOf: { readonly [duration in Duration]: number } = { none: 0, brief: briefMillis, long }

/** Plays commands on a store and on the reference. Returns their first difference. */
export const play = (
  subject: Subject,
  commands: ReadonlyArray<Command>
): Effect.Effect<Difference<Command> | undefined, StoreError> =>
  Effect.gen(function*() {
    const comparison = new Comparison(subject, yield* freshPrefix)
    for (const [nth, command] of commands.entries()) {
      const { actual, expected } = yield* comparison.play(command)
      if (!Equal.equals(actual, expected)) return { commands: commands.slice(0, nth + 1), expected, actual }
    }
    return undefined
  })

/** The number of a generation in each store. Numbers differ, and only have to grow together. */
interface Generation {
  readonly reference: number
  readonly store: number
}

interface Answers {
  readonly expected: unknown
  readonly actual: unknown
}

const nothing: Answers = { expected: undefined, actual: undefined }

class Comparison {
  private readonly subject: Subject
  private readonly prefix: string
  private readonly reference = new ReferenceFlights()
  private readonly generations = flights.map((): Array<Generation> => [])
  /** The ids of each key, latest first. */
  private readonly ids = flights.map((): Array<string> => [])
  private callers = 0
  /** The reference's time passes only with a wait. Until then nothing ends in the store either. */
  private now = 1

  constructor(subject: Subject, prefix: string) {
    this.subject = subject
    this.prefix = prefix
  }

  play(command: Command): Effect.Effect<Answers, StoreError> {
    return Effect.tap(this.run(command), () => takesTime(command) ? this.wait : Effect.void)
  }

  private get wait(): Effect.Effect<void> {
    return Effect.tap(this.subject.sleep(2 * briefMillis), () => Effect.sync(() => void (this.now += 2 * briefMillis)))
  }

  private run(command: Command): Effect.Effect<Answers, StoreError> {
    const { store } = this.subject
    switch (command.do) {
      case "claim": {
        const flight = this.flight(command.flight, command.who)
        const known = this.generations[command.flight] ?? []
        const nth = command.following && { latest: 1, older: 2, oldest: known.length }[command.following]
        const following = nth === undefined ? undefined : known.at(-nth)
        const request = { ...flight, leaseMillis: millisOf[command.lease] }
        return Effect.map(store.claim({ ...request, following: following?.store }), (actual) => {
          const expected = this.reference.claim({ ...request, following: following?.reference }, this.now)
          const isNew = known.every(({ reference }) => reference !== expected.generation)
          if (expected._tag === "Lead" && actual._tag === "Lead" && isNew) {
            known.push({ reference: expected.generation, store: actual.generation })
          }
          return {
            expected: comparable(expected, known.findIndex(({ reference }) => reference === expected.generation)),
            actual: comparable(actual, known.findIndex(({ store }) => store === actual.generation))
          }
        })
      }
      case "renew": {
        const request = { ...this.flight(command.flight, command.who), leaseMillis: millisOf[command.lease] }
        return this.both(store.renew(request), () => this.reference.renew(request, this.now))
      }
      case "complete": {
        const flight = this.flight(command.flight, command.who)
        const { fresh, keep, result } = command
        const request = { ...flight, result, freshMillis: millisOf[fresh], keepMillis: millisOf[keep] }
        const mayBeForgotten = this.reference.isOver(flight.key, this.now)
        const both = this.both(store.complete(request), () => this.reference.complete(request, this.now))
        return mayBeForgotten ? Effect.as(both, nothing) : both
      }
      case "release": {
        const flight = this.flight(command.flight, command.who)
        return this.both(store.release(flight), () => this.reference.release(flight, this.now))
      }
      case "purge": {
        const hash = this.flight(command.flight, "latest")[command.by]
        const request = { by: command.by, hash }
        const kept =
          this.all().filter((flight) => flight[command.by] === hash && !this.reference.isOver(flight.key, this.now))
            .length
        return this.both(store.purge(request), () => this.reference.purge(request)).pipe(
          // A store counts what it has not yet forgotten.
          Effect.map(({ actual, expected }) =>
            Number(actual) >= kept && Number(actual) <= Number(expected) ? nothing : { actual, expected }
          )
        )
      }
      case "wait":
        return Effect.as(this.wait, nothing)
    }
  }

  private both<A>(request: Effect.Effect<A, StoreError>, reference: () => A): Effect.Effect<Answers, StoreError> {
    return Effect.map(request, (actual) => ({ actual, expected: reference() }))
  }

  private all(): ReadonlyArray<Omit<Flight, "id">> {
    return flights.map(({ key, operation, tenant }) => ({
      key: this.prefix + key,
      operation: this.prefix + operation,
      tenant: this.prefix + tenant
    }))
  }

  private flight(nth: number, who: Who): Flight {
    const ids = this.ids[nth] ?? []
    const known = { latest: ids[0], before: ids[1], new: undefined }[who]
    const id = known ?? `${this.prefix}${++this.callers}`
    if (known === undefined) ids.unshift(id)
    const { key = "", operation = "", tenant = "" } = this.all()[nth] ?? {}
    return { key, operation, tenant, id }
  }
}

/** After a purge a store may start anew, with generations from its clock. */
const takesTime = (command: Command): boolean => command.do === "purge" || Object.values(command).includes("brief")

/** An answer, with its generation as a number that both stores share. Times are over or long. */
const comparable = (claimed: Claimed, generation: number): unknown => {
  const time = (millis: number) => millis > long / 2 && millis <= long ? "long" : millis
  switch (claimed._tag) {
    case "Lead":
      return { _tag: "Lead", generation }
    case "Follow":
      return { _tag: "Follow", generation, leaseMillis: time(claimed.leaseMillis) }
    case "Result":
      return { _tag: "Result", generation, result: claimed.result, freshMillis: time(claimed.freshMillis) }
  }
}
