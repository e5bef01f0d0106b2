import { assert, describe, it } from "@effect/vitest"
import * as Arguments from "../src/Arguments.ts"
import * as Options from "../src/options.ts"

const parse = (...args: ReadonlyArray<string>) => Arguments.parse(Options.run, args)

const message = (...args: ReadonlyArray<string>): string => {
  const parsed = parse(...args)
  assert.strictEqual(parsed._tag, "Wrong")
  return parsed._tag === "Wrong" ? parsed.message : ""
}

describe("Arguments", () => {
  it("reads flags in any place and form", () => {
    const parsed = parse("-o", "out", "--timeout=2m", "in.jsonl", "--no-share", "--temperature", "0.5")
    assert.strictEqual(parsed._tag, "Parsed")
    if (parsed._tag !== "Parsed") return
    assert.deepStrictEqual(parsed.inputs, ["in.jsonl"])
    const { noShare, output, temperature, timeoutMillis } = parsed.values
    assert.deepStrictEqual([output, timeoutMillis, noShare, temperature], ["out", 120_000, true, 0.5])
  })

  it("fills in the defaults that the help states", () => {
    const parsed = parse("-")
    if (parsed._tag !== "Parsed") return assert.fail(parsed._tag)
    const { concurrency, dedupeTtlMillis, force, maxAttempts, maxOutageMillis, timeoutMillis } = parsed.values
    assert.deepStrictEqual(
      { concurrency, dedupeTtlMillis, force, maxAttempts, maxOutageMillis, timeoutMillis },
      {
        concurrency: 16,
        dedupeTtlMillis: 3_600_000,
        force: false,
        maxAttempts: 5,
        maxOutageMillis: 600_000,
        timeoutMillis: 60_000
      }
    )
  })

  it("takes a dash for a file, as input and as output", () => {
    const parsed = parse("-", "-o", "-")
    assert.deepStrictEqual(parsed._tag === "Parsed" && [parsed.inputs, parsed.values.output], [["-"], "-"])
  })

  it("collects a flag that may be repeated", () => {
    const parsed = Arguments.parse(Options.provider, ["--model", "a", "--model", "b"])
    assert.deepStrictEqual(parsed._tag === "Parsed" && parsed.values.models, ["a", "b"])
  })

  it("suggests the nearest flag for an unknown one, and none for what is like nothing", () => {
    assert.strictEqual(message("x", "--concurency", "3"), "unknown flag --concurency; did you mean --concurrency?")
    assert.strictEqual(message("x", "--zzzzzzzzzz"), "unknown flag --zzzzzzzzzz")
  })

  it("treats the names of Object's properties as the unknown flags that they are", () => {
    for (const name of ["__proto__", "constructor", "toString"]) {
      assert.match(message("x", `--${name}`, "y"), new RegExp(`^unknown flag --${name}`))
    }
  })

  it("says what a value has to be", () => {
    assert.match(message("x", "--timeout", "30"), /^--timeout is "30"; it has to be a duration such as/)
    assert.match(message("x", "--concurrency", "0"), /a whole number from 1 to 1000/)
    assert.match(message("x", "--concurrency", "1e2"), /a whole number/)
    assert.match(message("x", "--temperature", "-1"), /a number from 0 to 2/)
    assert.match(message("x", "--timeout", "999h"), /a duration/)
    assert.match(message("x", "--url", "ftp://a"), /http/)
    assert.match(message("x", "--url", "https://me:secret@a/v1"), /without user name and password/)
  })

  it("notices a forgotten value, a value too many, a flag given twice", () => {
    assert.strictEqual(message("x", "--model", "--force"), "--model needs a value: --model NAME")
    assert.strictEqual(message("x", "--model"), "--model needs a value: --model NAME")
    assert.strictEqual(message("x", "--force=yes"), "--force takes no value")
    assert.strictEqual(message("x", "--model", "a", "--model", "b"), "--model is given twice")
  })

  it("notices missing and surplus inputs", () => {
    assert.strictEqual(message(), "FILE is missing")
    assert.strictEqual(message("a", "b\x1b[2J"), `"b\\x1b[2J" is one argument too many`)
  })

  it("gives help rather than a complaint when both could be", () => {
    assert.strictEqual(parse("--help")._tag, "Help")
    assert.strictEqual(parse("-h")._tag, "Help")
  })
})
