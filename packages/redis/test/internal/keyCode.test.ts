import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import { decodeKey, encodeKey } from "../../src/internal/keyCode.ts"

// Few units, so that keys have beginnings in common; among them what is escaped, what escapes are made of, and both halves of
// a surrogate pair, alone and together.
const units = ["", "a", "0", "!", "~", "{", "}", "\u0000", " ", "\n", "\"", "z", "\u00e9", "\ud83d", "\udca5", "\ue000"]
const Key = Arbitrary.map(Arbitrary.array(Arbitrary.schema(Schema.Literals(units))), (parts) => parts.join(""))

describe("a key in Redis", () => {
  it("is what it was, where it is of the usual characters", () => {
    for (const key of ["openai", "openai/gpt-4o:eu_west", "https://api.example.com/v1?a=[1]", "__proto__"]) {
      assert.strictEqual(encodeKey(key), key)
    }
  })

  it("is escaped unit by unit where it is not", () => {
    assert.deepStrictEqual(["", "{a}", "a b", "!", "~", "\u{1F4A5}"].map(encodeKey), [
      "!",
      "~007ba~007d",
      "a!0020b",
      "!0021",
      "~007e",
      "~d83d~dca5"
    ])
  })

  it.prop("is never empty, and ASCII without braces", [Key], ([key]) => /^[!-z~]+$/.test(encodeKey(key)))

  it.prop("comes back as it was", [Key], ([key]) => decodeKey(encodeKey(key)) === key)

  it.prop("stands where it stood when sorted by code unit", [Key, Key], ([a, b]) => {
    const order = (one: string, other: string) => one < other ? -1 : one > other ? 1 : 0
    return order(a, b) === order(encodeKey(a), encodeKey(b))
  })

  it("is none if it was never encoded", () => {
    for (const text of ["", "a b", "{", "a!", "!0041", "~00", "~007B", "!007b", "~0020", "é", "!!"]) {
      assert.isUndefined(decodeKey(text), text)
    }
  })
})
