/** `sluice status`: prints the progress of a run, from its results and their lock. Writes nothing. */
import { open } from "node:fs/promises"
import * as ExitCode from "../ExitCode.ts"
import * as Options from "../options.ts"
import * as Say from "../Say.ts"
import * as Shell from "../Shell.ts"
import * as Terminal from "../Terminal.ts"
import * as GoOn from "./GoOn.ts"
import * as Journal from "./Journal.ts"
import * as Lock from "./Lock.ts"
import * as RunFile from "./RunFile.ts"
import * as Status from "./Status.ts"
import * as SystemError from "./SystemError.ts"

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
      input: run === undefined || run.input === "-"
        ? undefined
        : { path: run.input, lines: await linesOf(run) }
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
  if (Status.leftOf(status) === 0) return `To send the failed prompts again:\n  ${GoOn.retry(results)}\n`
  if (run === undefined || input === undefined) {
    return failed + unsent === 0 ? "" : "To go on, repeat the command of the run with --resume.\n"
  }
  const given = new Map([...Object.entries(run.flags), ...run.omitted.map((name) => [name, ["..."]] as const)])
  return `To go on:\n  ${
    Shell.command(["sluice", "run", input.path, "-o", results, "--resume"], Options.run.flags, given)
  }\n`
}

const lineFeed = 0x0a
const space = 0x20

/** Counts the lines of the input that are not blank. `undefined` if it cannot be read, or if the run had a limit. */
const linesOf = async ({ flags, input }: RunFile.RunFile): Promise<number | undefined> => {
  if (flags["limit"] !== undefined) return undefined
  const handle = await open(input).catch(() => undefined)
  if (handle === undefined) return undefined
  try {
    const buffer = Buffer.allocUnsafe(2 ** 20)
    let lines = 0
    let isBlank = true
    while (true) {
      const { bytesRead } = await handle.read(buffer)
      if (bytesRead === 0) return isBlank ? lines : lines + 1
      for (let index = 0; index < bytesRead;) {
        if (isBlank && (buffer[index] ?? 0) > space) isBlank = false
        if (isBlank) {
          index++
          continue
        }
        const end = buffer.subarray(0, bytesRead).indexOf(lineFeed, index)
        if (end === -1) break
        lines++
        isBlank = true
        index = end + 1
      }
    }
  } finally {
    await handle.close()
  }
}
