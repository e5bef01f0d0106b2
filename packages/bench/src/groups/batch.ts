import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { execFile } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { type Contenders, Effort } from "../measure.ts"
import type { MachineFigures, MachineOptions } from "./batchMachine.ts"
import type { Builders } from "./builders.ts"

const machine = fileURLToPath(new URL("batchMachine.ts", import.meta.url))

const run = promisify(execFile)

/** Answers a batch in a process of its own. */
const answered = async (
  options: Omit<MachineOptions, "inFlight" | "millis" | "sigma" | "url">
): Promise<MachineFigures> => {
  const folder = mkdtempSync(join(tmpdir(), "sluice-bench-"))
  try {
    const url = `sqlite:${join(folder, "batches.db")}`
    const all: MachineOptions = { ...options, url, inFlight: 1_000, millis: 75, sigma: 0 }
    const { stdout } = await run(process.execPath, [...process.execArgv, machine, JSON.stringify(all)])
    const figures: MachineFigures = JSON.parse(stdout)
    if (figures.ok !== options.requests) throw new Error(`${figures.ok} answers of ${options.requests}`)
    return figures
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** `--quick` answers a tenth. */
const requests = Effect.map(Effort, ({ prompts }) => prompts * 5)

const ofRequests = <Name extends string>(
  make: (requests: number) => { readonly [_ in Name]: () => Promise<number> }
): Effect.Effect<Contenders<Name>, never, Scope.Scope> =>
  Effect.map(requests, (requests) => ({ _tag: "Process", runs: make(requests) }))

const cpu = (requests: number, isAlone: boolean) => answered({ requests, isAlone }).then(({ cpu }) => cpu)
const memory = (requests: number) => answered({ requests, isAlone: false }).then(({ memory }) => memory)

export const builders: Builders<"batch"> = {
  "batch-request": ofRequests((requests) => ({
    "the calls alone": () => cpu(requests, true),
    "Sluice": () => cpu(requests, false)
  })),
  "batch-memory": ofRequests((requests) => ({
    "a tenth of it": () => memory(requests / 10),
    "Sluice": () => memory(requests)
  })),
  "batch-stored": ofRequests((requests) => ({
    "Sluice": () => answered({ requests, isAlone: false }).then(({ stored }) => stored)
  }))
}
