import type { Change } from "../src/run/Circuits.ts"

/** One circuit over time, in milliseconds since the run began: `-` closed, `O` open, `?` a probe. */
export const render = (changes: ReadonlyArray<Change>, millis: number, columns: number): string => {
  const cell = millis / columns
  // A circuit that was open moves when its probe has told: it opens again, or closes.
  const probes = changes.filter((_, index) => changes[index - 1]?.circuit.state === "open").map(({ at }) => at)
  return Array.from({ length: columns }, (_, index) => {
    const from = index * cell
    if (probes.some((at) => at >= from && at < from + cell)) return "?"
    const current = changes.findLast(({ at }) => at < from + cell)
    return current?.circuit.state === "open" ? "O" : "-"
  }).join("")
}
