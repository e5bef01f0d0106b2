/** The live page: events in, sections out. A section is drawn when it changed, and no more often than it can be read. */
import { repeat } from "./lib/directives/repeat.js"
import { html, nothing, render } from "./lib/lit-html.js"
import * as Parts from "./parts.js"
import * as Words from "./words.js"

const { icon, meter } = Parts

const byId = (id) => document.getElementById(id)

const keptCalls = 200
const keptChanges = 20
const keptColumns = 180
/** How long a stream of events is silent at most. */
const silenceMillis = { full: 4_000, low: 8_000 }
const hiddenAfterMillis = 5_000
const sleepAfterMillis = 600_000
/** Up to so many targets keep their order and their height. */
const fewTargets = 12

/** What the gateway said last. */
const page = {
  link: "connecting",
  origin: location.origin,
  at: 0,
  startedAt: 0,
  head: { calls: 0, inFlight: 0, ended: 0, answered: 0, perSecond: 0, cost: 0, phases: {} },
  routes: {},
  targets: [],
  flights: [],
  calls: [],
  leftOut: 0,
  columns: [],
  keys: [],
  /** `undefined` if the gateway has none. */
  batches: undefined,
  audit: []
}
const view = { all: false, find: "", filter: "all", allCalls: false, drawn: [], held: undefined }
const narrow = matchMedia("(max-width: 640px)")

/** When the last event came, by the monotonic clock. */
let heardAt = 0

/** The time of the gateway. It stops when the gateway is not heard. */
const now = () => page.link === "live" ? page.at + Math.min(2_000, performance.now() - heardAt) : page.at

// ---------- the key

/** Taken out of the address, so that it is in no history. Kept for a gateway that starts again. */
let token = /^#(sluice_[\w-]+)$/.exec(location.hash)?.[1]
if (token !== undefined) history.replaceState(null, "", location.pathname)

/** Opens a session. Returns whether the gateway took the key. */
const unlock = async () => {
  if (token === undefined) return false
  const response = await fetch("session", { method: "POST", headers: { authorization: `Bearer ${token}` } })
  return response.ok
}

const form = byId("unlock")
form.addEventListener("submit", async (event) => {
  event.preventDefault()
  const input = form.querySelector("input")
  token = input.value.trim()
  const isTaken = await unlock().catch(() => undefined)
  form.querySelector("p").textContent = isTaken === true
    ? ""
    : isTaken === false
    ? "The gateway does not take this key. sluice keys add NAME --admin makes one."
    : "The gateway is not heard."
  if (isTaken !== true) return
  input.value = ""
  connect("full")
})

// ---------- events

let source
let silence
let retry
/** `low` while the page is hidden: what its title and icon need. */
let detail = "full"

/** A connection can die without a word. */
const expectWord = () => {
  clearTimeout(silence)
  silence = setTimeout(() => {
    setLink("lost")
    connect(detail)
  }, silenceMillis[detail])
}

const connect = (wanted) => {
  source?.close()
  clearTimeout(retry)
  detail = wanted
  expectWord()
  source = new EventSource(detail === "low" ? "events?detail=low" : "events")
  source.addEventListener("snapshot", ({ data }) => begin(JSON.parse(data)))
  source.addEventListener("delta", ({ data }) => take(JSON.parse(data)))
  source.addEventListener("low", ({ data }) => takeLow(JSON.parse(data)))
  source.addEventListener("bye", () => setLink("bye"))
  source.addEventListener("error", () => {
    if (page.link !== "bye") setLink("lost")
    // A refusal closes it for good.
    if (source.readyState === EventSource.CLOSED) retry = setTimeout(again, 1_000)
  })
}

/** Asks why the stream was refused. */
const again = async () => {
  try {
    const response = await fetch("calls/none")
    if (response.status === 401 && !(await unlock())) {
      clearTimeout(silence)
      return setLink("locked")
    }
  } catch {
    // Not heard.
  }
  connect(detail)
}

const setLink = (link) => {
  page.link = link
  document.body.classList.toggle("stale", link !== "live")
  form.hidden = link !== "locked"
  document.querySelector("main").hidden = page.at === 0
  mark("head")
}

const heard = (event) => {
  Object.assign(page, { at: event.at, head: event.head })
  heardAt = performance.now()
  expectWord()
  if (page.link !== "live") setLink("live")
}

