/** Renders a report as one self-contained page, without scripts, fonts or images. */
import type { Attempt } from "@sluice/ai/CallLog"
import * as Failure from "../run/Failure.ts"
import type { Ledger } from "../run/Ledger.ts"
import * as Prices from "../run/Prices.ts"
import * as Words from "../run/Words.ts"
import type { Ending, Facts, Listed, Sum, TargetFacts } from "./Facts.ts"
import { latencyEdges, limits } from "./Facts.ts"
import type { Part } from "./Html.ts"
import { Html, html } from "./Html.ts"
import { style } from "./style.ts"

export interface About {
  readonly input: string
  /** Why the run stopped early. `undefined` if it completed. */
  readonly stopped: string | undefined
  /** Reasons of targets that could not answer any prompt. */
  readonly unusable: ReadonlyMap<string, string>
  /** Limits that were learned. */
  readonly limits?: ReadonlyArray<string> | undefined
  /** The money of the run. Left out if no price is known. */
  readonly cost?: Pick<Ledger, "before" | "hasPriced" | "limit" | "spent" | "spentNow"> | undefined
}

export const render = (facts: Facts, about: About): string => {
  const millis = Math.max(1, facts.endedAt - facts.startedAt)
  const title = `sluice run ${about.input}`
  return `${
    html`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="color-scheme" content="light dark" />
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'" />
<title>${title}</title>
<style>${new Html(style())}</style>
</head>
<body>
<header>
<h1>${title}</h1>
<p>${new Date(facts.startedAt).toISOString().slice(0, 19).replace("T", " ")} UTC, for ${Words.time(millis)}</p>
${about.stopped === undefined ? "" : html`<p class="stopped">${about.stopped}</p>`}
</header>
<main>
${totals(facts, about)}
${throughput(facts, millis)}
${timelines(facts, millis)}
${targets(facts, about)}
${latency(facts)}
${reasons(facts)}
${prompts("Failed prompts", facts.failedPrompts, facts.failed, limits.failed)}
${failures(facts)}
${prompts("Prompts with the most attempts", facts.hardest, facts.hardest.length, limits.hardest)}
</main>
<footer>Written by <code>sluice run --report</code>. Contains no prompts and no answers, but messages of providers, which may
quote a prompt.</footer>
</body>
</html>`.markup
  }\n`
}

const section = (title: string, ...content: ReadonlyArray<Part>): Html =>
  html`<section>
<h2>${title}</h2>
${content}</section>`

// ---------- totals

const totals = (facts: Facts, { cost, limits = [] }: About): Html => {
  const { answered, answeredElsewhere, cached, failed, incomplete, joined, next, paid, requests, retries } = facts
  const shown: ReadonlyArray<readonly [label: string, value: string, note: string]> = [
    ["answered", Words.count(answered), incompleteText(incomplete)],
    ["failed", Words.count(failed), facts.reasons.sorted[0]?.words ?? ""],
    ["requests", Words.count(requests), `${Words.plural(joined + cached, "prompt")} shared an answer`],
    ["retries", Words.count(retries), `${Words.count(next.get("Fallback") ?? 0)} moved to another target`],
    ["from another target", Words.count(answeredElsewhere), "answers not from the first target"],
    [
      "tokens paid",
      tokens(paid),
      `${mark(paid)}${Words.count(paid.inputTokens)} in, ${Words.count(paid.outputTokens)} out`
    ],
    ...(cost === undefined || !cost.hasPriced ? [] : [["cost", Prices.shown(cost.spentNow), costNote(cost)] as const])
  ]
  return html`<dl class="numbers">
${
    shown.map(([label, value, note]) =>
      html`<div><dt>${label}</dt><dd><b>${value}</b>${note === "" ? "" : html`<span>${note}</span>`}</dd></div>
`
    )
  }</dl>${paid.estimated ? html`<p class="note">~ partly estimated: a provider reported no usage.</p>` : ""}${
    limits.length === 0 ? "" : html`<p class="note">Learned limits: ${limits.join(", ")}.</p>`
  }`
}

const costNote = ({ before, limit, spent }: NonNullable<About["cost"]>): string =>
  [
    ...(before === 0 ? [] : [`${Prices.shown(spent)} with earlier runs`]),
    ...(limit === Number.POSITIVE_INFINITY ? [] : [`of at most ${Prices.shown(limit)}`])
  ].join(", ")

