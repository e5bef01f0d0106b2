/** The table of faults in the documentation has the titles of the tests that run on each store. */
import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { faults, states, table } from "./support/faults/table.ts"

it("docs/stores.md has a row for each fault, and a cell for each test of it", () => {
  const page = readFileSync(fileURLToPath(new URL("../docs/stores.md", import.meta.url)), "utf8")
  const [, section = ""] = page.split("## What happens when a store fails\n")
  const [rows = ""] = section.split("\n## ")
  const written = rows.split("\n").filter((line) => line.startsWith("| ")).slice(2)
    .map((line) => line.split("|").slice(1, 5).map((cell) => cell.trim()))
  assert.deepStrictEqual(
    written,
    faults.map((fault) => [table[fault].fault].concat(states.map((state) => table[fault][state])))
  )
})
