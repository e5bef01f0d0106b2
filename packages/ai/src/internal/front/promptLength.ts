import { bytes, type Measure } from "../resilient/promptSize.ts"
import { isObject } from "../wire/json.ts"

/** An image or a page takes about 1,500 tokens, which are 6,000 characters. */
const charactersOfFile = 6_000

/** A shorter text is taken for a text, whatever it is. */
const leastFile = 2 * charactersOfFile

const base64 = /^(?:data:[^,]{0,200},)?[A-Za-z0-9+/_-]{64,}/

/**
 * About how long the prompt of a request is. All texts count, also those of tools and schemas. A file within the request counts as
 * the text that takes as many tokens.
 */
export const promptLength = (body: Uint8Array): (measure: Measure) => number => {
  let parsed: unknown
  let isParsed = false
  return (measure) => {
    if (!isParsed) {
      isParsed = true
      try {
        parsed = JSON.parse(new TextDecoder().decode(body))
      } catch {
        parsed = undefined
      }
    }
    return parsed === undefined ? body.length : lengthOf(parsed, measure, 0)
  }
}

/** So deep a text is nested in no request. */
const maxDepth = 64

const lengthOf = (value: unknown, measure: Measure, depth: number): number => {
  if (typeof value === "string") return isFile(value) && measure !== bytes ? charactersOfFile : measure(value)
  if (typeof value === "number" || typeof value === "boolean") return measure(String(value))
  if (depth === maxDepth) return 0
  let length = 0
  if (Array.isArray(value)) { for (const element of value) length += lengthOf(element, measure, depth + 1) }
  else if (isObject(value)) {
    for (const key in value) length += measure(key) + lengthOf(value[key], measure, depth + 1)
  }
  return length
}

const isFile = (text: string): boolean => text.length >= leastFile && base64.test(text)
