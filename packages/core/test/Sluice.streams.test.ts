import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as Outcome from "@sluice/core/Outcome"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Duration, Effect, Exit, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { failureOf, range } from "./support/effects.ts"
import { breaker, failures, makeGpt, refusedBy, retry, stateTag, withStore } from "./support/policies.ts"
import { interruptEverywhere, yields } from "./support/probe.ts"

/** Advances the test clock by half seconds, with turns in between, since a stream takes some to open. */
const advance = (seconds: number) =>
  Effect.repeat(Effect.andThen(yields(30), TestClock.adjust("500 millis")), { times: seconds * 2 - 1 }).pipe(
    Effect.andThen(yields(30))
  )

/** Reads a stream in a fiber: the parts until now, its exit, and how long it took. */
const read = <A, E>(stream: Stream.Stream<A, E>) =>
  Effect.gen(function*() {
    const startedAt = yield* Clock.currentTimeMillis
    const parts: Array<A> = []
    const fiber = yield* stream.pipe(
      Stream.runForEach((part) => Effect.sync(() => parts.push(part))),
      Effect.exit,
      Effect.flatMap((exit) => Effect.map(Clock.currentTimeMillis, (now) => [exit, now - startedAt] as const)),
      Effect.forkChild
    )
    yield* yields(30)
    return { parts, fiber, end: Fiber.join(fiber) }
  })

/** Reads a stream for a minute of the test clock. */
const readAll = <A, E>(stream: Stream.Stream<A, E>) =>
  Effect.gen(function*() {
    const { end, parts } = yield* read(stream)
    yield* advance(60)
    const [exit, millis] = yield* end
    return { parts, exit, millis }
  })

const sleeping = (duration: Duration.Input) => Stream.drain(Stream.fromEffect(Effect.sleep(duration)))

/** Opens the given streams in turn, the last one from then on, and counts openings and closings. */
const inTurn = <A, E>(...streams: readonly [...ReadonlyArray<Stream.Stream<A, E>>, Stream.Stream<A, E>]) => {
  const counts = { opened: 0, closed: 0 }
  const stream = Stream.suspend(() => {
    const next = streams[Math.min(counts.opened, streams.length - 1)]!
    counts.opened++
    return Stream.ensuring(
      next,
      Effect.sync(() => {
        counts.closed++
      })
    )
  })
  return { stream, counts }
}

const answer = Stream.make("an", "answer")
const slow = Stream.concat(Stream.make("an"), Stream.concat(sleeping("2 seconds"), Stream.make("answer")))
const broken: Stream.Stream<string, string> = Stream.fail("503")
const cut: Stream.Stream<string, string> = Stream.concat(Stream.make("an"), Stream.fail("cut"))

