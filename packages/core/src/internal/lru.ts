/** An entry of a `Recency` list, and its neighbours there. */
export interface Linked<Self> {
  /** Used more recently. */
  newer: Self | undefined
  /** Used less recently. */
  older: Self | undefined
}

/**
 * Entries in the order of their last use, linked through the entries themselves: every step costs the same with ten
 * entries and with a million. (To keep a Map's insertion order in step instead makes a miss nine times dearer.)
 */
export class Recency<Entry extends Linked<Entry>> {
  size = 0
  newest: Entry | undefined
  oldest: Entry | undefined

  add(entry: Entry): void {
    this.size++
    entry.older = this.newest
    entry.newer = undefined
    if (this.newest === undefined) this.oldest = entry
    else this.newest.newer = entry
    this.newest = entry
  }

  remove(entry: Entry): void {
    this.size--
    if (entry.newer === undefined) this.newest = entry.older
    else entry.newer.older = entry.older
    if (entry.older === undefined) this.oldest = entry.newer
    else entry.older.newer = entry.newer
    entry.newer = entry.older = undefined
  }

  /** The entry was used now. */
  touch(entry: Entry): void {
    if (entry === this.newest) return
    this.remove(entry)
    this.add(entry)
  }
}
