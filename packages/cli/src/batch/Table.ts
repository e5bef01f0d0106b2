/** Batches for people. */
import type * as Batch from "@sluice/batch/Batch"
import * as Prices from "../run/Prices.ts"
import * as Words from "../run/Words.ts"
import * as Terminal from "../Terminal.ts"

const words: { readonly [state in Batch.State]: string } = {
  validating: "being submitted",
  in_progress: "in progress",
  cancelling: "cancelling",
  expiring: "expiring",
  capping: "at its budget",
  completed: "completed",
  cancelled: "cancelled",
  expired: "expired",
  capped: "ended at its budget",
  failed: "unusable"
}

const longestName = 24

export const doneOf = ({ failed, marked, ok }: Batch.Status): number => ok + failed + marked

/** One row for each batch, and a line below those that wait. `now` is in epoch milliseconds. */
export const render = (batches: ReadonlyArray<Batch.Status>, now: number): string => {
  const header = ["batch", "name", "state", "done", "failed", "cost", "rate", "left"]
  const rows = batches.map((batch) => [
    batch.id,
    Terminal.clip(Terminal.escape(batch.name ?? "-"), longestName),
    words[batch.state],
    `${Words.count(doneOf(batch))} of ${Words.count(batch.total)}`,
    Words.count(batch.failed),
    `${Prices.shown(batch.micros)}${batch.maxMicros === undefined ? "" : ` of ${Prices.shown(batch.maxMicros)}`}`,
    batch.rate === undefined ? "-" : `${batch.rate < 10 ? batch.rate.toFixed(1) : Words.count(batch.rate)}/s`,
    batch.etaMillis === undefined ? "-" : Words.time(batch.etaMillis)
  ])
  const widths = header.map((name, column) =>
    Math.max(name.length, ...rows.map((row) => Terminal.width(row[column] ?? "")))
  )
  const line = (row: ReadonlyArray<string>) =>
    row.map((cell, column) => cell + " ".repeat(Math.max(0, (widths[column] ?? 0) - Terminal.width(cell)))).join("  ")
      .trimEnd()
  const lines = [line(header)]
  rows.forEach((row, index) => {
    lines.push(line(row))
    lines.push(...waitOf(batches[index], now))
  })
  return `${lines.join("\n")}\n`
}

const waitOf = (batch: Batch.Status | undefined, now: number): ReadonlyArray<string> => {
  const { waiting } = batch ?? {}
  if (waiting === undefined) return []
  const until = waiting.until === undefined || waiting.until <= now ? "" : `, for ${Words.time(waiting.until - now)}`
  return [`  waits: ${Terminal.escape(waiting.for)}${until}`]
}

/** A batch for programs. Times are epoch milliseconds, money is in dollars. */
export const toJson = (batch: Batch.Status): object => {
  const { maxMicros, micros, ...rest } = batch
  return { ...rest, costDollars: micros / 1e6, maxCostDollars: maxMicros === undefined ? undefined : maxMicros / 1e6 }
}
