import type { Claimed, ClaimRequest, FlightStore } from "../../FlightStore.ts"

type RequestOf<Verb extends "renew" | "complete" | "release" | "purge"> = Parameters<FlightStore["Service"][Verb]>[0]

/** The entry of a key. Times are milliseconds. */
interface Entry {
  readonly operation: string
  readonly tenant: string
  /** Of the last lease. */
  generation: number
  id: string
  /** The end of the lease. 0: it was completed or released. */
  leaseUntil: number
  isFollowed: boolean
  /** The generation of the result. 0: there is none. */
  done: number
  result: string
  freshUntil: number
  keptUntil: number
  /** The time of the last request. */
  seen: number
}

/** How many of the oldest entries each claim looks at, to delete expired ones. */
const sweptByClaim = 2

/** The entries of a store in this process, the least recently claimed first. */
export class MemoryFlights {
  private readonly capacity: number
  private readonly now: () => number
  private readonly onFinished: (key: string) => void
  private readonly entries = new Map<string, Entry>()

  constructor(capacity: number, now: () => number, onFinished: (key: string) => void) {
    this.capacity = capacity
    this.now = now
    this.onFinished = onFinished
  }

  claim({ following = Number.POSITIVE_INFINITY, id, key, leaseMillis, operation, tenant }: ClaimRequest): Claimed {
    const now = this.now()
    const entry = this.use(key, operation, tenant, now)
    const hasResult = entry.freshUntil > now || (entry.done >= following && entry.keptUntil > now)
    if (hasResult) {
      const freshMillis = Math.max(0, entry.freshUntil - now)
      return { _tag: "Result", generation: entry.done, result: entry.result, freshMillis }
    }
    const isLeased = entry.leaseUntil > now
    if (isLeased && entry.id !== id) {
      entry.isFollowed = true
      return { _tag: "Follow", generation: entry.generation, leaseMillis: entry.leaseUntil - now }
    }
    if (!isLeased) {
      const followed = following === Number.POSITIVE_INFINITY ? 0 : following
      // From the clock, so that it also grows if the entry was forgotten in between.
      entry.generation = Math.max(Math.floor(now * 1_000), entry.generation + 1, followed + 1)
      entry.isFollowed = false
      entry.id = id
    }
    entry.leaseUntil = now + leaseMillis
    return { _tag: "Lead", generation: entry.generation }
  }

  renew({ id, key, leaseMillis }: RequestOf<"renew">): boolean {
    const entry = this.held(key, id)
    if (entry === undefined) return false
    const now = this.now()
    adjust(entry, now)
    entry.leaseUntil = now + leaseMillis
    return true
  }

  complete({ freshMillis, id, keepMillis, key, result }: RequestOf<"complete">): boolean {
    const entry = this.entries.get(key)
    if (entry !== undefined && entry.id === id && entry.done === entry.generation) return true
    const held = this.held(key, id)
    if (held === undefined) return false
    const now = this.now()
    held.seen = now
    held.done = held.generation
    held.result = result
    held.freshUntil = now + freshMillis
    held.keptUntil = now + keepMillis
    this.end(key, held)
    return true
  }

  release({ id, key }: RequestOf<"release">): boolean {
    const entry = this.held(key, id)
    if (entry === undefined) return false
    this.end(key, entry)
    return true
  }

  purge({ by, hash }: RequestOf<"purge">): number {
    let purged = 0
    for (const [key, entry] of this.entries) {
      if ((by === "key" ? key : entry[by]) !== hash) continue
      this.entries.delete(key)
      purged++
    }
    return purged
  }

  private held(key: string, id: string): Entry | undefined {
    const entry = this.entries.get(key)
    return entry !== undefined && entry.id === id && entry.leaseUntil > this.now() ? entry : undefined
  }

  private end(key: string, entry: Entry): void {
    entry.leaseUntil = 0
    if (entry.isFollowed) this.onFinished(key)
  }

  /** Returns the entry as the most recently claimed one. Makes it if it is missing. */
  private use(key: string, operation: string, tenant: string, now: number): Entry {
    const entry = this.entries.get(key) ?? newEntry(operation, tenant)
    adjust(entry, now)
    this.entries.delete(key)
    this.sweep(now)
    this.entries.set(key, entry)
    return entry
  }

  private sweep(now: number): void {
    let looked = 0
    for (const [key, { freshUntil, keptUntil, leaseUntil }] of this.entries) {
      if (looked++ === sweptByClaim) return
      const isOver = Math.max(leaseUntil, freshUntil, keptUntil) <= now
      if (isOver || this.entries.size >= this.capacity) this.entries.delete(key)
    }
  }
}

/** Shifts all times if the clock was set back. Otherwise leases and results would last longer by as much. */
const adjust = (entry: Entry, now: number): void => {
  const behind = Math.max(0, entry.seen - now)
  entry.leaseUntil -= behind
  entry.freshUntil -= behind
  entry.keptUntil -= behind
  entry.seen = now
}

const newEntry = (operation: string, tenant: string): Entry => ({
  operation,
  tenant,
  generation: 0,
  id: "",
  leaseUntil: 0,
  isFollowed: false,
  done: 0,
  result: "",
  freshUntil: 0,
  keptUntil: 0,
  seen: 0
})
