import { assert, describe, it } from "@effect/vitest"
import { Cause, Channel, Clock, Context, Duration, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { yields } from "@sluice/testing/InterruptionProbe"
import { guard } from "../../src/internal/stream/guard.ts"
import { guarded, type Limits, type Part, rules, type Step, told, Upstream } from "../support/scripted.ts"

/** Runs it to its end on a clock that runs ahead, and says what came and that nothing is left. */
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
  const exit = yield* Fiber.await(fiber.pollUnsafe() === undefined ? yield* Effect.die("it never ended") : fiber)
  assert.strictEqual(upstream.open, 0, "upstream was left open")
  if (openAtEnd !== undefined) assert.strictEqual(openAtEnd, 0, "the failure came before upstream was closed")
  return { told: told(chunks, exit), at, upstream }
})

const say = (steps: ReadonlyArray<Step>, limits?: Limits, options?: Parameters<typeof outcome>[2]) =>
  Effect.map(outcome(steps, limits, options), ({ told }) => told)

const limited: Limits = { firstTokenMillis: 5000, idleMillis: 2000, deadlineAt: 60_000 }

describe.each([["without limits", {}], ["with limits", limited]] as const)("streamGuard, %s", (_, base) => {
  it.effect.each<readonly [string, ReadonlyArray<Step>, Limits, string]>([
    ["hands on what comes, chunk by chunk", ["d", "dd", "f"], {}, "d | dd | f | end"],
    ["holds what is no output until there is some", ["s", "u", "sd", "d", "f"], {}, "susd | d | f | end"],
    ["hands on nothing of an attempt that fails before output", ["s", "u", "fail"], {}, "failed"],
    ["passes on a failure after output", ["s", "d", "fail"], {}, "sd | failed"],
    ["passes on a failure of the first pull", ["fail"], {}, "failed"],
    ["passes on a defect", ["s", "die"], {}, "dies: broken"],
    ["fails by an error part before output", ["s", "e"], {}, "error part"],
    ["fails by an error part in the first chunk", ["se"], {}, "error part"],
    ["delivers what is good before an error part", ["s", "dde", "d"], {}, "sdd | error part"],
    ["fails by an error part that comes first in its chunk", ["d", "ed"], {}, "d | error part"],
    ["is truncated without a finish part", ["s", "d", "d"], {}, "sd | d | truncated after 3, some handed on"],
    ["is truncated without any part", [], {}, "truncated after 0, nothing handed on"],
    ["is truncated before output, and may be repeated", ["su"], {}, "truncated after 2, nothing handed on"],
    ["passes on what follows the finish part", ["d", "f", "u"], {}, "d | f | u | end"],
    ["is complete, whatever fails after the finish part", ["d", "f", "fail"], {}, "d | f | end"],
    ["is complete, whatever an error part says after it", ["d", "fue", "u"], {}, "d | fu | end"],
    ["does not hide a defect after the finish part", ["d", "f", "die"], {}, "d | f | dies: broken"],
    ["fails if it is complete without output", ["s", "f"], {}, "empty"],
    ["lets an empty answer pass if told so", ["s", "uf", "u"], { empty: () => undefined }, "suf | u | end"],
    ["hands on so many parts without output", ["s", "s", "ss", "s", "df"], { maxHeldParts: 3 }, "ssss | s | df | end"],
    ["hands on so many bytes without output", ["s", "s", "s", "d", "f"], { maxHeldBytes: 200 }, "ss | s | d | f | end"],
    [
      "bounds by part, not by chunk, what an error part throws away",
      ["ssse"],
      { maxHeldParts: 2 },
      "sss | error part"
    ],
    [
      "says that some was handed on by a bound",
      ["s", "s"],
      { maxHeldParts: 2 },
      "ss | truncated after 2, some handed on"
    ],
    ["fails if it is complete without output after a bound", ["ss", "uf"], { maxHeldParts: 2 }, "ss | u | empty"]
  ])(
    "%s",
    ([, steps, limits, expected]) =>
      Effect.map(say(steps, { ...base, ...limits }), (told) => assert.strictEqual(told, expected))
  )

  it.effect("does the same for an upstream that takes its time", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* say([10, "s", 10, "d", 10, "f", 10, "u", 10], base), "sd | f | u | end")
      assert.strictEqual(yield* say(["yield", "s", "yield", "de", "d"], base), "sd | error part")
      assert.strictEqual(yield* say(["yield", "d", "yield"], base), "d | truncated after 1, some handed on")
    }))

  it.effect("tells of the first output, once", () =>
    Effect.gen(function*() {
      let times = 0
      yield* outcome(["s", "s", "sd", "d", "f"], { ...base, maxHeldParts: 2, onFirst: () => void times++ })
      assert.strictEqual(times, 1)
    }))

  it.effect("pulls no further than it is asked to", () =>
    Effect.gen(function*() {
      const upstream = new Upstream()
      const taken = yield* Stream.runCollect(Stream.take(guarded(upstream, ["s", "d", "d", "d", "f"], base), 2))
      assert.deepStrictEqual([taken, upstream.pulls, upstream.open], [["s", "d"], 2, 0])
    }))

  it.effect("keeps upstream in one fiber", () =>
    Effect.map(
      outcome(["s", "yield", "d", 10, "d", "f"], base),
      ({ upstream }) => assert.strictEqual(upstream.fibers.size, 1)
    ))

  it.effect("gives upstream the consumer's services, and passes on what a callback throws", () =>
    Effect.gen(function*() {
      const Name = Context.Service<string>("Name")
      const named = Stream.fromEffect(Effect.map(Name, (name): Part => name === "here" ? "d" : "e"))
      const parts = yield* guard(Stream.concat(named, Stream.make<[Part]>("f")), rules(base)).pipe(
        Stream.provideService(Name, "here"),
        Stream.runCollect
      )
      assert.deepStrictEqual(parts, ["d", "f"])
      const onFirst = () => {
        throw "bug"
      }
      const upstream = new Upstream()
      const exit = yield* Effect.exit(Stream.runDrain(guarded(upstream, ["yield", "d"], { ...base, onFirst })))
      assert.deepStrictEqual([told([], exit), upstream.open], ["dies: bug", 0])
    }))

  it.effect("closes upstream before a failure or the end is handed on", () =>
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

  it.effect("says the same again to a consumer that pulls on", () =>
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

  it.effect("gives nothing to whoever pulls on when its scope is closed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const pull = yield* Scope.provide(Stream.toPull(guarded(new Upstream(), ["d", "d", "f"], base)), scope)
      yield* pull
      yield* Scope.close(scope, Exit.void)
      const exit = yield* Effect.exit(pull)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
    }))

  it.effect("never looks complete to whoever pulls on after an interruption", () =>
    Effect.scoped(Effect.gen(function*() {
      const upstream = new Upstream()
      const own = yield* Effect.withFiber(Effect.succeed)
      const pull = yield* Stream.toPull(guarded(upstream, ["d", "hang", "f"], { ...base, idleMillis: 1e6 }))
      yield* pull
      const fiber = yield* Effect.forkChild(pull, { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      // At once, not only when the scope is closed.
      for (const fiber of upstream.fibers) assert.isTrue(fiber === own || fiber.pollUnsafe() !== undefined)
      const again = yield* Effect.exit(Effect.timeoutOption(pull, 1)).pipe(Effect.forkChild({ startImmediately: true }))
      yield* TestClock.adjust(1)
      const exit = yield* Fiber.join(again)
      assert.isFalse(Exit.isFailure(exit) && exit.cause.reasons.some((reason) => Cause.isFailReason(reason)))
    })))
})

