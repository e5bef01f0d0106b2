import { assert, describe, it } from "@effect/vitest"
import * as Nearest from "../src/Nearest.ts"

describe("Nearest", () => {
  it.each([
    ["modle", ["models", "model"], "model"],
    ["rnu", ["retry", "run"], "run"],
    ["concurency", ["concurrency", "config"], "concurrency"],
    ["conc", ["config-file", "concurrency"], "concurrency"],
    ["ad", ["list", "add"], "add"],
    ["x", ["n", "o"], undefined],
    ["xyz", ["run", "serve"], undefined],
    ["strict", ["price"], undefined]
  ])("the nearest of %s among %j is %s", (word, candidates, nearest) => {
    assert.strictEqual(Nearest.find(word, candidates), nearest)
  })

  it.each([["", "", 0], ["run", "run", 0], ["run", "rn", 1], ["run", "ruin", 1], ["run", "rum", 1], ["run", "rnu", 1]])(
    "%j and %j differ by %i letters",
    (a, b, letters) => {
      assert.strictEqual(Nearest.distance(a, b), letters)
      assert.strictEqual(Nearest.distance(b, a), letters)
    }
  )
})
