/** Reads the rows of a CSV or TSV file. */
import { CsvError, parse } from "csv-parse"
import { pipeline } from "node:stream"
import * as Terminal from "../Terminal.ts"
import { maxLineBytes } from "./Lines.ts"
import { Problem } from "./Problem.ts"
import * as Template from "./Template.ts"

/** A row that is not blank. */
export interface Row {
  readonly _tag: "Row"
  /** The line on which the row begins. Lines count from 1, and the header is one. */
  readonly line: number
  /** The cells, by the names of their columns. */
  readonly cells: { readonly [column: string]: string }
  /** Why the row cannot be sent. */
  readonly problem: string | undefined
}

export interface TableOptions {
  readonly delimiter: string
  /** Whether only the content of the file suggests that it is a table. */
  readonly isGuess: boolean
  /** The number of lines before the first. */
  readonly before: number
  readonly template: Template.Template | undefined
}

/** Reads rows, some at a time. Keeps no reference to the bytes. Returns the number of the last line. Throws a `Problem` if the file is no such table. */
export async function* rows(
  bytes: AsyncIterable<Uint8Array>,
  options: TableOptions
): AsyncGenerator<ReadonlyArray<Row>, number, undefined> {
  const lines = new LineCount(options.before)
  const parser = parse({
    bom: true,
    delimiter: options.delimiter,
    info: true,
    max_record_size: maxLineBytes,
    record_delimiter: ["\r\n", "\n"],
    // The number of cells is checked below, so that only its row fails.
    relax_column_count: true,
    relax_quotes: true,
    skip_empty_lines: true
  })
  // An error of the source ends the loop below.
  pipeline(counted(bytes, lines), parser, () => {})
  let columns: ReadonlyArray<string> | undefined
  let read: Array<Row> = []
  try {
    // The form of a record with the option `info`, which the types of the parser lack.
    for await (const { info, record } of parser as AsyncIterable<Parsed>) {
      const line = lines.nextRecord()
      lines.moveTo(info.bytes)
      if (columns === undefined) columns = columnsOf(record, options)
      else if (record.some((cell) => cell.trim() !== "")) read.push(rowOf(columns, record, line))
      if (parser.readableLength > 0 || read.length === 0) continue
      yield read
      read = []
    }
  } catch (error) {
    if (!(error instanceof CsvError)) throw error
    // The end of the last cell that was read. Rows that the parser had read and not handed on are lost.
    lines.moveTo(Number(error["bytes"]))
    throw new Problem(textOf(error, lines.nextRecord() - options.before))
  }
  if (read.length > 0) yield read
  return lines.last
}

interface Parsed {
  readonly info: { readonly bytes: number }
  readonly record: ReadonlyArray<string>
}

const textOf = ({ code, message }: CsvError, line: number): string => {
  switch (code) {
    case "CSV_QUOTE_NOT_CLOSED":
      return `the quoted cell on line ${line} is not closed`
    case "CSV_MAX_RECORD_SIZE":
      return `the cell on line ${line} makes a row of more than ${maxLineBytes} bytes; perhaps its quote is not closed`
    default:
      return `line ${line}: ${message}`
  }
}

/** Counts the bytes before the parser takes them, and refuses those that are not UTF-8. */
async function* counted(bytes: AsyncIterable<Uint8Array>, lines: LineCount): AsyncGenerator<Uint8Array> {
  const decoder = new TextDecoder("utf-8", { fatal: true })
  const check = (chunk?: Uint8Array): void => {
    try {
      decoder.decode(chunk, { stream: chunk !== undefined })
    } catch {
      throw new Problem(
        "it is not UTF-8; convert it, for example from Excel's: iconv -f WINDOWS-1252 -t UTF-8 FILE > prompts.csv"
      )
    }
  }
  for await (const chunk of bytes) {
    check(chunk)
    // A copy, since the next chunk may be in the same memory before the parser takes this one.
    const own = new Uint8Array(chunk)
    lines.push(own)
    yield own
  }
  check()
}

const lineFeed = 0x0a
const carriageReturn = 0x0d

/** Follows the line numbers of records, whose positions the parser tells. Its own line numbers count CRLF in a cell twice. */
class LineCount {
  /** Bytes that the parser has taken, from `position` on. */
  private chunks: Array<Uint8Array> = []
  private position = 0
  private line: number
  private lastByte = lineFeed

  constructor(before: number) {
    this.line = before + 1
  }

  push(chunk: Uint8Array): void {
    if (chunk.length > 0) this.chunks.push(chunk)
  }

  /** Passes blank lines. Returns the line of the record that follows. */
  nextRecord(): number {
    this.advance((byte) => byte === lineFeed || byte === carriageReturn)
    return this.line
  }

  moveTo(position: number): void {
    this.advance(() => this.position < position)
  }

  /** The number of the last line, once all records were read. */
  get last(): number {
    this.advance(() => true)
    return this.lastByte === lineFeed ? this.line - 1 : this.line
  }

  private advance(isPassed: (byte: number) => boolean): void {
    for (let [chunk] = this.chunks; chunk !== undefined; [chunk] = this.chunks) {
      let index = 0
      for (; index < chunk.length; index++) {
        const byte = chunk[index] ?? 0
        if (!isPassed(byte)) break
        if (byte === lineFeed) this.line++
        this.lastByte = byte
        this.position++
      }
      if (index < chunk.length) {
        this.chunks[0] = chunk.subarray(index)
        return
      }
      this.chunks.shift()
    }
  }
}

/** Reads the header. A column without a name gets its number. */
const columnsOf = (header: ReadonlyArray<string>, { isGuess, template }: TableOptions): ReadonlyArray<string> => {
  const columns = header.map((name, index) => name.trim() || `column_${index + 1}`)
  const repeated = columns.findIndex((name, index) => columns.indexOf(name) < index)
  if (repeated !== -1) {
    const name = columns[repeated] ?? ""
    throw new Problem(
      `its columns ${columns.indexOf(name) + 1} and ${repeated + 1} are both named ${shown(name)}; rename one`
    )
  }
  const missing = template?.fields.find((name) => !columns.includes(name))
  const has = `its columns are ${shown(columns.join(", "))}`
  if (missing !== undefined) {
    throw new Problem(`${Template.missingText(missing, columns)}; ${has}`.replaceAll("?;", "?"))
  }
  if (template === undefined && !columns.includes("prompt")) {
    throw new Problem(
      (isGuess ? "it seems to be a table, and " : "") +
        `it has no column prompt; ${has}. Make prompts of them: --prompt-template "Summarise: {{${
          shown(columns.at(-1) ?? "")
        }}}"` +
        (isGuess ? ". For one plain prompt per line: --input-format text" : "")
    )
  }
  return columns
}

const rowOf = (columns: ReadonlyArray<string>, record: ReadonlyArray<string>, line: number): Row => {
  const isWrong = record.length < columns.length || record.slice(columns.length).some((cell) => cell.trim() !== "")
  return {
    _tag: "Row",
    line,
    cells: Object.fromEntries(columns.map((name, index) => [name, record[index] ?? ""])),
    problem: isWrong ? `the row has ${record.length} cells, and the header ${columns.length}` : undefined
  }
}

const shown = (text: string): string => Terminal.clip(Terminal.escape(text), 80)
