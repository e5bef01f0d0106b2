/** The input of a run, as a stream of prompts. */
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Readable } from "node:stream"
import { open } from "node:fs/promises"
import * as Terminal from "../Terminal.ts"
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
  /** Counts the items in a second pass. `undefined` if the input can be read only once. */
  readonly count: Effect.Effect<number, InputError> | undefined
  /** Identifies the file. `undefined` for standard input. */
  readonly identity: { readonly dev: number; readonly ino: number } | undefined
}

export interface InputOptions {
  /** `-` is standard input. */
  readonly path: string
  readonly system?: string | undefined
  /** Reads only this many items. */
  readonly limit?: number | undefined
}

/** Opens the input until the scope closes. A `.txt` file has a plain prompt per line, any other has JSON. */
export const make = (options: InputOptions): Effect.Effect<Input, InputError, Scope.Scope> =>
  options.path === "-" ? Effect.succeed(fromReadable(options, process.stdin)) : fromFile(options)

/** Returns an input that reads this stream. */
export const fromReadable = (options: InputOptions, readable: Readable): Input => ({
  items: items(options, linesOf(options.path, () => readable)),
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
    const lines = linesOf(path, () => handle.createReadStream({ autoClose: false }))
    const input: Input = {
      items: items(options, lines),
      count: stat.isFile() ? count(options) : undefined,
      identity: { dev: stat.dev, ino: stat.ino }
    }
    return input
  })

const attempt = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, InputError> =>
  Effect.tryPromise({ try: run, catch: (error) => new InputError({ path, why: SystemError.describe(error) }) })

const linesOf = (path: string, evaluate: () => Readable): Stream.Stream<Line, InputError> =>
  Stream.suspend(() => {
    const lines = new Lines()
    const bytes = NodeStream.fromReadable<Uint8Array, InputError>({
      evaluate,
      // One chunk at a time, so that reading follows demand.
      chunkSize: 1,
      onError: (error) => new InputError({ path, why: SystemError.describe(error) })
    })
    return Stream.concat(
      Stream.flattenIterable(Stream.map(bytes, (chunk) => lines.push(chunk))),
      Stream.suspend(() => Stream.fromIterable(lines.end()))
    )
  })

const items = (
  options: InputOptions,
  lines: Stream.Stream<Line, InputError>
): Stream.Stream<Prompt | Malformed, InputError> => {
  const format = { isPlain: options.path.toLowerCase().endsWith(".txt"), system: options.system }
  return lines.pipe(
    Stream.take(options.limit ?? Number.POSITIVE_INFINITY),
    Stream.map((line) =>
      line._tag === "Line"
        ? PromptLine.read(format, line.line, line.text)
        : { _tag: "Malformed", line: line.line, id: undefined, message: line.why }
    )
  )
}

// Opens the file again, to read from its start.
const count = ({ limit, path }: InputOptions): Effect.Effect<number, InputError> =>
  Effect.scoped(Effect.gen(function*() {
    const handle = yield* Effect.acquireRelease(
      attempt(path, () => open(path)),
      (handle) => Effect.ignore(attempt(path, () => handle.close()))
    )
    return yield* linesOf(path, () => handle.createReadStream({ autoClose: false })).pipe(
      Stream.take(limit ?? Number.POSITIVE_INFINITY),
      Stream.runCount
    )
  }))
