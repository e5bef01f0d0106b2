/** `sluice export`: writes the results of a run in another format, a line of the input after the other. */
import * as Effect from "effect/Effect"
import { readSync } from "node:fs"
import type { FileHandle } from "node:fs/promises"
import { open } from "node:fs/promises"
import * as ExitCode from "../ExitCode.ts"
import type { ExportFlags } from "../options.ts"
import * as Journal from "../run/Journal.ts"
import * as Output from "../run/Output.ts"
import * as Samples from "../run/Samples.ts"
import * as Say from "../Say.ts"
import * as SystemError from "../SystemError.ts"
import type { Exported } from "./Formats.ts"
import { Columns, openAiLine } from "./Formats.ts"

/** Writes the results and returns the exit code. */
export const execute = (results: string, flags: ExportFlags): Promise<number> =>
  Effect.runPromise(
    Effect.scoped(exported(results, flags)).pipe(
      Effect.as(ExitCode.ok),
      Effect.catchTag("ReaderGone", () => Effect.succeed(ExitCode.readerGone)),
      Effect.catch(({ message }) =>
        Effect.sync(() => {
          Say.error("sluice export", message)
          return ExitCode.unusable
        })
      )
    )
  )

const exported = Effect.fnUntraced(function*(path: string, { force, format, output }: ExportFlags) {
  const attempt = <A>(run: () => Promise<A>) =>
    Effect.tryPromise({
      try: run,
      catch: (error) =>
        error instanceof Journal.JournalError
          ? error
          : new Journal.JournalError({ path, why: SystemError.describe(error) })
    })
  const handle = yield* Effect.acquireRelease(
    attempt(() => open(path)),
    (handle) => Effect.promise(() => handle.close())
  )
  const { dev, ino, mtimeMs } = yield* attempt(() => handle.stat())
  const found = new Found()
  yield* attempt(() => Journal.scan(handle, path, found.add))
  const rows = found.inOrder()
  const file = yield* Output.make({ path: output ?? "-", force, input: [{ dev, ino }] })
  const columns = new Columns()
  if (format === "csv") {
    for (const row of rows) columns.add(found.read(handle, row))
    yield* file.write(columns.header)
  }
  const created = Math.floor(mtimeMs / 1_000)
  let text = ""
  for (const row of rows) {
    const result = found.read(handle, row)
    text += format === "csv" ? columns.row(result) : openAiLine(result, created)
    if (text.length < chunkLength) continue
    yield* file.write(text)
    text = ""
  }
  if (text !== "") yield* file.write(text)
})

const chunkLength = 2 ** 20

/** Where the results are in their file: 25 bytes a result. */
class Found {
  /** As `Samples.keyOf` gives them. */
  private readonly lines: Array<number> = []
  private readonly starts: Array<number> = []
  private readonly sizes: Array<number> = []
  private readonly answered: Array<boolean> = []

  readonly add: Journal.Visit = (entry, start, bytes) => {
    this.lines.push(Samples.keyOf(entry))
    this.starts.push(start)
    this.sizes.push(bytes)
    this.answered.push(entry.state === "ok")
  }

  /** The results that count, in the order of their lines: the last answer of a line or sample, else its last failure. */
  inOrder(): Uint32Array {
    const { answered, lines } = this
    const order = Uint32Array.from(lines.keys()).sort((a, b) =>
      (lines[a] ?? 0) - (lines[b] ?? 0) || Number(answered[a]) - Number(answered[b]) || a - b
    )
    return order.filter((result, index) => {
      const next = order[index + 1]
      return next === undefined || lines[next] !== lines[result]
    })
  }

  read({ fd }: FileHandle, result: number): Exported {
    const bytes = Buffer.allocUnsafe(this.sizes[result] ?? 0)
    readSync(fd, bytes, 0, bytes.length, this.starts[result] ?? 0)
    // The scan has recognised it as a result of `sluice run`.
    return JSON.parse(bytes.toString()) as Exported
  }
}
