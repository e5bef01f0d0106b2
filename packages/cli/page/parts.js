/** What the live page draws: icons, bars, the strip of a circuit, the timeline of a call, plots. */
import { html, nothing, svg } from "./lib/lit-html.js"
import uPlot from "./lib/uPlot.esm.js"
import * as Words from "./words.js"

export const icon = (name, tone = "") =>
  html`<svg class="icon ${tone}" aria-hidden="true"><use href="#i-${name}"/></svg>`

const share = (part) => `${Math.max(0, Math.min(100, part * 100)).toFixed(2)}%`

const nearFrom = 0.85

/** Used of a limit. Near to it a notch and a colour mark it. It is red only where the next call is refused. */
export const meter = (used, limit, refuses = true) => {
  const part = limit > 0 ? used / limit : 0
  const tone = part >= 1 && refuses ? "full" : part >= nearFrom ? "near" : ""
  return html`<svg class="meter ${tone}" aria-hidden="true">
    <rect class="track" width="100%" height="100%"/><rect class="fill" width=${share(part)} height="100%"/>
    ${part >= nearFrom ? svg`<rect class="notch" x="85%" width="1.5" height="100%"/>` : nothing}</svg>`
}

/** Done of a total, the failed part of it last. */
export const progress = (done, failed, total) => {
  const part = (count) => total > 0 ? count / total : 0
  return html`<svg class="meter progress" aria-hidden="true">
    <rect class="track" width="100%" height="100%"/><rect class="fill" width=${share(part(done))} height="100%"/>
    <rect class="bad" x=${share(part(done - failed))} width=${share(part(failed))} height="100%"/></svg>`
}

export const stripMillis = 900_000

const shapes = {
  closed: (x, width) => svg`<rect class="closed" x=${x} width=${width} y="75%" height="15%"/>`,
  open: (x, width) => svg`<rect class="open" x=${x} width=${width} height="100%"/>`,
  probe: (x, width) => svg`<rect x=${x} width=${width} y="25%" height="75%" fill="url(#p-probe)"/>`,
  ramp: (x, width) =>
    svg`<svg x=${x} width=${width} height="100%" viewBox="0 0 10 10" preserveAspectRatio="none"><path class="ramp" d="M0 9L10 2V9Z"/></svg>`,
  forced: (x, width) => svg`<rect x=${x} width=${width} height="100%" fill="url(#p-forced)"/>`
}

/** A quarter of an hour of a circuit. Closed is a thin line, so that a calm night is an empty strip. */
export const strip = ({ strip }, now) => {
  const from = now - stripMillis
  const spans = strip
    .map(([since, state], index) => ({ state, since: Math.max(from, since), until: strip[index + 1]?.[0] ?? now }))
    .filter(({ since, until }) => until > since)
  const told = spans
    .filter(({ state }) => state !== "closed")
    .map(({ since, state, until }) =>
      `${Words.states[state][1]} from ${Words.clock(since)} for ${Words.age(until - since)}`
    )
  const label = told.length === 0
    ? "Circuit closed for 15 minutes"
    : `Circuit in the last 15 minutes: ${told.length > 4 ? `${told.length} changes, last ` : ""}${
      told.slice(-4).join("; ")
    }`
  return html`<svg class="strip" role="img" aria-label=${label}><title>${label}</title>
    ${[1, 2].map((third) => svg`<rect class="tick" x=${share(third / 3)} width="1" height="100%"/>`)}
    ${
    spans.map(({ since, state, until }) =>
      shapes[Words.states[state][0]](
        share((since - from) / stripMillis),
        share(Math.max((until - since) / stripMillis, 0.006))
      )
    )
  }</svg>`
}

/** Counts over time as a row of bars. `top` is the scale of all rows. */
export const bars = (counts, top, label) => {
  const path = counts.map((count, index) =>
    count === 0 ? "" : `M${index + 0.1} 20V${(20 - Math.max(2, 19 * count / top)).toFixed(1)}h.8V20Z`
  )
  return html`<svg class="bars" viewBox="0 0 ${counts.length} 20" preserveAspectRatio="none" role="img" aria-label=${label}><path d=${
    path.join("")
  }/></svg>`
}

