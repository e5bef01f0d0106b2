/** A gateway over both providers, in a process of its own, as `sluice serve` starts it. */
import * as Effect from "effect/Effect"
import type { ChildProcess } from "node:child_process"
import { spawn } from "node:child_process"
import { mkdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import type { Endpoint, Providers } from "./Provider.ts"

const bin = fileURLToPath(new URL("../src/bin.ts", import.meta.url))
/** Has no `sluice.json` and no keys, so that the gateway makes a token. */
const directory = fileURLToPath(new URL("../../../build/demo/", import.meta.url))

const spawned = ({ first, second }: Providers): ChildProcess => {
  mkdirSync(directory, { recursive: true })
  const targets = ["--target", `first=${first.url}`, "--target", `second=${second.url}`]
  // The clients of the demonstration use whole texts only.
  const flags = ["--port", "0", "--answer", "whole", ...targets]
  return spawn(process.execPath, ["--conditions=@sluice/source", bin, "serve", ...flags], {
    cwd: directory,
    env: { PATH: process.env["PATH"], SLUICE_KEY_FIRST: first.key, SLUICE_KEY_SECOND: second.key },
    stdio: ["ignore", "pipe", "ignore"]
  })
}

/** Starts the gateway. Returns what a client needs. Kills it with the scope. */
export const start = (providers: Providers) =>
  Effect.flatMap(
    Effect.acquireRelease(
      Effect.sync(() => spawned(providers)),
      (child) => Effect.sync(() => void child.kill("SIGKILL"))
    ),
    (child) =>
      Effect.callback<Endpoint>((resume) => {
        let printed = ""
        child.stdout?.on("data", (chunk: Buffer) => {
          printed += chunk.toString()
          const [, url, key] = /OPENAI_BASE_URL=(\S+) OPENAI_API_KEY=(\S+)\n/.exec(printed) ?? []
          if (url !== undefined && key !== undefined) resume(Effect.succeed({ url, key }))
        })
        child.once("exit", (code) => resume(Effect.die(`the gateway stopped with exit code ${code}`)))
      })
  )
