/** Counts what a client did, from what it says of each ticket and what the provider saw: one function for every client. */
import * as Journal from "@sluice/ai/testing/Journal"
import { count, time } from "../src/run/Words.ts"

/** What a client says of one ticket: its answer, or that there is none. */
export interface Outcome {
  readonly prompt: string
  readonly text: string | undefined
}

export interface Counts {
  readonly answered: number
  readonly failed: number
  /** Reported as answered, though what the provider sent was cut. */
  readonly cutShort: number
  readonly calls: number
  readonly whileDown: number
  readonly tooSoon: number
  readonly tokens: number
  readonly millis: number
}

/** An answer is in full if the provider sent just that text, whole, for just that prompt. */
export const counts = (outcomes: ReadonlyArray<Outcome>, journal: ReadonlyArray<Journal.Entry>): Counts => {
  const whole = new Set(journal.flatMap(({ answer, prompt }) => answer === undefined ? [] : [`${answer} ${prompt}`]))
  const reported = outcomes.filter(({ text }) => text !== undefined)
  const answered = reported.filter(({ prompt, text = "" }) => whole.has(`${Journal.digest(text)} ${prompt}`)).length
  const seen = Journal.summary(journal)
  return {
    answered,
    failed: outcomes.length - reported.length,
    cutShort: reported.length - answered,
    calls: seen.calls,
    whileDown: seen.whileDown,
    tooSoon: seen.soonerThanRetryAfter,
    tokens: seen.tokensPaid,
    millis: seen.millis
  }
}

const rows: ReadonlyArray<readonly [label: string, cell: (counts: Counts) => string]> = [
  ["answered in full", ({ answered }) => count(answered)],
  ["failed", ({ failed }) => count(failed)],
  ["cut short, reported as success", ({ cutShort }) => count(cutShort)],
  ["calls received", ({ calls }) => count(calls)],
  ["  of them while it was down", ({ whileDown }) => count(whileDown)],
  ["  sooner than Retry-After asked", ({ tooSoon }) => count(tooSoon)],
  ["tokens paid", ({ tokens }) => count(tokens)],
  ["time", ({ millis }) => time(millis)]
]

const labelWidth = Math.max(...rows.map(([label]) => label.length))

export const table = (official: Counts, sluice: Counts): ReadonlyArray<string> => {
  const line = (label: string, ...cells: ReadonlyArray<string>): string =>
    `  ${label.padEnd(labelWidth)}${cells.map((cell) => cell.padStart(17)).join("")}`
  const rule = `  ${"-".repeat(labelWidth + 2 * 17)}`
  return [
    line("", "official client", "Sluice"),
    rule,
    ...rows.map(([label, cell]) => line(label, cell(official), cell(sluice)))
  ]
}
