import { assert, describe, it } from "@effect/vitest"
import * as Mask from "../src/Mask.ts"

describe("Mask", () => {
  it.each([
    "ollama",
    "EMPTY",
    "dummy",
    "lm-studio",
    "no-key-required",
    "sk-no-key-required",
    "password123",
    "llama3.2",
    "Bearer",
    "my secret key",
    "12345678",
    "a1b2"
  ])("a key that could be ordinary text, such as `%s`, is not masked", (key) => {
    const text = `model ${key} not found, see ${key}.`
    assert.strictEqual(Mask.make([key])(text), text)
  })

  it.each([
    "sk-canary-4f1d0a7be93c4d55",
    "sk-proj-AbCdEfGh12",
    "gsk_abcDEFghiJKL",
    "AIzaSyD4x9",
    "0123456789abcdef0123456789abcdef",
    "qwertyuiopasdfghjklzxcvb",
    "hf_xYzAbCd"
  ])("the key `%s` is masked wherever it occurs", (key) => {
    assert.strictEqual(Mask.make([key])(`your key ${key}, (${key}) is wrong`), "your key [masked], ([masked]) is wrong")
  })

  it("a key is masked in its URL encoding", () => {
    assert.strictEqual(Mask.make(["a1/b2+c3=d4"])("?key=a1%2Fb2%2Bc3%3Dd4"), "?key=[masked]")
  })
})
