import type { Answer, Bucket, Evidence, Window } from "@sluice/core/CircuitBreakerStore"
import { controlOf, isValidSamples, TargetJson, untouched } from "@sluice/core/StoreCodec"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"

// Any client can write to Redis, so every reply is validated here before it is used.

// `Int` refuses numbers above the safe integers, which are not exact.
const Digits = Schema.String.check(Schema.isPattern(/^\d{1,16}$/)).pipe(
  Schema.decodeTo(Schema.Int, SchemaTransformation.numberFromString)
)

const StoredControl = Schema.Tuple([
  /* generation */ Digits,
  /* since */ Digits,
  /* until */ Digits,
  /* by */ Schema.String,
  /* target */ TargetJson
])

const Reply = Schema.Tuple([
  /* ok */ Schema.Literals([0, 1]),
  /* due */ Schema.Natural,
  /* now */ Schema.Natural,
  /* probing */ Schema.Natural,
  /* leaseMillis */ Schema.Natural,
  /* control */ Schema.NullOr(StoredControl),
  /* the fields of the evidence and their values, joined by spaces */ Schema.String
])

const decodeShape = Schema.decodeUnknownOption(Reply)
const decodeMembers = Schema.decodeUnknownOption(Schema.Array(Schema.String))

/** The reply of a verb's script. */
export interface Decoded extends Answer {
  /** How long the index has to list the circuit. 0 if the index needs no update. */
  readonly dueMillis: number
}

/** Decodes the reply of a script. `undefined` if it is invalid. */
export const decodeReply = (
  reply: unknown,
  { key, window }: { readonly key: string; readonly window: Window }
): Decoded | undefined => {
  const shape = Option.getOrUndefined(decodeShape(reply))
  if (shape === undefined) return undefined
  const [ok, dueMillis, now, probing, leaseMillis, stored, fields] = shape
  const { control, generation } = stored === null ? { control: untouched, generation: 0 } : decodeControl(stored)
  const evidence = decodeEvidence(fields, generation, window, now)
  if (evidence === undefined) return undefined
  const snapshot = { key, generation, control, evidence, probing, leaseMillis, now }
  return { ok: ok === 1, dueMillis, snapshot }
}

/** Decodes a page of the index. Its members are still encoded keys. */
export const decodePage = (reply: unknown): ReadonlyArray<string> | undefined =>
  Option.getOrUndefined(decodeMembers(reply))

const decodeControl = ([generation, since, until, by, target]: typeof StoredControl.Type) => ({
  generation,
  control: controlOf(target, { since, until, by })
})

const noEvidence: Evidence = { ring: "", wheel: [] }

const decodeEvidence = (
  fields: string,
  generation: number,
  { bucketMillis, buckets }: Window,
  now: number
): Evidence | undefined => {
  if (fields === "") return noEvidence
  let ring = ""
  let evidenceGeneration = ""
  const wheel: Array<Bucket> = []
  const oldest = buckets === 0 ? 0 : (Math.floor(now / bucketMillis) - buckets + 1) * bucketMillis
  const words = fields.split(" ")
  for (let i = 0; i < words.length;) {
    const word = words[i++]
    if (word === "generation") evidenceGeneration = words[i++] ?? ""
    else if (word === "ring") ring = words[i++] ?? ""
    else {
      const bucket = {
        at: countOf(word),
        calls: countOf(words[i++]),
        failures: countOf(words[i++]),
        slow: countOf(words[i++])
      }
      if (Number.isNaN(bucket.at + bucket.calls + bucket.failures + bucket.slow)) return undefined
      if (bucket.at >= oldest) wheel.push(bucket)
    }
  }
  // A transition deletes the evidence of its own window only. What other windows keep of an older generation is ignored here.
  if (evidenceGeneration !== String(generation)) return noEvidence
  return isValidSamples(ring) ? { ring, wheel: wheel.sort((a, b) => a.at - b.at) } : undefined
}

const countOf = (word: string | undefined): number => {
  const count = word === "" ? Number.NaN : Number(word)
  return Number.isSafeInteger(count) && count >= 0 ? count : Number.NaN
}
