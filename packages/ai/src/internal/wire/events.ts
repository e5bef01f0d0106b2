import * as Sse from "effect/encoding/Sse"

const lineFeed = 0x0a
const carriageReturn = 0x0d
const space = 0x20
const colon = 0x3a
const byteOrderMark = 0xef
// The first four characters of each as one number.
const data = 0x64617461
const even = 0x6576656e
const t = 0x74

/** A blank line has at most three characters before its last one. */
const blankLength = 3

/** The length of half an event that is kept, in characters. */
const maxHalf = 1024

/**
 * Cuts the bytes of an event stream into events.
 *
 * Nearly all servers send an event as one line of data, perhaps after a line with its name, and end lines with a line feed. Such
 * events are cut out of the bytes. From the first event on that has another form, Effect's parser reads the rest.
 */
export class Events {
  private readonly onEvent: (data: string, name: string) => void
  private readonly maxSize: number
  private isFirst = true
  /** The beginning of an event, in the pieces in which it arrived. */
  private tail: Array<Buffer> = []
  private tailBytes = 0
  private slow: SlowEvents | undefined

  /** `maxSize`: how large an event may be that has arrived in part, in characters. */
  constructor(onEvent: (data: string, name: string) => void, maxSize: number) {
    this.onEvent = onEvent
    this.maxSize = maxSize
  }

  /** The beginning of the event that has arrived in part. */
  get half(): string {
    return this.slow === undefined
      ? this.joinedTail().toString("utf8", 0, 4 * maxHalf).slice(0, maxHalf)
      : this.slow.half
  }

  /** Reads bytes. Returns whether an event that has arrived in part is too large. */
  feed(bytes: Uint8Array): boolean {
    if (bytes.length === 0) return false
    const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    if (this.slow !== undefined) return this.slow.feed(buffer)
    const isMarked = this.isFirst && buffer[0] === byteOrderMark
    this.isFirst = false
    if (isMarked || buffer.includes(carriageReturn)) return this.readSlowly(this.withTail(buffer))
    // An event that comes in many pieces is joined when one of its lines ends. Joining each piece would be quadratic.
    if (this.tailBytes === 0 || buffer.includes(lineFeed)) return this.read(this.withTail(buffer))
    this.keep(buffer)
    return this.isTailTooLarge()
  }

  /** Reads the last event, which has no blank line after it. */
  end(): void {
    const end = Buffer.from("\n\n")
    if (this.slow === undefined) this.read(this.withTail(end))
    else this.slow.end()
  }

  private read(buffer: Buffer): boolean {
    const { length } = buffer
    let at = 0
    while (at < length) {
      let start = at
      let name = "message"
      if (startsWithEvent(buffer, at)) {
        const end = buffer.indexOf(lineFeed, at)
        if (end === -1) break
        name = buffer.toString("utf8", valueStart(buffer, at + 6), end) || name
        start = end + 1
      }
      if (length - start < 5) {
        // Too short to tell, unless a line ends.
        if (buffer.includes(lineFeed, start)) return this.readSlowly(buffer.subarray(at))
        break
      }
      if (buffer.readUInt32BE(start) !== data || buffer[start + 4] !== colon) {
        return this.readSlowly(buffer.subarray(at))
      }
      const end = buffer.indexOf(lineFeed, start)
      if (end === -1 || end + 1 === length) break
      // Another line of the same event.
      if (buffer[end + 1] !== lineFeed) return this.readSlowly(buffer.subarray(at))
      at = end + 2
      this.onEvent(buffer.toString("utf8", valueStart(buffer, start + 5), end), name)
    }
    if (at < length) this.keep(at === 0 ? buffer : buffer.subarray(at))
    return this.isTailTooLarge()
  }

  // Its bytes are too many. Whether its characters are, the parser counts.
  private isTailTooLarge(): boolean {
    return this.tailBytes > this.maxSize && this.readSlowly(this.withTail(undefined))
  }

  private keep(buffer: Buffer): void {
    this.tail.push(buffer)
    this.tailBytes += buffer.length
  }

  private joinedTail(): Buffer {
    const [first] = this.tail
    return first !== undefined && this.tail.length === 1 ? first : Buffer.concat(this.tail)
  }

  private withTail(buffer: Buffer | undefined): Buffer {
    if (buffer !== undefined) {
      if (this.tailBytes === 0) return buffer
      this.tail.push(buffer)
    }
    const joined = this.joinedTail()
    this.tail = []
    this.tailBytes = 0
    return joined
  }

  private readSlowly(buffer: Buffer): boolean {
    this.slow = new SlowEvents(this.onEvent, this.maxSize)
    return this.slow.feed(buffer)
  }
}

const startsWithEvent = (buffer: Buffer, at: number): boolean =>
  buffer.length - at >= 6 && buffer.readUInt32BE(at) === even && buffer[at + 4] === t && buffer[at + 5] === colon

const valueStart = (buffer: Buffer, at: number): number => buffer[at] === space ? at + 1 : at

/** Reads events of every form that the standard allows. */
class SlowEvents {
  half = ""
  private readonly decoder = new TextDecoder()
  private readonly parser: Sse.Parser
  /** The last characters that arrived, which can be a part of a blank line. */
  private last = ""

  constructor(onEvent: (data: string, name: string) => void, maxEventSize: number) {
    this.parser = Sse.makeParser(
      // A `retry` is for browsers, which reconnect by themselves.
      (event) => event._tag === "Event" ? onEvent(event.data, event.event) : undefined,
      { maxEventSize }
    )
  }

  feed(bytes: Uint8Array): boolean {
    const text = this.decoder.decode(bytes, { stream: true })
    const isTooLarge = this.parser.feed(text) !== undefined
    this.keepHalf(text)
    this.last = text.length < blankLength ? (this.last + text).slice(-blankLength) : text.slice(-blankLength)
    return isTooLarge
  }

  end(): void {
    this.parser.feed(`${this.decoder.decode()}\n\n`)
  }

  private keepHalf(text: string): void {
    const joined = this.last + text
    const at = Math.max(
      joined.lastIndexOf("\n\n") + 2,
      joined.lastIndexOf("\r\r") + 2,
      joined.lastIndexOf("\n\r\n") + 3
    )
    if (at > 2) this.half = joined.slice(at, at + maxHalf)
    else if (this.half.length < maxHalf) this.half = (this.half + text).slice(0, maxHalf)
  }
}
