/** Which tickets to offer next. Pure: two feeders with the same rows make the same plan. */
export interface Open {
  readonly batch: number
  readonly priority: number
  /** Its share of the window, beside those of batches of the same priority. */
  readonly weight: number
  readonly total: number
  /** How many requests a ticket has. */
  readonly size: number
  /** The next request to hand out. */
  readonly fed: number
  /** How many requests were handed out and have no result. */
  readonly outstanding: number
  /** How many more may be handed out within the cap. `Infinity` without one. */
  readonly affordable: number
}

export interface Grant {
  readonly batch: number
  readonly from: number
  readonly to: number
}

/**
 * Fills the window. The highest priority goes first. Within it, the batch with the fewest requests outstanding for its weight does, so
 * a small batch does not wait for a large one.
 */
export const plan = (
  open: ReadonlyArray<Open>,
  window: number
): ReadonlyArray<Grant> => {
  const batches = open.map((batch) => ({ ...batch }))
  let room = window - batches.reduce((sum, { outstanding }) => sum + Math.max(0, outstanding), 0)
  const grants: Array<Grant> = []
  while (room > 0) {
    let next: (typeof batches)[number] | undefined
    for (const batch of batches) {
      if (batch.fed >= batch.total || batch.affordable <= 0) continue
      if (
        next === undefined || batch.priority > next.priority ||
        (batch.priority === next.priority && batch.outstanding * next.weight < next.outstanding * batch.weight)
      ) next = batch
    }
    if (next === undefined) return grants
    const size = Math.min(next.size, next.total - next.fed, next.affordable)
    grants.push({ batch: next.batch, from: next.fed, to: next.fed + size })
    next.fed += size
    next.outstanding += size
    next.affordable -= size
    room -= size
  }
  return grants
}

/** The costs of a batch so far, in millionths of a dollar. */
export interface Spending {
  readonly capMicros: number | undefined
  readonly estimateMicros: number
  /** The dearest answer. */
  readonly maxMicros: number
  readonly micros: number
  readonly ok: number
  readonly failed: number
}

/**
 * How many more requests fit the cap, if those that are outstanding cost as much as the dearest so far. Until a cost is known, one more
 * than have been answered: one at first, and twice as many with each round of failures, which say nothing about the cost.
 */
export const affordableOf = (
  { capMicros, estimateMicros, failed, maxMicros, micros, ok }: Spending,
  outstanding: number
): number => {
  if (capMicros === undefined) return Infinity
  if (micros >= capMicros) return -outstanding
  const each = Math.max(estimateMicros, maxMicros)
  if (each > 0) return Math.floor((capMicros - micros) / each) - outstanding
  return ok > 0 ? Infinity : failed + 1 - outstanding
}
