import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import * as Terminal from "../../src/Terminal.ts"
import type { Ended } from "../support/command.ts"
import { allAnswered, resultsIn } from "./support/files.ts"

const root = fileURLToPath(new URL("../../../../", import.meta.url))
const demonstration = fileURLToPath(new URL("../../demo/main.ts", import.meta.url))

/** The demonstration as `npm start` runs it, to its own end. */
const demonstrate = (...args: ReadonlyArray<string>): Effect.Effect<Ended> =>
  Effect.callback((resume) => {
    const startedAt = performance.now()
    const child = spawn(process.execPath, ["--conditions=@sluice/source", demonstration, ...args], {
      cwd: root,
      env: { PATH: process.env["PATH"] ?? "" },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let stdout = ""
    let stderr = ""
    child.stdout.on("data", (data: Buffer) => stdout += data.toString())
    child.stderr.on("data", (data: Buffer) => stderr += data.toString())
    child.on("close", (code) => {
      resume(Effect.succeed({ code, stdout, stderr, millis: performance.now() - startedAt }))
    })
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** The numbers of a row of the table: the official client's, ours, and ours with a second provider. */
const row = (stdout: string, label: string): ReadonlyArray<string> =>
  new RegExp(`^ {2}${label} +(\\S+) +(\\S+) +(\\S+)$`, "m").exec(stdout)?.slice(1) ?? []

const firstRows = (stdout: string) =>
  ["answered in full", "failed", "cut short, reported as success"].map((label) => row(stdout, label))

describe("the demonstration", () => {
  it.live(
    "says how it is used, and that of a flag which it does not have, in a line or two",
    () =>
      Effect.gen(function*() {
        const help = yield* demonstrate("--help")
        assert.deepStrictEqual([help.code, help.stderr], [0, ""])
        assert.match(help.stdout, /^npm start -- \[--seed N\][^\n]*\n$/)
        for (const args of [["--sed", "1"], ["--seed", "x"], ["--seed"], ["--seed="], ["more"]]) {
          const wrong = yield* demonstrate(...args)
          assert.deepStrictEqual([wrong.code, wrong.stdout], [2, ""], args.join(" "))
          assert.match(wrong.stderr, /^npm start: [^\n]*\nnpm start -- [^\n]*\n$/)
        }
      }),
    30_000
  )

  it.live(
    "answers all tickets, shows it within 80 columns, ends by itself, and comes out the same again",
    () =>
      Effect.gen(function*() {
        const [once, again] = yield* Effect.all([demonstrate(), demonstrate("--seed", "7")], { concurrency: 2 })

        assert.strictEqual(once.code, 0, once.stdout + once.stderr)
        const [answered, failed, cutShort] = firstRows(once.stdout)
        assert.deepStrictEqual(answered?.slice(1), ["204", "204"])
        assert.deepStrictEqual(failed?.slice(1), ["0", "0"])
        assert.deepStrictEqual(cutShort?.slice(1), ["0", "0"])
        assert.isAbove(Number(row(once.stdout, "  of them answered by the second")[2]), 0)
        assert.isBelow(Number(answered?.[0]), 204)
        for (const line of once.stdout.split("\n")) assert.isAtMost(Terminal.width(line), 80, line)
        assert.notInclude(once.stdout + once.stderr, "\x1b")
        assert.match(once.stdout, /\n {2}[-O?]*O\?[-O?]*\n/)
        assert.include(once.stdout, "All answers: build/demo/results.jsonl\n")
        assert.include(once.stdout, "npm start -- --seed 8\n")
        allAnswered(resultsIn(`${root}build/demo/results.jsonl`), 204)

        assert.strictEqual(again.code, 0, again.stdout + again.stderr)
        assert.deepStrictEqual(firstRows(again.stdout), firstRows(once.stdout))
      }),
    120_000
  )
})
