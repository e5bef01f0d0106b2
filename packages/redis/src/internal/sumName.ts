/**
 * Names of sums in Redis: `SCOPE/DIMENSION/WINDOW/QUANTUM`. Texts are encoded without the separators of the scripts. A code unit
 * that is no letter, digit, `_`, `.` or `-` becomes `%` and four hexadecimal digits. An empty text is a single `%`.
 */
export const encodeText = (text: string): string =>
  text === ""
    ? "%"
    : text.replaceAll(special, (unit) => `%${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)

export const decodeText = (encoded: string): string =>
  encoded === "%"
    ? ""
    : encoded.replaceAll(escape, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16)))

const special = /[^\w.-]/g
const escape = /%([0-9a-f]{4})/g

/** The start of a sum's name: scope and dimension, without the window. */
export const addressOf = (scope: string, dimension: string): string => `${encodeText(scope)}/${encodeText(dimension)}`

/** A window that never ends is -1. */
export const windowOf = (millis: number): number => millis === Number.POSITIVE_INFINITY ? -1 : millis

export const sumName = (scope: string, dimension: string, windowMillis: number, quantumMillis: number): string =>
  `${addressOf(scope, dimension)}/${windowOf(windowMillis)}/${quantumMillis}`

/** Reads a name. `undefined` for a text that is not a name. */
export const parseSum = (
  name: string
): { readonly scope: string; readonly dimension: string; readonly windowMillis: number } | undefined => {
  const [scope, dimension, window, quantum] = name.split("/")
  if (scope === undefined || dimension === undefined || window === undefined || quantum === undefined) return undefined
  const millis = Number(window)
  return {
    scope: decodeText(scope),
    dimension: decodeText(dimension),
    windowMillis: millis < 0 ? Number.POSITIVE_INFINITY : millis
  }
}
