import type { Answer, Bucket, Evidence, Window } from "@sluice/core/CircuitBreakerStore"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { areSamples } from "./circuitGiven.ts"
import { controlOf, TargetJson, untouched } from "./circuitTarget.ts"

// What stands in Redis may have been put there by anybody: nothing of it is believed before it has passed through here.

// Up to 2^53: `Int` refuses what a number cannot tell from its neighbours.
const Digits = Schema.String.check(Schema.isPattern(/^\d{1,16}$/)).pipe(
  Schema.decodeTo(Schema.Int, SchemaTransformation.numberFromString)
)

const Stored = Schema.Tuple([
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
  /* control */ Schema.NullOr(Stored),
  /* fields of the evidence and their values, in one text */ Schema.String
])

const decodeShape = Schema.decodeUnknownOption(Reply)
const decodeMembers = Schema.decodeUnknownOption(Schema.Array(Schema.String))

/** What a script says. */
export interface Decoded extends Answer {
  /** For how long the index should know of the circuit, if it is time to tell it; else 0. */
  readonly dueMillis: number
}

/** Reads what a script says of a circuit; `undefined` if it makes no sense. */
export const decodeReply = (
  reply: unknown,
  { key, window }: { readonly key: string; readonly window: Window }
): Decoded | undefined => {
  const shape = Option.getOrUndefined(decodeShape(reply))
  if (shape === undefined) return undefined
  const [ok, dueMillis, now, probing, leaseMillis, stored, seen] = shape
  const { control, generation } = stored === null ? { control: untouched, generation: 0 } : standing(stored)
  const evidence = evidenceOf(seen, generation, window, now)
  if (evidence === undefined) return undefined
  const snapshot = { key, generation, control, evidence, probing, leaseMillis, now }
  return { ok: ok === 1, dueMillis, snapshot }
}

/** Reads members of the index, as they are encoded. */
export const decodePage = (reply: unknown): ReadonlyArray<string> | undefined =>
  Option.getOrUndefined(decodeMembers(reply))

const standing = ([generation, since, until, by, target]: typeof Stored.Type) => ({
  generation,
  control: controlOf(target, { since, until, by })
})

const none: Evidence = { ring: "", wheel: [] }

const evidenceOf = (
  text: string,
  generation: number,
  { bucketMillis, buckets }: Window,
  now: number
): Evidence | undefined => {
  if (text === "") return none
  let ring = ""
  let of = ""
  const wheel: Array<Bucket> = []
  const oldest = buckets === 0 ? 0 : (Math.floor(now / bucketMillis) - buckets + 1) * bucketMillis
  const words = text.split(" ")
  for (let i = 0; i < words.length;) {
    const word = words[i++]
    if (word === "generation") of = words[i++] ?? ""
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
  // Evidence of another generation is none: a transition need not look for what it makes void.
  if (of !== String(generation)) return none
  return areSamples(ring) ? { ring, wheel: wheel.sort((a, b) => a.at - b.at) } : undefined
}

const countOf = (word: string | undefined): number => {
  const count = word === "" ? Number.NaN : Number(word)
  return Number.isSafeInteger(count) && count >= 0 ? count : Number.NaN
}
