import { assert, describe, it } from "@effect/vitest"
import * as BoundedJson from "@sluice/core/BoundedJson"

const nested = (depth: number): string => "[".repeat(depth) + "]".repeat(depth)

/** The same JSON as a short text and as a long one, which is checked in another way. */
const forms = (json: string): ReadonlyArray<string> => [json, json + " ".repeat(70_000)]

describe("JSON with a bound", () => {
  for (
    const [json, result] of [
      [nested(4), "Success"],
      [nested(5), "TooDeep"],
      [`{"a":{"b":{"c":{}}}}`, "Success"],
      [`{"a":{"b":{"c":{"d":[]}}}}`, "TooDeep"],
      [`{"a":"[[[[[["}`, "Success"],
      [`{"a":"\\"[[[[[["}`, "Success"],
      [`{"a":"\\\\","b":${nested(4)}}`, "TooDeep"],
      [`{"a":"\\\\\\"[[[[[[","b":[]}`, "Success"],
      [`{"a":"\\\\\\\\","b":[[[]]]}`, "Success"],
      [`"[[[[[[`, "Malformed"],
      ["[".repeat(5), "TooDeep"],
      ["[[[[", "Malformed"],
      ["[1,]", "Malformed"],
      ["[[],[],[],[],[]]", "Success"],
      ["null", "Success"]
    ] as const
  ) {
    it(`${json} is ${result} at 4 levels, in a short and in a long text`, () => {
      for (const text of forms(json)) {
        const parsed = BoundedJson.parse(text, 4)
        assert.strictEqual(parsed._tag === "Success" ? "Success" : parsed.failure, result)
        if (parsed._tag === "Success") assert.deepStrictEqual(parsed.success, JSON.parse(json))
      }
    })
  }

  it("the nesting of 30 MB is refused before it is parsed", () => {
    // Whatever is parsed would be refused as malformed.
    const text = `${"[".repeat(200)}x${" ".repeat(30_000_000)}`
    const before = process.cpuUsage()
    for (const deep of [text, "[".repeat(30_000_000)]) {
      const parsed = BoundedJson.parse(deep, 128)
      assert.strictEqual(parsed._tag === "Failure" && parsed.failure, "TooDeep")
    }
    // Parsing them takes more than a second.
    assert.isBelow(process.cpuUsage(before).user / 1_000, 500)
  })
})
