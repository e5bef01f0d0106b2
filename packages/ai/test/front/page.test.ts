import { assert, describe, it } from "@effect/vitest"
import * as Front from "@sluice/ai/Front"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import { readFileSync } from "node:fs"

const page = readFileSync(new URL("../../../../docs/front.md", import.meta.url), "utf8")
const section = page.slice(page.indexOf("## Options"), page.indexOf("## Gotchas"))
const named = new Set([...section.matchAll(/`(\w+)`/g)].map(([, name = ""]) => name))
const rows = [...section.matchAll(/^\| (`.*?) +\|/gm)].map(([, cell = ""]) => cell.replaceAll("`", ""))

/** The options that the front knows: it lists them when it refuses another one. */
const known = (options: object, option: string): Promise<ReadonlyArray<string>> =>
  // Not of the type, on purpose.
  Front.make(options as Front.FrontOptions).then(
    () => [],
    ({ issues }: InvalidOptions) =>
      issues.find((issue) => issue.option.endsWith(option))?.requirement.replace("must be one of ", "").split(", ") ??
        []
  )

describe("docs/front.md", () => {
  it("names every option of a front, and has no rows of others", async () => {
    const target = { name: "a", url: "http://127.0.0.1:1/v1", speaks: "openai" }
    const ofFront = await known({ targets: [target], unknown: 1 }, "unknown")
    const ofTarget = await known({ targets: [{ ...target, unknown: 1 }] }, "unknown")
    assert.isAbove(ofFront.length, 10)
    assert.isAbove(ofTarget.length, 10)
    assert.deepStrictEqual(ofFront.filter((name) => !named.has(name)), [])
    assert.deepStrictEqual(rows.filter((name) => ![...ofFront, ...ofTarget].includes(name)), [])
    const own = ["url", "speaks", "endpoints", "apiKey", "keyHeader", "allowInsecureKey", "headers", "model", "models"]
    assert.deepStrictEqual(own.filter((name) => !rows.includes(name) || !ofTarget.includes(name)), [])
  })
})
