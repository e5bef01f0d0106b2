const lineFeed = 0x0a
const carriageReturn = 0x0d

const empty = Buffer.alloc(0)

/** The least that is allocated for an event that has arrived in part. */
const minHeld = 1024

/**
 * Finds the ends of events in the bytes of an event stream. Lines may end with a line feed, a carriage return, or both.
 *
 * `push` adds bytes, then `next` moves from event to event until it returns `false`. The bytes after the last end are kept for the
 * next `push`. `wire/events.ts` reads events as text, and hands unusual forms to a parser of text. Bytes that are passed on
 * unchanged need the places of the ends, also in those forms.
 */
export class Frames {
  /** The bytes in which the fields below are places. */
  bytes: Buffer = empty
  /** Where the event begins. */
  start = 0
  /** Where the event ends, after its blank line. */
  end = 0
  /** The lines of the event. */
  lines = 0
  /** Where the first line ends, without its line end. */
  firstEnd = 0
  /** Where the second line begins. */
  second = 0
  /** Where the last line ends, without its line end. */
  lastEnd = 0
  /** After `next` returned `false`: where the bytes begin that are kept. */
  cut = 0

  private held: Buffer = empty
  private heldSize = 0
  /** Where the line begins that has not ended. */
  private line = 0
  /** Where the search for its end continues. */
  private from = 0
  private hasReturns = false
  /** Whether the last byte was a carriage return, so that a line feed after it belongs to the same line end. */
  private isReturned = false

  /** The bytes of the event that has arrived in part. */
  get rest(): Buffer {
    return this.held.subarray(0, this.heldSize)
  }

  push(chunk: Uint8Array): void {
    const buffer = Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    if (!this.hasReturns) this.hasReturns = buffer.includes(carriageReturn)
    this.bytes = this.heldSize === 0 ? buffer : this.append(buffer)
  }

  /** Moves to the next event that is whole. */
  next(): boolean {
    const { bytes } = this
    if (this.end > 0) this.begin(this.end)
    for (;;) {
      if (this.isReturned && this.from < bytes.length) {
        this.isReturned = false
        if (bytes[this.from] === lineFeed) {
          this.line = ++this.from
          if (this.lines === 0) this.start = this.line
          else if (this.lines === 1) this.second = this.line
        }
      }
      const at = this.hasReturns ? lineEnd(bytes, this.from) : bytes.indexOf(lineFeed, this.from)
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

  /** Keeps the bytes of the event that has not ended. Its places become relative to its start. */
  private keep(): void {
    const { bytes, start } = this
    const size = bytes.length - start
    this.cut = start
    if (start > 0 || this.heldSize === 0) {
      // The bytes before are passed on, so their memory is not used again.
      this.held = size === 0 ? empty : Buffer.allocUnsafe(Math.max(minHeld, 2 * size))
      bytes.copy(this.held, 0, start)
    }
    this.heldSize = size
    this.start = 0
    this.line -= start
    this.second -= start
    this.firstEnd -= start
    this.lastEnd -= start
    this.from = size
    this.end = 0
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

const lineEnd = (bytes: Buffer, from: number): number => {
  for (let at = from; at < bytes.length; at++) {
    const byte = bytes[at]
    if (byte === lineFeed || byte === carriageReturn) return at
  }
  return -1
}
