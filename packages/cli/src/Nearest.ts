/** Returns the candidate closest to a mistyped word. `undefined` if none is close enough. */
export const find = (word: string, candidates: ReadonlyArray<string>): string | undefined => {
  let nearest: string | undefined
  let fewest = 4
  for (const candidate of candidates) {
    const wrong = distance(word, candidate)
    // More than half of the longer word must be right, or `--x` would match every short flag, and `--strict` the flag `--price`.
    if (wrong >= fewest || wrong * 2 >= Math.max(word.length, candidate.length)) continue
    fewest = wrong
    nearest = candidate
  }
  return nearest ?? (word.length < 3 ? undefined : candidates.find((candidate) => candidate.startsWith(word)))
}

/** Counts the letters to insert, delete, replace or swap with their neighbour. */
export const distance = (a: string, b: string): number => {
  // `row[j]` is the distance from the letters of `a` so far to the first `j` letters of `b`; `last` is the row before.
  let last: ReadonlyArray<number> = []
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = at(row, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1)
      const isSwap = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      const swapped = isSwap ? at(last, j - 2) + 1 : Number.POSITIVE_INFINITY
      next.push(Math.min(replaced, swapped, at(row, j) + 1, at(next, j - 1) + 1))
    }
    last = row
    row = next
  }
  return at(row, b.length)
}

const at = (row: ReadonlyArray<number>, index: number): number => row[index] ?? Number.POSITIVE_INFINITY
