/** Finds lines with the id of an earlier line, in 16 to 32 bytes an id, and up to 48 while the table grows. */
export class Ids {
  /** A hash table with open addressing. 0: an empty cell. */
  private table = new Float64Array(1_024)
  private used = 0
  /** Lines with the id of an earlier line. */
  repeated = 0
  /** The first of these lines. */
  first: { readonly line: number; readonly id: string } | undefined

  add(line: number, id: string | undefined): void {
    if (id === undefined) return
    if (2 * this.used >= this.table.length) this.grow()
    if (insert(this.table, hashOf(id))) this.used++
    else {
      this.repeated++
      this.first ??= { line, id }
    }
  }

  private grow(): void {
    const { table } = this
    this.table = new Float64Array(2 * table.length)
    for (const hash of table) if (hash !== 0) insert(this.table, hash)
  }
}

/** Returns whether the hash was new. */
const insert = (table: Float64Array, hash: number): boolean => {
  let index = hash % table.length
  while (table[index] !== 0) {
    if (table[index] === hash) return false
    index = (index + 1) % table.length
  }
  table[index] = hash
  return true
}

/** Two FNV-1a hashes in 53 bits. Among a million ids, two have the same by chance in one of 18,000 files. Never 0. */
const hashOf = (id: string): number => {
  let high = 0x811c9dc5
  let low = 0x1000193
  for (let index = 0; index < id.length; index++) {
    const code = id.charCodeAt(index)
    high = Math.imul(high ^ code, 0x01000193)
    low = Math.imul(low ^ code, 0x5bd1e995)
    low ^= low >>> 15
  }
  return (high & 0x1fffff) * 2 ** 32 + (low >>> 0) || 1
}
