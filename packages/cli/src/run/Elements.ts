import type { Line } from "./Lines.ts"
import { Parts } from "./Lines.ts"
import { Problem } from "./Problem.ts"

const quote = 0x22
const comma = 0x2c
const backslash = 0x5c
const openBracket = 0x5b
const closeBracket = 0x5d
const openBrace = 0x7b
const closeBrace = 0x7d

/** Bytes of white space, and of a byte order mark. */
const ignored: ReadonlySet<number> = new Set([0x20, 0x09, 0x0a, 0x0d, 0xef, 0xbb, 0xbf])

/**
 * Splits a JSON array into its elements, as texts. They are numbered from 1, like lines.
 *
 * Only strings and brackets are followed, so that an element that is no JSON does not affect the others.
 */
export class Elements {
  private readonly parts: Parts
  private readonly before: number
  private state: "before" | "inside" | "after" = "before"
  private depth = 0
  private isInString = false
  private isEscaped = false

  constructor(before = 0) {
    this.parts = new Parts({ before })
    this.before = before
  }

  /** The number of the element that was read last. */
  get last(): number {
    return this.parts.last
  }

  /** Returns the elements that end within this chunk. Keeps no reference to it. */
  push(chunk: Uint8Array): Array<Line> {
    const elements: Array<Line> = []
    let start = 0
    for (let index = 0; index < chunk.length; index++) {
      const byte = chunk[index] ?? 0
      if (this.state !== "inside") {
        this.outside(byte)
        start = index + 1
      } else if (this.isInString) {
        if (this.isEscaped) this.isEscaped = false
        else if (byte === backslash) this.isEscaped = true
        else if (byte === quote) this.isInString = false
      } else if (byte === quote) this.isInString = true
      else if (byte === openBrace || byte === openBracket) this.depth++
      else if (this.depth > 0) {
        if (byte === closeBrace || byte === closeBracket) this.depth--
      } else if (byte === comma || byte === closeBracket) {
        this.parts.buffer(chunk.subarray(start, index))
        this.finish(elements, byte === closeBracket)
        start = index + 1
      }
    }
    // A copy, since the next chunk may be in the same memory.
    if (this.state === "inside") this.parts.buffer(new Uint8Array(chunk.subarray(start)))
    return elements
  }

  end(): Array<Line> {
    if (this.state === "before") throw new Problem("it is no JSON array")
    if (this.state === "inside") {
      throw new Problem(
        `its JSON array is not closed; element ${this.last - this.before + 1} or one before is incomplete`
      )
    }
    return []
  }

  private outside(byte: number): void {
    if (ignored.has(byte)) return
    if (this.state === "after") throw new Problem("text follows the end of its JSON array")
    if (byte !== openBracket) throw new Problem("it is no JSON array")
    this.state = "inside"
  }

  private finish(elements: Array<Line>, isLast: boolean): void {
    const element = this.parts.finish()
    if (element !== undefined) elements.push(element)
    // An empty array, or a comma after the last element, has no element here.
    else if (!isLast) elements.push({ _tag: "Unreadable", line: this.last, why: "the element is empty" })
    if (isLast) this.state = "after"
  }
}