describe("slots and permits of streams", () => {
  it.effect("a stream holds its permit and its slot until it ends", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ backpressure: { capacity: 1, queue: 1 } })
      const first = yield* read(gpt.protectStream(slow))
      const second = yield* read(gpt.protectStream(answer))
      assert.deepStrictEqual([first.parts, second.parts], [["an"], []])
      const shed = yield* Effect.exit(Stream.runDrain(gpt.protectStream(answer)))
      assert.strictEqual(refusedBy(shed), "BackpressureShed")
      yield* advance(2)
      assert.deepStrictEqual([first.parts, second.parts], [["an", "answer"], ["an", "answer"]])
      yield* Stream.runDrain(gpt.protectStream(answer))
    }).pipe(withStore))

  it.effect("a consumer that stops early frees the stream's permit and slot", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ backpressure: { capacity: 1 } })
      const { counts, stream } = inTurn(Stream.concat(answer, Stream.never))
      for (const _ of range(3)) {
        assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(gpt.protectStream(stream), 1)), ["an"])
      }
      assert.deepStrictEqual(counts, { opened: 3, closed: 3 })
      yield* gpt.protect(Effect.void)
    }).pipe(withStore))

  it.effect("a stream that backs off holds no permit", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ retry: retry(2), backpressure: { capacity: 1, queue: 1 } })
      const { counts, stream } = inTurn(broken, answer)
      const again = yield* read(gpt.protectStream(stream))
      assert.deepStrictEqual(counts, { opened: 1, closed: 1 })
      assert.strictEqual(yield* gpt.protect(Effect.succeed("well")), "well")
      yield* advance(1)
      assert.deepStrictEqual(again.parts, ["an", "answer"])
    }).pipe(withStore))

  it.effect("a further attempt of a stream is queued before calls that have not run yet", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ retry: retry(2), backpressure: { capacity: 1, queue: 2 } })
      const order: Array<string> = []
      const named = (name: string, stream: Stream.Stream<string, "503">) =>
        Stream.suspend(() => {
          order.push(name)
          return stream
        }).pipe(gpt.protectStream())
      const first = inTurn(Stream.fail("503" as const), answer)
      yield* read(named("first", first.stream))
      // Takes the permit while the first backs off, and the next one is queued.
      yield* read(named("second", Stream.concat(sleeping("10 seconds"), answer)))
      yield* read(named("third", answer))
      yield* advance(20)
      assert.deepStrictEqual(order, ["first", "second", "first", "third"])
    }).pipe(withStore))

  it.effect("a stream queued for a permit leaves at its deadline and frees its slot", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ backpressure: { capacity: 1, queue: 1 } })
      yield* read(gpt.protectStream(Stream.never))
      const { counts, stream } = inTurn(answer)
      const { exit, millis } = yield* readAll(gpt.protectStream(stream, { deadline: "2 seconds" }))
      assert.deepStrictEqual([refusedBy(exit), millis, counts.opened], ["DeadlineExceeded at Queue", 2_000, 0])
      const next = yield* read(gpt.protectStream(stream))
      assert.isUndefined(next.fiber.pollUnsafe())
    }).pipe(withStore))

  it.effect("a stream whose deadline has passed is not opened", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt()
      const { counts, stream } = inTurn(answer)
      const { exit } = yield* readAll(gpt.protectStream(stream, { deadline: 0 }))
      assert.deepStrictEqual([refusedBy(exit), counts.opened], ["DeadlineExceeded at Start", 0])
    }).pipe(withStore))
})

describe("attempts of a stream", () => {
  it.effect("a stream is retried before its first element, and each attempt is closed before the next", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ retry: retry(3) })
      const { counts, stream } = inTurn(broken, broken, answer)
      const { exit, millis, parts } = yield* readAll(gpt.protectStream(stream))
      assert.deepStrictEqual([exit, parts, millis], [Exit.void, ["an", "answer"], 2_000])
      assert.deepStrictEqual(counts, { opened: 3, closed: 3 })
    }).pipe(withStore))

  it.effect("a stream is not retried after its first element", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ retry: retry(3), breaker: breaker(5) })
      const { counts, stream } = inTurn(cut, answer)
      const { exit, parts } = yield* readAll(gpt.protectStream(stream))
      assert.deepStrictEqual([failureOf(exit), parts, counts.opened], ["cut", ["an"], 1])
      assert.strictEqual(yield* failures(gpt), 1)
    }).pipe(withStore))

  it.effect("an attempt that hangs before its first element times out, counts as a failure and is retried", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ retry: retry(2), breaker: breaker(5), attemptTimeout: "5 seconds" })
      const { counts, stream } = inTurn(Stream.never, answer)
      const reader = yield* read(gpt.protectStream(stream))
      yield* advance(5)
      assert.deepStrictEqual([counts, yield* failures(gpt)], [{ opened: 1, closed: 1 }, 1])
      yield* advance(1)
      assert.deepStrictEqual(reader.parts, ["an", "answer"])
    }).pipe(withStore))

  it.effect("an attempt that hangs after its first element times out and counts as a failure", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ retry: retry(2), breaker: breaker(1), attemptTimeout: "5 seconds" })
      const { exit, millis, parts } = yield* readAll(gpt.protectStream(Stream.concat(answer, Stream.never)))
      assert.instanceOf(failureOf(exit), Sluice.AttemptTimeout)
      assert.deepStrictEqual([parts, millis], [["an", "answer"], 5_000])
      const refused = yield* Effect.map(gpt.breaker.state("gpt"), (state) => state.failures)
      assert.strictEqual(refused, 1)
    }).pipe(withStore))

  for (const [given, counted] of [["500 millis", 0], ["1 second", 1]] as const) {
    it.effect(`an attempt that the deadline ends after ${given} counts as ${counted} failures`, () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ retry: retry(3), breaker: breaker(5), minTimeout: "1 second" })
        const { counts, stream } = inTurn(Stream.concat(Stream.make("an"), Stream.never))
        const { exit, millis, parts } = yield* readAll(gpt.protectStream(stream, { deadline: given }))
        assert.deepStrictEqual([refusedBy(exit), parts], ["DeadlineExceeded at Attempt", ["an"]])
        assert.strictEqual(millis, Duration.toMillis(given))
        assert.deepStrictEqual([yield* failures(gpt), counts], [counted, { opened: 1, closed: 1 }])
      }).pipe(withStore))
  }
})

