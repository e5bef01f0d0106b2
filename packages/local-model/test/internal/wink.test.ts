import { assert, describe, it } from "@effect/vitest"
import { read } from "../../src/internal/wink.ts"

const matter = "The blue lamp that you sent me last week in a large box has a long crack near its heavy foot"

describe("wink", () => {
  it("tags each word where it stands, contractions and unknown words too", () => {
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

  it("weighs the sentences that it was given, whatever they end in", () => {
    for (const other of ["I met Mr", "no", "see e.g", "5 p.m", "A", "1", "what (so", "\"", "wait..."]) {
      const weights = read([other, matter, other, matter]).map(({ importance }) => importance)
      assert.deepStrictEqual(weights, [0, 1, 0, 1], other)
    }
  })

  it("reads a text the same whatever it has read before", () => {
    const text = ["Zorblax FROB-7 wasn't zorblaxed by A.B.C. at frob.example", "FROB and Frob met zorblax"]
    const before = read(text)
    read(["zorblax ZORBLAX frob FROB Frob frob-7 a.b.c. A.B.C zorblaxed ZORBLAXED Frob.Example"])
    assert.deepStrictEqual(read(text), before)
  })

  it("reads nothing from nothing", () => {
    assert.deepStrictEqual(read([]), [])
  })
})
