import type { Answer, Snapshot, StoreError, Target } from "@sluice/core/CircuitBreakerStore"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type { Subject } from "../../CircuitBreakerStoreContract.ts"
import * as ReferenceStore from "../../ReferenceStore.ts"
import { freshPrefix } from "./check.ts"
import { type Belief, type Command, keys, type Seen, windows } from "./commands.ts"

/** Where a store and the reference part. */
export interface Difference {
  /** Up to and with the one that they answered differently. */
  readonly commands: ReadonlyArray<Command>
  readonly expected: unknown
  readonly actual: unknown
}

/** Plays commands to a store and to the reference; tells where they part, if they do. */
export const play = (
  subject: Subject,
  commands: ReadonlyArray<Command>,
  count: (what: string) => void
): Effect.Effect<Difference | undefined, StoreError> =>
  Effect.gen(function*() {
    const duet = new Duet(subject, yield* freshPrefix)
    // At last all that can be seen, for what shows late.
    const looks = keys.flatMap((key) => windows.map((window): Command => ({ do: "read", key, window })))
    const all = [...commands, ...looks]
    for (const [nth, command] of all.entries()) {
      const { actual, expected, ok } = yield* duet.play(command)
      count(`${command.do}${ok === undefined ? "" : ok ? " ok" : " refused"}`)
      if (!Equal.equals(actual, expected)) return { commands: all.slice(0, nth + 1), expected, actual }
    }
    return undefined
  })

// Each attempt costs a run: enough to get to a handful of commands, and over soon where time is real.
const mostAttempts = 150

/** The same difference, or another, by fewer commands. */
export const shrink = (subject: Subject, found: Difference): Effect.Effect<Difference, StoreError> =>
  Effect.gen(function*() {
    let least = found
    let attempts = 0
    for (let size = Math.ceil(least.commands.length / 2); size > 0; size = size === 1 ? 0 : Math.ceil(size / 2)) {
      for (let end = least.commands.length - 1; end > 0 && attempts < mostAttempts; end -= size) {
        const fewer = [...least.commands.slice(0, Math.max(0, end - size)), ...least.commands.slice(end)]
        attempts++
        least = (yield* play(subject, fewer, () => {})) ?? least
      }
    }
    return least
  })

/** What both answered to a command, made alike in what a store is free to choose. */
interface Both {
  readonly ok: boolean | undefined
  readonly actual: unknown
  readonly expected: unknown
}

/** What a generation is called by either. */
interface Generation {
  readonly ours: number
  readonly theirs: number
}

/** Who was let through, and under which generation. */
interface Probe {
  readonly id: string
  readonly under: Generation
}

const none: Generation = { ours: 0, theirs: 0 }
const noProbe: Probe = { id: "none", under: none }

class Duet {
  private readonly subject: Subject
  private readonly prefix: string
  private circuits = ReferenceStore.empty
  private readonly generations = new Map<string, Array<Generation>>()
  /** The last probes of each circuit, the latest first, also those that are over. */
  private readonly probes = new Map<string, ReadonlyArray<Probe>>()
  private lastMove: { readonly under: Generation; readonly by: string; readonly to: Target } & Seen | undefined
  private moves = 0

  constructor(subject: Subject, prefix: string) {
    this.subject = subject
    this.prefix = prefix
  }

