import * as Json from "../wire/json.ts"

const quote = 0x22
const backslash = 0x5c
const comma = 0x2c
const colon = 0x3a
const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d

/** Where a value begins and ends. */
type Range = readonly [from: number, to: number]

/** A longer value is not parsed: the fields that are read are short. */
const longestValue = 65_536

/** What a request asks for. A field of another type counts as absent. */
export interface Asked {
  readonly model: string | undefined
  readonly isStream: boolean
  /** The choices of a chat completion. Default: 1. */
  readonly choices: number
  /** The most tokens of the answer. */
  readonly maxTokens: number | undefined
  /** Whether a streamed chat completion ends with its token counts. */
  readonly includesUsage: boolean
}

const askedKeys = new Set([
  "model",
  "stream",
  "n",
  "max_tokens",
  "max_completion_tokens",
  "max_output_tokens",
  "stream_options"
])

/** Reads what a request asks for, without parsing all of it. `undefined`: the body is no JSON object. */
export const asked = (body: Uint8Array): Asked | undefined => {
  const bytes = asBuffer(body)
  const ranges = rangesOf(bytes, askedKeys)
  if (ranges === undefined) return undefined
  const value = (key: string): unknown => lastValue(bytes, ranges, key)
  const model = value("model")
  const choices = Json.count(value("n"))
  return {
    model: typeof model === "string" ? model : undefined,
    isStream: value("stream") === true,
    choices: choices === undefined || choices < 1 ? 1 : choices,
    maxTokens: Json.count(value("max_completion_tokens") ?? value("max_tokens") ?? value("max_output_tokens")),
    includesUsage: Json.object(value("stream_options"))?.["include_usage"] === true
  }
}

/** The value of a field of a JSON object. `undefined`: there is none, it is longer than 64 KiB, or the body is no JSON object. */
export const field = (body: Uint8Array, key: string): unknown => {
  const bytes = asBuffer(body)
  const ranges = rangesOf(bytes, new Set([key]))
  return ranges === undefined ? undefined : lastValue(bytes, ranges, key)
}

/**
 * Sets a field of a JSON object to a value, which is JSON. All other bytes stay as they are, so that no number changes.
 *
 * Replaces each of several fields with the same key, since servers differ in which one counts. Returns the same body if it
 * has the value already, or if it is no JSON object.
 */
export const splice = (body: Uint8Array, key: string, json: string): Uint8Array => {
  const bytes = asBuffer(body)
  const ranges = rangesOf(bytes, new Set([key]))
  if (ranges === undefined) return body
  const value = Buffer.from(json)
  const own = ranges.get(key)
  if (own === undefined) return withField(bytes, Buffer.from(`${JSON.stringify(key)}:`), value)
  if (own.every(([from, to]) => value.equals(bytes.subarray(from, to)))) return body
  const pieces: Array<Uint8Array> = []
  let at = 0
  for (const [from, to] of own) {
    pieces.push(bytes.subarray(at, from), value)
    at = to
  }
  pieces.push(bytes.subarray(at))
  return Buffer.concat(pieces)
}

/** Adds an item, which is JSON, to the end of a list that is a field of a JSON object. `undefined`: there is no such field, or several. */
export const append = (body: Uint8Array, key: string, json: string): Uint8Array | undefined => {
  const bytes = asBuffer(body)
  const own = rangesOf(bytes, new Set([key]))?.get(key) ?? []
  const [range] = own
  if (range === undefined || own.length > 1 || bytes[range[0]] !== openBracket) return undefined
  const end = range[1] - 1
  const separator = bytes[afterSpace(bytes, range[0] + 1)] === closeBracket ? "" : ","
  return Buffer.concat([bytes.subarray(0, end), Buffer.from(separator + json), bytes.subarray(end)])
}

/** Adds a field at the beginning of an object. */
const withField = (bytes: Buffer, key: Uint8Array, value: Uint8Array): Uint8Array => {
  const start = bytes.indexOf(openBrace) + 1
  const separator = bytes[afterSpace(bytes, start)] === closeBrace ? "" : ","
  return Buffer.concat([bytes.subarray(0, start), key, value, Buffer.from(separator), bytes.subarray(start)])
}

