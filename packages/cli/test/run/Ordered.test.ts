import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Random, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Completion from "../../src/run/Completion.ts"
import type * as Engine from "../../src/run/Engine.ts"
import * as Ordered from "../../src/run/Ordered.ts"
import { Tally } from "../../src/run/Tally.ts"
import { prompt } from "../support/engine.ts"
import { record } from "../support/records.ts"
import { answered } from "../support/results.ts"

/** Lines in the order in which they are written, and those that were told so. */
const recorder = (window: Ordered.Window) => {
  const ordered = new Ordered.Ordered<string>(window)
  const written: Array<number> = []
  const told: Array<readonly [number, string | undefined]> = []
  const write = (line: number, bytes = 1, error?: string) =>
    Effect.andThen(
      Effect.sync(() =>
        ordered.push(line, bytes, (done) => {
          written.push(line)
          queueMicrotask(() => done(error))
        }, (error) => void told.push([line, error]))
      ),
      Effect.promise(() => Promise.resolve())
    )
  return { ordered, written, told, write }
}

const isWaiting = <A, E>(fiber: Fiber.Fiber<A, E>) =>
  Effect.map(Effect.andThen(Effect.yieldNow, Effect.yieldNow), () => fiber.pollUnsafe() === undefined)

const start = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

describe("Ordered", () => {
  it.effect("results are written in the order in which their lines were read", () =>
    Effect.gen(function*() {
      const { ordered, write, written } = recorder({ lines: 10, bytes: 100 })
      // A resumed run leaves lines out.
      for (const line of [2, 5, 6, 9]) yield* ordered.admit(line)
      yield* write(9)
      yield* write(5)
      assert.deepStrictEqual(written, [])
      yield* write(2)
      assert.deepStrictEqual(written, [2, 5])
      yield* write(6)
      assert.deepStrictEqual(written, [2, 5, 6, 9])
    }))

  it.effect("a result that waits frees its line at once, and the line before it is told when all are written", () =>
    Effect.gen(function*() {
      const { ordered, told, write } = recorder({ lines: 10, bytes: 100 })
      for (const line of [1, 2, 3, 4]) yield* ordered.admit(line)
      yield* write(2)
      yield* write(3)
      assert.deepStrictEqual(told, [[2, undefined], [3, undefined]])
      yield* write(1)
      yield* write(4)
      assert.deepStrictEqual(told, [[2, undefined], [3, undefined], [1, undefined], [4, undefined]])
    }))

  it.effect("no more lines are read than the window has, counted from the first without a result", () =>
    Effect.gen(function*() {
      const { ordered, write, written } = recorder({ lines: 3, bytes: 100 })
      for (const line of [1, 2, 3]) yield* ordered.admit(line)
      const fourth = yield* start(ordered.admit(4))
      yield* write(2)
      yield* write(3)
      assert.isTrue(yield* isWaiting(fourth))
      yield* write(1)
      yield* Fiber.join(fourth)
      assert.deepStrictEqual(written, [1, 2, 3])
    }))

  it.effect("no line but the first is started while results that wait take too many bytes", () =>
    Effect.gen(function*() {
      const { ordered, write } = recorder({ lines: 10, bytes: 100 })
      for (const line of [1, 2, 3, 4]) yield* ordered.admit(line)
      yield* write(2, 60)
      yield* ordered.started(3)
      yield* write(3, 60)
      const fourth = yield* start(ordered.started(4))
      assert.isTrue(yield* isWaiting(fourth))
      yield* ordered.started(1)
      yield* write(1)
      yield* Fiber.join(fourth)
    }))

  it.effect("an error of a result that waited reaches the line that it waited for", () =>
    Effect.gen(function*() {
      const { ordered, told, write } = recorder({ lines: 10, bytes: 100 })
      for (const line of [1, 2]) yield* ordered.admit(line)
      yield* write(2, 1, "the disk is full")
      yield* write(1)
      assert.deepStrictEqual(told, [[2, undefined], [1, "the disk is full"]])
    }))
})

const concurrency = 64
const count = 6_400

/** A provider of 2 seconds, lognormal, with a call of 30 seconds in 500. Reads lines in arrays, as a file does. */
const elapsed = (ordered: Ordered.Ordered<never> | undefined) =>
  Effect.gen(function*() {
    const latencies = yield* Effect.forEach(Array.from({ length: count }), () =>
      Effect.map(Effect.all([Random.next, Random.next, Random.next]), ([a, b, c]) =>
        c < 0.002 ? 30_000 : 1_800 * Math.exp(0.5 * Math.sqrt(-2 * Math.log(a)) * Math.cos(2 * Math.PI * b)))).pipe(
        Random.withSeed("latencies")
      )
    const written: Array<number> = []
    const engine: Engine.Engine = {
      maxPrompts: 8 * concurrency,
      stopped: Effect.never,
      complete: ({ line }) =>
        Effect.as(Effect.sleep(latencies[line - 1] ?? 0), { result: answered({ line }), record: record() })
    }
    const sink: Completion.Sink = {
      push: ({ result: { line } }, _request, _input, done) => {
        const write = (done: (error: undefined) => void): void => {
          written.push(line)
          queueMicrotask(() =>
            done(undefined)
          )
        }
        if (ordered === undefined) write(done)
        else ordered.push(line, 1, write, done)
      },
      settled: Effect.void
    }
    const items = Stream.fromIterable(Array.from({ length: count }, (_, index) => prompt(index + 1)))
    const settings = { concurrency, targets: [{ model: "m" }], omit: [] }
    const lines = new Completion.Completion(
      // Only these settings are read.
      settings as unknown as ConstructorParameters<typeof Completion.Completion>[0],
      ordered === undefined ? items : ordered.items(items),
      ordered === undefined ? engine : ordered.engine(engine),
      sink,
      new Tally(),
      () => {}
    )
    const from = yield* Clock.currentTimeMillis
    const run = yield* Effect.forkChild(lines.run({ first: Effect.never, second: Effect.never }))
    while (run.pollUnsafe() === undefined) yield* TestClock.adjust("250 millis")
    yield* Fiber.join(run)
    assert.strictEqual(written.length, count)
    if (ordered !== undefined) assert.deepStrictEqual(written, [...written].sort((a, b) => a - b))
    return (yield* Clock.currentTimeMillis) - from
  })

describe("--ordered", () => {
  it.effect(
    "the window of a run costs little time, although some calls take fifteen times as long as most",
    () =>
      Effect.gen(function*() {
        const unordered = yield* elapsed(undefined)
        const run = yield* elapsed(new Ordered.Ordered(Ordered.windowOf(concurrency)))
        const narrow = yield* elapsed(new Ordered.Ordered({ lines: 2 * concurrency, bytes: 2 ** 20 }))
        assert.isBelow(run / unordered, 1.1)
        assert.isAbove(narrow / unordered, 1.5)
      }),
    120_000
  )
})
