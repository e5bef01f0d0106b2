import { assert, describe, it } from "@effect/vitest"
import * as Arguments from "../src/Arguments.ts"
import * as Flag from "../src/Flag.ts"
import * as Options from "../src/options.ts"

const parse = (...args: ReadonlyArray<string>) => Arguments.parse(Options.run, args)

const message = (...args: ReadonlyArray<string>): string => {
  const parsed = parse(...args)
  assert.strictEqual(parsed._tag, "Wrong")
  return parsed._tag === "Wrong" ? parsed.message : ""
}

describe("Arguments", () => {
  it("flags are read in any position and in both forms", () => {
    const parsed = parse("-o", "out", "--timeout=2m", "in.jsonl", "--no-share", "--temperature", "0.5")
    assert.strictEqual(parsed._tag, "Parsed")
    if (parsed._tag !== "Parsed") return
    assert.deepStrictEqual(parsed.inputs, ["in.jsonl"])
    const { noShare, output, temperature, timeoutMillis } = parsed.values
    assert.deepStrictEqual([output, timeoutMillis, noShare, temperature], ["out", 120_000, true, 0.5])
  })

  it("absent flags get the defaults of the help text", () => {
    const parsed = parse("-")
    if (parsed._tag !== "Parsed") return assert.fail(parsed._tag)
    const { dedupeTtlMillis, force, maxAttempts, maxOutageMillis, timeoutMillis } = parsed.values
    assert.deepStrictEqual(
      { dedupeTtlMillis, force, maxAttempts, maxOutageMillis, timeoutMillis },
      {
        dedupeTtlMillis: 3_600_000,
        force: false,
        maxAttempts: 5,
        maxOutageMillis: 600_000,
        timeoutMillis: 60_000
      }
    )
  })

  it("a requirement has bounds that a person would write", () => {
    const requirementOf = (read: Flag.Read<number>) => read.ok ? "" : read.requirement
    assert.strictEqual(
      requirementOf(Flag.integer(1, Number.MAX_SAFE_INTEGER)("x")),
      "a whole number of at least 1"
    )
    assert.strictEqual(requirementOf(Flag.integer(1, 9)("x")), "a whole number from 1 to 9")
    assert.match(requirementOf(Flag.duration(1_000)("x")), /, at least 1s$/)
    assert.match(requirementOf(Flag.duration(1)("x")), /, at least 1ms$/)
  })

  it("a dash is read as an input and as an output", () => {
    const parsed = parse("-", "-o", "-")
    assert.deepStrictEqual(parsed._tag === "Parsed" && [parsed.inputs, parsed.values.output], [["-"], "-"])
  })

  it("a repeatable flag collects its values", () => {
    const parsed = Arguments.parse(Options.provider, ["--model", "a", "--model", "b"])
    assert.deepStrictEqual(parsed._tag === "Parsed" && parsed.values.models, ["a", "b"])
  })

  it("an unknown flag gets the nearest flag as a suggestion, if one is close", () => {
    assert.strictEqual(message("x", "--concurency", "3"), "unknown flag --concurency; did you mean --concurrency?")
    assert.strictEqual(message("x", "--zzzzzzzzzz"), "unknown flag --zzzzzzzzzz")
  })

  it("names of Object properties are unknown flags", () => {
    for (const name of ["__proto__", "constructor", "toString"]) {
      assert.match(message("x", `--${name}`, "y"), new RegExp(`^unknown flag --${name}`))
    }
  })

  it("a wrong value is reported with its requirement", () => {
    assert.match(message("x", "--timeout", "30"), /^--timeout is "30"; it must be a duration such as/)
    assert.match(message("x", "--concurrency", "0"), /a whole number from 1 to 1000/)
    assert.match(message("x", "--concurrency", "1e2"), /a whole number/)
    assert.match(message("x", "--temperature", "-1"), /a number from 0 to 2/)
    assert.match(message("x", "--timeout", "999h"), /a duration/)
    assert.match(message("x", "--url", "ftp://a"), /http/)
    assert.match(message("x", "--url", "https://me:secret@a/v1"), /without user name and password/)
  })

  it("a missing value, a surplus value and a repeated flag are reported", () => {
    assert.strictEqual(message("x", "--model", "--force"), "--model needs a value: --model NAME")
    assert.strictEqual(message("x", "--model"), "--model needs a value: --model NAME")
    assert.strictEqual(message("x", "--force=yes"), "--force takes no value, or =false")
    assert.strictEqual(message("x", "--model", "a", "--model", "b"), "--model is given twice")
  })

  it("missing and surplus arguments are reported", () => {
    assert.strictEqual(message(), "FILE is missing")
    const surplus = Arguments.parse(Options.status, ["a", "b\x1b[2J"])
    assert.strictEqual(surplus._tag === "Wrong" && surplus.message, `unexpected argument "b\\x1b[2J"`)
  })

  it("a command can take several files", () => {
    const parsed = parse("a", "-o", "out", "b")
    assert.deepStrictEqual(parsed._tag === "Parsed" && parsed.inputs, ["a", "b"])
  })

  it("--help and -h win over a missing argument", () => {
    assert.strictEqual(parse("--help")._tag, "Help")
    assert.strictEqual(parse("-h")._tag, "Help")
  })
})
