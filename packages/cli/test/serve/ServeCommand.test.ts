import { assert, describe, it } from "@effect/vitest"
import { inOrder } from "../../src/serve/ServeCommand.ts"

const target = (name: string, order?: number) => ({ name, order, url: "https://a.example/v1" })
const at = "(https://a.example/v1)"

describe("the first lines of sluice serve", () => {
  it.each([
    [[target("a"), target("b")], `a ${at}, then b ${at}`],
    [[target("a", 0), target("b", 0), target("c")], `a ${at} and b ${at}, then c ${at}`],
    [[target("a", 5), target("b", 1)], `b ${at}, then a ${at}`]
  ])("targets %j are named as the calls go to them: %s", (targets, text) => {
    assert.strictEqual(inOrder(targets), text)
  })
})
