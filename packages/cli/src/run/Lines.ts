/** Limits a line to 8 MiB: an image of 5 MB in base64, which providers accept, or many times the context of a model. */
export const maxLineBytes = 8 * 2 ** 20

/** A line that is not blank. Lines count from 1. */
export type Line =
  | { readonly _tag: "Line"; readonly line: number; readonly text: string }
  | { readonly _tag: "Unreadable"; readonly line: number; readonly why: string }

const lineFeed = 0x0a
const carriageReturn = 0x0d

/**
 * Splits chunks of bytes into lines.
 *
 * Splits bytes, not text, so that a character can span two chunks. Buffers at most one line, and no line over the limit.
 */
export class Lines {
  private readonly decoder = new TextDecoder("utf-8", { fatal: true })
  private readonly maxBytes: number
  private parts: Array<Uint8Array> = []
  private bytes = 0
  private line = 1

  constructor(maxBytes: number = maxLineBytes) {
    this.maxBytes = maxBytes
  }

  /** Returns the lines that end within this chunk. Keeps no reference to it. */
  push(chunk: Uint8Array): Array<Line> {
    const lines: Array<Line> = []
    let start = 0
    for (let end = chunk.indexOf(lineFeed); end !== -1; end = chunk.indexOf(lineFeed, start)) {
      this.buffer(chunk.subarray(start, end))
      this.finish(lines)
      start = end + 1
    }
    // A copy, since the next chunk may be in the same memory.
    if (start < chunk.length) this.buffer(new Uint8Array(chunk.subarray(start)))
    return lines
  }

  /** Returns the last line if no line feed ended it. */
  end(): Array<Line> {
    const lines: Array<Line> = []
    this.finish(lines)
    return lines
  }

  private buffer(part: Uint8Array): void {
    this.bytes += part.length
    if (this.bytes > this.maxBytes) this.parts = []
    else if (part.length > 0) this.parts.push(part)
  }

  private finish(lines: Array<Line>): void {
    const line = this.line++
    const { bytes, parts } = this
    this.parts = []
    this.bytes = 0
    if (bytes > this.maxBytes) {
      lines.push({ _tag: "Unreadable", line, why: `the line has ${bytes} bytes; the limit is ${this.maxBytes}` })
      return
    }
    const text = this.decode(parts)
    if (text === undefined) lines.push({ _tag: "Unreadable", line, why: "the line is not UTF-8" })
    else if (text.trim() !== "") lines.push({ _tag: "Line", line, text })
  }

  // The decoder removes a byte order mark.
  private decode(parts: ReadonlyArray<Uint8Array>): string | undefined {
    const [first] = parts
    const whole = parts.length === 1 && first !== undefined ? first : Buffer.concat(parts)
    try {
      return this.decoder.decode(whole.at(-1) === carriageReturn ? whole.subarray(0, -1) : whole)
    } catch {
      return undefined
    }
  }
}
