/** What is in a `Chain`, and its neighbours there. */
export interface Linked<Self> {
  /** Added or used after it. */
  newer: Self | undefined
  /** Added or used before it. */
  older: Self | undefined
}

/**
 * Things in the order in which they came or were last used, linked through themselves: every step costs the same with ten
 * and with a million. (To keep a Map's insertion order in step with use instead makes a miss nine times dearer.)
 */
export class Chain<Link extends Linked<Link>> {
  size = 0
  newest: Link | undefined
  oldest: Link | undefined

  add(link: Link): void {
    this.size++
    link.older = this.newest
    link.newer = undefined
    if (this.newest === undefined) this.oldest = link
    else this.newest.newer = link
    this.newest = link
  }

  /** As if it had come before all others. */
  addOldest(link: Link): void {
    this.size++
    link.newer = this.oldest
    link.older = undefined
    if (this.oldest === undefined) this.newest = link
    else this.oldest.older = link
    this.oldest = link
  }

  remove(link: Link): void {
    this.size--
    if (link.newer === undefined) this.newest = link.older
    else link.newer.older = link.older
    if (link.older === undefined) this.oldest = link.newer
    else link.older.newer = link.newer
    link.newer = link.older = undefined
  }

  /** It was used now. */
  touch(link: Link): void {
    if (link === this.newest) return
    this.remove(link)
    this.add(link)
  }
}
