import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Arguments from "../../src/Arguments.ts"
import * as Options from "../../src/options.ts"
import * as Setup from "../../src/run/Setup.ts"
import { folder } from "../support/files.ts"

const make = (
  path: string,
  args: ReadonlyArray<string>,
  env: { readonly [name: string]: string } = {},
  isOutputTerminal = false
) => {
  const parsed = Arguments.parse(Options.run, [path, ...args])
  if (parsed._tag !== "Parsed") return assert.fail(parsed._tag)
  return Setup.make([path], parsed.values, { env, isOutputTerminal })
}

describe("Setup", () => {
  it.live("all problems are reported together", () =>
    Effect.gen(function*() {
      const missing = join(yield* folder, "missing.jsonl")
      const { problems } = yield* Effect.flip(make(missing, ["--log", "-"], {}, true))
      assert.deepStrictEqual(problems.map((problem) => problem.replace(missing, "FILE").slice(0, 40)), [
        "--output is required on a terminal: -o r",
        "--log must be a file name; standard outp",
        "no key: OPENAI_API_KEY is not set; see -",
        "cannot read FILE: no such file or direct",
        "no model: set --model or SLUICE_MODEL, o"
      ])
    }))

  it.live("a missing model is no problem by itself, since each line may name one", () =>
    Effect.gen(function*() {
      const path = join(yield* folder, "prompts.jsonl")
      writeFileSync(path, `{"prompt":"a","model":"own"}\n`)
      const { settings } = yield* make(path, [], { OPENAI_API_KEY: "key" })
      assert.isUndefined(settings.targets[0].model)
    }))

  it.live("one problem is reported alone", () =>
    Effect.gen(function*() {
      const env = { OPENAI_API_KEY: "key" }
      const path = join(yield* folder, "missing.jsonl")
      assert.strictEqual((yield* Effect.flip(make(path, ["--model", "m"], env))).problems.length, 1)
      const target = ["--target", "a=http://localhost:1#m"]
      assert.strictEqual((yield* Effect.flip(make(path, target, {}))).problems.length, 1)
    }))
})
