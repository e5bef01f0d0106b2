/** The permits of a policy: slots that a call keeps over several attempts, and permits for each attempt. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { granted, type PermitRefusal, type PermitRequest, Permits } from "../../src/internal/permits/permits.ts"
import { yields } from "../support/probe.ts"

/** Permits whose refusals are their reasons. */
const make = (capacity: number, queue: number) =>
  Effect.map(
    Effect.all([Clock.Clock, Effect.context<never>()]),
    ([clock, context]) =>
      new Permits({
        capacity,
        queue,
        clock,
        context,
        onChange: () => {},
        error: (refusal: PermitRefusal) => refusal.why
      })
  )

type Subject = Effect.Success<ReturnType<typeof make>>

const at = (where: "Head" | "Tail", maxWaitMillis?: number): PermitRequest => ({ permits: 1, maxWaitMillis, where })

/** An attempt that waits for its permit and holds it until it is interrupted. */
const attempt = (permits: Subject, request: PermitRequest, onStart: () => void = () => {}) =>
  Effect.forkChild(
    Effect.suspend(() => {
      const made = permits.request(request)
      return Effect.onExitPrimitive(
        Effect.andThen(granted(made), Effect.andThen(Effect.sync(onStart), Effect.never)),
        () => {
          permits.settle(made, request)
          return undefined
        }
      )
    }),
    { startImmediately: true }
  )

describe("permits of a policy", () => {
  it.effect("there are as many slots as calls may run and be queued, whatever permits are in use", () =>
    Effect.gen(function*() {
      const permits = yield* make(2, 1)
      const taken = [permits.takeSlot(), permits.takeSlot(), permits.takeSlot(), permits.takeSlot()]
      assert.deepStrictEqual(taken, [true, true, true, false])
      assert.deepStrictEqual([permits.slots, permits.running], [3, 0])
      permits.leaveSlot()
      assert.isTrue(permits.takeSlot())
    }))

  it.effect("a second attempt gets its permit before a first attempt that was queued earlier", () =>
    Effect.gen(function*() {
      const permits = yield* make(1, 10)
      const order: Array<string> = []
      const running = yield* attempt(permits, at("Tail"), () => order.push("running"))
      const first = yield* attempt(permits, at("Tail"), () => order.push("first"))
      const again = yield* attempt(permits, at("Head"), () => order.push("again"))
      yield* Fiber.interrupt(running)
      yield* yields(3)
      yield* Fiber.interrupt(again)
      yield* yields(3)
      assert.deepStrictEqual(order, ["running", "again", "first"])
      yield* Fiber.interrupt(first)
      assert.deepStrictEqual([permits.running, permits.queued], [0, 0])
    }))

  it.effect("a free permit is taken without a request, unless an attempt is queued", () =>
    Effect.gen(function*() {
      const permits = yield* make(1, 10)
      assert.isTrue(permits.take(at("Tail")))
      assert.isFalse(permits.take(at("Tail")))
      const waiting = yield* attempt(permits, at("Tail"))
      permits.release(at("Tail"))
      // The queued attempt has the permit, though its fiber has not resumed yet.
      assert.isFalse(permits.take(at("Tail")))
      yield* Fiber.interrupt(waiting)
      assert.isTrue(permits.take(at("Tail")))
    }))

  it.effect("a permit comes back once, however often its request is settled", () =>
    Effect.gen(function*() {
      const permits = yield* make(2, 10)
      yield* Effect.sync(() => {
        const [one, other] = [permits.request(at("Tail")), permits.request(at("Tail"))]
        const waiting = permits.request(at("Tail"))
        for (let n = 0; n < 3; n++) permits.settle(one, at("Tail"))
        assert.deepStrictEqual([permits.running, permits.queued, waiting.state], [2, 0, "Granted"])
        for (let n = 0; n < 3; n++) permits.settle(waiting, at("Tail"))
        assert.strictEqual(permits.running, 1)
        permits.settle(other, at("Tail"))
        assert.strictEqual(permits.running, 0)
      })
    }))

  it.effect("a request without a slot takes one with its permit, and gives it back once", () =>
    Effect.gen(function*() {
      const permits = yield* make(1, 1)
      const single: PermitRequest = { permits: 1, maxWaitMillis: undefined, where: undefined }
      yield* Effect.sync(() => {
        const [running, queued, refused] = [permits.request(single), permits.request(single), permits.request(single)]
        assert.deepStrictEqual([permits.slots, permits.running, permits.queued], [2, 1, 1])
        for (const request of [refused, running, queued, refused, running, queued]) permits.settle(request, single)
        assert.deepStrictEqual([permits.slots, permits.running, permits.queued], [0, 0, 0])
      })
    }))

  it.effect("an attempt whose call has a slot is queued, however long the queue is", () =>
    Effect.gen(function*() {
      const permits = yield* make(1, 0)
      yield* attempt(permits, at("Tail"))
      yield* attempt(permits, at("Head"))
      assert.deepStrictEqual([permits.running, permits.queued, permits.shed.Full], [1, 1, 0])
    }))

  it.effect("each attempt is queued for at most its maxWait, at either end of the queue", () =>
    Effect.gen(function*() {
      const permits = yield* make(1, 10)
      yield* attempt(permits, at("Tail"))
      const early = yield* attempt(permits, at("Tail", 1_000))
      yield* TestClock.adjust(400)
      const late = yield* attempt(permits, at("Head", 1_000))
      yield* TestClock.adjust(600)
      assert.deepStrictEqual(yield* Effect.flip(Fiber.join(early)), "MaxWait")
      assert.isUndefined(late.pollUnsafe())
      yield* TestClock.adjust(400)
      assert.deepStrictEqual(yield* Effect.flip(Fiber.join(late)), "MaxWait")
    }))

  it.effect("a drain waits for every slot, also for those without a permit", () =>
    Effect.gen(function*() {
      const permits = yield* make(1, 10)
      assert.isTrue(permits.takeSlot())
      const drained = yield* Effect.forkChild(permits.drained, { startImmediately: true })
      assert.isFalse(permits.takeSlot())
      const again = yield* attempt(permits, at("Head"))
      assert.strictEqual(yield* Effect.flip(Fiber.join(again)), "Draining")
      yield* yields(3)
      assert.isUndefined(drained.pollUnsafe())
      permits.leaveSlot()
      assert.isTrue(yield* Fiber.join(drained))
      permits.resume()
      assert.isTrue(permits.takeSlot())
    }))
})
