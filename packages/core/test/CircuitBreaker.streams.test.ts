import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Stream } from "effect"
import { halfOpen, oneFailure, stateTag, withBreaker } from "./support/breakers.ts"
import { failCalls, startCall } from "./support/calls.ts"

const cutShort = Stream.concat(Stream.make("half an ", "ans"), Stream.fail("connection reset"))

/** The state of the circuit after a probe with this stream and this consumer. */
const verdict = <A, E>(
  stream: Stream.Stream<A, E>,
  consume: (stream: Stream.Stream<A, E | CircuitBreaker.CircuitOpen>) => Effect.Effect<unknown, unknown>,
  options?: CircuitBreaker.GuardStreamOptions<A, E>
) =>
  withBreaker(oneFailure, (breaker) =>
    Effect.gen(function*() {
      yield* halfOpen(breaker)
      yield* Effect.exit(consume(breaker.guardStream(stream, options)))
      const state = yield* breaker.state()
      return state._tag === "HalfOpen" ? `HalfOpen, ${state.probing} probing` : state._tag
    }))

describe("CircuitBreaker.guardStream", () => {
  it.effect("a guarded stream emits every part, and fails with the stream's own error", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        const parts: Array<string> = []
        const exit = yield* cutShort.pipe(
          breaker.guardStream(),
          Stream.runForEach((part) => Effect.sync(() => parts.push(part))),
          Effect.exit
        )
        assert.deepStrictEqual([parts, exit], [["half an ", "ans"], Exit.fail("connection reset")])
      })))

  it.effect("an open circuit refuses a stream without opening it", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        yield* failCalls(breaker, 1)
        let opened = false
        const stream = Stream.suspend(() => {
          opened = true
          return Stream.make(1)
        })
        const refused = yield* Effect.flip(Stream.runDrain(breaker.guardStream(stream)))
        assert.strictEqual(refused._tag, "CircuitOpen")
        assert.isFalse(opened)
      })))

  it.effect("a stream holds the probe slot as long as it runs", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        yield* halfOpen(breaker)
        const fiber = yield* Stream.concat(Stream.make(1), Stream.never).pipe(
          breaker.guardStream(),
          Stream.runDrain,
          Effect.forkChild({ startImmediately: true })
        )
        assert.isFalse((yield* startCall(breaker)).ran())
        yield* Fiber.interrupt(fiber)
        assert.isTrue((yield* startCall(breaker)).ran())
      })))

  it.effect("a stream that fails midway is a failure", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* verdict(cutShort, Stream.runDrain), "Open")
    }))

  it.effect("a stream that ends is a success, even without parts", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* verdict(Stream.make(1, 2), Stream.runDrain), "Closed")
      assert.strictEqual(yield* verdict(Stream.empty, Stream.runDrain), "Closed")
    }))

  const failing: ReadonlyArray<readonly [how: string, stream: Stream.Stream<number, string>]> = [
    ["as it is opened", Stream.fromPull(Effect.fail("connection refused"))],
    ["as it is unwrapped", Stream.unwrap(Effect.fail("connection refused"))],
    ["with its first part", Stream.fail("connection refused")],
    ["by a defect as it is opened", Stream.fromPull(Effect.die("bug"))],
    ["by a defect", Stream.die("bug")]
  ]
  for (const [how, stream] of failing) {
    it.effect(`a stream that fails ${how} is a failure`, () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* verdict(stream, Stream.runDrain), "Open")
      }))
  }

  it.effect("a consumer that stops early leaves the circuit half-open", () =>
    Effect.gen(function*() {
      const answer = Stream.concat(Stream.make("a"), Stream.never)
      assert.strictEqual(yield* verdict(answer, (stream) => Stream.runHead(stream)), "HalfOpen, 0 probing")
    }))

  it.effect("a consumer that fails leaves the circuit half-open", () =>
    Effect.gen(function*() {
      const failing = (stream: Stream.Stream<number, unknown>) =>
        Stream.runForEach(stream, () => Effect.fail("the disk is full"))
      assert.strictEqual(yield* verdict(Stream.make(1, 2, 3), failing), "HalfOpen, 0 probing")
    }))

  it.effect("a consumer that is interrupted leaves the circuit half-open", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        yield* halfOpen(breaker)
        const fiber = yield* Effect.forkChild(Stream.runDrain(breaker.guardStream(Stream.never)), {
          startImmediately: true
        })
        yield* Fiber.interrupt(fiber)
        assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
      })))

  it.effect("the part that completes the answer is a success, whatever the consumer does then", () =>
    Effect.gen(function*() {
      const answer = Stream.concat(Stream.make("text", "finish"), Stream.never)
      const untilFinish = (stream: Stream.Stream<string, unknown>) =>
        Stream.runDrain(Stream.takeUntil(stream, (part) => part === "finish"))
      const isComplete = (part: string) => part === "finish"
      assert.strictEqual(yield* verdict(answer, untilFinish, { isComplete }), "Closed")
      assert.strictEqual(yield* verdict(answer, untilFinish), "HalfOpen, 0 probing")
    }))

  it.effect("a failure or a second complete part after the complete answer does not count", () =>
    Effect.gen(function*() {
      const answer = Stream.concat(Stream.make("finish", "finish"), Stream.fail("connection reset")).pipe(
        Stream.rechunk(1)
      )
      assert.strictEqual(yield* verdict(answer, Stream.runDrain, { isComplete: (part) => part === "finish" }), "Closed")
    }))

  it.effect("the classifier gets the end of the stream", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        const seen: Array<Exit.Exit<void, string>> = []
        const guarded = breaker.guardStream(cutShort, {
          classify: (exit) => {
            seen.push(exit)
            return Outcome.throttled()
          }
        })
        yield* Effect.exit(Stream.runDrain(guarded))
        assert.deepStrictEqual(seen, [Exit.fail("connection reset")])
        assert.strictEqual(yield* stateTag(breaker), "Closed")
      })))

  it.effect("an isComplete that throws is a defect, and the probe slot is freed", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        yield* halfOpen(breaker)
        const guarded = breaker.guardStream(Stream.make(1), {
          isComplete: () => {
            throw new Error("isComplete")
          }
        })
        assert.isTrue(Exit.hasDies(yield* Effect.exit(Stream.runDrain(guarded))))
        assert.deepInclude(yield* breaker.state(), { _tag: "HalfOpen", probing: 0 })
      })))

  it.effect("each run of a guarded stream is a separate call", () =>
    withBreaker(oneFailure, (breaker) =>
      Effect.gen(function*() {
        let runs = 0
        const stream = Stream.suspend((): Stream.Stream<number, string> =>
          ++runs === 1 ? Stream.make(1) : Stream.fail("503")
        )
        const guarded = breaker.guardStream(stream)
        yield* Stream.runDrain(guarded)
        yield* Effect.exit(Stream.runDrain(guarded))
        assert.strictEqual(yield* stateTag(breaker), "Open")
        assert.instanceOf(yield* Effect.flip(Stream.runDrain(guarded)), CircuitBreaker.CircuitOpen)
        assert.strictEqual(runs, 2)
      })))
})
