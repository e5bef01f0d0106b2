import { assert, describe, it } from "@effect/vitest"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"
import * as Terminal from "../../src/Terminal.ts"
import { refused, run as runHere } from "../support/command.ts"
import { processTimeout } from "../support/timeouts.ts"

let directory = ""
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "sluice config "))
})
afterAll(() => rmSync(directory, { recursive: true }))

const run = (args: ReadonlyArray<string>, env: { readonly [name: string]: string } = {}) =>
  runHere(args, env, directory)

const save = (content: object): void => writeFileSync(join(directory, "sluice.json"), JSON.stringify(content))

describe("sluice config", { timeout: processTimeout }, () => {
  it("prints each setting and its source at 80 columns, without keys", async () => {
    save({
      target: ["main=https://one.example/v1?key=${URL_SECRET}#m", "b=http://localhost:1#m"],
      system: "x".repeat(200),
      timeout: "90s"
    })
    const env = {
      SLUICE_MAX_TOKENS: "500",
      SLUICE_KEY_MAIN: "sk-own-secret",
      URL_SECRET: "url-secret",
      SLUICE_MODLE: "x"
    }
    const { code, stderr, stdout } = await run(["config", "--concurrency", "8"], env)
    assert.deepStrictEqual([code, stderr], [0, ""])
    for (const line of stdout.split("\n").slice(1)) assert.isAtMost(Terminal.width(line), 80, line)
    const row = (name: string) =>
      stdout.split("\n").find((line) => line.startsWith(`${name}  `))?.replaceAll(/ {2,}/g, "|")
    assert.strictEqual(row("concurrency"), "concurrency|8|--concurrency")
    assert.strictEqual(row("maxTokens"), "maxTokens|500|SLUICE_MAX_TOKENS")
    assert.strictEqual(row("timeout"), "timeout|90s|sluice.json")
    assert.strictEqual(row("maxAttempts"), "maxAttempts|5|default")
    assert.strictEqual(row("noStream"), "noStream|false|default")
    assert.match(row("target") ?? "", /^target\|main=https:\/\/one\.example\/v1\?key=\$\{URL_/)
    assert.strictEqual(row("key of main"), "key of main|[masked]|SLUICE_KEY_MAIN")
    assert.strictEqual(row("key of b"), "key of b|not set|SLUICE_KEY_B")
    assert.include(stdout, "ignored: SLUICE_MODLE (not a setting; did you mean SLUICE_MODEL?)")
    assert.notMatch(stdout, /sk-own-secret|url-secret/)
  })

  it("ends with exit code 2 and the message of a run, if none could start", async () => {
    save({ model: "m", url: "http://localhost:1/v1", system: "Be brief.", systemFile: "missing.txt" })
    const { code, stderr } = await run(["config"])
    assert.deepStrictEqual([code, stderr], [2, "sluice config: use --system or --system-file, not both\n"])
  })

  it("--json prints the same for programs", async () => {
    save({ model: "m", url: "http://localhost:1/v1" })
    const { code, stdout } = await run(["config", "--json", "--url", "http://localhost:2/v1?sig=secret"])
    assert.strictEqual(code, 0)
    const { file, settings } = JSON.parse(stdout)
    assert.strictEqual(file, join(directory, "sluice.json"))
    assert.deepStrictEqual(settings.model, { value: "m", from: "sluice.json" })
    assert.deepStrictEqual(settings.url, { value: "http://localhost:2/v1?sig=[masked]", from: "--url" })
    assert.deepStrictEqual(settings.timeout, { value: "60s", from: "default" })
  })

  it("settings with which no run could start end in exit code 2, below the table", async () => {
    save({})
    const { code, stderr, stdout } = await run(["config"])
    assert.strictEqual(code, 2)
    assert.include(stdout, "https://api.openai.com/v1")
    assert.match(stderr, /^sluice config: no key: OPENAI_API_KEY is not set/)
    save({ concurency: 3 })
    refused(await run(["config"]), "unknown key concurency in sluice.json; did you mean concurrency?")
  })
})

describe("sluice run with a sluice.json", { timeout: processTimeout }, () => {
  it("is refused in one line for a wrong file or variable, and prints its help all the same", async () => {
    save({ timeout: 30 })
    refused(await run(["run", "prompts.jsonl", "-o", "results.jsonl"]), "timeout in sluice.json must be a duration")
    assert.strictEqual((await run(["run", "--help"])).code, 0)
    save({})
    refused(
      await run(["run", "x", "-o", "y"], { SLUICE_CONCURRENCY: "0" }),
      "SLUICE_CONCURRENCY must be a whole number"
    )
  })

  it("takes its settings from the file, and says so", async () => {
    save({ url: "http://127.0.0.1:9/v1", model: "m", maxOutage: "1ms" })
    writeFileSync(join(directory, "prompts.txt"), "Hello\n")
    const { code, stderr } = await run(["run", "prompts.txt", "-o", "results.jsonl", "--force"])
    assert.strictEqual(code, 2, stderr)
    assert.include(stderr, "cannot reach http://127.0.0.1:9/v1")
    assert.include(stderr, "sluice.json has 3 settings of this run; see sluice config")
  })
})
