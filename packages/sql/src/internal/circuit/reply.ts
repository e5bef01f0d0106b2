import type { Bucket, Snapshot, Window } from "@sluice/core/CircuitBreakerStore"
import { controlOf, decodeKey, isValidSamples, TargetJson, untouched } from "@sluice/core/StoreCodec"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import type { CircuitRow, EvidenceRow } from "./rows.ts"
import { spanOf } from "./rows.ts"
import type { Row } from "../session.ts"

// Any client can write to the tables, so every row is validated here before it is used.

/** A list of numbers, as `1,2,3`. */
const Numbers = Schema.String.check(Schema.isPattern(/^(\d{1,16}(,\d{1,16})*)?$/)).pipe(
  Schema.decodeTo(Schema.Array(Schema.Natural), {
    decode: SchemaGetter.transform((text: string) => text === "" ? [] : text.split(",").map(Number)),
    encode: SchemaGetter.transform((numbers: ReadonlyArray<number>) => numbers.join(","))
  })
)

const Circuit = Schema.Struct({
  generation: Schema.Int.check(Schema.isGreaterThan(0)),
  since: Schema.Natural,
  ends: Schema.Natural,
  moved_by: Schema.String,
  target: Schema.String,
  state: Schema.String,
  counts: Schema.Natural,
  leased: Schema.Natural,
  leases: Schema.fromJsonString(Schema.Record(Schema.String, Schema.Natural)),
  expires: Schema.Natural
})

const Evidence = Schema.Struct({
  evidence_generation: Schema.Natural,
  ring: Schema.String.check(Schema.makeFilter(isValidSamples)),
  wheel: Numbers
})

const decodeCircuit = Schema.decodeUnknownOption(Circuit)
const decodeEvidence = Schema.decodeUnknownOption(Evidence)
const decodeTarget = Schema.decodeUnknownOption(TargetJson)

/** A circuit and its evidence. */
export interface Decoded {
  readonly circuit: CircuitRow | undefined
  readonly evidence: EvidenceRow | undefined
}

/** A circuit after a verb. */
export interface Reply extends Decoded {
  readonly ok: boolean
  readonly now: number
}

/** Decodes a row that also has the columns `now` and, unless it was only read, `ok`. `undefined` if it is invalid. */
export const decodeReply = (row: Row | undefined): Reply | undefined => {
  const decoded = row && decodeRow(row)
  const now = row?.["now"]
  return decoded !== undefined && typeof now === "number" && Number.isSafeInteger(now)
    ? { ...decoded, ok: row?.["ok"] === true, now }
    : undefined
}

/** Decodes a row with the columns of a circuit and its evidence, which are null if it is missing. `undefined` if the row is invalid. */
export const decodeRow = (row: Row): Decoded | undefined => {
  if (row["generation"] === null) return { circuit: undefined, evidence: undefined }
  const decoded = Option.getOrUndefined(decodeCircuit(row))
  if (decoded === undefined) return undefined
  const circuit = { ...decoded, leases: new Map(Object.entries(decoded.leases)) }
  // Evidence of another generation is void.
  if (row["evidence_generation"] !== circuit.generation) return { circuit, evidence: undefined }
  const evidence = Option.getOrUndefined(decodeEvidence(row))
  if (evidence === undefined || evidence.wheel.length % 4 !== 0) return undefined
  return { circuit, evidence: { generation: circuit.generation, ring: evidence.ring, wheel: evidence.wheel } }
}

/** The circuit at the time `now`. `undefined` if its target or `moved_by` is invalid. */
export const snapshotOf = (
  { circuit, evidence }: Decoded,
  { key, window }: { readonly key: string; readonly window: Window },
  now: number
): Snapshot | undefined => {
  if (circuit === undefined) {
    return { key, generation: 0, control: untouched, evidence: noEvidence, probing: 0, leaseMillis: 0, now }
  }
  const target = Option.getOrUndefined(decodeTarget(circuit.target))
  const by = circuit.moved_by === "" ? "" : decodeKey(circuit.moved_by)
  if (target === undefined || by === undefined) return undefined
  const ends = [...circuit.leases.values()].filter((at) => at > now)
  return {
    key,
    generation: circuit.generation,
    control: controlOf(target, { since: circuit.since, until: circuit.ends, by }),
    evidence: evidence === undefined ? noEvidence : { ring: evidence.ring, wheel: bucketsIn(evidence, window, now) },
    probing: ends.length,
    leaseMillis: ends.length === 0 ? 0 : Math.min(...ends) - now,
    now
  }
}

const noEvidence = { ring: "", wheel: [] }

const bucketsIn = ({ wheel }: EvidenceRow, window: Window, now: number): ReadonlyArray<Bucket> => {
  const buckets: Array<Bucket> = []
  if (window.buckets === 0) return buckets
  const present = Math.floor(now / window.bucketMillis) * window.bucketMillis
  for (let i = 0; i < wheel.length; i += 4) {
    const [at = 0, calls = 0, failures = 0, slow = 0] = wheel.slice(i, i + 4)
    if (at > present - spanOf(window)) buckets.push({ at, calls, failures, slow })
  }
  return buckets
}
