import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), "utf8")

it("docs/coming-from-the-seed.md lists the title of every test of a fault", () => {
  const modules = ["RetryPolicy", "CircuitBreaker", "Deduplicator", "Backpressure", "Pipeline"]
  const source = modules.map((module) => read(`packages/core/test/seed/${module}.faults.test.ts`)).join("\n")
  const tests = [...source.matchAll(/\bfault\(\s*"([RBDGP]\d+)",\s*"([^"]+)"/g)]
  const rows = [...read("docs/coming-from-the-seed.md").matchAll(/^\| ([RBDGP]\d+) +\|[^|]*\| ([^|]*?) *\|/gm)]
  const titles = (matches: ReadonlyArray<RegExpMatchArray>) => matches.map(([, letter, title]) => `${letter} ${title}`)
  assert.deepStrictEqual(titles(rows), titles(tests))
  assert.lengthOf(rows, 42)
})