  play(command: Command): Effect.Effect<Both, StoreError> {
    switch (command.do) {
      case "wait":
        return Effect.as(this.subject.sleep(command.millis), { ok: undefined, actual: undefined, expected: undefined })
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
          by: `${++this.moves}`
        })
      case "repeat":
        return this.lastMove === undefined ? this.read(command) : this.transition(this.lastMove)
    }
  }

  private read({ key, window }: Seen): Effect.Effect<Both, StoreError> {
    const asked = { key: this.prefix + key, window }
    return Effect.map(this.subject.store.read(asked), (actual) => ({
      ok: undefined,
      actual: this.plain(key, actual, "theirs"),
      expected: this.plain(key, ReferenceStore.read(this.circuits, asked, actual.now), "ours")
    }))
  }

  private list({ window }: Seen): Effect.Effect<Both, StoreError> {
    const page = { window, after: this.prefix, limit: keys.length + 1 }
    return Effect.map(this.subject.store.list(page), (listed) => {
      const actual = listed.filter(({ key }) => key.startsWith(this.prefix))
      const expected = ReferenceStore.list(this.circuits, page, 0).map(({ key }) => {
        const now = actual.find((snapshot) => snapshot.key === key)?.now ?? 0
        return ReferenceStore.read(this.circuits, { key, window }, now)
      })
      const plain = (snapshot: Snapshot, whose: keyof Generation) =>
        this.plain(snapshot.key.slice(this.prefix.length), snapshot, whose)
      return {
        ok: undefined,
        actual: actual.map((snapshot) => plain(snapshot, "theirs")),
        expected: expected.map((snapshot) => plain(snapshot, "ours"))
      }
    })
  }

  private record({ key, window }: Seen, under: Generation, samples: string, lease?: string) {
    const given = { key: this.prefix + key, window, samples, lease }
    return this.both(
      key,
      this.subject.store.record({ ...given, generation: under.theirs }),
      (now) => ReferenceStore.record(this.circuits, { ...given, generation: under.ours }, now)
    )
  }

  private lease({ id, key, limit, ttlMillis, under: belief, window }: Extract<Command, { readonly do: "lease" }>) {
    const asked = { key: this.prefix + key, window, id, limit, ttlMillis }
    const under = this.generation(key, belief)
    const both = this.both(
      key,
      this.subject.store.lease({ ...asked, generation: under.theirs }),
      (now) => ReferenceStore.lease(this.circuits, { ...asked, generation: under.ours }, now)
    )
    return Effect.map(both, (both) => {
      if (both.ok === true) this.probes.set(key, [{ id, under }, ...(this.probes.get(key) ?? []).slice(0, 2)])
      return both
    })
  }

  private transition(move: NonNullable<typeof this.lastMove>) {
    this.lastMove = move
    const { by, key, to, under, window } = move
    const wish = { key: this.prefix + key, window, by, to }
    return this.both(
      key,
      this.subject.store.transition({ ...wish, generation: under.theirs }),
      (now) => ReferenceStore.transition(this.circuits, { ...wish, generation: under.ours }, now)
    )
  }

  // The store goes first, and the reference answers for the same moment: so their times are equal whosever clock it is.
  private both(
    key: string,
    ask: Effect.Effect<Answer, StoreError>,
    reference: (now: number) => ReferenceStore.Step
  ): Effect.Effect<Both, StoreError> {
    return Effect.map(ask, (actual) => {
      const [expected, after] = reference(actual.snapshot.now)
      this.circuits = after
      this.meet(key, { ours: expected.snapshot.generation, theirs: actual.snapshot.generation })
      return {
        ok: actual.ok,
        actual: { ok: actual.ok, ...this.plain(key, actual.snapshot, "theirs") },
        expected: { ok: expected.ok, ...this.plain(key, expected.snapshot, "ours") }
      }
    })
  }

  /** Remembers a generation that both have not had before. */
  private meet(key: string, generation: Generation): void {
    const known = this.generations.get(key) ?? []
    const { ours, theirs } = known.at(-1) ?? none
    if (generation.ours > ours && generation.theirs > theirs) this.generations.set(key, [...known, generation])
  }

  private generation(key: string, belief: Belief): Generation {
    const known = this.generations.get(key) ?? []
    return (belief === "none" ? undefined : known.at(belief === "standing" ? -1 : -2)) ?? none
  }

  // A store is free in the numbers that it gives to generations, and in when a circuit began that never moved.
  private plain(key: string, snapshot: Snapshot, whose: keyof Generation) {
    const { control, generation } = snapshot
    const nth = [none, ...(this.generations.get(key) ?? [])].findIndex((known) => known[whose] === generation)
    return {
      ...snapshot,
      key,
      generation: nth === -1 ? `unknown: ${generation}` : `number ${nth}`,
      control: control.by === "" ? { ...control, since: 0 } : control
    }
  }
}
