import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import type { Taken } from "../../src/run/Batch.ts"
import { Batch } from "../../src/run/Batch.ts"

/** A batch whose writes end when the test says so. */
const setUp = () => {
  const writes: Array<{ readonly text: string; readonly done: (taken: Taken<string>) => void }> = []
  const written: Array<readonly [text: string, error: string | undefined]> = []
  const batch = new Batch<string>((texts) =>
    new Promise((done) => {
      writes.push({ text: texts.join(""), done })
    })
  )
  return {
    batch,
    writes,
    written,
    push: (...texts: ReadonlyArray<string>) => {
      for (const text of texts) batch.push(text, (error) => written.push([text, error]))
    }
  }
}

const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

describe("Batch", () => {
  it.live("texts of one turn are written together, and those that follow wait for that write", () =>
    Effect.gen(function*() {
      const { push, writes, written } = setUp()
      push("a", "b")
      assert.strictEqual(writes.length, 0)
      yield* turn
      push("c")
      yield* turn
      push("d")
      assert.deepStrictEqual(writes.map(({ text }) => text), ["ab"])
      assert.deepStrictEqual(written, [])
      writes[0]!.done({ error: undefined, whole: 2 })
      yield* turn
      assert.deepStrictEqual(written, [["a", undefined], ["b", undefined]])
      assert.deepStrictEqual(writes.map(({ text }) => text), ["ab", "cd"])
      writes[1]!.done({ error: undefined, whole: 2 })
      yield* turn
      assert.deepStrictEqual(written.map(([text]) => text), ["a", "b", "c", "d"])
    }))

  it.live("`flush` writes at once if no write is running", () =>
    Effect.gen(function*() {
      const { batch, push, writes } = setUp()
      push("a")
      batch.flush()
      push("b")
      batch.flush()
      assert.deepStrictEqual(writes.map(({ text }) => text), ["a"])
      writes[0]!.done({ error: undefined, whole: 1 })
      yield* turn
      assert.deepStrictEqual(writes.map(({ text }) => text), ["a", "b"])
      yield* turn
    }))

  it.live("the first error is the answer to all later texts, and no write follows it", () =>
    Effect.gen(function*() {
      const { push, writes, written } = setUp()
      push("a", "b")
      yield* turn
      push("c")
      writes[0]!.done({ error: "full", whole: 1 })
      yield* turn
      assert.deepStrictEqual(written, [["a", undefined], ["b", "full"], ["c", "full"]])
      push("d")
      assert.strictEqual(written.length, 3)
      yield* turn
      assert.deepStrictEqual(written.at(-1), ["d", "full"])
      assert.strictEqual(writes.length, 1)
    }))

  it.live("`settled` waits for what is queued and what is being written", () =>
    Effect.gen(function*() {
      const { batch, push, writes } = setUp()
      yield* batch.settled
      push("a")
      const waiting = yield* Effect.forkChild(batch.settled, { startImmediately: true })
      push("b")
      writes[0]!.done({ error: undefined, whole: 1 })
      yield* turn
      yield* turn
      assert.isUndefined(waiting.pollUnsafe())
      writes[1]!.done({ error: undefined, whole: 1 })
      yield* turn
      yield* Fiber.join(waiting)
    }))
})
