/** Renders a report as one self-contained page, without scripts, fonts or images. */
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
<style>${new Html(style)}</style>
</head>
<body>
<header>
<h1>${title}</h1>
<p>${new Date(facts.startedAt).toISOString().slice(0, 19).replace("T", " ")} UTC, for ${Words.time(millis)}</p>
${about.stopped === undefined ? "" : html`<p class="stopped">${about.stopped}</p>`}
</header>
<main>
${totals(facts)}
${timelines(facts, millis)}
${targets(facts, about)}
${latency(facts)}
${failures(facts)}
${prompts("Failed prompts", facts.failedPrompts, facts.failed, limits.failed)}
${prompts("Prompts with the most attempts", facts.hardest, facts.hardest.length, limits.hardest)}
</main>
<footer>Written by <code>sluice run --report</code>. Contains no prompts and no answers.</footer>
</body>
</html>`.markup
  }\n`
}

const section = (title: string, ...content: ReadonlyArray<Part>): Html =>
  html`<section>
<h2>${title}</h2>
${content}</section>`

// ---------- totals

const totals = (facts: Facts): Html => {
  const { answered, answeredElsewhere, cached, failed, incomplete, joined, next, paid, requests } = facts
  const shown: ReadonlyArray<readonly [label: string, value: string, note: string]> = [
    ["answered", Words.count(answered), incompleteText(incomplete)],
    ["failed", Words.count(failed), ""],
    ["requests", Words.count(requests), `${Words.count(joined + cached)} prompts shared an answer`],
    [
      "fallbacks",
      Words.count(next.get("Fallback") ?? 0),
      `${Words.count(answeredElsewhere)} answers from another target`
    ],
    [
      "tokens paid",
      tokens(paid),
      `${mark(paid)}${Words.count(paid.inputTokens)} in, ${Words.count(paid.outputTokens)} out`
    ]
  ]
  return html`<dl class="totals">
${
    shown.map(([label, value, note]) =>
      html`<div><dt>${label}</dt><dd><strong>${value}</strong>${
        note === "" ? "" : html`<span>${note}</span>`
      }</dd></div>
`
    )
  }</dl>${paid.estimated ? html`<p class="note">~ partly estimated: a provider reported no usage.</p>` : ""}`
}

const incompleteText = (incomplete: ReadonlyMap<string, number>): string =>
  [...incomplete].map(([finish, times]) => `${Words.count(times)} incomplete: ${finish}`).join(", ")

const mark = ({ estimated }: Sum): string => estimated ? "~" : ""

const tokens = (sum: Sum): string => `${mark(sum)}${Words.count(sum.inputTokens + sum.outputTokens)}`

// ---------- over time

const endings: ReadonlyArray<readonly [ending: Ending, words: string]> = [
  ["answered", "answered"],
  ["throttled", "rate-limited"],
  ["failed", "failed"],
  ["other", "interrupted"]
]

