/**
 * Reads the results of earlier runs, which serve `--resume` as the journal.
 *
 * Reads the beginning of each line by one regular expression, since parsing each as JSON takes four times as long.
 */
import * as Schema from "effect/Schema"
import type { FileHandle } from "node:fs/promises"
import * as Terminal from "../Terminal.ts"
import type { Entry } from "./Place.ts"
import { Place } from "./Place.ts"

/** A line of the results was not written by `sluice run`. */
export class JournalError extends Schema.Error<JournalError>("sluice/JournalError")({
  _tag: Schema.tag("JournalError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot read ${Terminal.escape(this.path)}: ${this.why}`
  }
}

export interface Journal {
  readonly place: Place
  /** The cost of all results in millionths of a dollar, also of those that a later one replaces. */
  readonly cost: number
  /** The bytes of whole results. A tail after them was left by a kill or a power cut. */
  readonly end: number
  /** Bytes after `end`. */
  readonly torn: number
  /** Whether the last result is whole apart from its line feed. */
  readonly needsLineFeed: boolean
}

const lineFeed = 0x0a
const closingBrace = 0x7d

const chunkBytes = 2 ** 20
/** Enough for the fields that are read, unless an id is very long. */
const headBytes = 512
/** A longer tail is cut without a check whether it is whole. */
const maxTail = 64 * 2 ** 20

/** Called for each result, with its position and its length in bytes. */
export type Visit = (entry: Entry, start: number, bytes: number) => void

/** Reads all results. Fails with the number of the first line that is no result. */
export const scan = async (handle: FileHandle, path: string, visit?: Visit): Promise<Journal> => {
  const scanner = new Scanner(handle, path, visit)
  return await scanner.scan()
}

/** The result of a line: a second scan, for a message that quotes it. */
export const find = async (handle: FileHandle, line: number): Promise<Entry | undefined> => {
  let found: Entry | undefined
  const scanner = new Scanner(handle, "", (entry) => {
    if (entry.line === line) found = entry
  })
  await scanner.scan()
  return found
}

/** The bytes of whole lines in a file, up to its last line feed. */
export const endOfLines = async (handle: FileHandle): Promise<number> => {
  const buffer = Buffer.allocUnsafe(64 * 1024)
  let { size: end } = await handle.stat()
  while (end > 0) {
    const start = Math.max(0, end - buffer.length)
    const { bytesRead } = await handle.read(buffer, 0, end - start, start)
    const found = buffer.subarray(0, bytesRead).lastIndexOf(lineFeed)
    if (found !== -1) return start + found + 1
    end = start
  }
  return 0
}

const form =
  /^\{"line":([1-9]\d{0,14}),(?:"sample":([1-9]\d{0,3}),)?(?:"id":"((?:[^"\\]|\\.)*)",)?"status":"(?:(ok)|failed)"(?:,"request":"([0-9a-f]{16})")?(?:,"cost":([0-9.]+))?(?:,"error":\{"tag":"([^"]*)")?/

/** The tags of lines that failed only because the run stopped. */
export const unsent: ReadonlySet<string> = new Set(["NotSent", "Unfinished"])

/** Reads the beginning of a result. `undefined` if it is no result, or if `head` is too short. */
const entryOf = (head: string): Entry | undefined => {
  const match = form.exec(head)
  if (match === null) return undefined
  const [, line, number, id, ok, request, dollars, tag] = match
  const sample = number === undefined ? 1 : Number(number)
  const cost = dollars === undefined ? 0 : Math.round(Number(dollars) * 1e6)
  if (ok !== undefined) {
    return request === undefined
      ? undefined
      : { line: Number(line), sample, id, request, cost, state: "ok" }
  }
  // A failed line that was no prompt has no request.
  return tag === undefined
    ? undefined
    : { line: Number(line), sample, id, request, cost, state: unsent.has(tag) ? "unsent" : "failed" }
}

const opening = `{"line":`

/** Whether this can be the rest of an interrupted write of a result. */
const isTorn = (head: string): boolean => opening.startsWith((head.split("\0", 1)[0] ?? "").slice(0, opening.length))

/** A line that began in an earlier chunk and is longer than a chunk. */
interface Long {
  readonly head: string
  hasZero: boolean
  last: number
}

/** Reads a line of the buffer: its beginning, or all of it if a long id comes first. */
const entryIn = (bytes: Buffer, start: number, end: number): Entry | undefined =>
  entryOf(bytes.toString("latin1", start, Math.min(end, start + headBytes))) ??
    (end - start > headBytes ? entryOf(bytes.toString("latin1", start, end)) : undefined)

class Scanner {
  private readonly handle: FileHandle
  private readonly path: string
  private readonly visit: Visit | undefined
  private readonly place = new Place()
  private cost = 0
  private readonly buffer = Buffer.allocUnsafe(chunkBytes)
  /** How many lines were read. */
  private lines = 0
  /** The position after the last line that was read, and that line if it is no result. */
  private end = 0
  private bad: { readonly line: number; readonly start: number; readonly hasZero: boolean } | undefined

  constructor(handle: FileHandle, path: string, visit?: Visit) {
    this.handle = handle
    this.path = path
    this.visit = visit
  }

  async scan(): Promise<Journal> {
    const { buffer } = this
    let position = 0
    /** Bytes of an unfinished line at the beginning of the buffer. */
    let kept = 0
    let long: Long | undefined
    while (true) {
      const { bytesRead } = await this.handle.read(buffer, kept, buffer.length - kept, position)
      if (bytesRead === 0) break
      position += bytesRead
      const filled = buffer.subarray(0, kept + bytesRead)
      const hasZero = filled.includes(0)
      let start = 0
      for (let end = filled.indexOf(lineFeed); end !== -1; end = filled.indexOf(lineFeed, start)) {
        if (long === undefined) {
          const last = end > start ? filled[end - 1] ?? 0 : 0
          const isZero = hasZero && filled.subarray(start, end).includes(0)
          this.line(entryIn(filled, start, end), end - start, last, isZero)
        } else {
          const isZero = long.hasZero || (hasZero && filled.subarray(0, end).includes(0))
          const bytes = position - filled.length + end - this.end
          const entry = entryOf(long.head) ?? entryOf((await this.read(this.end, bytes)).toString("latin1"))
          this.line(entry, bytes, end > 0 ? filled[end - 1] ?? 0 : long.last, isZero)
          long = undefined
        }
        start = end + 1
      }
      kept = filled.length - start
      if (start > 0) filled.copyWithin(0, start)
      else if (kept === buffer.length) {
        long ??= { head: filled.toString("latin1", 0, headBytes), hasZero: false, last: 0 }
      }
      if (long !== undefined) {
        const rest = buffer.subarray(0, kept)
        long.hasZero ||= hasZero && rest.includes(0)
        long.last = rest.at(-1) ?? long.last
        kept = 0
      }
    }
    return await this.judged(position)
  }

  /** Adds a line that ends with a line feed. */
  private line(read: Entry | undefined, bytes: number, last: number, hasZero: boolean): void {
    this.lines++
    this.refuseBad()
    const entry = last === closingBrace && !hasZero ? read : undefined
    if (entry === undefined) this.bad = { line: this.lines, start: this.end, hasZero }
    else this.add(entry, bytes)
    this.end += bytes + 1
  }

  private add(entry: Entry, bytes: number): void {
    this.cost += entry.cost
    this.place.add(entry)
    this.visit?.(entry, this.end, bytes)
  }

  /** Fails at a damaged line, unless it is the last: a power cut can leave zeros there. */
  private refuseBad(): void {
    if (this.bad !== undefined) throw this.noResult(this.bad.line)
  }

  private noResult(line: number): JournalError {
    return new JournalError({
      path: this.path,
      why: `its line ${line} is no result of sluice run. Remove that line, or write to a new file with -o`
    })
  }

  private async judged(size: number): Promise<Journal> {
    const { bad, cost, place } = this
    if (bad !== undefined) {
      // An unfinished line may follow the damaged one. Both are cut.
      if (!bad.hasZero || !isTorn(await this.headAt(bad.start))) throw this.noResult(bad.line)
      return { place, cost, end: bad.start, torn: size - bad.start, needsLineFeed: false }
    }
    const torn = size - this.end
    // A file of another kind, without any line feed, must not be emptied.
    if (torn > 0 && !isTorn(await this.headAt(this.end))) throw this.noResult(this.lines + 1)
    const last = torn === 0 || torn > maxTail ? undefined : await this.lastResult(torn)
    if (last === undefined) return { place, cost, end: this.end, torn, needsLineFeed: false }
    this.add(last, torn)
    return { place, cost: this.cost, end: size, torn: 0, needsLineFeed: true }
  }

  /** The result after the last line feed, if only its own line feed is missing. An editor may have removed it. */
  private async lastResult(bytes: number): Promise<Entry | undefined> {
    const text = await this.read(this.end, bytes)
    try {
      JSON.parse(text.toString())
    } catch {
      return undefined
    }
    return entryOf(text.toString("latin1"))
  }

  private async headAt(start: number): Promise<string> {
    return (await this.read(start, opening.length)).toString("latin1")
  }

  private async read(start: number, bytes: number): Promise<Buffer> {
    const buffer = Buffer.alloc(bytes)
    let filled = 0
    while (filled < bytes) {
      const { bytesRead } = await this.handle.read(buffer, filled, bytes - filled, start + filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return buffer.subarray(0, filled)
  }
}