// `JSON.parse` and most servers take the last of several fields with the same key.
const lastValue = (bytes: Buffer, ranges: ReadonlyMap<string, ReadonlyArray<Range>>, key: string): unknown => {
  const range = ranges.get(key)?.at(-1)
  return range === undefined || range[1] - range[0] > longestValue
    ? undefined
    : parse(bytes.toString("utf8", range[0], range[1]))
}

const parse = (json: string): unknown => {
  try {
    return JSON.parse(json)
  } catch {
    return undefined
  }
}

/**
 * The places of the values of some fields of a JSON object. `undefined`: the bytes are no JSON object. Only as much of the syntax is
 * checked as these places depend on: the server checks the rest.
 */
const rangesOf = (bytes: Buffer, keys: ReadonlySet<string>): Map<string, Array<Range>> | undefined => {
  const ranges = new Map<string, Array<Range>>()
  let at = afterSpace(bytes, 0)
  if (bytes[at] !== openBrace) return undefined
  at = afterSpace(bytes, at + 1)
  if (bytes[at] === closeBrace) return isEnd(bytes, at + 1) ? ranges : undefined
  for (;;) {
    if (bytes[at] !== quote) return undefined
    const keyEnd = stringEnd(bytes, at)
    if (keyEnd === -1) return undefined
    const key = keyOf(bytes, at, keyEnd)
    at = afterSpace(bytes, keyEnd)
    if (bytes[at] !== colon) return undefined
    const from = afterSpace(bytes, at + 1)
    const to = valueEnd(bytes, from)
    if (to === -1 || to === from) return undefined
    if (key !== undefined && keys.has(key)) {
      const own = ranges.get(key)
      if (own === undefined) ranges.set(key, [[from, to]])
      else own.push([from, to])
    }
    at = afterSpace(bytes, to)
    if (bytes[at] === closeBrace) return isEnd(bytes, at + 1) ? ranges : undefined
    if (bytes[at] !== comma) return undefined
    at = afterSpace(bytes, at + 1)
  }
}

/** The longest key that is read, with every character escaped. */
const longestKey = 256

const keyOf = (bytes: Buffer, from: number, to: number): string | undefined => {
  if (to - from > longestKey) return undefined
  const text = bytes.toString("utf8", from, to)
  if (!text.includes("\\")) return text.slice(1, -1)
  const key = parse(text)
  return typeof key === "string" ? key : undefined
}

/** How many bytes of a string are read one by one before the rest is searched. A search costs as much as reading that many. */
const nearby = 32

/** Where a string ends, after its quote. -1: it does not end. */
const stringEnd = (bytes: Buffer, from: number): number => {
  let at = from + 1
  while (at < bytes.length) {
    for (const near = at + nearby; at < near; at++) {
      const byte = bytes[at]
      if (byte === quote) return at + 1
      if (byte === backslash) at++
    }
    const found = bytes.indexOf(quote, at)
    if (found === -1) return -1
    let before = found
    while (before > at && bytes[before - 1] === backslash) before--
    if ((found - before) % 2 === 0) return found + 1
    at = found + 1
  }
  return -1
}

const valueEnd = (bytes: Buffer, from: number): number => {
  const first = bytes[from]
  if (first === quote) return stringEnd(bytes, from)
  if (first === openBrace || first === openBracket) return nestedEnd(bytes, from)
  let at = from
  while (at < bytes.length && !isDelimiter(bytes[at])) at++
  return at
}

/** Where an object or an array ends, at any depth. */
const nestedEnd = (bytes: Buffer, from: number): number => {
  let depth = 0
  let at = from
  while (at < bytes.length) {
    const byte = bytes[at]
    if (byte === quote) {
      at = stringEnd(bytes, at)
      if (at === -1) return -1
      continue
    }
    at++
    if (byte === openBrace || byte === openBracket) depth++
    else if ((byte === closeBrace || byte === closeBracket) && --depth === 0) return at
  }
  return -1
}

const isDelimiter = (byte: number | undefined): boolean =>
  byte === comma || byte === closeBrace || byte === closeBracket || byte === quote || byte === colon || isSpace(byte)

const isSpace = (byte: number | undefined): boolean => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09

const afterSpace = (bytes: Buffer, from: number): number => {
  let at = from
  while (isSpace(bytes[at])) at++
  return at
}

const isEnd = (bytes: Buffer, from: number): boolean => afterSpace(bytes, from) === bytes.length

const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
