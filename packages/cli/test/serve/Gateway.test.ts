import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Sources from "../../src/Sources.ts"
import * as Gateway from "../../src/Gateway.ts"
import * as Options from "../../src/options.ts"
import { folder } from "../support/files.ts"

const whole = { name: "a", url: "https://one.example/v1" }

/** Reads an object as `sluice.json` does. */
const read = (fields: { readonly [field: string]: unknown }) => {
  const text = Gateway.targetFromObject(fields)
  return text.ok ? Gateway.target(text.value) : text
}

const requirement = (fields: { readonly [field: string]: unknown }): string => {
  const target = read(fields)
  return target.ok ? "none" : target.requirement
}

describe("targets of a gateway", () => {
  it("a text can leave the model to the client", () => {
    const target = Gateway.target("a=anthropic:https://one.example")
    assert.deepInclude(target.ok ? target.value : {}, {
      name: "a",
      wire: "anthropic",
      url: "https://one.example",
      model: undefined
    })
    const own = Gateway.target("a=https://one.example/v1#m")
    assert.strictEqual(own.ok ? own.value.model : "", "m")
    assert.isFalse(Gateway.target("a=ftp://one.example").ok)
    assert.isFalse(Gateway.target("a=https://user:password@one.example").ok)
  })

  it("an object has the variable of its key, and no key", () => {
    const target = read({ ...whole, key: "${MY_KEY}", order: 0, weight: 2.5, models: { small: "tiny" }, prefill: true })
    assert.deepInclude(target.ok ? target.value : {}, {
      prefill: true,
      keyEnv: "MY_KEY",
      order: 0,
      weight: 2.5,
      models: { small: "tiny" }
    })
    for (const key of ["sk-secret", "Bearer ${MY_KEY}", "${MY_KEY} ", "", 7]) {
      assert.include(requirement({ ...whole, key }), "a key does not belong in this file", String(key))
      assert.notInclude(requirement({ ...whole, key }), "secret")
    }
  })

  it("unknown and wrong fields are refused by name", () => {
    assert.include(requirement({ ...whole, wieght: 1 }), "the unknown key wieght; did you mean weight?")
    assert.include(requirement({ ...whole, weight: 0 }), "whose weight is a number above 0")
    assert.include(requirement({ ...whole, prefill: "yes" }), "whose prefill is true or false")
    assert.include(requirement({ ...whole, order: -1 }), "whose order is a whole number")
    assert.include(requirement({ ...whole, models: ["m"] }), "whose models is an object")
    assert.include(requirement({ name: "a" }), "an object with name and url")
    assert.include(requirement({ ...whole, constructor: 1 }), "unknown key constructor")
  })

  it("a star is the end of a name only", () => {
    const routes = Gateway.routes("gpt-*=a, b")
    assert.deepStrictEqual(routes.ok ? routes.value : [], [
      { asked: "gpt-*", targets: ["a", "b"], steps: ["a", "b"] }
    ])
    for (const text of ["*x=a", "=a", "a=", "a=b,,c", "a"]) assert.isFalse(Gateway.routes(text).ok, text)
    assert.isFalse(Gateway.routesFromObject({ "g*t": ["a"] }).ok)
    assert.isFalse(Gateway.routesFromObject({ g: [] }).ok)
    assert.isTrue(Gateway.isOneOf(["gpt-5", "claude-*"], "claude-x"))
    assert.isFalse(Gateway.isOneOf(["gpt-5", "claude-*"], "gpt-5-mini"))
  })

  it("a route of the file can share the calls by weight", () => {
    const routesOf = (fields: { readonly [asked: string]: unknown }) => {
      const text = Gateway.routesFromObject(fields)
      return text.ok ? Gateway.routes(text.value) : text
    }
    const routes = routesOf({ "gpt-5*": [{ main: 1, azure: 2.5 }, "backup"] })
    assert.deepStrictEqual(routes.ok ? routes.value : [], [
      { asked: "gpt-5*", targets: ["main", "azure", "backup"], steps: [{ main: 1, azure: 2.5 }, "backup"] }
    ])
    for (
      const list of [[{}], [{ main: 0 }], [{ main: -1 }], [{ main: "1" }], [{ main: 1e7 }], [["main"]], [7], "main"]
    ) {
      assert.isFalse(routesOf({ m: list }).ok, JSON.stringify(list))
    }
    for (const text of [`{"m":`, `{"m":5}`, "{}}"]) assert.isFalse(Gateway.routes(text).ok, text)
  })

  it.effect("`sluice run` ignores the settings of a gateway, and the reverse", () =>
    Effect.map(folder, (directory) => {
      writeFileSync(join(directory, "sluice.json"), `{"concurrency":3,"serve":{"port":7,"timeout":"9s"}}`)
      const given = (section?: "serve") => {
        const { flags } = section === undefined ? Options.run : Options.serve
        const sources = Sources.read(flags, new Map(), { env: {}, directory }, section)
        return sources._tag === "Read" ? [...sources.given] : sources.message
      }
      assert.deepStrictEqual(given(), [["concurrency", ["3"]]])
      assert.deepStrictEqual(given("serve"), [["port", ["7"]], ["timeout", ["9s"]]])
    }))
})
