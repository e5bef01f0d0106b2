import { assert, describe, it } from "@effect/vitest"
import { Cutter } from "../../src/openai/Cutter.ts"

const cut = (chunks: ReadonlyArray<string>, maxLength = 5): ReadonlyArray<string> => {
  const cutter = new Cutter(maxLength)
  return [...chunks.flatMap((chunk) => cutter.push(chunk)), ...cutter.end()]
}

describe("the lines of an uploaded file", () => {
  for (
    const [name, chunks, lines] of [
      ["end with a line feed, or with the file", ["a\nb", "c\nd"], ["a", "bc", "d"]],
      ["can end with a carriage return and a line feed, also in two chunks", ["a\r", "\nb\r\n"], ["a", "b"]],
      ["that are empty are left out", ["\n\na\n", "\n"], ["a"]],
      ["keep their first characters if they are too long", ["abc", "defgh", "ij\nk\n"], ["abcde", "k"]]
    ] as const
  ) {
    it(name, () => assert.deepStrictEqual(cut(chunks), lines))
  }

  it("a line of 200 MB is read in linear time, and is not kept", () => {
    const cutter = new Cutter(2 ** 20)
    const chunk = "a".repeat(65_536)
    const before = process.cpuUsage()
    for (let n = 0; n < 3_200; n++) assert.deepStrictEqual(cutter.push(chunk), [])
    assert.strictEqual(cutter.end()[0]?.length, 2 ** 20)
    assert.isBelow(process.cpuUsage(before).user / 1_000, 1_000)
  })
})
