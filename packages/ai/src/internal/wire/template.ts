/** How often a stream may show a new form before it is no longer searched. Some providers send random fields with every event. */
const maxForms = 3

/** A text that no provider sends, in place of one that was sent. */
const probe = "\u{f8ff}probe\u{f8ff}"

/** Characters that JSON writes as they are. */
const isPlain = (text: string): boolean => {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === 0x22 || code === 0x5c || code < 0x20) return false
  }
  return true
}

/** Reads the text of events that differ from an earlier one in their text alone, without parsing them. */
export class Template {
  private formsLeft = maxForms
  private head: string | undefined
  private tail = ""

  /** The text of an event of the known form. `undefined` if the event has to be parsed. */
  textIn(data: string): string | undefined {
    const { head, tail } = this
    if (head === undefined || !this.hasForm(data, head)) return undefined
    const text = data.slice(head.length, data.length - tail.length)
    return isPlain(text) ? text : undefined
  }

  /** Learns the form of an event that was parsed. `read` returns the text of such an event, and `undefined` for every other. */
  learn(data: string, text: string, read: (data: string) => string | undefined): void {
    if (this.formsLeft === 0 || text === "" || (this.head !== undefined && this.hasForm(data, this.head))) return
    this.formsLeft--
    this.head = undefined
    const at = data.indexOf(`"${text}"`) + 1
    if (at === 0) return
    const head = data.slice(0, at)
    const tail = data.slice(at + text.length)
    // Another field may have the same text. If the probe is read as the text, everything else is the same.
    if (read(`${head}${probe}${tail}`) !== probe) return
    this.head = head
    this.tail = tail
  }

  private hasForm(data: string, head: string): boolean {
    return data.length >= head.length + this.tail.length && data.startsWith(head) && data.endsWith(this.tail)
  }
}
