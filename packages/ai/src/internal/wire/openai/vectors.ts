import * as BoundedJson from "@sluice/core/BoundedJson"
import type * as AiError from "effect/ai/AiError"
import * as Base64 from "effect/encoding/Base64"
import * as Result from "effect/Result"
import type { Bounds } from "../bounds.ts"
import * as Failure from "../failure.ts"

/** The vectors of texts, in the order of the texts. */
export interface Vectors {
  readonly results: Array<Array<number>>
  readonly usage: { readonly inputTokens: number | undefined }
}

interface Fields {
  readonly [field: string]: unknown
}

/** Reads the response to a request with `count` texts. Fails unless there is one vector of finite numbers for each. */
export const read = (
  origin: Failure.Origin,
  response: Failure.ResponseHead,
  { jsonDepth }: Bounds,
  body: string,
  count: number,
  dimensions: number | undefined
): Result.Result<Vectors, AiError.AiError> => {
  const fail = (why: string) => Result.fail(Failure.incompatible(origin, response, why))
  const json = BoundedJson.parse(body, jsonDepth)
  if (Result.isFailure(json)) {
    return json.failure === "TooDeep"
      ? fail(`a response nested deeper than ${jsonDepth} levels`)
      : Result.fail(Failure.notJson(origin, response, body))
  }
  const { data, error, usage } = isFields(json.success) ? json.success : {}
  if (error !== undefined && error !== null) return Result.fail(Failure.fromStream(origin, response, error, body))
  if (!Array.isArray(data)) return fail(`not a list of embeddings: ${Failure.sample(origin, body)}`)
  if (data.length !== count) return fail(`${data.length} embeddings for ${count} texts`)
  const places = placesOf(data)
  if (places === undefined) return fail("embeddings whose indexes are not those of the texts")
  const results: Array<Array<number>> = Array.from({ length: count }, () => [])
  for (const [at, item] of data.entries()) {
    const vector = vectorOf(isFields(item) ? item["embedding"] : undefined)
    if (vector === undefined) return fail(`an embedding that is no list of finite numbers, at ${at}`)
    if (dimensions !== undefined && vector.length !== dimensions) {
      return fail(`an embedding of ${vector.length} numbers, where ${dimensions} were requested`)
    }
    results[places[at] ?? at] = vector
  }
  return Result.succeed({ results, usage: { inputTokens: inputTokens(usage) } })
}

/** The vectors of several requests, in their order. The usage is known only if it is for each. */
export const join = (all: ReadonlyArray<Vectors>): Vectors => {
  let inputTokens: number | undefined = 0
  for (const { usage } of all) {
    inputTokens = inputTokens === undefined || usage.inputTokens === undefined
      ? undefined
      : inputTokens + usage.inputTokens
  }
  return { results: all.flatMap(({ results }) => results), usage: { inputTokens } }
}

/**
 * For each item the number of its text. Some servers leave all indexes out, and some give every item the index 0: these send
 * them in the order of the texts. Gemini leaves only the index 0 out. `undefined` if the indexes are wrong in another way.
 */
const placesOf = (data: ReadonlyArray<unknown>): ReadonlyArray<number> | undefined => {
  const places: Array<number> = []
  for (const item of data) {
    const index = isFields(item) ? item["index"] ?? 0 : 0
    if (typeof index !== "number" || !Number.isInteger(index) || index < 0 || index >= data.length) return undefined
    places.push(index)
  }
  if (places.every((place) => place === 0)) return data.map((_, at) => at)
  return new Set(places).size === data.length ? places : undefined
}

const vectorOf = (embedding: unknown): Array<number> | undefined => {
  const vector = typeof embedding === "string" ? fromBase64(embedding) : embedding
  if (!Array.isArray(vector) || vector.length === 0) return undefined
  // Every element was looked at, so it is a list of numbers.
  return vector.every((value) => Number.isFinite(value)) ? vector as Array<number> : undefined
}

/** Decodes 32-bit floats, the lowest byte first. */
const fromBase64 = (text: string): Array<number> | undefined => {
  const bytes = Base64.decode(text)
  if (Result.isFailure(bytes) || bytes.success.length % 4 !== 0) return undefined
  const { buffer, byteLength, byteOffset } = bytes.success
  const view = new DataView(buffer, byteOffset, byteLength)
  return Array.from({ length: byteLength / 4 }, (_, index) => view.getFloat32(index * 4, true))
}

/** Servers that count only once count under either name. */
const inputTokens = (usage: unknown): number | undefined => {
  if (!isFields(usage)) return undefined
  const count = usage["prompt_tokens"] ?? usage["input_tokens"] ?? usage["total_tokens"]
  return typeof count === "number" && Number.isFinite(count) ? count : undefined
}

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)
