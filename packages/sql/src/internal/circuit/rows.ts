import type { CircuitBreakerStore, Window } from "@sluice/core/CircuitBreakerStore"
import { encodeKey, type TransitionFields, untouchedJson } from "@sluice/core/StoreCodec"

// The verbs on rows, for SQLite and for a Postgres without functions. The functions of `functions.ts` do the same.

/** A row of `sluice_circuits`. */
export interface CircuitRow {
  readonly generation: number
  readonly since: number
  readonly ends: number
  readonly moved_by: string
  readonly target: string
  readonly state: string
  readonly counts: number
  readonly leased: number
  /** The end of each lease, by encoded id. */
  readonly leases: ReadonlyMap<string, number>
  readonly expires: number
}

/** A row of `sluice_circuit_evidence`. */
export interface EvidenceRow {
  readonly generation: number
  readonly ring: string
  /** Four numbers for each bucket, oldest first. */
  readonly wheel: ReadonlyArray<number>
}

/** What a verb found. Evidence of another generation is not evidence. */
export interface Found {
  readonly circuit: CircuitRow | undefined
  readonly evidence: EvidenceRow | undefined
  readonly micros: number
  readonly idleMillis: number
}

/** The answer of a verb, and its rows. A row that is the one that was found need not be written. */
export interface After {
  readonly ok: boolean
  readonly circuit: CircuitRow | undefined
  readonly evidence: EvidenceRow | undefined
}

type RequestOf<V extends keyof CircuitBreakerStore["Service"]> = Parameters<CircuitBreakerStore["Service"][V]>[0]

export const millisOf = (micros: number): number => Math.floor(micros / 1_000)

export const spanOf = ({ bucketMillis, buckets }: Window): number => bucketMillis * buckets

/** The time at which a circuit that is forced without an end expires: never. */
const never = 9e15

/**
 * Shifts all times if the clock was set back. Otherwise an opening or a lease of a second would last an hour longer after the clock was
 * set back by an hour. Drops leases that have ended, so that none is alive again then.
 */
export const adjust = (circuit: CircuitRow, now: number): CircuitRow => {
  if (!needsAdjustment(circuit, now)) return circuit
  const ahead = Math.max(0, circuit.since - now, circuit.leased - now)
  return {
    ...circuit,
    since: Math.max(0, circuit.since - ahead),
    ends: circuit.ends === 0 ? 0 : circuit.ends - ahead,
    leased: Math.max(0, circuit.leased - ahead),
    leases: new Map([...circuit.leases].map(([id, at]) => [id, at - ahead] as const).filter(([, at]) => at > now))
  }
}

/** Whether a time is in the future that is not, or a lease has ended. */
export const needsAdjustment = ({ leased, leases, since }: CircuitRow, now: number): boolean =>
  Math.max(since, leased) > now || [...leases.values()].some((at) => at <= now)

export const lease = (
  { circuit: found, evidence, idleMillis, micros }: Found,
  { generation, id, limit, window }: RequestOf<"lease">,
  ttlMillis: number
): After => {
  const now = millisOf(micros)
  const circuit = found && adjust(found, now)
  if (circuit === undefined) return { ok: false, circuit, evidence }
  const leases = new Map(circuit.leases)
  const encoded = encodeKey(id)
  // A probe that has reported keeps its slot, so that no more than the limit of outcomes decide a round.
  const isFree = leases.has(encoded) || leases.size + (evidence?.ring.length ?? 0) < limit
  if (circuit.generation !== generation || circuit.state !== "Open" || now < circuit.ends || !isFree) {
    return { ok: false, circuit, evidence }
  }
  leases.set(encoded, now + ttlMillis)
  const expires = Math.max(circuit.expires, now + Math.max(ttlMillis, spanOf(window)) + idleMillis)
  return { ok: true, circuit: { ...circuit, leases, leased: now, expires }, evidence }
}

export const record = (found: Found, request: RequestOf<"record">): After => {
  const now = millisOf(found.micros)
  const circuit = found.circuit && adjust(found.circuit, now)
  if (request.lease !== undefined) return recordProbe({ ...found, circuit }, request, encodeKey(request.lease))
  if (circuit === undefined) return count(found, made(found, request), request)
  const isCurrent = circuit.generation === request.generation
  // A call that found no circuit counts in the one that was made since, unless that has moved.
  const isUntouched = request.generation === 0 && circuit.moved_by === ""
  return circuit.counts === 1 && (isCurrent || isUntouched)
    ? count(found, circuit, request)
    : { ok: false, circuit, evidence: found.evidence }
}