const units = [10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000]

/** A lane for each target, and below it the same in words. */
export const timeline = (log) => {
  const { result, startedAt, steps } = log
  const total = Math.max(1, log.endedAt - startedAt)
  const lanes = [...new Set(steps.map(({ target }) => target))]
  const x = (at) => share((at - startedAt) / total)
  const unit = units.find((unit) => total / unit <= 5) ?? 300_000
  const ticks = Array.from({ length: Math.floor(total / unit) + 1 }, (_, index) => index * unit)
  const span = (tone, from, until) =>
    html`<i class="span ${tone}" .style=${`left:${x(from)};width:${share((until - from) / total)}`}></i>`
  const drawn = (step) => {
    if (step._tag === "Skipped") return html`<i class="mark skip" .style=${`left:${x(step.at)}`}>${icon("refused")}</i>`
    const { endedAt, fault, firstTokenAt, startedAt: at, waitedMillis } = step
    const bad = fault === undefined ? "" : "bad"
    return html`${waitedMillis < 10 ? nothing : span("wait", at - waitedMillis, at)}
      ${span(`first ${firstTokenAt === undefined ? bad : ""}`, at, firstTokenAt ?? endedAt)}
      ${firstTokenAt === undefined ? nothing : span(`rest ${bad}`, firstTokenAt, endedAt)}
      ${fault === undefined ? nothing : html`<i class="mark bad" .style=${`left:${x(endedAt)}`}>${icon("failed")}</i>`}`
  }
  const lane = (name) =>
    html`<div class="lane"><b>${name}</b><div>
      ${ticks.map((tick) => html`<i class="grid" .style=${`left:${share(tick / total)}`}></i>`)}
      ${steps.filter(({ target }) => target === name).map(drawn)}<i class="finish"></i>
      ${
      result === "Success" && name === log.answeredBy
        ? html`<i class="mark good last" .style=${"left:100%"}>${icon("ok")}</i>`
        : nothing
    }</div></div>`
  return html`${
    lanes.length === 0 ? nothing : html`<div class="time" aria-hidden="true">
      <div class="lane axis"><b></b><div>${
      ticks.map((tick) => html`<i .style=${`left:${share(tick / total)}`}>${tick === 0 ? "0" : Words.time(tick)}</i>`)
    }</div></div>
      ${lanes.map(lane)}
      <p class="legend"><span><i class="span wait"></i>waits</span><span><i class="span first"></i>to the first token</span>
        <span><i class="span rest"></i>streams</span><span>${icon("failed", "t-bad")}fails</span><span>${
      icon("refused")
    }passed over</span></p></div>`
  }<ol class="steps">${
    Words.steps(log).map(({ at, kind, target, text }) =>
      html`<li class=${kind}><span class="at">+${Words.time(at)}</span> <b>${
        target || "end"
      }</b> <span>${text}</span></li>`
    )
  }</ol>`
}

// ---------- plots

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

const rate = (value) => value === null || value === undefined ? "–" : value >= 10 ? value.toFixed(0) : value.toFixed(1)

/** `least` is the top of the scale without values. Each line has the field of a column, its label, its colour and its width. */
const plots = {
  first: {
    title: "Time to the first token",
    least: 1_000,
    say: Words.time,
    lines: [["first50", "p50", "--ink-1", 2], ["first95", "p95", "--ink-2", 1]]
  },
  calls: {
    title: "Calls per second",
    least: 1,
    say: rate,
    lines: [["calls", "all", "--ink-1", 2], ["lost", "not answered", "--failed", 2]]
  },
  tokens: {
    title: "Tokens out per second",
    least: 1,
    say: Words.short,
    lines: [["tokens", "all targets", "--ink-1", 2]]
  }
}

const height = 132

