import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Cause, Duration, Effect, Equal, Exit, PrimaryKey, Redacted, Schema } from "effect"
import { createHash } from "node:crypto"
import { inspect } from "node:util"
import * as Deduplicator from "../src/Deduplicator.ts"
import { canonical, withCanonical } from "../src/internal/hashing/canonical.ts"
import { portableDigest, toHex } from "../src/internal/hashing/sha256.ts"
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

/** The values that the input of a call can contain. */
type Value =
  | undefined
  | null
  | boolean
  | number
  | bigint
  | string
  | Date
  | Uint8Array
  | ReadonlyArray<Value>
  | ReadonlyMap<Value, Value>
  | ReadonlySet<Value>
  | { readonly [name: string]: Value }

const names = ["a", "b", "ab", "A", "0", "1", "-1", "model", "content", "__proto__x", "", "é", "e\u0301"]
const texts = [
  "",
  "0",
  "1",
  "-0",
  "1n",
  "null",
  "undefined",
  "true",
  "NaN",
  "[]",
  "{}",
  "a",
  "ab",
  "é",
  "e\u0301",
  "日本"
]
const numbers = [0, 1, -1, 0.1, 10, 256, 2 ** 31, 2 ** 53, 1e308, Number.NaN, Number.POSITIVE_INFINITY]

/** A reproducible random source. */
class RandomValues {
  private state: number

  constructor(seed: number) {
    this.state = seed
  }

  /** A whole number from zero, below the bound. */
  below(bound: number): number {
    this.state = (Math.imul(this.state, 1_664_525) + 1_013_904_223) >>> 0
    // The low bits of this generator repeat soon.
    return Math.floor(this.state / 2 ** 32 * bound)
  }

  of<A>(choices: ReadonlyArray<A>): A {
    return choices[this.below(choices.length)]!
  }

  value(depth: number): Value {
    switch (this.below(depth > 0 ? 14 : 8)) {
      case 0:
        return this.of([undefined, null, true, false])
      case 1:
      case 2:
        return this.of(numbers)
      case 3:
        return BigInt(this.of([0, 1, -1, 16, 255]))
      case 4:
      case 5:
        return this.of(texts) + this.of(["", "", "x".repeat(this.below(60))])
      case 6:
        return new Date(this.below(3))
      case 7:
        return Uint8Array.from({ length: this.below(4) }, () => this.below(2))
      case 8:
      case 9:
        return this.several(() => this.value(depth - 1))
      case 10:
        return new Map(this.several(() => [this.value(depth - 2), this.value(depth - 1)] as const))
      case 11:
        return new Set(this.several(() => this.value(depth - 1)))
      default:
        return this.request(depth)
    }
  }

  /** The usual input: an object with any values in its fields. */
  request(depth: number): Value {
    return Object.fromEntries(this.several(() => [this.of(names), this.value(depth - 1)] as const))
  }

  shuffled<A>(items: Iterable<A>): Array<A> {
    const left = [...items]
    return Array.from({ length: left.length }, () => left.splice(this.below(left.length), 1)[0]!)
  }

  private several<A>(make: () => A): Array<A> {
    return Array.from({ length: this.below(5) }, make)
  }
}

const isRecord = (value: Value): value is { readonly [name: string]: Value } =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype

/** The same value, with fields, entries and elements in another order. */
const reordered = (value: Value, random: RandomValues): Value => {
  const again = (value: Value) => reordered(value, random)
  if (Array.isArray(value)) return value.map(again)
  if (value instanceof Map) {
    return new Map(random.shuffled(value as ReadonlyMap<Value, Value>).map(([key, item]) => [again(key), again(item)]))
  }
  if (value instanceof Set) return new Set(random.shuffled(value as ReadonlySet<Value>).map(again))
  if (isRecord(value)) {
    return Object.fromEntries(random.shuffled(Object.entries(value)).map(([name, item]) => [name, again(item)]))
  }
  return Object.is(value, 0) ? -0 : value
}

interface Changed {
  readonly change: string
  readonly changed: Value
}

/** The value with one change at a random place. */
const nearlyTheSame = (value: Value, random: RandomValues): Changed => {
  const inner = isRecord(value) && random.below(4) > 0 ? Object.keys(value) : []
  if (inner.length > 0) {
    const name = random.of(inner)
    const { change, changed } = nearlyTheSame((value as { readonly [name: string]: Value })[name], random)
    return { change, changed: { ...(value as object), [name]: changed } }
  }
  if (Array.isArray(value) && value.length > 0 && random.below(4) > 0) {
    const at = random.below(value.length)
    const { change, changed } = nearlyTheSame(value[at] as Value, random)
    return { change, changed: value.with(at, changed) }
  }
  return random.of(changesOf(value))
}

