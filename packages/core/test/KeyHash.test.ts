import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Cause, Duration, Effect, Equal, Exit, PrimaryKey, Redacted, Schema } from "effect"
import { createHash } from "node:crypto"
import { inspect } from "node:util"
import * as Deduplicator from "../src/Deduplicator.ts"
import { canonical } from "../src/internal/canonical.ts"
import { InvalidKey, KeyHash, sha256 } from "../src/KeyHash.ts"

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
class Session {
  readonly user: string
  readonly #token: string
  constructor(user: string, token: string) {
    this.user = user
    this.#token = token
  }
  get length(): number {
    return this.#token.length
  }
}

describe("sha256", () => {
  it.each([0, 1, 3, 55, 56, 57, 63, 64, 65, 118, 119, 120, 127, 128, 129, 1000, 1 << 20])(
    "agrees with node:crypto on %i bytes",
    (length) => {
      const bytes = Uint8Array.from({ length }, (_, i) => (i * 31 + length) & 0xff)
      assert.strictEqual(sha256(bytes), nodeSha256(bytes))
    }
  )

  it("agrees with node:crypto on bytes that are part of a larger buffer", () => {
    const bytes = new Uint8Array(300).fill(7).subarray(11, 211)
    assert.strictEqual(sha256(bytes), nodeSha256(bytes))
  })
})

describe("the canonical form", () => {
  it("holds a string as UTF-8", () => {
    for (
      const text of ["", "a", "é", "日本語", "👩‍🚀", "\u0000", "\u07ff\u0800\uffff\u{10000}\u{10ffff}", "x".repeat(5000)]
    ) {
      assert.isTrue(form(text).endsWith(Buffer.from(text, "utf8").toString("hex")))
      assert.strictEqual(canonical(text).length, 5 + bytesOf(text).length)
    }
  })

  it("keeps lone surrogates apart, which UTF-8 replaces by one character", () => {
    const texts = ["\ud800", "\ud801", "\udc00", "\ufffd", "\udc00\ud800", "\u{10000}", "a\ud800", "\ud800a"]
    assert.strictEqual(new Set(texts.map(form)).size, texts.length)
    assert.isTrue(form("\ud800").endsWith("eda080"))
  })

  it("keeps apart what looks alike", () => {
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
    ["a view of a larger buffer", new Uint8Array([0, 1, 2]).subarray(1), new Uint8Array([1, 2])],
    ["durations in any unit", Duration.seconds(1), Duration.millis(1000)],
    ["instances of a schema class", new Point({ x: 1, y: 2 }), new Point({ x: 1, y: 2 })],
    ["instances with a primary key", new Ticket("a"), new Ticket("a")],
    ["one object in two places", [{ a: 1 }, { a: 1 }], ((o) => [o, o])({ a: 1 })]
  ])("is one for %s", (_, one, other) => {
    assert.strictEqual(form(one), form(other))
  })

  const values = Arbitrary.schema(Schema.Json)
  it.effect.prop("is the same exactly for equal values", [values, values], ([one, other]) =>
    Effect.sync(() => {
      assert.strictEqual(form(one) === form(other), Equal.equals(one, other))
      assert.strictEqual(form(one), form(structuredClone(one)))
    }), { arbitrary: { runs: 300, seed: 7 } })
})

describe("a key", () => {
  const Ask = Deduplicator.operation<string>()("ask", { key: (input: unknown) => input })
  const useOf = (key: Deduplicator.Key<string, never>) =>
    Deduplicator.Deduplicator.use((deduplicator) => Effect.exit(deduplicator.dedupe(Effect.succeed("ran"), key))).pipe(
      Effect.provide(Deduplicator.layer())
    )

  const cyclic: { inner?: { deep?: unknown } } = { inner: {} }
  cyclic.inner!.deep = cyclic
  const deep = Array.from({ length: 600 }).reduce<unknown>((inner) => [inner], 1)

  it.effect.each<[what: string, input: unknown, path: string, found: string]>([
    ["a function", { messages: [{ send: () => 1 }] }, ".messages[0].send", "a function"],
    ["a symbol", [Symbol("x")], "[0]", "a symbol"],
    ["a field named by a symbol", { a: { [Symbol("x")]: 1 } }, ".a", "a field that is named by a symbol"],
    ["a cycle", cyclic, ".inner.deep", "a value that contains itself"],
    [
      "a cycle through a map",
      ((map) => map.set("a", map))(new Map<string, unknown>()),
      "[0]",
      "a value that contains itself"
    ],
    ["too deep a nesting", deep, "[0]".repeat(512), "more than 512 levels"],
    ["private state", { session: new Session("a", "secret") }, ".session", "an instance of a class"],
    ["a redacted value", Redacted.make("secret"), "", "an instance of a class"],
    ["a URL", new URL("http://localhost/a"), "", "an instance of a class"],
    ["a promise", Promise.resolve(1), "", "an instance of a class"]
  ])("is refused for %s, where it is used, with the place of it", ([, input, path, found]) =>
    Effect.gen(function*() {
      const exit = yield* useOf(Ask(input))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause) && exit.cause.reasons.length === 1)
      const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      assert.instanceOf(defect, InvalidKey)
      assert.deepStrictEqual([defect.operation, defect.path, defect.found], ["ask", path, found])
      assert.notInclude(defect.message, "messages")
    }))

  it.effect("that cannot be made is a defect where it is used, whatever its function threw", () =>
    Effect.gen(function*() {
      const Broken = Deduplicator.operation<string>()("broken", {
        key: (): unknown => {
          throw new Error("boom")
        }
      })
      const exit = yield* useOf(Broken(1))
      assert.include(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", "boom")
    }))

  it("holds a hash of the input, and nothing of the input itself", () => {
    const key = Ask({ prompt: "the secret of the prompt" })
    assert.match(key.id, /^[0-9a-f]{64}$/)
    assert.notInclude(JSON.stringify(key), "secret")
  })

  it("is of its operation alone", () => {
    const Other = Deduplicator.operation<string>()("other", { key: (input: unknown) => input })
    assert.notStrictEqual(Ask("x").id, Other("x").id)
    assert.strictEqual(Ask("x").id, Ask("x").id)
  })

  it("keeps tenants apart, by option and by key", () => {
    const Tenanted = Deduplicator.operation<string>()("ask", {
      key: (input: { readonly tenant: string; readonly text: string }) => input.text,
      tenant: (input) => input.tenant
    })
    const ids = [Tenanted({ tenant: "a", text: "x" }), Tenanted({ tenant: "b", text: "x" }), Ask("x"), Ask(["a", "x"])]
    assert.strictEqual(new Set(ids.map((key) => key.id)).size, 4)
  })

  it.effect("is made by the KeyHash of the fiber", () =>
    Effect.gen(function*() {
      const seen: Array<number> = []
      const key = yield* Effect.sync(() => Ask("x")).pipe(Effect.provideService(KeyHash, (bytes) => {
        seen.push(bytes.length)
        return "mine"
      }))
      assert.deepStrictEqual([key.id, seen.length], ["mine", 1])
      assert.notStrictEqual(Ask("x").id, "mine")
    }))
})
