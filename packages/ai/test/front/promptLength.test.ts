import { assert, describe, it } from "@effect/vitest"
import { PromptLength } from "../../src/internal/front/promptLength.ts"
import { bytes } from "../../src/internal/resilient/promptSize.ts"

const characters = (text: string): number => text.length
const lengthOf = (content: string, measure = characters): number =>
  new PromptLength(Buffer.from(JSON.stringify({ content }))).of(measure) - "content".length

describe("the length of a prompt", () => {
  it("a file counts as much as a page, also in a request of 32 MiB, and a text counts in full", () => {
    const file = "QUJD".repeat(8 * 2 ** 20 - 1_000)
    for (const content of [file, `data:image/png;base64,${file}`]) assert.strictEqual(lengthOf(content), 6_000)
    const words = "A text has spaces. ".repeat(2 ** 20)
    assert.strictEqual(lengthOf(words), words.length)
    assert.strictEqual(lengthOf(file, bytes), file.length)
  })

  it("a body of nothing but brackets counts by its size, and is not parsed", () => {
    const body = Buffer.from(`{"a":${"[".repeat(10_000_000)}${"]".repeat(10_000_000)}}`)
    const before = process.cpuUsage()
    assert.strictEqual(new PromptLength(body).of(characters), body.length)
    assert.isBelow(process.cpuUsage(before).user / 1_000, 500)
  })

  it("a body that is no JSON counts by its size", () => {
    assert.strictEqual(new PromptLength(Buffer.from("no json")).of(characters), 7)
  })
})
