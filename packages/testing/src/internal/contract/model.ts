import type { Answer, Snapshot, StoreError, Target } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type { Subject } from "../../CircuitBreakerStoreContract.ts"
import * as ReferenceStore from "../../ReferenceStore.ts"
import { type Difference, freshPrefix } from "../frame.ts"
import { type Command, keys, type Under, type View, windows } from "./commands.ts"

/** Runs commands on a store and on the reference. Returns their first difference. */
export const play = (
  subject: Subject,
  commands: ReadonlyArray<Command>,
  count: (what: string) => void
): Effect.Effect<Difference<Command> | undefined, StoreError> =>
  Effect.gen(function*() {
    const comparison = new Comparison(subject, yield* freshPrefix)
    // Reads everything at the end, to find differences that no command showed.
    const reads = keys.flatMap((key) => windows.map((window): Command => ({ do: "read", key, window })))
    const all = [...commands, ...reads]
    for (const [nth, command] of all.entries()) {
      const { actual, expected, ok } = yield* comparison.play(command)
      count(`${command.do}${ok === undefined ? "" : ok ? " ok" : " refused"}`)
      if (!Equal.equals(actual, expected)) return { commands: all.slice(0, nth + 1), expected, actual }
    }
    return undefined
  })

/** Both answers to a command, without what a store is free to choose. */
interface Answers {
  readonly ok: boolean | undefined
  readonly actual: unknown
  readonly expected: unknown
}

const nothing: Answers = { ok: undefined, actual: undefined, expected: undefined }

/** The number of a generation in each store. */
interface Generation {
  readonly reference: number
  readonly store: number
}

/** A granted lease, and the generation that granted it. */
interface Probe {
  readonly id: string
  readonly under: Generation
}

const zero: Generation = { reference: 0, store: 0 }
const noProbe: Probe = { id: "none", under: zero }

class Comparison {
  private readonly subject: Subject
  private readonly prefix: string
  private circuits = ReferenceStore.empty
  private readonly generations = new Map<string, Array<Generation>>()
  /** The last three leases of each circuit, latest first, including those that have ended. */
  private readonly probes = new Map<string, ReadonlyArray<Probe>>()
  private lastTransition: { readonly under: Generation; readonly by: string; readonly to: Target } & View | undefined
  private transitions = 0
  private wasSetBack = false

  constructor(subject: Subject, prefix: string) {
    this.subject = subject
    this.prefix = prefix
  }

  play(command: Command): Effect.Effect<Answers, StoreError> {
    switch (command.do) {
      case "wait":
        return Effect.as(this.subject.sleep(command.millis), nothing)
      case "setBack":
        this.wasSetBack = true
        return Effect.as(this.subject.setBack?.(command.millis) ?? Effect.void, nothing)
      case "read":
        return this.read(command)
      case "list":
        return this.list(command)
      case "record":
        return this.record(command, this.generation(command.key, command.under), command.samples)
      case "settle": {
        const { id, under } = this.probes.get(command.key)?.[command.nthLast] ?? noProbe
        return this.record(command, under, command.samples, id)
      }
      case "lease":
        return this.lease(command)
      case "transition":
        return this.transition({
          ...command,
          under: this.generation(command.key, command.under),
          by: `${++this.transitions}`
        })
      case "repeat":
        return this.lastTransition === undefined ? this.read(command) : this.transition(this.lastTransition)
    }
  }

  private read({ key, window }: View): Effect.Effect<Answers, StoreError> {
    const request = { key: this.prefix + key, window }
    return Effect.map(this.subject.store.read(request), (actual) => {
      this.circuits = ReferenceStore.adjustToClock(this.circuits, request.key, actual.now)
      return {
        ok: undefined,
        actual: this.comparable(key, actual, "store"),
        expected: this.comparable(key, ReferenceStore.read(this.circuits, request, actual.now), "reference")
      }
    })
  }

