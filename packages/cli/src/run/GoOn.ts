/** The command that continues a run. Printed at the end of a run that left prompts without an answer. */
import * as Options from "../options.ts"
import type { Given } from "../Shell.ts"
import * as Shell from "../Shell.ts"

/** How a run was started. */
export interface Invocation {
  readonly command: "run" | "retry"
  /** The input. At least one file. */
  readonly paths: ReadonlyArray<string>
  readonly flags: Options.RunFlags
  /** The flags of `run` with those of the environment, of `sluice.json`, and of the run that a retry takes over. */
  readonly given: Given
  /** The flags of this command as the user wrote them. */
  readonly own: Given
}

const replaced: ReadonlySet<string> = new Set(["output", "force", "resume", "only-new", "retry-failed"])

/** The command that sends all prompts without an answer. */
export const resume = ({ command, own, paths }: Invocation, results: string): string =>
  command === "retry" ? retry(results, own) : Shell.command(
    ["sluice", "run", ...paths, "-o", results, "--resume"],
    Options.run.flags,
    own,
    replaced
  )

/** The command that sends the failed prompts. */
export const retry = (results: string, own: Given = new Map()): string =>
  Shell.command(["sluice", "retry", results], Options.retry.flags, own)
