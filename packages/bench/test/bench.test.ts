import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { readOptions } from "../src/options.ts"
import { Report } from "../src/report.ts"
import { rowIds } from "../src/rows.ts"

const index = fileURLToPath(new URL("../src/index.ts", import.meta.url))

const bench = (...args: ReadonlyArray<string>) =>
  new Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }>((resolve, reject) => {
    const running = spawn(process.execPath, ["--conditions=@sluice/source", index, ...args])
    let [stdout, stderr] = ["", ""]
    running.stdout.setEncoding("utf8").on("data", (text) => {
      stdout += text
    })
    running.stderr.setEncoding("utf8").on("data", (text) => {
      stderr += text
    })
    running.once("error", reject)
    running.once("close", (code) => resolve({ code, stdout, stderr }))
  })

describe("npm run bench", () => {
  it("--json prints the report of the rows as JSON and nothing else", { timeout: 120_000 }, async () => {
    const { code, stderr, stdout } = await bench("--quick", "--json", "--only", "retry-nothing")
    const report = Schema.decodeUnknownSync(Schema.fromJsonString(Report))(stdout)
    assert.deepStrictEqual(report.rows.map(({ id }) => id), ["retry-nothing"])
    for (const { measurements } of report.rows) {
      for (const { contender, rounds } of measurements) {
        assert.isTrue(rounds.every((cost) => cost > 0), `${contender} costs something`)
      }
    }
    assert.deepStrictEqual(report.verdicts.map(({ rival }) => rival), ["Effect", "cockatiel"])
    assert.isTrue(report.verdicts.every(({ isReached }) => isReached === undefined), "a quick run has no verdicts")
    assert.strictEqual(stderr, "")
    assert.strictEqual(code, 0)
  })

  it("--help prints every option and row in at most 80 columns", { timeout: 120_000 }, async () => {
    const { code, stdout } = await bench("--help")
    for (const word of ["--quick", "--only", "--json", "--write", "--check", "--portkey", ...rowIds]) {
      assert.include(stdout, word)
    }
    assert.isTrue(stdout.split("\n").every((line) => line.length <= 80))
    assert.strictEqual(code, 0)
  })

  it("invalid arguments exit with code 2 and an error, and nothing is measured", { timeout: 120_000 }, async () => {
    const unknown = await bench("--fast")
    assert.deepStrictEqual([unknown.code, unknown.stdout], [2, ""])
    assert.include(unknown.stderr, "--fast")
    const noMarkers = await bench("--write", index)
    assert.deepStrictEqual([noMarkers.code, noMarkers.stdout], [2, ""])
    assert.include(noMarkers.stderr, "no markers")
    const missing = await bench("--write", `${index}.missing`)
    assert.deepStrictEqual([missing.code, missing.stdout], [2, ""])
    assert.include(missing.stderr, "cannot read")
  })
})

describe("readOptions", () => {
  const rowsOf = (...args: ReadonlyArray<string>) => {
    const options = readOptions(args)
    return "error" in options ? options.error : options.rows
  }

  const withoutPortkey = rowIds.filter((id) => !id.startsWith("portkey-"))

  it("all rows are measured without --only, but those of Portkey only with --portkey", () => {
    assert.deepStrictEqual(rowsOf("--portkey"), rowIds)
    assert.deepStrictEqual(rowsOf(), withoutPortkey)
  })

  it("--only selects the rows of Portkey by their name", () => {
    assert.deepStrictEqual(rowsOf("--only", "portkey-whole"), ["portkey-whole"])
  })

  it("--only selects rows by a part of their name and by group", () => {
    assert.deepStrictEqual(rowsOf("--only", "Breaker"), ["breaker-closed", "breaker-windows", "breaker-refusing"])
    assert.deepStrictEqual(rowsOf("--only", "hit-1, pipeline"), ["hit-1", "hit-10000", "five-stages"])
    assert.deepStrictEqual(rowsOf("--only", "memory"), [
      "permit-memory",
      "dedupe-memory",
      "run-memory",
      "front-memory",
      "batch-memory"
    ])
  })

  it("--only without a matching row is an error", () => {
    assert.include(rowsOf("--only", "cache"), "--only cache matches no row")
    assert.include(rowsOf("--only", " ,"), "matches no row")
  })

  it("--check refuses --quick", () => {
    assert.include(rowsOf("--check", "--quick"), "--check")
    assert.deepStrictEqual(rowsOf("--check"), withoutPortkey)
  })

  it("--write refuses --only and --quick, since the page needs all rows", () => {
    assert.include(rowsOf("--write", "docs/performance.md", "--only", "retry"), "--write")
    assert.include(rowsOf("--write", "docs/performance.md", "--quick"), "--write")
    assert.deepStrictEqual(rowsOf("--write", "docs/performance.md"), withoutPortkey)
  })
})
