import * as Schema from "effect/Schema"
import { digestBytes } from "../kit/hash.ts"

const nullish = <S extends Schema.Top>(schema: S) => Schema.optional(Schema.NullOr(schema))

export const defaultDimensions = 16

export const Request = Schema.fromJsonString(Schema.Struct({
  model: Schema.String,
  input: Schema.Union([Schema.String, Schema.NonEmptyArray(Schema.String)]),
  dimensions: nullish(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 4096 }))),
  encoding_format: nullish(Schema.Literals(["float", "base64"]))
}))

export type Request = typeof Request.Type

/**
 * The vector of a text, of length 1. It depends on the text alone, and texts that share words are closer to each other.
 */
export const vector = (text: string, dimensions: number = defaultDimensions): ReadonlyArray<number> => {
  const sum = Array.from({ length: dimensions }, () => 0)
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [""]
  for (const word of words) {
    let bytes = digestBytes(word)
    for (let i = 0; i < dimensions; i++) {
      if (i > 0 && i % bytes.length === 0) bytes = digestBytes(`${word} ${i}`)
      sum[i] = (sum[i] ?? 0) + (bytes[i % bytes.length] ?? 0) / 127.5 - 1
    }
  }
  const length = Math.hypot(...sum)
  return sum.map((value) => length === 0 ? 0 : value / length)
}

const base64 = (vector: ReadonlyArray<number>): string => {
  const bytes = new DataView(new ArrayBuffer(vector.length * 4))
  vector.forEach((value, i) => bytes.setFloat32(i * 4, value, true))
  return Buffer.from(bytes.buffer).toString("base64")
}

export const answer = ({ dimensions, encoding_format, input, model }: Request, inputTokens: number) => ({
  object: "list",
  data: (typeof input === "string" ? [input] : input).map((text, index) => {
    const embedding = vector(text, dimensions ?? defaultDimensions)
    return { object: "embedding", index, embedding: encoding_format === "base64" ? base64(embedding) : embedding }
  }),
  model,
  usage: { prompt_tokens: inputTokens, total_tokens: inputTokens }
})
