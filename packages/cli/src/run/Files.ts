/** Opens the outputs of a run: new, replaced, or continued from earlier runs. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as SystemError from "../SystemError.ts"
import * as ExistingFile from "./ExistingFile.ts"
import type * as Input from "./Input.ts"
import * as Journal from "./Journal.ts"
import * as Lock from "./Lock.ts"
import * as Output from "./Output.ts"
import * as Resume from "./Resume.ts"
import type { Settings } from "./Settings.ts"

export interface Files {
  readonly output: Output.Output
  /** Whether the results are written to a file, which another run can continue. */
  readonly isResumable: boolean
  readonly log: Output.Output | undefined
  readonly page: Output.Output | undefined
  /** `undefined` for a run that starts anew. */
  readonly resumed: Resume.Resume | undefined
  /** How many lines a resumed run sends. `undefined` if it is not known in advance. */
  readonly left: number | undefined
}

export type FilesError =
  | Input.InputError
  | Journal.JournalError
  | Lock.LockError
  | Output.OutputError
  | Resume.ResumeError

/** Locks, checks and opens the outputs until the scope closes. Changes no file before the first write. */
export const open = Effect.fnUntraced(function*(
  settings: Settings,
  input: Input.Input
): Effect.fn.Return<Files, FilesError, Scope.Scope> {
  const { force } = settings
  const common = { force, input: input.identities }
  const isResumable = yield* lock(settings.output)
  const mode = Resume.modeOf(settings)
  if (mode !== undefined && !isResumable) {
    return yield* new Resume.ResumeError({ path: settings.output, why: "is not a file" })
  }
  const resumed = mode === undefined ? undefined : yield* Resume.make(settings, input, mode)
  const left = resumed === undefined ? undefined : yield* resumed.check
  const output = yield* Output.make({
    ...common,
    path: settings.output,
    sync: settings.sync,
    resume: resumed?.output,
    alreadyExists: "already exists; use --resume to go on with it, or --force to replace it"
  })
  const log = settings.log === undefined ? undefined : yield* openLog(settings.log, common, mode !== undefined)
  const page = settings.report === undefined
    ? undefined
    // A report is about one run.
    : yield* Output.make({ ...common, path: settings.report, force: force || mode !== undefined })
  return { output, isResumable, log, page, resumed, left }
})

/** Takes the lock of a file. Returns false for a device or standard output, which have no lock. */
const lock = (path: string) =>
  Effect.flatMap(
    Output.isFile(path),
    (isFile) => isFile ? Effect.as(Lock.hold(path), true) : Effect.succeed(false)
  )

const openLog = (path: string, options: Pick<Output.OutputOptions, "force" | "input">, isResumed: boolean) =>
  Effect.gen(function*() {
    const isFile = yield* lock(path)
    const resume = isResumed && isFile ? yield* endOf(path) : undefined
    return yield* Output.make({ ...options, path, resume })
  })

/** The whole lines of an existing log. `undefined` if there is none. */
const endOf = (path: string): Effect.Effect<Output.Resumed | undefined, Output.OutputError> =>
  Effect.tryPromise({
    try: () =>
      ExistingFile.read(path, async (handle) => ({ end: await Journal.endOfLines(handle), needsLineFeed: false })),
    catch: (error) => new Output.OutputError({ path, why: SystemError.describe(error) })
  })
