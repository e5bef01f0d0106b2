import { assert, describe, it } from "@effect/vitest"
import { decodeKey, encodeKey } from "@sluice/core/StoreCodec"
import { Arbitrary, Schema } from "effect"

// A few code units, so that many keys share a prefix. Some are escaped, some are part of escapes, and some are surrogates.
const units = ["", "a", "0", "!", "~", "{", "}", "\u0000", " ", "\n", "\"", "z", "\u00e9", "\ud83d", "\udca5", "\ue000"]
const Key = Arbitrary.map(Arbitrary.array(Arbitrary.schema(Schema.Literals(units))), (parts) => parts.join(""))

describe("encodeKey", () => {
  it("a key of common characters stays as it is", () => {
    for (const key of ["openai", "openai/gpt-4o:eu_west", "https://api.example.com/v1?a=[1]", "__proto__"]) {
      assert.strictEqual(encodeKey(key), key)
    }
  })

  it("other characters are escaped, each code unit on its own", () => {
    assert.deepStrictEqual(["", "{a}", "a b", "!", "~", "\u{1F4A5}"].map(encodeKey), [
      "!",
      "~007ba~007d",
      "a!0020b",
      "!0021",
      "~007e",
      "~d83d~dca5"
    ])
  })

  it.prop("an encoded key is ASCII without braces, and not empty", [Key], ([key]) => /^[!-z~]+$/.test(encodeKey(key)))

  it.prop("decodeKey returns the encoded key", [Key], ([key]) => decodeKey(encodeKey(key)) === key)

  it.prop("encoded keys sort like the keys by code unit", [Key, Key], ([a, b]) => {
    const order = (one: string, other: string) => one < other ? -1 : one > other ? 1 : 0
    return order(a, b) === order(encodeKey(a), encodeKey(b))
  })

  it("decodeKey returns undefined for a text that encodeKey does not produce", () => {
    for (const text of ["", "a b", "{", "a!", "!0041", "~00", "~007B", "!007b", "~0020", "é", "!!"]) {
      assert.isUndefined(decodeKey(text), text)
    }
  })
})
