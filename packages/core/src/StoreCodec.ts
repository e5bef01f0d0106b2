/**
 * Tools for stores that keep circuits and quotas outside of the process: valid input, keys as plain ASCII, the control of a circuit as
 * JSON.
 *
 * **When to use**
 *
 * To write a `CircuitBreakerStore` or `QuotaStore` on a database or service. The stores on Redis and SQL are built with it.
 *
 * **Details**
 *
 * - Check the input first. A database may store a NaN, or round a number above the safe integers, and the row could never be read again.
 * - Any process can write to a database. So decode what is read with a schema, such as `TargetJson`.
 *
 * **Example** (A control, stored as JSON)
 *
 * ```ts
 * import { Schema } from "effect"
 * import * as StoreCodec from "@sluice/core/StoreCodec"
 *
 * const fields = StoreCodec.transitionFields({ _tag: "Forced", forMillis: 1_000.5, mode: "ForcedOpen", reason: "maintenance" })
 * const target = Schema.decodeSync(StoreCodec.TargetJson)(fields?.target ?? "")
 * const { until } = StoreCodec.controlOf(target, { since: 5_000, until: 5_000 + (fields?.forMillis ?? 0), by: "an operator" })
 * console.log(StoreCodec.encodeKey("über alles"), until) // => ~00fcber!0020alles 6001
 * ```
 *
 * @since 0.1.0
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Control, Mode, Target, Window } from "./CircuitBreakerStore.ts"
import type { Ask } from "./QuotaStore.ts"

/**
 * Encodes the key of a circuit or a quota.
 *
 * **Details**
 *
 * - In ASCII: a lone surrogate does not survive UTF-8, so two keys would become one. Postgres refuses a NUL.
 * - In the same order by bytes as the key by code units, which is the order of `CircuitBreakerStore.list`.
 * - Without braces: Redis Cluster hashes the text between the first braces to find the slot.
 *
 * Characters from `"` to `z`, which is nearly all that keys are made of, stay as they are. A lower code unit becomes `!` and four
 * hexadecimal digits, a higher one `~` and four. The empty key is a lone `!`, since Redis ignores empty braces.
 *
 * @since 0.1.0
 * @category keys
 */
export const encodeKey = (key: string): string => {
  if (plain.test(key)) return key
  if (key === "") return emptyKey
  return key.replaceAll(special, (unit) => {
    const code = unit.charCodeAt(0)
    return `${code < 0x22 ? "!" : "~"}${code.toString(16).padStart(4, "0")}`
  })
}

/**
 * Decodes a key. `undefined` if `encodeKey` does not produce this text.
 *
 * @since 0.1.0
 * @category keys
 */
export const decodeKey = (encoded: string): string | undefined => {
  const key = encoded === emptyKey
    ? ""
    : encoded.replaceAll(escape, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))
  return encodeKey(key) === encoded ? key : undefined
}

const emptyKey = "!"
const plain = /^["-z]+$/
const special = /[^"-z]/g
const escape = /[!~]([0-9a-f]{4})/g

/**
 * The longest duration of a window or a target in milliseconds: 35,000 years. A present plus it is exact in every database.
 *
 * @since 0.1.0
 * @category validation
 */
export const maxMillis: number = 2 ** 50

/**
 * Checks that the store's contract allows the window.
 *
 * @since 0.1.0
 * @category validation
 */
export const isValidWindow = ({ bucketMillis, buckets, calls }: Window): boolean =>
  isCount(calls, 1_000) && isCount(bucketMillis, maxMillis) && isCount(buckets, maxMillis) &&
  (buckets === 0 || bucketMillis > 0) && bucketMillis * buckets <= maxMillis

/**
 * Checks that the generation, and the one after it, are safe integers.
 *
 * @since 0.1.0
 * @category validation
 */
export const isValidGeneration = (generation: number): boolean => isCount(generation, Number.MAX_SAFE_INTEGER - 1)

/**
 * Checks that every character is a sample.
 *
 * @since 0.1.0
 * @category validation
 */
export const isValidSamples = (samples: string): boolean => typeof samples === "string" && !notSample.test(samples)

const notSample = /[^0-Y]/

const isCount = (count: number, max: number): boolean => Number.isSafeInteger(count) && count >= 0 && count <= max

/**
 * Checks the numbers of an ask: whole amounts, a `least` that is not larger, and times that are not negative.
 *
 * @since 0.1.0
 * @category validation
 */
export const isValidAsk = ({ amount, least = amount, limit, quantumMillis, windowMillis }: Ask): boolean =>
  Number.isSafeInteger(amount) && Number.isSafeInteger(least) && least >= 0 && least <= amount && limit >= 0 &&
  windowMillis >= 0 && quantumMillis > 0 && Number.isFinite(quantumMillis)

const Amount = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: maxMillis }))
const modes: ReadonlyArray<Mode> = ["ForcedOpen", "ForcedClosed", "Disabled", "ObserveOnly"]

