import type { ToolCallFragment } from "../../wire/toolCalls.ts"

/** The most tool calls of an answer. */
export const maxCalls = 1024
/** The most characters of tool calls that are held, as of a whole answer. */
export const maxHeld = 16 * 1024 * 1024

/** Writes the blocks of an answer. */
export interface BlockWriter {
  readonly begin: (id: string, name: string) => void
  readonly input: (json: string) => void
}

/**
 * Orders the tool calls of chat completions, whose pieces may be interleaved, into blocks, of which one is open at a time.
 *
 * The pieces of the open call pass at once. The first piece of another call opens the next block if the arguments of the open one
 * are whole, as they are with every provider that sends one call after the other. Else it waits for that, or for the end.
 */
export class ToolBlocks {
  private readonly writer: BlockWriter
  private readonly calls: Array<Call> = []
  private open: Call | undefined
  /** The number of the call whose block is next. */
  private next = 0
  private waiting = 0

  constructor(writer: BlockWriter) {
    this.writer = writer
  }

  get hasCalls(): boolean {
    return this.calls.length > 0
  }

  /** Whether there are more calls, or more of them wait, than any answer has. */
  get isTooLarge(): boolean {
    return this.calls.length > maxCalls || this.waiting > maxHeld
  }

  /** Adds a piece. `newId`: the prefix of ids for calls without one. */
  add(piece: ToolCallFragment, newId: string): void {
    const call = this.callOf(piece)
    if (call.state === "closed") return
    call.name ??= piece.name
    const json = call.more(piece.arguments ?? "")
    if (call.state === "waiting") {
      call.held += json
      this.waiting += json.length
      this.advance(newId)
    } else if (json !== "") this.writer.input(json)
  }

  /** Writes the calls that wait, when another block begins or the answer ends. */
  finish(newId: string): void {
    for (let call = this.calls[this.next]; call !== undefined; call = this.calls[this.next]) this.begin(call, newId)
    if (this.open !== undefined) this.open.state = "closed"
    this.open = undefined
  }

  private advance(newId: string): void {
    for (let call = this.calls[this.next]; call?.name !== undefined; call = this.calls[this.next]) {
      if (this.open?.isWhole === false) return
      this.begin(call, newId)
    }
  }

  private begin(call: Call, newId: string): void {
    if (this.open !== undefined) this.open.state = "closed"
    this.open = call
    this.next++
    call.state = "open"
    this.writer.begin(call.id ?? `${newId}_${call.number}`, call.name ?? "")
    if (call.held !== "") this.writer.input(call.held)
    this.waiting -= call.held.length
    call.held = ""
  }

  /** Finds the call of a piece. Some servers send no index, the same index for all calls, or another id with every piece. */
  private callOf({ id, index, name }: ToolCallFragment): Call {
    const known = index === undefined ? this.calls.at(-1) : this.calls.findLast((call) => call.index === index)
    if (known !== undefined && !known.isOther(id, name)) return known
    const call = new Call(this.calls.length, id, index)
    this.calls.push(call)
    return call
  }
}

const quote = 0x22
const backslash = 0x5c
const openBrace = 0x7b
const closeBrace = 0x7d

class Call {
  readonly number: number
  readonly id: string | undefined
  readonly index: number | undefined
  name: string | undefined
  state: "waiting" | "open" | "closed" = "waiting"
  /** The arguments that wait. */
  held = ""
  /** Whether the arguments are a whole object. */
  isWhole = false

  private depth = 0
  private inString = false
  private isEscaped = false

  constructor(number: number, id: string | undefined, index: number | undefined) {
    this.number = number
    this.id = id
    this.index = index
  }

  /** Whether a piece with a name begins another call. */
  isOther(id: string | undefined, name: string | undefined): boolean {
    if (name === undefined || this.name === undefined) return false
    if (name !== this.name) return true
    return id === undefined || this.id === undefined ? this.isWhole : id !== this.id
  }

  /** Adds arguments. Returns those that count. */
  more(json: string): string {
    // Some servers repeat the call at the end, and some send an empty object before the arguments. A call needs no empty object.
    if (this.isWhole || (this.depth === 0 && json.trim() === "{}")) return ""
    for (let i = 0; i < json.length; i++) {
      const code = json.charCodeAt(i)
      if (this.isEscaped) this.isEscaped = false
      else if (this.inString) {
        if (code === backslash) this.isEscaped = true
        else if (code === quote) this.inString = false
      } else if (code === quote) this.inString = true
      else if (code === openBrace) this.depth++
      else if (code === closeBrace && --this.depth === 0) {
        this.isWhole = true
        return json.slice(0, i + 1)
      }
    }
    return json
  }
}
