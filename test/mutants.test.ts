import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { mutants, root } from "./mutants/mutants.ts"

// Whether the tests notice them is for `npm run mutants`, which takes minutes. That it can run at all is seen here.
describe("mutants", () => {
  it("are a dozen at least", () => assert.isAtLeast(mutants.length, 12))

  for (const { breaks, caughtBy, changes, name, path } of mutants) {
    it(`${name}: ${breaks}`, () => {
      assert.notStrictEqual(breaks, "", "the patch does not say what it breaks")
      assert.isNotEmpty(caughtBy, "the patch does not say which tests are to catch it")
      assert.isNotEmpty(changes, "the patch changes nothing")
      assert.deepStrictEqual([...caughtBy, ...changes].filter((file) => !existsSync(join(root, file))), [])
      const { status, stderr } = spawnSync("git", ["apply", "--check", path], { cwd: root, encoding: "utf8" })
      assert.strictEqual(status, 0, `the source has changed: make the patch anew\n${stderr}`)
    })
  }
})
