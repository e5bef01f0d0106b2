import { assert, describe, expect, it } from "@effect/vitest"
import * as Help from "../src/Help.ts"
import * as Options from "../src/options.ts"
import * as Terminal from "../src/Terminal.ts"

const pages = [Help.ofProgram(Options.commands), ...Options.commands.map(Help.ofCommand)]

describe("Help", () => {
  it("fits on 80 columns", () => {
    for (const line of pages.flatMap((page) => page.split("\n"))) assert.isAtMost(Terminal.width(line), 80, line)
  })

  it("reads as it is written down", async () => {
    await expect(pages.join("\n")).toMatchFileSnapshot("help.txt")
  })

  it("names every flag of every command", () => {
    for (const command of Options.commands) {
      const page = Help.ofCommand(command)
      for (const { name } of Object.values(command.flags)) assert.include(page, `--${name}`)
    }
  })

  it("states a default, or what happens without it, for every flag of `run` that takes a value", () => {
    for (const flag of Object.values(Options.run.flags)) {
      if (flag.argument === undefined || flag.name === "key-file") continue
      assert.match(flag.about, /Default/, flag.name)
    }
  })
})