describe("streamGuard, its limits", () => {
  it.effect("interrupts the pull before it closes what the pull reads from", () =>
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
      const stream = guard(upstream, rules({ firstTokenMillis: 1000 }))
      const silent = yield* Effect.forkChild(Effect.exit(Stream.runDrain(stream)))
      yield* TestClock.adjust(1010)
      assert.strictEqual(told([], yield* Fiber.join(silent)), "silent first after 0")
      assert.deepStrictEqual(events, ["interrupted", "closed"])
      const left = yield* Effect.forkChild(Stream.runDrain(stream), { startImmediately: true })
      const leaving = yield* Effect.forkChild(Fiber.interrupt(left), { startImmediately: true })
      yield* TestClock.adjust(10)
      yield* Fiber.join(leaving)
      assert.deepStrictEqual(events, ["interrupted", "closed", "interrupted", "closed"])
    }))

  it.effect("fails when the first token does not come", () =>
    Effect.gen(function*() {
      const { at, told } = yield* outcome(["hang"], { firstTokenMillis: 3000 })
      assert.deepStrictEqual([told, at], ["silent first after 0", 3000])
    }))

  it.effect("counts connecting", () =>
    Effect.gen(function*() {
      const late = yield* outcome(["d", "f"], { firstTokenMillis: 3000 }, { connectMillis: 10_000 })
      assert.deepStrictEqual([late.told, late.at], ["silent first after 0", 3000])
      assert.strictEqual(
        yield* say([2000, "d", "f"], { firstTokenMillis: 3000 }, { connectMillis: 2000 }),
        "silent first after 0"
      )
      assert.strictEqual(
        yield* say([500, "d", "f"], { firstTokenMillis: 3000 }, { connectMillis: 2000 }),
        "d | f | end"
      )
    }))

  it.effect("is not stretched by parts that are no output", () =>
    Effect.gen(function*() {
      const { at, told } = yield* outcome([900, "s", 900, "u", 900, "u", 900, "d"], { firstTokenMillis: 3000 })
      assert.deepStrictEqual([told, at], ["silent first after 3", 3000])
    }))

  it.effect("nor by those that a bound has handed on", () =>
    Effect.gen(function*() {
      const steps = [900, "s", 900, "u", 900, "u", 900, "d"]
      const { at, told } = yield* outcome(steps, { firstTokenMillis: 3000, idleMillis: 9000, maxHeldParts: 1 })
      assert.deepStrictEqual([told, at], ["s | u | u | silent first after 3", 3000])
    }))

  it.effect("fails when nothing comes for too long after output", () =>
    Effect.gen(function*() {
      const { at, told } = yield* outcome(["s", "d", 1900, "d", 1900, "u", 5000, "d"], { idleMillis: 2000 })
      assert.deepStrictEqual([told, at], ["sd | d | u | silent idle after 4", 5800])
    }))

  it.effect("knows the idle limit of an answer that has begun only", () =>
    Effect.map(say([9000, "d", "f"], { idleMillis: 2000 }), (told) => assert.strictEqual(told, "d | f | end")))

  it.effect("stops knowing the first limit with the first output", () =>
    Effect.map(
      say(["d", 9000, "d", "f"], { firstTokenMillis: 2000 }),
      (told) => assert.strictEqual(told, "d | d | f | end")
    ))

  it.effect("puts the idle limit in the place of a first limit that was further off", () =>
    Effect.map(
      outcome(["yield", "s", 100, "d", 5000], { firstTokenMillis: 60_000, idleMillis: 1000 }),
      ({ at, told }) => assert.deepStrictEqual([told, at], ["sd | silent idle after 2", 1100])
    ))

  it.effect("trips nothing when the consumer is slow", () =>
    Effect.map(
      say(["d", 100, "d", 100, "d", "f"], { firstTokenMillis: 500, idleMillis: 500 }, { perChunkMillis: 2000 }),
      (told) => assert.strictEqual(told, "d | d | d | f | end")
    ))

  it.effect("fails at the deadline, before and after output, however lively it is", () =>
    Effect.gen(function*() {
      const ticks = Array.from({ length: 40 }, (_, i) => i % 2 === 0 ? 400 : "d")
      const lively = yield* outcome(ticks, { idleMillis: 1000, deadlineAt: 2000 })
      assert.deepStrictEqual([lively.told, lively.at], ["d | d | d | d | late", 2000])
      const silent = yield* outcome(["hang"], { firstTokenMillis: 60_000, deadlineAt: 4000 })
      assert.deepStrictEqual([silent.told, silent.at], ["late", 4000])
    }))

  it.effect("does not ask upstream after the deadline, though it might have an answer", () =>
    Effect.gen(function*() {
      const slow = yield* outcome(["d", "d", "d", "f"], { deadlineAt: 5000 }, { perChunkMillis: 3000 })
      assert.deepStrictEqual([slow.told, slow.upstream.pulls], ["d | d | late", 2])
      yield* TestClock.setTime(10_000)
      const over = yield* outcome(["d", "f"], { deadlineAt: 10_000 })
      assert.deepStrictEqual([over.told, over.upstream.opened], ["late", 0])
    }))

  it.effect("ends a complete answer whose upstream does not", () =>
    Effect.gen(function*() {
      const idle = yield* outcome(["d", "fu", "hang"], { idleMillis: 2000 })
      assert.deepStrictEqual([idle.told, idle.at], ["d | fu | end", 2000])
      assert.strictEqual(yield* say(["d", "f", "hang"], { deadlineAt: 5000 }), "d | f | end")
      const empty = { empty: () => undefined, firstTokenMillis: 1, idleMillis: 2000 }
      assert.strictEqual(yield* say(["f", "hang"], empty), "f | end")
    }))

  it.effect("waits for an upstream that lets nobody interrupt it, and throws away its answer", () =>
    Effect.gen(function*() {
      const { at, told } = yield* outcome(["deaf", "f"], { firstTokenMillis: 300 })
      assert.deepStrictEqual([told, at], ["silent first after 0", 1000])
    }))

  it.effect("keeps an answer that comes in the same moment as its limit", () =>
    Effect.map(
      say([2000, "d", 1000, "f"], { firstTokenMillis: 2001, idleMillis: 1001 }),
      (told) => assert.strictEqual(told, "d | f | end")
    ))

  it.effect("takes a limit of no end for none", () =>
    Effect.map(
      say([5000, "d", 5000, "f"], { firstTokenMillis: Infinity, idleMillis: Infinity }),
      (told) => assert.strictEqual(told, "d | f | end")
    ))
})

