import { assert, describe, it } from "@effect/vitest"
import { Cause, Channel, Clock, Context, Duration, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { yields } from "@sluice/testing/InterruptionProbe"
import { guard } from "../../src/internal/stream/guard.ts"
import { guarded, guardOptions, type Limits, type Part, type Step, summaryOf, Upstream } from "../support/scripted.ts"

/** Runs the stream to its end on the test clock. Returns its chunks, end and time, and checks that upstream is closed. */
const outcome = Effect.fnUntraced(function*(
  steps: ReadonlyArray<Step>,
  limits: Limits = {},
  options: { readonly connectMillis?: number; readonly perChunkMillis?: number } = {}
) {
  const upstream = new Upstream()
  const chunks: Array<string> = []
  let openAtEnd: number | undefined
  const fiber = yield* guarded(upstream, steps, limits, options.connectMillis).pipe(
    Stream.onError(() => Effect.sync(() => void (openAtEnd = upstream.open))),
    Stream.runForEachArray((chunk) => {
      chunks.push(chunk.join(""))
      return options.perChunkMillis === undefined ? Effect.void : Effect.sleep(options.perChunkMillis)
    }),
    Effect.forkChild
  )
  for (let i = 0; i < 100 && fiber.pollUnsafe() === undefined; i++) yield* TestClock.adjust(100)
  const at = yield* Clock.currentTimeMillis
  const exit = yield* Fiber.await(
    fiber.pollUnsafe() === undefined ? yield* Effect.die("the stream never ended") : fiber
  )
  assert.strictEqual(upstream.open, 0, "upstream was left open")
  if (openAtEnd !== undefined) assert.strictEqual(openAtEnd, 0, "the failure came before upstream was closed")
  return { summary: summaryOf(chunks, exit), at, upstream }
})

const summaryFor = (steps: ReadonlyArray<Step>, limits?: Limits, options?: Parameters<typeof outcome>[2]) =>
  Effect.map(outcome(steps, limits, options), ({ summary }) => summary)

const limited: Limits = { firstTokenMillis: 5000, idleMillis: 2000, deadlineAt: 60_000 }

describe.each([["without limits", {}], ["with limits", limited]] as const)("streamGuard %s", (_, base) => {
  it.effect.each<readonly [string, ReadonlyArray<Step>, Limits, string]>([
    ["output is handed on chunk by chunk", ["d", "dd", "f"], {}, "d | dd | f | end"],
    ["parts before the first output are held until it arrives", ["s", "u", "sd", "d", "f"], {}, "susd | d | f | end"],
    ["an attempt that fails before output hands on nothing", ["s", "u", "fail"], {}, "failed"],
    ["a failure after output is passed on", ["s", "d", "fail"], {}, "sd | failed"],
    ["a failure of the first pull is passed on", ["fail"], {}, "failed"],
    ["a connection lost before any part is passed on", ["lose"], {}, "lost"],
    ["a connection lost before output is a truncation", ["su", "lose"], {}, "lost after 2, nothing handed on"],
    ["a connection lost after output is a truncation", ["s", "d", "lose"], {}, "sd | lost after 2, some handed on"],
    ["a connection lost after the finish part ends the stream", ["d", "f", "lose"], {}, "d | f | end"],
    ["a defect is passed on", ["s", "die"], {}, "dies: broken"],
    ["an error part before output fails the stream", ["s", "e"], {}, "error part"],
    ["an error part in the first chunk fails the stream", ["se"], {}, "error part"],
    ["the parts before an error part are handed on", ["s", "dde", "d"], {}, "sdd | error part"],
    ["an error part at the start of a chunk fails the stream", ["d", "ed"], {}, "d | error part"],
    ["a stream without a finish part is truncated", ["s", "d", "d"], {}, "sd | d | truncated after 3, some handed on"],
    ["a stream without parts is truncated", [], {}, "truncated after 0, nothing handed on"],
    [
      "a stream that ends before output is truncated and hands on nothing",
      ["su"],
      {},
      "truncated after 2, nothing handed on"
    ],
    ["parts after the finish part are handed on", ["d", "f", "u"], {}, "d | f | u | end"],
    ["a failure after the finish part is ignored", ["d", "f", "fail"], {}, "d | f | end"],
    ["an error part after the finish part is ignored", ["d", "fue", "u"], {}, "d | fu | end"],
    ["a defect after the finish part is passed on", ["d", "f", "die"], {}, "d | f | dies: broken"],
    ["a complete stream without output fails as empty", ["s", "f"], {}, "empty"],
    ["an empty answer passes if the options allow it", ["s", "uf", "u"], { empty: () => undefined }, "suf | u | end"],
    [
      "parts beyond maxHeldParts are handed on without output",
      ["s", "s", "ss", "s", "df"],
      { maxHeldParts: 3 },
      "ssss | s | df | end"
    ],
    [
      "bytes beyond maxHeldBytes are handed on without output",
      ["s", "s", "s", "d", "f"],
      { maxHeldBytes: 200 },
      "ss | s | d | f | end"
    ],
    [
      "before an error part, the bound counts parts and not chunks",
      ["ssse"],
      { maxHeldParts: 2 },
      "sss | error part"
    ],
    [
      "parts handed on by a bound count as handed on",
      ["s", "s"],
      { maxHeldParts: 2 },
      "ss | truncated after 2, some handed on"
    ],
    [
      "a complete stream without output fails as empty even after a bound",
      ["ss", "uf"],
      { maxHeldParts: 2 },
      "ss | u | empty"
    ]
  ])(
    "%s",
    ([, steps, limits, expected]) =>
      Effect.map(summaryFor(steps, { ...base, ...limits }), (summary) => assert.strictEqual(summary, expected))
  )

  it.effect("a slow upstream has the same results", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* summaryFor([10, "s", 10, "d", 10, "f", 10, "u", 10], base), "sd | f | u | end")
      assert.strictEqual(yield* summaryFor(["yield", "s", "yield", "de", "d"], base), "sd | error part")
      assert.strictEqual(yield* summaryFor(["yield", "d", "yield"], base), "d | truncated after 1, some handed on")
    }))

  it.effect("onFirst is called once, at the first output", () =>
    Effect.gen(function*() {
      let times = 0
      yield* outcome(["s", "s", "sd", "d", "f"], { ...base, maxHeldParts: 2, onFirst: () => void times++ })
      assert.strictEqual(times, 1)
    }))

  it.effect("upstream is pulled no further than the consumer pulls", () =>
    Effect.gen(function*() {
      const upstream = new Upstream()
      const taken = yield* Stream.runCollect(Stream.take(guarded(upstream, ["s", "d", "d", "d", "f"], base), 2))
      assert.deepStrictEqual([taken, upstream.pulls, upstream.open], [["s", "d"], 2, 0])
    }))

  it.effect("upstream runs in one fiber", () =>
    Effect.map(
      outcome(["s", "yield", "d", 10, "d", "f"], base),
      ({ upstream }) => assert.strictEqual(upstream.fibers.size, 1)
    ))

  it.effect("upstream gets the consumer's services, and an exception of a callback is a defect", () =>
    Effect.gen(function*() {
      const Name = Context.Service<string>("Name")
      const named = Stream.fromEffect(Effect.map(Name, (name): Part => name === "here" ? "d" : "e"))
      const parts = yield* guard(Stream.concat(named, Stream.make<[Part]>("f")), guardOptions(base)).pipe(
        Stream.provideService(Name, "here"),
        Stream.runCollect
      )
      assert.deepStrictEqual(parts, ["d", "f"])
      const onFirst = () => {
        throw "bug"
      }
      const upstream = new Upstream()
      const exit = yield* Effect.exit(Stream.runDrain(guarded(upstream, ["yield", "d"], { ...base, onFirst })))
      assert.deepStrictEqual([summaryOf([], exit), upstream.open], ["dies: bug", 0])
    }))

  it.effect("upstream is closed before a failure or the end is handed on", () =>
    Effect.gen(function*() {
      for (const steps of [["d", "fail"], ["d", "f"], ["d"], ["e"], ["f"]]) {
        const upstream = new Upstream()
        const open = yield* guarded(upstream, steps, base).pipe(
          Stream.catchCause(() => Stream.empty),
          Stream.concat(Stream.fromEffect(Effect.sync(() => upstream.open))),
          Stream.runLast
        )
        assert.deepStrictEqual(open, yield* Effect.succeedSome(0))
      }
    }))

  it.effect("a consumer that pulls again gets the same failure or end", () =>
    Effect.scoped(Effect.gen(function*() {
      for (const [steps, expected] of [[["d", "fail"], "failed"], [["de"], "error part"]] as const) {
        const pull = yield* Stream.toPull(guarded(new Upstream(), steps, base))
        yield* pull
        assert.deepStrictEqual([yield* Effect.flip(pull), yield* Effect.flip(pull)], [expected, expected])
      }
      const pull = yield* Stream.toPull(guarded(new Upstream(), ["df"], base))
      yield* pull
      assert.isTrue(Cause.isDone(yield* Effect.flip(pull)))
      assert.isTrue(Cause.isDone(yield* Effect.flip(pull)))
    })))

  it.effect("a pull after the scope is closed is interrupted", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const pull = yield* Scope.provide(Stream.toPull(guarded(new Upstream(), ["d", "d", "f"], base)), scope)
      yield* pull
      yield* Scope.close(scope, Exit.void)
      const exit = yield* Effect.exit(pull)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
    }))

  it.effect("a pull after an interruption never ends as complete", () =>
    Effect.scoped(Effect.gen(function*() {
      const upstream = new Upstream()
      const own = yield* Effect.withFiber(Effect.succeed)
      const pull = yield* Stream.toPull(guarded(upstream, ["d", "hang", "f"], { ...base, idleMillis: 1e6 }))
      yield* pull
      const fiber = yield* Effect.forkChild(pull, { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      // They end at once, not only when the scope is closed.
      for (const fiber of upstream.fibers) assert.isTrue(fiber === own || fiber.pollUnsafe() !== undefined)
      const again = yield* Effect.exit(Effect.timeoutOption(pull, 1)).pipe(Effect.forkChild({ startImmediately: true }))
      yield* TestClock.adjust(1)
      const exit = yield* Fiber.join(again)
      assert.isFalse(Exit.isFailure(exit) && exit.cause.reasons.some((reason) => Cause.isFailReason(reason)))
    })))
})

