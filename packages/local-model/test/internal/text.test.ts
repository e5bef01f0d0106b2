import { assert, describe, it } from "@effect/vitest"
import { maxRun, sentencesOf, shorten, wordsOf } from "../../src/internal/text.ts"

describe("text", () => {
  it("cuts runs without a space and leaves everything else as it is", () => {
    const run = "x".repeat(maxRun)
    assert.strictEqual(shorten(`a  ${run}yz\n${run} b`), `a  ${run}\n${run} b`)
  })

  it("leaves no half of a surrogate pair, neither given nor cut", () => {
    assert.strictEqual(shorten("a \ud800 b"), "a \ufffd b")
    assert.isTrue(shorten(`x${"😀".repeat(maxRun)}`).isWellFormed())
  })

  it("ends a sentence at its mark, with quotes and brackets that close after it", () => {
    assert.deepStrictEqual(sentencesOf(`It says "gone." Is it?  (No!) Then where`), [
      `It says "gone."`,
      "Is it?",
      "(No!)",
      "Then where"
    ])
  })

  it("ends no sentence at an abbreviation, a decimal point or the number of a list", () => {
    for (
      const sentence of [
        "Mr. Hill paid 12.50 EUR to Dr. J. Okafor.",
        "See No. 12, e.g. the blue one, at 5 p.m. on Monday.",
        "1. The lamp is broken.",
        "It runs version 3.1 of example.com now."
      ]
    ) assert.deepStrictEqual(sentencesOf(sentence), [sentence])
  })

  it("ends a sentence after an abbreviation that another sentence follows", () => {
    assert.deepStrictEqual(sentencesOf("Come at 5 p.m. The door is open."), ["Come at 5 p.m.", "The door is open."])
    assert.deepStrictEqual(sentencesOf("You said no. I say yes."), ["You said no.", "I say yes."])
  })

  it("keeps a word with an apostrophe or a hyphen whole", () => {
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