describe("circuits of streams", () => {
  it.effect("failing streams open the circuit, which refuses at once and later admits a probe", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(2) })
      for (const _ of range(2)) yield* Effect.exit(Stream.runDrain(gpt.protectStream(cut)))
      const { counts, stream } = inTurn(answer)
      const refused = yield* Effect.exit(Stream.runDrain(gpt.protectStream(stream)))
      assert.deepStrictEqual([refusedBy(refused), counts.opened], ["CircuitOpen", 0])
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* Stream.runCollect(gpt.protectStream(stream)), ["an", "answer"])
      assert.strictEqual(yield* stateTag(gpt), "Closed")
    }).pipe(withStore))

  it.effect("a stream waits for an open circuit without a permit, if retryAfter fits before its deadline", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(1), backpressure: { capacity: 1, queue: 1 } })
      yield* Effect.exit(Stream.runDrain(gpt.protectStream(broken)))
      const waiting = yield* read(gpt.protectStream(answer, { deadline: "11 seconds" }))
      assert.strictEqual(yield* gpt.protect(Effect.succeed("well"), { key: "other" }), "well")
      yield* advance(11)
      assert.deepStrictEqual([yield* waiting.end, waiting.parts], [[Exit.void, 10_000], ["an", "answer"]])
    }).pipe(withStore))

  it.effect("a consumer that stops early does not count for the circuit, unless the answer is complete", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(2) })
      const endless = Stream.rechunk(Stream.concat(answer, Stream.never), 1)
      const isComplete = (part: string) => part === "answer"
      const fail = Effect.exit(Stream.runDrain(gpt.protectStream(broken)))
      yield* fail
      yield* Stream.runDrain(Stream.take(gpt.protectStream(endless, { isComplete }), 1))
      assert.strictEqual(yield* failures(gpt), 1)
      yield* Stream.runDrain(Stream.take(gpt.protectStream(endless, { isComplete }), 2))
      assert.strictEqual(yield* failures(gpt), 0)
    }).pipe(withStore))

  it.effect("a refusal by another breaker inside the stream is unchanged and does not count", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(1), retry: retry(3), deadline: "1 minute" })
      const inner = yield* CircuitBreaker.make(breaker(1))
      yield* Effect.exit(inner.guard(Effect.fail("503")))
      const { counts, stream } = inTurn(inner.guardStream(answer))
      for (const call of [stream, Stream.concat(Stream.make("an"), stream)]) {
        const error = yield* Effect.flip(Stream.runDrain(gpt.protectStream(call)))
        assert.strictEqual(error._tag, "CircuitOpen")
      }
      assert.strictEqual(counts.opened, 2)
      assert.deepInclude(yield* gpt.breaker.state("gpt"), { _tag: "Closed", failures: 0 })
    }).pipe(withStore))

  it.effect("a stream's classifier gets only the stream's own ends, and decides", () =>
    Effect.gen(function*() {
      const seen: Array<Exit.Exit<void, string>> = []
      const gpt = yield* makeGpt({ breaker: breaker(1), retry: retry(3), attemptTimeout: "5 seconds" })
      const classify = (exit: Exit.Exit<void, string>) => {
        seen.push(exit)
        return Exit.isFailure(exit) ? Outcome.ignored : undefined
      }
      const { counts, stream } = inTurn(broken, Stream.never)
      assert.strictEqual(failureOf((yield* readAll(gpt.protectStream(stream, { classify }))).exit), "503")
      assert.deepStrictEqual([counts.opened, yield* stateTag(gpt)], [1, "Closed"])
      assert.deepStrictEqual(new Set(seen.map(failureOf)), new Set(["503"]))
      yield* readAll(gpt.protectStream(stream, { classify, deadline: "5 seconds" }))
      assert.deepStrictEqual(new Set(seen.map(failureOf)), new Set(["503"]))
    }).pipe(withStore))
})

