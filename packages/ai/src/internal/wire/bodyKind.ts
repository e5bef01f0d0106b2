/**
 * The format of a body, by its first characters. Content types are unreliable: servers label streams as JSON, JSON as streams,
 * or send no type.
 */
export type BodyKind = "events" | "json" | "other"

const codes = (text: string): ReadonlyArray<number> => [...text].map((character) => character.charCodeAt(0))

const blanks = new Set(codes(" \t\r\n"))
const byteOrderMark = [0xef, 0xbb, 0xbf]
const colon = ":".charCodeAt(0)
const jsonStarts = new Set(codes("{["))
const fields = ["data", "event", "id", "retry"].map(codes)
const fieldEnds = new Set(codes(":\r\n"))

/** Returns the kind of a body that begins with these bytes. `undefined` if more bytes are needed. */
export const kindOf = (bytes: Uint8Array): BodyKind | undefined => {
  let at = byteOrderMark.every((byte, index) => bytes[index] === byte) ? byteOrderMark.length : 0
  for (let byte = bytes[at]; byte !== undefined && blanks.has(byte); byte = bytes[at]) at++
  const first = bytes[at]
  if (first === undefined) return undefined
  if (first === byteOrderMark[0] && bytes.length < byteOrderMark.length) return undefined
  if (jsonStarts.has(first)) return "json"
  // A comment line of an event stream.
  if (first === colon) return "events"
  for (const field of fields) {
    const matching = matchingLength(field, bytes, at)
    if (at + matching === bytes.length) return undefined
    const next = bytes[at + matching]
    if (matching === field.length && next !== undefined && fieldEnds.has(next)) return "events"
  }
  return "other"
}

const matchingLength = (field: ReadonlyArray<number>, bytes: Uint8Array, from: number): number => {
  let length = 0
  while (length < field.length && bytes[from + length] === field[length]) length++
  return length
}

/** The JSON texts of a body of lines, and of one that ends with a stream's `[DONE]`. `undefined` if it is one text. */
export const linesOf = (body: string): ReadonlyArray<string> | undefined => {
  const lines = body.split("\n").map((line) => line.trim()).filter((line) => line !== "")
  const isLines = lines.length > 1 && lines.every((line) => line.startsWith("{") && line.endsWith("}"))
  return isLines ? lines : undefined
}

const doneAtEnd = /\s(?:data:\s*)?\[DONE\]\s*$/

/** Removes the `[DONE]` of a stream that some servers write after a whole answer. */
export const withoutDone = (body: string): string => body.replace(doneAtEnd, "")
