import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Duration, Effect, Equal, PrimaryKey, Schema } from "effect"
import { createHash } from "node:crypto"
import { inspect } from "node:util"
import { runInNewContext } from "node:vm"
import { canonical, withCanonical } from "../src/internal/hashing/canonical.ts"
import { portableDigest, toHex } from "../src/internal/hashing/sha256.ts"
import { sha256 } from "../src/KeyHash.ts"
import { nearlyTheSame, RandomValues, reordered, type Value } from "./support/values.ts"

const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "utf8"))
const nodeSha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")
const form = (value: unknown): string => Buffer.from(canonical(value)).toString("hex")

class Point extends Schema.Class<Point>("Point")({ x: Schema.Number, y: Schema.Number }) {}
class Vector extends Schema.Class<Vector>("Vector")({ x: Schema.Number, y: Schema.Number }) {}
class Ticket {
  readonly id: string
  constructor(id: string) {
    this.id = id
  }
  [PrimaryKey.symbol](): string {
    return this.id
  }
}

describe("sha256", () => {
  it.each([0, 1, 3, 55, 56, 57, 63, 64, 65, 118, 119, 120, 127, 128, 129, 1000, 1 << 20])(
    "sha256 agrees with node:crypto on %i bytes, in the native and the portable version",
    (length) => {
      const bytes = Uint8Array.from({ length }, (_, i) => (i * 31 + length) & 0xff)
      assert.strictEqual(sha256(bytes), nodeSha256(bytes))
      assert.strictEqual(toHex(portableDigest(bytes)), nodeSha256(bytes))
    }
  )

  it("sha256 agrees with node:crypto on a view of a larger buffer", () => {
    const bytes = new Uint8Array(300).fill(7).subarray(11, 211)
    assert.strictEqual(sha256(bytes), nodeSha256(bytes))
    assert.strictEqual(toHex(portableDigest(bytes)), nodeSha256(bytes))
  })
})