const Ask = Deduplicator.operation<string, string>()("ask", { key: (text: string) => text })

describe("deduplicated streams", () => {
  for (const leaves of [false, true]) {
    it.effect(`fifty readers open one stream${leaves ? ", also when the first of them leaves" : ""}`, () =>
      Effect.gen(function*() {
        const gpt = yield* makeGpt({ retry: retry(2), breaker: breaker(5), backpressure: { capacity: 1 } })
        const { counts, stream } = inTurn(broken, slow)
        const [first, ...others] = yield* Effect.forEach(
          range(50),
          () => read(gpt.protectStream(stream, { dedupe: Ask("x") }))
        )
        yield* advance(2)
        if (leaves) yield* Fiber.interrupt(first!.fiber)
        yield* advance(1)
        for (const reader of leaves ? others : [first!, ...others]) {
          assert.deepStrictEqual([yield* reader.end, reader.parts], [[Exit.void, 3_000], ["an", "answer"]])
        }
        assert.deepStrictEqual(counts, { opened: 2, closed: 2 })
        assert.deepInclude(yield* gpt.deduplicator.stats, { flights: 0, led: 1, joined: 49 })
        yield* Stream.runDrain(gpt.protectStream(answer))
      }).pipe(withStore))
  }

  it.effect("a reader leaves at its deadline, and the others continue", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(1) })
      const call = (deadline: Duration.Input) => gpt.protectStream(slow, { dedupe: Ask("x"), deadline })
      const short = yield* read(call("1 second"))
      const long = yield* read(call("10 seconds"))
      yield* advance(4)
      const [exit] = yield* short.end
      assert.deepStrictEqual([refusedBy(exit), short.parts], ["DeadlineExceeded at Attempt", ["an"]])
      assert.deepStrictEqual([yield* long.end, long.parts], [[Exit.void, 2_000], ["an", "answer"]])
      assert.strictEqual(yield* stateTag(gpt), "Closed")
    }).pipe(withStore))

  it.effect("a stream that hangs opens the circuit, even if every reader has a deadline", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(1) })
      const call = gpt.protectStream(Stream.never, { dedupe: Ask("x"), deadline: "2 seconds" })
      const readers = yield* Effect.forEach(range(3), () => read(call))
      yield* advance(3)
      for (const { end } of readers) assert.strictEqual(refusedBy((yield* end)[0]), "DeadlineExceeded at Attempt")
      assert.strictEqual(yield* stateTag(gpt), "Open")
    }).pipe(withStore))

  it.effect("an open circuit refuses a deduplicated stream without a deadline at once", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ breaker: breaker(1) })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      const { exit, millis } = yield* readAll(gpt.protectStream(answer, { dedupe: Ask("x") }))
      assert.deepStrictEqual([refusedBy(exit), millis], ["CircuitOpen", 0])
    }).pipe(withStore))
})