const begin = ({ audit, batches, calls, columns, flights, keys, routes, seq, startedAt, targets, ...event }) => {
  Object.assign(page, { audit, batches, calls, columns, flights, keys, routes, seq, startedAt, targets, leftOut: 0 })
  heard(event)
  drawnAt.clear()
  mark(...Object.keys(sections))
}

const take = (event) => {
  // An event is missing. A snapshot has it.
  if (event.seq !== ++page.seq) return connect("full")
  heard(event)
  const { audit, batches, calls, columns, flights, keys, leftOut, targets } = event
  page.flights = flights
  mark("head", "flights")
  if (calls !== undefined) {
    page.calls = [...calls.toReversed(), ...page.calls].slice(0, keptCalls)
    page.leftOut += leftOut
    mark("calls")
  }
  if (columns !== undefined) {
    page.columns = [...page.columns, ...columns].slice(-keptColumns)
    mark("plots")
  }
  if (targets !== undefined) page.targets = targets
  if (targets !== undefined) mark("targets")
  if (keys !== undefined) page.keys = keys
  if (keys !== undefined) mark("keys")
  if (batches !== undefined) page.batches = batches
  if (batches !== undefined) mark("batches")
  if (audit !== undefined) {
    page.audit = [...audit.toReversed(), ...page.audit].slice(0, keptChanges)
    mark("audit")
  }
}

/** The rest of a row is as old as the last full event, and is not drawn. */
const takeLow = (event) => {
  const known = new Map(page.targets.map((target) => [target.name, target]))
  page.targets = event.targets.map((target) => ({ strip: [], error: null, ...known.get(target.name), ...target }))
  heard(event)
  mark("head")
}

let hide
let sleep
const onVisibility = () => {
  clearTimeout(hide)
  clearTimeout(sleep)
  if (!document.hidden) {
    if (page.link === "asleep" || detail === "low") connect("full")
    else mark(...Object.keys(sections))
    return
  }
  hide = setTimeout(() => connect("low"), hiddenAfterMillis)
  // Browsers have few connections to one host.
  sleep = setTimeout(() => {
    source?.close()
    clearTimeout(silence)
    clearTimeout(retry)
    setLink("asleep")
  }, sleepAfterMillis)
}
document.addEventListener("visibilitychange", onVisibility)

// ---------- when to draw

const everyMillis = {
  head: 250,
  targets: 250,
  flights: 500,
  calls: 1_000,
  plots: 1_000,
  keys: 1_000,
  batches: 250,
  audit: 250
}
const changed = new Set()
const drawnAt = new Map()
let timer

const mark = (...names) => {
  for (const name of names) changed.add(name)
  timer ??= setTimeout(draw, 0)
}

const draw = () => {
  timer = undefined
  const time = performance.now()
  let next = Infinity
  for (const name of changed) {
    // A hidden page has a title and an icon.
    if (document.hidden && name !== "head") continue
    const wait = (drawnAt.get(name) ?? -Infinity) + everyMillis[name] - time
    if (wait > 0) next = Math.min(next, wait)
    else {
      changed.delete(name)
      drawnAt.set(name, time)
      // Before the first snapshot an empty section would be a lie.
      if (name === "head" || page.at > 0) sections[name]()
    }
  }
  if (next < Infinity) timer ??= setTimeout(draw, next)
}

// Ages run on between events.
setInterval(() => page.link === "live" && mark("head", "targets", "flights", "batches"), 1_000)
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTimeout(Parts.recolour))

// ---------- the head

const icons = {
  calm: "closed",
  warn: "open",
  bad: "open",
  note: "forced",
  lost: "waiting",
  idle: "waiting",
  connecting: "waiting"
}

const favicons = {
  calm: "<circle cx='8' cy='8' r='5' fill='none' stroke='#479171' stroke-width='3'/>",
  note: "<circle cx='8' cy='8' r='5' fill='none' stroke='#8a5fc0' stroke-width='3'/>",
  warn: "<path d='M1 15L8 1l7 14z' fill='#d99a1c'/>",
  bad: "<path d='M1 1h14v14H1z' fill='#d03c3c'/>"
}
const noFavicon = "<path d='M2 7h12v2H2z' fill='#888'/>"

/** A live region reads out what is replaced, so equal text is left alone. */
const put = (element, text) => {
  if (element.textContent !== text) element.textContent = text
}

const drawHead = () => {
  const verdict = Words.verdict(page, now())
  const { level, more, says } = verdict
  const title = Words.title(verdict, page.targets)
  if (document.title !== title) document.title = title
  const favicon = `data:image/svg+xml,${
    encodeURIComponent(
      `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'>${favicons[level] ?? noFavicon}</svg>`
    )
  }`
  const link = document.querySelector("link[rel=icon]")
  if (link.getAttribute("href") !== favicon) link.setAttribute("href", favicon)
  byId("verdict").className = level
  byId("verdict").querySelector("use").setAttribute("href", `#i-${icons[level]}`)
  put(byId("says"), says)
  put(byId("more"), more)
  if (page.at === 0) return
  put(byId("meta"), `up ${Words.time(now() - page.startedAt)} · ${Words.clock(now())}`)
  const { answered, calls, cost, ended, inFlight, perSecond, phases } = page.head
  const isFailing = ended > 0 && answered / ended < 0.9
  const number = (label, value, note, tone = "") =>
    html`<div class=${tone}><dt>${label}</dt><dd><b>${value}</b><span>${note}</span></dd></div>`
  render(
    html`${
      number(
        "answered, last minute",
        ended === 0 ? "–" : Words.percent(answered / ended),
        ended === 0 ? "no call ended" : `${Words.count(answered)} of ${Words.count(ended)}`,
        isFailing ? "bad" : ""
      )
    }${number("calls per second", perSecond.toFixed(1), `${Words.count(calls)} since the start`)}${
      number(
        "in flight",
        Words.count(inFlight),
        `${phases.queued} queued, ${
          Math.max(0, phases.waiting - phases.queued)
        } before a token, ${phases.streaming} streaming`
      )
    }${number("cost", Words.money(cost), "since the start")}`,
    byId("head")
  )
}

// ---------- targets

/** Trouble first. */
const rankOf = ({ state }) => Words.isDown({ state }) ? 0 : state === "ramp" ? 1 : state === "closed" ? 3 : 2

const limitLine = ({ limit, of, used }, isTightest) => {
  const say = of.startsWith("USD") ? Words.money : Words.short
  return html`<span class="q ${isTightest ? "tight" : ""}"><small>${of}</small>${meter(used, limit)}<small class="n">${
    say(used)
  } / ${say(limit)}</small></span>`
}

const limits = (quota, flat = false) => {
  if (quota === null) return html`<small>no limit is set</small>`
  const [tightest] = quota.toSorted((a, b) => b.used / b.limit - a.used / a.limit)
  if (tightest === undefined) return html`<small>not used yet</small>`
  return (flat ? [tightest] : quota).map((use) => limitLine(use, use === tightest))
}

const cell = (className, label, content) =>
  html`<td role="cell" class=${className} data-l=${label || nothing}>${content}</td>`

const targetRow = (target, flat) => {
  const { capacity, error, first: [median, p95], host, model, name, queued, quota, running, tokensPerSecond, used } =
    target
  const [shape, word] = Words.stateOf(target)
  const line = Words.circuit(target, now())
  return html`<tr role="row" class="s-${shape} ${flat ? "flat" : ""}" data-name=${name}>
    <th role="rowheader" scope="row">${icon(shape, `t-${shape}`)}<span><b>${name}</b><small>${
    model ?? host
  }</small></span></th>
    ${
    cell(
      "c-strip",
      "",
      html`${Parts.strip(target, now())}<small class=${line === "" ? "sr" : `state t-${shape}`}>${line || word}</small>`
    )
  }${
    cell(
      "",
      "permits",
      capacity === null
        ? html`<span class="v">${running}</span><small>no limit</small>`
        : html`<span class="v">${used}<i>/${capacity}</i></span>${meter(used, capacity, false)}${
          queued === 0
            ? nothing
            : html`<small><b class="t-probe">${queued} ${queued === 1 ? "waits" : "wait"}</b></small>`
        }`
    )
  }${cell("c-quota", "limits", limits(quota, flat))}${
    cell(
      "num",
      "first token",
      html`<span class="v">${Words.time(median)}</span>${
        p95 === null ? nothing : html`<small>p95 ${Words.time(p95)}</small>`
      }`
    )
  }${cell("num", "tokens/s", html`<span class="v">${Words.count(tokensPerSecond)}</span>`)}${
    cell(
      "c-error",
      "last error",
      error === null ?
        html`<small>–</small>` :
        html`<span class="v ${Words.isDown(target) ? "t-open" : ""}">${Words.reason(error.why)}${
          error.times > 1 ? html` <i>×${error.times}</i>` : nothing
        }</span><small>${Words.clock(error.at)}, ${Words.age(now() - error.at)} ago</small>`
    )
  }${
    cell(
      "c-act",
      "",
      html`<button type="button" aria-label="Change ${name}" @click=${() => openChange(name)}>Change</button>`
    )
  }</tr>`
}

/** Written over in place: a list whose rows come and go would leave a comment behind for every row that `repeat` removes. */
const table = (caption, className, heads, rows) =>
  html`<table role="table" class=${className}><caption>${caption}</caption><thead role="rowgroup"><tr role="row">${
    heads.map(([head, className = ""]) => html`<th role="columnheader" scope="col" class=${className}>${head}</th>`)
  }</tr></thead><tbody role="rowgroup">${rows}</tbody></table>`

const targetHeads = [
  ["target"],
  [html`<span>15m ago</span><span>10m</span><span>5m</span><span>now</span>`, "h-strip"],
  ["permits"],
  ["limits"],
  ["first token", "num"],
  ["tokens/s", "num"],
  ["last error"],
  [html`<span class="sr">change</span>`]
]

const drawTargets = () => {
  if (changing.open) drawChange()
  const { targets } = page
  const isMany = targets.length > fewTargets
  const find = view.find.trim().toLowerCase()
  const found = targets.filter(({ model, name }) => `${name} ${model ?? ""}`.toLowerCase().includes(find))
  const sorted = isMany ? found.toSorted((a, b) => rankOf(a) - rankOf(b)) : found
  const trouble = sorted.filter((target) => rankOf(target) < 3).length
  const shown = view.all || !isMany ? sorted : sorted.slice(0, trouble + 20)
  render(
    html`${
      isMany
        ? html`<p class="tools"><label>Find <input type="search" @input=${(event) => {
          view.find = event.target.value
          drawTargets()
        }}></label> <span>${trouble === 0 ? "" : `${trouble} not closed, first; `}${targets.length} targets</span></p>`
        : nothing
    }${
      shown.length === 0 ? html`<p class="empty">No target is called that.</p>` : table(
        "Targets, with their circuits over the last 15 minutes",
        isMany ? "grid-t many" : "grid-t",
        targetHeads,
        repeat(shown, ({ name }) => name, (target) => targetRow(target, isMany && rankOf(target) === 3))
      )
    }${
      shown.length === sorted.length ? nothing : html`<button type="button" class="more" @click=${() => {
        view.all = true
        drawTargets()
      }}>Show all ${sorted.length}</button>`
    }`,
    byId("t-body")
  )
}

// ---------- calls

const drawFlights = () => {
  const shown = page.flights.slice(0, narrow.matches ? 6 : 12)
  const { inFlight } = page.head
  put(byId("f-note"), inFlight > shown.length ? `the ${shown.length} oldest of ${inFlight}` : "")
  const row = ({ at, key, operation, target }) => {
    const [shape, word] = target === null ? ["waiting", "first token awaited"] : ["streaming", "streaming"]
    return html`<tr role="row" class=${now() - at > 15_000 ? "old" : ""}>${
      cell("", "", html`${icon(shape, `t-${shape}`)}${word}`)
    }${cell("", "", target ?? "–")}${cell("", "", operation)}${cell("", "", key)}${
      cell("num", "", Words.age(now() - at))
    }</tr>`
  }
  const heads = [["phase"], ["target"], ["operation"], ["key"], ["age", "num"]]
  render(
    shown.length === 0
      ? html`<p class="empty">Nothing runs.</p>`
      : table("Calls in flight, the oldest first", "rows flights", heads, shown.map(row)),
    byId("f-body")
  )
}

const filters = {
  all: ["all", () => true],
  lost: ["not answered", ({ status }) => status !== "answered"],
  tries: ["more than one try", ({ tries }) => tries > 1],
  slow: ["over 10s", ({ millis }) => millis > 10_000]
}

const callRow = ({ at, id, key, millis, operation, status, targets, tries, why }) => {
  const [shape, word] = Words.statuses[status]
  const end = Words.clock(at + millis)
  const name = html`${icon(shape, `t-${status}`)}${word}`
  const open = ({ target }) => {
    // The link opens it by itself, and a selection of text is no click.
    if (id !== null && target.closest("a") === null && getSelection().isCollapsed) location.hash = `call=${id}`
  }
  return html`<tr role="row" class="e-${status}" @click=${open}>${
    cell(
      "",
      "",
      id === null ? name : html`<a href="#call=${id}" aria-label="${word} at ${end}: open its log">${name}</a>`
    )
  }${cell("at", "", end)}${cell("why", "", `${why === null ? "" : `${Words.reason(why)}; `}${operation}, ${key}`)}${
    cell("", "", targets.join(" → ") || "none")
  }${cell("num", "", tries)}${cell("num", "", Words.time(millis))}</tr>`
}

const callHeads = [["ended as"], ["at"], ["call"], ["targets"], ["tries", "num"], ["took", "num"]]

const firstRun = () =>
  html`No call has come yet. Point a client here, and its calls appear:<br><code>OPENAI_BASE_URL=${page.origin}/v1</code><br><code>ANTHROPIC_BASE_URL=${page.origin}</code>`

const drawCalls = () => {
  const choose = (name) => {
    Object.assign(view, { filter: name, held: undefined })
    drawCalls()
  }
  render(
    Object.entries(filters).map(([name, [label]]) =>
      html`<button type="button" aria-pressed=${view.filter === name} @click=${() => choose(name)}>${label}</button>`
    ),
    byId("c-filter")
  )
  const calls = view.held ?? page.calls
  view.drawn = calls
  const [label, fits] = filters[view.filter]
  const rows = calls.filter(fits)
  const few = narrow.matches ? 8 : 12
  const shown = view.allCalls ? rows : rows.slice(0, few)
  const newer = view.held === undefined ? 0 : page.calls.indexOf(view.held[0])
  const note = newer !== 0
    ? `The list does not move while you are in it: ${newer < 0 ? `more than ${keptCalls}` : newer} newer.`
    : page.leftOut > 0
    ? `Answered at the first try and not listed: ${Words.count(page.leftOut)}.`
    : ""
  const empty = calls.length === 0 ? firstRun() : `Among the last ${calls.length} calls there is none: ${label}.`
  render(
    html`${
      shown.length === 0
        ? html`<p class="empty">${empty}</p>`
        : table("Calls that ended, the newest first", "rows calls", callHeads, shown.map(callRow))
    }<p class="foot">${note} ${
      rows.length <= few ? nothing : html`<button type="button" class="link" @click=${() => {
        view.allCalls = !view.allCalls
        drawCalls()
      }}>${view.allCalls ? "Show fewer" : `Show all ${rows.length}`}</button>`
    }</p>`,
    byId("c-body")
  )
}

const dialog = byId("call")
const changing = byId("change")

/** What one is about to click does not move: the list stays as it was drawn, which may be older than the last event. */
const hold = () => {
  view.held ??= view.drawn
}
const release = () => {
  if (byId("c-body").matches(":hover, :focus-within") || dialog.open || changing.open) return
  view.held = undefined
  mark("calls")
}
for (const event of ["pointerenter", "focusin"]) byId("c-body").addEventListener(event, hold)
for (const event of ["pointerleave", "focusout"]) byId("c-body").addEventListener(event, () => setTimeout(release, 50))

// ---------- plots and reasons

const columnsOfBar = 3
const barsOfRow = keptColumns / columnsOfBar

const sum = (numbers) => numbers.reduce((sum, number) => sum + number, 0)

