/** Batches for people. */
import type * as Batch from "@sluice/batch/Batch"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
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

const shownStates = new Map<string, string>(Object.entries(words))

/** A state in the words of the table. */
export const stateOf = (state: string): string => shownStates.get(state) ?? state

const longestName = 40
/** The ids of `sluice batch submit`. Those of OpenAI's API are longer, and have a line of their own. */
const idWidth = 18

export const doneOf = ({ failed, marked, ok }: Batch.Status): number => ok + failed + marked

/** Whether tokens were used that had no price, so that what they cost is unknown. */
const isUnpriced = ({ inputTokens, micros, outputTokens }: Batch.Status): boolean =>
  micros === 0 && inputTokens + outputTokens > 0

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
    isUnpriced(batch) ? "?" : Prices.shown(batch.micros),
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

/** Why a file is unusable, as `@sluice/batch` stores it. */
const Problems = Schema.fromJsonString(
  Schema.Array(Schema.Struct({ line: Schema.optional(Schema.Number), message: Schema.String }))
)

const longestProblem = 76

const problemsOf = (error: string | undefined): ReadonlyArray<string> => {
  const [first, ...others] = Option.getOrElse(Schema.decodeUnknownOption(Problems)(error), () => [])
  if (first === undefined) return []
  const place = first.line === undefined ? "" : `line ${first.line}: `
  const more = others.length === 0 ? [] : [`and ${Words.plural(others.length, "more problem")}`]
  return [Terminal.clip(Terminal.escape(`${place}${first.message}`), longestProblem), ...more]
}

/** A batch that no worker runs waits for its user. */
const remedyOf = ({ state, waiting }: Batch.Status): string => {
  if (waiting?.for !== "no worker runs") return ""
  return `; run \`sluice batch work\`${state === "cancelling" ? ", or cancel it again" : ""}`
}

/** The reason why a batch or a worker waits. `now` is in epoch milliseconds. */
export const waitsOf = ({ for: what, until }: Batch.Waiting, now: number): string =>
  `waits: ${Terminal.escape(what)}${until === undefined || until <= now ? "" : `, for ${Words.time(until - now)}`}`

const notesOf = (batch: Batch.Status, now: number): ReadonlyArray<string> => {
  const { error, maxMicros, name, rate, waiting, weight } = batch
  const parts = [
    ...(name === undefined ? [] : [Terminal.clip(Terminal.escape(name), longestName)]),
    // A rate that is shown as 0.0 says less than none.
    ...(rate === undefined || rate < 0.05 ? [] : [`${rate < 10 ? rate.toFixed(1) : Words.count(Math.round(rate))}/s`]),
    ...(weight === 1 ? [] : [`weight ${weight}`]),
    ...(maxMicros === undefined ? [] : [`at most ${Prices.shown(maxMicros)}`])
  ]
  return [
    ...(parts.length === 0 ? [] : [parts.join(", ")]),
    ...problemsOf(error),
    ...(isUnpriced(batch) ? ["cost unknown: no price of its model; set it with --price IN,OUT of work"] : []),
    ...(waiting === undefined ? [] : [`${waitsOf(waiting, now)}${remedyOf(batch)}`])
  ]
}

/** A batch for programs. Times are epoch milliseconds, money is in dollars, `null` if there was no price. */
export const toJson = (batch: Batch.Status): object => {
  const { maxMicros, micros, ...rest } = batch
  return {
    ...rest,
    costDollars: isUnpriced(batch) ? null : micros / 1e6,
    maxCostDollars: maxMicros === undefined ? undefined : maxMicros / 1e6
  }
}
