import { assert, describe, it } from "@effect/vitest"
import { maxRun, sentencesOf, shorten, wordsOf } from "../../src/internal/text.ts"

describe("text rules", () => {
  it("shorten truncates runs without a space and changes nothing else", () => {
    const run = "x".repeat(maxRun)
    assert.strictEqual(shorten(`a  ${run}yz\n${run} b`), `a  ${run}\n${run} b`)
  })

  it("shorten leaves no lone surrogate", () => {
    assert.strictEqual(shorten("a \ud800 b"), "a \ufffd b")
    assert.isTrue(shorten(`x${"😀".repeat(maxRun)}`).isWellFormed())
  })

  it("a sentence ends at its punctuation, including closing quotes and brackets", () => {
    assert.deepStrictEqual(sentencesOf(`It says "gone." Is it?  (No!) Then where`), [
      `It says "gone."`,
      "Is it?",
      "(No!)",
      "Then where"
    ])
  })

  it("an abbreviation, a decimal point or a list number does not end a sentence", () => {
    for (
      const sentence of [
        "Mr. Hill paid 12.50 EUR to Dr. J. Okafor.",
        "See No. 12, e.g. the blue one, at 5 p.m. on Monday.",
        "1. The lamp is broken.",
        "It runs version 3.1 of example.com now."
      ]
    ) assert.deepStrictEqual(sentencesOf(sentence), [sentence])
  })

  it("an abbreviation before a capital ends a sentence", () => {
    assert.deepStrictEqual(sentencesOf("Come at 5 p.m. The door is open."), ["Come at 5 p.m.", "The door is open."])
    assert.deepStrictEqual(sentencesOf("You said no. I say yes."), ["You said no.", "I say yes."])
  })

  it("a word can contain an apostrophe or a hyphen", () => {
    assert.deepStrictEqual(wordsOf("I can't re-use Zoë's 2-year plan!"), [
      "I",
      "can't",
      "re-use",
      "Zoë's",
      "2-year",
      "plan"
    ])
  })
})
