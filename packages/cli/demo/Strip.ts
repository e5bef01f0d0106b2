import type { Change } from "../src/run/Circuits.ts"

/** Renders a circuit over time: `-` closed, `O` open, `?` probe. Times are milliseconds since the start of the run. */
export const render = (changes: ReadonlyArray<Change>, millis: number, columns: number): string => {
  const cell = millis / columns
  // An open circuit changes only with the outcome of a probe: it reopens or closes.
  const probes = changes.filter((_, index) => changes[index - 1]?.circuit.state === "open").map(({ at }) => at)
  return Array.from({ length: columns }, (_, index) => {
    const from = index * cell
    if (probes.some((at) => at >= from && at < from + cell)) return "?"
    const current = changes.findLast(({ at }) => at < from + cell)
    return current?.circuit.state === "open" ? "O" : "-"
  }).join("")
}
