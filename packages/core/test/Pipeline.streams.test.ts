import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Latch, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Pipeline from "../src/Pipeline.ts"
import { yields } from "./support/probe.ts"

const failedStage = (exit: Exit.Exit<unknown, unknown>) =>
  Option.getOrUndefined(Option.flatMap(Exit.getCause(exit), Pipeline.failedStage))

const orders = [["in order", false], ["as they finish", true]] as const

/** All operators that run a stream, with numbers for elements. */
const ways = [
  ["runStream", Pipeline.runStream],
  [
    "runStreamExit",
    (inputs: Stream.Stream<number>, pipeline: Pipeline.Pipeline<number, number>, options?: Pipeline.StreamOptions) =>
      Stream.mapEffect(Pipeline.runStreamExit(inputs, pipeline, options), (exit) => exit)
  ],
  [
    "runStreamEntries",
    (inputs: Stream.Stream<number>, pipeline: Pipeline.Pipeline<number, number>, options?: Pipeline.StreamOptions) =>
      Stream.mapEffect(Pipeline.runStreamEntries(inputs, pipeline, options), ({ exit }) => exit)
  ]
] as const

/** Fails for the input 2 and dies for the input 4. */
const fickle = Pipeline.make<number>("fickle").pipe(
  Pipeline.stage(
    "look",
    (n) => n === 2 ? Effect.fail("two" as const) : n === 4 ? Effect.die("four") : Effect.succeed(n * 10)
  )
)

