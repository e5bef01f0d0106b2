import type { Ask, Ceiling, Learned, StoredLevel, Verdict } from "@sluice/core/QuotaStore"
import { decodeKey } from "@sluice/core/StoreCodec"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { AskRow, Held, LearnedRow, SumRow } from "./rows.ts"

// Any client can write to the tables, so every row is validated here before it is used.

const Name = Schema.fromJsonString(Schema.Tuple([Schema.String, Schema.String, Schema.Finite, Schema.Finite]))

const Learns = Schema.fromJsonString(
  Schema.Record(Schema.String, Schema.Tuple([Schema.Finite, Schema.Finite, Schema.Finite]))
)

const Holds = Schema.fromJsonString(Schema.Array(Schema.Struct({
  name: Schema.String,
  address: Schema.String,
  span: Schema.Finite,
  quantum: Schema.Finite,
  bucket: Schema.NullOr(Schema.Int),
  amount: Schema.Int
})))

const Sum = Schema.Struct({
  name: Schema.String,
  span: Schema.Finite,
  quantum: Schema.Finite,
  used: Schema.Int,
  oldest: Schema.Int,
  buckets: Schema.String.check(Schema.isPattern(/^(-?\d{1,16}(,-?\d{1,16})*)?$/))
})

const Numbers = Schema.Array(Schema.Finite)

const VerdictRow = Schema.Struct({
  ok: Schema.Boolean,
  now: Schema.Int,
  wait: Schema.Finite,
  blocked: Schema.Int,
  used: Schema.NullOr(Numbers),
  granted: Schema.NullOr(Numbers),
  learned: Schema.String
})

const CeilingRow = Schema.Struct({ most: Schema.Finite, age: Schema.Finite, rests: Schema.Finite })

const LevelRow = Schema.Struct({ name: Schema.String, used: Schema.Int })

const decoder = <A>(schema: Schema.Codec<A, unknown>) => {
  const decode = Schema.decodeUnknownOption(schema)
  return (value: unknown): A | undefined => Option.getOrUndefined(decode(value))
}

const decodeName = decoder(Name)
const decodeLearned = decoder(Learns)
const decodeHolds = decoder(Holds)
const decodeSum = decoder(Sum)
const decodeVerdict = decoder(VerdictRow)
const decodeCeiling = decoder(CeilingRow)
const decodeLevel = decoder(LevelRow)

const finite = (value: number): number => value === Number.POSITIVE_INFINITY ? -1 : value
const infinite = (value: number): number => value < 0 ? Number.POSITIVE_INFINITY : value

/** Scope and dimension as a text. JSON escapes what a database cannot store. */
export const addressOf = (scope: string, dimension: string): string => JSON.stringify([scope, dimension])

export const askRow = (
  { agoMillis = 0, amount, dimension, least = amount, limit, quantumMillis, scope, windowMillis }: Ask & {
    readonly agoMillis?: number | undefined
  }
): AskRow => ({
  name: JSON.stringify([scope, dimension, finite(windowMillis), quantumMillis]),
  address: addressOf(scope, dimension),
  span: finite(windowMillis),
  quantum: quantumMillis,
  amount,
  least,
  limit: finite(limit),
  agoMillis
})

/** The ceilings of a target. `undefined` if the text is invalid. */
export const learnedIn = (text: string, now: number): ReadonlyArray<Learned> | undefined => {
  if (text === "{}") return noneLearned
  const rows = decodeLearned(text)
  if (rows === undefined) return undefined
  const learned: Array<Learned> = []
  for (const [encoded, row] of Object.entries(rows)) {
    const dimension = decodeKey(encoded)
    if (dimension === undefined) return undefined
    learned.push({ dimension, ...ceilingOf(row, now) })
  }
  return learned
}

const noneLearned: ReadonlyArray<Learned> = []

export const learnedRows = (text: unknown): { readonly [dimension: string]: LearnedRow } | undefined =>
  decodeLearned(text)

export const ceilingOf = ([limit, setAt, restUntil]: LearnedRow, now: number): Ceiling => ({
  limit: infinite(limit),
  ageMillis: limit < 0 ? 0 : Math.max(0, now - setAt),
  restMillis: Math.max(0, restUntil - now)
})

export const ceilingIn = (row: unknown): Ceiling | undefined => {
  const decoded = decodeCeiling(row)
  return decoded && { limit: infinite(decoded.most), ageMillis: decoded.age, restMillis: decoded.rests }
}

export const verdictIn = (row: unknown, asks: number): Verdict | undefined => {
  const decoded = decodeVerdict(row)
  if (decoded === undefined) return undefined
  const { blocked, granted, learned: text, now, ok, used, wait } = decoded
  const learned = learnedIn(text, now)
  if (learned === undefined || (used?.length ?? 0) !== asks || (granted?.length ?? 0) !== asks) return undefined
  return { ok, now, waitMillis: wait, blockedBy: blocked, used: used ?? [], granted: granted ?? [], learned }
}

/** The levels of some scopes, in the order of their names. `undefined` if a row is invalid. */
export const levelsIn = (
  rows: ReadonlyArray<unknown>,
  scopes: ReadonlyArray<string>
): ReadonlyArray<StoredLevel> | undefined => {
  const levels: Array<StoredLevel> = []
  for (const row of rows) {
    const level = decodeLevel(row)
    const name = level && decodeName(level.name)
    if (level === undefined || name === undefined) return undefined
    const [scope, dimension, window] = name
    if (scopes.includes(scope)) levels.push({ scope, dimension, windowMillis: infinite(window), used: level.used })
  }
  return levels.toSorted((a, b) => nameOf(a) < nameOf(b) ? -1 : 1)
}

const nameOf = ({ dimension, scope, windowMillis }: StoredLevel): string =>
  JSON.stringify([scope, dimension, windowMillis])

export const sumIn = (row: unknown): SumRow | undefined => {
  const sum = decodeSum(row)
  return sum && { ...sum, buckets: sum.buckets === "" ? [] : sum.buckets.split(",").map(Number) }
}

export const heldIn = (text: unknown): ReadonlyArray<Held> | undefined => decodeHolds(text)