describe("withReport of a stream", () => {
  it.effect("the report of a stream has attempts and waits, and whether it led or joined", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ retry: retry(2) })
      const { stream } = inTurn(broken, slow)
      const call = gpt.protectStream(stream, { dedupe: Ask("x") })
      const fibers = yield* Effect.forEach(range(2), () => Effect.forkChild(Sluice.withReport(Stream.runCollect(call))))
      yield* advance(3)
      const reports = (yield* Fiber.joinAll(fibers)).map(([, report]) => report)
      const common = { elapsedMillis: 3_000, stopped: undefined, refusal: undefined }
      assert.deepStrictEqual(reports, [
        { ...common, served: "Led", attempts: 2, waitedMillis: 1_000 },
        { ...common, served: "Joined", attempts: 0, waitedMillis: 0 }
      ])
    }).pipe(withStore))

  it.effect("the report of a stream says why it failed, without what other policies do inside it", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt()
      const inner = yield* Sluice.make({ name: "inner", retry: retry(3) })
      const nested = gpt.protectStream(inner.protectStream(broken))
      const fiber = yield* Effect.forkChild(Sluice.withReport(Stream.runDrain(nested)))
      yield* advance(3)
      const [exit, report] = yield* Fiber.join(fiber)
      assert.strictEqual(failureOf(exit), "503")
      assert.deepInclude(report, { attempts: 1, waitedMillis: 0, stopped: "Attempts" })
    }).pipe(withStore))
})

describe("interruption of streams", () => {
  it.effect("a stream interrupted anywhere leaves no permit, slot, probe or flight behind", () =>
    interruptEverywhere({
      make: Effect.gen(function*() {
        const gpt = yield* makeGpt({
          retry: retry(2),
          breaker: breaker(1),
          backpressure: { capacity: 1, queue: 1 },
          attemptTimeout: "5 seconds"
        })
        // Half-open, so that the stream is the probe.
        yield* Effect.exit(gpt.protect(Effect.fail("503")))
        yield* TestClock.adjust("10 seconds")
        return gpt
      }).pipe(Effect.orDie, withStore),
      run: (gpt) => {
        const stream = Stream.mapEffect(Stream.make("an", "answer"), (part) => Effect.as(yields(6), part))
        return Stream.runDrain(gpt.protectStream(stream, { dedupe: Ask("x"), deadline: "1 minute" }))
      },
      after: (gpt, at) =>
        Effect.gen(function*() {
          const state = yield* Effect.orDie(gpt.breaker.state("gpt"))
          if (state._tag === "HalfOpen") assert.strictEqual(state.probing, 0, at)
          else assert.strictEqual(state._tag, "Closed", at)
          assert.strictEqual((yield* gpt.deduplicator.stats).flights, 0, at)
          // One permit and two slots: one call runs, one is queued, a third is refused. The circuit is not the probe's.
          const call = <A, E>(self: Effect.Effect<A, E>) => gpt.protect(self, { key: "other" })
          const end = yield* Deferred.make<void>()
          const both = yield* Effect.forEach(
            range(2),
            () => Effect.forkChild(call(Deferred.await(end)), { startImmediately: true })
          )
          assert.strictEqual(refusedBy(yield* Effect.exit(call(Effect.void))), "BackpressureShed", at)
          yield* Deferred.succeed(end, undefined)
          yield* Effect.orDie(Fiber.joinAll(both))
        })
    }), 40_000)
})

describe("layerNoop", () => {
  class Gpt extends Sluice.Service<Gpt>()("test/streams/Gpt", { name: "gpt", backpressure: { capacity: 1 } }) {}

  it.effect("layerNoop returns a stream unchanged", () =>
    Effect.gen(function*() {
      const gpt = yield* Gpt
      assert.strictEqual(gpt.protectStream(answer, { deadline: 0 }), answer)
      assert.strictEqual(gpt.protectStream({ deadline: 0 })(answer), answer)
    }).pipe(Effect.provide(Gpt.layerNoop)))
})