const drawPlots = () => {
  const { columns, head, targets } = page
  const shades = targets.flatMap(({ strip }) =>
    strip.flatMap(([since, state], index) =>
      state === "open" || state === "forced-open" ? [[since, strip[index + 1]?.[0] ?? page.at]] : []
    )
  )
  byId("times").hidden = columns.length < 2 || head.calls === 0
  if (!byId("times").hidden) Parts.draw(columns, shades)
  const names = [...new Set(columns.flatMap(({ why }) => Object.keys(why)))]
  const rows = names.map((name) => {
    const counts = columns.map(({ why }) => why[name] ?? 0)
    const padded = [...Array.from({ length: keptColumns - counts.length }, () => 0), ...counts]
    const grouped = Array.from(
      { length: barsOfRow },
      (_, index) => sum(padded.slice(index * columnsOfBar, (index + 1) * columnsOfBar))
    )
    const [kind] = name.split(" ", 1)
    return { kind, code: name.slice(kind.length + 1), grouped, all: sum(counts), minute: sum(counts.slice(-12)) }
  }).toSorted((a, b) => b.minute - a.minute || b.all - a.all)
  const top = Math.max(10, ...rows.flatMap(({ grouped }) => grouped))
  const row = ({ all, code, grouped, kind, minute }) =>
    html`<tr role="row">${
      cell("", "", html`${icon(kind, `t-${kind}`)}${kind === "refused" ? "call refused" : "try failed"}`)
    }${cell("", "", Words.reason(code))}${
      cell("c-bars", "", Parts.bars(grouped, top, `${all} in 15 minutes, ${minute} in the last minute`))
    }${cell("num", "", Words.count(minute))}${cell("num", "", Words.count(all))}</tr>`
  const heads = [["what"], ["reason"], ["last 15 minutes"], ["last minute", "num"], ["15 minutes", "num"]]
  render(
    rows.length === 0
      ? html`<p class="empty">Nothing was refused and no try failed in 15 minutes.</p>`
      : table("Refusals and failed tries by reason", "rows reasons", heads, rows.map(row)),
    byId("r-body")
  )
}

// ---------- keys

const drawKeys = () => {
  const row = ({ calls, cost, limits: quota, name, refused }) =>
    html`<tr role="row">${cell("", "", html`<b>${name}</b>`)}${cell("num", "", Words.count(calls))}${
      cell("num", "", Words.count(refused))
    }${cell("num", "", Words.money(cost))}${cell("c-quota", "", limits(quota))}</tr>`
  const heads = [["key"], ["calls", "num"], ["refused", "num"], ["cost", "num"], ["limits"]]
  render(table("Keys of clients", "rows keys", heads, page.keys.map(row)), byId("k-body"))
}

// ---------- batches

const batchHeads = [
  ["batch"],
  ["done"],
  ["cost", "num"],
  ["rate", "num"],
  ["left", "num"],
  [html`<span class="sr">cancel</span>`]
]

const batchRow = (batch) => {
  const { cost, done, failed, id, key, left, maxCost, rate, total } = batch
  const [shape, word] = Words.batchState(batch, now())
  const line = Words.waits(batch, now())
  return html`<tr role="row" data-id=${id}>${
    cell(
      "b-id",
      "",
      html`<b title=${id}>${id}</b><small>${icon(shape, `t-${shape}`)}${word}${key === null ? "" : `, ${key}`}</small>`
    )
  }${
    cell(
      "b-done",
      "",
      html`${Parts.progress(done, failed, total)}<small>${Words.progress(batch)}</small>${
        line === "" ? nothing : html`<small class="t-probe">${line}</small>`
      }`
    )
  }${
    cell(
      "num",
      "",
      html`<span class="v">${Words.money(cost)}</span>${
        maxCost === null ? nothing : html`<small>of ${Words.money(maxCost)}</small>`
      }`
    )
  }${cell("num", "", rate === null ? "–" : `${Words.short(rate)}/s`)}${
    cell(left === null ? "num" : "num b-left", "", Words.time(left))
  }${
    cell(
      "c-act",
      "",
      Words.canBeCancelled(batch)
        ? html`<button type="button" aria-label="Cancel ${id}" @click=${() => openCancel(id)}>Cancel</button>`
        : nothing
    )
  }</tr>`
}

const drawBatches = () => {
  const { batches } = page
  const isShown = batches !== undefined
  byId("batches").hidden = byId("n-batches").hidden = !isShown
  byId("pair-keys").classList.toggle("alone", !isShown)
  if (!isShown) return
  put(byId("b-note"), Words.batchesNote(batches))
  byId("b-note").classList.toggle("t-bad", !batches.isKnown)
  const empty = batches.at === null
    ? "Asking the database…"
    : html`No batch runs. <code>client.batches.create</code> or <code>sluice batch submit FILE</code> adds one.`
  render(
    batches.rows.length === 0
      ? html`<p class="empty">${empty}</p>`
      : table("Batches", "rows batches", batchHeads, batches.rows.map(batchRow)),
    byId("b-body")
  )
  if (cancelling.open) drawCancel()
}

/** The cancel that the dialog is about. */
const doomed = { id: "", error: "", isSent: false }

const postCancel = () =>
  fetch(`batches/${encodeURIComponent(doomed.id)}/cancel`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}"
  })

