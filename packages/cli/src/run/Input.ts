/** The input of a run, as a stream of prompts. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { access, constants, open, stat } from "node:fs/promises"
import { Readable } from "node:stream"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"
import * as FileKind from "./FileKind.ts"
import { Problem } from "./Problem.ts"
import type { Malformed, Prompt } from "./Prompt.ts"
import * as PromptLine from "./Prompt.ts"
import * as Records from "./Records.ts"
import * as Template from "./Template.ts"

export class InputError extends Schema.Error<InputError>("sluice/InputError")({
  _tag: Schema.tag("InputError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot read ${Terminal.escape(this.path)}: ${this.why}`
  }
}

/** Identifies a file. */
export interface Identity {
  readonly dev: number
  readonly ino: number
}

export interface Input {
  /** The lines in order, read on demand. */
  readonly items: Stream.Stream<Prompt | Malformed, InputError>
  /** The same lines, read once more from the start. `undefined` if the input can be read only once. */
  readonly again: Stream.Stream<Prompt | Malformed, InputError> | undefined
  /** Counts the items in a second pass. `undefined` if the input can be read only once. */
  readonly count: Effect.Effect<number, InputError> | undefined
  /** Names a line that was read: by its number, and by its file if there are several. */
  readonly placeOf: (line: number) => string
  /** The files. Standard input is none. */
  readonly identities: ReadonlyArray<Identity>
}

export interface InputOptions {
  /** The files, which are read as if they were one. `-` is standard input. At least one. */
  readonly paths: ReadonlyArray<string>
  /** Default: by the end of a file's name, and its content. */
  readonly format?: FileKind.Format | undefined
  readonly system?: string | undefined
  /** Makes the prompt of each line from its fields. */
  readonly template?: string | undefined
  /** Keeps each line for its result. */
  readonly includeInput?: boolean | undefined
  /** Reads only this many prompts. Lines that are no prompts do not count. */
  readonly limit?: number | undefined
}

/** Reads the files on demand. Fails if one of them is missing, or if one after the first is of another kind or lacks a column. */
export const make = (options: InputOptions): Effect.Effect<Input, InputError> =>
  Effect.gen(function*() {
    const { paths } = options
    if (paths.filter((path) => path === "-").length > 1) {
      return yield* new InputError({ path: "standard input", why: "it can be read only once" })
    }
    const stats = yield* Effect.forEach(paths.filter((path) => path !== "-"), statOf)
    const sources = paths.map((path): Source => ({
      path,
      before: Number.POSITIVE_INFINITY,
      open: () => path === "-" ? process.stdin : chunksIn(path)
    }))
    const canRepeat = stats.length === paths.length && stats.every((stat) => stat.isFile())
    if (canRepeat) {
      // The first file is read before the first call anyway.
      yield* Effect.forEach(sources.slice(1), (source) => checkHead(source, options), { discard: true })
    }
    return {
      placeOf: placesOf(sources),
      items: itemsOf(sources, options),
      again: canRepeat ? itemsOf(sources, options) : undefined,
      count: canRepeat ? count(sources, options) : undefined,
      identities: stats.map(({ dev, ino }) => ({ dev, ino }))
    }
  })

/** Reads the beginning of a file, and so its kind and its columns. */
const checkHead = (source: Source, options: InputOptions): Effect.Effect<void, InputError> =>
  Stream.runDrain(Stream.take(records([{ ...source }], options), 1))

/** Returns an input that reads this stream. */
export const fromReadable = (options: InputOptions, readable: Readable): Input => ({
  placeOf: placesOf([]),
  items: itemsOf([{ path: options.paths[0] ?? "-", open: () => readable, before: 0 }], options),
  again: undefined,
  count: undefined,
  identities: []
})

interface Source {
  readonly path: string
  /** The number of lines before its first, once it is read. Infinity before. */
  before: number
  readonly open: () => Chunks
}

type Chunks = Readable | AsyncGenerator<Uint8Array, void, undefined>

const chunkBytes = 64 * 1024

