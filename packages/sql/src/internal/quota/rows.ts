// The verbs on rows, for SQLite and for a Postgres without functions. The functions of `functions.ts` do the same.

/** How much longer than its window an amount counts, for clocks that drift. */
const driftMillis = 50

/** The wait for a call at once, whose end is unknown. */
const soonMillis = 50

/** A row of `sluice_quota_sums`. */
export interface SumRow {
  readonly name: string
  /** The window. -1: it never ends. */
  readonly span: number
  readonly quantum: number
  readonly used: number
  readonly oldest: number
  readonly buckets: ReadonlyArray<number>
}

/** An ask whose infinite times and limits are -1. */
export interface AskRow {
  readonly name: string
  /** Scope and dimension. */
  readonly address: string
  readonly span: number
  readonly quantum: number
  readonly amount: number
  readonly least: number
  readonly limit: number
  readonly agoMillis: number
}

/** What an id holds of one ask. */
export interface Held {
  readonly name: string
  readonly address: string
  readonly span: number
  readonly quantum: number
  /** `null` without a window. */
  readonly bucket: number | null
  readonly amount: number
}

/** A verdict, before its numbers are named. */
export interface Decision {
  readonly ok: boolean
  readonly waitMillis: number
  readonly blockedBy: number
  readonly used: ReadonlyArray<number>
  readonly granted: ReadonlyArray<number>
  /** What the id holds from now on, if it did not hold it already. */
  readonly held: ReadonlyArray<Held> | undefined
}

/** The sums that a verb reads and changes. */
export class Sums {
  readonly now: number
  private readonly rows: Map<string, SumRow>
  private readonly written = new Set<string>()

  constructor(rows: ReadonlyArray<SumRow>, now: number) {
    this.now = now
    this.rows = new Map(rows.map((row) => [row.name, row]))
  }

  /** The rows to write. */
  get changed(): ReadonlyArray<SumRow> {
    return [...this.rows.values()].filter(({ name }) => this.written.has(name))
  }

  /** All sums, without what has left their windows. */
  get levels(): ReadonlyArray<{ readonly name: string; readonly used: number }> {
    return [...this.rows.values()].map((row) => ({ name: row.name, used: this.trimmed(row).used }))
  }

  reserve(
    asks: ReadonlyArray<AskRow>,
    known: ReadonlyArray<Held> | undefined,
    guardMillis: number
  ): Decision {
    const levels = asks.map((ask) => this.trimmed(ask))
    const used = levels.map(({ used }) => used)
    if (known !== undefined) {
      const granted = asks.map(({ name }) => known.find((one) => one.name === name)?.amount ?? 0)
      return { ok: true, waitMillis: 0, blockedBy: -1, used, granted, held: undefined }
    }
    const waits = asks.map((ask, nth) => this.wait(ask, levels[nth]))
    const waitMillis = Math.max(0, ...waits)
    if (waitMillis > 0) {
      const granted = asks.map(() => 0)
      return { ok: false, waitMillis, blockedBy: waits.indexOf(waitMillis), used, granted, held: undefined }
    }
    const granted = asks.map((ask, nth) => grantOf(ask, used[nth] ?? 0))
    const held = asks.map((ask, nth): Held => {
      const amount = granted[nth] ?? 0
      const bucket = this.add(ask, amount, this.now + Math.min(guardMillis, ask.span / 4))
      return { name: ask.name, address: ask.address, span: ask.span, quantum: ask.quantum, bucket, amount }
    })
    return {
      ok: true,
      waitMillis,
      blockedBy: -1,
      used: used.map((used, nth) => used + (granted[nth] ?? 0)),
      granted,
      held
    }
  }

  record(asks: ReadonlyArray<AskRow>): void {
    for (const ask of asks) {
      // An amount that has left its window is not counted.
      if (ask.span <= 0 || ask.agoMillis <= ask.span) this.add(ask, ask.amount, this.now - ask.agoMillis)
    }
  }

