/** What a request asks for, as far as the limits of a key need it. */
import * as BoundedJson from "@sluice/core/BoundedJson"
import * as Result from "effect/Result"

/** The calls of models whose use is known at their end. */
const calls = new Set(["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages"])

/** Whether a key with limits may use this path: the models and the use of its requests are known. */
export const isKnown = (method: string, path: string): boolean =>
  method === "POST"
    ? calls.has(path) || path === "/v1/messages/count_tokens"
    : method === "GET" && /^\/v1\/models(?:\/|$)/.test(path)

export interface Asked {
  readonly model: string
  /** The tokens of its input, estimated from above. */
  readonly inputTokens: number
  /** The most tokens of its answer. Estimated if the request does not limit it. */
  readonly outputTokens: number
}

/** Most answers have fewer tokens. */
const usualOutputTokens = 4_096

/** A token of most languages and models takes three bytes or more. */
const bytesOfToken = 3

/** So deep no schema of a tool is nested. */
const maxDepth = 128

/** Reads the body of a call. `undefined`: it names no model, is no JSON object, or nests too deep. */
export const read = (body: Uint8Array): Asked | undefined => {
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString()
  const parsed = BoundedJson.parse(text, maxDepth)
  const json = Result.isSuccess(parsed) ? parsed.success : undefined
  if (typeof json !== "object" || json === null || !("model" in json) || typeof json.model !== "string") {
    return undefined
  }
  // Servers differ in which one counts, and a key could get a model that it may not use.
  if (countOf(text, "model") !== 1) return undefined
  const fields: { readonly [field: string]: unknown } = { ...json }
  const most = ["max_completion_tokens", "max_tokens", "max_output_tokens"].map((field) => countIn(fields[field]))
  const choices = countIn(fields["n"]) ?? 1
  return {
    model: json.model,
    inputTokens: Math.ceil(body.length / bytesOfToken),
    outputTokens: (most.find((most) => most !== undefined) ?? usualOutputTokens) * choices
  }
}

const countIn = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isSafeInteger(value) && value > 0 && value <= 1e9 ? value : undefined

/** How often a JSON object has a key, at its top level. */
const countOf = (json: string, key: string): number => {
  let depth = 0
  let count = 0
  for (let at = 0; at < json.length; at++) {
    const character = json[at]
    if (character === "{" || character === "[") depth++
    else if (character === "}" || character === "]") depth--
    else if (character === "\"") {
      const end = stringEnd(json, at)
      // A string before a colon is a key.
      if (depth === 1 && isBeforeColon(json, end) && JSON.parse(json.slice(at, end)) === key) count++
      at = end - 1
    }
  }
  return count
}

const isBeforeColon = (json: string, from: number): boolean => {
  let at = from
  while (/\s/.test(json[at] ?? "")) at++
  return json[at] === ":"
}

/** Where a string of valid JSON ends, after its quote. */
const stringEnd = (json: string, from: number): number => {
  let at = json.indexOf("\"", from + 1)
  while (isEscaped(json, at)) at = json.indexOf("\"", at + 1)
  return at + 1
}

const isEscaped = (json: string, at: number): boolean => {
  let before = at
  while (json[before - 1] === "\\") before--
  return (at - before) % 2 === 1
}
