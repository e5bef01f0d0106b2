import { assert, describe, it } from "@effect/vitest"
import { asked, field, splice } from "../../src/internal/front/body.ts"
import { random } from "./streams.ts"

const bytes = (text: string) => Buffer.from(text)

describe("field", () => {
  const bodies: ReadonlyArray<readonly [body: string, model: unknown]> = [
    ["{\"model\":\"a\"}", "a"],
    [" \n{ \"model\" :\t\"a\" , \"n\":1}\r\n", "a"],
    ["{\"messages\":[{\"model\":\"x\"}],\"model\":\"a\"}", "a"],
    ["{\"text\":\"\\\"model\\\":\\\"x\\\"\",\"model\":\"a\"}", "a"],
    ["{\"text\":\"\\\\\",\"model\":\"a\"}", "a"],
    ["{\"model\":\"a\\\"b\\u0041\"}", "a\"bA"],
    ["{\"model\":\"é漢🙂\"}", "é漢🙂"],
    // The last of two counts, as for `JSON.parse`.
    ["{\"model\":\"x\",\"n\":[1,{\"a\":[]}],\"model\":\"a\"}", "a"],
    ["{\"mod\\u0065l\":\"a\"}", "a"],
    ["{\"model\":\"x\",\"\\u006d\\u006f\\u0064\\u0065\\u006c\":\"a\"}", "a"],
    ["{\"model\":{\"id\":\"a\"}}", { id: "a" }],
    ["{\"model\":[1,\"]\"]}", [1, "]"]],
    ["{\"model\":null}", null],
    ["{\"model\":-1.5e3}", -1500],
    ["{\"model\":tru}", undefined],
    ["{}", undefined],
    ["{\"Model\":\"a\"}", undefined],
    ["{\"n\":\"model\"}", undefined]
  ]
  for (const [body, model] of bodies) {
    it(`finds ${JSON.stringify(model)} in ${body.trim()}`, () =>
      assert.deepStrictEqual(field(bytes(body), "model"), model))
  }

  const broken = [
    "",
    "null",
    "[{\"model\":\"a\"}]",
    "\"model\"",
    "\uFEFF{\"model\":\"a\"}",
    "{\"model\":\"a\"",
    "{\"model\":\"a",
    "{\"model\":\"a\\\"}",
    "{\"model\"\"a\"}",
    "{\"model\":}",
    "{\"model\":\"a\",}",
    "{\"model\":\"a\" \"n\":1}",
    "{model:\"a\"}",
    "{\"model\":\"a\"} {\"model\":\"b\"}",
    "{\"model\":\"a\"}x",
    "{\"n\":[1,2,\"model\":\"a\"}"
  ]
  for (const body of broken) {
    it(`refuses ${body === "" ? "an empty body" : body}`, () => {
      assert.isUndefined(field(bytes(body), "model"))
      assert.isUndefined(asked(bytes(body)))
      const same = bytes(body)
      assert.strictEqual(splice(same, "model", "\"b\""), same)
    })
  }

  it("finds the end of a string of any length with any number of backslashes before its quotes", () => {
    for (let length = 0; length < 80; length++) {
      for (let slashes = 0; slashes < 5; slashes++) {
        const text = `${"a".repeat(length)}${"\\".repeat(slashes)}"${"\\".repeat(slashes)}`
        const body = JSON.stringify({ [text.slice(0, 20)]: text, text, model: "a" })
        assert.strictEqual(field(bytes(body), "model"), "a", body)
      }
    }
  })

  it("passes over a million nested arrays", () => {
    const depth = 1_000_000
    const body = `{"a":${"[".repeat(depth)}${"]".repeat(depth)},"model":"a"}`
    assert.strictEqual(field(bytes(body), "model"), "a")
  })

  it("parses no value of more than 64 KiB", () => {
    assert.isUndefined(field(bytes(`{"model":"${"a".repeat(70_000)}"}`), "model"))
  })
})

