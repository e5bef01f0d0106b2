import { assert, describe, it } from "@effect/vitest"
import { read } from "../../src/internal/wink.ts"

const sentence = "The blue lamp that you sent me last week in a large box has a long crack near its heavy foot"

describe("read", () => {
  it("every word gets its part of speech, also contractions and unknown words", () => {
    const [first, second] = read(["I can't pay the broken invoice, Mr Oyelaran", "it crashes"])
    assert.deepStrictEqual(first?.words.map(({ word, pos }) => `${word}/${pos}`), [
      "I/PRON",
      "can't/AUX",
      "pay/VERB",
      "the/DET",
      "broken/ADJ",
      "invoice/NOUN",
      ",/PUNCT",
      "Mr/PROPN",
      "Oyelaran/PROPN"
    ])
    assert.strictEqual(second?.words[1]?.pos, "VERB")
  })

  it("sentences are weighed as they are passed, however they end", () => {
    for (const other of ["I met Mr", "no", "see e.g", "5 p.m", "A", "1", "what (so", "\"", "wait..."]) {
      const weights = read([other, sentence, other, sentence]).map(({ importance }) => importance)
      assert.deepStrictEqual(weights, [0, 1, 0, 1], other)
    }
  })

  it("the analysis of a text does not depend on earlier texts", () => {
    const text = ["Zorblax FROB-7 wasn't zorblaxed by A.B.C. at frob.example", "FROB and Frob met zorblax"]
    const before = read(text)
    read(["zorblax ZORBLAX frob FROB Frob frob-7 a.b.c. A.B.C zorblaxed ZORBLAXED Frob.Example"])
    assert.deepStrictEqual(read(text), before)
  })

  it("no sentences have no analysis", () => {
    assert.deepStrictEqual(read([]), [])
  })
})
