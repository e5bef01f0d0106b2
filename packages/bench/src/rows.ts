/** What is measured: each row a kind of work, with the contenders that do it in one process, which is the row's own. */
export interface Row {
  /** The file of `groups/` that builds its contenders. */
  readonly group: Group
  readonly title: string
  /** Where fewer keys make another row of it. */
  readonly quickTitle?: string
  readonly unit: "ns" | "bytes"
  /** Which of Effect's own parts stands beside ours. */
  readonly effect: string | undefined
  /** In the order in which they are printed. */
  readonly contenders: ReadonlyArray<string>
}

export type Group =
  | "breaker"
  | "retry"
  | "permit"
  | "dedupe"
  | "pipeline"
  | "timeout"
  | "streams"
  | "resilientModel"
  | "policy"
  | "memory"

export const ours = "Sluice"

/** In the order in which they are printed. */
export const rows = {
  "breaker-closed": {
    group: "breaker",
    title: "breaker, closed",
    unit: "ns",
    effect: "CircuitBreaker",
    contenders: ["the effect alone", ours, "Effect", "cockatiel", "opossum"]
  },
  "breaker-windows": {
    group: "breaker",
    title: "breaker, windows, slow calls",
    unit: "ns",
    effect: "CircuitBreaker, also by rate",
    contenders: ["the effect alone", ours, "Effect", "Effect, rate", "cockatiel", "opossum"]
  },
  "breaker-refusing": {
    group: "breaker",
    title: "breaker, refusing",
    unit: "ns",
    effect: "CircuitBreaker",
    contenders: ["a failure alone", ours, "Effect", "cockatiel", "opossum"]
  },
  "retry-nothing": {
    group: "retry",
    title: "retry, nothing to retry",
    unit: "ns",
    effect: "Effect.retry",
    contenders: ["the effect alone", ours, "Effect", "cockatiel", "p-retry"]
  },
  "retry-one": {
    group: "retry",
    title: "retry, one failure, no delay",
    unit: "ns",
    effect: "Effect.retry",
    contenders: ["two attempts by hand", ours, "Effect", "p-retry"]
  },
  "permit-free": {
    group: "permit",
    title: "permit, free",
    unit: "ns",
    effect: "Semaphore.withPermit",
    contenders: ["the effect alone", ours, "Effect", "cockatiel", "p-limit"]
  },
  "permit-waiting": {
    group: "permit",
    title: "permit, 10,000 waiting",
    unit: "ns",
    effect: "Semaphore.withPermit",
    contenders: ["no limiter", ours, "100 waiting", "Effect", "p-limit"]
  },
  "permit-memory": {
    group: "memory",
    title: "memory per waiting fiber",
    unit: "bytes",
    effect: "Semaphore.withPermit",
    contenders: ["a fiber that never resumes", ours, "Effect"]
  },
  "hit-1": {
    group: "dedupe",
    title: "hit, 1 key",
    unit: "ns",
    effect: "Cache.get",
    contenders: ["Map.get", ours, "Effect", "lru-cache"]
  },
  "hit-10000": {
    group: "dedupe",
    title: "hit, 10,000 keys",
    unit: "ns",
    effect: "Cache.get",
    contenders: ["Map.get", ours, "Effect", "lru-cache"]
  },
  "hit-many": {
    group: "dedupe",
    title: "hit, 1,000,000 keys",
    quickTitle: "hit, 125,000 keys",
    unit: "ns",
    effect: "Cache.get",
    contenders: ["Map.get", ours, "Effect", "lru-cache"]
  },
  "miss": {
    group: "dedupe",
    title: "miss that evicts",
    unit: "ns",
    effect: "Cache.get",
    contenders: [ours, "Effect", "lru-cache"]
  },
  "request-key": {
    group: "dedupe",
    title: "key of a 1 KB request",
    unit: "ns",
    effect: undefined,
    contenders: ["JSON.stringify", ours, "JSON and node:crypto"]
  },
  "dedupe-memory": {
    group: "memory",
    title: "memory per key of 1,000,000",
    quickTitle: "memory per key of 125,000",
    unit: "bytes",
    effect: "Cache.get",
    contenders: ["Map", ours, "Sluice, and its key", "Effect", "lru-cache"]
  },
  "five-stages": {
    group: "pipeline",
    title: "pipeline of five stages",
    unit: "ns",
    effect: "Effect.flatMap",
    contenders: [ours, "Effect", "five awaits"]
  },
  "timeout-sync": {
    group: "timeout",
    title: "timeout, sync body",
    unit: "ns",
    effect: "Effect.timeout",
    contenders: ["the effect alone", ours, "Effect", "cockatiel"]
  },
  "timeout-promise": {
    group: "timeout",
    title: "timeout, promise body",
    unit: "ns",
    effect: "Effect.timeout",
    contenders: ["the effect alone", ours, "Effect", "cockatiel"]
  },
  "stream-sync": {
    group: "streams",
    title: "stream part, at once",
    unit: "ns",
    effect: "Stream.timeout",
    contenders: ["the stream alone", "without limits", ours, "Effect"]
  },
  "stream-yielding": {
    group: "streams",
    title: "stream part, later",
    unit: "ns",
    effect: "Stream.timeout",
    contenders: ["the stream alone", "without limits", ours, "Effect"]
  },
  "model-call": {
    group: "resilientModel",
    title: "model call",
    unit: "ns",
    effect: "ExecutionPlan with retry",
    contenders: ["the model alone", ours, "Effect"]
  },
  "model-part": {
    group: "resilientModel",
    title: "model part",
    unit: "ns",
    effect: "Stream.timeout",
    contenders: ["the stream alone", ours, "Effect"]
  },
  "policy-sync": {
    group: "policy",
    title: "policy, sync body",
    unit: "ns",
    effect: "retry, Semaphore, CircuitBreaker, timeout",
    contenders: ["the effect alone", ours, "Effect", "cockatiel"]
  },
  "policy-promise": {
    group: "policy",
    title: "policy, promise body",
    unit: "ns",
    effect: "retry, Semaphore, CircuitBreaker, timeout",
    contenders: ["the effect alone", ours, "Effect", "cockatiel"]
  }
} as const satisfies Record<string, Row>

export type RowId = keyof typeof rows

/** The rows of one file of `groups/`. */
export type RowIdOf<G extends Group> = { [Id in RowId]: (typeof rows)[Id]["group"] extends G ? Id : never }[RowId]

export type ContenderOf<Id extends RowId> = (typeof rows)[Id]["contenders"][number]

export const isRowId = (text: string): text is RowId => Object.hasOwn(rows, text)

export const rowIds: ReadonlyArray<RowId> = Object.keys(rows).filter(isRowId)

export const rowOf = (id: RowId): Row => rows[id]
