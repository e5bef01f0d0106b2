/** `sluice retry`: sends the failed prompts of a run once more, with the flags of that run. */
import { stat } from "node:fs/promises"
import * as Arguments from "../Arguments.ts"
import * as ExitCode from "../ExitCode.ts"
import type { RetryFlags } from "../options.ts"
import * as Options from "../options.ts"
import * as RunFile from "../run/RunFile.ts"
import * as Say from "../Say.ts"
import type { Given } from "../Shell.ts"
import * as Shell from "../Shell.ts"
import * as Sources from "../Sources.ts"
import * as SystemError from "../SystemError.ts"
import * as Terminal from "../Terminal.ts"
import * as RunCommand from "./RunCommand.ts"

/** Runs the failed prompts and returns the exit code. */
export const execute = async (results: string, flags: RetryFlags, given: Given): Promise<number> => {
  const refuse = (problem: string): number => {
    Say.error("sluice retry", problem)
    return ExitCode.unusable
  }
  const missing = await stat(results).then(() => undefined, SystemError.describe)
  if (missing !== undefined) return refuse(`cannot read ${Terminal.escape(results)}: ${missing}`)
  const run = await RunFile.read(results)
  const beside = Terminal.escape(RunFile.pathOf(results))
  const paths = flags.input.length > 0 ? flags.input : run?.inputs.map(({ path }) => path)
  if (paths === undefined) return refuse(`no input: ${beside} is missing or unreadable; use --input FILE`)
  if (paths.includes("-") && flags.input.length === 0) {
    return refuse("the run read its prompts from standard input; use --input FILE, or --input - and send them again")
  }
  const omitted = run?.omitted.find((name) => !Shell.replaces(given, name))
  if (omitted !== undefined) {
    return refuse(`--${omitted} of the run has a secret, which is not kept; use --${omitted} again`)
  }
  const all = run === undefined
    ? Sources.read(Options.run.flags, given, Sources.here())
    : { _tag: "Read" as const, given: Shell.over(given, new Map(Object.entries(run.flags))) }
  if (all._tag === "Wrong") return refuse(all.message)
  const read = Arguments.readAll(Options.run.flags, all.given, paths)
  if (read._tag !== "Parsed") return refuse(read._tag === "Wrong" ? `${beside}: ${read.message}` : "unreadable flags")
  return await RunCommand.execute({
    command: "retry",
    paths,
    flags: { ...read.values, output: results, retryFailed: true },
    given: read.given,
    own: given
  })
}
