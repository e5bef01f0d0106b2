import { assert, describe, it } from "@effect/vitest"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll } from "vitest"
import * as Arguments from "../src/Arguments.ts"
import * as Sources from "../src/Sources.ts"
import * as Options from "../src/options.ts"

let directory = ""
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "sluice config "))
})
afterAll(() => rmSync(directory, { recursive: true }))

const flags = Options.run.flags

/** Reads the sources with this `sluice.json`: an object, or the text of the file. */
const read = (
  json: object | string | undefined,
  env: { readonly [name: string]: string } = {},
  args: ReadonlyArray<string> = []
) => {
  const path = join(directory, "sluice.json")
  if (json === undefined) rmSync(path, { force: true })
  else writeFileSync(path, typeof json === "string" ? json : JSON.stringify(json))
  const parsed = Arguments.parse(Options.run, ["prompts.jsonl", ...args])
  if (parsed._tag !== "Parsed") return assert.fail(parsed._tag)
  return Sources.read(flags, parsed.given, { env, directory })
}

const values = (...all: Parameters<typeof read>): Options.RunFlags => {
  const sources = read(...all)
  if (sources._tag !== "Read") return assert.fail(sources.message)
  const parsed = Arguments.readAll(flags, sources.given, [])
  return parsed._tag === "Parsed" ? parsed.values : assert.fail(parsed._tag)
}

const from = (name: string, ...all: Parameters<typeof read>): string | undefined => {
  const sources = read(...all)
  return sources._tag === "Read" ? sources.settings.get(name)?.from : assert.fail(sources.message)
}

const problem = (...all: Parameters<typeof read>): string => {
  const sources = read(...all)
  return sources._tag === "Wrong" ? sources.message : assert.fail("the settings were accepted")
}

