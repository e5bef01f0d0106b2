import * as Effect from "effect/Effect"

export interface Row {
  readonly what: string
  readonly ours: Effect.Effect<unknown, unknown>
  readonly theirs: Effect.Effect<unknown, unknown>
}

const calls = 50_000
const rounds = 5

// CPU time, not wall time: what else the machine does counts less. The two take turns, so that a slow moment meets both.
export const measure = async (row: Row): Promise<{ readonly ours: number; readonly theirs: number }> => {
  const ours: Array<number> = []
  const theirs: Array<number> = []
  for (let round = 0; round <= rounds; round++) {
    const a = await nanosPerCall(row.ours)
    const b = await nanosPerCall(row.theirs)
    if (round === 0) continue // warms up
    ours.push(a)
    theirs.push(b)
  }
  return { ours: median(ours), theirs: median(theirs) }
}

const nanosPerCall = async (effect: Effect.Effect<unknown, unknown>): Promise<number> => {
  const before = process.cpuUsage()
  let left = calls
  await Effect.runPromise(Effect.whileLoop({ while: () => left-- > 0, body: () => effect, step: () => {} }))
  const { system, user } = process.cpuUsage(before)
  return (user + system) * 1_000 / calls
}

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN
