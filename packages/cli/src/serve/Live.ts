/**
 * What the live page shows: circuits over time, calls, reasons, rates. All of it is bounded. It has no prompt, no answer, no name of a
 * model that a client asked for, and no words of a provider.
 */
import type { CallLog } from "@sluice/ai/CallLog"
import type { TargetState } from "@sluice/ai/ResilientModel"
import type { Level } from "@sluice/core/Quota"
import * as Duration from "effect/Duration"
import type { Change } from "./Changes.ts"
import type { Target } from "./Settings.ts"

type State = "closed" | "open" | "probe" | "ramp" | "forced-open" | "forced-closed"

/** Use of a limit. Money is in dollars. */
export interface Use {
  readonly of: string
  readonly used: number
  readonly limit: number
}

interface TargetRow {
  readonly name: string
  readonly model: string | null
  readonly host: string
  readonly state: State
  readonly since: number
  readonly until: number | null
  readonly reason: string
  /** Whether the state is of now. It is the last one while the store of the circuits does not answer. */
  readonly isKnown: boolean
  /** Whether it is held open by a drain. */
  readonly draining: boolean
  /** Attempts that run there. */
  readonly running: number
  readonly strip: ReadonlyArray<readonly [since: number, state: State]>
  /** Permits in use, of how many. `null` without a limit. */
  readonly used: number | null
  readonly capacity: number | null
  readonly queued: number
  /** `null` without limits, empty before the first call. */
  readonly quota: ReadonlyArray<Use> | null
  /** The median and the 95th percentile of the last 100 times to the first output. */
  readonly first: readonly [number | null, number | null]
  readonly tokensPerSecond: number
  readonly error: { readonly at: number; readonly why: string; readonly times: number } | null
}

export interface Flight {
  readonly at: number
  readonly key: string
  readonly operation: string
  /** The target whose answer streams. `null` before the first output. */
  target: string | null
}

/** `cut`: a part of the answer had been sent. `refused`: no attempt was made. `left`: the client left. */
export type Status = "answered" | "cut" | "failed" | "left" | "refused"

export interface Ended {
  /** The ID of its log. `null` if it has none. */
  readonly id: string | null
  readonly at: number
  readonly millis: number
  readonly status: Status
  /** The reason in code, such as `HTTP 503` or `CircuitOpen`. */
  readonly why: string | null
  readonly key: string
  readonly operation: string
  readonly tries: number
  readonly targets: ReadonlyArray<string>
}

/** What was counted in five seconds. */
interface Column {
  readonly at: number
  began: number
  ended: number
  lost: number
  tokens: number
  readonly firsts: Array<number>
  /** By `refused` or `failed`, and the reason. */
  readonly why: Map<string, number>
  readonly tokensOf: Map<string, number>
}

/** The use of one key since the start. */
interface Counts {
  calls: number
  refused: number
  cost: number
}

interface Past {
  /** The reason of its last change by hand, if that was a drain. */
  drain: string | undefined
  strip: ReadonlyArray<readonly [since: number, state: State]>
  readonly firsts: Array<number>
  error: TargetRow["error"]
}

export interface KeyRow extends Readonly<Counts> {
  readonly name: string
  /** `null` without limits, empty before the first call. */
  readonly limits: ReadonlyArray<Use> | null
}

const stepMillis = 5_000
const keptColumns = 180
const stripMillis = stepMillis * keptColumns
const keptCalls = 200
const shownFlights = 12
/** A larger change of state loses the oldest. */
const keptStates = 200
const keptChanges = 20
const keptFirsts = 100
const firstsOfColumn = 256
const reasonsOfColumn = 64
/** Calls of one delta. */
const freshCalls = 12
const minuteColumns = 12

export class Live {
  private readonly startedAt: number
  private readonly flights = new Set<Flight>()
  private streaming = 0
  private readonly calls: Array<Ended> = []
  private fresh: Array<Ended> = []
  private leftOut = 0
  private readonly columns: Array<Column>
  /** The columns from here on were not sent. */
  private sentUntil: number
  private readonly past = new Map<string, Past>()
  private targets: ReadonlyArray<TargetRow> = []
  private isSampled = false
  private readonly counts = new Map<string, Counts>()
  private readonly audit: Array<Change> = []
  /** Changes that were not sent. */
  private freshAudit: Array<Change> = []
  private total = 0
  private cost = 0

  constructor(now: number) {
    this.startedAt = now
    this.columns = [columnAt(now)]
    this.sentUntil = now
  }

  // ---------- calls

  began(key: string, operation: string, now: number): Flight {
    const flight: Flight = { at: now, key, operation, target: null }
    this.flights.add(flight)
    this.column(now).began++
    return flight
  }

  streams(flight: Flight, target: string): void {
    if (flight.target === null && this.flights.has(flight)) this.streaming++
    flight.target = target
  }

  /** A call that ended without an attempt, and comes again. */
  gone(flight: Flight | undefined): void {
    if (flight !== undefined && this.flights.delete(flight) && flight.target !== null) this.streaming--
  }

  ended(flight: Flight | undefined, call: Ended, log: CallLog | undefined, dollars: number, now: number): void {
    this.gone(flight)
    const column = this.column(now)
    const counts = this.countsOf(call.key)
    this.total++
    this.cost += dollars
    counts.calls++
    counts.cost += dollars
    if (call.status !== "left") column.ended++
    if (call.status === "refused") {
      counts.refused++
      count(column.why, `refused ${call.why ?? "?"}`)
    }
    if (call.status !== "answered" && call.status !== "left") column.lost++
    if (log !== undefined) this.attempts(log, column)
    keep(this.calls, call, keptCalls)
    this.announce(call)
  }

  /** A request without a client, or to no path. */
  refused(why: string, now: number): void {
    count(this.column(now).why, `refused ${why}`)
  }

  private attempts({ steps }: CallLog, column: Column): void {
    for (const step of steps) {
      if (step._tag !== "Attempt") continue
      const { endedAt, fault, firstTokenAt, outcome, startedAt, target, usage } = step
      const past = this.pastOf(target)
      const first = firstTokenAt === undefined ? undefined : firstTokenAt - startedAt
      if (first !== undefined) {
        keep(past.firsts, first, keptFirsts)
        if (column.firsts.length < firstsOfColumn) column.firsts.push(first)
      }
      const tokens = usage?.outputTokens ?? 0
      column.tokens += tokens
      if (tokens > 0) column.tokensOf.set(target, (column.tokensOf.get(target) ?? 0) + tokens)
      if (fault === undefined || outcome === "Ignored" || outcome === "Success") continue
      const why = reasonOf(fault)
      count(column.why, `failed ${why}`)
      past.error = { at: endedAt, why, times: past.error?.why === why ? past.error.times + 1 : 1 }
    }
  }

  /** The calls of the next delta. Those that were answered at the first attempt give way to others. */
  private announce(call: Ended): void {
    if (this.fresh.length < freshCalls) {
      this.fresh.push(call)
      return
    }
    this.leftOut++
    const plain = isPlain(call) ? -1 : this.fresh.findIndex(isPlain)
    if (plain >= 0) this.fresh.splice(plain, 1, call)
  }

  // ---------- targets and keys

  /** Something was changed by hand. A change that is known already counts once. */
  changed(change: Change): void {
    const { at, id } = change
    if (this.audit.some((known) => known.id === id)) return
    // Another gateway may have made it before the last one.
    const index = this.audit.findLastIndex((known) => known.at <= at) + 1
    if (index === 0 && this.audit.length === keptChanges) return
    this.audit.splice(index, 0, change)
    if (this.audit.length > keptChanges) this.audit.shift()
    keep(this.freshAudit, change, keptChanges)
    if ("batch" in change) return
    const { target, what } = change
    if (this.audit.slice(index + 1).some((later) => "target" in later && later.target === target)) return
    this.pastOf(target).drain = what === "drain" ? change.reason : undefined
  }

  /** Takes over the state of the targets. `replaced` has those of fronts that a reload has replaced, whose calls still run. */
  sampled(
    states: ReadonlyArray<TargetState>,
    replaced: ReadonlyArray<TargetState>,
    settings: ReadonlyArray<Target>,
    now: number
  ): void {
    const names = new Set(states.map(({ name }) => name))
    for (const name of this.past.keys()) if (!names.has(name)) this.past.delete(name)
    this.isSampled = true
    this.targets = states.map((state): TargetRow => {
      const { circuit, name, permits, quota } = state
      const own = settings.find((target) => target.name === name)
      const past = this.pastOf(name)
      // Every target has a circuit.
      const [circuitState, until, reason] = circuit === undefined
        ? [past.strip.at(-1)?.[1] ?? "closed", null, ""] as const
        : circuitOf(circuit, now)
      past.strip = stripOf(past.strip, circuitState, now)
      return {
        name,
        model: own?.model ?? null,
        host: URL.parse(own?.url ?? "")?.host ?? "",
        state: circuitState,
        since: past.strip.at(-1)?.[0] ?? now,
        until,
        reason,
        isKnown: circuit !== undefined,
        draining: circuitState === "forced-open" && past.drain === reason,
        running: [state, ...replaced].reduce((sum, other) => other.name === name ? sum + other.running : sum, 0),
        strip: past.strip,
        used: permits?.running ?? null,
        capacity: permits?.capacity ?? null,
        queued: permits?.queued ?? 0,
        quota: quota?.map(useOf) ?? null,
        first: [quantile(past.firsts, 0.5), quantile(past.firsts, 0.95)],
        tokensPerSecond: this.sum(minuteColumns, now, ({ tokensOf }) => tokensOf.get(name) ?? 0) /
          Math.max(1, Math.min(60, (now - this.startedAt) / 1_000)),
        error: past.error
      }
    })
  }

  /** The rows of the clients, and forgets others. */
  keys(
    clients: ReadonlyArray<{ readonly name: string; readonly levels: ReadonlyArray<Level> | undefined }>
  ): ReadonlyArray<KeyRow> {
    const names = new Set(clients.map(({ name }) => name))
    for (const name of this.counts.keys()) if (!names.has(name)) this.counts.delete(name)
    return clients.map(({ levels, name }) => ({ name, ...this.countsOf(name), limits: levels?.map(useOf) ?? null }))
  }

  // ---------- events

  /** Everything that a page needs at its start. */
  snapshot(now: number) {
    this.column(now)
    return {
      startedAt: this.startedAt,
      step: stepMillis,
      calls: this.calls.toReversed(),
      columns: this.columns.slice(0, -1).map(sent),
      ...this.state(now),
      targets: this.targets,
      audit: this.audit.toReversed()
    }
  }

  /** What is new since the last delta. */
  delta(now: number, withTargets: boolean) {
    this.column(now)
    const { fresh, freshAudit, leftOut } = this
    const columns = this.columns.slice(0, -1).filter(({ at }) => at >= this.sentUntil)
    this.sentUntil = this.columns.at(-1)?.at ?? now
    this.fresh = []
    this.freshAudit = []
    this.leftOut = 0
    return {
      ...this.state(now),
      ...(fresh.length === 0 ? {} : { calls: fresh, leftOut }),
      ...(columns.length === 0 ? {} : { columns: columns.map(sent) }),
      ...(freshAudit.length === 0 ? {} : { audit: freshAudit }),
      ...(withTargets && this.isSampled ? { targets: this.targets } : {})
    }
  }

  /** What the title of a hidden page needs. */
  brief(now: number) {
    const { at, head } = this.state(now)
    const targets = this.targets.map(({ draining, isKnown, name, state }) => ({ name, state, isKnown, draining }))
    return { at, head, targets }
  }

  private state(now: number) {
    const ended = this.sum(minuteColumns + 1, now, (column) => column.ended)
    const lost = this.sum(minuteColumns + 1, now, (column) => column.lost)
    const rateMillis = Math.max(
      1_000,
      Math.min(now - this.startedAt, stepMillis + now - (this.columns.at(-1)?.at ?? now))
    )
    const inFlight = this.flights.size
    return {
      at: now,
      head: {
        perSecond: this.sum(2, now, ({ began }) => began) / (rateMillis / 1_000),
        inFlight,
        phases: {
          queued: this.targets.reduce((sum, { queued }) => sum + queued, 0),
          waiting: inFlight - this.streaming,
          streaming: this.streaming
        },
        /** Of the last minute. */
        ended,
        answered: ended - lost,
        cost: this.cost,
        calls: this.total
      },
      // A set keeps the order of insertion: the oldest.
      flights: [...this.flights].slice(0, shownFlights)
    }
  }

  // ---------- rings

  private column(now: number): Column {
    let last = this.columns.at(-1) ?? columnAt(now)
    // After a sleep of the machine, more columns than are kept would be made.
    if (now - last.at > stripMillis) this.columns.length = 0
    while (now - last.at >= stepMillis) {
      last = columnAt(now - last.at > stripMillis ? now : last.at + stepMillis)
      keep(this.columns, last, keptColumns)
    }
    return last
  }

  private sum(columns: number, now: number, of: (column: Column) => number): number {
    const from = now - columns * stepMillis
    return this.columns.reduce((sum, column) => column.at > from ? sum + of(column) : sum, 0)
  }

  private pastOf(target: string): Past {
    return getOrAdd(this.past, target, () => ({ drain: undefined, strip: [], firsts: [], error: null }))
  }

  private countsOf(key: string): Counts {
    return getOrAdd(this.counts, key, () => ({ calls: 0, refused: 0, cost: 0 }))
  }
}

/** The reason of a fault, without the words of a provider. */
export const reasonOf = ({ status, type }: { readonly type: string; readonly status?: number }): string =>
  status === undefined ? type : `HTTP ${status}`

const isPlain = ({ status, tries }: Ended): boolean => status === "answered" && tries <= 1

const columnAt = (at: number): Column => ({
  at,
  began: 0,
  ended: 0,
  lost: 0,
  tokens: 0,
  firsts: [],
  why: new Map(),
  tokensOf: new Map()
})

const sent = ({ at, ended, firsts, lost, tokens, why }: Column) => ({
  at,
  first50: quantile(firsts, 0.5),
  first95: quantile(firsts, 0.95),
  tokens: tokens * 1_000 / stepMillis,
  calls: ended * 1_000 / stepMillis,
  lost: lost * 1_000 / stepMillis,
  why: Object.fromEntries(why)
})

const quantile = (values: ReadonlyArray<number>, share: number): number | null =>
  values.toSorted((a, b) => a - b)[Math.max(0, Math.ceil(share * values.length) - 1)] ?? null

const count = (counts: Map<string, number>, name: string): void => {
  const known = counts.get(name)
  if (known !== undefined || counts.size < reasonsOfColumn) counts.set(name, (known ?? 0) + 1)
}

const keep = <A>(ring: Array<A>, item: A, most: number): void => {
  ring.push(item)
  if (ring.length > most) ring.shift()
}

const getOrAdd = <A>(map: Map<string, A>, name: string, make: () => A): A => {
  const known = map.get(name)
  if (known !== undefined) return known
  const made = make()
  map.set(name, made)
  return made
}

const circuitOf = (circuit: NonNullable<TargetState["circuit"]>, now: number): [State, number | null, string] => {
  const after = (time: Duration.Duration | undefined) => time === undefined ? null : now + Duration.toMillis(time)
  switch (circuit._tag) {
    case "Open":
      return ["open", after(circuit.retryAfter), ""]
    case "HalfOpen":
      return ["probe", null, ""]
    case "ForcedOpen":
      return ["forced-open", after(circuit.liftedIn), circuit.reason]
    case "ForcedClosed":
    case "Disabled":
    case "ObserveOnly":
      return ["forced-closed", after(circuit.liftedIn), circuit.reason]
    case "Closed":
      return circuit.rampsFor === undefined ? ["closed", null, ""] : ["ramp", after(circuit.rampsFor), ""]
  }
}

/** Adds the state of now, and drops what is older than the strip. */
const stripOf = (strip: Past["strip"], state: State, now: number): Past["strip"] => {
  const added = strip.at(-1)?.[1] === state ? strip : [...strip, [now, state] as const]
  const from = added.findLastIndex(([since]) => since <= now - stripMillis)
  return from <= 0 && added.length <= keptStates ? added : added.slice(Math.max(from, added.length - keptStates))
}

const windows = new Map([[1_000, "s"], [60_000, "min"], [3_600_000, "h"], [86_400_000, "day"]])

const useOf = ({ dimension, limit, used, windowMillis }: Level): Use => {
  const window = windows.get(windowMillis) ?? `${windowMillis / 1_000}s`
  // Money is counted in millionths of a dollar.
  return dimension === "money"
    ? { of: `USD/${window}`, used: used / 1e6, limit: limit / 1e6 }
    : { of: `${dimension}/${window}`, used, limit }
}