describe("Sources", () => {
  it("a flag wins over a variable, a variable over the file, and the file over the default", () => {
    const file = { concurrency: 2, timeout: "2s" }
    const env = { SLUICE_CONCURRENCY: "3" }
    assert.strictEqual(values(file, env, ["--concurrency", "4"]).concurrency, 4)
    assert.strictEqual(from("concurrency", file, env, ["--concurrency", "4"]), "--concurrency")
    assert.strictEqual(values(file, env).concurrency, 3)
    assert.strictEqual(from("concurrency", file, env), "SLUICE_CONCURRENCY")
    assert.strictEqual(values(file).concurrency, 2)
    assert.strictEqual(from("concurrency", file), "sluice.json")
    assert.isUndefined(values(undefined).concurrency)
    assert.isUndefined(from("concurrency", undefined))
    assert.strictEqual(values(file, env, ["--concurrency", "4"]).timeoutMillis, 2_000)
  })

  it("every flag that is not about one run can be set by a key of the file", () => {
    const keys = [...Sources.keysOf(flags).keys()]
    for (const key of ["url", "model", "target", "maxTokens", "firstTokenTimeout", "noStream", "keyFile", "quiet"]) {
      assert.include(keys, key)
    }
    for (const { name } of Object.values(flags).filter(({ perRun }) => perRun === true)) {
      assert.match(problem({ [name]: "x" }), new RegExp(`^${name} in sluice.json is about one run; use --${name}$`))
    }
  })

  it("the variables of keys are not read as settings", () => {
    const env = { SLUICE_KEY_FILE: "secret", SLUICE_KEY_ENV: "secret" }
    assert.deepInclude(values(undefined, env), { keyFile: undefined, keyEnv: undefined })
  })

  it("a switch that the file has on is switched off by a variable or a flag", () => {
    assert.isTrue(values({ noStream: true }).noStream)
    assert.isFalse(values({ noStream: true }, { SLUICE_NO_STREAM: "0" }).noStream)
    assert.isFalse(values({ noStream: true }, {}, ["--no-stream=false"]).noStream)
    assert.isTrue(values({ noStream: false }, { SLUICE_NO_STREAM: "true" }).noStream)
  })

  it("targets are texts or objects, and variables hold one per line", () => {
    const own = { name: "own", wire: "anthropic", url: "http://localhost:1", model: "m#2" }
    assert.deepStrictEqual(values({ target: ["main=http://localhost/v1#a", own] }).targets, [
      { name: "main", wire: "openai", url: "http://localhost/v1", model: "a" },
      { name: "own", wire: "anthropic", url: "http://localhost:1", model: "m#2" }
    ])
    const env = { SLUICE_TARGET: "a=http://localhost#x\n b=http://localhost#y\n" }
    assert.deepStrictEqual(values(undefined, env).targets.map(({ name }) => name), ["a", "b"])
    assert.include(
      problem({ target: [{ ...own, apiKey: "sk-secret" }] }),
      "target in sluice.json must be NAME=URL#MODEL"
    )
    assert.include(problem({ target: [{ name: "own" }] }), "or an object with name, url, model")
  })

  it("a URL replaces the targets of a weaker source, and targets replace its URL and model", () => {
    const targets = { target: "main=http://localhost/v1#a" }
    assert.deepInclude(values(targets, {}, ["--url", "http://localhost:2"]), { targets: [], url: "http://localhost:2" })
    const env = { SLUICE_URL: "http://localhost:3", SLUICE_MODEL: "m" }
    assert.deepInclude(values(undefined, env, ["--target", "a=http://localhost#b"]), {
      url: undefined,
      model: undefined
    })
  })

  it("a model without a URL does not replace the targets of a weaker source: they would be lost", () => {
    const targets = { target: "main=http://localhost/v1#a" }
    assert.match(problem(targets, {}, ["--model", "m"]), /^--model sets a model, and sluice\.json sets targets/)
    assert.match(problem(targets, { SLUICE_MODEL: "m" }), /^SLUICE_MODEL sets a model, and sluice\.json sets targets/)
  })

  it("an unknown key is refused with the nearest one", () => {
    assert.strictEqual(problem({ concurency: 3 }), "unknown key concurency in sluice.json; did you mean concurrency?")
    assert.strictEqual(problem({ "max-tokens": 3 }), "unknown key max-tokens in sluice.json; did you mean maxTokens?")
    assert.strictEqual(problem({ zzzzzzzzzz: 3 }), "unknown key zzzzzzzzzz in sluice.json")
    assert.match(problem(`{"__proto__":1}`), /^unknown key __proto__ in sluice.json/)
    assert.strictEqual(values({ $schema: "./sluice.schema.json", model: "m" }).model, "m")
  })

  it("a wrong value is refused with its key or variable and its requirement, and is not repeated", () => {
    assert.match(problem({ timeout: 30 }), /^timeout in sluice\.json must be a duration such as/)
    assert.match(
      problem({ concurrency: "many" }),
      /^concurrency in sluice\.json must be a whole number from 1 to 1000$/
    )
    assert.strictEqual(problem({ noStream: "yes" }), "noStream in sluice.json must be true or false")
    assert.strictEqual(problem({ model: ["a"] }), "model in sluice.json must be a text or a number")
    assert.strictEqual(problem({ model: null }), "model in sluice.json must be a text or a number")
    assert.match(problem(undefined, { SLUICE_CONCURRENCY: "many" }), /^SLUICE_CONCURRENCY must be a whole number/)
    assert.strictEqual(problem(undefined, { SLUICE_NO_STREAM: "maybe" }), "SLUICE_NO_STREAM must be true or false")
  })

  it("a file that is no JSON object is refused with the line, and without its text", () => {
    assert.match(
      problem(`{\n  "url": "https://a/?key=secret",,\n}`),
      /^sluice\.json must be one JSON object.*; line 2 is no JSON$/
    )
    assert.match(problem(`[]`), /^sluice\.json must be one JSON object, such as [^;]*$/)
    assert.notInclude(problem(`{"model": sk-secret}`), "secret")
  })

  it("a key in the file is refused, with the places where keys go", () => {
    for (const name of ["apiKey", "api_key", "OPENAI_API_KEY", "token", "Authorization", "key"]) {
      const message = problem({ [name]: "sk-secret" })
      assert.match(message, /a key does not belong in this file; set OPENAI_API_KEY or SLUICE_KEY_/)
      assert.notInclude(message, "sk-secret")
    }
    assert.strictEqual(
      problem({ url: "https://a.example/v1?api-key=secret" }),
      "url in sluice.json has a secret; keep it in a variable and write ${NAME} in its place"
    )
    assert.include(problem({ target: "a=https://me:secret@b.example#m" }), "has a secret; keep")
  })

  it("a header may be in the file, but no secret of one", () => {
    const header = ["X-Team=search", "X-Api-Key=${MY_KEY}"]
    assert.deepStrictEqual(values({ header }).headers.map(({ value }) => value), ["search", "${MY_KEY}"])
    const message = problem({ header: ["Authorization=Bearer sk-secret"] })
    assert.strictEqual(
      message,
      "header in sluice.json has a secret; keep it in a variable and write ${NAME} in its place"
    )
  })

  it("a variable in a URL is replaced, and a person sees its name only", () => {
    const file = { url: "https://a.example/v1?api-key=${MY_KEY}" }
    assert.strictEqual(values(file, { MY_KEY: "secret" }).url, "https://a.example/v1?api-key=secret")
    const sources = read(file, { MY_KEY: "secret" })
    assert.deepStrictEqual(sources._tag === "Read" && sources.settings.get("url")?.shown, [file.url])
    assert.strictEqual(problem(file), "url in sluice.json needs MY_KEY, which is not set")
    // A prompt may have such a text.
    assert.strictEqual(values({ system: "Write ${MY_KEY}" }, { MY_KEY: "secret" }).system, "Write ${MY_KEY}")
  })

  it("--config names another file, to which its paths are relative", () => {
    const folder = join(directory, "other")
    mkdirSync(folder)
    writeFileSync(join(folder, "own.json"), JSON.stringify({ keyFile: "key", concurrency: 5 }))
    const { concurrency, keyFile } = values({ concurrency: 6 }, {}, ["--config", "other/own.json"])
    assert.deepStrictEqual([concurrency, keyFile], [5, join(folder, "key")])
    assert.strictEqual(
      problem(undefined, {}, ["--config", "no.json"]),
      "cannot read no.json: no such file or directory"
    )
  })

  it("variables that are no setting are found with the nearest one", () => {
    const env = { SLUICE_TIMOUT: "1s", SLUICE_KEY_MAIN: "x", SLUICE_MODEL: "m", PATH: "x" }
    assert.deepStrictEqual(Sources.strayVariables(flags, { env, directory }), [
      ["SLUICE_TIMOUT", "not a setting; did you mean SLUICE_TIMEOUT?"]
    ])
  })
})
