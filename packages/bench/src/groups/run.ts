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
const usage = new URL("../run/usage.ts", import.meta.url).href
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

/** Nanoseconds of CPU time, the most bytes of memory, or bytes of garbage. */
type Resource = "cpu" | "memory" | "garbage"

/** Runs a process to its end. Returns what it used, with its start: for each prompt, but for the memory. */
const useOf = (
  resource: Resource,
  args: ReadonlyArray<string>,
  results: string,
  prompts: number
): Promise<number> =>
  new Promise((resolve, reject) => {
    const running = spawn(process.execPath, [...process.execArgv, "--import", `${usage}?of=${resource}`, ...args], {
      stdio: ["ignore", "ignore", "pipe", "pipe"],
      env: { ...process.env, OPENAI_API_KEY: "sk-bench" }
    })
    let used = ""
    let stderr = ""
    running.stdio[3]?.on("data", (text: Buffer) => {
      used += text
    })
    running.stderr?.on("data", (text: Buffer) => {
      stderr += text
    })
    running.once("error", reject)
    running.once("close", (code) => {
      const answers = readFileSync(results, "utf8").split("\n").filter((line) => line.includes("word word")).length
      // A process that answers less is no contender.
      if (code !== 0 || answers !== prompts) return reject(new Error(`${answers} answers, exit ${code}: ${stderr}`))
      resolve(resource === "memory" ? Number(used) : Number(used) / prompts)
    })
  })

type Pair = Contenders<"openai client" | "Sluice">

/** `factor`: how many prompts, compared with those of a usual row. */
const pair = (resource: Resource, deltas: number, factor: number) =>
  Effect.gen(function*(): Effect.fn.Return<Pair, never, Scope.Scope> {
    const effort = yield* Effort
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "sluice-bench-"))),
      (folder) => Effect.sync(() => rmSync(folder, { recursive: true }))
    )
    const prompts = effort.prompts * factor
    const url = yield* providing(deltas)
    const file = join(folder, "prompts.txt")
    const results = join(folder, "results.jsonl")
    const lines = Array.from({ length: prompts }, (_, n) => `What is ${n} plus ${n}? Answer in words.`)
    writeFileSync(file, `${lines.join("\n")}\n`)
    return {
      _tag: "Process",
      runs: {
        "openai client": () => useOf(resource, [official, url, file, results, String(concurrency)], results, prompts),
        "Sluice": () => {
          const flags = ["--url", url, "--model", "m1", "--concurrency", String(concurrency), "--force"]
          return useOf(resource, [command, "run", file, "--output", results, ...flags], results, prompts)
        }
      }
    }
  })

export const builders: Builders<"run"> = {
  "run-8": pair("cpu", 8, 1),
  "run-64": pair("cpu", 64, 0.5),
  // Ten times as many prompts add a tenth to the memory: the cache of answers fills up.
  "run-memory": pair("memory", 8, 2),
  "run-garbage": pair("garbage", 8, 2)
}
