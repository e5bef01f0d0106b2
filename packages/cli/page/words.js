/** The numbers, times and sentences of the live page. It needs no browser. */

const none = "–"

export const count = (value) => value === null || value === undefined ? none : Math.round(value).toLocaleString("en-US")

export const short = (value) => {
  if (value === null || value === undefined) return none
  if (value < 1_000) return String(Math.round(value * 10) / 10)
  if (value < 9_950) return `${(value / 1_000).toFixed(1)}k`
  return value < 999_500 ? `${Math.round(value / 1_000)}k` : `${(value / 1e6).toFixed(1)}M`
}

export const money = (dollars) => `$${dollars < 1_000 ? dollars.toFixed(2) : count(dollars)}`

/** Rounded down: 99.96% is not 100%. */
export const percent = (share) => share >= 1 ? "100%" : `${(Math.floor(share * 1_000) / 10).toFixed(1)}%`

/** `850ms`, `3.2s`, `2m 24s`, `1h 05m`, `4d 6h`. */
export const time = (millis) => {
  if (millis === null || millis === undefined) return none
  if (millis < 999.5) return `${Math.max(0, Math.round(millis))}ms`
  if (millis < 9_950) return `${(millis / 1_000).toFixed(1)}s`
  const seconds = Math.round(millis / 1_000)
  if (seconds < 60) return `${seconds}s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes}m ${String(seconds % 60).padStart(2, "0")}s`
  const hours = Math.floor(minutes / 60)
  return hours < 48
    ? `${hours}h ${String(minutes % 60).padStart(2, "0")}m`
    : `${Math.floor(hours / 24)}d ${hours % 24}h`
}

/** In whole seconds, for what counts while one looks. */
export const age = (millis) => millis < 60_000 ? `${Math.max(0, Math.floor(millis / 1_000))}s` : time(millis)

export const clock = (at, length = 8) => new Date(at).toLocaleTimeString("en-GB").slice(0, length)

/** The time of day, with the day if that is another one. */
export const moment = (at, now, length = 5) =>
  new Date(at).toDateString() === new Date(now).toDateString()
    ? clock(at, length)
    : `${new Date(at).toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${clock(at, length)}`

export const list = (names, most = 3) => {
  if (names.length > most) return `${names.slice(0, most - 1).join(", ")} and ${names.length - most + 1} more`
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`
}

// ---------- targets

/** The shape of each state, and its word. */
export const states = {
  "closed": ["closed", "closed"],
  "open": ["open", "open"],
  "probe": ["probe", "asked again"],
  "ramp": ["ramp", "coming back"],
  "forced-open": ["forced", "held open"],
  "forced-closed": ["forced", "held closed"],
  "draining": ["drain", "draining"]
}

export const stateOf = ({ draining, state }) => states[draining ? "draining" : state]

export const isDown = ({ state }) => state === "open" || state === "probe"

export const takesCalls = (target) => !isDown(target) && target.state !== "forced-open"

/** Openings and probes in a row are one outage, or the clock would start anew at every probe. */
export const downSince = ({ since, strip }) => {
  let at = since
  for (const [start, state] of strip.toReversed()) {
    if (state !== "open" && state !== "probe") break
    at = start
  }
  return at
}

export const runs = (calls) => calls === 1 ? "1 call runs" : `${count(calls)} calls run`

/** What the circuit of a target does, in one line. Empty if it is closed. */
export const circuit = (target, now) => {
  const { draining, isKnown, reason, running, state, until } = target
  if (!isKnown) return "not known now: the store of the circuits does not answer"
  const held = () =>
    `${until === null ? "without an end" : `until ${moment(until, now)}`}${reason === "" ? "" : `: ${reason}`}`
  if (draining) {
    return running === 0
      ? `drained, nothing runs there, ${held()}`
      : `drains, ${runs(running)} there, ${held()}`
  }
  switch (state) {
    case "open":
      return `takes no calls for ${age(now - downSince(target))}, asked again ${
        until > now + 999 ? `in ${age(until - now)}` : "at the next call"
      }`
    case "probe":
      return `asked again, one call at a time; down for ${age(now - downSince(target))}`
    case "ramp":
      return `coming back: takes a growing part of its calls${until > now + 999 ? `, all in ${age(until - now)}` : ""}`
    case "forced-open":
      return `held open, no calls, ${held()}`
    case "forced-closed":
      return `held closed, all calls, ${held()}`
    default:
      return ""
  }
}

// ---------- the verdict

const failingBelow = 0.9
/** Below, a percentage says less than the numbers. */
const fewCalls = 100

const rateOf = ({ answered, ended }) => {
  if (ended === 0) return "No call ended in the last minute."
  return ended < fewCalls
    ? `${answered} of ${ended} calls of the last minute were answered.`
    : `${percent(answered / ended)} of the calls of the last minute were answered.`
}

/** The one thing to know. `says` has no number that runs, so that it is read out only when it changes. `more` has them. */
export const verdict = (page, now) => {
  const { at, batches, head, link, origin, routes, targets } = page
  if (link === "connecting") return { level: "connecting", says: "Asking the gateway…", more: "" }
  if (link === "locked") return { level: "lost", says: "This page needs an admin key", more: "" }
  if (link === "asleep") {
    return { level: "lost", says: "This page sleeps", more: `It was hidden. What it shows is from ${clock(at)}.` }
  }
  if (link === "bye") {
    return { level: "lost", says: "The gateway is shutting down", more: "It finishes what runs and takes no new call." }
  }
  if (link === "lost") {
    return {
      level: "lost",
      says: "No word from the gateway",
      more: at === 0
        ? "It is asked again every second."
        : `since ${clock(at)}. What this page shows is from then. It is asked again every second.`
    }
  }
  const names = (some) => list(some.map(({ name }) => name))
  const are = (some) => some.length === 1 ? "is" : "are"
  const down = targets.filter(isDown)
  const held = targets.filter(({ draining, state }) => state.startsWith("forced") && !draining)
  const drained = targets.filter(({ draining }) => draining)
  const ramping = targets.filter(({ state }) => state === "ramp")
  const rate = rateOf(head)
  const [first] = down
  const why = down.length === 1 && first.error !== null
    ? `${reason(first.error.why)}, for ${age(now - downSince(first))}. `
    : ""
  if (targets.length > 0 && !targets.some(takesCalls)) {
    const more = [
      down.length > 0 ? `${down.length} ${are(down)} down` : "",
      held.length > 0 ? `${held.length} held by hand` : "",
      drained.length > 0 ? `${drained.length} drained` : ""
    ]
    return {
      level: "bad",
      says: "No target takes calls",
      more: `${why}${more.filter((part) => part !== "").join(", ")}. Calls are refused.`
    }
  }
  if (head.calls === 0 && head.inFlight === 0 && !batches?.rows.some(({ state }) => state === "in_progress")) {
    return { level: "idle", says: "No call has come yet", more: `Point a client at ${origin}/v1` }
  }
  const dead = Object.entries(routes)
    .filter(([, some]) => !targets.some((target) => some.includes(target.name) && takesCalls(target)))
    .map(([asked]) => asked)
  if (dead.length > 0) {
    return {
      level: "bad",
      says: `Calls for ${list(dead)} are refused`,
      more: `No target for ${dead.length === 1 ? "it" : "them"} takes calls. ${rate}`
    }
  }
  if (head.ended > 0 && head.answered / head.ended < failingBelow) {
    return {
      level: "bad",
      says: down.length > 0 ? `${names(down)} ${are(down)} down and calls fail` : "Calls fail",
      more: `${why}${rate}`
    }
  }
  if (down.length > 0) {
    return { level: "warn", says: `${names(down)} ${are(down)} down; calls go elsewhere`, more: `${why}${rate}` }
  }
  if (ramping.length > 0) return { level: "warn", says: `${names(ramping)} ${are(ramping)} coming back`, more: rate }
  if (targets.some(({ isKnown }) => !isKnown)) {
    return { level: "warn", says: "The store does not answer; this gateway decides alone", more: rate }
  }
  const line = (some) => some.length === 1 ? `${sentence(circuit(some[0], now))} ` : ""
  if (held.length > 0) {
    return { level: "note", says: `${names(held)} ${are(held)} held by hand`, more: `${line(held)}${rate}` }
  }
  if (drained.length > 0) {
    return { level: "note", says: `${names(drained)} ${are(drained)} drained by hand`, more: `${line(drained)}${rate}` }
  }
  return {
    level: "calm",
    says: targets.length === 1 ? "The target takes calls" : `All ${targets.length} targets take calls`,
    more: rate
  }
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1).replace(/\.$/, "")}.`

/** The title of the tab. */
export const title = ({ level, says }, targets) => {
  const down = targets.filter(isDown).length
  const word = level === "bad"
    ? "failing"
    : level === "lost"
    ? says.toLowerCase()
    : level === "warn" && down > 0
    ? `${down} down`
    : ""
  return word === "" ? "sluice" : `${word} · sluice`
}

// ---------- changes by hand

/** What can be done to a target, and its effect. */
export const changes = {
  open: [(name) => `Stop calls to ${name}`, "No call is sent to it. Calls that run there continue."],
  close: [
    (name) => `Send calls to ${name} whatever happens`,
    "Calls are sent to it even if they fail: its circuit does not open."
  ],
  drain: [
    (name) => `Drain ${name}`,
    "No new call is sent to it. This page says when the calls that run there have ended."
  ],
  reset: [
    (name) => `Let the circuit of ${name} decide`,
    "Ends what was done by hand, forgets failures, and sends calls to it again."
  ]
}

const done = { open: "held open", close: "held closed", drain: "drained", reset: "left to its circuit" }

/** A change in one line, after the name of its target or batch. Changes of limits by command are in words already. */
export const change = ({ forMs, reason, what, who }) =>
  what === "cancel" ?
    `cancelled by ${who}` :
    `${done[what] ?? what}${
      forMs !== null ? ` for ${time(forMs)}` : what === "reset" || done[what] === undefined ? "" : " without an end"
    } by ${who}: ${reason}`

/** How long a change can last: milliseconds as text, and words. The first is the default. */
export const ends = (now) => {
  const tomorrow = new Date(now)
  tomorrow.setDate(tomorrow.getDate() + 1)
  tomorrow.setHours(9, 0, 0, 0)
  return [
    [3_600_000, "1 hour"],
    [900_000, "15 minutes"],
    [14_400_000, "4 hours"],
    [Math.round(tomorrow.getTime() - now), "until tomorrow, 09:00"],
    [null, "no end, until it is changed again"]
  ]
}

// ---------- batches

/** The icon and the word of each state. */
export const batchStates = {
  validating: ["waiting", "being submitted"],
  in_progress: ["streaming", "in progress"],
  cancelling: ["drain", "cancelling"],
  expiring: ["drain", "expiring"],
  capping: ["drain", "at its budget"],
  completed: ["ok", "completed"],
  cancelled: ["left", "cancelled"],
  expired: ["cut", "expired"],
  capped: ["cut", "ended at its budget"],
  failed: ["failed", "unusable"]
}

export const batchState = ({ endedAt, state, waits }, now) => {
  const [shape, word] = batchStates[state]
  return [waits === null ? shape : "waiting", endedAt === null ? word : `${word} at ${moment(endedAt, now)}`]
}

/** Only these can still be cancelled. */
export const canBeCancelled = ({ state }) => state === "validating" || state === "in_progress"

export const progress = ({ done, failed, total }) =>
  `${count(done)} of ${count(total)}${failed === 0 ? "" : `, ${count(failed)} failed`}`

/** Why a batch makes no progress. Empty if it does. */
export const waits = ({ waits }, now) =>
  waits === null
    ? ""
    : `waits: ${waits.for}${waits.until === null || waits.until < now + 1_000 ? "" : `, for ${age(waits.until - now)}`}`

/** What is said beside the title. `at` is `null` before the first answer. */
export const batchesNote = ({ at, isKnown, more }) => {
  if (!isKnown) return `The database does not answer.${at === null ? "" : ` What is shown is from ${clock(at)}.`}`
  return more === 0
    ? "live ones, and those that ended within 15 minutes"
    : `the 20 newest; ${count(more)} more are live`
}

// ---------- calls

/** The icon and the word of how a call ended. */
export const statuses = {
  answered: ["ok", "answered"],
  cut: ["cut", "cut short"],
  failed: ["failed", "failed"],
  left: ["left", "client left"],
  refused: ["refused", "refused"]
}

const reasons = {
  AttemptTimeout: "no answer in time",
  BackpressureShed: "its queue is full",
  Busy: "as many calls as may are running there",
  CircuitOpen: "its circuit is open",
  ContextTooSmall: "the prompt is too long for it",
  Credential: "its key was refused",
  DeadlineExceeded: "the time of the call is over",
  EmptyAnswer: "the answer is empty",
  FirstTokenTimeout: "no first token in time",
  IdleTimeout: "the stream fell silent",
  InvalidRequestError: "the request is wrong",
  MalformedEvent: "the stream is unreadable",
  NetworkError: "the connection failed",
  ModelNotOffered: "no target has the model",
  NoTarget: "no target takes the call",
  Quota: "its limit is used up",
  QuotaExceeded: "its limit is used up",
  RateLimitError: "too many requests",
  RateLimited: "it asked to be left alone",
  TruncatedStream: "the stream broke off",
  StoreError: "the store does not answer",
  admin_only: "the key is no admin key",
  batch_ended: "the batch has ended",
  batch_not_found: "no such batch",
  call_not_found: "no such call",
  draining: "the gateway is stopping",
  host_not_allowed: "a host name that is not allowed",
  invalid_api_key: "no key, or a wrong one",
  invalid_body: "the body is no JSON with a model",
  key_is_limited: "a path that a key with limits may not use",
  key_limit: "the limit of the key",
  model_not_allowed: "the key may not use the model",
  no_price: "the model has no price",
  not_found: "no such path",
  request_too_large: "the request is too large",
  store_down: "the store does not answer"
}

/** `CircuitOpen` in words. Without words of ours: `SomeReason` as `some reason`. */
export const reason = (code) =>
  Object.hasOwn(reasons, code)
    ? reasons[code]
    : code.startsWith("HTTP ")
    ? code
    : code.replaceAll("_", " ").replaceAll(/(?<=[a-z])(?=[A-Z])/g, " ").toLowerCase()

const next = {
  Retry: "; the same target is asked again",
  Fallback: "; the next target is asked",
  Reask: "; another answer is asked for",
  Restart: "; the answer starts over",
  Continue: "; the answer is continued",
  Stop: "; the call ends",
  Done: ""
}

const faultOf = ({ status, type }) => status === undefined ? reason(type) : `HTTP ${status}`

/** The log of a call as lines: when, where, what. */
export const steps = ({ answeredBy, endedAt, fault, result, startedAt, steps }) => {
  const lines = steps.flatMap((step) => {
    if (step._tag === "Skipped") {
      return [{ at: step.at - startedAt, target: step.target, kind: "skip", text: `passed over: ${reason(step.why)}` }]
    }
    const { endedAt, fault, firstTokenAt, n, startedAt: at, target, usage, waitedMillis } = step
    const first = firstTokenAt === undefined ? "" : `, first token after ${time(firstTokenAt - at)}`
    const tokens = usage === undefined
      ? ""
      : `; tokens: ${count(usage.inputTokens)} in, ${count(usage.outputTokens)} out`
    const waited = waitedMillis < 10
      ? []
      : [{ at: at - startedAt - waitedMillis, target, kind: "wait", text: `waited ${time(waitedMillis)}` }]
    const text = fault === undefined
      ? `try ${n}: answered in ${time(endedAt - at)}${first}${tokens}`
      : `try ${n}: ${faultOf(fault)} after ${time(endedAt - at)}${first}${next[step.next] ?? ""}`
    return [...waited, { at: at - startedAt, target, kind: fault === undefined ? "try" : "fault", text }]
  })
  const took = time(endedAt - startedAt)
  const end = result === "Success"
    ? { kind: "end", text: `answered by ${answeredBy ?? "a target"} after ${took}` }
    : {
      kind: "lost",
      text: result === "Interrupted"
        ? `the client left after ${took}`
        : `failed: ${fault === undefined ? "no reason" : faultOf(fault)}, after ${took}`
    }
  return [...lines, { at: endedAt - startedAt, target: "", ...end }]
}

export const headline = (log) => {
  const { text } = steps(log).at(-1)
  const tries = log.steps.filter(({ _tag }) => _tag === "Attempt").length
  return `${text[0].toUpperCase()}${text.slice(1)}${
    tries === 0 ? ", without a try" : `, ${tries === 1 ? "1 try" : `${tries} tries`}`
  }`
}

/** The log as text, to paste into a message. */
export const asText = (log) =>
  [
    headline(log),
    `  call ${log.id}, ${new Date(log.startedAt).toISOString()}`,
    ...steps(log).map(({ at, target, text }) =>
      `  ${`+${time(at)}`.padEnd(10)} ${(target || "end").padEnd(10)} ${text}`
    ),
    ""
  ].join("\n")
