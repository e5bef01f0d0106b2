import type { Permits } from "./permits.ts"

export type Level = "Normal" | "Soft" | "Full"

/**
 * The level of pressure. A level is left at fewer permits in use than it is reached at, so that calls which come and go at the limit
 * do not cross it each time.
 */
export class Gauge {
  level: Level = "Normal"
  /** How often each level was reached. */
  readonly reached: Record<Level, number> = { Normal: 0, Soft: 0, Full: 0 }
  private isSoft = false
  private isFull = false
  private readonly softLimit: number
  private readonly softRelease: number
  private readonly onMove: (level: Level) => void

  constructor(softLimit: number, softRelease: number, onMove: (level: Level) => void) {
    this.softLimit = softLimit
    this.softRelease = softRelease
    this.onMove = onMove
  }

  update({ capacity, queued, running }: Pick<Permits, "capacity" | "queued" | "running">): void {
    // Full is left at three quarters of the capacity.
    this.isFull = running >= capacity || queued > 0 || (this.isFull && running * 4 > capacity * 3)
    this.isSoft = running >= this.softLimit || (this.isSoft && running > this.softRelease)
    const level = this.isFull ? "Full" : this.isSoft ? "Soft" : "Normal"
    if (level === this.level) return
    this.level = level
    this.reached[level]++
    this.onMove(level)
  }
}

interface Mark {
  readonly at: number
  readonly released: number
}

/**
 * How fast permits come back under pressure, measured over the last one to two turnovers of all permits. Unknown before the
 * first turnover. Only refusals read it, so an admitted call pays nothing for it.
 */
export class Pace {
  private from: Mark | undefined = undefined
  private to: Mark | undefined = undefined

  /** Starts over: the level or the capacity changed. */
  reset(): void {
    this.from = this.to = undefined
  }

  /** The time in which this many permits come back. */
  millisFor(
    permits: number,
    { capacity, released }: Pick<Permits, "capacity" | "released">,
    now: number
  ): number | undefined {
    this.from ??= { at: now, released }
    this.to ??= this.from
    if (released - this.to.released >= capacity) {
      this.from = this.to
      this.to = { at: now, released }
    }
    const seen = released - this.from.released
    return seen < capacity ? undefined : Math.max(1, Math.ceil((now - this.from.at) / seen * permits))
  }
}
