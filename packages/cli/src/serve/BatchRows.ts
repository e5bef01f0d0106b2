/** The batches on the live page. They are read while a page is open, and a database that does not answer delays nothing. */
import { isEnded, type State, type Status } from "@sluice/batch/Batch"
import * as Keys from "./Keys.ts"

interface BatchRow {
  readonly id: string
  /** The name of the client's key. `null` for those of `sluice batch submit`. */
  readonly key: string | null
  readonly state: State
  readonly done: number
  readonly total: number
  readonly failed: number
  /** In dollars. */
  readonly cost: number
  readonly maxCost: number | null
  /** Results a second. */
  readonly rate: number | null
  readonly left: number | null
  readonly waits: { readonly for: string; readonly until: number | null } | null
  readonly endedAt: number | null
}

/** What a page gets. */
export interface Shown {
  /** When the database answered last. `null`: it was not asked before. */
  readonly at: number | null
  /** Whether the rows are of now. They are the last ones while the database does not answer. */
  readonly isKnown: boolean
  readonly rows: ReadonlyArray<BatchRow>
  /** How many live ones are not among the rows. */
  readonly more: number
}

const shownRows = 20
/** A database that is asked for longer counts as one that does not answer. */
const lateMillis = 3_000

const unasked: Shown = { at: null, isKnown: true, rows: [], more: 0 }

export class BatchRows {
  private readonly read: () => Promise<ReadonlyArray<Status>>
  private known = unasked
  private askedAt: number | undefined

  /** `read` returns the live batches and those that ended lately, the newest first. */
  constructor(read: () => Promise<ReadonlyArray<Status>>) {
    this.read = read
  }

  /** Asks the database, unless it has not answered yet. */
  async poll(now: number): Promise<void> {
    if (this.askedAt !== undefined) {
      if (now - this.askedAt > lateMillis) this.known = { ...this.known, isKnown: false }
      return
    }
    this.askedAt = now
    try {
      this.known = shownOf(await this.read(), Date.now())
    } catch {
      this.known = { ...this.known, isKnown: false }
    } finally {
      this.askedAt = undefined
    }
  }

  /** Forgets rows that would be old once a page opens. */
  forget(): void {
    this.known = unasked
  }

  get shown(): Shown {
    return this.known
  }
}

const shownOf = (batches: ReadonlyArray<Status>, at: number): Shown => {
  const live = batches.filter(({ state }) => !isEnded(state))
  const ended = batches.filter(({ state }) => isEnded(state))
  return {
    at,
    isKnown: true,
    rows: [...live, ...ended].slice(0, shownRows).map(rowOf),
    more: Math.max(0, live.length - shownRows)
  }
}

const rowOf = (batch: Status): BatchRow => {
  const { endedAt, etaMillis, failed, id, marked, maxMicros, micros, ok, owner, rate, state, total, waiting } = batch
  return {
    id,
    key: owner === undefined ? null : Keys.nameOf(owner),
    state,
    done: ok + failed + marked,
    total,
    failed,
    cost: micros / 1e6,
    maxCost: maxMicros === undefined ? null : maxMicros / 1e6,
    rate: rate ?? null,
    left: etaMillis ?? null,
    waits: waiting === undefined ? null : { for: waiting.for, until: waiting.until ?? null },
    endedAt: endedAt ?? null
  }
}
