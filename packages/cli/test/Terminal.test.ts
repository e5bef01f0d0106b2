import { assert, describe, it } from "@effect/vitest"
import * as Terminal from "../src/Terminal.ts"

describe("Terminal", () => {
  it("characters that move the cursor or reorder text are escaped", () => {
    assert.strictEqual(Terminal.escape("a\x1b[2Jb\nc\u202Ed\u0085"), "a\\x1b[2Jb\\nc\\u{202e}d\\x85")
  })

  it("a line of JSON is escaped as JSON, and means the same", () => {
    const value = { text: "a\x1b[2J\x7f\x85\x9b31m\u202Ed\u2028\u{e0041}\ud800 日本 👩‍🚀\n" }
    const line = `${JSON.stringify(value)}\n`
    const escaped = Terminal.escapeJson(line)
    assert.deepStrictEqual(JSON.parse(escaped), value)
    assert.notMatch(escaped.replaceAll("\u200D", ""), /[\p{Cf}\p{Zl}\p{Zp}\p{Cs}]|(?!\n)\p{Cc}/u)
    assert.isTrue(escaped.endsWith("}\n"))
    assert.include(escaped, "日本 👩‍🚀")
  })

  it("letters of any language and emoji are not escaped", () => {
    const text = "Grüße 日本語 👩‍🚀"
    assert.strictEqual(Terminal.escape(text), text)
  })

  it("width counts columns, not characters", () => {
    assert.deepStrictEqual(["abc", "日本", "é", "e\u0301", "👩‍🚀"].map(Terminal.width), [3, 4, 1, 1, 2])
  })

  it("clip never cuts a wide character in half", () => {
    assert.strictEqual(Terminal.clip("日本語", 6), "日本語")
    assert.strictEqual(Terminal.clip("日本語", 4), "日…")
    assert.isAtMost(Terminal.width(Terminal.clip("日本語です", 5)), 5)
    assert.strictEqual(Terminal.clip("abc", 0), "")
  })
})
