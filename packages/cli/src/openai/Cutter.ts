/** Cuts text into lines. Of a longer line than the limit it keeps the beginning only, so that no client can fill the memory with one. */
export class Cutter {
  private readonly maxLength: number
  private line = ""

  constructor(maxLength: number) {
    this.maxLength = maxLength
  }

  /** Returns the lines that end within the text. */
  push(text: string): ReadonlyArray<string> {
    const lines: Array<string> = []
    let from = 0
    for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", from)) {
      this.add(text, from, at)
      lines.push(...this.end())
      from = at + 1
    }
    this.add(text, from, text.length)
    return lines
  }

  /** Returns the last line, if it has a character. */
  end(): ReadonlyArray<string> {
    const { line } = this
    this.line = ""
    return line === "" ? [] : [line.endsWith("\r") ? line.slice(0, -1) : line]
  }

  private add(text: string, from: number, to: number): void {
    const room = this.maxLength - this.line.length
    if (room > 0) this.line += text.slice(from, Math.min(to, from + room))
  }
}
