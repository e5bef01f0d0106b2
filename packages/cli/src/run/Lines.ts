/** The longest line that is kept, in bytes: 1 MiB, several times the context of today's models. */
export const maxLineBytes = 2 ** 20

/** A line that is not blank, with its number counted from 1. */
export type Line =
  | { readonly _tag: "Line"; readonly line: number; readonly text: string }
  | { readonly _tag: "Unreadable"; readonly line: number; readonly why: string }

const lineFeed = 0x0a
const carriageReturn = 0x0d

/**
 * Cuts bytes into lines, whatever pieces they come in.
 *
 * It works on bytes, so that a character that two pieces share is never torn, and keeps one line at most, of which it
 * drops what is beyond the bound.
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

  /** The lines that end within this piece. */
  push(piece: Uint8Array): Array<Line> {
    const lines: Array<Line> = []
    let start = 0
    for (let end = piece.indexOf(lineFeed); end !== -1; end = piece.indexOf(lineFeed, start)) {
      this.keep(piece.subarray(start, end))
      this.cut(lines)
      start = end + 1
    }
    this.keep(piece.subarray(start))
    return lines
  }

  /** The last line, if no line feed ended it. */
  end(): Array<Line> {
    const lines: Array<Line> = []
    this.cut(lines)
    return lines
  }

  private keep(part: Uint8Array): void {
    this.bytes += part.length
    if (this.bytes > this.maxBytes) this.parts = []
    else if (part.length > 0) this.parts.push(part)
  }

  private cut(lines: Array<Line>): void {
    const line = this.line++
    const { bytes, parts } = this
    this.parts = []
    this.bytes = 0
    if (bytes > this.maxBytes) {
      lines.push({ _tag: "Unreadable", line, why: `the line has ${bytes} bytes; ${this.maxBytes} are allowed` })
      return
    }
    const text = this.decode(parts)
    if (text === undefined) lines.push({ _tag: "Unreadable", line, why: "the line is not UTF-8" })
    else if (text.trim() !== "") lines.push({ _tag: "Line", line, text })
  }

  // The decoder drops a byte order mark.
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
