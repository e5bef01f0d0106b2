/** The outputs of a run: a file or standard output, written a whole line at a time. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Stats } from "node:fs"
import type { FileHandle } from "node:fs/promises"
import { open, stat, unlink } from "node:fs/promises"
import type { Writable } from "node:stream"
import { isatty } from "node:tty"
import * as Terminal from "../Terminal.ts"
import * as SystemError from "./SystemError.ts"

export class OutputError extends Schema.Error<OutputError>("sluice/OutputError")({
  _tag: Schema.tag("OutputError"),
  path: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `cannot write ${Terminal.escape(this.path)}: ${this.why}`
  }
}

/** The reader closed the pipe. It is not reported as an error. */
export class ReaderGone extends Schema.Error<ReaderGone>("sluice/ReaderGone")({ _tag: Schema.tag("ReaderGone") }) {}

export interface Output {
  /** Appends the text as a whole and waits until the system has taken it. */
  readonly write: (text: string) => Effect.Effect<void, OutputError | ReaderGone>
}

export interface OutputOptions {
  /** `-` is standard output. */
  readonly path: string
  readonly force: boolean
  /** The input file, which must not be the output. */
  readonly input: { readonly dev: number; readonly ino: number } | undefined
  /** The advice of the error if the file exists. Default: to use --force. */
  readonly alreadyExists?: string | undefined
  /** Keeps the content of an existing file and appends to it. */
  readonly resume?: Resumed | undefined
}

/** The part of an existing file that is kept. */
export interface Resumed {
  /** The length of the kept part, in bytes. The rest is cut off before the first write. */
  readonly end: number
  /** Whether the kept part lacks its last line feed. */
  readonly needsLineFeed: boolean
}

/** Opens the output until the scope closes. Then deletes a new file that is still empty. */
export const make = (options: OutputOptions): Effect.Effect<Output, OutputError, Scope.Scope> =>
  options.path === "-" ? toWritable(options, process.stdout) : toFile(options)

/** An answer can have characters that control a terminal. A file gets them as they are. */
const shownOn = (isTerminal: boolean) => (line: string): string => isTerminal ? Terminal.escapeJson(line) : line

const toOutput = (append: (text: string) => Effect.Effect<void, OutputError | ReaderGone>): Output => {
  const lock = Semaphore.makeUnsafe(1)
  // Uninterruptible, so that no partial line is left in the file.
  return { write: (text) => lock.withPermit(Effect.uninterruptible(append(text))) }
}

// ---------- a stream

/** Returns an output to this stream. */
export const toWritable = (
  options: OutputOptions,
  writable: Writable & { readonly isTTY?: boolean }
): Effect.Effect<Output> =>
  Effect.sync(() => {
    const shown = shownOn(writable.isTTY === true)
    // Node also emits the error as an event, which ends the process without a listener. The event comes after the callback
    // of the write, when the scope may be closed, so the listener stays.
    writable.on("error", ignore)
    return toOutput((line) =>
      Effect.callback<void, OutputError | ReaderGone>((resume) => {
        writable.write(shown(line), (error) => {
          resume(error === null || error === undefined ? Effect.void : Effect.fail(toError(options.path, error)))
        })
      })
    )
  })

const ignore = (): void => {}

const readerGone = new Set(["EPIPE", "ERR_STREAM_DESTROYED", "ECONNRESET"])

const toError = (path: string, error: unknown): OutputError | ReaderGone =>
  readerGone.has(SystemError.codeOf(error) ?? "")
    ? new ReaderGone()
    : new OutputError({ path: path === "-" ? "standard output" : path, why: SystemError.describe(error) })

// ---------- a file

const toFile = (options: OutputOptions) =>
  Effect.gen(function*() {
    const { path, resume } = options
    const existing = yield* existingFile(options)
    const isNew = existing === undefined
    // An existing file keeps its content until the first write.
    let isUnwritten = true
    /** The bytes of whole lines. */
    let size = existing === undefined ? 0 : resume?.end ?? 0
    const isFile = existing === undefined || existing.isFile()
    const handle = yield* Effect.acquireRelease(
      // Always appends. Otherwise a file that another program shortens would get a gap of zeros.
      attempt(path, () => open(path, isNew ? "ax" : "a")),
      (handle) =>
        Effect.ignore(attempt(path, async () => {
          await handle.close()
          if (isNew && isUnwritten) await unlink(path)
        }))
    )
    const disk = new Disk(handle)
    if (isFile) {
      yield* Effect.addFinalizer(() => disk.sync)
      yield* Effect.forkScoped(Effect.forever(Effect.delay(disk.sync, syncInterval)))
    }
    // The path may be /dev/tty, or /dev/stdout on a terminal.
    const shown = shownOn(isatty(handle.fd))
    return toOutput((line) =>
      attempt(path, async () => {
        if (isUnwritten && existing?.isFile() === true) await handle.truncate(size)
        const text = isUnwritten && !isNew && resume?.needsLineFeed === true ? `\n${shown(line)}` : shown(line)
        isUnwritten = false
        const bytes = Buffer.from(text)
        try {
          await writeAll(handle, bytes)
          size += bytes.length
          disk.isDirty = true
        } catch (error) {
          // A full disk may have stored the beginning of a line.
          if (isFile) await handle.truncate(size).catch(() => {})
          throw error
        }
      })
    )
  })

/** Writes with one call of the system if it takes all, so that a kill seldom leaves a part of a line. */
const writeAll = async (handle: FileHandle, bytes: Buffer): Promise<void> => {
  for (let written = 0; written < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, written)
    written += bytesWritten
  }
}

const syncInterval = Duration.seconds(1)

/** Flushes writes to the disk. With a flush a second, a power cut loses at most the results of the last second. */
class Disk {
  /** Whether a write followed the last flush. */
  isDirty = false
  private readonly handle: FileHandle

  constructor(handle: FileHandle) {
    this.handle = handle
  }

  /** Ignores errors: some file systems cannot do it, and a full disk is reported by a write. */
  readonly sync = Effect.promise(async () => {
    if (!this.isDirty) return
    this.isDirty = false
    await this.handle.datasync().catch(() => {})
  })
}

/** Whether the path is a file or can become one. Standard output and devices are none. */
export const isFile = (path: string): Effect.Effect<boolean, OutputError> =>
  path === "-" ? Effect.succeed(false) : Effect.map(statOf(path), (found) => found?.isFile() ?? true)

/** Returns the existing file at the path, if it may be written: a device always, a file with `force`, a directory never. */
const existingFile = (options: OutputOptions): Effect.Effect<Stats | undefined, OutputError> =>
  Effect.flatMap(statOf(options.path), (existing) => {
    const refuse = (why: string) => Effect.fail(new OutputError({ path: options.path, why }))
    if (existing === undefined) return Effect.undefined
    if (existing.isDirectory()) return refuse("is a directory")
    if (existing.isFile() && existing.ino === options.input?.ino && existing.dev === options.input.dev) {
      return refuse("is the input file")
    }
    return existing.isFile() && !options.force && options.resume === undefined
      ? refuse(options.alreadyExists ?? "already exists; use --force to replace it")
      : Effect.succeed(existing)
  })

const statOf = (path: string): Effect.Effect<Stats | undefined, OutputError> =>
  attempt(path, () =>
    stat(path).catch((error: unknown) => {
      if (SystemError.codeOf(error) === "ENOENT") return undefined
      throw error
    }))

const attempt = <A>(path: string, run: () => Promise<A>): Effect.Effect<A, OutputError> =>
  Effect.tryPromise({ try: run, catch: (error) => new OutputError({ path, why: SystemError.describe(error) }) })
