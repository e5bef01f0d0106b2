import type { Tally } from "./Tally.ts"
import * as Terminal from "../Terminal.ts"
import * as Words from "./Words.ts"

const columns = 80
const labelWidth = 12

/** The table at the end of a run. Times are of answers that took a call of their own: a shared one would flatter them. */
export const render = (tally: Tally, elapsedMillis: number): string =>
  [
    row("answered", Words.count(tally.answered)),
    row("failed", Words.count(tally.failed)),
    ...counted("not whole", [...tally.unfinished].map(([finish, times]) => [finishWords.get(finish) ?? finish, times])),
    row("calls", Words.count(tally.calls)),
    row("shared", `${Words.count(tally.joined)} with a running call, ${Words.count(tally.cached)} from memory`),
    ...(tally.failures.length === 0 ? [row("retried", "0")] : counted("retried", tally.failures)),
    row("per answer", quantiles(tally)),
    row("tokens", tokens(tally.spent)),
    row("saved", tokens(tally.saved)),
    row("time", Words.time(elapsedMillis)),
    ...[...tally.unusable].map(([target, why]) => row("unusable", `${target}: ${Terminal.escape(why)}`))
  ].join("")

const finishWords = new Map([["length", "cut by the length limit"], ["content-filter", "cut by a content filter"]])

const row = (label: string, text: string): string =>
  `${Terminal.clip(`  ${label.padEnd(labelWidth)}${text}`, columns)}\n`

/** As many reasons as fit on a line, then the next line. */
const counted = (
  label: string,
  counts: ReadonlyArray<readonly [reason: string, times: number]>
): ReadonlyArray<string> => {
  const rows: Array<string> = []
  for (const [reason, times] of counts) {
    const text = `${Terminal.escape(reason)} ${Words.count(times)}`
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
  `${Words.count(inputTokens)} in, ${Words.count(outputTokens)} out${estimated ? ", some of them estimated" : ""}`
