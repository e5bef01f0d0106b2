/** As many as a narrow chart can show. */
const maxBins = 240
const firstWidth = 50

/** Counts over time in bounded memory. Merges bins in pairs when the time exceeds them all. */
export class Bins<K extends string> {
  width: number = firstWidth
  private bins: Array<Map<K, number>> = []

  /** Counts one at this many milliseconds after the start. */
  add(key: K, millis: number): void {
    const at = Math.max(0, millis)
    while (at >= this.width * maxBins) this.widen()
    const index = Math.floor(at / this.width)
    const bin = this.bins[index] ?? new Map<K, number>()
    bin.set(key, (bin.get(key) ?? 0) + 1)
    this.bins[index] = bin
  }

  /** Returns the non-empty bins with their start times. */
  entries(): ReadonlyArray<{ readonly at: number; readonly counts: ReadonlyMap<K, number> }> {
    // `flatMap` skips the holes of empty bins.
    return this.bins.flatMap((counts, index) => [{ at: index * this.width, counts }])
  }

  private widen(): void {
    const wider: Array<Map<K, number>> = []
    this.bins.forEach((bin, index) => {
      const into = wider[Math.floor(index / 2)] ?? new Map<K, number>()
      for (const [key, count] of bin) into.set(key, (into.get(key) ?? 0) + count)
      wider[Math.floor(index / 2)] = into
    })
    this.bins = wider
    this.width *= 2
  }
}
