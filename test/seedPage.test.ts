import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), "utf8")

it("the page on the seed's faults names each test by its title, and leaves none out", () => {
  const tests = [...read("packages/core/test/seed/faults.test.ts").matchAll(/\bfault\(\s*"([RBDGP]\d+)",\s*"([^"]+)"/g)]
  const rows = [...read("docs/coming-from-the-seed.md").matchAll(/^\| ([RBDGP]\d+) +\|[^|]*\| ([^|]*?) *\|/gm)]
  const titles = (matches: ReadonlyArray<RegExpMatchArray>) => matches.map(([, letter, title]) => `${letter} ${title}`)
  assert.deepStrictEqual(titles(rows), titles(tests))
  assert.lengthOf(rows, 42)
})
