import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Arguments from "../../src/Arguments.ts"
import * as Options from "../../src/options.ts"
import * as Settings from "../../src/run/Settings.ts"

const resolve = (
  args: ReadonlyArray<string>,
  env: { readonly [name: string]: string } = {},
  isOutputTerminal = false
) => {
  const parsed = Arguments.parse(Options.run, ["prompts.jsonl", ...args])
  if (parsed._tag !== "Parsed") return assert.fail(parsed._tag)
  return Settings.resolve(parsed.values, { env, isOutputTerminal })
}

describe("Settings", () => {
  it.effect("prefers flags to the environment, and the environment to defaults", () =>
    Effect.gen(function*() {
      const env = { OPENAI_API_KEY: "key", OPENAI_BASE_URL: "http://localhost:1/v1", SLUICE_MODEL: "small" }
      const flags = yield* resolve(["--url", "http://localhost:2/v1", "--model", "large"], env)
      assert.deepStrictEqual([flags.url, flags.model], ["http://localhost:2/v1", "large"])
      const environment = yield* resolve([], env)
      assert.deepStrictEqual([environment.url, environment.model], ["http://localhost:1/v1", "small"])
      const defaults = yield* resolve([], { OPENAI_API_KEY: "key" })
      assert.deepStrictEqual([defaults.url, defaults.model], ["https://api.openai.com/v1", undefined])
    }))

  it.effect("takes the key from the environment or a file, without the line end", () =>
    Effect.gen(function*() {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "sluice-key-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const file = join(directory, "key")
      writeFileSync(file, "from-file\n")
      const keyOf = (settings: Settings.Settings) => settings.apiKey && Redacted.value(settings.apiKey)
      assert.strictEqual(keyOf(yield* resolve([], { OPENAI_API_KEY: "from-env\n" })), "from-env")
      assert.strictEqual(keyOf(yield* resolve(["--key-env", "MINE"], { MINE: "mine" })), "mine")
      assert.strictEqual(keyOf(yield* resolve(["--key-file", file])), "from-file")
      writeFileSync(file, "\n")
      assert.include((yield* Effect.flip(resolve(["--key-file", file]))).message, "is empty")
      assert.include((yield* Effect.flip(resolve(["--key-file", join(directory, "no")]))).message, "no such file")
    }))

  it.effect("wants a key for OpenAI's own API, and for a variable that was named, and for nothing else", () =>
    Effect.gen(function*() {
      assert.include((yield* Effect.flip(resolve([]))).message, "no key: OPENAI_API_KEY is not set")
      assert.include(
        (yield* Effect.flip(resolve(["--url", "http://localhost:1", "--key-env", "MINE"]))).message,
        "MINE"
      )
      assert.isUndefined((yield* resolve(["--url", "http://localhost:1"])).apiKey)
    }))

  it.effect("asks where results go only if they would go to a terminal", () =>
    Effect.gen(function*() {
      const url = ["--url", "http://localhost:1"]
      assert.strictEqual((yield* resolve(url)).output, "-")
      assert.include((yield* Effect.flip(resolve(url, {}, true))).message, "-o results.jsonl")
      assert.strictEqual((yield* resolve([...url, "-o", "-"], {}, true)).output, "-")
    }))

  it.effect("checks the URL of the environment like that of a flag", () =>
    Effect.gen(function*() {
      assert.include((yield* Effect.flip(resolve([], { OPENAI_BASE_URL: "nonsense" }))).message, "OPENAI_BASE_URL")
    }))
})