/** Every small change of the value as a whole. */
const changesOf = (value: Value): ReadonlyArray<Changed> => {
  const changes: Array<Changed> = [{ change: "wrapped in an array", changed: [value] }]
  const add = (change: string, changed: Value): void => void changes.push({ change, changed })
  switch (typeof value) {
    case "undefined":
      add("undefined to null", null)
      break
    case "boolean":
      add("boolean to text", String(value))
      add("boolean to number", Number(value))
      break
    case "number":
      add("number to text", String(value))
      add("number to the next", Number.isFinite(value) ? nextAfter(value) : 0)
      if (Number.isInteger(value)) add("number to bigint", BigInt(value))
      break
    case "bigint":
      add("bigint to number", Number(value))
      add("bigint to text", `${value}`)
      break
    case "string":
      add("text with one character more", `${value} `)
      if (value !== "") add("text with one character less", value.slice(0, -1))
      if (value.normalize("NFD") !== value) add("text in another normal form", value.normalize("NFD"))
      break
    default:
      changes.push(...changesOfObject(value))
  }
  return changes
}

const changesOfObject = (value: Value & (object | null)): ReadonlyArray<Changed> => {
  if (value === null) return [{ change: "null to undefined", changed: undefined }]
  if (value instanceof Date) return [{ change: "date to number", changed: value.getTime() }]
  if (value instanceof Uint8Array) return [{ change: "bytes to array", changed: [...value] }]
  if (value instanceof Map) return [{ change: "map to array", changed: [...(value as ReadonlyMap<Value, Value>)] }]
  if (value instanceof Set) return [{ change: "set to array", changed: [...(value as ReadonlySet<Value>)] }]
  if (Array.isArray(value)) {
    const items = value as ReadonlyArray<Value>
    return [
      { change: "array with one element more", changed: [...items, undefined] },
      { change: "array to object", changed: Object.fromEntries(items.entries()) }
    ]
  }
  const record = value as { readonly [name: string]: Value }
  const [first, ...rest] = Object.entries(record)
  const changes: Array<Changed> = [{ change: "object to map", changed: new Map(Object.entries(record)) }]
  if (first !== undefined) {
    changes.push({ change: "object with one field less", changed: Object.fromEntries(rest) })
    changes.push({
      change: "field moved inwards",
      changed: { ...Object.fromEntries(rest), [first[0]]: { [first[0]]: first[1] } }
    })
  }
  return changes
}