/** The chunks of a file. All are in the same buffer, since a buffer for each would take memory until it is collected. */
async function* chunksIn(path: string): AsyncGenerator<Uint8Array, void, undefined> {
  const handle = await open(path)
  try {
    const buffer = Buffer.allocUnsafeSlow(chunkBytes)
    for (;;) {
      const { bytesRead } = await handle.read(buffer, 0, chunkBytes, null)
      if (bytesRead === 0) return
      yield buffer.subarray(0, bytesRead)
    }
  } finally {
    await handle.close()
  }
}

const statOf = (path: string) =>
  Effect.flatMap(
    Effect.tryPromise({
      try: async () => {
        await access(path, constants.R_OK)
        return await stat(path)
      },
      catch: (error) => toError(path, error)
    }),
    (stat) => stat.isDirectory() ? Effect.fail(new InputError({ path, why: "is a directory" })) : Effect.succeed(stat)
  )

const toError = (path: string, error: unknown): InputError =>
  new InputError({
    path: path === "-" ? "standard input" : path,
    why: error instanceof Problem ? error.message : SystemError.describe(error)
  })

const records = (sources: ReadonlyArray<Source>, options: InputOptions): Stream.Stream<Records.Record, InputError> =>
  Stream.suspend(() => {
    const reading = new Reading(sources, options)
    return Stream.fromAsyncIterable(reading.records(), (error) => toError(reading.path, error)).pipe(
      Stream.flattenIterable,
      Stream.ensuring(Effect.sync(() => reading.close()))
    )
  })

/** One pass over the files. */
class Reading {
  path = ""
  private chunks: Chunks | undefined
  private readonly sources: ReadonlyArray<Source>
  private readonly options: InputOptions

  constructor(sources: ReadonlyArray<Source>, options: InputOptions) {
    this.sources = sources
    this.options = options
  }

  /** The records of all files. Their line numbers continue from file to file. */
  async *records(): AsyncGenerator<ReadonlyArray<Records.Record>, void, undefined> {
    const template = this.options.template === undefined ? undefined : Template.make(this.options.template)
    let before = 0
    for (const source of this.sources) {
      const { open, path } = source
      source.before = before
      this.path = path
      this.chunks = open()
      const format = this.options.format ?? FileKind.formatOf(path)
      before = yield* Records.read(this.chunks, { format, template, before })
    }
  }

  /** Closes the file, and ends a read of a stream that waits for more bytes. */
  close(): void {
    if (this.chunks instanceof Readable) this.chunks.destroy()
    // An iterator that was left before its first chunk does not close the file.
    else void this.chunks?.return().catch(() => {})
  }
}

const placesOf = (sources: ReadonlyArray<Source>) => (line: number): string => {
  const source = sources.length < 2 ? undefined : sources.findLast(({ before }) => before < line)
  return source === undefined
    ? `line ${line}`
    : `${Terminal.escape(source.path === "-" ? "standard input" : source.path)}, line ${line - source.before}`
}

const itemsOf = (
  sources: ReadonlyArray<Source>,
  options: InputOptions
): Stream.Stream<Prompt | Malformed, InputError> => {
  const format: PromptLine.Format = {
    system: options.system,
    template: options.template === undefined ? undefined : Template.make(options.template),
    includeInput: options.includeInput
  }
  const read = Stream.map(records(sources, options), (record) => PromptLine.read(format, record))
  return options.limit === undefined ? read : takePrompts(read, options.limit)
}

const takePrompts = <E>(
  items: Stream.Stream<Prompt | Malformed, E>,
  limit: number
): Stream.Stream<Prompt | Malformed, E> =>
  Stream.suspend(() => {
    let prompts = 0
    return Stream.takeUntil(items, ({ _tag }) => {
      if (_tag === "Prompt") prompts++
      return prompts >= limit
    })
  })

// Every record is an item. Only a limit depends on which of them are prompts.
const count = (sources: ReadonlyArray<Source>, options: InputOptions): Effect.Effect<number, InputError> =>
  options.limit === undefined
    ? Stream.runCount(records(sources, options))
    : Stream.runCount(itemsOf(sources, options))
