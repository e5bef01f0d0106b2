// Readers of JSON of unknown shape. Other servers with a vendor's API send some values in other types.

export interface JsonObject {
  readonly [name: string]: unknown
}

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value)

export const object = (value: unknown): JsonObject | undefined => isObject(value) ? value : undefined

/** Whether a JSON value has all that another one has. Equal values contain each other. */
export const contains = (value: unknown, other: unknown): boolean => {
  if (Array.isArray(value)) {
    return Array.isArray(other) && value.length === other.length && value.every((each, at) => contains(each, other[at]))
  }
  if (!isObject(value)) return value === other
  return isObject(other) &&
    Object.keys(other).every((name) => Object.hasOwn(value, name) && contains(value[name], other[name]))
}

/** The elements of an array. A single object counts as an array of it. */
export const elements = (value: unknown): ReadonlyArray<unknown> =>
  Array.isArray(value) ? value : isObject(value) ? [value] : []

/** A text that is not empty. A number counts as its digits, as some servers send ids and codes. */
export const text = (value: unknown): string | undefined => {
  if (typeof value === "string") return value === "" ? undefined : value
  return typeof value === "number" ? String(value) : undefined
}

/** An index, also as a string of digits. */
export const index = (value: unknown): number | undefined => {
  const number = typeof value === "string" && value !== "" ? Number(value) : value
  return typeof number === "number" && Number.isInteger(number) ? number : undefined
}

/** A valid token count. */
export const count = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : undefined
