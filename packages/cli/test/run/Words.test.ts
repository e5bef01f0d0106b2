import { assert, describe, it } from "@effect/vitest"
import * as Words from "../../src/run/Words.ts"

describe("Words.time", () => {
  const hour = 3_600_000
  it.each([
    [850, "850ms"],
    [3_200, "3.2s"],
    [144_000, "2m 24s"],
    [hour * 1.0834, "1h 05m"],
    [hour * 24, "24h 00m"],
    [hour * 47.5, "47h 30m"],
    [hour * 48, "2 days"],
    [hour * 54, "2 days 6h"],
    [hour * 24 * 30, "30 days"],
    [hour * 24 * 3_650, "3,650 days"]
  ])("%i ms is %s", (millis, text) => assert.strictEqual(Words.time(millis), text))
})

describe("Words.plural", () => {
  it.each([[0, "0 requests"], [1, "1 request"], [2, "2 requests"], [1_200, "1,200 requests"]] as const)(
    "%i is %s",
    (value, text) => assert.strictEqual(Words.plural(value, "request"), text)
  )
})
