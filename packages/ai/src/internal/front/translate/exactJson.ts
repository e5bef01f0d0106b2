import * as BoundedJson from "@sluice/core/BoundedJson"
import * as Result from "effect/Result"
import * as Json from "../../wire/json.ts"

// `JSON.parse` rounds numbers of more than 15 digits, such as ids in the arguments of a tool call or limits in its schema, and turns
// 1e400 into Infinity, which `JSON.stringify` writes as null. Such a number is kept as its text. Numbers of the same value in
// another form may change: 1.0 becomes 1.

/** ECMAScript's raw JSON, which Node has since version 21. TypeScript's library does not have its types yet. */
interface RawJson {
  readonly rawJSON?: (text: string) => unknown
  readonly isRawJSON?: (value: unknown) => value is { readonly rawJSON: string }
}

const { isRawJSON, rawJSON }: RawJson = JSON as RawJson

/** A number in an object or array that may not survive a round trip. Also matches a few texts, which then cost time only. */
const longNumber = /[:[,\s]-?(?:[\d.]{16}|[\d.]+[eE][+-]?\d{3})/

/** Parses JSON without changing the value of any number. `undefined`: it is no JSON, or nests deeper than `maxDepth`. */
export const parse = (text: string, maxDepth: number): { readonly value: unknown } | undefined => {
  const plain = BoundedJson.parse(text, maxDepth)
  if (Result.isFailure(plain)) return undefined
  if (rawJSON === undefined || !longNumber.test(text)) return { value: plain.success }
  // Several times slower, so only for the few texts that need it.
  const keep = (_: string, value: unknown, context?: { readonly source?: string }): unknown =>
    typeof value === "number" && context?.source !== undefined && String(value) !== context.source
      ? rawJSON(context.source)
      : value
  return { value: JSON.parse(text, keep) }
}

/** The value of a number, also of one that is kept as its text. */
export const numberOf = (value: unknown): number | undefined => {
  if (typeof value === "number") return value
  return isRawJSON?.(value) === true ? Number(value.rawJSON) : undefined
}

export const isObject = (value: unknown): value is Json.JsonObject =>
  Json.isObject(value) && isRawJSON?.(value) !== true
