import { Effect } from "effect"
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { fileURLToPath } from "node:url"
import { Place } from "./databases.ts"

/** Runs a program of `fixtures` in another process, with the database of the suite. */
export const spawnFixture = (name: string, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(Place, ({ url }) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const file = fileURLToPath(new URL(`../fixtures/${name}.ts`, import.meta.url))
        return spawn(process.execPath, ["--conditions=@sluice/source", file, url, ...args], {
          stdio: ["pipe", "pipe", "inherit"]
        })
      }),
      kill
    ))

/** Kills a process with a signal that it cannot handle. */
export const kill = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })
