import { assert, describe, expect, it } from "@effect/vitest"
import * as Help from "../src/Help.ts"
import * as Options from "../src/options.ts"
import * as Terminal from "../src/Terminal.ts"

const pages = [Help.ofProgram(Options.commands), ...Options.commands.map((command) => Help.ofCommand(command))]

describe("Help", () => {
  it("help texts fit in 72 columns", () => {
    for (const line of pages.flatMap((page) => page.split("\n"))) assert.isAtMost(Terminal.width(line), 72, line)
  })

  it("help texts match their snapshot", async () => {
    await expect(pages.join("\n")).toMatchFileSnapshot("help.txt")
  })

  it("the help text of a command names all its flags", () => {
    for (const command of Options.commands) {
      const page = Help.ofCommand(command)
      for (const { name } of Help.ownFlags(command)) assert.include(page, `--${name}`)
    }
  })

  it("the help text of an action has no flags of other actions", () => {
    const page = Help.ofCommand(Options.batch, ["submit"])
    for (const flag of ["--batches", "--priority", "--help"]) assert.include(page, flag)
    for (const flag of ["--target", "--watch", "--unasked"]) assert.notInclude(page, flag)
    assert.include(Help.ofCommand(Options.batch, ["submti"]), "--unasked")
  })

  it("every name under a title is that of a flag, and each is under one title", () => {
    const names = Object.values(Options.run.groups ?? {}).flat()
    const flags = new Set(Object.values(Options.run.flags).map(({ name }) => name))
    assert.deepStrictEqual(names.filter((name) => !flags.has(name)), [])
    assert.strictEqual(new Set(names).size, names.length)
  })

  it("every flag of `run` that takes a value states its default in brackets", () => {
    for (const flag of Object.values(Options.run.flags)) {
      if (flag.argument !== undefined) assert.match(flag.about, /\[default: [^\]]+\]$/, flag.name)
    }
  })
})