const nextAfter = (value: number): number => {
  const bits = new BigInt64Array(new Float64Array([value]).buffer)
  bits[0] = bits[0]! + 1n
  return new Float64Array(bits.buffer)[0]!
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

describe("keys", () => {
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
    ["a field named by a symbol", { a: { [Symbol("x")]: 1 } }, ".a", "a symbol key"],
    ["a cycle", cyclic, ".inner.deep", "a circular reference"],
    [
      "a cycle through a map",
      ((map) => map.set("a", map))(new Map<string, unknown>()),
      "[0]",
      "a circular reference"
    ],
    ["too deep a nesting", deep, "[0]".repeat(512), "more than 512 levels of nesting"],
    ["private state", { session: new Session("a", "secret") }, ".session", "an instance of a class"],
    ["a redacted value", Redacted.make("secret"), "", "an instance of a class"],
    ["a URL", new URL("http://localhost/a"), "", "an instance of a class"],
    ["a promise", Promise.resolve(1), "", "an instance of a class"]
  ])(
    "a key with %s is a defect where it is used, with the path of the value",
    ([, input, path, found]) =>
      Effect.gen(function*() {
        const exit = yield* useOf(Ask(input))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause) && exit.cause.reasons.length === 1)
        const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        assert.instanceOf(defect, InvalidKey)
        assert.deepStrictEqual([defect.operation, defect.path, defect.found], ["ask", path, found])
        assert.notInclude(defect.message, "messages")
      })
  )

  it.effect("a key function that throws is a defect where the key is used", () =>
    Effect.gen(function*() {
      const Broken = Deduplicator.operation<string>()("broken", {
        key: (): unknown => {
          throw new Error("boom")
        }
      })
      const exit = yield* useOf(Broken(1))
      assert.include(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", "boom")
    }))

  it("a key contains a hash of the input, and not the input", () => {
    const key = Ask({ prompt: "the secret of the prompt" })
    assert.match(key.id, /^[0-9a-f]{64}$/)
    assert.notInclude(JSON.stringify(key), "secret")
  })

  it("keys of different operations differ for the same input", () => {
    const Other = Deduplicator.operation<string>()("other", { key: (input: unknown) => input })
    assert.notStrictEqual(Ask("x").id, Other("x").id)
    assert.strictEqual(Ask("x").id, Ask("x").id)
  })

  it("operations and tenants have different keys for 1,000 equal inputs", () => {
    const random = new RandomValues(20_260_905)
    const ids = new Set<string>()
    const names = ["ask", "as", "k", "Ask", "ask ", "ask\u0000"]
    const byName = names.map((name) =>
      [
        Deduplicator.operation<string>()(name, { key: (input: Value) => input }),
        Deduplicator.operation<string>()(name, { key: (input: Value) => input, tenant: () => "k" }),
        Deduplicator.operation<string>()(name, { key: (input: Value) => input, tenant: () => "" }),
        Deduplicator.operation<string>()(name, { key: (input: Value) => ["k", input] })
      ] as const
    )
    for (let i = 0; i < 1_000; i++) {
      // The number makes each input unique.
      const input: Value = [i, random.value(2)]
      for (const operations of byName) for (const make of operations) ids.add(make(input).id)
    }
    assert.strictEqual(ids.size, 1_000 * names.length * 4)
  }, 30_000)

  it("tenants have different keys, by the tenant option and as part of the input", () => {
    const Tenanted = Deduplicator.operation<string>()("ask", {
      key: (input: { readonly tenant: string; readonly text: string }) => input.text,
      tenant: (input) => input.tenant
    })
    const ids = [Tenanted({ tenant: "a", text: "x" }), Tenanted({ tenant: "b", text: "x" }), Ask("x"), Ask(["a", "x"])]
    assert.strictEqual(new Set(ids.map((key) => key.id)).size, 4)
  })

  it.effect("a key is made by the KeyHash of the fiber", () =>
    Effect.gen(function*() {
      const seen: Array<number> = []
      const key = yield* Effect.sync(() => Ask("x")).pipe(Effect.provideService(KeyHash, (bytes) => {
        seen.push(bytes.length)
        return "mine"
      }))
      assert.deepStrictEqual([key.id, seen.length], ["mine", 1])
      assert.notStrictEqual(Ask("x").id, "mine")
    }))

  it.effect("a KeyHash that returns no string is a defect where the key is used", () =>
    Effect.gen(function*() {
      const digest = async (bytes: Uint8Array) => crypto.subtle.digest("SHA-256", bytes.slice())
      for (const hash of [digest, () => undefined, () => "", () => 7]) {
        // As a JavaScript caller can. Every promise would become the same key.
        const wrong = hash as unknown as (bytes: Uint8Array) => string
        const key = yield* Effect.sync(() => Ask("x")).pipe(Effect.provideService(KeyHash, wrong))
        const exit = yield* useOf(key)
        assert.include(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", "KeyHash has to return a non-empty string")
      }
    }))

  it.effect("a key without the tenant that its operation requires is a defect where it is used", () =>
    Effect.gen(function*() {
      const Tenanted = Deduplicator.operation<string>()("tenanted", {
        key: () => "the same for all",
        tenant: (input: { readonly customer?: string }) => input.customer as string
      })
      const exit = yield* useOf(Tenanted({}))
      const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
      assert.instanceOf(defect, InvalidKey)
      assert.strictEqual(defect.found, "no tenant")
      assert.isTrue(Exit.isSuccess(yield* useOf(Tenanted({ customer: "" }))))
    }))

  it.effect("a KeyHash can keep the bytes that it gets", () =>
    Effect.gen(function*() {
      const kept: Array<Uint8Array> = []
      const hash = (bytes: Uint8Array) => {
        kept.push(bytes)
        return sha256(bytes)
      }
      const keys = yield* Effect.sync(() => [Ask("x"), Ask("y")]).pipe(Effect.provideService(KeyHash, hash))
      assert.deepStrictEqual(keys.map((key) => key.id), kept.map(sha256))
      assert.deepStrictEqual(keys.map((key) => key.id), [Ask("x").id, Ask("y").id])
    }))
})
