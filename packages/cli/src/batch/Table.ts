/** Batches for people. */
import type * as Batch from "@sluice/batch/Batch"
import * as Prices from "../run/Prices.ts"
import * as Words from "../run/Words.ts"
import * as Terminal from "../Terminal.ts"

/** At most 12 characters, so that a row has at most 80. */
const words: { readonly [state in Batch.State]: string } = {
  validating: "submitting",
  in_progress: "in progress",
  cancelling: "cancelling",
  expiring: "expiring",
  capping: "at budget",
  completed: "completed",
  cancelled: "cancelled",
  expired: "expired",
  capped: "budget spent",
  failed: "unusable"
}

const longestName = 40
/** The ids of `sluice batch submit`. Those of OpenAI's API are longer, and have a line of their own. */
const idWidth = 18

export const doneOf = ({ failed, marked, ok }: Batch.Status): number => ok + failed + marked

const header = ["batch", "state", "done", "failed", "cost", "left"]
/** Columns of numbers, of which the last digits are below each other. */
const isNumber = [false, false, true, true, true, true]

/** A row for each batch, and below it what else there is to say. `now` is in epoch milliseconds. */
export const render = (batches: ReadonlyArray<Batch.Status>, now: number): string => {
  const rows = batches.map((batch) => [
    batch.id.length > idWidth ? "" : batch.id,
    words[batch.state],
    `${Words.count(doneOf(batch))}/${Words.count(batch.total)}`,
    Words.count(batch.failed),
    Prices.shown(batch.micros),
    batch.etaMillis === undefined ? "-" : Words.time(batch.etaMillis)
  ])
  const widths = header.map((name, column) =>
    Math.max(column === 0 ? idWidth : name.length, ...rows.map((row) => row[column]?.length ?? 0))
  )
  const line = (row: ReadonlyArray<string>) =>
    row.map((cell, column) =>
      isNumber[column] === true ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)
    ).join("  ").trimEnd()
  const lines = batches.flatMap((batch, index) => [
    ...(batch.id.length > idWidth ? [batch.id] : []),
    line(rows[index] ?? []),
    ...notesOf(batch, now).map((note) => `  ${note}`)
  ])
  return `${[line(header), ...lines].join("\n")}\n`
}

const notesOf = ({ maxMicros, name, rate, waiting }: Batch.Status, now: number): ReadonlyArray<string> => {
  const parts = [
    ...(name === undefined ? [] : [Terminal.clip(Terminal.escape(name), longestName)]),
    ...(rate === undefined ? [] : [`${rate < 10 ? rate.toFixed(1) : Words.count(Math.round(rate))}/s`]),
    ...(maxMicros === undefined ? [] : [`at most ${Prices.shown(maxMicros)}`])
  ]
  const until = waiting?.until === undefined || waiting.until <= now ? "" : `, for ${Words.time(waiting.until - now)}`
  return [
    ...(parts.length === 0 ? [] : [parts.join(", ")]),
    ...(waiting === undefined ? [] : [`waits: ${Terminal.escape(waiting.for)}${until}`])
  ]
}

/** A batch for programs. Times are epoch milliseconds, money is in dollars. */
export const toJson = (batch: Batch.Status): object => {
  const { maxMicros, micros, ...rest } = batch
  return { ...rest, costDollars: micros / 1e6, maxCostDollars: maxMicros === undefined ? undefined : maxMicros / 1e6 }
}