/**
 * A target as JSON.
 *
 * @since 0.1.0
 * @category schemas
 */
export const TargetJson: Schema.Codec<Target, string> = Schema.fromJsonString(Schema.Union([
  Schema.Struct({
    _tag: Schema.tag("Closed"),
    rampMillis: Amount,
    openings: Amount,
    lastOpen: Amount,
    reason: Schema.String
  }),
  Schema.Struct({
    _tag: Schema.tag("Open"),
    forMillis: Amount,
    openings: Amount,
    hintMillis: Amount,
    because: Schema.Struct({ calls: Amount, failures: Amount, slow: Amount })
  }),
  Schema.Struct({
    _tag: Schema.tag("Forced"),
    forMillis: Amount,
    mode: Schema.Literals(modes),
    reason: Schema.String
  })
]))

const encodeTarget = Schema.encodeUnknownOption(TargetJson)

/**
 * Returns the control that a stored target describes, with the store's times and the id of the transition.
 *
 * @since 0.1.0
 * @category controls
 */
export const controlOf = (
  to: Target,
  stamp: { readonly since: number; readonly until: number; readonly by: string }
): Control => {
  switch (to._tag) {
    case "Closed":
      return { _tag: "Closed", ...stamp, openings: to.openings, lastOpen: to.lastOpen, reason: to.reason }
    case "Open": {
      const hinted = to.hintMillis === 0 ? 0 : stamp.since + to.hintMillis
      return { _tag: "Open", ...stamp, openings: to.openings, hinted, because: to.because }
    }
    case "Forced":
      return { _tag: "Forced", ...stamp, mode: to.mode, reason: to.reason }
  }
}

const untouchedTarget: Target = { _tag: "Closed", rampMillis: 0, openings: 0, lastOpen: 0, reason: "" }

/**
 * The control of a missing circuit.
 *
 * @since 0.1.0
 * @category controls
 */
export const untouched: Control = controlOf(untouchedTarget, { since: 0, until: 0, by: "" })

/**
 * The target of a circuit that its first outcome makes.
 *
 * @since 0.1.0
 * @category controls
 */
export const untouchedJson: string = JSON.stringify(untouchedTarget)

/**
 * What a store keeps of a target.
 *
 * @since 0.1.0
 * @category models
 */
export interface TransitionFields {
  /** The target as JSON, which only the client reads. */
  readonly target: string
  readonly state: Target["_tag"]
  readonly forMillis: number
  /** Whether outcomes of calls that are not probes count: 1 or 0. */
  readonly counts: 0 | 1
  /** How long the circuit must not be evicted, used or not. */
  readonly rememberMillis: number
}

/**
 * Returns what to store. Durations are rounded up, so that none becomes shorter. `undefined` for a target that cannot be stored, such
 * as one with an infinite duration.
 *
 * @since 0.1.0
 * @category controls
 */
export const transitionFields = (to: Target): TransitionFields | undefined => {
  const rounded = inWholeMillis(to)
  const target = Option.getOrUndefined(encodeTarget(rounded))
  if (target === undefined) return undefined
  const state = rounded._tag
  switch (rounded._tag) {
    case "Closed": {
      const { lastOpen, rampMillis } = rounded
      return { target, state, forMillis: rampMillis, counts: 1, rememberMillis: Math.max(rampMillis, lastOpen) }
    }
    case "Open": {
      const { forMillis, hintMillis } = rounded
      return { target, state, forMillis, counts: 0, rememberMillis: Math.max(forMillis, hintMillis) }
    }
    case "Forced": {
      const { forMillis, mode } = rounded
      return { target, state, forMillis, counts: mode === "Disabled" ? 0 : 1, rememberMillis: forMillis }
    }
  }
}

const inWholeMillis = (to: Target): Target => {
  switch (to._tag) {
    case "Closed":
      return { ...to, rampMillis: Math.ceil(to.rampMillis) }
    case "Open":
      return { ...to, forMillis: Math.ceil(to.forMillis), hintMillis: Math.ceil(to.hintMillis) }
    case "Forced":
      return { ...to, forMillis: Math.ceil(to.forMillis) }
  }
}
