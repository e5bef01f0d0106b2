import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Redacted } from "effect"
import * as Deduplicator from "../src/Deduplicator.ts"
import { InvalidKey, KeyHash, sha256 } from "../src/KeyHash.ts"
import { RandomValues, type Value } from "./support/values.ts"

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

describe("keys", () => {
  const Ask = Deduplicator.operation<string>()("ask", { key: (input: unknown) => input })
  const useOf = (key: Deduplicator.Key<string, never>) =>
    Deduplicator.Deduplicator.use((deduplicator) => Effect.exit(deduplicator.dedupe(Effect.succeed("ran"), key))).pipe(
      Effect.provide(Deduplicator.layer())
    )

  const cyclic: { inner?: { deep?: unknown } } = { inner: {} }
  cyclic.inner!.deep = cyclic
  const deep = Array.from({ length: 600 }).reduce<unknown>((inner) => [inner], 1)

  const ownFields = "fields of its own on a built-in object"

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
    ["an Array with a field", Object.assign([1], { extra: 1 }), "", ownFields],
    ["the groups of a match", "ab".match(/(?<first>a)/), "", ownFields],
    ["a Map with a field", { a: Object.assign(new Map(), { extra: 1 }) }, ".a", ownFields],
    ["a Set with a symbol", Object.assign(new Set(), { [Symbol("x")]: 1 }), "", ownFields],
    ["a Date with a field", Object.assign(new Date(0), { zone: "UTC" }), "", ownFields],
    ["an ArrayBuffer with a field", Object.assign(new ArrayBuffer(1), { extra: 1 }), "", ownFields],
    ["a subclass of Array", new (class extends Array<number> {})(), "", "an instance of a class"],
    ["a subclass of Map", new (class extends Map<string, string> {})(), "", "an instance of a class"],
    ["a subclass of Set", new (class extends Set<string> {})(), "", "an instance of a class"],
    ["a subclass of Date", new (class extends Date {})(0), "", "an instance of a class"],
    ["a subclass of Uint8Array", new (class extends Uint8Array {})(1), "", "an instance of a class"],
    [
      "a subclass of DataView",
      new (class extends DataView<ArrayBuffer> {})(new ArrayBuffer(1)),
      "",
      "an instance of a class"
    ],
    ["a subclass of ArrayBuffer", new (class extends ArrayBuffer {})(1), "", "an instance of a class"],
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
