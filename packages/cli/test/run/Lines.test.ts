import { assert, describe, it } from "@effect/vitest"
import type { Line } from "../../src/run/Lines.ts"
import { Lines } from "../../src/run/Lines.ts"

const linesIn = (bytes: Uint8Array, size: number, maxBytes?: number): Array<Line> => {
  const lines = new Lines({ maxBytes })
  const all: Array<Line> = []
  for (let start = 0; start < bytes.length; start += size) all.push(...lines.push(bytes.subarray(start, start + size)))
  return [...all, ...lines.end()]
}

const texts = (lines: ReadonlyArray<Line>) => lines.map((line) => line._tag === "Line" ? line.text : line.why)

describe("Lines", () => {
  it("lines do not depend on the chunks, even if a chunk ends within a character", () => {
    const bytes = Buffer.from("Grüße\n日本語 👩‍🚀\r\nlast")
    for (let size = 1; size <= bytes.length; size++) {
      assert.deepStrictEqual(texts(linesIn(bytes, size)), ["Grüße", "日本語 👩‍🚀", "last"], `chunks of ${size}`)
    }
  })

  it("a line that spans chunks is whole, even if all chunks are in the same memory", () => {
    const bytes = Buffer.from("first line\nsecond line\n")
    const chunk = Buffer.alloc(4)
    const lines = new Lines()
    const all: Array<Line> = []
    for (let start = 0; start < bytes.length; start += chunk.length) {
      const copied = bytes.copy(chunk, 0, start)
      all.push(...lines.push(chunk.subarray(0, copied)))
    }
    assert.deepStrictEqual(texts(all), ["first line", "second line"])
  })

  it("blank lines are skipped but counted", () => {
    const lines = linesIn(Buffer.from("a\n\n  \r\nb\n"), 3)
    assert.deepStrictEqual(lines.map(({ line }) => line), [1, 4])
  })

  it("a byte order mark is removed", () => {
    assert.deepStrictEqual(texts(linesIn(Buffer.from("\uFEFFa\nb"), 2)), ["a", "b"])
  })

  it("a line over the limit is unreadable, and the next lines are read", () => {
    const lines = linesIn(Buffer.from(`a\n${"x".repeat(50)}\nb\n${"y".repeat(10)}`), 7, 10)
    assert.deepStrictEqual(lines.map(({ _tag, line }) => [_tag, line]), [
      ["Line", 1],
      ["Unreadable", 2],
      ["Line", 3],
      ["Line", 4]
    ])
    assert.include(texts(lines)[1], "50 bytes")
  })

  it("a line that is not UTF-8 is unreadable, and the next lines are read", () => {
    const lines = linesIn(Buffer.concat([Buffer.from("a\n"), Buffer.from([0xff, 0xfe, 0x0a]), Buffer.from("b")]), 100)
    assert.deepStrictEqual(texts(lines), ["a", "the line is not UTF-8", "b"])
  })
})
