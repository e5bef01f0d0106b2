/** Limits a line to 8 MiB: an image of 5 MB in base64, which providers accept, or many times the context of a model. */
export const maxLineBytes = 8 * 2 ** 20

/** A line that is not blank. Lines count from 1. */
export type Line =
  | {
    readonly _tag: "Line"
    readonly line: number
    readonly text: string
    /** Whether the text is a prompt, and no JSON. */
    readonly isPlain: boolean
  }
  | { readonly _tag: "Unreadable"; readonly line: number; readonly why: string }

const lineFeed = 0x0a
const carriageReturn = 0x0d

export interface LinesOptions {
  /** The number of lines before the first. Default 0. */
  readonly before?: number | undefined
  /** Default false. */
  readonly isPlain?: boolean | undefined
  /** Default `maxLineBytes`. */
  readonly maxBytes?: number | undefined
}

/** Collects the bytes of one part of a file after the other. Buffers at most one part, and no part over the limit. */
export class Parts {
  private readonly decoder = new TextDecoder("utf-8", { fatal: true })
  private readonly maxBytes: number
  private parts: Array<Uint8Array> = []
  private bytes = 0
  private readonly isPlain: boolean
  private line: number

  constructor({ before = 0, isPlain = false, maxBytes = maxLineBytes }: LinesOptions = {}) {
    this.maxBytes = maxBytes
    this.isPlain = isPlain
    this.line = before + 1
  }

  /** The number of the part that was finished last. */
  get last(): number {
    return this.line - 1
  }

  get isEmpty(): boolean {
    return this.bytes === 0
  }

  buffer(part: Uint8Array): void {
    this.bytes += part.length
    if (this.bytes > this.maxBytes) this.parts = []
    else if (part.length > 0) this.parts.push(part)
  }

  /** Ends the part. Returns `undefined` if it is blank. */
  finish(): Line | undefined {
    const line = this.line++
    const { bytes, parts } = this
    this.parts = []
    this.bytes = 0
    if (bytes > this.maxBytes) {
      return { _tag: "Unreadable", line, why: `the line has ${bytes} bytes; the limit is ${this.maxBytes}` }
    }
    const text = this.decode(parts)
    if (text === undefined) return { _tag: "Unreadable", line, why: "the line is not UTF-8" }
    return text.trim() === "" ? undefined : { _tag: "Line", line, text, isPlain: this.isPlain }
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

/**
 * Splits chunks of bytes into lines.
 *
 * Splits bytes, not text, so that a character can span two chunks.
 */
export class Lines {
  private readonly parts: Parts

  constructor(options?: LinesOptions) {
    this.parts = new Parts(options)
  }

  /** The number of the line that was read last, also if it was blank. */
  get last(): number {
    return this.parts.last
  }

  /** Returns the lines that end within this chunk. Keeps no reference to it. */
  push(chunk: Uint8Array): Array<Line> {
    const lines: Array<Line> = []
    let start = 0
    for (let end = chunk.indexOf(lineFeed); end !== -1; end = chunk.indexOf(lineFeed, start)) {
      this.parts.buffer(chunk.subarray(start, end))
      const line = this.parts.finish()
      if (line !== undefined) lines.push(line)
      start = end + 1
    }
    // A copy, since the next chunk may be in the same memory.
    if (start < chunk.length) this.parts.buffer(new Uint8Array(chunk.subarray(start)))
    return lines
  }

  /** Returns the last line if no line feed ended it. */
  end(): Array<Line> {
    const last = this.parts.isEmpty ? undefined : this.parts.finish()
    return last === undefined ? [] : [last]
  }
}
