import { assert, describe, it } from "@effect/vitest"
import { contentOf } from "../../src/internal/letter.ts"

describe("contentOf", () => {
  it("greetings, farewells and signatures are removed", () => {
    for (
      const [opening, closing] of [
        ["Hello,", "Best regards,\nMaria Lopez"],
        ["Dear Mr. Fairweather,", "Yours faithfully,\nProf. Wanjiru Holt\nw.holt@example.org"],
        [
          "To whom it may concern,",
          "Thank you so much for your help,\nRosalind van der Laan\nFinance\n+44 20 7946 0000"
        ],
        ["hey", "cheers\nDanny"],
        ["Good evening everyone!", "Sent from my phone"],
        ["URGENT\n\nHi there,\n", "Happy digging,\nOona Ito"],
        ["To the baggage department,", "Greetings, Hamish and Dorji"],
        ["Subject: Lamp\nHi team,", "Many thanks!\n\nJ. Doe\nHead of Lamps, second floor"]
      ]
    ) assert.deepStrictEqual(contentOf(`${opening}\nThe lamp is broken.\n${closing}`), ["The lamp is broken."])
  })

  it("a greeting before a sentence is removed", () => {
    assert.deepStrictEqual(contentOf("Hi there, my lamp is broken."), ["my lamp is broken."])
    assert.deepStrictEqual(contentOf("Hello Mrs. Hill, a question. Is it open?"), ["a question.", "Is it open?"])
  })

  it("a short line that is a sentence is not a signature", () => {
    assert.deepStrictEqual(contentOf("Hi,\nmy router is dead\nBob"), ["my router is dead"])
    assert.deepStrictEqual(contentOf("Reset Password"), ["Reset Password"])
    assert.deepStrictEqual(contentOf("Hi my router is dead."), ["Hi my router is dead."])
  })

  it("a signature before a postscript is removed", () => {
    assert.deepStrictEqual(contentOf("It broke.\nBest regards,\nMaria\n\nPS: it was new."), [
      "It broke.",
      "PS: it was new."
    ])
  })

  it("quotes of earlier messages are removed", () => {
    assert.deepStrictEqual(contentOf("It broke again.\nOn Monday Bob wrote:\n> It is mended."), ["It broke again."])
  })

  it("a line without a full stop ends a sentence", () => {
    assert.deepStrictEqual(contentOf("the lamp is broken\nplease send another"), [
      "the lamp is broken",
      "please send another"
    ])
  })

  it("lines that an e-mail program has wrapped are joined", () => {
    const letter = [
      "Hello,",
      "",
      "the lamp that I ordered from your shop two weeks ago has",
      "come in a box that was open on one side, and now the foot",
      "is missing. Please send another.",
      "",
      "Bob"
    ].join("\n")
    assert.deepStrictEqual(contentOf(letter), [
      "the lamp that I ordered from your shop two weeks ago has come in a box that was open on one side, and now " +
      "the foot is missing.",
      "Please send another."
    ])
  })

  it("a text of courtesies has no content", () => {
    for (const text of ["", "Hello", "Hi,\nThanks!\nJohn Smith", "\n\n", "...!?"]) {
      assert.deepStrictEqual(contentOf(text), [])
    }
  })
})