  /** Replaces amounts by the actual use, and returns what the id still holds if it is kept. */
  settle(
    held: ReadonlyArray<Held>,
    actual: ReadonlyMap<string, number>,
    agoMillis: number,
    keep: boolean
  ): ReadonlyArray<Held> {
    return held.map((one) => {
      const amount = one.span === 0 ? keep ? one.amount : 0 : actual.get(one.address) ?? one.amount
      this.replace(one, amount, agoMillis, keep)
      return { ...one, amount }
    })
  }

  /** Frees the calls at once of ids whose lease has ended. */
  lapse(held: ReadonlyArray<Held>): void {
    for (const one of held) if (one.span === 0) this.replace(one, 0, 0, false)
  }

  private replace(one: Held, amount: number, agoMillis: number, keep: boolean): void {
    const row = this.rows.get(one.name)
    // A bucket that has left the window takes no settlement.
    if (row === undefined || (one.bucket !== null && one.bucket < row.oldest)) return
    const buckets = [...row.buckets]
    if (one.bucket !== null) {
      const latest = Math.max(row.oldest, Math.floor((this.now - agoMillis) / row.quantum))
      const moved = keep ? one.bucket : Math.min(one.bucket, latest)
      if (moved === one.bucket && amount === one.amount) return
      addTo(buckets, one.bucket - row.oldest, -one.amount)
      addTo(buckets, moved - row.oldest, amount)
    }
    this.write({ ...row, used: row.used + amount - one.amount, buckets })
  }

  /** Adds an amount, and returns its bucket. */
  private add(ask: AskRow, amount: number, arrival: number): number | null {
    const row = this.trimmed(ask)
    const bucket = ask.span > 0 ? Math.max(row.oldest, Math.floor(arrival / ask.quantum)) : null
    const buckets = [...row.buckets]
    if (bucket !== null) addTo(buckets, bucket - row.oldest, amount)
    this.write({ ...row, used: row.used + amount, buckets })
    return bucket
  }

  /** A sum without the buckets that have left its window. */
  private trimmed({ name, quantum, span }: Pick<SumRow, "name" | "quantum" | "span">): SumRow {
    const low = span > 0 ? Math.floor((this.now - span - driftMillis) / quantum) : 0
    const row = this.rows.get(name) ?? { name, span, quantum, used: 0, oldest: low, buckets: [] }
    if (row.oldest >= low) return row
    const gone = row.buckets.slice(0, low - row.oldest)
    const used = gone.reduce((used, amount) => used - amount, row.used)
    return { ...row, used, oldest: low, buckets: row.buckets.slice(gone.length) }
  }

  private wait({ amount: _, least, limit, quantum, span }: AskRow, level: SumRow | undefined): number {
    if (limit < 0 || level === undefined) return 0
    let over = least > limit ? level.used : level.used + least - limit
    if (over <= 0) return 0
    if (span <= 0) return soonMillis
    for (const [nth, amount] of level.buckets.entries()) {
      over -= amount
      if (over <= 0) {
        const leavesAt = (level.oldest + nth + 1) * quantum + span + driftMillis
        return Math.max(1, Math.ceil(leavesAt - this.now))
      }
    }
    return span
  }

  private write(row: SumRow): void {
    this.rows.set(row.name, row)
    this.written.add(row.name)
  }
}

/** The granted amount of an ask that fits: all of it, or as much as fits. */
const grantOf = ({ amount, least, limit }: AskRow, used: number): number =>
  limit < 0 || used + amount <= limit ? amount : Math.max(least, Math.floor(limit - used))

const addTo = (buckets: Array<number>, nth: number, amount: number): void => {
  while (buckets.length <= nth) buckets.push(0)
  buckets[nth] = (buckets[nth] ?? 0) + amount
}

/** The facts that processes have learned about a dimension: the limit (-1: none), when, and the end of the rest. */
export type LearnedRow = readonly [limit: number, setAt: number, restUntil: number]

/** A learned limit with what is new. -1: nothing is. */
export const learn = (
  [limit, setAt, restUntil]: LearnedRow = [-1, 0, 0],
  seen: number,
  restMillis: number,
  now: number
): LearnedRow => [
  seen < 0 ? limit : seen,
  seen < 0 ? setAt : now,
  restMillis < 0 ? restUntil : Math.max(restUntil, now + restMillis)
]
