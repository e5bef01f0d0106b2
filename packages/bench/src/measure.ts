/**
 * Measures costs as CPU time, which other processes affect less than wall time. Still, on a busy machine CPU time can double from
 * one tenth of a second to the next. So the contenders of a row take turns in one process, in many short rounds.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Measurement } from "./report.ts"

/** How long a run measures. `--quick` reduces it. */
export interface Effort {
  /** CPU time of a contender before its first round, for V8 to compile it. */
  readonly warmUpMillis: number
  readonly rounds: number
  /** CPU time of a contender in one round. */
  readonly roundMillis: number
  /** Calls of a server before its first round. V8 compiles what runs once for each call only after ten thousand. */
  readonly calls: number
  /** Rounds of batches, which take up to seconds. */
  readonly batchRounds: number
  /** Prompts of a file, for a process that is measured as a whole. */
  readonly prompts: number
  /** Rounds of measurements that hardly differ, such as of memory. */
  readonly heldRounds: number
  /** Keys of a large cache. An eighth of a million fills the tables of a Map as well as a million. */
  readonly manyKeys: number
}

export const full: Effort = {
  warmUpMillis: 200,
  rounds: 45,
  roundMillis: 20,
  calls: 20_000,
  batchRounds: 5,
  prompts: 10_000,
  heldRounds: 3,
  manyKeys: 1_000_000
}
// The full warm-up, since half-compiled contenders rank differently. V8 still has not finished promises, so there are no verdicts.
export const quick: Effort = {
  warmUpMillis: 200,
  rounds: 9,
  roundMillis: 10,
  calls: 2_000,
  batchRounds: 3,
  prompts: 1_000,
  heldRounds: 1,
  manyKeys: 125_000
}

export const Effort: Context.Reference<Effort> = Context.Reference<Effort>("@sluice/bench/Effort", {
  defaultValue: () => full
})

/** Does the work of a row, `operations` times. */
export type Run = (operations: number) => Promise<unknown>

/** Builds `count` objects, and succeeds with a reference that keeps them alive. */
export type Hold = (count: number) => Effect.Effect<unknown, unknown, Scope.Scope>

export type Contenders<Name extends string = string> =
  | { readonly _tag: "Timed"; readonly runs: { readonly [_ in Name]: Run } }
  /** A round is a single run of this many operations, if fewer operations would be different work. */
  | { readonly _tag: "Batch"; readonly operations: number; readonly runs: { readonly [_ in Name]: Run } }
  /** A round is a process, which returns its nanoseconds per operation. */
  | {
    readonly _tag: "Process"
    readonly runs: { readonly [_ in Name]: () => Promise<number> }
    /** Default: `batchRounds`. Fewer for processes that take long. */
    readonly rounds?: number
  }
  /** A round is this many operations of a server or a client of one. Returns its nanoseconds per operation. */
  | {
    readonly _tag: "Served"
    readonly operations: number
    readonly runs: { readonly [_ in Name]: (operations: number) => Promise<number> }
  }
  | { readonly _tag: "Held"; readonly count: number; readonly holds: { readonly [_ in Name]: Hold } }

export const timed = <Name extends string>(runs: { readonly [_ in Name]: Run }): Contenders<Name> => ({
  _tag: "Timed",
  runs
})

/** Runs an effect repeatedly in one fiber. The effect is built anew each time, as in a program. */
export const ofEffect = (make: () => Effect.Effect<unknown, unknown>): Run => (operations) => {
  let left = operations
  return Effect.runPromise(Effect.whileLoop({ while: () => left-- > 0, body: make, step: () => {} }))
}

/** Awaits a promise repeatedly. */
export const ofPromise = (make: () => unknown): Run => async (operations) => {
  for (let left = operations; left > 0; left--) await make()
}

/** Calls a function repeatedly. */
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
    case "Process":
      return takeTurns(Object.entries(contenders.runs), contenders.rounds ?? effort.batchRounds, (_, run) => run())
    case "Served":
      return measureServed(Object.entries(contenders.runs), contenders.operations, effort)
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
  // Each was compiled as if it were alone. In this round V8 sees them together.
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

const measureServed = async (
  runs: ReadonlyArray<readonly [string, (operations: number) => Promise<number>]>,
  operations: number,
  effort: Effort
): Promise<ReadonlyArray<Measurement>> => {
  for (const [, run] of runs) {
    for (let millis = 0; millis < effort.warmUpMillis * servedWarmUps;) {
      millis += await run(operations) * operations / 1e6
    }
  }
  return takeTurns(runs, effort.rounds, (_, run) => run(operations))
}

/** A server runs more code than a primitive. V8 takes longer to compile it. */
const servedWarmUps = 5

const measureHeld = (
  holds: ReadonlyArray<readonly [string, Hold]>,
  count: number,
  effort: Effort
): Promise<ReadonlyArray<Measurement>> => takeTurns(holds, effort.heldRounds, (_, hold) => bytesPerOne(hold, count))

/** Runs the rounds. Each starts with another contender, so that none is always measured after the same one. */
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

/** Warms a contender up, and returns how many operations fill a round. */
const calibrate = async (run: Run, { roundMillis, warmUpMillis }: Effort): Promise<number> => {
  for (let operations = 256;; operations *= 2) {
    const millis = await nanosPerOperation(run, operations) * operations / 1e6
    if (millis >= warmUpMillis / 2) return Math.max(1, Math.round(operations * roundMillis / millis))
  }
}

const nanosPerOperation = async (run: Run, operations: number): Promise<number> => {
  // Otherwise this contender would pay for the garbage of the one before.
  collectGarbage("minor")
  const before = process.cpuUsage()
  await run(operations)
  const { system, user } = process.cpuUsage(before)
  return (user + system) * 1_000 / operations
}

const bytesPerOne = (hold: Hold, count: number): Promise<number> => {
  const before = bytesInUse()
  // The scope closes after the measurement, so that the objects are alive until then.
  return Effect.runPromise(Effect.scoped(Effect.flatMap(hold(count), (held) =>
    Effect.sync(() => {
      const bytes = bytesInUse() - before
      return held === undefined ? Number.NaN : bytes / count
    }))))
}

/** Includes memory outside of the heap, since lru-cache keeps its links in typed arrays. */
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