/** Values between two that are not known. A line would not show them. */
const alone = (values) => {
  const isKnown = (index) => typeof values[index] === "number"
  return [...values.keys()].filter((index) => isKnown(index) && !isKnown(index - 1) && !isKnown(index + 1))
}

class Plot {
  constructor(name) {
    this.definition = plots[name]
    this.box = document.getElementById(`plot-${name}`)
    this.caption = document.createElement("figcaption")
    const canvas = document.createElement("div")
    canvas.setAttribute("aria-hidden", "true")
    this.box.replaceChildren(this.caption, canvas)
    this.shades = []
    this.plot = new uPlot(this.options(), [[], ...this.definition.lines.map(() => [])], canvas)
    new ResizeObserver(() => this.plot.setSize({ width: this.box.clientWidth, height })).observe(this.box)
  }

  options() {
    const { lines, say } = this.definition
    const axis = {
      stroke: () => colour("--soft"),
      font: "12px system-ui, sans-serif",
      grid: { stroke: () => colour("--line"), width: 1 },
      ticks: { show: false }
    }
    return {
      width: Math.max(200, this.box.clientWidth),
      height,
      legend: { show: false },
      padding: [8, 18, 0, 0],
      cursor: { sync: { key: "sluice" }, y: false, points: { size: 6 }, drag: { x: false, y: false } },
      scales: {
        x: { range: (_, __, last) => [(last ?? 0) - stripMillis / 1_000, last ?? 0] },
        y: { range: (_, __, most) => [0, most > 0 ? most * 1.1 : this.definition.least] }
      },
      axes: [
        { ...axis, size: 24, space: 70, values: (_, ats) => ats.map((at) => Words.clock(at * 1_000, 5)) },
        { ...axis, size: 50, space: 34, values: (_, values) => values.map((value) => value === 0 ? "0" : say(value)) }
      ],
      series: [
        {},
        ...lines.map(([field, label, name, width]) => ({
          label,
          width,
          stroke: () => colour(name),
          fill: field === "lost" ? () => colour("--failed-soft") : undefined,
          points: { show: false, size: 4, filter: (plot, line) => alone(plot.data[line]) },
          spanGaps: false
        }))
      ],
      hooks: { setCursor: [() => this.tell()], drawClear: [(plot) => this.shade(plot)] }
    }
  }

  /** Says the values under the cursor, or the last ones. */
  tell() {
    const { caption, definition: { lines, say, title }, plot } = this
    if (plot === undefined) return
    const last = plot.data[0].length - 1
    const index = plot.cursor.idx ?? last
    const part = (tag, className, text) => Object.assign(document.createElement(tag), { className, textContent: text })
    caption.replaceChildren(
      part("b", "", title),
      ...lines.map(([field, label], line) =>
        part("span", `line l${line} ${field}`, `${label} ${say(plot.data[line + 1][index])}`)
      ),
      part("time", "", index === last ? "" : `at ${Words.clock(plot.data[0][index] * 1_000)}`)
    )
  }

  /** Shades the time in which a target took no calls. */
  shade(plot) {
    const { ctx, bbox: { height, left, top, width } } = plot
    ctx.fillStyle = colour("--failed-soft")
    for (const [since, until] of this.shades) {
      const from = Math.max(left, plot.valToPos(since / 1_000, "x", true))
      const to = Math.min(left + width, plot.valToPos(until / 1_000, "x", true))
      if (to > from) ctx.fillRect(from, top, Math.max(2, to - from), height)
    }
  }

  draw(columns, shades) {
    this.shades = shades
    this.plot.setData([
      columns.map(({ at }) => at / 1_000),
      ...this.definition.lines.map(([field]) => columns.map((column) => column[field]))
    ])
    this.tell()
  }
}

const drawn = new Map()

export const draw = (columns, shades) => {
  for (const name of Object.keys(plots)) {
    if (!drawn.has(name)) drawn.set(name, new Plot(name))
    drawn.get(name).draw(columns, shades)
  }
}

export const recolour = () => {
  for (const { plot } of drawn.values()) plot.redraw(false)
}
