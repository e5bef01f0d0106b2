import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { mutants, mutate, root } from "./mutants/mutants.ts"

// `npm run mutants` finds out whether the tests notice them, which takes minutes. This only shows that it can run.
describe("mutants", () => {
  it("have different names", () => assert.strictEqual(new Set(mutants.map(({ name }) => name)).size, mutants.length))

  for (const mutant of mutants) {
    it(`the source can be changed so that ${mutant.breaks} (${mutant.name})`, () => {
      assert.isNotEmpty(mutant.caughtBy)
      assert.deepStrictEqual(mutant.caughtBy.filter((file) => !existsSync(join(root, file))), [])
      const mutated = mutate(mutant, readFileSync(join(root, mutant.file), "utf8"))
      assert.isDefined(mutated, `${mutant.file} does not contain, or contains twice: ${mutant.find}`)
    })
  }
})
