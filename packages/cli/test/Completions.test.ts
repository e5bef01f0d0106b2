import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"
import * as Completions from "../src/Completions.ts"
import * as Options from "../src/options.ts"
import { refused, run } from "./support/command.ts"
import { processTimeout } from "./support/timeouts.ts"

let directory = ""
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "sluice completions "))
  writeFileSync(join(directory, "my prompts.jsonl"), "")
  writeFileSync(join(directory, "results.jsonl"), "")
  mkdirSync(join(directory, "runs"))
  for (const shell of Completions.shells) {
    writeFileSync(join(directory, `script.${shell}`), Completions.script(shell, Options.commands))
  }
})
afterAll(() => rmSync(directory, { recursive: true }))

const has = (shell: string): boolean => spawnSync(shell, ["-c", "true"]).status === 0

/** What bash offers for these words, the last of which is being written. */
const offered = (...words: ReadonlyArray<string>): ReadonlyArray<string> => {
  const script = `source script.bash
    compopt() { :; }
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
    _sluice
    printf '%s\\n' "\${COMPREPLY[@]}"`
  const { status, stderr, stdout } = spawnSync("bash", ["--norc", "-c", script, "bash", "sluice", ...words], {
    cwd: directory,
    encoding: "utf8"
  })
  assert.deepStrictEqual([status, stderr], [0, ""])
  return stdout.split("\n").filter((line) => line !== "")
}

describe.skipIf(!has("bash"))("completions of bash", () => {
  it("complete commands and the flags of each", () => {
    assert.deepStrictEqual(offered("r"), ["run", "retry"])
    assert.deepStrictEqual(offered("--v"), ["--version"])
    assert.deepStrictEqual(offered("help", "ex"), ["export", "explain"])
    for (const command of Options.commands) {
      assert.deepStrictEqual(
        offered(command.name, "--"),
        Object.values(command.flags).map(({ name }) => `--${name}`),
        command.name
      )
    }
  })

  it("complete files where a file is expected, also after a flag and an equals sign", () => {
    assert.deepStrictEqual(offered("run", "my"), ["my prompts.jsonl"])
    assert.deepStrictEqual(offered("run", "x", "-o", "res"), ["results.jsonl"])
    assert.deepStrictEqual(offered("run", "--output", "=", "res"), ["results.jsonl"])
    assert.deepStrictEqual(offered("run", "--output", "="), offered("status", ""))
    assert.deepStrictEqual(offered("explain", "5", "res"), ["results.jsonl"])
  })

  it("complete no file in place of another value", () => {
    assert.deepStrictEqual(offered("run", "x", "--model", ""), [])
    assert.deepStrictEqual(offered("run", "--timeout", "=", ""), [])
    assert.deepStrictEqual(offered("explain", ""), [])
    assert.deepStrictEqual(offered("completions", "z"), ["zsh"])
  })

  it("count the arguments without flags and their values", () => {
    assert.deepStrictEqual(offered("run", "--model", "m", "--timeout", "=", "3s", "--no-stream", "=", "false", "my"), [
      "my prompts.jsonl"
    ])
    // Several files are allowed.
    assert.deepStrictEqual(offered("run", "x", "res"), ["results.jsonl"])
    assert.include(offered("explain", "5", "x", ""), "--help")
  })

  it("complete the actions of a command, and the files after it", () => {
    assert.deepStrictEqual(offered("keys", ""), ["add", "list", "remove"])
    assert.deepStrictEqual(offered("batch", "s"), ["submit", "status"])
    assert.deepStrictEqual(offered("batch", "submit", "my"), ["my prompts.jsonl"])
    assert.deepStrictEqual(offered("batch", "submit", "x", "res"), ["results.jsonl"])
  })
})

describe("completion scripts", () => {
  it.each(Completions.shells)("the script for %s has every command and flag", (shell) => {
    const script = Completions.script(shell, Options.commands)
    for (const { flags, name } of Options.commands) {
      assert.include(script, name)
      for (const flag of Object.values(flags)) {
        assert.include(script, shell === "fish" ? `-l ${flag.name} ` : `--${flag.name}`)
      }
    }
  })

  it.each(Completions.shells)("the script for %s has the syntax of its shell, if that is installed", (shell) => {
    const path = join(directory, `script.${shell}`)
    if (!has(shell)) return
    const { status, stderr } = spawnSync(shell, [shell === "fish" ? "--no-execute" : "-n", path], { encoding: "utf8" })
    assert.deepStrictEqual([status, stderr], [0, ""])
  })

  it.each(Completions.shells)("quotes are balanced in each line of the script for %s", (shell) => {
    for (const line of Completions.script(shell, Options.commands).split("\n")) {
      const bare = line.replaceAll(/\\./g, "")
      if (line.startsWith("#")) continue
      assert.strictEqual(bare.split("'").length % 2, 1, line)
      assert.strictEqual(bare.split(`"`).length % 2, 1, line)
    }
  })
})

describe("sluice completions", { timeout: processTimeout }, () => {
  it("prints the script of a shell, and refuses others", async () => {
    const { code, stdout } = await run(["completions", "bash"])
    assert.deepStrictEqual([code, stdout], [0, Completions.script("bash", Options.commands)])
    refused(await run(["completions", "tcsh"]), "SHELL must be one of bash, zsh, fish")
  })
})
