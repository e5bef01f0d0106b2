/** The outputs of a run: a file or standard output, written a whole line at a time. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Stats } from "node:fs"
import type { FileHandle } from "node:fs/promises"
import { open, stat, unlink } from "node:fs/promises"
import type { Writable } from "node:stream"
import { isatty } from "node:tty"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"
import type { Append, Written } from "./Batch.ts"
import { Batch } from "./Batch.ts"
import type { Identity } from "./Input.ts"

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

export type WriteError = OutputError | ReaderGone

export interface Output {
  /**
   * Queues a text of whole lines. Texts of one turn of the event loop are written together. Calls `written` once the system has
   * taken the text, or with the first error of the output, and never before `push` returns.
   */
  readonly push: (text: string, written: Written<WriteError>) => void
  /** Appends the text without delay, and waits until the system has taken it. */
  readonly write: (text: string) => Effect.Effect<void, WriteError>
  /** Waits until no text is queued or being written. */
  readonly settled: Effect.Effect<void>
}

export interface OutputOptions {
  /** `-` is standard output. */
  readonly path: string
  readonly force: boolean
  /** The input files, which must not be the output. */
  readonly input: ReadonlyArray<Identity>
  /** The advice of the error if the file exists. Default: to use --force. */
  readonly alreadyExists?: string | undefined
  /** Whether each batch of lines is flushed to the disk before it counts as written. Default: once a second. */
  readonly sync?: boolean | undefined
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

const toOutput = (append: Append<WriteError>): Output => {
  const batch = new Batch(append)
  return {
    push: (text, written) => batch.push(text, written),
    // Uninterruptible, so that a line whose caller is interrupted is either queued and awaited, or not written.
    write: (text) =>
      Effect.uninterruptible(Effect.callback((resume) => {
        batch.push(text, (error) => resume(error === undefined ? Effect.void : Effect.fail(error)))
        batch.flush()
      })),
    settled: batch.settled
  }
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
    return toOutput((texts) =>
      new Promise((resolve) => {
        writable.write(shown(texts.join("")), (error) => {
          resolve(
            error === null || error === undefined
              ? { whole: texts.length, error: undefined }
              : { whole: 0, error: toError(options.path, error) }
          )
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
    const { path } = options
    const existing = yield* existingFile(options)
    const file = yield* Effect.acquireRelease(
      Effect.map(
        // Always appends. Otherwise a file that another program shortens would get a gap of zeros.
        attempt(path, () => open(path, existing === undefined ? "ax" : "a")),
        (handle) => new File(handle, options, existing)
      ),
      (file) => Effect.ignore(attempt(path, () => file.close()))
    )
    if (file.isRegular) {
      yield* Effect.addFinalizer(() => Effect.promise(() => file.sync()))
      yield* Effect.forkScoped(Effect.forever(Effect.delay(Effect.promise(() => file.sync()), syncInterval)))
    }
    const output = toOutput(file.append)
    yield* Effect.addFinalizer(() => output.settled)
    return output
  })

/** With a flush a second, a power cut loses at most the results of the last second. */
const syncInterval = Duration.seconds(1)

/** A file that lines are appended to. */
class File {
  readonly isRegular: boolean
  private readonly handle: FileHandle
  private readonly path: string
  private readonly isNew: boolean
  private readonly syncs: boolean
  private readonly shown: (text: string) => string
  /** What the first write does before: it cuts off the rest of an existing file, and ends its last line. */
  private readonly needsCut: boolean
  private readonly needsLineFeed: boolean
  /** An existing file keeps its content until the first write. */
  private isUnwritten = true
  /** The bytes of whole lines. */
  private size: number
  /** Whether a write followed the last flush to the disk. */
  private isDirty = false

  constructor(handle: FileHandle, { path, resume, sync = false }: OutputOptions, existing: Stats | undefined) {
    this.handle = handle
    this.path = path
    this.isNew = existing === undefined
    this.isRegular = existing === undefined || existing.isFile()
    this.syncs = sync && this.isRegular
    this.needsCut = existing?.isFile() === true
    this.needsLineFeed = existing !== undefined && resume?.needsLineFeed === true
    this.size = existing === undefined ? 0 : resume?.end ?? 0
    // The path may be /dev/tty, or /dev/stdout on a terminal.
    this.shown = shownOn(isatty(handle.fd))
  }

  readonly append: Append<WriteError> = async (texts) => {
    const lines = texts.map(this.shown)
    let first = ""
    let written = 0
    try {
      if (this.isUnwritten) first = await this.begin()
      const bytes = Buffer.from(first + lines.join(""))
      // One system call if it takes all, so that a kill seldom leaves a part of a line.
      while (written < bytes.length) {
        written += (await this.handle.write(bytes, written)).bytesWritten
        this.isDirty = true
      }
      this.size += bytes.length
      const error = this.syncs ? await this.flush() : undefined
      // It is not known which of the lines the disk has. --resume reads those that it has.
      return { whole: error === undefined ? lines.length : 0, error }
    } catch (error) {
      const why = new OutputError({ path: this.path, why: SystemError.describe(error) })
      return { whole: await this.cut(lines, first, written), error: why }
    }
  }

  /** Flushes writes to the disk. Ignores errors: some file systems cannot do it, and a full disk is reported by a write. */
  async sync(): Promise<void> {
    if (!this.isDirty) return
    this.isDirty = false
    await this.handle.datasync().catch(() => {})
  }

  /** As `sync`, but reports what the disk refuses. */
  private async flush(): Promise<OutputError | undefined> {
    this.isDirty = false
    try {
      await this.handle.datasync()
      return undefined
    } catch (error) {
      return new OutputError({ path: this.path, why: `cannot flush it to the disk: ${SystemError.describe(error)}` })
    }
  }

  async close(): Promise<void> {
    await this.handle.close()
    if (this.isNew && this.isUnwritten) await unlink(this.path)
  }

  /** Prepares the file for the first write. Returns the text that has to precede it. */
  private async begin(): Promise<string> {
    this.isUnwritten = false
    if (this.needsCut) await this.handle.truncate(this.size)
    return this.needsLineFeed ? "\n" : ""
  }

  /** Cuts off the beginning of a line that a full disk has taken. Returns how many lines before it are whole. */
  private async cut(lines: ReadonlyArray<string>, first: string, written: number): Promise<number> {
    let whole = 0
    let end = first.length
    for (const line of lines) {
      const next = end + Buffer.byteLength(line)
      if (next > written) break
      end = next
      whole++
    }
    if (this.isRegular) await this.handle.truncate(whole === 0 ? this.size : this.size + end).catch(() => {})
    return whole
  }
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
    if (existing.isFile() && options.input.some(({ dev, ino }) => existing.ino === ino && existing.dev === dev)) {
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