  private list({ window }: View): Effect.Effect<Answers, StoreError> {
    const page = { window, after: this.prefix, limit: keys.length + 1 }
    return Effect.map(this.subject.store.list(page), (listed) => {
      const actual = listed.filter(({ key }) => key.startsWith(this.prefix))
      const expected = ReferenceStore.list(this.circuits, page, 0).map(({ key }) => {
        const now = actual.find((snapshot) => snapshot.key === key)?.now ?? 0
        this.circuits = ReferenceStore.adjustToClock(this.circuits, key, now)
        return ReferenceStore.read(this.circuits, { key, window }, now)
      })
      const comparable = (snapshot: Snapshot, whose: keyof Generation) =>
        this.comparable(snapshot.key.slice(this.prefix.length), snapshot, whose)
      return {
        ok: undefined,
        actual: actual.map((snapshot) => comparable(snapshot, "store")),
        expected: expected.map((snapshot) => comparable(snapshot, "reference"))
      }
    })
  }

  private record({ key, window }: View, under: Generation, samples: string, lease?: string) {
    const request = { key: this.prefix + key, window, samples, lease }
    return this.both(
      key,
      this.subject.store.record({ ...request, generation: under.store }),
      (now) => ReferenceStore.record(this.circuits, { ...request, generation: under.reference }, now)
    )
  }

  private lease({ id, key, limit, ttlMillis, under: which, window }: Extract<Command, { readonly do: "lease" }>) {
    const request = { key: this.prefix + key, window, id, limit, ttlMillis }
    const under = this.generation(key, which)
    const answers = this.both(
      key,
      this.subject.store.lease({ ...request, generation: under.store }),
      (now) => ReferenceStore.lease(this.circuits, { ...request, generation: under.reference }, now)
    )
    return Effect.map(answers, (answers) => {
      if (answers.ok === true) this.probes.set(key, [{ id, under }, ...(this.probes.get(key) ?? []).slice(0, 2)])
      return answers
    })
  }

  private transition(transition: NonNullable<typeof this.lastTransition>) {
    this.lastTransition = transition
    const { by, key, to, under, window } = transition
    const request = { key: this.prefix + key, window, by, to }
    return this.both(
      key,
      this.subject.store.transition({ ...request, generation: under.store }),
      (now) => ReferenceStore.transition(this.circuits, { ...request, generation: under.reference }, now)
    )
  }

  // The store answers first. The reference answers for the time in that answer, so that both have the same times.
  private both(
    key: string,
    request: Effect.Effect<Answer, StoreError>,
    reference: (now: number) => ReferenceStore.Step
  ): Effect.Effect<Answers, StoreError> {
    return Effect.map(request, (actual) => {
      const [expected, after] = reference(actual.snapshot.now)
      this.circuits = after
      this.noteGeneration(key, { reference: expected.snapshot.generation, store: actual.snapshot.generation })
      return {
        ok: actual.ok,
        actual: { ok: actual.ok, ...this.comparable(key, actual.snapshot, "store") },
        expected: { ok: expected.ok, ...this.comparable(key, expected.snapshot, "reference") }
      }
    })
  }

  /** Notes a generation that is new in both. */
  private noteGeneration(key: string, generation: Generation): void {
    const known = this.generations.get(key) ?? []
    const latest = known.at(-1) ?? zero
    const isNew = generation.reference > latest.reference && generation.store > latest.store
    if (isNew) this.generations.set(key, [...known, generation])
  }

  private generation(key: string, under: Under): Generation {
    const known = this.generations.get(key) ?? []
    return (under === "zero" ? undefined : known.at(under === "current" ? -1 : -2)) ?? zero
  }

  // A store is free to choose the numbers of generations and the `since` of a circuit without a transition. It is also free to
  // keep or drop buckets that start in the future after its clock was set back.
  private comparable(key: string, snapshot: Snapshot, whose: keyof Generation) {
    const { control, evidence, generation } = snapshot
    const nth = [zero, ...(this.generations.get(key) ?? [])].findIndex((known) => known[whose] === generation)
    return {
      ...snapshot,
      key,
      evidence: this.wasSetBack ? { ring: evidence.ring } : evidence,
      generation: nth === -1 ? `unknown: ${generation}` : `number ${nth}`,
      control: control.by === "" ? { ...control, since: 0 } : control
    }
  }
}
