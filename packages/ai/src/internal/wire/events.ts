import { Frames } from "./frames.ts"

/** The length of half an event that is shown, in characters. */
const maxHalf = 1024

const blankLine = Buffer.from("\n\n")

/** Reads the events in the bytes of an event stream as text. */
export class Events {
  private readonly onEvent: (data: string, name: string) => void
  private readonly maxSize: number
  private readonly frames = new Frames()
  /** The bytes of an event that has arrived in part at which its characters are counted. */
  private countAt: number

  /** `maxSize`: how large an event may be that has arrived in part, in characters. */
  constructor(onEvent: (data: string, name: string) => void, maxSize: number) {
    this.onEvent = onEvent
    this.maxSize = this.countAt = maxSize
  }

  /** The beginning of the event that has arrived in part. */
  get half(): string {
    return this.frames.rest(4 * maxHalf).slice(0, maxHalf)
  }

  /** Reads bytes. Returns whether an event that has arrived in part is too large. */
  feed(bytes: Uint8Array): boolean {
    const { frames } = this
    frames.push(bytes)
    while (frames.next()) {
      this.countAt = this.maxSize
      const { dataStart } = frames
      if (dataStart === -1) this.onFields()
      else this.onEvent(frames.bytes.toString("utf8", dataStart, frames.lastEnd), frames.name || "message")
    }
    return frames.restSize > this.countAt && this.isTooLarge()
  }

  /** Reads the last event, which has no blank line after it. */
  end(): void {
    this.feed(blankLine)
  }

  private onFields(): void {
    const { data, name } = this.frames.fields
    if (data !== undefined) this.onEvent(data, name || "message")
  }

  // A character has at least one byte. So they are counted again only when enough bytes have come.
  private isTooLarge(): boolean {
    const { frames, maxSize } = this
    const size = frames.rest().length
    this.countAt = frames.restSize + maxSize - size
    return size > maxSize
  }
}
