import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"
import type { Ended } from "./support/command.ts"
import { run, start } from "./support/command.ts"

let directory = ""
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "sluice bin "))
  writeFileSync(join(directory, "prompts.jsonl"), `{"id":"a","prompt":"Hello there"}\noops\n{"prompt":"Bye"}\n`)
})
afterAll(() => rmSync(directory, { recursive: true }))

const nowhere = { OPENAI_BASE_URL: "http://127.0.0.1:9/v1", SLUICE_MODEL: "m" }

const complains = (ended: Ended, ...parts: ReadonlyArray<string>) => {
  assert.strictEqual(ended.code, 2, ended.stderr)
  assert.strictEqual(ended.stdout, "")
  assert.match(ended.stderr, /^sluice[^\n]*\n$/)
  for (const part of parts) assert.include(ended.stderr, part)
}

describe("sluice", () => {
  it.each([[["--help"]], [["run", "--help"]], [["provider", "-h"]], [["explain", "-h"]], [["help", "run"]]])(
    "prints help: %s",
    async (args) => {
      const { code, stderr, stdout } = await run(args)
      assert.deepStrictEqual([code, stderr], [0, ""])
      assert.match(stdout, /^Usage|^sluice:/)
    }
  )

  it("prints its version", async () => {
    const { code, stdout } = await run(["--version"])
    assert.strictEqual(code, 0)
    assert.match(stdout, /^\d+\.\d+\.\d+\n$/)
  })

  it.live("prints help within 300 ms", () =>
    Effect.gen(function*() {
      const times = yield* Effect.replicateEffect(Effect.promise(() => run(["run", "--help"])), 7)
      assert.isBelow(times.map(({ millis }) => millis).sort((a, b) => a - b)[3]!, 300)
    }))

  it.each([
    [["--help"]],
    [["run", "--help"]],
    [["run", "x", "--modle"]],
    [["run", "x", "--target", "a=b"]],
    [["explain", "--help"]],
    [["explain", "x"]],
    [["provider", "--help"]]
  ])(
    "loads nothing but its own few files for %s",
    async (args) => {
      // Node writes down every script that it has run.
      const coverage = mkdtempSync(join(directory, "coverage-"))
      await run(args, { NODE_V8_COVERAGE: coverage })
      const scripts = readdirSync(coverage).flatMap((file) =>
        [...readFileSync(join(coverage, file), "utf8").matchAll(/"url":"(file:[^"]+)"/g)].map(([, url]) => url!)
      )
      assert.isTrue(scripts.some((url) => url.endsWith("/src/bin.ts")))
      assert.deepStrictEqual(scripts.filter((url) => !/\/packages\/cli\/src\/\w+\.ts$/.test(url)), [])
    }
  )

  it("complains in one line about commands and flags that it does not know", async () => {
    complains(await run([]), "a command is missing")
    complains(await run(["rnu"]), "unknown command rnu; did you mean run?")
    complains(await run(["run", "x", "--concurency", "2"]), "did you mean --concurrency?", "sluice run --help")
    complains(await run(["provider", "--port", "99999"]), "from 0 to 65535")
    complains(await run(["run", "x", "--target", "a=http://localhost:1"]), "--target", "NAME=URL#MODEL")
    complains(await run(["run", "x", "--idle-timeout", "30"]), "--idle-timeout", "a duration such as")
  })
})

describe("sluice run", () => {
  it("complains in one line about files, keys and URLs, and leaves no file behind", async () => {
    const prompts = join(directory, "prompts.jsonl")
    const results = join(directory, "results.jsonl")
    complains(await run(["run", join(directory, "no"), "-o", results], nowhere), "no such file")
    complains(await run(["run", directory, "-o", results], nowhere), "it is a directory")
    complains(await run(["run", prompts, "-o", join(directory, "no", "x")], nowhere), "no such file")
    complains(await run(["run", prompts, "-o", prompts, "--force"], nowhere), "it is the input")
    complains(await run(["run", prompts, "-o", prompts], nowhere), "it is the input")
    complains(await run(["run", prompts, "-o", results]), "no key: OPENAI_API_KEY")
    complains(await run(["run", prompts, "-o", results], { ...nowhere, OPENAI_BASE_URL: "x" }), "OPENAI_BASE_URL")
    complains(await run(["run", prompts, "-o", results], { ...nowhere, SLUICE_MODEL: "" }), "line 1 names no model")
    assert.notInclude(readdirSync(directory), "results.jsonl")
  }, 60_000)

  it("complains in one line about targets, and about what is written beside the results", async () => {
    const prompts = join(directory, "prompts.jsonl")
    const results = join(directory, "results.jsonl")
    const target = ["--target", "a=https://one.example/v1#m"]
    complains(await run(["run", prompts, "-o", results, ...target, ...target], nowhere), "two targets are named a")
    complains(
      await run(["run", prompts, "-o", results, ...target], { SLUICE_KEY_B: "x" }),
      "SLUICE_KEY_B names no target"
    )
    complains(await run(["run", prompts, "-o", results, "--log", results], nowhere), "name the same file")
    complains(await run(["run", prompts, "-o", results, "--log", prompts, "--force"], nowhere), "it is the input")
    complains(await run(["run", prompts, "-o", results, "--report", directory], nowhere), "it is a directory")
    assert.notInclude(readdirSync(directory), "results.jsonl")
  }, 60_000)
})

describe("sluice provider", () => {
  it("answers by its rules with the key that it prints, and ends well at Ctrl-C", async () => {
    const provider = start(["provider", "--model", "small"])
    const said = await provider.says("sluice run prompts.jsonl")
    const value = (name: string) => new RegExp(`export ${name}=(\\S+)`).exec(said)?.[1] ?? ""
    const ask = (key: string) =>
      fetch(`${value("OPENAI_BASE_URL")}/chat/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
        body: JSON.stringify({
          model: value("SLUICE_MODEL"),
          messages: [{ role: "user", content: "Extract: Please refund $49.99 to ann@example.com" }]
        })
      })
    const answer = await ask(value("OPENAI_API_KEY"))
    assert.strictEqual(answer.status, 200)
    assert.include(await answer.text(), "ann@example.com")
    assert.strictEqual((await ask("wrong")).status, 401)
    provider.process.kill("SIGINT")
    const { code, stdout } = await provider.ended
    assert.strictEqual(code, 0)
    assert.include(stdout, "2 requests were made")
    const gone = await ask("any").then(() => "answered", () => "refused")
    assert.strictEqual(gone, "refused")
  }, 30_000)

  it("complains in one line about its script and its port", async () => {
    const script = join(directory, "script.json")
    complains(await run(["provider", "--script", join(directory, "no")]), "no such file")
    writeFileSync(script, "{")
    complains(await run(["provider", "--script", script]), "it is not JSON")
    writeFileSync(script, `{"faults":{"ratelimit":1}}`)
    complains(await run(["provider", "--script", script]), "ratelimit")
    const provider = start(["provider"])
    const port = /127\.0\.0\.1:(\d+)/.exec(await provider.says("sluice run"))?.[1] ?? ""
    complains(await run(["provider", "--port", port]), "EADDRINUSE")
    provider.process.kill("SIGTERM")
    assert.strictEqual((await provider.ended).code, 0)
  }, 30_000)
})