describe("limits of streamGuard", () => {
  it.effect("a pull is interrupted before its upstream is closed", () =>
    Effect.gen(function*() {
      const events: Array<string> = []
      const note = (event: string) => Effect.sync(() => void events.push(event))
      const silence = Effect.onInterrupt(Effect.never, () => Effect.andThen(Effect.sleep(10), note("interrupted")))
      const upstream = Stream.fromChannel(
        Channel.fromTransform<readonly [Part], string, void, unknown, unknown, unknown, never, never, never>((
          _,
          scope
        ) => Effect.as(Scope.addFinalizer(scope, note("closed")), silence))
      )
      const stream = guard(upstream, guardOptions({ firstTokenMillis: 1000 }))
      const silent = yield* Effect.forkChild(Effect.exit(Stream.runDrain(stream)))
      yield* TestClock.adjust(1010)
      assert.strictEqual(summaryOf([], yield* Fiber.join(silent)), "silent first after 0")
      assert.deepStrictEqual(events, ["interrupted", "closed"])
      const left = yield* Effect.forkChild(Stream.runDrain(stream), { startImmediately: true })
      const leaving = yield* Effect.forkChild(Fiber.interrupt(left), { startImmediately: true })
      yield* TestClock.adjust(10)
      yield* Fiber.join(leaving)
      assert.deepStrictEqual(events, ["interrupted", "closed", "interrupted", "closed"])
    }))

  it.effect("a missing first token fails the stream", () =>
    Effect.gen(function*() {
      const { at, summary } = yield* outcome(["hang"], { firstTokenMillis: 3000 })
      assert.deepStrictEqual([summary, at], ["silent first after 0", 3000])
    }))

  it.effect("the first token limit includes connecting", () =>
    Effect.gen(function*() {
      const late = yield* outcome(["d", "f"], { firstTokenMillis: 3000 }, { connectMillis: 10_000 })
      assert.deepStrictEqual([late.summary, late.at], ["silent first after 0", 3000])
      assert.strictEqual(
        yield* summaryFor([2000, "d", "f"], { firstTokenMillis: 3000 }, { connectMillis: 2000 }),
        "silent first after 0"
      )
      assert.strictEqual(
        yield* summaryFor([500, "d", "f"], { firstTokenMillis: 3000 }, { connectMillis: 2000 }),
        "d | f | end"
      )
    }))

  it.effect("parts without output do not extend the first token limit", () =>
    Effect.gen(function*() {
      const { at, summary } = yield* outcome([900, "s", 900, "u", 900, "u", 900, "d"], { firstTokenMillis: 3000 })
      assert.deepStrictEqual([summary, at], ["silent first after 3", 3000])
    }))

  it.effect("parts handed on by a bound do not extend the first token limit", () =>
    Effect.gen(function*() {
      const steps = [900, "s", 900, "u", 900, "u", 900, "d"]
      const { at, summary } = yield* outcome(steps, { firstTokenMillis: 3000, idleMillis: 9000, maxHeldParts: 1 })
      assert.deepStrictEqual([summary, at], ["s | u | u | silent first after 3", 3000])
    }))

  it.effect("silence after output fails the stream", () =>
    Effect.gen(function*() {
      const { at, summary } = yield* outcome(["s", "d", 1900, "d", 1900, "u", 5000, "d"], { idleMillis: 2000 })
      assert.deepStrictEqual([summary, at], ["sd | d | u | silent idle after 4", 5800])
    }))

  it.effect("the idle limit applies only after the first output", () =>
    Effect.map(
      summaryFor([9000, "d", "f"], { idleMillis: 2000 }),
      (summary) => assert.strictEqual(summary, "d | f | end")
    ))

  it.effect("the first token limit ends with the first output", () =>
    Effect.map(
      summaryFor(["d", 9000, "d", "f"], { firstTokenMillis: 2000 }),
      (summary) => assert.strictEqual(summary, "d | d | f | end")
    ))

  it.effect("the idle limit replaces a later first token limit", () =>
    Effect.map(
      outcome(["yield", "s", 100, "d", 5000], { firstTokenMillis: 60_000, idleMillis: 1000 }),
      ({ at, summary }) => assert.deepStrictEqual([summary, at], ["sd | silent idle after 2", 1100])
    ))

  it.effect("a slow consumer trips no limit", () =>
    Effect.map(
      summaryFor(["d", 100, "d", 100, "d", "f"], { firstTokenMillis: 500, idleMillis: 500 }, { perChunkMillis: 2000 }),
      (summary) => assert.strictEqual(summary, "d | d | d | f | end")
    ))

  it.effect("the deadline fails the stream before and after output, even while parts arrive", () =>
    Effect.gen(function*() {
      const ticks = Array.from({ length: 40 }, (_, i) => i % 2 === 0 ? 400 : "d")
      const lively = yield* outcome(ticks, { idleMillis: 1000, deadlineAt: 2000 })
      assert.deepStrictEqual([lively.summary, lively.at], ["d | d | d | d | late", 2000])
      const silent = yield* outcome(["hang"], { firstTokenMillis: 60_000, deadlineAt: 4000 })
      assert.deepStrictEqual([silent.summary, silent.at], ["late", 4000])
    }))

  it.effect("upstream is not pulled after the deadline", () =>
    Effect.gen(function*() {
      const slow = yield* outcome(["d", "d", "d", "f"], { deadlineAt: 5000 }, { perChunkMillis: 3000 })
      assert.deepStrictEqual([slow.summary, slow.upstream.pulls], ["d | d | late", 2])
      yield* TestClock.setTime(10_000)
      const over = yield* outcome(["d", "f"], { deadlineAt: 10_000 })
      assert.deepStrictEqual([over.summary, over.upstream.opened], ["late", 0])
    }))

  it.effect("a complete answer ends even if its upstream stays open", () =>
    Effect.gen(function*() {
      const idle = yield* outcome(["d", "fu", "hang"], { idleMillis: 2000 })
      assert.deepStrictEqual([idle.summary, idle.at], ["d | fu | end", 2000])
      assert.strictEqual(yield* summaryFor(["d", "f", "hang"], { deadlineAt: 5000 }), "d | f | end")
      const empty = { empty: () => undefined, firstTokenMillis: 1, idleMillis: 2000 }
      assert.strictEqual(yield* summaryFor(["f", "hang"], empty), "f | end")
    }))

  it.effect("an uninterruptible upstream is awaited, and its late part is dropped", () =>
    Effect.gen(function*() {
      const { at, summary } = yield* outcome(["uninterruptible", "f"], { firstTokenMillis: 300 })
      assert.deepStrictEqual([summary, at], ["silent first after 0", 1000])
    }))

  it.effect("a part that arrives just before its limit is kept", () =>
    Effect.map(
      summaryFor([2000, "d", 1000, "f"], { firstTokenMillis: 2001, idleMillis: 1001 }),
      (summary) => assert.strictEqual(summary, "d | f | end")
    ))

  it.effect("an infinite limit is no limit", () =>
    Effect.map(
      summaryFor([5000, "d", 5000, "f"], { firstTokenMillis: Infinity, idleMillis: Infinity }),
      (summary) => assert.strictEqual(summary, "d | f | end")
    ))
})

