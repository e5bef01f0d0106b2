/** Splits an input into records: lines, elements of a JSON array, or rows of a table. */
import { Elements } from "./Elements.ts"
import * as FileKind from "./FileKind.ts"
import type { Line } from "./Lines.ts"
import { Lines } from "./Lines.ts"
import { Problem } from "./Problem.ts"
import type { Row } from "./Table.ts"
import type { Template } from "./Template.ts"

export type Record = Line | Row

export interface RecordsOptions {
  /** `undefined`: the content decides. */
  readonly format: FileKind.Format | undefined
  readonly template: Template | undefined
  /** The number of lines before the first. */
  readonly before: number
}

/**
 * Reads the records of a file, some at a time. Returns the number of the last line. Throws a `Problem` if its content is of
 * another kind.
 */
export async function* read(
  bytes: AsyncIterable<Uint8Array>,
  { before, format, template }: RecordsOptions
): AsyncGenerator<ReadonlyArray<Record>, number, undefined> {
  const { all, kind } = await judged(bytes, format)
  switch (kind.format) {
    case "csv":
    case "tsv": {
      const { rows } = await import("./Table.ts")
      return yield* rows(all, { ...kind, isGuess: format === undefined, before, template })
    }
    case "json":
      return yield* split(all, new Elements(before))
    case "jsonl":
    case "text":
      return yield* split(all, new Lines({ before, isPlain: kind.format === "text" }))
  }
}

async function* split(
  bytes: AsyncIterable<Uint8Array>,
  splitter: Lines | Elements
): AsyncGenerator<ReadonlyArray<Record>, number, undefined> {
  for await (const chunk of bytes) yield splitter.push(chunk)
  yield splitter.end()
  return splitter.last
}

/** Reads as many bytes as tell the kind of the file. Returns them before the rest. A chunk is used up when the next is read. */
const judged = async (bytes: AsyncIterable<Uint8Array>, format: FileKind.Format | undefined) => {
  const iterator = bytes[Symbol.asyncIterator]()
  let head: Uint8Array = new Uint8Array()
  for (;;) {
    const { done = false, value } = await iterator.next()
    if (value !== undefined) head = Buffer.concat([head, value])
    const verdict = FileKind.judge({ bytes: head, isWhole: done, format })
    if (verdict._tag === "Wrong") throw new Problem(verdict.why)
    if (verdict._tag === "Fine") return { kind: verdict.kind, all: following(head, done ? undefined : iterator) }
  }
}

async function* following(
  head: Uint8Array,
  rest: AsyncIterator<Uint8Array> | undefined
): AsyncGenerator<Uint8Array, void, undefined> {
  yield head
  if (rest !== undefined) yield* { [Symbol.asyncIterator]: () => rest }
}
