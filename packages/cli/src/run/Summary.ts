import type { Ids } from "./Ids.ts"
import type { Reason } from "./Reasons.ts"
import type { Tally } from "./Tally.ts"
import * as Terminal from "../Terminal.ts"
import * as Text from "../Text.ts"
import * as Words from "./Words.ts"

const columns = 80
const labelWidth = 17
const indent = labelWidth + 2

/** The parts of a summary besides the counts of the run. */
export interface More {
  /** Lines that earlier runs of the same results answered, and lines without an answer that this run left out. */
  readonly before?: { readonly answered: number; readonly leftOut: number } | undefined
  /** Limits that were learned. */
  readonly limits?: ReadonlyArray<string> | undefined
  /** What the run cost. `undefined` if no price is known. */
  readonly cost?: string | undefined
  /** Lines that `--cache` answered, and answers that were added to it. `undefined` without it. */
  readonly cache?: { readonly reused: number; readonly added: number } | undefined
  readonly ids?: Pick<Ids, "first" | "repeated"> | undefined
}

/** Renders the summary of a run. The time per answer leaves out shared answers, which would lower it. */
export const render = (
  tally: Tally,
  elapsedMillis: number,
  { before, cache, cost, ids, limits = [] }: More = {}
): string =>
  [
    row("answered", Words.count(tally.answered)),
    row("failed", `${Words.count(tally.failed)}${stopped(tally)}`),
    ...tally.failedLines.flatMap(reason),
    ...(before === undefined ? [] : [row("earlier runs", earlier(before))]),
    ...(ids?.first === undefined ? [] : [row("repeated ids", repeated(ids.repeated, ids.first))]),
    ...counted(
      "incomplete",
      [...tally.incomplete].map(([finish, times]) => [finishWords.get(finish) ?? finish, times])
    ),
    row("requests", Words.count(tally.requests)),
    row("retries", Words.count(tally.retries)),
    ...(tally.failures.length === 0 ? [row("failed attempts", "0")] : counted("failed attempts", tally.failures)),
    row(
      "shared",
      `${Words.count(tally.joined)} joined a request under way, ${Words.count(tally.cached)} reused an answer`
    ),
    ...(cache === undefined
      ? []
      : [row("cache", `${Words.plural(cache.reused, "answer")} reused, ${Words.count(cache.added)} added`)]),
    row("time per answer", quantiles(tally)),
    row("tokens", tokens(tally.spent)),
    row("tokens saved", tokens(tally.saved)),
    ...(cost === undefined ? [] : rows("cost", Text.wrap(cost, width))),
    ...rows("learned limits", limits.flatMap((limit) => Text.wrap(safe(limit), width))),
    row("time", Words.time(elapsedMillis)),
    ...[...tally.unusable].flatMap(([target, why]) => rows("unusable", Text.wrap(safe(`${target}: ${why}`), width)))
  ].join("")

const stopped = ({ stopped }: Tally): string =>
  stopped === 0 ? "" : `, of which ${Words.count(stopped)} did not finish before the run stopped`

const earlier = ({ answered, leftOut }: NonNullable<More["before"]>): string =>
  `${Words.count(answered)} answered${
    leftOut === 0 ? "" : `; ${Words.plural(leftOut, "line")} without an answer left out`
  }`

const repeated = (times: number, { id, line }: NonNullable<Ids["first"]>): string =>
  `${Words.plural(times, "line")} with the id of an earlier one, for example line ${line}: ${safe(id)}`

const width = columns - indent

const safe = (text: string): string => Terminal.escape(text.replaceAll(/\s+/g, " "))

/** A reason with the message of one line, in at most three rows. */
const reason = ({ line, message, times, words }: Reason): ReadonlyArray<string> => {
  const [first = "", second, third] = Text.wrap(safe(`line ${line}: ${message}`), width - 2)
  const shown = third === undefined ? [first, second ?? ""] : [first, Terminal.clip(`${second} ${third}`, width - 2)]
  return rows("", [
    `${safe(words)}: ${Words.count(times)}${times === 1 ? "" : ", for example"}`,
    ...shown.filter((text) => text !== "").map((text) => `  ${text}`)
  ])
}

const finishWords = new Map([["length", "cut by the token limit"], ["content-filter", "cut by a content filter"]])

const row = (label: string, text: string): string =>
  `${Terminal.clip(`  ${label.padEnd(labelWidth)}${text}`, columns)}\n`

const rows = (label: string, texts: ReadonlyArray<string>): ReadonlyArray<string> =>
  texts.map((text, index) => row(index === 0 ? label : "", text))

/** Lists counts by reason, wrapped. */
const counted = (
  label: string,
  counts: ReadonlyArray<readonly [reason: string, times: number]>
): ReadonlyArray<string> => {
  const texts: Array<string> = []
  for (const [reason, times] of counts) {
    const text = `${Terminal.escape(reason)}: ${Words.count(times)}`
    const last = texts.at(-1)
    if (last !== undefined && last.length + 2 + text.length <= width) {
      texts[texts.length - 1] = `${last}, ${text}`
    } else texts.push(text)
  }
  return rows(label, texts)
}

const quantiles = ({ latency }: Tally): string => {
  const shares = [["half", 0.5], ["95 %", 0.95], ["99 %", 0.99]] as const
  return latency.quantile(0.5) === undefined ?
    "-" :
    shares.map(([name, share]) => `${name} within ${Words.time(latency.quantile(share) ?? 0)}`).join(", ")
}

const tokens = ({ estimated, inputTokens, outputTokens }: Tally["spent"]): string =>
  `${Words.count(inputTokens)} in, ${Words.count(outputTokens)} out${estimated ? ", partly estimated" : ""}`
