/** The input of a run, as a stream of prompts. */
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Readable } from "node:stream"
import type { FileHandle } from "node:fs/promises"
import { open } from "node:fs/promises"
import * as Terminal from "../Terminal.ts"
import * as FileKind from "./FileKind.ts"
import type { Line } from "./Lines.ts"
import { Lines } from "./Lines.ts"
import type { Malformed, Prompt } from "./Prompt.ts"
import * as PromptLine from "./Prompt.ts"
import * as SystemError from "./SystemError.ts"

export class InputError extends Schema.Error<InputError>("sluice/InputError")({
  _tag: Schema.tag("InputError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot read ${Terminal.escape(this.path)}: ${this.why}`
  }
}

export interface Input {
  /** The lines in order, read on demand. */
  readonly items: Stream.Stream<Prompt | Malformed, InputError>
  /** The same lines, read once more from the start. `undefined` if the input can be read only once. */
  readonly again: Stream.Stream<Prompt | Malformed, InputError> | undefined
  /** Counts the items in a second pass. `undefined` if the input can be read only once. */
  readonly count: Effect.Effect<number, InputError> | undefined
  /** Identifies the file. `undefined` for standard input. */
  readonly identity: { readonly dev: number; readonly ino: number } | undefined
}

export interface InputOptions {
  /** `-` is standard input. */
  readonly path: string
  readonly system?: string | undefined
  /** Reads only this many prompts. Lines that are no prompts do not count. */
  readonly limit?: number | undefined
}

/** Opens the input until the scope closes. A `.txt` file has a plain prompt per line, any other has JSON. */
export const make = (options: InputOptions): Effect.Effect<Input, InputError, Scope.Scope> =>
  options.path === "-" ? Effect.succeed(fromReadable(options, process.stdin)) : fromFile(options)

/** Returns an input that reads this stream. */
export const fromReadable = (options: InputOptions, readable: Readable): Input => ({
  items: items(options, linesOf(options.path, chunksOf(options.path, readable))),
  again: undefined,
  count: undefined,
  identity: undefined
})

const fromFile = (options: InputOptions) =>
  Effect.gen(function*() {
    const { path } = options
    const handle = yield* Effect.acquireRelease(
      attempt(path, () => open(path)),
      (handle) => Effect.ignore(attempt(path, () => handle.close()))
    )
    const stat = yield* attempt(path, () => handle.stat())
    if (stat.isDirectory()) return yield* new InputError({ path, why: "is a directory" })
    const input: Input = {
      items: items(options, linesOf(path, chunksIn(path, handle))),
      again: stat.isFile() ? items(options, linesAgain(path)) : undefined,
      count: stat.isFile() ? count(options) : undefined,
      identity: { dev: stat.dev, ino: stat.ino }
    }
    return input
  })

const attempt = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, InputError> =>
  Effect.tryPromise({ try: run, catch: (error) => new InputError({ path, why: SystemError.describe(error) }) })

/** The chunks of a stream, one at a time, so that reading follows demand. */
const chunksOf = (path: string, readable: Readable): Stream.Stream<Uint8Array, InputError> =>
  NodeStream.fromReadable<Uint8Array, InputError>({
    evaluate: () => readable,
    chunkSize: 1,
    onError: (error) => new InputError({ path, why: SystemError.describe(error) })
  })

const chunkBytes = 64 * 1024

/** The chunks of a file. All are in the same buffer, since a buffer for each would take memory until it is collected. */
const chunksIn = (path: string, handle: FileHandle): Stream.Stream<Uint8Array, InputError> =>
  Stream.suspend(() => {
    const buffer = Buffer.allocUnsafeSlow(chunkBytes)
    const read = Effect.map(
      attempt(path, () => handle.read(buffer, 0, chunkBytes, null)),
      ({ bytesRead }) => bytesRead === 0 ? undefined : [buffer.subarray(0, bytesRead), undefined] as const
    )
    return Stream.unfold(undefined, () => read)
  })

/** A chunk is used up when the next one is read. */
const linesOf = (path: string, chunks: Stream.Stream<Uint8Array, InputError>): Stream.Stream<Line, InputError> =>
  Stream.suspend(() => {
    const lines = new CheckedLines(path)
    return Stream.concat(
      Stream.flattenIterable(Stream.mapEffect(chunks, (chunk) => lines.push(chunk))),
      Stream.unwrap(Effect.map(lines.end, (last) => Stream.fromIterable(last)))
    )
  })

const isPlain = (path: string): boolean => path.toLowerCase().endsWith(".txt")

/** Lines whose first bytes are checked, so that a file of another kind has one error. */
class CheckedLines {
  private readonly path: string
  private readonly lines = new Lines()
  /** The bytes that are not judged yet. `undefined` once the file is known to have lines. */
  private head: Uint8Array | undefined = new Uint8Array()

  constructor(path: string) {
    this.path = path
  }

  push(chunk: Uint8Array): Effect.Effect<ReadonlyArray<Line>, InputError> {
    const { head } = this
    if (head === undefined) return Effect.succeed(this.lines.push(chunk))
    this.head = Buffer.concat([head, chunk])
    return this.judge(false)
  }

  readonly end: Effect.Effect<ReadonlyArray<Line>, InputError> = Effect.suspend(() =>
    Effect.map(
      this.head === undefined ? Effect.succeed([]) : this.judge(true),
      (judged) => [...judged, ...this.lines.end()]
    )
  )

  private judge(isWhole: boolean): Effect.Effect<ReadonlyArray<Line>, InputError> {
    const { head: bytes = new Uint8Array(), path } = this
    const verdict = FileKind.judge({ bytes, isWhole, isPlain: isPlain(path) })
    switch (verdict._tag) {
      case "Wrong":
        return Effect.fail(new InputError({ path: path === "-" ? "standard input" : path, why: verdict.why }))
      case "More":
        return Effect.succeed([])
      case "Fine":
        this.head = undefined
        return Effect.succeed(this.lines.push(bytes))
    }
  }
}

const items = (
  options: InputOptions,
  lines: Stream.Stream<Line, InputError>
): Stream.Stream<Prompt | Malformed, InputError> => {
  const format = { isPlain: isPlain(options.path), system: options.system }
  return lines.pipe(
    Stream.map((line): Prompt | Malformed =>
      line._tag === "Line"
        ? PromptLine.read(format, line.line, line.text)
        : { _tag: "Malformed", line: line.line, id: undefined, message: line.why }
    ),
    (read) => options.limit === undefined ? read : takePrompts(read, options.limit)
  )
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

// Opens the file again, to read from its start.
const linesAgain = (path: string): Stream.Stream<Line, InputError> =>
  Stream.unwrap(
    Effect.map(
      Effect.acquireRelease(
        attempt(path, () => open(path)),
        (handle) => Effect.ignore(attempt(path, () => handle.close()))
      ),
      (handle) => linesOf(path, chunksIn(path, handle))
    )
  )

// Every line that is not blank is an item. Only a limit depends on which of them are prompts.
const count = (options: InputOptions): Effect.Effect<number, InputError> => {
  const lines = linesAgain(options.path)
  return options.limit === undefined ? Stream.runCount(lines) : Stream.runCount(items(options, lines))
}
