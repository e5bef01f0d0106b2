/** `sluice retry`: sends the failed prompts of a run once more, with the flags of that run. */
import { stat } from "node:fs/promises"
import * as Arguments from "../Arguments.ts"
import * as ExitCode from "../ExitCode.ts"
import type { RetryFlags } from "../options.ts"
import * as Options from "../options.ts"
import * as Say from "../Say.ts"
import type { Given } from "../Shell.ts"
import * as Terminal from "../Terminal.ts"
import * as RunCommand from "./RunCommand.ts"
import * as RunFile from "./RunFile.ts"
import * as SystemError from "./SystemError.ts"

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
  const path = flags.input ?? run?.input
  if (path === undefined) return refuse(`no input: ${beside} is missing or unreadable; use --input FILE`)
  if (path === "-" && flags.input === undefined) {
    return refuse("the run read its prompts from standard input; use --input FILE, or --input - and send them again")
  }
  const omitted = run?.omitted.find((name) => !replaces(given, name))
  if (omitted !== undefined) {
    return refuse(`--${omitted} of the run has a secret, which is not kept; use --${omitted} again`)
  }
  const kept = Object.entries(run?.flags ?? {}).filter(([name]) => !replaces(given, name))
  const read = Arguments.readAll(Options.run.flags, new Map([...kept, ...given]), [path])
  if (read._tag !== "Parsed") return refuse(read._tag === "Wrong" ? `${beside}: ${read.message}` : "unreadable flags")
  return await RunCommand.execute({
    command: "retry",
    path,
    flags: { ...read.values, output: results, retryFailed: true },
    given: read.given,
    own: given
  })
}

/** Flags that also replace others, which set the same value in another way. */
const instead: { readonly [name: string]: ReadonlyArray<string> } = {
  url: ["target"],
  target: ["url"],
  model: ["target"],
  "key-env": ["key-file"],
  "key-file": ["key-env"]
}

/** Whether a flag of the run is replaced by one that is given now. */
const replaces = (given: Given, name: string): boolean =>
  given.has(name) || (instead[name] ?? []).some((other) => given.has(other))
