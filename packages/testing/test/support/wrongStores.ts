import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import type * as CircuitBreakerStoreContract from "@sluice/testing/CircuitBreakerStoreContract"
import * as ReferenceStore from "@sluice/testing/ReferenceStore"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"

type Service = CircuitBreakerStore["Service"]
type Subject = CircuitBreakerStoreContract.Subject

/** The verbs of the reference, or of one that was changed. */
export type Verbs = Pick<typeof ReferenceStore, "read" | "lease" | "record" | "transition" | "list">

/**
 * A store on these verbs, whose time is that of `TestClock`. What comes between a verb's look and its change is nothing, or
 * what is given.
 */
export const subjectOf = (verbs: Verbs, between: Effect.Effect<void> = Effect.void): Effect.Effect<Subject> =>
  Effect.map(Clock.Clock, (clock) => {
    let circuits = ReferenceStore.empty
    const write = (verb: (circuits: ReferenceStore.Circuits, now: number) => ReferenceStore.Step) =>
      Effect.suspend(() => {
        const [answer, after] = verb(circuits, clock.currentTimeMillisUnsafe())
        return Effect.as(between, answer).pipe(Effect.tap(() => Effect.sync(() => (circuits = after))))
      })
    return {
      sleep: TestClock.adjust,
      forget: (key) => Effect.sync(() => (circuits = new Map([...circuits].filter(([known]) => known !== key)))),
      store: {
        read: (asked) => Effect.sync(() => verbs.read(circuits, asked, clock.currentTimeMillisUnsafe())),
        lease: (asked) => write((circuits, now) => verbs.lease(circuits, asked, now)),
        record: (given) => write((circuits, now) => verbs.record(circuits, given, now)),
        transition: (wish) => write((circuits, now) => verbs.transition(circuits, wish, now)),
        list: (page) => Effect.sync(() => verbs.list(circuits, page, clock.currentTimeMillisUnsafe()))
      }
    }
  })

/** The reference, with some verbs done differently. */
export const around = (change: (store: Service) => Partial<Service>): Effect.Effect<Subject> =>
  Effect.map(subjectOf(ReferenceStore), (subject) => ({
    ...subject,
    store: { ...subject.store, ...change(subject.store) }
  }))

/** The reference, where different keys are taken for one. */
export const withKeys = (change: (key: string) => string): Effect.Effect<Subject> =>
  around(({ lease, read, record, transition }) => ({
    read: (asked) => read({ ...asked, key: change(asked.key) }),
    lease: (asked) => lease({ ...asked, key: change(asked.key) }),
    record: (given) => record({ ...given, key: change(given.key) }),
    transition: (wish) => transition({ ...wish, key: change(wish.key) })
  }))

/** What is wrong, in a line of the reference. */
export interface Mutant {
  readonly wrong: string
  readonly line: string
  readonly becomes: string
  /** The check that must find it. */
  readonly caughtBy: string
  /** The commands that `compare` draws do not come so far. */
  readonly isRare?: boolean
}

const root = fileURLToPath(new URL("../../../..", import.meta.url))

/** The verbs of each, from a copy of the reference's source with that line changed. */
export const load = async (mutants: ReadonlyArray<Mutant>): Promise<ReadonlyMap<Mutant, Verbs>> => {
  const source = readFileSync(join(root, "packages/testing/src/ReferenceStore.ts"), "utf8")
  mkdirSync(join(root, "build"), { recursive: true })
  const folder = mkdtempSync(join(root, "build", "wrong-stores-"))
  try {
    const loaded = mutants.map(async (mutant, nth) => {
      const file = join(folder, `${nth}.ts`)
      writeFileSync(file, mutated(source, mutant))
      const verbs: Verbs = await import(pathToFileURL(file).href)
      return [mutant, verbs] as const
    })
    return new Map(await Promise.all(loaded))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const mutated = (source: string, { becomes, line, wrong }: Mutant): string => {
  const parts = source.split(line)
  if (parts.length !== 2) throw new Error(`${wrong}: its line stands ${parts.length - 1} times in the reference`)
  return parts.join(becomes)
}
