import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { type Contenders, Effort } from "../measure.ts"
import type { Builders } from "./builders.ts"

const fileOf = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

const provider = fileOf("../run/provider.ts")
const official = fileOf("../run/official.ts")
const cpuUsage = new URL("../run/cpuUsage.ts", import.meta.url).href
const command = fileOf("../../../cli/src/bin.ts")

const concurrency = 64

/** Starts the provider, in a process of its own. Returns its URL. */
const providing = (deltas: number): Effect.Effect<string, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(() =>
        new Promise<{ readonly url: string; readonly stop: () => void }>((resolve, reject) => {
          const running = spawn(process.execPath, [...process.execArgv, provider, String(deltas)], {
            stdio: ["ignore", "inherit", "inherit", "ipc"]
          })
          running.once("message", (url) => resolve({ url: String(url), stop: () => running.kill() }))
          running.once("error", reject)
        })
      ),
      ({ stop }) => Effect.sync(stop)
    ),
    ({ url }) => url
  )

/** Runs a process to its end. Returns the CPU time that it used, with its start, in nanoseconds for each prompt. */
const cpuOf = (args: ReadonlyArray<string>, results: string, prompts: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const running = spawn(process.execPath, [...process.execArgv, "--import", cpuUsage, ...args], {
      stdio: ["ignore", "ignore", "pipe", "pipe"],
      env: { ...process.env, OPENAI_API_KEY: "sk-bench" }
    })
    let usage = ""
    let stderr = ""
    running.stdio[3]?.on("data", (text: Buffer) => {
      usage += text
    })
    running.stderr?.on("data", (text: Buffer) => {
      stderr += text
    })
    running.once("error", reject)
    running.once("close", (code) => {
      const answers = readFileSync(results, "utf8").split("\n").filter((line) => line.includes("word word")).length
      // A process that answers less is no contender.
      if (code !== 0 || answers !== prompts) return reject(new Error(`${answers} answers, exit ${code}: ${stderr}`))
      resolve(Number(usage) * 1_000 / prompts)
    })
  })

const pair = (deltas: number) =>
  Effect.gen(function*(): Effect.fn.Return<
    Contenders<"openai client" | "Sluice">,
    never,
    Scope.Scope
  > {
    const effort = yield* Effort
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "sluice-bench-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
    )
    const prompts = deltas > 8 ? effort.prompts / 2 : effort.prompts
    const url = yield* providing(deltas)
    const file = join(folder, "prompts.txt")
    const results = join(folder, "results.jsonl")
    const lines = Array.from({ length: prompts }, (_, n) => `What is ${n} plus ${n}? Answer in words.`)
    writeFileSync(file, `${lines.join("\n")}\n`)
    return {
      _tag: "Process",
      runs: {
        "openai client": () => cpuOf([official, url, file, results, String(concurrency)], results, prompts),
        "Sluice": () => {
          const flags = ["--url", url, "--model", "m1", "--concurrency", String(concurrency), "--force"]
          return cpuOf([command, "run", file, "--output", results, ...flags], results, prompts)
        }
      }
    }
  })

export const builders: Builders<"run"> = {
  "run-8": pair(8),
  "run-64": pair(64)
}
