/** `sluice status`: prints the progress of a run, from its results and their lock. Writes nothing. */
import { open } from "node:fs/promises"
import * as Effect from "effect/Effect"
import * as ExitCode from "../ExitCode.ts"
import * as Flag from "../Flag.ts"
import * as Options from "../options.ts"
import * as Say from "../Say.ts"
import * as Shell from "../Shell.ts"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"
import * as GoOn from "./GoOn.ts"
import * as Input from "./Input.ts"
import * as Journal from "./Journal.ts"
import * as Lock from "./Lock.ts"
import * as RunFile from "./RunFile.ts"
import * as Status from "./Status.ts"
import * as Words from "./Words.ts"

/** Prints the status and returns the exit code. */
export const execute = async (results: string): Promise<number> => {
  try {
    const { run, status } = await read(results)
    process.stdout.write(Status.render(status) + adviceOf(results, status, run))
    return ExitCode.ok
  } catch (error) {
    Say.error(
      "sluice status",
      error instanceof Journal.JournalError
        ? error.message
        : `cannot read ${Terminal.escape(results)}: ${SystemError.describe(error)}`
    )
    return ExitCode.unusable
  }
}

const read = async (results: string) => {
  // The lock is read before the results: a run that ends in between has written all of them.
  const lock = await Lock.look(results)
  const handle = await open(results)
  try {
    const { place, torn } = await Journal.scan(handle, results)
    const run = await RunFile.read(results)
    const status: Status.Status = {
      results,
      answered: place.count("ok"),
      failed: place.count("failed"),
      unsent: place.count("unsent"),
      lock,
      torn,
      samples: Number(run?.flags["samples"]?.[0] ?? 1),
      input: run === undefined ? undefined : await inputOf(run)
    }
    return { status, run }
  } finally {
    await handle.close()
  }
}

/** The command that continues the run, unless a run is active. */
const adviceOf = (results: string, status: Status.Status, run: RunFile.RunFile | undefined): string => {
  if (Status.isRunning(status) || Status.isComplete(status)) return ""
  const { failed, input, unsent } = status
  if (Status.leftOf(status) === 0) {
    return `To send the prompts without an answer again:\n  ${GoOn.retry(results)}\n`
  }
  if (run === undefined || input === undefined) {
    return failed + unsent === 0 ? "" : "To go on, repeat the command of the run with --resume.\n"
  }
  const given = new Map([...Object.entries(run.flags), ...run.omitted.map((name) => [name, ["..."]] as const)])
  return `To go on:\n  ${
    Shell.command(["sluice", "run", ...pathsOf(run), "-o", results, "--resume"], Options.run.flags, given)
  }\n`
}

const pathsOf = ({ inputs }: RunFile.RunFile): ReadonlyArray<string> => inputs.map(({ path }) => path)

/** Counts the lines of the input. `undefined` for standard input. */
const inputOf = async (run: RunFile.RunFile): Promise<Status.Status["input"]> => {
  const paths = pathsOf(run)
  if (paths.includes("-")) return undefined
  const [format] = run.flags["input-format"] ?? []
  const read = format === undefined ? undefined : Flag.oneOf(Flag.inputFormats)(format)
  const [template] = run.flags["prompt-template"] ?? []
  const [limit] = (run.flags["limit"] ?? []).map(Number)
  const counted = Input.make({ paths, format: read?.ok === true ? read.value : undefined, template, limit }).pipe(
    Effect.flatMap(({ count = Effect.undefined }) => count),
    Effect.orElseSucceed(() => undefined)
  )
  return { path: Words.files(paths), lines: await Effect.runPromise(counted) }
}
