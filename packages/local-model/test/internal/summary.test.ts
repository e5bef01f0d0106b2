import { assert, describe, it } from "@effect/vitest"
import { summaryOf } from "../../src/internal/summary.ts"
import { read } from "../../src/internal/wink.ts"

const summary = (...sentences: ReadonlyArray<string>): string => summaryOf(sentences, read(sentences))

describe("summaryOf", () => {
  it("a summary is the problem and the request, in the order of the text", () => {
    assert.strictEqual(
      summary("The lamp arrived broken.", "It was blue.", "Order 12345, $20.", "Could you send another?"),
      "The lamp arrived broken. Could you send another?"
    )
    assert.strictEqual(
      summary("Please send another lamp.", "The one that came does not work."),
      "Please send another lamp. The one that came does not work."
    )
  })

  it("a summary is one sentence if there is only one with content", () => {
    assert.strictEqual(summary("Cancel my membership."), "Cancel my membership.")
    assert.strictEqual(summary("Thanks for the quick shipping!", "The lamp is broken."), "The lamp is broken.")
  })

  it("a request has priority over a request for a reply", () => {
    assert.include(
      summary("The lamp is broken.", "Please send another.", "Please call me back soon."),
      "Please send another."
    )
  })

  it("thanks and apologies have an empty summary", () => {
    assert.strictEqual(summary("Thank you very much for your help.", "Sorry for the trouble."), "")
  })

  it("a long sentence is truncated at a word", () => {
    const text = summary("the lamp does not work and ".repeat(100).trim())
    assert.isAtMost(text.length, 601)
    assert.match(text, /(?:the|lamp|does|not|work|and)…$/)
  })
})
