import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { mutants, mutate, root } from "./mutants/mutants.ts"

// `npm run mutants` checks that tests fail for each mutant, which takes minutes. These tests check that the mutants can be made.
describe("mutants", () => {
  it("every mutant has a unique name", () =>
    assert.strictEqual(new Set(mutants.map(({ name }) => name)).size, mutants.length))

  for (const mutant of mutants) {
    it(`the source can be changed so that ${mutant.breaks} (${mutant.name})`, () => {
      assert.isNotEmpty(mutant.caughtBy)
      assert.deepStrictEqual(mutant.caughtBy.filter((file) => !existsSync(join(root, file))), [])
      const mutated = mutate(mutant, readFileSync(join(root, mutant.file), "utf8"))
      assert.isDefined(mutated, `${mutant.file} does not contain, or contains twice: ${mutant.find}`)
    })
  }
})