describe("streamGuard, its timers", () => {
  /** A clock that counts who sleeps on it. */
  const counting = (clock: Clock.Clock) => {
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

  /** Upstream sleeps on the test's own clock. */
  const timersOf = Effect.fnUntraced(function*(
    upstream: (clock: Clock.Clock) => Stream.Stream<Part, string>,
    limits: Limits
  ) {
    const clock = yield* Clock.Clock
    const { counted, timers } = counting(clock)
    const fiber = yield* Stream.runDrain(guard(upstream(clock), rules(limits))).pipe(
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

  it.effect("arms none for parts that come at once", () =>
    Effect.map(
      timersOf(() => parts(2000, Effect.void), { firstTokenMillis: 1000, idleMillis: 1000 }),
      (timers) => assert.deepStrictEqual(timers, { armed: 0, pending: 0 })
    ))

  it.effect("arms one per limit, not one per part", () =>
    Effect.gen(function*() {
      const timers = yield* timersOf(
        (clock) => parts(2000, clock.sleep(Duration.millis(10))),
        { firstTokenMillis: 1000, idleMillis: 1000 }
      )
      // 20 seconds, each timer as long as what is left of a second.
      assert.isAtMost(timers.armed, 22)
      assert.strictEqual(timers.pending, 0)
    }))

  it.effect("leaves none, however it ends", () =>
    Effect.gen(function*() {
      const limits = { firstTokenMillis: 1000, idleMillis: 1000, deadlineAt: 1e9 }
      const { counted, timers } = counting(yield* Clock.Clock)
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

  it.effect("counts what has gone by, also by a clock that is set back meanwhile", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      let back = 0
      const moody: Clock.Clock = {
        ...clock,
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() - back,
        sleep: (duration) => clock.sleep(duration)
      }
      const fiber = yield* Stream.runDrain(guarded(new Upstream(), ["hang"], { firstTokenMillis: 1000 })).pipe(
        Effect.provideService(Clock.Clock, moody),
        Effect.flip,
        Effect.forkChild({ startImmediately: true })
      )
      back = 3_600_000
      yield* TestClock.adjust(1000)
      yield* yields(10)
      assert.isDefined(fiber.pollUnsafe())
    }))

  it.live("runs on the machine's clock as well", () =>
    Effect.gen(function*() {
      const upstream = new Upstream()
      const exit = yield* Effect.exit(
        Stream.runDrain(guarded(upstream, ["d", "yield", "d", "hang"], { idleMillis: 20 }))
      )
      assert.strictEqual(told([], exit), "silent idle after 2")
      assert.strictEqual(upstream.open, 0)
    }))
})

describe("streamGuard on a clock that is set back by an hour", () => {
  it.effect.each<readonly [string, number, Limits, string]>([
    ["the deadline", 300, { idleMillis: 500, deadlineAt: 3_600_800 }, "late"],
    ["the time for the first output", 0, { firstTokenMillis: 800 }, "silent first after 0"],
    ["no idle limit, where parts come in time", 300, { idleMillis: 500 }, "end"]
  ])("%s is as far away as it was", ([, everyMillis, limits, ending]) =>
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
      const fiber = yield* guard(parts, rules(limits)).pipe(
        Stream.runDrain,
        Effect.match({ onSuccess: () => "end", onFailure: (error) => error }),
        Effect.map((told) => `${told} ${inner.currentTimeMillisUnsafe()}`),
        Effect.provideService(Clock.Clock, clock),
        Effect.forkChild
      )
      yield* TestClock.adjust(100)
      aheadMillis = 0
      for (let i = 0; i < 40; i++) yield* TestClock.adjust(100)
      const told = yield* Fiber.join(fiber)
      assert.match(told, new RegExp(`^${ending} `))
      if (ending !== "end") assert.isAtMost(Number(told.split(" ").at(-1)), 1_200)
    }))
})
