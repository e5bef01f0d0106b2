import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { entitiesOf } from "../../src/internal/entities.ts"

describe("entitiesOf", () => {
  it("amounts have a sign, a code or a word, before or after the figure", () => {
    for (
      const amount of [
        "$49.99",
        "€1,250.00",
        "€1.299,00",
        "1 249,50 €",
        "US$40",
        "CHF 12.50",
        "214.60 EUR",
        "49.99EUR",
        "£15",
        "¥12000",
        "50 dollars",
        "84 pence",
        "two hundred euros",
        "$5 million",
        "$3.5k"
      ]
    ) assert.deepStrictEqual(entitiesOf(`I paid ${amount}, twice (${amount}).`).amounts, [amount])
  })

  it("a figure without a currency is not an amount", () => {
    assert.deepStrictEqual(entitiesOf("20 percent of 3,400 contacts in 2026, room 408, 48 kg, WH1000XM4.").amounts, [])
  })

  it("dates are found in words, in ISO form, and with slashes or dots", () => {
    for (
      const date of [
        "2 March 2026",
        "4 May",
        "5th of May",
        "March 28",
        "May 21st",
        "March 3rd, 2026",
        "Feb 11",
        "12 Sept. 2025",
        "2026-02-17",
        "03/14/2026",
        "3/14/26",
        "14.3.2026"
      ]
    ) assert.deepStrictEqual(entitiesOf(`Due on ${date}, or by ${date}.`).dates, [date])
  })

  it("a time, a version, an IP address or a phone number is not a date", () => {
    const text =
      "At 10:30 on Sunday, version 1.2.24 on 192.168.1.20, you may 3 times call 555-12-1234 about INV-2026-02-17."
    assert.deepStrictEqual(entitiesOf(text).dates, [])
  })

  it("e-mail addresses are found without the punctuation around them", () => {
    const text =
      "<t.okonkwo+shop@example.net>, mailto:a_b@sub.example.co.uk. Not @me, not a@b, not a@x.y2; ünï@exämple.de!"
    assert.deepStrictEqual(entitiesOf(text).emails, [
      "t.okonkwo+shop@example.net",
      "a_b@sub.example.co.uk",
      "ünï@exämple.de"
    ])
  })

  it("order numbers are found by their form or by the word before them", () => {
    for (
      const text of [
        "my ORD-48213 came",
        "invoice INV-2026-0077.",
        "(order #20931)",
        "booking ref K7Q2ZP,",
        "the order was 4028851",
        "Reservation: 2208417",
        "booking HB20455",
        "nobody found 6HJ2KM there"
      ]
    ) assert.deepStrictEqual(entitiesOf(text).orders.length, 1, text)
  })

  it("a standard, a year, a day, a code or a word is not an order number", () => {
    const text =
      "The ISO-8859-1 and UTF-16 export of order 2026-01-29, case 2024, code SPRING20, error E14, order as booked."
    assert.deepStrictEqual(entitiesOf(text).orders, [])
  })

  it("each entity is listed once, in the order of its first mention", () => {
    assert.deepStrictEqual(entitiesOf("$2, $1, $2").amounts, ["$2", "$1"])
  })

  it.effect.prop("every entity is part of the text", { text: Schema.String }, ({ text }) =>
    Effect.sync(() => {
      const letter = `${text} 12 EUR ${text} a@example.com ${text} 3 May`
      for (const found of Object.values(entitiesOf(letter)).flat()) assert.include(letter, found)
    }))
})