describe("the canonical form", () => {
  it("the canonical form contains a string as UTF-8", () => {
    for (
      const text of ["", "a", "é", "日本語", "👩‍🚀", "\u0000", "\u07ff\u0800\uffff\u{10000}\u{10ffff}", "x".repeat(5000)]
    ) {
      assert.isTrue(form(text).endsWith(Buffer.from(text, "utf8").toString("hex")))
      assert.strictEqual(canonical(text).length, 5 + bytesOf(text).length)
    }
  })

  it("strings with different lone surrogates have different forms", () => {
    const texts = ["\ud800", "\ud801", "\udc00", "\ufffd", "\udc00\ud800", "\u{10000}", "a\ud800", "\ud800a"]
    // Long strings take another code path than short ones.
    const all = [...texts, ...texts.map((text) => "x".repeat(100) + text)]
    assert.strictEqual(new Set(all.map(form)).size, all.length)
    assert.isTrue(form("\ud800").endsWith("eda080"))
    assert.isTrue(form("x".repeat(100) + "\ud800").endsWith("78eda080"))
  })

  it("strings that look alike in different characters have different forms", () => {
    const texts = ["\u00e9", "e\u0301", "\ufb01", "fi", "\u212b", "\u00c5", "\u200d", "", "a\u0000", "a"]
    const all = [...texts, ...texts.map((text) => "x".repeat(100) + text)]
    assert.strictEqual(new Set(all.map(form)).size, all.length)
  })

  it("the buffer of a form is wiped, and not shared with a key that is made meanwhile", () => {
    const prompt = "the secret of the prompt, longer than what a loop writes"
    let kept: Uint8Array = new Uint8Array()
    const length = withCanonical([prompt, new Set([prompt])], (bytes) => {
      kept = bytes
      return bytes.filter((byte) => byte === "p".charCodeAt(0)).length
    })
    assert.isAbove(length, 0)
    assert.isTrue(new Uint8Array(kept.buffer).every((byte) => byte === 0))
    const inner = form({ inner: [1, 2, 3] })
    const outer = {
      a: "before",
      get b() {
        assert.strictEqual(form({ inner: [1, 2, 3] }), inner)
        return "within"
      },
      c: "after"
    }
    assert.strictEqual(form(outer), form({ a: "before", b: "within", c: "after" }))
    assert.throws(() => canonical({ a: prompt, b: () => 1 }))
    assert.strictEqual(form({ inner: [1, 2, 3] }), inner)
  })

  it("values that look alike have different forms", () => {
    const values: ReadonlyArray<unknown> = [
      undefined,
      null,
      false,
      true,
      0,
      1,
      -1,
      0.1,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      0n,
      1n,
      -1n,
      10n,
      16n,
      "",
      "0",
      "1",
      "null",
      "a",
      "b",
      [],
      {},
      ["a"],
      [["a"]],
      ["a", "b"],
      ["b", "a"],
      ["ab"],
      ["a", ["b"]],
      [["a"], "b"],
      [[], []],
      [[[]]],
      [undefined],
      [null],
      { a: 1 },
      { a: "1" },
      { a: 1n },
      { a: undefined },
      { a: null },
      { a: { b: 1 } },
      { a: 1, b: 2 },
      { a: { b: 2 } },
      { a: 2, b: 1 },
      { "a.b": 1 },
      [["a", 1]],
      { 0: "a" },
      { __proto__: null, constructor: 1 },
      JSON.parse("{\"__proto__\":1}"),
      { toString: 1 },
      new Map(),
      new Map([["a", 1]]),
      new Map<unknown, unknown>([["a", new Map([["b", 1]])]]),
      new Map<unknown, unknown>([["a", 1], ["b", 1]]),
      new Map([[1, "a"]]),
      new Set(),
      new Set(["a"]),
      new Set([["a"]]),
      new Set(["a", "b"]),
      new Map<unknown, unknown>([[1, new Set()], [2, 3]]),
      new Map<unknown, unknown>([[1, new Set([2, 3])]]),
      new Date(0),
      new Date(1),
      new Date(Number.NaN),
      new Date(0).toISOString(),
      new Uint8Array(),
      new Uint8Array([1]),
      new Uint8Array([1, 0]),
      new Int8Array([1]),
      new Uint16Array([1]),
      new Uint8Array([1]).buffer,
      new DataView(new Uint8Array([1]).buffer),
      Duration.millis(1),
      Duration.nanos(1n),
      Duration.infinity,
      Duration.negativeInfinity,
      new Point({ x: 1, y: 2 }),
      new Point({ x: 2, y: 1 }),
      new Vector({ x: 1, y: 2 }),
      { x: 1, y: 2 },
      new Ticket("a"),
      new Ticket("b")
    ]
    const seen = new Map<string, unknown>()
    for (const value of values) {
      const bytes = form(value)
      assert.isFalse(seen.has(bytes), `${inspect(value)} has the form of ${inspect(seen.get(bytes))}`)
      seen.set(bytes, value)
    }
  })

  it.each<[what: string, one: unknown, other: unknown]>([
    ["zero and minus zero", 0, -0],
    ["NaN of any bits", Number.NaN, new Float64Array(new BigUint64Array([0xfff8_0000_0000_0001n]).buffer)[0]],
    ["fields in any order", { a: 1, b: { c: 2, d: 3 } }, { b: { d: 3, c: 2 }, a: 1 }],
    ["an object without a prototype", { a: 1 }, Object.assign(Object.create(null), { a: 1 })],
    ["entries of a map in any order", new Map([["a", 1], ["b", 2]]), new Map([["b", 2], ["a", 1]])],
    ["elements of a set in any order", new Set<unknown>([1, "a", { b: 1 }]), new Set<unknown>([{ b: 1 }, "a", 1])],
    ["a Buffer and a Uint8Array", Buffer.from([1, 2]), new Uint8Array([1, 2])],
    ["an array of another realm", runInNewContext("[1, 2]"), [1, 2]],
    ["a view of a larger buffer", new Uint8Array([0, 1, 2]).subarray(1), new Uint8Array([1, 2])],
    ["durations in any unit", Duration.seconds(1), Duration.millis(1000)],
    ["instances of a schema class", new Point({ x: 1, y: 2 }), new Point({ x: 1, y: 2 })],
    ["instances with a primary key", new Ticket("a"), new Ticket("a")],
    ["one object in two places", [{ a: 1 }, { a: 1 }], ((o) => [o, o])({ a: 1 })]
  ])("the form is the same for %s", (_, one, other) => {
    assert.strictEqual(form(one), form(other))
  })

  it("10,000 values keep their form when fields, entries and elements change their order", () => {
    const random = new RandomValues(20_260_903)
    for (let i = 0; i < 10_000; i++) {
      const value = random.request(4)
      assert.strictEqual(form(value), form(reordered(value, random)), inspect(value, { depth: 9 }))
    }
  }, 30_000)

  it("10,000 pairs of values that differ in one place have different forms", () => {
    const random = new RandomValues(20_260_904)
    const changes = new Map<string, number>()
    const seen = new Map<string, Value>()
    for (let i = 0; i < 10_000; i++) {
      const value = random.request(4)
      const { change, changed } = nearlyTheSame(value, random)
      changes.set(change, (changes.get(change) ?? 0) + 1)
      const forms = [form(value), form(changed)] as const
      assert.notStrictEqual(forms[0], forms[1], `${change}: ${inspect([value, changed], { depth: 9 })}`)
      // No other of the 20,000 values has the same form, unless it is equal.
      for (const [index, one] of [value, changed].entries()) {
        const other = seen.get(forms[index]!)
        if (other === undefined) seen.set(forms[index]!, one)
        else assert.strictEqual(spell(one), spell(other))
      }
    }
    for (const [change, times] of changes) assert.isAbove(times, 20, change)
    assert.strictEqual(changes.size, 22)
    assert.isAbove(seen.size, 14_000)
  }, 30_000)

  // An independent notion of equality: with all types, and everything unordered sorted.
  const spell = (value: Value): string => inspect(value, { depth: 9, sorted: true, maxStringLength: null })

  const values = Arbitrary.schema(Schema.Json)
  it.effect.prop(
    "two JSON values have the same form exactly if they are equal",
    [values, values],
    ([one, other]) =>
      Effect.sync(() => {
        assert.strictEqual(form(one) === form(other), Equal.equals(one, other))
        assert.strictEqual(form(one), form(structuredClone(one)))
      }),
    { arbitrary: { runs: 300, seed: 7 } }
  )
})
