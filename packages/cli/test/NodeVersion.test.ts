import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import * as NodeVersion from "../src/NodeVersion.ts"

describe("NodeVersion", () => {
  it("a version below the oldest one is refused with both, and every other one runs", () => {
    for (const running of ["20.20.2", "22.20.9", "22.9.0", "9.99.99"]) {
      assert.strictEqual(
        NodeVersion.problemOf(running, "22.21.0"),
        `Node 22.21.0 or later is needed, and this is Node ${running}`
      )
    }
    for (const running of ["22.21.0", "22.21.1", "22.100.0", "24.0.0", "26.1.0-nightly"]) {
      assert.isUndefined(NodeVersion.problemOf(running, "22.21.0"))
    }
  })

  it("the oldest version of the command is that of its package", () => {
    const bin = readFileSync(new URL("../src/bin.ts", import.meta.url), "utf8")
    const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"))
    assert.strictEqual(`>=${/oldestNode = "(.*)"/.exec(bin)?.[1]}`, manifest.engines.node)
  })
})
