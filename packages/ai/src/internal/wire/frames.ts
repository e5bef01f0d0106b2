const lineFeed = 0x0a
const carriageReturn = 0x0d
const space = 0x20
const colon = 0x3a
// The first four characters of each field as one number.
const data = 0x64617461
const even = 0x6576656e
const t = 0x74

const empty = Buffer.alloc(0)

/** The least that is allocated for an event that has arrived in part. */
const minHeld = 256

/**
 * Finds the events in the bytes of an event stream. Lines may end with a line feed, a carriage return, or both.
 *
 * `push` adds bytes, then `next` moves from event to event until it returns `false`. The bytes after the last event are kept for
 * the next `push`.
 */
export class Frames {
  /** The bytes in which the fields below are places. */
  bytes: Buffer = empty
  /** Where the event begins. */
  start = 0
  /** Where the event ends, after its blank line. */
  end = 0
  /** Where the data begins, if the event is one line of data, perhaps after a line with its name. -1: it has another form. */
  dataStart = -1
  /** Where the last line ends, without its line end. The data ends there too. */
  lastEnd = 0
  /** After `next` returned `false`: where the bytes begin that are kept. */
  cut = 0

  private isFirst = true
  private lines = 0
  /** Where the first line ends, without its line end. */
  private firstEnd = 0
  /** Where the second line begins. */
  private second = 0
  private held: Buffer = empty
  private heldSize = 0
  /** Where the line begins that has not ended. */
  private line = 0
  /** Where the search for its end continues. */
  private from = 0
  private hasReturns = false
  /** Whether the last byte was a carriage return, so that a line feed after it belongs to the same line end. */
  private isReturned = false

  /** How many bytes have arrived of the event that is not whole. */
  get restSize(): number {
    return this.heldSize
  }

  /** The text of the event that is not whole. `maxBytes`: how much of its beginning is read. */
  rest(maxBytes: number = Infinity): string {
    return this.textOf(this.held, 0, Math.min(maxBytes, this.heldSize))
  }

  /** The name of an event that `dataStart` has found. */
  get name(): string {
    const { bytes, dataStart, firstEnd, start } = this
    return dataStart < firstEnd ? "" : bytes.toString("utf8", valueStart(bytes, start + nameLength), firstEnd)
  }

  /** The fields of an event of any form. */
  get fields(): Fields {
    return fieldsOf(this.textOf(this.bytes, this.start, this.lastEnd))
  }

  push(chunk: Uint8Array): void {
    const buffer = Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    if (!this.hasReturns) this.hasReturns = buffer.includes(carriageReturn)
    this.bytes = this.heldSize === 0 ? buffer : this.append(buffer)
  }

  /** Moves to the next event that is whole. */
  next(): boolean {
    const { bytes } = this
    if (this.end > 0) {
      this.isFirst = false
      this.begin(this.end)
    }
    while (this.from < bytes.length) {
      if (this.isReturned) {
        this.isReturned = false
        if (bytes[this.from] === lineFeed) {
          this.line = ++this.from
          if (this.lines === 0) this.start = this.line
          else if (this.lines === 1) this.second = this.line
        }
      }
      const at = lineEnd(bytes, this.from, this.hasReturns)
      if (at === -1) break
      let after = at + 1
      if (bytes[at] === carriageReturn) {
        if (after === bytes.length) this.isReturned = true
        else if (bytes[after] === lineFeed) after++
      }
      if (at > this.line) {
        this.lastEnd = at
        if (++this.lines === 1) {
          this.firstEnd = at
          this.second = after
        }
        this.line = this.from = after
      } else if (this.lines > 0) {
        this.end = after
        this.dataStart = this.findData()
        return true
      } else this.begin(after)
    }
    this.keep()
    return false
  }

  private begin(at: number): void {
    this.start =
      this.line =
      this.from =
      this.second =
        at
    this.lines = 0
  }

  private findData(): number {
    const { bytes, lines, second, start } = this
    if (lines > 2) return -1
    const at = lines === 2 && startsWithEvent(bytes, start) ? second : start
    return (lines === 1 || at === second) && startsWithData(bytes, at) ? valueStart(bytes, at + dataLength) : -1
  }

  private textOf(bytes: Buffer, from: number, to: number): string {
    const text = bytes.toString("utf8", from, to)
    return this.isFirst && text.startsWith(byteOrderMark) ? text.slice(1) : text
  }

  /** Keeps the bytes of the event that has not ended. Its places become relative to its start. */
  private keep(): void {
    const { bytes, start } = this
    const size = bytes.length - start
    this.cut = start
    this.end = 0
    if (size === 0) {
      this.held = empty
      this.heldSize = 0
      return this.begin(0)
    }
    if (start > 0 || this.heldSize === 0) {
      // The bytes before are passed on, so their memory is not used again.
      this.held = Buffer.allocUnsafe(Math.max(minHeld, 2 * size))
      bytes.copy(this.held, 0, start)
    }
    this.heldSize = size
    this.start = 0
    this.line -= start
    this.second -= start
    this.firstEnd -= start
    this.lastEnd -= start
    this.from = size
  }

  private append(buffer: Buffer): Buffer {
    const size = this.heldSize + buffer.length
    if (size > this.held.length) {
      const grown = Buffer.allocUnsafe(2 * size)
      this.held.copy(grown, 0, 0, this.heldSize)
      this.held = grown
    }
    buffer.copy(this.held, this.heldSize)
    return this.held.subarray(0, size)
  }
}

const byteOrderMark = "\uFEFF"
/** The lengths of the fields with their colons. */
const dataLength = 5
const nameLength = 6

const startsWithData = (bytes: Buffer, at: number): boolean =>
  bytes.length - at >= dataLength && bytes.readUInt32BE(at) === data && bytes[at + 4] === colon

const startsWithEvent = (bytes: Buffer, at: number): boolean =>
  bytes.length - at >= nameLength && bytes.readUInt32BE(at) === even && bytes[at + 4] === t && bytes[at + 5] === colon

const valueStart = (bytes: Buffer, at: number): number => bytes[at] === space ? at + 1 : at

/** The fields of an event. */
export interface Fields {
  /** Empty if the event has none. */
  readonly name: string
  /** `undefined` if the event has none: clients ignore such an event. */
  readonly data: string | undefined
}

/** The fields of an event of any form. */
export const fieldsOf = (text: string): Fields => {
  let name = ""
  let data: string | undefined
  for (const line of text.split(/\r\n|\n|\r/)) {
    const colon = line.indexOf(":")
    const field = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1)
    if (field === "event") name = value
    else if (field === "data") data = data === undefined ? value : `${data}\n${value}`
  }
  return { name, data }
}

/** Where the line ends. -1: it has not ended. */
const lineEnd = (bytes: Buffer, from: number, hasReturns: boolean): number => {
  // The blank line after each event. It is not worth a search.
  if (bytes[from] === lineFeed) return from
  if (!hasReturns) return bytes.indexOf(lineFeed, from)
  for (let at = from; at < bytes.length; at++) {
    const byte = bytes[at]
    if (byte === lineFeed || byte === carriageReturn) return at
  }
  return -1
}