const recordProbe = (found: Found, request: RequestOf<"record">, id: string): After => {
  const { circuit, evidence } = found
  if (circuit === undefined) return { ok: false, circuit, evidence }
  const leases = new Map(circuit.leases)
  if (!leases.delete(id)) return { ok: false, circuit, evidence }
  const freed = { ...circuit, leases }
  return circuit.generation === request.generation
    ? count(found, freed, request)
    : { ok: false, circuit: freed, evidence }
}

const made = ({ idleMillis, micros }: Found, { generation, window }: RequestOf<"record">): CircuitRow => ({
  generation: Math.max(generation + 1, micros),
  since: 0,
  ends: 0,
  moved_by: "",
  target: untouchedJson,
  state: "Closed",
  counts: 1,
  leased: 0,
  leases: new Map(),
  expires: millisOf(micros) + spanOf(window) + 2 * idleMillis
})

const count = (
  { evidence: known, idleMillis, micros }: Found,
  circuit: CircuitRow,
  { samples, window }: RequestOf<"record">
): After => {
  const now = millisOf(micros)
  const needed = now + spanOf(window) + idleMillis
  // Half of idle more than needed, so that the row of a busy circuit is rarely written.
  const kept = circuit.expires < needed ? { ...circuit, expires: needed + Math.floor(idleMillis / 2) } : circuit
  if (samples === "") return { ok: true, circuit: kept, evidence: known }
  const ring = window.calls === 0 ? "" : ((known?.ring ?? "") + samples).slice(-window.calls)
  const wheel = wheelAfter(known?.wheel ?? [], tallyOf(samples), window, now)
  return { ok: true, circuit: kept, evidence: { generation: circuit.generation, ring, wheel } }
}

/** Adds calls to a bucket, and drops the buckets that have left the window and those that are in the future. */
const wheelAfter = (
  wheel: ReadonlyArray<number>,
  { calls, failures, slow }: Tally,
  window: Window,
  now: number
): ReadonlyArray<number> => {
  if (window.buckets === 0) return []
  const at = Math.floor(now / window.bucketMillis) * window.bucketMillis
  const next: Array<number> = []
  const counted = [0, 0, 0]
  for (let i = 0; i + 3 < wheel.length; i += 4) {
    const [start = 0, ...counts] = wheel.slice(i, i + 4)
    if (start === at) counted.splice(0, 3, ...counts)
    else if (start > at - spanOf(window) && start < at) next.push(start, ...counts)
  }
  const [knownCalls = 0, knownFailures = 0, knownSlow = 0] = counted
  next.push(at, knownCalls + calls, knownFailures + failures, knownSlow + slow)
  return next
}

export interface Tally {
  readonly calls: number
  readonly failures: number
  readonly slow: number
}

/** Counts samples, with failures in twentieths. */
export const tallyOf = (samples: string): Tally => {
  let failures = 0
  let slow = 0
  for (let i = 0; i < samples.length; i++) {
    const code = samples.charCodeAt(i) - 48
    failures += code >> 1
    slow += code & 1
  }
  return { calls: samples.length, failures, slow }
}

export const transition = (
  { circuit: found, evidence, idleMillis, micros }: Found,
  { by, generation, window }: RequestOf<"transition">,
  { counts, forMillis, rememberMillis, state, target }: TransitionFields
): After => {
  const now = millisOf(micros)
  const circuit = found && adjust(found, now)
  const caller = encodeKey(by)
  if ((circuit?.generation ?? 0) !== generation) {
    // The winner repeats its request.
    return { ok: circuit?.moved_by === caller, circuit, evidence }
  }
  const expires = now + Math.max(rememberMillis, spanOf(window)) + 2 * idleMillis
  const known = circuit === undefined || circuit.expires >= never ? 0 : circuit.expires
  return {
    ok: true,
    circuit: {
      generation: Math.max(generation + 1, micros),
      since: now,
      ends: forMillis > 0 || state === "Open" ? now + forMillis : 0,
      moved_by: caller,
      target,
      state,
      counts,
      leased: circuit?.leased ?? 0,
      // The leases stay: a probe that still runs keeps its slot, or more than the limit would run.
      leases: circuit?.leases ?? new Map(),
      expires: state === "Forced" && forMillis === 0 ? never : Math.max(expires, known)
    },
    evidence: undefined
  }
}
