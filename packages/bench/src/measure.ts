/**
 * How costs are measured: CPU time, not wall time, so that what else the machine does counts less; the contenders of a row take
 * turns in one process, so that a slow moment meets all of them. Many short turns, since a moment is short: on a busy machine
 * CPU time itself is up to twice as long from one tenth of a second to the next.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Measurement } from "./report.ts"

/** How much a run may take: what `--quick` makes less of. */
export interface Effort {
  /** CPU time in which V8 gets to know a contender. */
  readonly warmUpMillis: number
  readonly rounds: number
  /** CPU time of a contender in one round. */
  readonly roundMillis: number
  /** Rounds of what is measured in whole batches, which take up to seconds. */
  readonly batchRounds: number
  /** Rounds of what is measured in bytes, and hardly differs. */
  readonly heldRounds: number
  /** How many keys are many: a million, or an eighth of it, which fills the tables of a Map just as well. */
  readonly manyKeys: number
}

export const full: Effort = {
  warmUpMillis: 200,
  rounds: 45,
  roundMillis: 20,
  batchRounds: 5,
  heldRounds: 3,
  manyKeys: 1_000_000
}
// As warm as at length, since half-compiled rivals make another order. It is over before V8 is done with promises all the same:
// its ratios get no verdict.
export const quick: Effort = {
  warmUpMillis: 200,
  rounds: 9,
  roundMillis: 10,
  batchRounds: 3,
  heldRounds: 1,
  manyKeys: 125_000
}

export const Effort: Context.Reference<Effort> = Context.Reference<Effort>("@sluice/bench/Effort", {
  defaultValue: () => full
})

/** What does the work of a row, so many times. */
export type Run = (operations: number) => Promise<unknown>

/** What builds so many of something, and succeeds with what keeps them alive. */
export type Hold = (count: number) => Effect.Effect<unknown, unknown, Scope.Scope>

export type Contenders<Name extends string = string> =
  | { readonly _tag: "Timed"; readonly runs: { readonly [_ in Name]: Run } }
  /** One run of so many operations is a round: fewer would be something else. */
  | { readonly _tag: "Batch"; readonly operations: number; readonly runs: { readonly [_ in Name]: Run } }
  | { readonly _tag: "Held"; readonly count: number; readonly holds: { readonly [_ in Name]: Hold } }

export const timed = <Name extends string>(runs: { readonly [_ in Name]: Run }): Contenders<Name> => ({
  _tag: "Timed",
  runs
})

/**
 * An effect again and again, in one fiber. It is built anew each time, as a program would: an operator is a function of the
 * effect that it acts on.
 */
export const ofEffect = (make: () => Effect.Effect<unknown, unknown>): Run => (operations) => {
  let left = operations
  return Effect.runPromise(Effect.whileLoop({ while: () => left-- > 0, body: make, step: () => {} }))
}

/** A promise again and again, one after the other. */
export const ofPromise = (make: () => unknown): Run => async (operations) => {
  for (let left = operations; left > 0; left--) await make()
}

/** A function again and again. */
export const ofFunction = (run: () => unknown): Run => (operations) => {
  for (let left = operations; left > 0; left--) run()
  return Promise.resolve()
}

export const measure = (contenders: Contenders, effort: Effort): Promise<ReadonlyArray<Measurement>> => {
  switch (contenders._tag) {
    case "Timed":
      return measureTimed(Object.entries(contenders.runs), effort)
    case "Batch":
      return measureBatch(Object.entries(contenders.runs), contenders.operations, effort)
    case "Held":
      return measureHeld(Object.entries(contenders.holds), contenders.count, effort)
  }
}

const measureTimed = async (
  runs: ReadonlyArray<readonly [string, Run]>,
  effort: Effort
): Promise<ReadonlyArray<Measurement>> => {
  const operations = new Map<string, number>()
  for (const [name, run] of runs) operations.set(name, await calibrate(run, effort))
  const one = (name: string, run: Run) => nanosPerOperation(run, operations.get(name) ?? 1)
  // By now each was compiled as if it were alone; in this round V8 finds out that it is not.
  for (const [name, run] of runs) await one(name, run)
  return takeTurns(runs, effort.rounds, one)
}

const measureBatch = async (
  runs: ReadonlyArray<readonly [string, Run]>,
  operations: number,
  effort: Effort
): Promise<ReadonlyArray<Measurement>> => {
  const few = Math.ceil(operations / 10)
  for (const [, run] of runs) {
    for (let millis = 0; millis < effort.warmUpMillis;) millis += await nanosPerOperation(run, few) * few / 1e6
  }
  return takeTurns(runs, effort.batchRounds, (_, run) => nanosPerOperation(run, operations))
}

const measureHeld = (
  holds: ReadonlyArray<readonly [string, Hold]>,
  count: number,
  effort: Effort
): Promise<ReadonlyArray<Measurement>> => takeTurns(holds, effort.heldRounds, (_, hold) => bytesPerOne(hold, count))

/** Whose turn is first goes round as well: who comes after whom is nobody's lot for good. */
const takeTurns = async <A>(
  contenders: ReadonlyArray<readonly [string, A]>,
  rounds: number,
  one: (name: string, contender: A) => Promise<number>
): Promise<ReadonlyArray<Measurement>> => {
  const results = contenders.map(([name, contender]) => ({ name, contender, costs: new Array<number>() }))
  for (let round = 0; round < rounds; round++) {
    const first = round % results.length
    for (const result of [...results.slice(first), ...results.slice(0, first)]) {
      result.costs.push(await one(result.name, result.contender))
    }
  }
  return results.map(({ costs: [cost = Number.NaN, ...costs], name }) => ({
    contender: name,
    rounds: [cost, ...costs]
  }))
}

/** How many operations fill a round, once V8 has compiled them. */
const calibrate = async (run: Run, { roundMillis, warmUpMillis }: Effort): Promise<number> => {
  for (let operations = 256;; operations *= 2) {
    const millis = await nanosPerOperation(run, operations) * operations / 1e6
    if (millis >= warmUpMillis / 2) return Math.max(1, Math.round(operations * roundMillis / millis))
  }
}

const nanosPerOperation = async (run: Run, operations: number): Promise<number> => {
  // What the one before has left is not for this one to clear up.
  collectGarbage("minor")
  const before = process.cpuUsage()
  await run(operations)
  const { system, user } = process.cpuUsage(before)
  return (user + system) * 1_000 / operations
}

const bytesPerOne = (hold: Hold, count: number): Promise<number> => {
  const before = bytesInUse()
  // The scope closes after the measurement: what is held lives as long.
  return Effect.runPromise(Effect.scoped(Effect.flatMap(hold(count), (held) =>
    Effect.sync(() => {
      const bytes = bytesInUse() - before
      return held === undefined ? Number.NaN : bytes / count
    }))))
}

/** With what lies outside of the heap: lru-cache keeps its links in typed arrays. */
const bytesInUse = (): number => {
  collectGarbage("major")
  collectGarbage("major")
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
}

const collectGarbage = (type: "minor" | "major"): void => {
  if (globalThis.gc === undefined) throw new Error("measuring needs node --expose-gc")
  globalThis.gc({ type, execution: "sync" })
}
