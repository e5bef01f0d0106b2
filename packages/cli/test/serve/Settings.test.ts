import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as QuotaStore from "@sluice/core/QuotaStore"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { folder } from "../support/files.ts"
import * as Options from "../../src/options.ts"
import * as Settings from "../../src/serve/Settings.ts"

const read = (
  args: { readonly [flag: string]: ReadonlyArray<string> },
  env: { readonly [name: string]: string } = {}
) => Effect.flatMap(folder, (directory) => Settings.read(new Map(Object.entries(args)), { env, directory }))

const target = [
  "a=http://127.0.0.1:1/v1",
  "b=http://127.0.0.1:2/v1",
  `{"name":"c","url":"http://127.0.0.1:3/v1","models":{"small":"x"}}`
]

describe("settings of a gateway", () => {
  it.effect("the targets of a model are those of its name, or else of the longest beginning", () =>
    Effect.gen(function*() {
      const settings = yield* read({ target, models: ["gpt-*=a,b", "gpt-5*=b", "gpt-5-mini=c"] })
      const names = (model: string) => Settings.offering(settings, model).map(({ name }) => name)
      assert.deepStrictEqual(names("gpt-4"), ["a", "b"])
      assert.deepStrictEqual(names("gpt-5"), ["b"])
      assert.deepStrictEqual(names("gpt-5-mini"), ["c"])
      assert.deepStrictEqual(names("other"), [])
    }))

  it.effect("without routes, a target with models of its own gets no others", () =>
    Effect.gen(function*() {
      const settings = yield* read({ target })
      const names = (model: string) => Settings.offering(settings, model).map(({ name }) => name)
      assert.deepStrictEqual(names("small"), ["a", "b", "c"])
      assert.deepStrictEqual(names("large"), ["a", "b"])
    }))

  it.effect("a route with weights is the front's, and names each target once", () =>
    Effect.gen(function*() {
      const named = ["main=http://127.0.0.1:1/v1", `{"name":"backup","url":"http://127.0.0.1:2/v1","prefill":true}`]
      const models = [`{"m":[{"main":1,"backup":3}]}`]
      const settings = yield* read({ target: named, models })
      assert.deepStrictEqual(Settings.offering(settings, "m").map(({ name }) => name), ["main", "backup"])
      const options = yield* Settings.frontOptions(settings, new Settings.Quotas(1)).pipe(
        Effect.provide(QuotaStore.layerMemory),
        Effect.scoped
      )
      assert.deepStrictEqual(options.models, { m: [{ main: 1, backup: 3 }] })
      assert.deepStrictEqual(options.targets.map(({ prefill }) => prefill), [false, true])
      const { problems } = yield* Effect.flip(
        read({ target: named, models: [`{"m":["main",{"main":1},{"bakcup":2}]}`] })
      )
      assert.deepStrictEqual(problems, [
        "models sends m to main twice",
        "models sends m to bakcup, which is no target; did you mean backup?"
      ])
    }))

  it.effect("limits with a target's name come before those for all, and variables set flags", () =>
    Effect.gen(function*() {
      const { flags, targets } = yield* read(
        { target, rpm: ["10", "b=20"], concurrency: ["c=3"] },
        { SLUICE_PORT: "7", SLUICE_MAX_ATTEMPTS: "9" }
      )
      assert.deepStrictEqual(targets.map(({ limits }) => limits?.map(({ limit }) => limit)), [[10], [20], [10]])
      assert.deepStrictEqual(targets.map(({ concurrency }) => concurrency), [undefined, undefined, 3])
      assert.deepStrictEqual([flags.port, flags.maxAttempts], [7, 9])
    }))

  it.effect("all that is wrong is reported at once", () =>
    Effect.gen(function*() {
      const { problems } = yield* Effect.flip(
        read({ target, models: ["x=d"], rpm: ["e=1"], header: ["X-Key=${UNSET}"], concurrency: ["f=1"] })
      )
      for (const part of ["to d, which is no target", "--rpm names e", "UNSET", "--concurrency names f"]) {
        assert.isTrue(problems.some((problem) => problem.includes(part)), part)
      }
    }))

  it("the table of docs/gateway.md has every key, with the default of the help text", () => {
    const page = readFileSync(new URL("../../../../docs/gateway.md", import.meta.url), "utf8")
    const table = page.slice(page.indexOf("All keys,"), page.indexOf("| key of a target"))
    const documented = [...table.matchAll(/^\| `(\w+)` +\| [^|]+\| ([^|]+?) +\|/gm)].map((
      [, key, fallback]
    ) => [key, fallback])
    const flags = Object.values(Options.serve.flags)
      .filter(({ name }) => name !== "config" && name !== "help")
      .map(({ about, argument, name }) => [
        name.replaceAll(/-(.)/g, (_, letter: string) => letter.toUpperCase()),
        argument === undefined ? "false" : /\[default: ([^\]]+)\]/.exec(about)?.[1]
      ])
    assert.deepStrictEqual(documented.toSorted(), flags.toSorted())
  })

  it.effect("the files in docs/coming-from-gateways.md have the targets, routes and limits that the page says", () =>
    Effect.gen(function*() {
      const page = readFileSync(new URL("../../../../docs/coming-from-gateways.md", import.meta.url), "utf8")
      const files = [...page.matchAll(/```json\n(\{\n {2}"serve"[^]*?)```/g)].map(([, file = ""]) => file)
      const env = { AZURE_HOST: "azure.test", AZURE_KEY: "a", OPENAI_API_KEY: "o", ANTHROPIC_API_KEY: "c" }
      const [litellm, portkey, ...others] = yield* Effect.forEach(
        files,
        (file) =>
          Effect.flatMap(folder, (directory) => {
            writeFileSync(join(directory, "sluice.json"), file)
            return Settings.read(new Map(), { env, directory })
          })
      )
      assert.isTrue(litellm !== undefined && portkey !== undefined && others.length === 0)
      assert.deepStrictEqual(
        Settings.offering(litellm!, "gpt-5").map((
          { limits, name, order, weight }
        ) => [name, order, weight, limits?.length ?? 0]),
        [["azure", 0, 3, 1], ["openai", 0, 1, 0], ["claude", 1, undefined, 0]]
      )
      assert.deepStrictEqual(Settings.offering(litellm!, "claude").map(({ model }) => model), ["claude-sonnet-4-5"])
      assert.deepStrictEqual(Settings.offering(litellm!, "other"), [])
      assert.deepStrictEqual(portkey!.targets.map(({ model }) => model), ["gpt-5", "claude-sonnet-4-5"])
      assert.deepStrictEqual([litellm!, portkey!].map(({ flags }) => [flags.maxAttempts, flags.timeoutMillis]), [
        [3, 300_000],
        [3, 60_000]
      ])
    }))
})