const incompleteText = (incomplete: ReadonlyMap<string, number>): string =>
  [...incomplete].map(([finish, times]) => `${Words.count(times)} incomplete: ${finish}`).join(", ")

const mark = ({ estimated }: Sum): string => estimated ? "~" : ""

const tokens = (sum: Sum): string => `${mark(sum)}${Words.count(sum.inputTokens + sum.outputTokens)}`

// ---------- over time

/** A rate over less time would jump. */
const leastMillis = 1_000
const maxBars = 60

/** Answers in equal times, as rates. */
const throughput = ({ answered, answers }: Facts, millis: number): Html | undefined => {
  if (answered === 0) return undefined
  const width = answers.width * Math.ceil(Math.max(leastMillis, millis / maxBars) / answers.width)
  const bars = new Map<number, number>()
  for (const { at, counts } of answers.entries()) {
    const start = at - at % width
    bars.set(start, (bars.get(start) ?? 0) + sumOf(counts))
  }
  const highest = Math.max(...bars.values())
  const unit = answered * 1_000 >= millis ? { millis: 1_000, words: "a second" } : { millis: 60_000, words: "a minute" }
  const rate = (times: number, over: number): string => `${perUnit(times * unit.millis / over)} ${unit.words}`
  return section(
    "Answers over time",
    html`<figure>
<figcaption>${rate(answered, millis)} <small>on average, at most ${rate(highest, width)}</small></figcaption>
<svg class="chart" viewBox="0 0 ${wide} ${height}" preserveAspectRatio="none" role="img" aria-label="Answers over time">
${
      [...bars].map(([at, times]) => {
        const tall = times / highest * height
        const x = at / millis * wide
        return html`<g><title>${Words.time(at)}: ${rate(times, width)}</title><rect class="answered" x="${
          round(x)
        }" y="${round(height - tall)}" width="${round(barWidth(x, width, millis))}" height="${round(tall)}" /></g>
`
      })
    }</svg>
</figure>
`,
    axis(millis),
    html`<p class="note">Each bar is the rate over ${Words.time(width)}, with shared answers.</p>`
  )
}

const perUnit = (rate: number): string => rate < 10 ? rate.toFixed(1) : Words.count(Math.round(rate))

const axis = (millis: number): Html =>
  html`<p class="axis"><span>0</span><span>${Words.time(millis / 2)}</span><span>${Words.time(millis)}</span></p>
`

/** The columns of a bar. The last one may extend beyond the end. */
const barWidth = (x: number, width: number, millis: number): number =>
  Math.max(1.5, Math.min(width / millis * wide, wide - x) * 0.9)

const endings: ReadonlyArray<readonly [ending: Ending, words: string]> = [
  ["answered", "answered"],
  ["throttled", "rate-limited"],
  ["failed", "failed"],
  ["other", "interrupted"]
]

/** As on the live page, a closed circuit is a thin line, and an open one fills its strip. */
const openWords = "circuit open: not called"
const closedLine = html`<rect class="closed" y="75%" width="100%" height="15%" />`

const timelines = (facts: Facts, millis: number): Html => {
  const all = [...facts.targets.values()]
  const highest = Math.max(1, ...all.flatMap(({ timeline }) => timeline.entries().map(({ counts }) => sumOf(counts))))
  return section(
    "Attempts over time",
    html`<p class="legend">${
      endings.map(([ending, words]) =>
        html`<span><svg aria-hidden="true"><rect class="${ending}" width="100%" height="100%" /></svg>${words}</span> `
      )
    }<span><svg class="strip" aria-hidden="true">${closedLine}<rect class="open" x="50%" width="50%" height="100%" /></svg>${openWords}</span></p>
`,
    all.map((target) => timeline(target, millis, highest)),
    axis(millis),
    html`<p class="note">Each bar counts the attempts that ended in that time. All targets share a scale, up to ${
      Words.count(highest)
    }. Circuits were sampled ten times per second.</p>
`
  )
}

const height = 60
const wide = 1_000

