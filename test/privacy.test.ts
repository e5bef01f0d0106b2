import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { mark } from "./privacy/plugin.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

/** The fields of Vitest's report that are read here. */
interface Report {
  readonly testResults: ReadonlyArray<{
    readonly assertionResults: ReadonlyArray<{
      readonly fullName: string
      readonly status: "passed" | "failed"
      readonly failureMessages: ReadonlyArray<string>
    }>
  }>
}

const runLeaks = () => {
  const folder = mkdtempSync(join(tmpdir(), "leaks "))
  try {
    const outputFile = join(folder, "report.json")
    const vitest = join(root, "node_modules/vitest/vitest.mjs")
    const args = [
      "run",
      "--config",
      "test/privacy/leaks/vitest.config.ts",
      "--reporter",
      "json",
      "--outputFile",
      outputFile
    ]
    spawnSync(process.execPath, [vitest, ...args], { cwd: root, timeout: 180_000 })
    const { testResults } = JSON.parse(readFileSync(outputFile, "utf8")) as Report
    return testResults.flatMap(({ assertionResults }) => assertionResults)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

describe("the privacy run", () => {
  it("every test that leaks a key or a prompt fails, and no other test", () => {
    const results = runLeaks()
    assert.isAtLeast(results.length, 25)
    for (const { failureMessages, fullName, status } of results) {
      if (fullName.startsWith("fine")) assert.strictEqual(status, "passed", fullName)
      else assert.match(failureMessages.join(), /a key or a prompt was leaked/, fullName)
    }
  }, 240_000)

  describe("mark", () => {
    const marked = (code: string): string => mark(code).replace(/^import[^;]*;/, "").replaceAll("__secrets.", "")

    for (
      const [title, code, expected] of [
        ["a value of key is marked", `f({ key: "eu" })`, `f({ key: secretOrKeyOf("eu") })`],
        ["a shorthand key is marked", `f({ key })`, `f({ key: secretOrKeyOf(key) })`],
        ["an expression is marked", `f({ prompt: n > 1 ? a : b })`, `f({ prompt: secretOrKeyOf(n > 1 ? a : b) })`],
        ["a nested key is marked", `({ key: { key: 1 } })`, `({ key: secretOrKeyOf({ key: secretOrKeyOf(1) }) })`],
        ["a key argument is marked", `breaker.state("eu")`, `breaker.state(secret("eu"))`],
        ["a name is marked as public", `f({ name: "eu" })`, `f({ name: publicName("eu") })`],
        ["other properties are not marked", `f({ region: "eu" })`, `f({ region: "eu" })`],
        ["a destructuring pattern is not marked", `const { key } = f`, `const { key } = f`],
        ["a type is not marked", `let a: { key: string }`, `let a: { key: string }`],
        ["a method is not marked", `({ key() { return 1 } })`, `({ key() { return 1 } })`]
      ] as const
    ) {
      it(title, () => assert.strictEqual(marked(code), expected))
    }
  })
})