describe("splice", () => {
  const bodies: ReadonlyArray<readonly [body: string, expected: string]> = [
    ["{\"model\":\"a\"}", "{\"model\":\"b\"}"],
    [
      " { \"n\" : 1.0, \"model\" : \"a\" , \"seed\":12345678901234567890}",
      " { \"n\" : 1.0, \"model\" : \"b\" , \"seed\":12345678901234567890}"
    ],
    // Servers differ in which of two counts.
    ["{\"model\":\"x\",\"n\":1,\"mod\\u0065l\":{\"y\":[]}}", "{\"model\":\"b\",\"n\":1,\"mod\\u0065l\":\"b\"}"],
    ["{\"a\":{\"model\":\"x\"}}", "{\"model\":\"b\",\"a\":{\"model\":\"x\"}}"],
    [" { } ", " {\"model\":\"b\" } "]
  ]
  for (const [body, expected] of bodies) {
    it(`turns ${body} into ${expected}`, () => {
      assert.strictEqual(Buffer.from(splice(bytes(body), "model", "\"b\"")).toString(), expected)
    })
  }

  it("returns the same body if it has the value already", () => {
    const body = bytes("{\"n\":1,\"model\":\"b\"}")
    assert.strictEqual(splice(body, "model", "\"b\""), body)
  })

  it("changes nothing but the model of any JSON", () => {
    const below = random(3)
    const value = (depth: number): unknown => {
      const kinds = depth > 3 ? 5 : 7
      switch (below(kinds)) {
        case 0:
          return ["\\", "\"", "}", "{\"model\":\"x\"}", "\\\"", "\u2028", "é🙂", ""][below(8)]
        case 1:
          return below(1000) / 8
        case 2:
          return null
        case 3:
          return below(2) === 0
        case 4:
          return "model"
        case 5:
          return Array.from({ length: below(4) }, () => value(depth + 1))
        default:
          return Object.fromEntries(
            Array.from({ length: below(4) }, (_, i) => [["model", "\\", "a\"", `k${i}`][below(4)], value(depth + 1)])
          )
      }
    }
    for (let run = 0; run < 2000; run++) {
      const object = { ...value(3) as object, [`z${run}`]: value(0), model: value(1), end: value(0) }
      const body = bytes(JSON.stringify(object, null, below(3)))
      assert.deepStrictEqual(field(body, "model"), object.model)
      const spliced = Buffer.from(splice(body, "model", "\"b\"")).toString()
      assert.deepStrictEqual(JSON.parse(spliced), { ...object, model: "b" })
      assert.deepStrictEqual(JSON.parse(Buffer.from(splice(body, "added", "[1]")).toString()), {
        ...object,
        added: [1]
      })
    }
  })
})

describe("asked", () => {
  it("reads what a request asks for", () => {
    const body =
      "{\"model\":\"a\",\"messages\":[],\"stream\":true,\"n\":3,\"max_tokens\":9,\"stream_options\":{\"include_usage\":true}}"
    assert.deepStrictEqual(asked(bytes(body)), {
      model: "a",
      isStream: true,
      choices: 3,
      maxTokens: 9,
      includesUsage: true
    })
  })

  it("takes a field of another type for absent", () => {
    const body = "{\"model\":7,\"stream\":\"true\",\"n\":0,\"max_tokens\":-1,\"stream_options\":true}"
    assert.deepStrictEqual(asked(bytes(body)), {
      model: undefined,
      isStream: false,
      choices: 1,
      maxTokens: undefined,
      includesUsage: false
    })
  })

  it("prefers the new name of the token limit", () => {
    assert.strictEqual(asked(bytes("{\"max_completion_tokens\":5,\"max_tokens\":9}"))?.maxTokens, 5)
    assert.strictEqual(asked(bytes("{\"max_output_tokens\":7}"))?.maxTokens, 7)
  })
})
