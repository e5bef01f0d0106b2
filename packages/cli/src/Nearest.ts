/** The candidate that a mistyped word most likely meant; none if all are too far from it. */
export const find = (word: string, candidates: ReadonlyArray<string>): string | undefined => {
  let nearest: string | undefined
  // Half of a word may be wrong at most, or `--x` would be taken for every short flag.
  let least = Math.min(3, Math.ceil(word.length / 2)) + 1
  for (const candidate of candidates) {
    const distance = editDistance(word, candidate)
    if (distance >= least) continue
    least = distance
    nearest = candidate
  }
  return nearest ?? (word.length < 3 ? undefined : candidates.find((candidate) => candidate.startsWith(word)))
}

/** How many letters have to be put in, taken out or replaced. */
const editDistance = (a: string, b: string): number => {
  // One row of the table at a time: `row[j]` is the distance from the letters of `a` so far to the first `j` of `b`.
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = at(row, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, at(row, j) + 1, at(next, j - 1) + 1))
    }
    row = next
  }
  return at(row, b.length)
}

const at = (row: ReadonlyArray<number>, index: number): number => row[index] ?? Number.POSITIVE_INFINITY
