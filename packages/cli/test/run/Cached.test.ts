import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as AnswerStore from "../../src/run/AnswerStore.ts"
import * as Cached from "../../src/run/Cached.ts"
import type * as Engine from "../../src/run/Engine.ts"
import type { Result } from "../../src/run/Result.ts"
import type { Target } from "../../src/run/Settings.ts"
import { prompt } from "../support/engine.ts"
import { folder } from "../support/files.ts"
import { record } from "../support/records.ts"
import { answered, failed } from "../support/results.ts"

const target = (name: string, changes: Partial<Target> = {}): Target => ({
  name,
  wire: "openai",
  url: `https://${name}.example/v1`,
  model: "m",
  apiKey: undefined,
  keySource: "the test",
  ...changes
})

type Options = Parameters<typeof Cached.over>[2]

/** An engine with a cache over one that gives these results. */
const setup = (path: string, reply: (line: number) => Result, changes: Partial<Options> = {}, startedAt = 0) =>
  Effect.gen(function*() {
    const store = yield* Effect.acquireRelease(
      Effect.sync(() => new AnswerStore.AnswerStore({ folder: path, since: -1, maxBytes: 2 ** 20 })),
      (store) => Effect.sync(() => store.close())
    )
    const counts = { reused: 0, added: 0 }
    const errors: Array<string> = []
    let calls = 0
    const inner: Engine.Engine = {
      maxPrompts: 1,
      complete: ({ line }) =>
        Effect.sync(() => {
          calls++
          return { result: reply(line), record: record() }
        }),
      stopped: Effect.never
    }
    const options = {
      cacheTtlMillis: 1_000,
      targets: [target("main")],
      maxTokens: undefined,
      temperature: undefined,
      omit: [],
      ...changes
    } as const
    const engine = Cached.over(inner, store, options, counts, startedAt, ({ message }) => errors.push(message))
    return {
      ask: (question: string, line = 1) => Effect.map(engine.complete(prompt(line, question)), ({ result }) => result),
      store,
      counts,
      errors,
      calls: () => calls
    }
  })

describe("an engine with a cache", () => {
  it.effect("a later run reuses whole answers without a call, as lines of their own", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const usage = { inputTokens: 7, outputTokens: 9, estimated: true }
      const first = yield* setup(path, (line) => answered({ line, text: "the answer", usage, model: "m-2026" }))
      assert.strictEqual((yield* first.ask("a")).how, "led")
      const second = yield* setup(path, () => failed(), {}, 1)
      const { attempts, how, line, model, status, target, ...rest } = yield* second.ask("a", 5)
      assert.deepStrictEqual({ attempts, how, line, model, status, target }, {
        attempts: 0,
        how: "cached",
        line: 5,
        model: "m-2026",
        status: "ok",
        target: "main"
      })
      assert.deepInclude(rest, { text: "the answer", usage, finish: "stop" })
      assert.deepStrictEqual([second.calls(), second.counts], [0, { reused: 1, added: 0 }])
      assert.strictEqual((yield* second.ask("b")).status, "failed")
    }))

  it.effect("failures, cut answers and answers that other lines led are not kept", () =>
    Effect.gen(function*() {
      const replies = [
        failed(),
        answered({ finish: "length" }),
        answered({ finish: "content-filter" }),
        answered({ how: "joined" }),
        answered({ how: "cached" })
      ]
      const { ask, calls, counts } = yield* setup(yield* folder, (line) => replies[line - 1] ?? answered())
      for (const [index] of replies.entries()) {
        yield* ask("same", index + 1)
        assert.deepStrictEqual([calls(), counts.added], [index + 1, 0])
      }
    }))

  it.effect("another model, message, limit, format or address is another request", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const first = yield* setup(path, () => answered())
      yield* first.ask("a")
      const others: ReadonlyArray<Partial<Options>> = [
        { maxTokens: 5 },
        { temperature: 0 },
        { omit: ["temperature"] },
        { targets: [target("main", { model: "other" })] },
        { targets: [target("main", { wire: "anthropic" })] },
        { targets: [target("main", { url: "https://main.example/v2" })] },
        { targets: [target("main", { url: "http://main.example/v1" })] }
      ]
      for (const other of others) {
        const next = yield* setup(path, () => answered(), other)
        assert.strictEqual((yield* next.ask("a")).how, "led", JSON.stringify(other))
      }
      const same = yield* setup(path, () => answered(), {
        targets: [target("renamed", { url: "https://main.example/v1?key=another", keySource: "another" })]
      })
      assert.strictEqual((yield* same.ask("a")).how, "cached")
    }))

  it.effect("the answer of a fallback is kept as its own, and used if the preferred target has none", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const targets = [target("main"), target("backup")] as const
      const fallback = yield* setup(path, () => answered({ target: "backup", text: "second" }), { targets })
      yield* fallback.ask("a")
      const backup = yield* setup(path, () => failed(), { targets })
      assert.deepInclude(yield* backup.ask("a"), { text: "second", target: "backup", how: "cached" })
      const alone = yield* setup(path, () => answered({ text: "first" }))
      assert.deepInclude(yield* alone.ask("a"), { text: "first", how: "led" })
      const both = yield* setup(path, () => failed(), { targets })
      assert.deepInclude(yield* both.ask("a"), { text: "first", target: "main" })
    }))

  it.effect("a value of another form is requested again", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const { ask, counts, store } = yield* setup(path, () => answered())
      const keys: Array<Uint8Array> = []
      const put = store.put.bind(store)
      store.put = (key, answer, now) => {
        keys.push(key)
        put(key, answer, now)
      }
      yield* ask("a")
      assert.strictEqual((yield* ask("a")).how, "cached")
      assert.deepStrictEqual(counts, { reused: 0, added: 1 })
      for (const text of ["{", "null", `{"text":1}`, `{"text":"a","finish":"stop"}`]) {
        put(keys[0] ?? new Uint8Array(), text, 0)
        assert.strictEqual((yield* ask("a")).how, "led", text)
      }
    }))

  it.effect("a cache that breaks is reported once, and the run continues without it", () =>
    Effect.gen(function*() {
      const { ask, errors, store } = yield* setup(yield* folder, () => answered())
      store.close()
      assert.strictEqual((yield* ask("a")).how, "led")
      assert.strictEqual((yield* ask("a")).how, "led")
      assert.strictEqual(errors.length, 1)
      assert.match(errors[0] ?? "", /^cannot use the cache /)
    }))
})
