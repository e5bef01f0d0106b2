import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import * as Terminal from "../../src/Terminal.ts"
import type { Ended } from "../support/command.ts"
import { startScript } from "../support/command.ts"
import { allAnswered, resultsIn } from "../support/files.ts"
import { processTimeout } from "../support/timeouts.ts"

const root = fileURLToPath(new URL("../../../../", import.meta.url))
const demo = fileURLToPath(new URL("../../demo/main.ts", import.meta.url))

/** Runs the demo to its end, as `npm start` does. */
const runDemo = (...args: ReadonlyArray<string>): Effect.Effect<Ended> =>
  Effect.callback((resume) => {
    const command = startScript(demo, args, { cwd: root })
    command.process.stdin.end()
    void command.ended.then((ended) => resume(Effect.succeed(ended)))
    return Effect.sync(() => command.process.kill("SIGKILL"))
  })

/** Reads a row of the table: the official client, Sluice, Sluice with a second provider, and the client with the gateway. */
const row = (stdout: string, label: string): ReadonlyArray<string> =>
  new RegExp(`^ {2}${label} +(\\S+) +(\\S+) +(\\S+) +(\\S+)$`, "m").exec(stdout)?.slice(1) ?? []

const firstRows = (stdout: string) =>
  ["answered in full", "failed", "cut short, reported as success"].map((label) => row(stdout, label))

describe("the demo", { timeout: processTimeout }, () => {
  it.live("--help prints the usage, and a wrong argument is refused with it", () =>
    Effect.gen(function*() {
      const help = yield* runDemo("--help")
      assert.deepStrictEqual([help.code, help.stderr], [0, ""])
      assert.match(help.stdout, /^npm start -- \[--seed N\][^\n]*\n$/)
      for (const args of [["--sed", "1"], ["--seed", "x"], ["--seed"], ["--seed="], ["more"]]) {
        const wrong = yield* runDemo(...args)
        assert.deepStrictEqual([wrong.code, wrong.stdout], [2, ""], args.join(" "))
        assert.match(wrong.stderr, /^npm start: [^\n]*\nnpm start -- [^\n]*\n$/)
      }
    }))

  it.live("the demo answers all tickets within 80 columns, exits, and has equal outcomes on a second run", () =>
    Effect.gen(function*() {
      const first = yield* runDemo()
      assert.strictEqual(first.code, 0, first.stdout + first.stderr)
      const [answered, failed, cutShort] = firstRows(first.stdout)
      assert.deepStrictEqual(answered?.slice(1), ["204", "204", "204"])
      assert.deepStrictEqual(failed?.slice(1), ["0", "0", "0"])
      assert.deepStrictEqual(cutShort?.slice(1), ["0", "0", "0"])
      for (const client of [2, 3]) assert.isAbove(Number(row(first.stdout, "  answered by the second")[client]), 0)
      assert.isBelow(Number(answered?.[0]), 204)
      assert.match(first.stdout, /\nThe last client is the first one with another baseURL\./)
      for (const line of first.stdout.split("\n")) assert.isAtMost(Terminal.width(line), 80, line)
      assert.notInclude(first.stdout + first.stderr, "\x1b")
      assert.match(first.stdout, /\n {2}[-O?]*O\?[-O?]*\n/)
      assert.include(first.stdout, "\nAll answers of Sluice without the second provider: build/demo/results.jsonl\n")
      assert.include(first.stdout, "> is the ticket, = the answer\n")
      assert.match(first.stdout, /\nSluice .* than the official client[.:]/)
      const [, one, two] = row(first.stdout, "time").map((time) => time.trim())
      assert.include(first.stdout, `circuit over ${one}: `)
      assert.include(first.stdout, `with a second provider, over ${two}:\n`)
      assert.include(first.stdout, "npm start -- --seed 8\n")
      const killed =
        /killed \(kill -9\) after (\d+) answers, .*: 204 of 204 answered, 0 of them paid twice.* and (\d+) after\./
      const [, before, after] = killed.exec(first.stdout.replaceAll("\n", " ")) ?? []
      assert.isAtLeast(Number(before), 102)
      assert.strictEqual(Number(before) + Number(after), 204)
      allAnswered(resultsIn(`${root}build/demo/results.jsonl`), 204)

      // After the first, since both write the same file.
      const second = yield* runDemo("--seed", "7")
      assert.strictEqual(second.code, 0, second.stdout + second.stderr)
      assert.deepStrictEqual(firstRows(second.stdout), firstRows(first.stdout))
    }))
})
