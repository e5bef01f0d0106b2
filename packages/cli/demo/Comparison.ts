/** Compares clients, by their own outcomes and the journals of the providers. */
import * as Journal from "@sluice/ai/testing/Journal"
import { count, time } from "../src/run/Words.ts"
import type { Journals } from "./Provider.ts"

/** A client's outcome for one ticket. `text` is `undefined` if it failed. */
export interface Outcome {
  readonly prompt: string
  readonly text: string | undefined
}

export interface Counts {
  readonly answered: number
  readonly failed: number
  /** Reported as answered, although the provider's answer was cut short. */
  readonly cutShort: number
  readonly requests: number
  /** Requests that the second provider answered in full. */
  readonly bySecond: number
  readonly whileDown: number
  readonly tooSoon: number
  readonly tokens: number
  readonly millis: number
}

/** Counts one client's outcomes. An answer is full if a provider sent exactly this text for exactly this prompt. */
export const counts = (
  outcomes: ReadonlyArray<Outcome>,
  { first, second }: Pick<Journals, "first" | "second">
): Counts => {
  const journal = [...first, ...second]
  const whole = new Set(journal.flatMap(({ answer, prompt }) => answer === undefined ? [] : [`${answer} ${prompt}`]))
  const reported = outcomes.filter(({ text }) => text !== undefined)
  const answered = reported.filter(({ prompt, text = "" }) => whole.has(`${Journal.digest(text)} ${prompt}`)).length
  const summary = Journal.summary(journal)
  return {
    answered,
    failed: outcomes.length - reported.length,
    cutShort: reported.length - answered,
    requests: summary.calls,
    bySecond: Journal.summary(second).endings.complete,
    whileDown: summary.whileDown,
    // Per provider: a request to another provider is not too soon.
    tooSoon: Journal.summary(first).soonerThanRetryAfter + Journal.summary(second).soonerThanRetryAfter,
    tokens: summary.tokensPaid,
    millis: summary.millis
  }
}

const rows: ReadonlyArray<readonly [label: string, cell: (counts: Counts) => string]> = [
  ["answered in full", ({ answered }) => count(answered)],
  ["failed", ({ failed }) => count(failed)],
  ["cut short, reported as success", ({ cutShort }) => count(cutShort)],
  ["requests received", ({ requests }) => count(requests)],
  ["  answered by the second", ({ bySecond }) => count(bySecond)],
  ["  sent during the outage", ({ whileDown }) => count(whileDown)],
  ["  sent before Retry-After", ({ tooSoon }) => count(tooSoon)],
  ["tokens paid", ({ tokens }) => count(tokens)],
  ["time", ({ millis }) => time(millis)]
]

const labelWidth = Math.max(...rows.map(([label]) => label.length))

const cellWidth = 12

export interface Clients {
  readonly official: Counts
  readonly sluice: Counts
  /** Sluice with a second provider. */
  readonly withSecond: Counts
  /** The official client through a gateway with a second provider. */
  readonly gateway: Counts
}

export const table = ({ gateway, official, sluice, withSecond }: Clients): ReadonlyArray<string> => {
  const line = (label: string, ...cells: ReadonlyArray<string>): string =>
    `  ${label.padEnd(labelWidth)}${cells.map((cell) => cell.padStart(cellWidth)).join("")}`
  const rule = `  ${"-".repeat(labelWidth + 4 * cellWidth)}`
  return [
    line("", "official", "", "Sluice and", "client and"),
    line("", "client", "Sluice", "a second", "a gateway"),
    rule,
    ...rows.map(([label, cell]) => line(label, ...[official, sluice, withSecond, gateway].map(cell)))
  ]
}
