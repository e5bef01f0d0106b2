import type { Change } from "./throughSluice.ts"

/** A circuit over time: `-` closed, `O` open, `?` a probe. */
export const render = (
  changes: ReadonlyArray<Change>,
  calls: ReadonlyArray<number>,
  millis: number,
  columns: number
): string => {
  const cell = millis / columns
  return Array.from({ length: columns }, (_, index) => {
    const until = (index + 1) * cell
    const current = changes.findLast(({ at }) => at < until)
    if (current === undefined || current.circuit.state === "closed") return "-"
    // While it is open, every call that the provider saw after the first moment was a probe.
    const isProbe = calls.some((at) => at >= index * cell && at < until && at > current.at + probeMargin)
    return isProbe ? "?" : "O"
  }).join("")
}

// Calls that were on their way when the circuit opened arrive within this time.
const probeMargin = 500
