import { type ContenderOf, ours, type RowId } from "./rows.ts"

/** What a row has to reach beside a rival that is measured with it, on top of it, or in bytes. */
export type Target = Ratio | Added | Bytes

export interface Ratio {
  readonly _tag: "Ratio"
  readonly row: RowId
  readonly rival: string
  /** `least`: the rival costs at least so many times as much. `most`: ours costs at most so many times the rival. */
  readonly at: "least" | "most"
  readonly limit: number
}

/** `limit`: what ours costs more than the rival, in nanoseconds. */
export interface Added {
  readonly _tag: "Added"
  readonly row: RowId
  readonly rival: string
  readonly limit: number
}

export interface Bytes {
  readonly _tag: "Bytes"
  readonly row: RowId
  readonly limit: number
}

const atLeast = <Id extends RowId>(limit: number, row: Id, rival: ContenderOf<Id>): Target => ({
  _tag: "Ratio",
  row,
  rival,
  at: "least",
  limit
})

const atMost = <Id extends RowId>(limit: number, row: Id, rival: ContenderOf<Id>): Target => ({
  _tag: "Ratio",
  row,
  rival,
  at: "most",
  limit
})

const atMostAdded = <Id extends RowId>(limit: number, row: Id, rival: ContenderOf<Id>): Target => ({
  _tag: "Added",
  row,
  rival,
  limit
})

const atMostBytes = (limit: number, row: RowId): Target => ({ _tag: "Bytes", row, limit })

export const targets: ReadonlyArray<Target> = [
  atLeast(15, "breaker-closed", "Effect"),
  // Theirs is not interruption-safe; a bare suspended `onExitPrimitive` alone costs twice as much as it.
  atMost(2.5, "breaker-closed", "cockatiel"),
  // Beside theirs in its cheaper form: it has no slow calls and no windows by time.
  atLeast(10, "breaker-windows", "Effect"),
  atLeast(30, "breaker-refusing", "Effect"),
  atLeast(5, "retry-nothing", "Effect"),
  // "Level with": a tenth is less than what two runs differ by.
  atMost(1.1, "retry-nothing", "cockatiel"),
  atMost(1, "permit-free", "Effect"),
  atLeast(50, "permit-waiting", "Effect"),
  atMost(2, "permit-waiting", "no limiter"),
  // "Flat": a hundred times as many in one line. The half is for the caches of the processor.
  atMost(1.5, "permit-waiting", "100 waiting"),
  atMostBytes(1_100, "permit-memory"),
  atMost(1, "hit-1", "Effect"),
  atMost(1, "hit-10000", "Effect"),
  atMost(1, "hit-many", "Effect"),
  atMost(2, "hit-many", "Map.get"),
  atLeast(5, "miss", "Effect"),
  atMostBytes(160, "dedupe-memory"),
  atMost(1, "five-stages", "five awaits"),
  atMost(0.5, "timeout-sync", "Effect"),
  atMost(0.5, "timeout-promise", "Effect"),
  // The guard also holds parts until there is output, and looks for an end that is none; theirs only looks at the time.
  atLeast(8, "stream-sync", "Effect"),
  atLeast(1.8, "stream-yielding", "Effect"),
  atMostAdded(10_000, "model-call", "the model alone"),
  // Theirs tries the next one and knows nothing of it: no circuit, limits, log or metrics.
  atMost(2, "model-call", "Effect"),
  atMostAdded(1_000, "model-part", "the stream alone"),
  atLeast(4, "model-part", "Effect"),
  atLeast(8, "policy-sync", "Effect"),
  atLeast(5, "policy-promise", "Effect"),
  atMost(1, "policy-sync", "cockatiel"),
  atMost(1, "policy-promise", "cockatiel")
]

/** Who is judged. */
export const judged = ours
