/** The tables of faults in the documentation have the titles of the tests that run on each store. */
import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { files, type Row, servers, states } from "./support/faults/table.ts"

const page = readFileSync(fileURLToPath(new URL("../docs/stores.md", import.meta.url)), "utf8")

const tables: ReadonlyArray<readonly [heading: string, rows: { readonly [fault: string]: Row }]> = [
  ["A server", servers],
  ["A file of SQLite", files]
]

for (const [heading, rows] of tables) {
  it(`docs/stores.md, ${heading}, has a row for each fault, and a cell for each test of it`, () => {
    const [, section = ""] = page.split(`\n### ${heading}\n`)
    const [own = ""] = section.split(/\n##+ /)
    const written = own.split("\n").filter((line) => line.startsWith("| ")).slice(2)
      .map((line) => line.split("|").slice(1, 5).map((cell) => cell.trim()))
    assert.deepStrictEqual(written, Object.values(rows).map((row) => [row.fault].concat(states.map((of) => row[of]))))
  })
}