const timeline = (target: TargetFacts, millis: number, highest: number): Html => {
  const { name, omittedChanges, timeline } = target
  const label = `Attempts at ${name} over time, and when its circuit was open`
  return html`<figure>
<figcaption>${name} <small>${Words.plural(target.attempts, "attempt")}${
    target.openings === 0 ? "" : `, circuit opened ${Words.plural(target.openings, "time")}`
  }</small></figcaption>
<svg class="chart" viewBox="0 0 ${wide} ${height}" preserveAspectRatio="none" role="img" aria-label="${label}">
${timeline.entries().map(({ at, counts }) => bar(at, timeline.width, counts, millis, highest))}</svg>
<svg class="strip" aria-hidden="true">
${closedLine}
${openTimes(target, millis)}</svg>
${
    omittedChanges === 0
      ? ""
      : html`<p class="note">${Words.plural(omittedChanges, "later change", "later changes")} of its circuit ${
        omittedChanges === 1 ? "is" : "are"
      } omitted.</p>`
  }
</figure>
`
}

const bar = (
  at: number,
  width: number,
  counts: ReadonlyMap<Ending, number>,
  millis: number,
  highest: number
): Html => {
  const x = at / millis * wide
  const columns = barWidth(x, width, millis)
  let y = height
  const words = endings.flatMap(([ending, words]) => counts.has(ending) ? [`${counts.get(ending)} ${words}`] : [])
  const rects = endings.map(([ending]) => {
    const times = counts.get(ending) ?? 0
    if (times === 0) return ""
    const tall = times / highest * height
    y -= tall
    return html`<rect class="${ending}" x="${round(x)}" y="${round(y)}" width="${round(columns)}" height="${
      round(tall)
    }" />`
  })
  return html`<g><title>${Words.time(at)}: ${words.join(", ")}</title>${rects}</g>
`
}

const openTimes = ({ circuit }: TargetFacts, millis: number): ReadonlyArray<Html> =>
  circuit.flatMap(({ at, isOpen }, index) => {
    if (!isOpen) return []
    const until = circuit[index + 1]?.at ?? millis
    const width = Math.min(100 - at / millis * 100, Math.max(0.3, (until - at) / millis * 100))
    return [
      html`<rect class="open" x="${round(at / millis * 100)}%" width="${
        round(width)
      }%" height="100%"><title>open from ${Words.time(at)} to ${Words.time(until)}</title></rect>
`
    ]
  })

const round = (value: number): string => String(Math.round(value * 100) / 100)

const sumOf = (counts: ReadonlyMap<unknown, number>): number =>
  [...counts.values()].reduce((sum, count) => sum + count, 0)

// ---------- targets

const targets = ({ targets }: Facts, { unusable }: About): Html =>
  section(
    "Targets",
    table(
      "Targets",
      [
        "target",
        "model",
        "attempts",
        "answered",
        "rate-limited",
        "failed",
        "median first token",
        "median answer",
        "95 % of answers",
        "circuit opened",
        "tokens"
      ],
      [...targets.values()].map((target) => [
        target.name,
        `${target.model} at ${target.host}`,
        Words.count(target.attempts),
        Words.count(target.endings.get("answered") ?? 0),
        Words.count(target.endings.get("throttled") ?? 0),
        Words.count(target.endings.get("failed") ?? 0),
        time(target.firstToken.quantile(0.5)),
        time(target.latency.quantile(0.5)),
        time(target.latency.quantile(0.95)),
        Words.count(target.openings),
        tokens(target.paid)
      ]),
      { words: 2, long: 1 }
    ),
    [...unusable].map(([name, why]) => html`<p class="stopped">${name} was unusable: ${why}</p>`)
  )

const time = (millis: number | undefined): string => millis === undefined ? "-" : Words.time(millis)

// ---------- latency

const latency = ({ latencies, latency }: Facts): Html => {
  const last = latencies.findLastIndex((times) => times > 0)
  const first = latencies.findIndex((times) => times > 0)
  const highest = Math.max(1, ...latencies)
  const shares = [["half within", 0.5], ["95 % within", 0.95], ["99 % within", 0.99]] as const
  return section(
    "Time per answer",
    last === -1
      ? html`<p class="note">No prompt was answered.</p>`
      : html`<p>${
        shares.map(([name, share]) =>
          html`<span class="quantile">${name} <strong>${time(latency.quantile(share))}</strong></span> `
        )
      }</p>
<table class="bars"><tbody>
${
        latencies.slice(first, last + 1).map((times, index) =>
          html`<tr><th scope="row">${
            edge(first + index)
          }</th><td><svg class="chart" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect class="answered" x="0" y="0" width="${
            round(times / highest * 100)
          }" height="10" /></svg></td><td class="num">${Words.count(times)}</td></tr>
`
        )
      }</tbody></table>
<p class="note">From a prompt's turn to its answer, with all delays and attempts. Prompts without their own call are left out.</p>`
  )
}

const edge = (index: number): string => {
  const upper = latencyEdges[index] ?? Number.POSITIVE_INFINITY
  return Number.isFinite(upper) ? `to ${short(upper)}` : `over ${short(latencyEdges[index - 1] ?? 0)}`
}

const short = (millis: number): string =>
  millis < 1_000 ? `${millis} ms` : millis < 60_000 ? `${millis / 1_000} s` : `${millis / 60_000} min`

// ---------- tables

const followed: ReadonlyArray<readonly [next: Exclude<Attempt["next"], "Done">, words: string]> = [
  ["Retry", "retried"],
  ["Fallback", "other target"],
  ["Reask", "asked again"],
  ["Restart", "started over"],
  ["Continue", "continued"],
  ["Stop", "gave up"]
]

const reasons = ({ reasons }: Facts): Html | undefined => {
  const { sorted } = reasons
  if (sorted.length === 0) return undefined
  return section(
    "Why prompts failed",
    table(
      "Why prompts failed",
      ["reason", "for example", "prompts"],
      sorted.map(({ line, message, times, words }) => [words, `line ${line}: ${message}`, Words.count(times)]),
      { words: 2, long: 1 }
    )
  )
}

const failures = ({ failures }: Facts): Html => {
  const sorted = [...failures.values()].sort((a, b) => b.times - a.times)
  return section(
    "Failed attempts, and what followed",
    sorted.length === 0
      ? html`<p class="note">None.</p>`
      : table(
        "Failed attempts",
        ["target", "reason", "times", ...followed.map(([, words]) => words)],
        sorted.map(({ next, reason, target, times }) =>
          [target, reason, Words.count(times)].concat(followed.map(([key]) => Words.count(next.get(key) ?? 0)))
        ),
        { words: 2, long: 1 }
      )
  )
}

const prompts = (title: string, list: ReadonlyArray<Listed>, all: number, limit: number): Html | undefined => {
  if (list.length === 0) return undefined
  return section(
    title,
    table(
      title,
      ["line", "id", "target", "outcome", "attempts", "time"],
      list.map(({ attempts, error, id, line, message, milliseconds, status, target }) => [
        String(line),
        clip(id ?? ""),
        target ?? "",
        status === "ok" ? "answered" : `${Failure.wordsOf(error ?? "failed")}: ${message}`,
        Words.count(attempts),
        Words.time(milliseconds)
      ]),
      { words: 4, long: 3 }
    ),
    all > limit
      ? html`<p class="note">The first ${limit} of ${Words.count(all)}. The results have all of them.</p>`
      : ""
  )
}

/** Clips an id, which can be as long as a line. */
const clip = (text: string): string => text.length <= 80 ? text : `${text.slice(0, 79)}…`

/** A table. The first `words` columns are text, and the others are numbers. The column at `long` has the longest texts. */
const table = (
  title: string,
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>,
  { long, words }: { readonly words: number; readonly long: number }
): Html => {
  const kind = (index: number): Html => {
    if (index >= words) return html` class="num"`
    return index === long ? html` class="long"` : html``
  }
  // It scrolls by itself on a narrow screen, by keyboard as well.
  return html`<div class="scroll" role="region" aria-label="${title}" tabindex="0"><table>
<thead><tr>${head.map((cell, index) => html`<th scope="col"${kind(index)}>${cell}</th>`)}</tr></thead>
<tbody>
${
    rows.map((row) =>
      html`<tr>${row.map((cell, index) => html`<td${kind(index)}>${cell}</td>`)}</tr>
`
    )
  }</tbody>
</table></div>
`
}
