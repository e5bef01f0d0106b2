import { assert, describe, it } from "@effect/vitest"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"
import { refused, run, start } from "./support/command.ts"
import { processTimeout } from "./support/timeouts.ts"

let directory = ""
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "sluice bin "))
  writeFileSync(join(directory, "prompts.jsonl"), `{"id":"a","prompt":"Hello there"}\noops\n{"prompt":"Bye"}\n`)
})
afterAll(() => rmSync(directory, { recursive: true }))

const nowhere = { OPENAI_BASE_URL: "http://127.0.0.1:9/v1", SLUICE_MODEL: "m" }

describe("sluice", { timeout: processTimeout }, () => {
  it.each(["--help", "run --help", "provider -h", "explain -h", "help run"])(
    "`sluice %s` prints help",
    async (args) => {
      const { code, stderr, stdout } = await run(args.split(" "))
      assert.deepStrictEqual([code, stderr], [0, ""])
      assert.match(stdout, /^Usage|^sluice:/)
    }
  )

  it("--version prints the version", async () => {
    const { code, stdout } = await run(["--version"])
    assert.strictEqual(code, 0)
    assert.match(stdout, /^\d+\.\d+\.\d+\n$/)
  })

  it("`sluice run --help` prints within ten seconds", async () => {
    const times = [await run(["run", "--help"]), await run(["run", "--help"]), await run(["run", "--help"])]
    assert.isBelow(Math.min(...times.map(({ millis }) => millis)), 10_000)
  })

  it.each([
    "--help",
    "run --help",
    "run x --modle",
    "run x --target a=b",
    "explain --help",
    "explain x",
    "provider --help",
    "serve --help",
    "serve --target a=b",
    "keys --help"
  ])("`sluice %s` loads only the few files of its parser", async (args) => {
    // Node records every script that it has run.
    const coverage = mkdtempSync(join(directory, "coverage-"))
    await run(args.split(" "), { NODE_V8_COVERAGE: coverage })
    const scripts = readdirSync(coverage).flatMap((file) =>
      [...readFileSync(join(coverage, file), "utf8").matchAll(/"url":"(file:[^"]+)"/g)].map(([, url]) => url!)
    )
    assert.isTrue(scripts.some((url) => url.endsWith("/src/bin.ts")))
    assert.deepStrictEqual(scripts.filter((url) => !/\/packages\/cli\/src\/\w+\.ts$/.test(url)), [])
  })

  it("unknown commands and wrong flags are refused in one line", async () => {
    refused(await run([]), "no command given")
    refused(await run(["rnu"]), "unknown command rnu; did you mean run?")
    refused(await run(["run", "x", "--concurency", "2"]), "did you mean --concurrency?", "sluice run --help")
    refused(await run(["provider", "--port", "99999"]), "from 0 to 65535")
    refused(await run(["run", "x", "--target", "a=http://localhost:1"]), "--target", "NAME=URL#MODEL")
    refused(await run(["run", "x", "--idle-timeout", "30"]), "--idle-timeout", "a duration such as")
  })
})

describe("sluice run", { timeout: processTimeout }, () => {
  it("unusable files, keys and URLs are refused in one line, and no file is left", async () => {
    const prompts = join(directory, "prompts.jsonl")
    const results = join(directory, "results.jsonl")
    refused(await run(["run", join(directory, "no"), "-o", results], nowhere), "no such file")
    refused(await run(["run", directory, "-o", results], nowhere), "is a directory")
    refused(await run(["run", prompts, "-o", join(directory, "no", "x")], nowhere), "no such file")
    refused(await run(["run", prompts, "-o", prompts, "--force"], nowhere), "is the input file")
    refused(await run(["run", prompts, "-o", prompts], nowhere), "is the input file")
    refused(await run(["run", prompts, "-o", results]), "no key: OPENAI_API_KEY")
    refused(await run(["run", prompts, "-o", results], { ...nowhere, OPENAI_BASE_URL: "x" }), "OPENAI_BASE_URL")
    refused(await run(["run", prompts, "-o", results], { ...nowhere, SLUICE_MODEL: "" }), "line 1 names no model")
    assert.notInclude(readdirSync(directory), "results.jsonl")
  })

  it("unusable targets and output files are refused in one line", async () => {
    const prompts = join(directory, "prompts.jsonl")
    const results = join(directory, "results.jsonl")
    const target = ["--target", "a=https://one.example/v1#m"]
    refused(await run(["run", prompts, "-o", results, ...target, ...target], nowhere), "two targets are named a")
    refused(
      await run(["run", prompts, "-o", results, ...target], { SLUICE_KEY_B: "x" }),
      "SLUICE_KEY_B names no target"
    )
    refused(await run(["run", prompts, "-o", results, "--log", results], nowhere), "name the same file")
    refused(await run(["run", prompts, "-o", results, "--log", prompts, "--force"], nowhere), "is the input file")
    refused(await run(["run", prompts, "-o", results, "--report", directory], nowhere), "is a directory")
    assert.notInclude(readdirSync(directory), "results.jsonl")
  })
})

describe("sluice provider", { timeout: processTimeout }, () => {
  it("the provider answers requests with the key that it prints, and exits with 0 at Ctrl-C", async () => {
    const provider = start(["provider", "--model", "small"])
    const welcome = await provider.says("sluice run prompts.jsonl")
    const value = (name: string) => new RegExp(`export ${name}=(\\S+)`).exec(welcome)?.[1] ?? ""
    const send = (key: string) =>
      fetch(`${value("OPENAI_BASE_URL")}/chat/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
        body: JSON.stringify({
          model: value("SLUICE_MODEL"),
          messages: [{ role: "user", content: "Extract: Please refund $49.99 to ann@example.com" }]
        })
      })
    const answer = await send(value("OPENAI_API_KEY"))
    assert.strictEqual(answer.status, 200)
    assert.include(await answer.text(), "ann@example.com")
    assert.strictEqual((await send("wrong")).status, 401)
    provider.process.kill("SIGINT")
    const { code, stdout } = await provider.ended
    assert.strictEqual(code, 0)
    assert.include(stdout, "Stopped after 2 requests")
    const afterwards = await send("any").then(() => "answered", () => "refused")
    assert.strictEqual(afterwards, "refused")
  })

  it("an unusable script or port is refused in one line", async () => {
    const script = join(directory, "script.json")
    refused(await run(["provider", "--script", join(directory, "no")]), "no such file")
    writeFileSync(script, "{")
    refused(await run(["provider", "--script", script]), "not JSON")
    writeFileSync(script, `{"faults":{"ratelimit":1}}`)
    refused(await run(["provider", "--script", script]), "ratelimit")
    const provider = start(["provider"])
    const port = /127\.0\.0\.1:(\d+)/.exec(await provider.says("sluice run"))?.[1] ?? ""
    refused(await run(["provider", "--port", port]), "EADDRINUSE")
    provider.process.kill("SIGTERM")
    assert.strictEqual((await provider.ended).code, 0)
  })
})
