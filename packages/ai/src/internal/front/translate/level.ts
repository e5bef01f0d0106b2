import * as Result from "effect/Result"
import type * as Json from "../../wire/json.ts"
import * as ExactJson from "./exactJson.ts"

/** Why a request has no translation. */
export interface Refusal {
  /** The path of the field, such as `messages[2].content[0].input_audio`. */
  readonly param: string
  readonly message: string
}

/** Thrown inside a translation. Not an error: it needs no stack. */
class Untranslatable implements Refusal {
  readonly param: string
  readonly message: string

  constructor(param: string, message: string) {
    this.param = param
    this.message = message
  }
}

export const refuse = (param: string, why = "has no equivalent in the API of this target"): never => {
  throw new Untranslatable(param, `${param === "" ? "The request" : param} ${why}`)
}

/**
 * What becomes of a field. `translated`: the code reads it. `omitted`: it changes the cost of an answer and not its meaning, so it is
 * left out and reported. A list: only these values are accepted, since they ask for what happens without the field.
 */
type Rule = "translated" | "omitted" | ReadonlyArray<unknown>

/** The fields that an object may have. Every other field is refused. Null counts as absent. */
export type Level = ReadonlyMap<string, Rule>

export const level = (
  translated: string,
  rules: { readonly omitted?: string; readonly neutral?: { readonly [name: string]: ReadonlyArray<unknown> } } = {}
): Level =>
  new Map<string, Rule>([
    ...translated.split(" ").map((name) => [name, "translated"] as const),
    ...(rules.omitted?.split(" ") ?? []).map((name) => [name, "omitted"] as const),
    ...Object.entries(rules.neutral ?? {})
  ])

/** A longer name of a field is cut. */
const longestName = 64

export const join = (at: string, name: string): string => {
  const short = name.length > longestName ? `${name.slice(0, longestName)}…` : name
  return at === "" ? short : `${at}.${short}`
}

/** Reads the objects of one request. */
export class Reader {
  /** The names of the fields that were left out. */
  readonly omitted = new Set<string>()

  /** Checks that a value is an object with fields of this level only. */
  object(value: unknown, at: string, level: Level): Json.JsonObject {
    const object = this.anyObject(value, at)
    for (const name in object) {
      const field = object[name]
      if (field === null || field === undefined) continue
      const rule = level.get(name)
      if (rule === "translated") continue
      if (rule === "omitted") this.omitted.add(name)
      else if (rule === undefined || !rule.some((neutral) => isSame(neutral, field))) refuse(join(at, name))
    }
    return object
  }

  anyObject(value: unknown, at: string): Json.JsonObject {
    return ExactJson.isObject(value) ? value : refuse(at, "must be an object")
  }

  array(value: unknown, at: string): ReadonlyArray<unknown> {
    return Array.isArray(value) ? value : refuse(at, "must be an array")
  }

  text(value: unknown, at: string): string {
    return typeof value === "string" ? value : refuse(at, "must be a string")
  }

  optionalText(object: Json.JsonObject, name: string, at: string): string | undefined {
    const value = object[name]
    return value === null || value === undefined ? undefined : this.text(value, join(at, name))
  }

  optionalBoolean(object: Json.JsonObject, name: string, at: string): boolean | undefined {
    const value = object[name]
    if (value === null || value === undefined) return undefined
    return typeof value === "boolean" ? value : refuse(join(at, name), "must be a boolean")
  }

  /** A number, as it was written. */
  optionalNumber(object: Json.JsonObject, name: string, at: string): unknown {
    const value = object[name]
    if (value === null || value === undefined) return undefined
    return ExactJson.numberOf(value) === undefined ? refuse(join(at, name), "must be a number") : value
  }
}

// The values of a level are short, and a request is not nested deeper than the bound.
const isSame = (one: unknown, other: unknown): boolean =>
  one === other || (typeof one === "object" && JSON.stringify(one) === JSON.stringify(other))

/** A translated request. */
export interface Translated {
  readonly request: Json.JsonObject
  /** The names of the fields that were left out. */
  readonly omitted: ReadonlyArray<string>
}

/**
 * Translates a request, or refuses it. `omittable`: the fields at the top of the request that may be left out if they have no equivalent.
 */
export const translated = (
  value: unknown,
  omittable: ReadonlyArray<string>,
  translate: (request: Json.JsonObject, reader: Reader) => Json.JsonObject
): Result.Result<Translated, Refusal> => {
  const dropped: Array<string> = []
  let request = value
  for (;;) {
    const reader = new Reader()
    try {
      const translation = translate(reader.anyObject(request, ""), reader)
      return Result.succeed({ request: translation, omitted: [...dropped, ...reader.omitted] })
    } catch (refusal) {
      if (!(refusal instanceof Untranslatable)) throw refusal
      const [field = ""] = refusal.param.split(/[.[]/, 1)
      if (!omittable.includes(field) || !ExactJson.isObject(request) || !Object.hasOwn(request, field)) {
        return Result.fail({ param: refusal.param, message: refusal.message })
      }
      dropped.push(field)
      const { [field]: _, ...rest } = request
      request = rest
    }
  }
}