describe("timers of streamGuard", () => {
  /** A clock that counts its sleeps. */
  const countSleeps = (clock: Clock.Clock) => {
    const timers = { armed: 0, pending: 0 }
    const counted: Clock.Clock = {
      ...clock,
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
      sleep: (duration) =>
        Effect.suspend(() => {
          timers.armed++
          timers.pending++
          return Effect.ensuring(clock.sleep(duration), Effect.sync(() => void timers.pending--))
        })
    }
    return { timers, counted }
  }

  /** The timers of a guarded stream. Upstream sleeps on another clock. */
  const timersOf = Effect.fnUntraced(function*(
    upstream: (clock: Clock.Clock) => Stream.Stream<Part, string>,
    limits: Limits
  ) {
    const clock = yield* Clock.Clock
    const { counted, timers } = countSleeps(clock)
    const fiber = yield* Stream.runDrain(guard(upstream(clock), guardOptions(limits))).pipe(
      Effect.provideService(Clock.Clock, counted),
      Effect.exit,
      Effect.forkChild
    )
    yield* TestClock.adjust("1 minute")
    yield* Fiber.join(fiber)
    return timers
  })

  const parts = (count: number, between: Effect.Effect<void>) => {
    const middle = Stream.mapEffect(Stream.range(1, count), () => Effect.as(between, "d" as Part))
    return Stream.concat(middle, Stream.make<[Part]>("f"))
  }

  it.effect("parts that arrive at once arm no timer", () =>
    Effect.map(
      timersOf(() => parts(2000, Effect.void), { firstTokenMillis: 1000, idleMillis: 1000 }),
      (timers) => assert.deepStrictEqual(timers, { armed: 0, pending: 0 })
    ))

  it.effect("a limit arms one timer, not one per part", () =>
    Effect.gen(function*() {
      const timers = yield* timersOf(
        (clock) => parts(2000, clock.sleep(Duration.millis(10))),
        { firstTokenMillis: 1000, idleMillis: 1000 }
      )
      // The parts take 20 seconds, and each timer lasts the rest of one second.
      assert.isAtMost(timers.armed, 22)
      assert.strictEqual(timers.pending, 0)
    }))

  it.effect("no timer is left, however the stream ends", () =>
    Effect.gen(function*() {
      const limits = { firstTokenMillis: 1000, idleMillis: 1000, deadlineAt: 1e9 }
      const { counted, timers } = countSleeps(yield* Clock.Clock)
      const scripts: ReadonlyArray<ReadonlyArray<Step>> = [
        ["yield", "d", "yield", "f"],
        ["yield", "fail"],
        ["yield", "d"],
        ["yield", "de"],
        ["hang"]
      ]
      for (const steps of scripts) {
        const { armed } = timers
        const fiber = yield* Stream.runDrain(guarded(new Upstream(), steps, limits)).pipe(
          Effect.provideService(Clock.Clock, counted),
          Effect.exit,
          Effect.forkChild
        )
        yield* yields(30)
        yield* Fiber.interrupt(fiber)
        assert.isAbove(timers.armed, armed)
        assert.strictEqual(timers.pending, 0, steps.join())
      }
    }))

  it.effect("elapsed time counts even if the clock is set back meanwhile", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      let back = 0
      const setBack: Clock.Clock = {
        ...clock,
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() - back,
        sleep: (duration) => clock.sleep(duration)
      }
      const fiber = yield* Stream.runDrain(guarded(new Upstream(), ["hang"], { firstTokenMillis: 1000 })).pipe(
        Effect.provideService(Clock.Clock, setBack),
        Effect.flip,
        Effect.forkChild({ startImmediately: true })
      )
      back = 3_600_000
      yield* TestClock.adjust(1000)
      yield* yields(10)
      assert.isDefined(fiber.pollUnsafe())
    }))

  it.live("the limits work on the real clock", () =>
    Effect.gen(function*() {
      const upstream = new Upstream()
      const exit = yield* Effect.exit(
        Stream.runDrain(guarded(upstream, ["d", "yield", "d", "hang"], { idleMillis: 200 }))
      )
      assert.strictEqual(summaryOf([], exit), "silent idle after 2")
      assert.strictEqual(upstream.open, 0)
    }))
})