const sendCancel = async (event) => {
  event.preventDefault()
  if (doomed.isSent) return
  doomed.isSent = true
  try {
    let response = await postCancel()
    // The gateway has started again since.
    if (response.status === 401 && await unlock()) response = await postCancel()
    if (response.ok) return cancelling.close()
    doomed.error = (await response.json()).error.message
  } catch {
    doomed.error = "The gateway does not answer. Look at the batch before you try again."
  } finally {
    doomed.isSent = false
  }
  drawCancel()
}

const drawCancel = () => {
  const { error, id } = doomed
  const batch = page.batches?.rows.find((batch) => batch.id === id)
  render(
    html`<form novalidate @submit=${sendCancel}>
    <header><h2 id="cancel-title">Cancel this batch?</h2><button type="button" class="close" aria-label="Close" @click=${() =>
      cancelling.close()}>${icon("failed")}</button></header>
    <p class="ids"><code>${id}</code>${batch === undefined ? nothing : html` · ${Words.progress(batch)}`}</p>
    <p class="says">No further request is sent. Calls that run are finished, and all answers are kept. <code>sluice batch retry ID --unasked</code> sends the rest later.</p>
    <p class="error" role="alert">${error}</p>
    <footer><button type="button" @click=${() =>
      cancelling.close()}>Leave it</button><button class="do">Cancel the batch</button></footer></form>`,
    cancelling
  )
}

const openCancel = (id) => {
  Object.assign(doomed, { id, error: "" })
  drawCancel()
  cancelling.showModal()
}

const cancelling = byId("cancel")
cancelling.addEventListener("close", () => {
  // Its button may have gone.
  const button = document.querySelector(`tr[data-id="${CSS.escape(doomed.id)}"] button`)
  ;(button ?? byId("batches")).focus()
})
cancelling.addEventListener("click", ({ target }) => target === cancelling && cancelling.close())

// ---------- changes by hand

const drawAudit = () =>
  render(
    page.audit.length === 0
      ? html`<p class="empty">Nothing was done by hand.</p>`
      : html`<ul class="audit">${
        page.audit.map((change) =>
          html`<li><span class="at">${Words.moment(change.at, now(), 8)}</span> <b>${
            change.target ?? change.batch
          }</b> ${Words.change(change)}</li>`
        )
      }</ul>`,
    byId("a-body")
  )

/** The change that the dialog is about. */
const wish = { name: "", what: undefined, error: "", ends: [], isSent: false }

const refuse = (error, field) => {
  wish.error = error
  drawChange()
  changing.querySelector(field)?.focus()
}

