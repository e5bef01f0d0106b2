import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { mark } from "./privacy/plugin.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

/** What of vitest's report is looked at here. */
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
    spawnSync(process.execPath, [vitest, ...args], { cwd: root, timeout: 60_000 })
    const { testResults } = JSON.parse(readFileSync(outputFile, "utf8")) as Report
    return testResults.flatMap(({ assertionResults }) => assertionResults)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

describe("the privacy run", () => {
  it("fails a test by whichever way a key or a prompt gets out, and no other", () => {
    const results = runLeaks()
    assert.isAtLeast(results.length, 25)
    for (const { failureMessages, fullName, status } of results) {
      if (fullName.startsWith("fine")) assert.strictEqual(status, "passed", fullName)
      else assert.match(failureMessages.join(), /a key or a prompt got out/, fullName)
    }
  }, 60_000)

  describe("takes for a secret", () => {
    const marked = (code: string): string => mark(code).replace(/^import[^;]*;/, "").replaceAll("__secrets.", "")

    for (
      const [what, code, expected] of [
        ["what is called a key", `f({ key: "eu" })`, `f({ key: secretOrKeyOf("eu") })`],
        ["what is written in short", `f({ key })`, `f({ key: secretOrKeyOf(key) })`],
        ["what is computed", `f({ prompt: n > 1 ? a : b })`, `f({ prompt: secretOrKeyOf(n > 1 ? a : b) })`],
        ["a key inside a key", `({ key: { key: 1 } })`, `({ key: secretOrKeyOf({ key: secretOrKeyOf(1) }) })`],
        ["a key by position", `breaker.state("eu")`, `breaker.state(secret("eu"))`],
        ["no name of a policy", `f({ name: "eu" })`, `f({ name: publicName("eu") })`],
        ["no field of another name", `f({ region: "eu" })`, `f({ region: "eu" })`],
        ["no pattern", `const { key } = f`, `const { key } = f`],
        ["no type", `let a: { key: string }`, `let a: { key: string }`],
        ["no method", `({ key() { return 1 } })`, `({ key() { return 1 } })`]
      ] as const
    ) {
      it(what, () => assert.strictEqual(marked(code), expected))
    }
  })
})
