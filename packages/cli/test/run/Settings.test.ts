import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { linkSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Arguments from "../../src/Arguments.ts"
import * as Sources from "../../src/Sources.ts"
import * as Options from "../../src/options.ts"
import * as Settings from "../../src/run/Settings.ts"
import { folder } from "../support/files.ts"

const resolve = (
  args: ReadonlyArray<string>,
  env: { readonly [name: string]: string } = {},
  isOutputTerminal = false
) => {
  const parsed = Arguments.parse(Options.run, ["prompts.jsonl", ...args])
  if (parsed._tag !== "Parsed") return assert.fail(parsed._tag)
  const sources = Sources.read(Options.run.flags, parsed.given, { env, directory: "/no/such/folder" })
  if (sources._tag !== "Read") return assert.fail(sources.message)
  const all = Arguments.readAll(Options.run.flags, sources.given, [])
  return all._tag === "Parsed"
    ? Settings.resolve(all.values, { env, isOutputTerminal })
    : assert.fail(all._tag)
}

describe("Settings", () => {
  it.effect("flags override the environment, which overrides defaults", () =>
    Effect.gen(function*() {
      const env = { OPENAI_API_KEY: "key", OPENAI_BASE_URL: "http://localhost:1/v1", SLUICE_MODEL: "small" }
      const flags = yield* resolve(["--url", "http://localhost:2/v1", "--model", "large"], env)
      assert.deepStrictEqual([flags.targets[0].url, flags.targets[0].model], ["http://localhost:2/v1", "large"])
      const environment = yield* resolve([], env)
      assert.deepStrictEqual([environment.targets[0].url, environment.targets[0].model], [
        "http://localhost:1/v1",
        "small"
      ])
      const defaults = yield* resolve([], { OPENAI_API_KEY: "key" })
      assert.deepStrictEqual([defaults.targets[0].url, defaults.targets[0].model], [
        "https://api.openai.com/v1",
        undefined
      ])
    }))

  it.effect("without limits and --concurrency the calls at once are found, which a flag changes", () =>
    Effect.gen(function*() {
      const of = Effect.fnUntraced(function*(...args: ReadonlyArray<string>) {
        const { concurrency, targets: [{ limits = [] }] } = yield* resolve(args, { OPENAI_API_KEY: "key" })
        return [concurrency, limits.flatMap(({ name, start }) => name === "atOnce" ? [start] : [])]
      })
      assert.deepStrictEqual(yield* of(), [64, [4]])
      assert.deepStrictEqual(yield* of("--adaptive=false"), [16, []])
      assert.deepStrictEqual(yield* of("--concurrency", "8"), [8, []])
      assert.deepStrictEqual(yield* of("--concurrency", "2", "--adaptive"), [2, [2]])
      assert.deepStrictEqual(yield* of("--rpm", "60"), [512, []])
      assert.deepStrictEqual(yield* of("--otpm", "60", "--adaptive"), [512, [4]])
    }))

  it.effect("the key is read from the environment or a file, without its line end", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const file = join(directory, "key")
      writeFileSync(file, "from-file\n")
      const keyOf = ({ targets: [{ apiKey }] }: Settings.Settings) => apiKey && Redacted.value(apiKey)
      assert.strictEqual(keyOf(yield* resolve([], { OPENAI_API_KEY: "from-env\n" })), "from-env")
      assert.strictEqual(keyOf(yield* resolve(["--key-env", "MINE"], { MINE: "mine" })), "mine")
      assert.strictEqual(keyOf(yield* resolve(["--key-file", file])), "from-file")
      writeFileSync(file, "\n")
      assert.include((yield* Effect.flip(resolve(["--key-file", file]))).message, "is empty")
      assert.include((yield* Effect.flip(resolve(["--key-file", join(directory, "no")]))).message, "no such file")
    }))

  it.effect("headers take variables of the environment, and no message shows a value", () =>
    Effect.gen(function*() {
      const at = ["--url", "http://localhost:1"]
      const { headers } = yield* resolve([...at, "--header", "X-Key=a ${MINE}/${MINE}", "--header", "Y=b=c"], {
        MINE: "m"
      })
      assert.deepStrictEqual(Object.entries(headers).map(([name, value]) => [name, Redacted.value(value)]), [
        ["X-Key", "a m/m"],
        ["Y", "b=c"]
      ])
      const { message } = yield* Effect.flip(resolve([...at, "--header", "A=canary${NO}", "--header", "a=canary"]))
      assert.include(message, "--header A needs the environment variable NO, which is not set")
      assert.include(message, "--header a is given twice")
      assert.notInclude(message, "canary")
      for (const wrong of ["canary", "=canary", "A=", "a canary=b"]) {
        const parsed = Arguments.parse(Options.run, ["x", "--header", wrong])
        assert.strictEqual(parsed._tag, "Wrong", wrong)
        if (parsed._tag === "Wrong") assert.notInclude(parsed.message, "canary")
      }
    }))

  it.effect("the system message is that of the flag or of the file, not both", () =>
    Effect.gen(function*() {
      const directory = yield* folder
      const systemFile = join(directory, "system.txt")
      writeFileSync(systemFile, "Be brief.\r\n")
      assert.strictEqual(yield* Settings.systemOf({ system: undefined, systemFile }), "Be brief.")
      assert.strictEqual(yield* Settings.systemOf({ system: "Hi", systemFile: undefined }), "Hi")
      assert.include((yield* Effect.flip(Settings.systemOf({ system: "Hi", systemFile }))).message, "not both")
      writeFileSync(systemFile, " \n")
      assert.include((yield* Effect.flip(Settings.systemOf({ system: undefined, systemFile }))).message, "is empty")
      writeFileSync(systemFile, Buffer.from([0x41, 0xe9]))
      assert.include((yield* Effect.flip(Settings.systemOf({ system: undefined, systemFile }))).message, "not UTF-8")
    }))

  it.effect("a key is required for OpenAI's API and for a variable of --key-env, but not for other URLs", () =>
    Effect.gen(function*() {
      assert.include((yield* Effect.flip(resolve([]))).message, "no key: OPENAI_API_KEY is not set")
      assert.include(
        (yield* Effect.flip(resolve(["--url", "http://localhost:1", "--key-env", "MINE"]))).message,
        "MINE"
      )
      assert.isUndefined((yield* resolve(["--url", "http://localhost:1"])).targets[0].apiKey)
    }))

  it.effect("--output is required only if standard output is a terminal", () =>
    Effect.gen(function*() {
      const url = ["--url", "http://localhost:1"]
      assert.strictEqual((yield* resolve(url)).output, "-")
      assert.include((yield* Effect.flip(resolve(url, {}, true))).message, "-o results.jsonl")
      assert.strictEqual((yield* resolve([...url, "-o", "-"], {}, true)).output, "-")
    }))

  it.effect("the URL of the environment is validated like that of the flag", () =>
    Effect.gen(function*() {
      assert.include((yield* Effect.flip(resolve([], { OPENAI_BASE_URL: "nonsense" }))).message, "OPENAI_BASE_URL")
    }))

  it.effect("a single target is named by its host", () =>
    Effect.gen(function*() {
      const { targets } = yield* resolve(["--url", "http://localhost:11434/v1", "--model", "m"])
      assert.deepInclude(targets[0], { name: "localhost:11434", wire: "openai" })
    }))

  it.effect("outputs must be different files, and logs cannot go to standard output", () =>
    Effect.gen(function*() {
      const url = ["--url", "http://localhost:1"]
      const wrong = (...args: ReadonlyArray<string>) =>
        Effect.map(Effect.flip(resolve([...url, ...args])), (error) => error.message)
      for (const end of [".run", ".lock", ".budget"]) {
        const both = `the ${end} file of --output and --log name the same file`
        assert.include(yield* wrong("-o", "a", "--log", `a${end}`), both)
      }
      assert.include(yield* wrong("-o", "a", "--log", "./a"), "--output and --log name the same file")
      assert.include(yield* wrong("--log", "a", "--report", "b/../a"), "--log and --report name the same file")
      assert.include(yield* wrong("--log", "-"), "--log must be a file name")
      const directory = yield* folder
      const [file, hard, soft] = [join(directory, "a"), join(directory, "b"), join(directory, "c")]
      writeFileSync(file, "")
      linkSync(file, hard)
      symlinkSync(file, soft)
      assert.include(yield* wrong("-o", file, "--report", hard), "--output and --report name the same file")
      assert.include(yield* wrong("--log", soft, "--report", hard), "--log and --report name the same file")
      assert.include(yield* wrong("--no-stream", "--idle-timeout", "1s"), "--no-stream excludes")
    }))
})

describe("Settings of several targets", () => {
  const target = (...targets: ReadonlyArray<string>) => targets.flatMap((text) => ["--target", text])
  const keysOf = ({ targets }: Settings.Settings) =>
    targets.map(({ apiKey, keySource, name }) => [name, apiKey && Redacted.value(apiKey), keySource])
  const wrong = (args: ReadonlyArray<string>, env?: { readonly [name: string]: string }) =>
    Effect.map(Effect.flip(resolve(args, env)), (error) => error.message)

  it.effect("targets are read with name, format, URL and model, in order", () =>
    Effect.gen(function*() {
      const { targets } = yield* resolve(
        target("a=http://localhost:1/v1#org/model:free", "b-2=anthropic:http://localhost:2#claude#1")
      )
      assert.deepStrictEqual(targets.map(({ model, name, url, wire }) => [name, wire, url, model]), [
        ["a", "openai", "http://localhost:1/v1", "org/model:free"],
        ["b-2", "anthropic", "http://localhost:2", "claude#1"]
      ])
    }))

  it.effect("each target reads its key from its own variable", () =>
    Effect.gen(function*() {
      const args = target("a=https://one.example/v1#m", "b-2=https://two.example/v1#m")
      const env = { SLUICE_KEY_A: "first", SLUICE_KEY_B_2: "second\n", OPENAI_API_KEY: "other" }
      assert.deepStrictEqual(keysOf(yield* resolve(args, env)), [
        ["a", "first", "SLUICE_KEY_A"],
        ["b-2", "second", "SLUICE_KEY_B_2"]
      ])
    }))

  it.effect("a vendor's key goes only to that vendor, unless a flag names it for all targets", () =>
    Effect.gen(function*() {
      const args = target(
        "a=https://api.openai.com/v1#m",
        "b=anthropic:https://api.anthropic.com#m",
        "c=https://other.example/v1#m",
        "d=anthropic:https://other.example#m",
        "e=https://mine.example/other#m"
      )
      const env = { OPENAI_API_KEY: "o", ANTHROPIC_API_KEY: "a", OPENAI_BASE_URL: "https://mine.example/v1" }
      assert.deepStrictEqual(keysOf(yield* resolve(args, env)).map(([name, key]) => [name, key]), [
        ["a", "o"],
        ["b", "a"],
        ["c", undefined],
        ["d", undefined],
        ["e", "o"]
      ])
      const named = yield* resolve([...args, "--key-env", "MINE"], { ...env, MINE: "mine", SLUICE_KEY_C: "c" })
      assert.deepStrictEqual(keysOf(named).map(([, key]) => key), ["mine", "mine", "c", "mine", "mine"])
      const single = yield* resolve(target("a=https://other.example/v1#m"), env)
      assert.deepStrictEqual(keysOf(single), [["a", "o", "OPENAI_API_KEY"]])
    }))

  it.effect("a missing key and a key variable without a target are refused", () =>
    Effect.gen(function*() {
      const args = target("main=https://one.example/v1#m", "other=http://localhost:1#m")
      assert.include(
        yield* wrong(args, { SLUICE_KEY_MIAN: "x" }),
        "SLUICE_KEY_MIAN names no target, and target main has no key; did you mean SLUICE_KEY_MAIN?"
      )
      // A variable of another run is allowed if no key is missing.
      yield* resolve(args, { SLUICE_KEY_MAIN: "x", SLUICE_KEY_ELSE: "y" })
      assert.include(
        yield* wrong(target("main=https://api.openai.com/v1#m", "b=http://localhost:1#m")),
        "no key for target main"
      )
      assert.include(yield* wrong(target("main=anthropic:https://api.anthropic.com#m")), "SLUICE_KEY_MAIN is not set")
    }))

  it.effect("equal target names are refused, and so is --url or --model with --target", () =>
    Effect.gen(function*() {
      assert.include(
        yield* wrong(target("a=http://localhost:1#m", "a=http://localhost:2#m")),
        "two targets are named a"
      )
      assert.include(yield* wrong(target("a-b=http://localhost:1#m", "A_B=http://localhost:2#m")), "two targets")
      assert.include(yield* wrong([...target("a=http://localhost:1#m"), "--url", "http://localhost:2"]), "not both")
      assert.include(yield* wrong([...target("a=http://localhost:1#m"), "--model", "m"]), "not both")
    }))

  it("a malformed --target is refused with its requirement", () => {
    const refused = (text: string) => {
      const parsed = Arguments.parse(Options.run, ["prompts.jsonl", "--target", text])
      return parsed._tag === "Wrong" ? parsed.message : parsed._tag
    }
    for (const text of ["http://localhost:1#m", "a=http://localhost:1", "a=http://localhost:1#", "a=#m", "="]) {
      assert.include(refused(text), "NAME=URL#MODEL", text)
    }
    assert.include(refused("a b=http://localhost:1#m"), "a NAME of letters")
    assert.include(refused("__proto__=http://localhost:1#m"), "a NAME of letters")
    assert.include(refused("a=ftp://localhost#m"), "http:// or https://")
    assert.include(refused("a=http://me:secret@localhost#m"), "without user name and password")
  })
})
