/** The text that came with the start of a block. Some servers repeat it in the deltas, and some continue it. */
export class StartText {
  private start = ""
  private held = ""

  begin(text: string): void {
    this.start = text
    this.held = ""
  }

  /** Returns the new text of a delta. Holds a delta while it may still be a repetition. */
  more(delta: string): string {
    if (this.start === "") return delta
    this.held += delta
    if (this.held.length < this.start.length && this.start.startsWith(this.held)) return ""
    const more = this.held.startsWith(this.start) ? this.held.slice(this.start.length) : this.held
    this.start = this.held = ""
    return more
  }

  /** Returns the held text, at the end of the block. */
  end(): string {
    const { held } = this
    this.start = this.held = ""
    return held
  }
}
