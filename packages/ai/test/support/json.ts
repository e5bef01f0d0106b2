import { Schema } from "effect"

/** Encodes a value as JSON text and decodes it again. */
export const throughJson = <A, I>(schema: Schema.Codec<A, I>, value: A): A => {
  const json = Schema.toCodecJson(schema)
  return Schema.decodeUnknownSync(json)(JSON.parse(JSON.stringify(Schema.encodeSync(json)(value))))
}
