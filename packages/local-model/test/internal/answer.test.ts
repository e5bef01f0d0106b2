import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { answerTo } from "../../src/internal/answer.ts"

const letter =
  "Hello,\nmy blue lamp broke on 2 March 2026 (order ORD-48213). Please refund €12.50 to a@example.com.\nBob Hill"

const entities = {
  amounts: ["€12.50"],
  dates: ["2 March 2026"],
  emails: ["a@example.com"],
  orders: ["ORD-48213"]
}

const sentences = "my blue lamp broke on 2 March 2026 (order ORD-48213). Please refund €12.50 to a@example.com."

describe("answerTo", () => {
  it("the first line selects the job, in any case and either spelling", () => {
    for (const first of ["Summarise:\n", "SUMMARIZE: ", "  summarise :\n\n"]) {
      assert.strictEqual(answerTo(`${first}${letter}`), sentences)
    }
    assert.deepStrictEqual(JSON.parse(answerTo(`Extract:\n${letter}`)), entities)
    assert.strictEqual(answerTo(`keywords: ${letter}`), "blue lamp, order")
  })

  it("a prompt without a job gets a JSON object", () => {
    assert.deepStrictEqual(JSON.parse(answerTo(letter)), {
      summary: sentences,
      ...entities,
      phrases: ["blue lamp", "order"]
    })
  })

  it("a job on a later line is text", () => {
    assert.hasAllKeys(JSON.parse(answerTo("Dear team,\nExtract: 5 EUR")), [
      "summary",
      "amounts",
      "dates",
      "emails",
      "orders",
      "phrases"
    ])
  })

  it("an answer without content is a sentence, or an empty summary", () => {
    assert.strictEqual(answerTo("Summarise: Hello"), "There is nothing to summarise.")
    assert.strictEqual(answerTo("Keywords:"), "There are no keywords.")
    assert.strictEqual(JSON.parse(answerTo("")).summary, "")
  })

  it.effect.prop(
    "any text gets a well-formed answer, the same each time",
    { text: Schema.String },
    ({ text }) =>
      Effect.sync(() => {
        for (const first of ["", "Summarise:", "Extract:", "Keywords:"]) {
          const answer = answerTo(first + text)
          assert.isTrue(answer !== "" && answer.isWellFormed())
          assert.strictEqual(answerTo(first + text), answer)
        }
      })
  )
})
