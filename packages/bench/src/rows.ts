/** A row: a kind of work, and the contenders that do it. Each row is measured in its own process. */
export interface Row {
  /** The file of `groups/` that builds its contenders. */
  readonly group: Group
  readonly title: string
  /** The title in a quick run, if that has fewer keys. */
  readonly quickTitle?: string
  readonly unit: "ns" | "bytes"
  /** The part of Effect that is compared. */
  readonly effect: string | undefined
  /** In the order of the output. */
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
  | "quota"
  | "admission"
  | "memory"
  | "run"
  | "front"
  | "portkey"
  | "batch"

export const ours = "Sluice"

/** In the order of the output. */
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
  "admission-sync": {
    group: "admission",
    title: "admission, sync",
    unit: "ns",
    effect: "Semaphore, CircuitBreaker",
    contenders: ["the effect alone", ours, "Effect"]
  },
  "admission-callbacks": {
    group: "admission",
    title: "admission, callbacks",
    unit: "ns",
    effect: undefined,
    contenders: ["an empty call", ours]
  },
  "admission-scope": {
    group: "admission",
    title: "admission, scope",
    unit: "ns",
    effect: undefined,
    contenders: ["an empty scope", ours]
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
  },
  "run-8": {
    group: "run",
    title: "run, 8 deltas",
    unit: "ns",
    effect: undefined,
    contenders: ["openai client", ours]
  },
  "run-64": {
    group: "run",
    title: "run, 64 deltas",
    unit: "ns",
    effect: undefined,
    contenders: ["openai client", ours]
  },
  "run-memory": {
    group: "run",
    title: "run, memory of the process",
    unit: "bytes",
    effect: undefined,
    contenders: ["openai client", ours]
  },
  "run-garbage": {
    group: "run",
    title: "run, garbage per prompt",
    unit: "bytes",
    effect: undefined,
    contenders: ["openai client", ours]
  },
  "front-stream": {
    group: "front",
    title: "gateway, stream",
    unit: "ns",
    effect: undefined,
    contenders: ["bare proxy", ours]
  },
  "front-whole": {
    group: "front",
    title: "gateway, whole answer",
    unit: "ns",
    effect: undefined,
    contenders: ["bare proxy", ours]
  },
  "front-latency": {
    group: "front",
    title: "gateway, latency",
    unit: "ns",
    effect: undefined,
    contenders: ["bare proxy", ours]
  },
  "front-translated": {
    group: "front",
    title: "gateway, translation",
    unit: "ns",
    effect: undefined,
    contenders: ["bare proxy", ours]
  },
  "front-web-stream": {
    group: "front",
    title: "Web handler, stream",
    unit: "ns",
    effect: undefined,
    contenders: ["bare proxy", "bare Web proxy", ours]
  },
  "front-web-whole": {
    group: "front",
    title: "Web handler, whole",
    unit: "ns",
    effect: undefined,
    contenders: ["bare proxy", "bare Web proxy", ours]
  },
  "front-fetch": {
    group: "front",
    title: "fetch, stream",
    unit: "ns",
    effect: undefined,
    contenders: ["fetch of Node", ours]
  },
  "front-guard": {
    group: "front",
    title: "guard, stream",
    unit: "ns",
    effect: undefined,
    contenders: ["no guard", ours]
  },
  "front-memory": {
    group: "front",
    title: "gateway, memory of a stream",
    unit: "bytes",
    effect: undefined,
    contenders: ["bare proxy", ours]
  },
  "portkey-stream": {
    group: "portkey",
    title: "gateways, stream",
    unit: "ns",
    effect: undefined,
    contenders: ["bare proxy", ours, "Portkey"]
  },
  "portkey-whole": {
    group: "portkey",
    title: "gateways, whole answer",
    unit: "ns",
    effect: undefined,
    contenders: ["bare proxy", ours, "Portkey"]
  },
  "policy-stream": {
    group: "policy",
    title: "policy, stream of one part",
    unit: "ns",
    effect: undefined,
    contenders: ["the stream alone", ours]
  },
  "quota-sync": {
    group: "quota",
    title: "policy with quota, sync",
    unit: "ns",
    effect: undefined,
    contenders: ["the effect alone", "no quota", ours]
  },
  "quota-promise": {
    group: "quota",
    title: "policy with quota, promise",
    unit: "ns",
    effect: undefined,
    contenders: ["the effect alone", "no quota", ours]
  },
  "quota-two-limits": {
    group: "quota",
    title: "quota, two limits",
    unit: "ns",
    effect: undefined,
    contenders: ["the effect alone", ours]
  },
  "quota-four-limits": {
    group: "quota",
    title: "quota, four limits",
    unit: "ns",
    effect: undefined,
    contenders: ["the effect alone", "two limits", ours]
  },
  "quota-waiting": {
    group: "quota",
    title: "quota, 10,000 waiting",
    unit: "ns",
    effect: undefined,
    contenders: ["no limiter", ours, "1,000 waiting"]
  },
  "batch-request": {
    group: "batch",
    title: "batch, a request",
    unit: "ns",
    effect: undefined,
    contenders: ["the calls alone", ours]
  },
  "batch-rate": {
    group: "batch",
    title: "batch, calls of 75 ms",
    unit: "ns",
    effect: undefined,
    contenders: ["the ceiling", ours]
  },
  "batch-slow": {
    group: "batch",
    title: "batch, calls of 2 s",
    unit: "ns",
    effect: undefined,
    contenders: ["the ceiling", ours]
  },
  "batch-uneven": {
    group: "batch",
    title: "batch, uneven calls",
    unit: "ns",
    effect: undefined,
    contenders: ["whole tickets", ours]
  },
  "batch-small": {
    group: "batch",
    title: "a small batch",
    unit: "ns",
    effect: undefined,
    contenders: ["alone, and window", ours]
  },
  "batch-memory": {
    group: "batch",
    title: "batch, memory",
    unit: "bytes",
    effect: undefined,
    contenders: ["a tenth of it", ours]
  },
  "batch-stored": {
    group: "batch",
    title: "batch, file beside the texts",
    unit: "bytes",
    effect: undefined,
    contenders: [ours]
  },
  "batch-progress": {
    group: "batch",
    title: "batch, reading progress",
    unit: "ns",
    effect: undefined,
    contenders: ["1,000 requests", ours]
  },
  "batch-feeder": {
    group: "batch",
    title: "batch, next feeder",
    unit: "ns",
    effect: undefined,
    contenders: ["lease and 2 s", ours]
  },
  "batch-kill": {
    group: "batch",
    title: "batch, kill -9",
    unit: "ns",
    effect: undefined,
    contenders: ["lease, work and 2 s", ours]
  }
} as const satisfies Record<string, Row>

export type RowId = keyof typeof rows

/** The rows of a group. */
export type RowIdOf<G extends Group> = { [Id in RowId]: (typeof rows)[Id]["group"] extends G ? Id : never }[RowId]

export type ContenderOf<Id extends RowId> = (typeof rows)[Id]["contenders"][number]

export const isRowId = (text: string): text is RowId => Object.hasOwn(rows, text)

export const rowIds: ReadonlyArray<RowId> = Object.keys(rows).filter(isRowId)

/** Whether npm has to install something for the row. */
export const isOnRequest = (id: RowId): boolean => rowOf(id).group === "portkey"

export const rowOf = (id: RowId): Row => rows[id]
