import { type ContenderOf, ours, type RowId } from "./rows.ts"

/** A limit for Sluice in a row: as a ratio to a rival, as nanoseconds in addition to a rival, or in the unit of the row. */
export type Target = Ratio | Added | Own

export interface Ratio {
  readonly _tag: "Ratio"
  readonly row: RowId
  readonly rival: string
  /** `least`: the rival costs at least `limit` times as much as Sluice. `most`: Sluice costs at most `limit` times the rival. */
  readonly at: "least" | "most"
  readonly limit: number
}

export interface Added {
  readonly _tag: "Added"
  readonly row: RowId
  readonly rival: string
  /** Nanoseconds. */
  readonly limit: number
}

export interface Own {
  readonly _tag: "Own"
  readonly row: RowId
  readonly unit: "ns" | "bytes"
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

const atMostBytes = (limit: number, row: RowId): Target => ({ _tag: "Own", row, unit: "bytes", limit })

const atMostNanos = (limit: number, row: RowId): Target => ({ _tag: "Own", row, unit: "ns", limit })

export const targets: ReadonlyArray<Target> = [
  atLeast(15, "breaker-closed", "Effect"),
  // cockatiel is not interruption-safe. A suspended `onExitPrimitive` alone costs twice as much as its breaker.
  atMost(2.5, "breaker-closed", "cockatiel"),
  // Effect's breaker has neither slow calls nor windows by time. It is compared in its cheaper form.
  atLeast(10, "breaker-windows", "Effect"),
  atLeast(30, "breaker-refusing", "Effect"),
  atLeast(5, "retry-nothing", "Effect"),
  // As fast as cockatiel. Two runs differ by more than a tenth.
  atMost(1.1, "retry-nothing", "cockatiel"),
  atMost(1, "permit-free", "Effect"),
  atLeast(50, "permit-waiting", "Effect"),
  atMost(2, "permit-waiting", "no limiter"),
  // Independent of the length of the queue: 10,000 in one queue compared with 100 queues of 100. CPU caches cost up to a half.
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
  // The guard also holds back parts until there is output, and detects a truncated stream. Stream.timeout only checks the time.
  atLeast(8, "stream-sync", "Effect"),
  atLeast(1.8, "stream-yielding", "Effect"),
  atMostAdded(10_000, "model-call", "the model alone"),
  // ExecutionPlan only falls back to the next model. It has no circuits, limits, log or metrics.
  atMost(2, "model-call", "Effect"),
  atMostAdded(1_000, "model-part", "the stream alone"),
  atLeast(4, "model-part", "Effect"),
  atMostAdded(450, "admission-sync", "the effect alone"),
  atMostAdded(100, "admission-callbacks", "an empty call"),
  atMostAdded(1_500, "admission-scope", "an empty scope"),
  atLeast(5, "policy-sync", "Effect"),
  atLeast(4.3, "policy-promise", "Effect"),
  atMost(0.25, "policy-sync", "cockatiel"),
  atMost(0.4, "policy-promise", "cockatiel"),
  // Whole processes, with their start.
  atMost(0.7, "run-8", "openai client"),
  atMost(0.6, "run-64", "openai client"),
  atMostBytes(300e6, "run-memory"),
  atMostBytes(80_000, "run-garbage"),
  // The proxy only copies. The front reads the model, guards the stream, and keeps circuits and the log of each call.
  atMost(1.15, "front-stream", "bare proxy"),
  atMost(1.4, "front-whole", "bare proxy"),
  atMostAdded(100_000, "front-latency", "bare proxy"),
  atMost(1.5, "front-translated", "bare proxy"),
  // A Web server makes a `Request` and a `Response` for each call: the bare Web proxy shows what these cost.
  atMost(1.5, "front-web-stream", "bare proxy"),
  atMost(2.2, "front-web-whole", "bare proxy"),
  atMost(1, "front-fetch", "fetch of Node"),
  atMostAdded(60_000, "front-guard", "no guard"),
  atMostBytes(120_000, "front-memory"),
  atLeast(2, "portkey-stream", "Portkey"),
  atLeast(3, "portkey-whole", "Portkey"),
  atMost(1.2, "quota-sync", "no quota"),
  atMost(1.2, "quota-promise", "no quota"),
  atMostAdded(1_500, "quota-two-limits", "the effect alone"),
  atMost(1.4, "quota-four-limits", "two limits"),
  // Independent of the length of the queue: 10,000 in one queue compared with 10 queues of 1,000.
  atMost(1.5, "quota-waiting", "1,000 waiting"),
  // A tenth of a model call over HTTP, which costs 940,000.
  atMostAdded(94_000, "batch-request", "the calls alone"),
  // Half of the rate that the slots allow, and 97 % of it.
  atMost(2, "batch-rate", "the ceiling"),
  atMost(1.031, "batch-slow", "the ceiling"),
  atLeast(2.5, "batch-uneven", "whole tickets"),
  atMost(1, "batch-small", "alone, and window"),
  atMost(1.5, "batch-memory", "a tenth of it"),
  atMostBytes(300, "batch-stored"),
  // A millisecond.
  atMostNanos(1e6, "batch-progress"),
  atMost(1, "batch-feeder", "lease and 2 s"),
  atMost(1, "batch-kill", "lease, work and 2 s")
]

/** The contender that the targets are for. */
export const judged = ours
