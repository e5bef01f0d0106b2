import type { Tally } from "./Tally.ts"
import * as Terminal from "../Terminal.ts"
import * as Words from "./Words.ts"

const columns = 80
const labelWidth = 17

/** Renders the summary of a run. Latency leaves out shared answers, which would lower it. */
export const render = (tally: Tally, elapsedMillis: number): string =>
  [
    row("answered", Words.count(tally.answered)),
    row("failed", Words.count(tally.failed)),
    ...counted(
      "incomplete",
      [...tally.incomplete].map(([finish, times]) => [finishWords.get(finish) ?? finish, times])
    ),
    row("requests", Words.count(tally.requests)),
    row("shared", `${Words.count(tally.joined)} joined a call in flight, ${Words.count(tally.cached)} from cache`),
    ...(tally.failures.length === 0 ? [row("failed attempts", "0")] : counted("failed attempts", tally.failures)),
    row("latency", quantiles(tally)),
    row("tokens", tokens(tally.spent)),
    row("tokens saved", tokens(tally.saved)),
    row("time", Words.time(elapsedMillis)),
    ...[...tally.unusable].map(([target, why]) => row("unusable", `${target}: ${Terminal.escape(why)}`))
  ].join("")

const finishWords = new Map([["length", "cut by the token limit"], ["content-filter", "cut by a content filter"]])

const row = (label: string, text: string): string =>
  `${Terminal.clip(`  ${label.padEnd(labelWidth)}${text}`, columns)}\n`

/** Lists counts by reason, wrapped. */
const counted = (
  label: string,
  counts: ReadonlyArray<readonly [reason: string, times: number]>
): ReadonlyArray<string> => {
  const rows: Array<string> = []
  for (const [reason, times] of counts) {
    const text = `${Terminal.escape(reason)}: ${Words.count(times)}`
    const last = rows.at(-1)
    if (last !== undefined && last.length + 2 + text.length <= columns - labelWidth - 2) {
      rows[rows.length - 1] = `${last}, ${text}`
    } else rows.push(text)
  }
  return rows.map((text, index) => row(index === 0 ? label : "", text))
}

const quantiles = ({ latency }: Tally): string => {
  const shares = [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]] as const
  return shares.map(([name, share]) => {
    const millis = latency.quantile(share)
    return `${name} ${millis === undefined ? "-" : Words.time(millis)}`
  }).join("   ")
}

const tokens = ({ estimated, inputTokens, outputTokens }: Tally["spent"]): string =>
  `${Words.count(inputTokens)} in, ${Words.count(outputTokens)} out${estimated ? ", partly estimated" : ""}`
