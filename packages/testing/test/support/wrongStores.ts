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

/** The verbs of the reference, changed or not. */
export type Verbs = Pick<typeof ReferenceStore, "adjustToClock" | "read" | "lease" | "record" | "transition" | "list">

/** A store with these verbs on `TestClock`. `between` runs between the read and the write of each verb. */
export const subjectOf = (verbs: Verbs, between: Effect.Effect<void> = Effect.void): Effect.Effect<Subject> =>
  Effect.map(Clock.Clock, (clock) => {
    let circuits = ReferenceStore.empty
    // Years ahead, so that it can be set back often.
    let aheadMillis = 10 * 365 * 86_400_000
    const now = () => clock.currentTimeMillisUnsafe() + aheadMillis
    const write = (verb: (circuits: ReferenceStore.Circuits, now: number) => ReferenceStore.Step) =>
      Effect.suspend(() => {
        const [answer, after] = verb(circuits, now())
        return Effect.as(between, answer).pipe(Effect.tap(() => Effect.sync(() => (circuits = after))))
      })
    return {
      sleep: TestClock.adjust,
      forget: (key) => Effect.sync(() => (circuits = new Map([...circuits].filter(([known]) => known !== key)))),
      setBack: (millis) => Effect.sync(() => (aheadMillis -= millis)),
      store: {
        read: (request) =>
          Effect.sync(() => {
            circuits = verbs.adjustToClock(circuits, request.key, now())
            return verbs.read(circuits, request, now())
          }),
        lease: (request) => write((circuits, now) => verbs.lease(circuits, request, now)),
        record: (request) => write((circuits, now) => verbs.record(circuits, request, now)),
        transition: (request) => write((circuits, now) => verbs.transition(circuits, request, now)),
        list: (page) =>
          Effect.sync(() => {
            const listed = verbs.list(circuits, page, now())
            for (const { key } of listed) circuits = verbs.adjustToClock(circuits, key, now())
            return listed
          })
      }
    }
  })

/** The reference, with some verbs replaced. */
export const around = (change: (store: Service) => Partial<Service>): Effect.Effect<Subject> =>
  Effect.map(subjectOf(ReferenceStore), (subject) => ({
    ...subject,
    store: { ...subject.store, ...change(subject.store) }
  }))

/** The reference, with changed keys. */
export const withKeys = (change: (key: string) => string): Effect.Effect<Subject> =>
  around(({ lease, read, record, transition }) => ({
    read: (request) => read({ ...request, key: change(request.key) }),
    lease: (request) => lease({ ...request, key: change(request.key) }),
    record: (request) => record({ ...request, key: change(request.key) }),
    transition: (request) => transition({ ...request, key: change(request.key) })
  }))

/** A change of a line of a reference. */
export interface Mutant {
  /** The mistake, as a clause. */
  readonly wrong: string
  readonly line: string
  readonly becomes: string
  /** The name of the check that has to fail. */
  readonly caughtBy: string
  /** Whether the commands that `compare` draws do not reveal it. */
  readonly isRare?: boolean
}

const root = fileURLToPath(new URL("../../../..", import.meta.url))

/** Loads copies of a reference's source, each with one line changed. */
export const load = async <Module>(
  reference: string,
  mutants: ReadonlyArray<Mutant>
): Promise<ReadonlyMap<Mutant, Module>> => {
  const source = readFileSync(join(root, `packages/testing/src/${reference}.ts`), "utf8")
  mkdirSync(join(root, "build"), { recursive: true })
  const folder = mkdtempSync(join(root, "build", "wrong-stores-"))
  try {
    const loaded = mutants.map(async (mutant, nth) => {
      const file = join(folder, `${nth}.ts`)
      writeFileSync(file, mutated(source, mutant))
      const module: Module = await import(pathToFileURL(file).href)
      return [mutant, module] as const
    })
    return new Map(await Promise.all(loaded))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const mutated = (source: string, { becomes, line, wrong }: Mutant): string => {
  const parts = source.split(line)
  if (parts.length !== 2) throw new Error(`${wrong}: its line occurs ${parts.length - 1} times in the reference`)
  return parts.join(becomes)
}
