/** Where results go, and what else a run writes: a named file or standard output, a whole line at a time. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Stats } from "node:fs"
import { open, stat, unlink } from "node:fs/promises"
import type { Writable } from "node:stream"
import * as Terminal from "../Terminal.ts"
import * as SystemError from "./SystemError.ts"

/** The output cannot be opened, or takes no more. */
export class OutputError extends Schema.Error<OutputError>("sluice/OutputError")({
  _tag: Schema.tag("OutputError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot write ${Terminal.escape(this.path)}: ${this.why}`
  }
}

/** Whoever read the results went away. Nothing went wrong, and nobody is there to be told. */
export class ReaderGone extends Schema.Error<ReaderGone>("sluice/ReaderGone")({ _tag: Schema.tag("ReaderGone") }) {}

/** An output that is open. */
export interface Output {
  /** Writes this text, whole, after what came before it, and waits until the system has taken it. */
  readonly write: (text: string) => Effect.Effect<void, OutputError | ReaderGone>
}

/** What is written to, and how. */
export interface OutputOptions {
  /** `-` is standard output. */
  readonly path: string
  /** Whether an existing file is replaced. */
  readonly force: boolean
  /** The file that is read: it must not be the one that is written. */
  readonly input: { readonly dev: number; readonly ino: number } | undefined
}

/** Opens the output until the scope closes. A file that was made for it and got no line is taken away again. */
export const make = (options: OutputOptions): Effect.Effect<Output, OutputError, Scope.Scope> =>
  options.path === "-" ? toWritable(options, process.stdout) : toFile(options)

const toOutput = (append: (text: string) => Effect.Effect<void, OutputError | ReaderGone>): Output => {
  const turn = Semaphore.makeUnsafe(1)
  // Half a line would spoil the file, so once begun it is not interrupted.
  return { write: (text) => turn.withPermit(Effect.uninterruptible(append(text))) }
}

// ---------- a stream

/** The output that this stream is. */
export const toWritable = (options: OutputOptions, writable: Writable): Effect.Effect<Output> =>
  Effect.sync(() => {
    // Node raises what went wrong also as an event, which ends the process if nobody listens. It comes after the answer
    // to the write, when our scope may be over, so the listener stays.
    writable.on("error", heard)
    return toOutput((line) =>
      Effect.callback<void, OutputError | ReaderGone>((resume) => {
        writable.write(line, (error) => {
          resume(error === null || error === undefined ? Effect.void : Effect.fail(toError(options.path, error)))
        })
      })
    )
  })

const heard = (): void => {}

const readerGone = new Set(["EPIPE", "ERR_STREAM_DESTROYED", "ECONNRESET"])

const toError = (path: string, error: unknown): OutputError | ReaderGone =>
  readerGone.has(SystemError.codeOf(error) ?? "")
    ? new ReaderGone()
    : new OutputError({ path: path === "-" ? "standard output" : path, why: SystemError.describe(error) })

// ---------- a file

const toFile = (options: OutputOptions) =>
  Effect.gen(function*() {
    const { path } = options
    const existing = yield* existingFile(options)
    const isNew = existing === undefined
    // An existing file keeps what it holds until there is something to replace it with.
    let isPristine = true
    const handle = yield* Effect.acquireRelease(
      attempt(path, () => open(path, isNew ? "wx" : "a")),
      (handle) =>
        Effect.ignore(attempt(path, async () => {
          await handle.close()
          if (isNew && isPristine) await unlink(path)
        }))
    )
    return toOutput((line) =>
      attempt(path, async () => {
        if (isPristine && existing?.isFile() === true) await handle.truncate(0)
        isPristine = false
        await handle.appendFile(line)
      })
    )
  })

/** What is there already, if it may be written to: a device always, a file only by force, a directory never. */
const existingFile = (options: OutputOptions): Effect.Effect<Stats | undefined, OutputError> =>
  Effect.flatMap(statOf(options.path), (existing) => {
    const refuse = (why: string) => Effect.fail(new OutputError({ path: options.path, why }))
    if (existing === undefined) return Effect.undefined
    if (existing.isDirectory()) return refuse("it is a directory")
    if (existing.isFile() && existing.ino === options.input?.ino && existing.dev === options.input.dev) {
      return refuse("it is the input")
    }
    return existing.isFile() && !options.force ? refuse("it exists; --force replaces it") : Effect.succeed(existing)
  })

const statOf = (path: string): Effect.Effect<Stats | undefined, OutputError> =>
  attempt(path, () =>
    stat(path).catch((error: unknown) => {
      if (SystemError.codeOf(error) === "ENOENT") return undefined
      throw error
    }))

const attempt = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, OutputError> =>
  Effect.tryPromise({ try: run, catch: (error) => new OutputError({ path, why: SystemError.describe(error) }) })