describe("streamGuard on a clock that is set back by an hour", () => {
  it.effect.each<readonly [string, number, Limits, string]>([
    ["the deadline is as far away as before", 300, { idleMillis: 500, deadlineAt: 3_600_800 }, "late"],
    ["the first token limit is as far away as before", 0, { firstTokenMillis: 800 }, "silent first after 0"],
    ["parts in time trip no idle limit", 300, { idleMillis: 500 }, "end"]
  ])("%s", ([, everyMillis, limits, ending]) =>
    Effect.gen(function*() {
      const inner = yield* Clock.Clock
      let aheadMillis = 3_600_000
      const now = () => inner.currentTimeMillisUnsafe() + aheadMillis
      const clock: Clock.Clock = Object.assign(Object.create(inner), {
        currentTimeMillisUnsafe: now,
        currentTimeMillis: Effect.sync(now)
      })
      const parts: Stream.Stream<Part, string> = everyMillis === 0
        ? Stream.never
        : Stream.concat(
          Stream.fromIterable<Part>(Array.from({ length: 8 }, () => "d")).pipe(
            Stream.mapEffect((part) => Effect.as(inner.sleep(Duration.millis(everyMillis)), part))
          ),
          Stream.make<[Part]>("f")
        )
      const fiber = yield* guard(parts, guardOptions(limits)).pipe(
        Stream.runDrain,
        Effect.match({ onSuccess: () => "end", onFailure: (error) => error }),
        Effect.map((end) => `${end} ${inner.currentTimeMillisUnsafe()}`),
        Effect.provideService(Clock.Clock, clock),
        Effect.forkChild
      )
      yield* TestClock.adjust(100)
      aheadMillis = 0
      for (let i = 0; i < 40; i++) yield* TestClock.adjust(100)
      const result = yield* Fiber.join(fiber)
      assert.match(result, new RegExp(`^${ending} `))
      if (ending !== "end") assert.isAtMost(Number(result.split(" ").at(-1)), 1_200)
    }))
})