describe("Pipeline streams", () => {
  it.effect("results come in the order of the inputs, or as they finish when unordered", () =>
    Effect.gen(function*() {
      // The later the input, the sooner its result.
      const slow = Pipeline.make<number>("slow").pipe(
        Pipeline.stage("wait", (n) => Effect.delay(Effect.succeed(n), Duration.millis(100 - n)))
      )
      const ordered = yield* Effect.forkChild(
        Stream.runCollect(Stream.range(1, 4).pipe(Pipeline.runStream(slow, { concurrency: 4 })))
      )
      const unordered = yield* Effect.forkChild(
        Stream.runCollect(Pipeline.runStream(Stream.range(1, 4), slow, { concurrency: "unbounded", unordered: true }))
      )
      yield* yields(20)
      yield* TestClock.adjust("99 millis")
      assert.deepStrictEqual(yield* Fiber.join(ordered), [1, 2, 3, 4])
      assert.deepStrictEqual(yield* Fiber.join(unordered), [4, 3, 2, 1])
    }))

  it.effect("one input runs at a time by default, and never more than concurrency", () =>
    Effect.gen(function*() {
      let running = 0
      let most = 0
      const counting = Pipeline.make<number>("counting").pipe(
        Pipeline.stage("count", () =>
          Effect.acquireUseRelease(
            Effect.sync(() => {
              most = Math.max(most, ++running)
            }),
            () => Effect.sleep("1 second"),
            () =>
              Effect.sync(() => {
                running--
              })
          ))
      )
      const mostWith = (options?: Pipeline.StreamOptions) =>
        Effect.gen(function*() {
          most = 0
          const fiber = yield* Effect.forkChild(
            Stream.runDrain(Pipeline.runStream(Stream.range(1, 20), counting, options))
          )
          yield* TestClock.adjust("20 seconds")
          yield* Fiber.join(fiber)
          return most
        })
      assert.strictEqual(yield* mostWith(), 1)
      assert.strictEqual(yield* mostWith({ concurrency: 5 }), 5)
    }))

  for (const concurrency of [1, 3]) {
    it.effect(`runStream fails with the first input that fails, and names its stage (${concurrency} at once)`, () =>
      Effect.gen(function*() {
        const seen: Array<number> = []
        const exit = yield* Stream.make(1, 2, 3).pipe(
          Pipeline.runStream(fickle, { concurrency }),
          Stream.runForEach((n) => Effect.sync(() => seen.push(n))),
          Effect.exit
        )
        if (concurrency === 1) assert.deepStrictEqual(seen, [10])
        assert.isTrue(Exit.hasFails(exit))
        assert.strictEqual(failedStage(exit)?.stage, "look")
      }))

    it.effect(`runStreamExit emits the exit of each input and continues (${concurrency} at once)`, () =>
      Effect.gen(function*() {
        const exits = yield* Stream.range(1, 5).pipe(
          Pipeline.runStreamExit(fickle, { concurrency }),
          Stream.runCollect
        )
        assert.deepStrictEqual(
          exits.map((exit) => Exit.isSuccess(exit) ? exit.value : Exit.hasDies(exit) ? "died" : "failed"),
          [10, "failed", 30, "died", 50]
        )
        const [, second] = exits
        assert.deepStrictEqual(second && failedStage(second), {
          pipeline: "fickle",
          stage: "look",
          index: 0,
          during: "Run"
        })
      }))
  }

  it.effect("an error of the inputs ends runStream and runStreamExit", () =>
    Effect.gen(function*() {
      const inputs = Stream.concat(Stream.make(1), Stream.fail("no more" as const))
      assert.strictEqual(yield* Effect.flip(Stream.runDrain(Pipeline.runStream(inputs, fickle))), "no more")
      assert.strictEqual(yield* Effect.flip(Stream.runDrain(Pipeline.runStreamExit(inputs, fickle))), "no more")
    }))

  it.effect("a stream reads no input before it runs", () =>
    Effect.gen(function*() {
      let read = 0
      const inputs = Stream.fromEffectRepeat(Effect.sync(() => ++read))
      const pipeline = Pipeline.make<number>("p").pipe(Pipeline.stage("ask", (n) => Effect.succeed(n)))
      for (const [, run] of ways) {
        for (const concurrency of [1, 3]) {
          read = 0
          const stream = run(inputs, pipeline, { concurrency })
          assert.strictEqual(read, 0)
          assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(stream, 1)), [1])
        }
      }
    }))

  for (const [order, unordered] of orders) {
    for (const concurrency of [1, 2, 3, 5]) {
      it.effect(`a stream reads at most ${concurrency} inputs ahead of its consumer, ${order}`, () =>
        Effect.gen(function*() {
          let read = 0
          let consumed = 0
          let running = 0
          let most = 0
          let mostAhead = 0
          const inputs = Stream.fromEffectRepeat(Effect.sync(() => {
            mostAhead = Math.max(mostAhead, ++read - consumed)
            return read
          }))
          const pipeline = Pipeline.make<number>("p").pipe(
            Pipeline.stage("ask", (n) =>
              Effect.acquireUseRelease(
                Effect.sync(() => {
                  most = Math.max(most, ++running)
                }),
                () => Effect.delay(Effect.succeed(n), Duration.millis(n % 3 === 0 ? 30 : 10)),
                () =>
                  Effect.sync(() => {
                    running--
                  })
              ))
          )
          const consumer = yield* Pipeline.runStream(inputs, pipeline, { concurrency, unordered }).pipe(
            // First slower than the pipeline, then faster.
            Stream.mapEffect((n) => (consumed++, Effect.as(Effect.sleep(consumed < 10 ? 100 : 1), n))),
            Stream.take(30),
            Stream.runCollect,
            Effect.forkChild
          )
          yield* TestClock.adjust("1 minute")
          const answers = yield* Fiber.join(consumer)
          assert.deepStrictEqual(answers.toSorted((a, b) => a - b).slice(0, 10), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
          assert.strictEqual(most, concurrency)
          // The element that the consumer handles counts as consumed.
          assert.strictEqual(mostAhead, concurrency)
        }))
    }

    it.effect(`a consumer that leaves interrupts the running inputs, waits for them and starts no more, ${order}`, () =>
      Effect.gen(function*() {
        for (const [, run] of ways) {
          const log: Array<string> = []
          const gate = yield* Latch.make()
          const pipeline = Pipeline.make<number>("p").pipe(
            Pipeline.stage("ask", (n): Effect.Effect<number> =>
              Effect.suspend(() => {
                log.push(`start ${n}`)
                const stop = Effect.andThen(Effect.sync(() => log.push(`stop ${n}`)), gate.await)
                return Effect.onExit(Effect.never, () => Effect.andThen(stop, Effect.sync(() => log.push(`end ${n}`))))
              }))
          )
          const consumer = yield* run(Stream.range(1, 9), pipeline, { concurrency: 3, unordered }).pipe(
            Stream.runDrain,
            Effect.forkChild
          )
          yield* yields(20)
          const leaving = yield* Effect.forkChild(Fiber.interrupt(consumer), { startImmediately: true })
          yield* yields(20)
          assert.deepStrictEqual(log, ["start 1", "start 2", "start 3", "stop 1", "stop 2", "stop 3"])
          assert.isUndefined(leaving.pollUnsafe())
          yield* gate.open
          yield* Fiber.join(leaving)
          assert.deepStrictEqual(log.slice(6), ["end 1", "end 2", "end 3"])
        }
      }))

    it.effect(`a failing input interrupts the others, ${order}`, () =>
      Effect.gen(function*() {
        let stopped = 0
        const pipeline = Pipeline.make<number>("p").pipe(
          Pipeline.stage("ask", (n) =>
            n === 2
              ? Effect.delay(Effect.fail("two"), "1 second")
              : Effect.onInterrupt(Effect.never, () => Effect.sync(() => stopped++)))
        )
        const consumer = yield* Effect.forkChild(
          Effect.exit(Stream.runDrain(Pipeline.runStream(Stream.range(1, 9), pipeline, { concurrency: 3, unordered })))
        )
        yield* yields(20)
        yield* TestClock.adjust("1 second")
        const exit = yield* Fiber.join(consumer)
        assert.isTrue(Exit.hasFails(exit))
        assert.strictEqual(failedStage(exit)?.stage, "ask")
        assert.strictEqual(stopped, 2)
      }))

    it.effect(`all results are emitted before the failure of the inputs, ${order}`, () =>
      Effect.gen(function*() {
        const slow = Pipeline.make<number>("slow").pipe(
          Pipeline.stage("wait", (n) => Effect.delay(Effect.succeed(n), Duration.seconds(4 - n)))
        )
        const inputs = Stream.concat(Stream.make(1, 2, 3), Stream.fail("no more" as const))
        const seen: Array<number> = []
        const consumer = yield* Pipeline.runStream(inputs, slow, { concurrency: 3, unordered }).pipe(
          Stream.runForEach((n) => Effect.sync(() => seen.push(n))),
          Effect.flip,
          Effect.forkChild
        )
        yield* yields(20)
        yield* TestClock.adjust("3 seconds")
        assert.strictEqual(yield* Fiber.join(consumer), "no more")
        assert.deepStrictEqual(seen, unordered ? [3, 2, 1] : [1, 2, 3])
      }))

    it.effect(`thousands of results that waited for the first do not overflow the stack, ${order}`, () =>
      Effect.gen(function*() {
        const gate = yield* Latch.make()
        const first = Pipeline.make<number>("first").pipe(
          Pipeline.stage("wait", (n) => n === 1 ? gate.whenOpen(Effect.succeed(n)) : Effect.succeed(n))
        )
        const consumer = yield* Pipeline.runStream(Stream.range(1, 5_000), first, {
          concurrency: "unbounded",
          unordered
        })
          .pipe(Stream.runCollect, Effect.forkChild)
        yield* yields(20)
        yield* gate.open
        const answers = yield* Fiber.join(consumer)
        assert.strictEqual(answers.length, 5_000)
        assert.strictEqual(answers[0], unordered ? 2 : 1)
      }))

    it.effect(`a stage that interrupts itself ends the stream with an interruption, ${order}`, () =>
      Effect.gen(function*() {
        const stops = Pipeline.make<number>("stops").pipe(
          Pipeline.stage("stop", (n) => n === 2 ? Effect.interrupt : Effect.succeed(n))
        )
        const run = Pipeline.runStream(Stream.range(1, 3), stops, { concurrency: 2, unordered })
        const exit = yield* Effect.exit(Stream.runDrain(run))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      }))
  }

  it.effect("runStreamEntries emits each exit with its input and its index", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<number>("p").pipe(
        Pipeline.stage("wait", (n) =>
          Effect.andThen(Effect.sleep(Duration.millis(n)), n === 20 ? Effect.fail("twenty") : Effect.succeed(`${n}`)))
      )
      const collect = (options?: Pipeline.StreamOptions) =>
        Effect.gen(function*() {
          const fiber = yield* Stream.make(30, 20, 10).pipe(
            Pipeline.runStreamEntries(pipeline, options),
            Stream.map((
              { exit, index, input }
            ) => [index, input, Exit.isSuccess(exit) ? exit.value : failedStage(exit)?.stage]),
            Stream.runCollect,
            Effect.forkChild
          )
          yield* yields(20)
          yield* TestClock.adjust("1 second")
          return yield* Fiber.join(fiber)
        })
      const first = [0, 30, "30"]
      const second = [1, 20, "wait"]
      const third = [2, 10, "10"]
      assert.deepStrictEqual(yield* collect(), [first, second, third])
      assert.deepStrictEqual(yield* collect({ concurrency: 3 }), [first, second, third])
      assert.deepStrictEqual(yield* collect({ concurrency: 3, unordered: true }), [third, second, first])
    }))
})
