import * as BoundedJson from "@sluice/core/BoundedJson"
import * as Result from "effect/Result"
import * as Json from "../../wire/json.ts"

/**
 * The data of whole events. An event without data, such as a comment that keeps a connection open, is an empty text.
 *
 * Faster than a parser of event streams, since events never begin or end within the bytes.
 */
export const dataOf = (bytes: Uint8Array): Array<string> => {
  const decoded = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString()
  // JSON has no bare line breaks, so each one ends a line.
  const text = decoded.includes("\r") ? decoded.replace(/\r\n?/g, "\n") : decoded
  const all: Array<string> = []
  let from = text.startsWith("\uFEFF") ? 1 : 0
  while (from < text.length) {
    const end = text.indexOf("\n\n", from)
    const event = end === -1 ? text.slice(from) : text.slice(from, end)
    if (event !== "" && event !== "\n") all.push(dataIn(event))
    if (end === -1) break
    from = end + 2
  }
  return all
}

const dataIn = (event: string): string => {
  const isFirst = event.startsWith("data:")
  const at = isFirst ? 0 : event.indexOf("\ndata:") + 1
  if (at === 0 && !isFirst) return ""
  const end = event.indexOf("\n", at)
  const first = valueOf(end === -1 ? event.slice(at) : event.slice(at, end))
  if (end === -1) return first
  const more = event.slice(end + 1).split("\n").filter((line) => line.startsWith("data:")).map(valueOf)
  return more.length === 0 ? first : [first, ...more].join("\n")
}

const valueOf = (line: string): string => line.slice(line.startsWith("data: ") ? 6 : 5)

/** The bytes of events. `undefined`: there are none. */
export const bytesOf = (events: string): Uint8Array | undefined => events === "" ? undefined : Buffer.from(events)

const maxDepth = 64
/** A shorter text cannot nest deep enough to exhaust the stack. */
const shortLength = 2000

/** The object in the data of an event. `undefined`: there is none, or it nests too deep for functions that recurse. */
export const parse = (data: string): Json.JsonObject | undefined => {
  if (data.length >= shortLength) {
    const json = BoundedJson.parse(data, maxDepth)
    return Result.isSuccess(json) ? Json.object(json.success) : undefined
  }
  try {
    return Json.object(JSON.parse(data))
  } catch {
    return undefined
  }
}
