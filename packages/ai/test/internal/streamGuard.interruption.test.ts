import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as InterruptionProbe from "@sluice/testing/InterruptionProbe"
import { guard } from "../../src/internal/stream/guard.ts"
import { guarded, guardOptions, type Limits, type Step, Upstream } from "../support/scripted.ts"

const nothingLeft = (upstream: Upstream, at: string) =>
  Effect.sync(() => {
    assert.strictEqual(upstream.open, 0, `upstream is open, ${at}`)
    for (const fiber of upstream.fibers) assert.isDefined(fiber.pollUnsafe(), `a fiber still runs, ${at}`)
  })

const probe = (steps: ReadonlyArray<Step>, limits: Limits) =>
  InterruptionProbe.everywhere({
    make: Effect.sync(() => new Upstream()),
    run: (upstream) =>
      Stream.runForEachArray(guarded(upstream, steps, limits), () => InterruptionProbe.yields(2)).pipe(Effect.ignore),
    after: nothingLeft
  })

const yields = (count: number): Array<Step> => Array.from({ length: count }, () => "yield" as const)

describe.each<readonly [string, Limits]>([
  ["without limits", {}],
  ["with limits", { firstTokenMillis: 1e6, idleMillis: 1e6, deadlineAt: 1e9 }]
])("streamGuard interrupted at every step, %s", (_, limits) => {
  it.effect.each<readonly [string, ReadonlyArray<Step>]>([
    ["with a complete answer", ["s", ...yields(4), "d", "d", ...yields(4), "d", ...yields(9), "f", ...yields(9)]],
    ["that arrives at once", Array.from({ length: 20 }, (_, i) => i === 19 ? "f" : "d")],
    ["that is silent", ["s", "hang"]],
    ["that fails", ["s", ...yields(9), "d", ...yields(9), "fail"]],
    ["with an error part", ["s", ...yields(9), "dde"]],
    ["that is truncated", [...yields(9), "d", ...yields(9)]]
  ])("an interrupted stream %s leaves nothing open", ([, steps]) => probe(steps, limits), 60_000)
})

describe("streamGuard with a consumer that leaves", () => {
  const limits = { firstTokenMillis: 1000, idleMillis: 1000 }

  it.effect("an interruption at the moment of the limit leaves nothing open", () =>
    Effect.gen(function*() {
      for (let turns = 0; turns < 40; turns++) {
        const upstream = new Upstream()
        const fiber = yield* Effect.forkChild(Stream.runDrain(guarded(upstream, ["s", "hang"], limits)))
        yield* TestClock.adjust(999)
        const adjusting = yield* Effect.forkChild(TestClock.adjust(1))
        yield* InterruptionProbe.yields(turns)
        yield* Fiber.interrupt(fiber)
        yield* Fiber.join(adjusting)
        yield* nothingLeft(upstream, `after ${turns} turns`)
      }
    }))

  it.effect("upstream closes when the consumer stops, fails or is interrupted", () =>
    Effect.gen(function*() {
      const steps: ReadonlyArray<Step> = ["yield", "s", "d", "yield", "d", "hang"]
      const leavers: ReadonlyArray<(stream: Stream.Stream<string, string>) => Effect.Effect<unknown, unknown>> = [
        (stream) => Stream.runHead(stream),
        (stream) => Stream.runDrain(Stream.take(stream, 2)),
        (stream) => Stream.runForEach(stream, () => Effect.fail("enough")),
        (stream) => Stream.runForEach(stream, () => Effect.die("bug")),
        (stream) => Stream.runDrain(Stream.interruptWhen(stream, Effect.sleep(10)))
      ]
      for (const leave of leavers) {
        const upstream = new Upstream()
        const fiber = yield* Effect.forkChild(Effect.exit(leave(guarded(upstream, steps, limits))))
        yield* TestClock.adjust(20)
        yield* Fiber.join(fiber)
        yield* nothingLeft(upstream, "left")
        assert.strictEqual(upstream.opened, 1)
      }
    }))

  it.effect("a fiber forked by a pull lives as long as the attempt and no longer", () =>
    Effect.gen(function*() {
      let ticks = 0
      const ticking = Effect.forever(Effect.andThen(Effect.sleep(100), Effect.sync(() => void ticks++)))
      const upstream = Stream.concat(
        Stream.fromEffect(Effect.as(Effect.forkChild(ticking), "d" as const)),
        Stream.mapEffect(Stream.make("d" as const, "d" as const, "s" as const), (part) =>
          part === "s" ? Effect.never : Effect.as(Effect.sleep(900), part))
      )
      const fiber = yield* Effect.forkChild(Effect.flip(Stream.runDrain(guard(upstream, guardOptions(limits)))))
      yield* TestClock.adjust(1750)
      assert.strictEqual(ticks, 17)
      yield* TestClock.adjust(10_000)
      assert.strictEqual(yield* Fiber.join(fiber), "silent idle after 3")
      // The limit is 1,000 ms after the last part.
      assert.strictEqual(ticks, 27)
    }))
})
