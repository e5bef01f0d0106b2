import { assert, describe, it } from "@effect/vitest"
import * as Say from "../src/Say.ts"
import * as Terminal from "../src/Terminal.ts"

const long = "no key: OPENAI_API_KEY is not set; see --key-env and --key-file, or set another URL with --url"
const url = `https://one.example/${"a".repeat(100)}`

describe("Say", () => {
  it("an error for a file or a program is one line, also for several problems", () => {
    assert.strictEqual(Say.format("sluice run", [long], undefined), `sluice run: ${long}\n`)
    assert.strictEqual(Say.format("sluice run", ["one", "two"], undefined), "sluice run: one; two\n")
  })

  it("an error on a terminal is wrapped at its width, without cutting a word", () => {
    for (const columns of [40, 60, 80]) {
      const text = Say.format("sluice run", [long], columns)
      const lines = text.trimEnd().split("\n")
      for (const line of lines) assert.isAtMost(Terminal.width(line), columns)
      assert.isAbove(lines.length, 1)
      assert.strictEqual(text.replaceAll(/\s+/g, " ").trim(), `sluice run: ${long}`)
    }
    assert.include(Say.format("sluice run", [`cannot reach ${url}`], 40), url)
    for (const columns of [0, 1]) assert.include(Say.format("sluice", ["a b"], columns), "sluice: a b")
  })

  it("several problems are a list on a terminal", () => {
    const text = Say.format("sluice run", [long, "no model"], 60)
    assert.match(text, /^sluice run:\n {2}- no key:[^]*\n {4}[^]*\n {2}- no model\n$/)
    for (const line of text.split("\n")) assert.isAtMost(Terminal.width(line), 60)
  })

  it("an error is escaped, and the secrets of URLs in it are hidden", () => {
    for (const columns of [undefined, 80]) {
      const text = Say.format("sluice", ["\x1b[2J\u202e https://me:c4n4ry@a.example?key=c4n4ry"], columns)
      assert.notMatch(text.replaceAll("\n", ""), /[\p{Cc}\p{Cf}]/u)
      assert.notInclude(text, "c4n4ry")
    }
  })
})