const post = (reason, forMs) =>
  fetch(`targets/${encodeURIComponent(wish.name)}/${wish.what}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ reason, forMs })
  })

const sendChange = async (event) => {
  event.preventDefault()
  if (wish.isSent) return
  const reason = changing.querySelector("#reason").value.trim()
  if (wish.what === undefined) return refuse("Choose what to do.", "input")
  if ([...reason].length < 4) {
    return refuse("Enter a reason of 4 characters or more. This page shows it to others.", "#reason")
  }
  const [forMs] = wish.what === "reset" ? [null] : wish.ends[changing.querySelector("#end").value]
  wish.isSent = true
  try {
    let response = await post(reason, forMs)
    // The gateway has started again since.
    if (response.status === 401 && await unlock()) response = await post(reason, forMs)
    if (response.ok) return changing.close()
    refuse((await response.json()).error.message, response.status === 422 ? "#reason" : ".do")
  } catch {
    refuse("The gateway does not answer. Look at the target before you try again.", ".do")
  } finally {
    wish.isSent = false
  }
}

const drawChange = () => {
  const { ends, error, name, what } = wish
  const target = page.targets.find((target) => target.name === name)
  const others = page.targets.filter((other) => other.name !== name && Words.takesCalls(other)).length
  const choose = (choice) => {
    Object.assign(wish, { what: choice, error: "" })
    drawChange()
  }
  const state = target === undefined ? "It is no target any more" : Words.circuit(target, now()) || "closed"
  render(
    html`<form novalidate @submit=${sendChange}>
    <header><h2 id="change-title">Change ${name}</h2><button type="button" class="close" aria-label="Close" @click=${() =>
      changing.close()}>${icon("failed")}</button></header>
    <p class="ids">${state} · ${Words.runs(target?.running ?? 0)} there · ${
      others === 0
        ? "no other target takes calls"
        : `${others} other ${others === 1 ? "target takes" : "targets take"} calls`
    }</p>
    <fieldset><legend>What to do</legend>${
      Object.entries(Words.changes).map(([choice, [label, effect]]) =>
        html`<label class="pick"><input type="radio" name="what" .checked=${choice === what} @change=${() =>
          choose(choice)}><b>${label(name)}</b><span>${effect}</span></label>`
      )
    }</fieldset>
    <label class="field">Reason, for the next person on call<input id="reason" maxlength="200" autocomplete="off" required aria-describedby="change-error" aria-invalid=${
      error === "" ? "false" : "true"
    }></label>
    <label class="field" ?hidden=${what === "reset"}>For how long<select id="end">${
      ends.map(([, words], index) => html`<option value=${index}>${words}</option>`)
    }</select></label>
    <p id="change-error" class="error" role="alert">${error}</p>
    <footer><button type="button" @click=${() => changing.close()}>Leave it</button><button class="do">${
      what === undefined ? "Choose what to do" : Words.changes[what][0](name)
    }</button></footer></form>`,
    changing
  )
}

const openChange = (name) => {
  hold()
  Object.assign(wish, { name, what: undefined, error: "", ends: Words.ends(now()) })
  // With nothing chosen and nothing entered.
  render(nothing, changing)
  drawChange()
  changing.showModal()
}

changing.addEventListener("close", () => {
  // Its row may have gone.
  const button = document.querySelector(`tr[data-name="${CSS.escape(wish.name)}"] .c-act button`)
  ;(button ?? byId("targets")).focus()
  setTimeout(release, 50)
})
changing.addEventListener("click", ({ target }) => target === changing && changing.close())

// ---------- a call

const showCall = (title, ids, rest) =>
  render(
    html`<header><h2 id="call-title" tabindex="-1">${title}</h2><button type="button" class="close" aria-label="Close" @click=${() =>
      dialog.close()}>${icon("failed")}</button></header><p class="ids">${ids}</p>${rest}`,
    dialog
  )

/** Browsers have no clipboard for pages of another machine without HTTPS. */
const copying = (text) => async ({ target }) => {
  try {
    await navigator.clipboard.writeText(text())
    target.textContent = "Copied"
  } catch {
    target.textContent = "Not allowed here. Select the text"
  }
}

const openCall = async (id) => {
  hold()
  showCall("A call", id, html`<p class="empty">Its log is asked for…</p>`)
  if (!dialog.open) dialog.showModal()
  const response = await fetch(`calls/${encodeURIComponent(id)}`).catch(() => undefined)
  if (response?.ok !== true) {
    const why = response === undefined
      ? "The gateway is not heard."
      : "The gateway keeps the logs of the last 1,000 calls, and this is none of them."
    return showCall("This call cannot be shown", id, html`<p class="empty">${why}</p>`)
  }
  const log = await response.json()
  showCall(
    Words.headline(log),
    html`<code>${log.id}</code> · ${Words.clock(log.startedAt)}`,
    html`${Parts.timeline(log)}<footer><button type="button" @click=${
      copying(() => Words.asText(log))
    }>Copy as text</button><button type="button" @click=${copying(() => location.href)}>Copy link</button></footer>`
  )
}

const follow = () => {
  const id = /^#call=([\w-]+)$/.exec(location.hash)?.[1]
  if (id !== undefined) void openCall(id)
  else if (dialog.open) dialog.close()
}

dialog.addEventListener("close", () => {
  const { hash } = location
  if (hash.startsWith("#call=")) history.replaceState(null, "", location.pathname)
  // Its row may have gone.
  const row = document.querySelector(`a[href="${hash}"]`)
  ;(row ?? byId("calls")).focus()
  setTimeout(release, 50)
})
dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close())
addEventListener("hashchange", follow)

// ---------- the start

const sections = {
  head: drawHead,
  targets: drawTargets,
  flights: drawFlights,
  calls: drawCalls,
  plots: drawPlots,
  keys: drawKeys,
  batches: drawBatches,
  audit: drawAudit
}

render(
  ["closed", "open", "probe", "ramp", "forced-open"].map((state) => {
    const [shape, word] = Words.states[state]
    return html`<span>${icon(shape, `t-${shape}`)}${state === "forced-open" ? "by hand" : word}</span>`
  }),
  byId("legend")
)
setLink("connecting")
await unlock().catch(() => false)
connect("full")
if (document.hidden) onVisibility()
follow()
