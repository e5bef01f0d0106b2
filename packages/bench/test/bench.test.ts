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
  it("measures rows beside their rivals, and writes nothing but JSON", { timeout: 30_000 }, async () => {
    const { code, stderr, stdout } = await bench("--quick", "--json", "--only", "retry-nothing")
    const report = Schema.decodeUnknownSync(Schema.fromJsonString(Report))(stdout)
    assert.deepStrictEqual(report.rows.map(({ id }) => id), ["retry-nothing"])
    for (const { measurements } of report.rows) {
      for (const { contender, rounds } of measurements) {
        assert.isTrue(rounds.every((cost) => cost > 0), `${contender} costs something`)
      }
    }
    assert.deepStrictEqual(report.verdicts.map(({ rival }) => rival), ["Effect", "cockatiel"])
    assert.isTrue(report.verdicts.every(({ isReached }) => isReached === undefined), "a quick run is no verdict")
    assert.strictEqual(stderr, "")
    assert.strictEqual(code, 0)
  })

  it("says what it can do", { timeout: 30_000 }, async () => {
    const { code, stdout } = await bench("--help")
    for (const word of ["--quick", "--only", "--json", "--write", "--check", ...rowIds]) assert.include(stdout, word)
    assert.isTrue(stdout.split("\n").every((line) => line.length <= 80))
    assert.strictEqual(code, 0)
  })

  it("says what is wrong with its arguments, and measures nothing", { timeout: 30_000 }, async () => {
    const unknown = await bench("--fast")
    assert.deepStrictEqual([unknown.code, unknown.stdout], [2, ""])
    assert.include(unknown.stderr, "--fast")
    const unmarked = await bench("--write", index)
    assert.deepStrictEqual([unmarked.code, unmarked.stdout], [2, ""])
    assert.include(unmarked.stderr, "no marks")
    const absent = await bench("--write", `${index}.absent`)
    assert.deepStrictEqual([absent.code, absent.stdout], [2, ""])
    assert.include(absent.stderr, "cannot be read")
  })
})

describe("which rows are measured", () => {
  const rowsOf = (...args: ReadonlyArray<string>) => {
    const options = readOptions(args)
    return "wrong" in options ? options.wrong : options.rows
  }

  it("all of them", () => {
    assert.deepStrictEqual(rowsOf(), rowIds)
  })

  it("those with a word in their name, and those of a group", () => {
    assert.deepStrictEqual(rowsOf("--only", "Breaker"), ["breaker-closed", "breaker-windows", "breaker-refusing"])
    assert.deepStrictEqual(rowsOf("--only", "hit-1, pipeline"), ["hit-1", "hit-10000", "five-stages"])
    assert.deepStrictEqual(rowsOf("--only", "memory"), ["permit-memory", "dedupe-memory"])
  })

  it("none by a word that no row has: that is a mistake", () => {
    assert.include(rowsOf("--only", "cache"), "no row has cache")
    assert.include(rowsOf("--only", " ,"), "no row has")
  })

  it("at length, where an exit code is made of it", () => {
    assert.include(rowsOf("--check", "--quick"), "--check")
    assert.deepStrictEqual(rowsOf("--check"), rowIds)
  })

  it("all, and at length, where a page is written: it would lose the others", () => {
    assert.include(rowsOf("--write", "docs/performance.md", "--only", "retry"), "--write")
    assert.include(rowsOf("--write", "docs/performance.md", "--quick"), "--write")
    assert.deepStrictEqual(rowsOf("--write", "docs/performance.md"), rowIds)
  })
})
