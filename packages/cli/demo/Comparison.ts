/** Counts what a client did, from what it says of each ticket and what the providers saw: one function for every client. */
import * as Journal from "@sluice/ai/testing/Journal"
import { count, time } from "../src/run/Words.ts"
import type { Seen } from "./Provider.ts"

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
  /** Calls that the second provider answered in full. */
  readonly bySecond: number
  readonly whileDown: number
  readonly tooSoon: number
  readonly tokens: number
  readonly millis: number
}

/** An answer is in full if the provider sent just that text, whole, for just that prompt. */
export const counts = (outcomes: ReadonlyArray<Outcome>, { first, second }: Seen): Counts => {
  const journal = [...first, ...second]
  const whole = new Set(journal.flatMap(({ answer, prompt }) => answer === undefined ? [] : [`${answer} ${prompt}`]))
  const reported = outcomes.filter(({ text }) => text !== undefined)
  const answered = reported.filter(({ prompt, text = "" }) => whole.has(`${Journal.digest(text)} ${prompt}`)).length
  const seen = Journal.summary(journal)
  return {
    answered,
    failed: outcomes.length - reported.length,
    cutShort: reported.length - answered,
    calls: seen.calls,
    bySecond: Journal.summary(second).endings.complete,
    whileDown: seen.whileDown,
    // Who goes to another provider has not come back too soon.
    tooSoon: Journal.summary(first).soonerThanRetryAfter + Journal.summary(second).soonerThanRetryAfter,
    tokens: seen.tokensPaid,
    millis: seen.millis
  }
}

const rows: ReadonlyArray<readonly [label: string, cell: (counts: Counts) => string]> = [
  ["answered in full", ({ answered }) => count(answered)],
  ["failed", ({ failed }) => count(failed)],
  ["cut short, reported as success", ({ cutShort }) => count(cutShort)],
  ["calls received", ({ calls }) => count(calls)],
  ["  of them answered by the second", ({ bySecond }) => count(bySecond)],
  ["  of them while it was down", ({ whileDown }) => count(whileDown)],
  ["  sooner than Retry-After asked", ({ tooSoon }) => count(tooSoon)],
  ["tokens paid", ({ tokens }) => count(tokens)],
  ["time", ({ millis }) => time(millis)]
]

const labelWidth = Math.max(...rows.map(([label]) => label.length))

const cellWidth = 15

export const table = (official: Counts, sluice: Counts, withSecond: Counts): ReadonlyArray<string> => {
  const line = (label: string, ...cells: ReadonlyArray<string>): string =>
    `  ${label.padEnd(labelWidth)}${cells.map((cell) => cell.padStart(cellWidth)).join("")}`
  const rule = `  ${"-".repeat(labelWidth + 3 * cellWidth)}`
  return [
    line("", "official", "", "Sluice, with"),
    line("", "client", "Sluice", "a second"),
    rule,
    ...rows.map(([label, cell]) => line(label, cell(official), cell(sluice), cell(withSecond)))
  ]
}
