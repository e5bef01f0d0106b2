/** A run of `sluice run` that is killed at half, and resumed. */
import type * as Journal from "@sluice/ai/testing/Journal"
import * as Effect from "effect/Effect"
import type { ChildProcess } from "node:child_process"
import { spawn } from "node:child_process"
import { mkdirSync, readFileSync, rmSync } from "node:fs"
import { dirname } from "node:path"
import { fileURLToPath } from "node:url"
import type { Result } from "../src/run/Result.ts"
import { concurrency } from "./badDay.ts"
import type { Endpoint } from "./Provider.ts"
import * as Text from "../src/Text.ts"
import * as Tickets from "./tickets.ts"

export interface KilledRun {
  /** Tickets that were answered when the run was killed, and in the end. */
  readonly before: number
  readonly answered: number
  /** Tickets with more than one answer. */
  readonly twice: number
  /** When the run was killed, in epoch milliseconds. */
  readonly killedAt: number
  readonly exitCode: number | null
}

const bin = fileURLToPath(new URL("../src/bin.ts", import.meta.url))
const results = fileURLToPath(new URL("../../../build/demo/killed.jsonl", import.meta.url))

/** Starts the command. Kills it with the scope. */
const start = ({ key, url }: Endpoint, ...flags: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(
        process.execPath,
        // Equal tickets make requests of their own, so that each request is for one ticket.
        ["--conditions=@sluice/source", bin, "run", Tickets.path, "-o", results, "--no-share", "--quiet", ...flags],
        {
          env: { PATH: process.env["PATH"], OPENAI_BASE_URL: url, OPENAI_API_KEY: key, SLUICE_MODEL: "rules" },
          stdio: "ignore"
        }
      )
    ),
    (child) => Effect.sync(() => void child.kill("SIGKILL"))
  )

const exitOf = (child: ChildProcess): Promise<number | null> =>
  child.exitCode === null ? new Promise((resolve) => void child.once("exit", resolve)) : Promise.resolve(child.exitCode)

/** The answers in the results. A line that was not finished has no line feed. */
const answers = (): ReadonlyArray<Result> => {
  let text = ""
  try {
    text = readFileSync(results, "utf8")
  } catch {
    return []
  }
  return text.split("\n").slice(0, -1).map((line): Result => JSON.parse(line)).filter(({ status }) => status === "ok")
}

export const run = (provider: Endpoint, tickets: number): Effect.Effect<KilledRun> =>
  Effect.scoped(Effect.gen(function*() {
    mkdirSync(dirname(results), { recursive: true })
    for (const path of [results, `${results}.lock`, `${results}.run`]) rmSync(path, { force: true })
    const first = yield* start(provider, "--concurrency", String(concurrency))
    while (answers().length < tickets / 2 && first.exitCode === null) yield* Effect.sleep(10)
    const killed = exitOf(first)
    first.kill("SIGKILL")
    yield* Effect.promise(() => killed)
    const before = answers().length
    const killedAt = Date.now()
    const second = yield* start(provider, "--concurrency", String(concurrency), "--resume")
    const exitCode = yield* Effect.promise(() => exitOf(second))
    const lines = answers().map(({ line }) => line)
    const answered = new Set(lines).size
    return { before, answered, twice: lines.length - answered, killedAt, exitCode }
  }))

/** Renders what the provider received. */
export const render = (
  { answered, before, killedAt, twice }: KilledRun,
  journal: ReadonlyArray<Journal.Entry>,
  tickets: number
): string => {
  const after = journal.filter(({ received }) => received.epoch > killedAt).length
  const text = `A run of all tickets was killed (kill -9) after ${before} answers, and continued with --resume: ` +
    `${answered} of ${tickets} answered, ${twice} of them paid twice. The provider received ` +
    `${journal.length - after} requests before and ${after} after.`
  return Text.wrap(text, 78).join("\n")
}