const timelines = (facts: Facts, millis: number): Html => {
  const all = [...facts.targets.values()]
  const highest = Math.max(1, ...all.flatMap(({ timeline }) => timeline.entries().map(({ counts }) => sumOf(counts))))
  return section(
    "Attempts over time",
    html`<p class="legend">${
      endings.map(([ending, words]) => html`<span class="${ending}"><i></i>${words}</span> `)
    }<span class="open"><i></i>circuit open</span></p>
`,
    all.map((target) => timeline(target, millis, highest)),
    html`<p class="axis"><span>0</span><span>${Words.time(millis / 2)}</span><span>${Words.time(millis)}</span></p>
`,
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
<figcaption>${name} <small>${Words.count(target.attempts)} attempts</small></figcaption>
<svg viewBox="0 0 ${wide} ${height}" preserveAspectRatio="none" role="img" aria-label="${label}">
${timeline.entries().map(({ at, counts }) => bar(at, timeline.width, counts, millis, highest))}</svg>
<svg class="circuit" viewBox="0 0 ${wide} 6" preserveAspectRatio="none" aria-hidden="true">
<rect class="closed" x="0" y="0" width="${wide}" height="6" />
${openTimes(target, millis)}</svg>
${
    omittedChanges === 0
      ? ""
      : html`<p class="note">${Words.count(omittedChanges)} later changes of its circuit are omitted.</p>`
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
  // The last bin may extend beyond the end.
  const columns = Math.max(1.5, Math.min(width / millis * wide, wide - x) * 0.9)
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
    const x = at / millis * wide
    return [
      html`<rect class="open" x="${round(x)}" y="0" width="${
        round(Math.max(1.5, (until - at) / millis * wide))
      }" height="6"><title>open from ${Words.time(at)} to ${Words.time(until)}</title></rect>
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
      [
        "target",
        "model",
        "attempts",
        "answered",
        "rate-limited",
        "failed",
        "first token p50",
        "answer p50",
        "p95",
        "opened",
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
      2
    ),
    [...unusable].map(([name, why]) => html`<p class="stopped">${name} was unusable: ${why}</p>`)
  )

const time = (millis: number | undefined): string => millis === undefined ? "-" : Words.time(millis)

// ---------- latency

const latency = ({ latencies, latency }: Facts): Html => {
  const last = latencies.findLastIndex((times) => times > 0)
  const first = latencies.findIndex((times) => times > 0)
  const highest = Math.max(1, ...latencies)
  const shares = [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]] as const
  return section(
    "Latency",
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
          }</th><td><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect class="answered" x="0" y="0" width="${
            round(times / highest * 100)
          }" height="10" /></svg></td><td class="number">${Words.count(times)}</td></tr>
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

const followed: ReadonlyArray<readonly [next: "Retry" | "Fallback" | "Reask" | "Restart" | "Stop", words: string]> = [
  ["Retry", "retried"],
  ["Fallback", "fell back"],
  ["Reask", "repeated"],
  ["Restart", "restarted"],
  ["Stop", "call ended"]
]

const failures = ({ failures }: Facts): Html => {
  const sorted = [...failures.values()].sort((a, b) => b.times - a.times)
  return section(
    "Failed attempts",
    sorted.length === 0
      ? html`<p class="note">None.</p>`
      : table(
        ["target", "reason", "times", ...followed.map(([, words]) => words)],
        sorted.map(({ next, reason, target, times }) =>
          [target, reason, Words.count(times)].concat(followed.map(([key]) => Words.count(next.get(key) ?? 0)))
        ),
        2
      )
  )
}

const prompts = (title: string, list: ReadonlyArray<Listed>, all: number, limit: number): Html | undefined => {
  if (list.length === 0) return undefined
  return section(
    title,
    table(
      ["line", "id", "target", "outcome", "attempts", "time"],
      list.map(({ attempts, error, id, line, milliseconds, status, target }) => [
        String(line),
        clip(id ?? ""),
        target ?? "",
        status === "ok" ? "answered" : error ?? "failed",
        Words.count(attempts),
        Words.time(milliseconds)
      ]),
      4
    ),
    all > limit
      ? html`<p class="note">The first ${limit} of ${Words.count(all)}. The results have all of them.</p>`
      : ""
  )
}

/** Clips an id, which can be as long as a line. */
const clip = (text: string): string => text.length <= 80 ? text : `${text.slice(0, 79)}…`

/** A table. The first `words` columns are text, the others are numbers. */
const table = (
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>,
  words: number
): Html =>
  html`<div class="scroll"><table>
<thead><tr>${head.map((cell, index) => html`<th scope="col"${numeric(index, words)}>${cell}</th>`)}</tr></thead>
<tbody>
${
    rows.map((row) =>
      html`<tr>${row.map((cell, index) => html`<td${numeric(index, words)}>${cell}</td>`)}</tr>
`
    )
  }</tbody>
</table></div>
`

const numeric = (index: number, words: number): Html => index < words ? html`` : html` class="number"`
