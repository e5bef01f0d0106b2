/** What a policy builds on: places that are kept over several attempts, and permits for each of them. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { granted, Permits, type Refusal } from "../src/internal/permits.ts"
import { yields } from "./support/probe.ts"

/** Permits whose refusals are their reasons. */
const make = (capacity: number, queue: number, maxWaitMillis?: number) =>
  Effect.map(
    Effect.all([Clock.Clock, Effect.context<never>()]),
    ([clock, context]) =>
      new Permits(capacity, queue, () => {}, {
        clock,
        fork: Effect.runForkWith(context),
        maxWaitMillis,
        error: (refusal: Refusal) => refusal.why
      })
  )

type Subject = Effect.Success<ReturnType<typeof make>>

/** An attempt that waits for its permit and holds it until it is interrupted. */
const attempt = (permits: Subject, where: "Head" | "Tail", started: () => void) =>
  Effect.forkChild(
    Effect.suspend(() => {
      const request = permits.request(where)
      return Effect.onExitPrimitive(
        Effect.andThen(granted(request), Effect.andThen(Effect.sync(started), Effect.never)),
        () => {
          permits.settle(request)
          return undefined
        }
      )
    }),
    { startImmediately: true }
  )

describe("permits of a policy", () => {
  it.effect("are one thing and places another: there are as many places as run and wait", () =>
    Effect.gen(function*() {
      const permits = yield* make(2, 1)
      assert.deepStrictEqual([permits.enter(), permits.enter(), permits.enter(), permits.enter()], [
        true,
        true,
        true,
        false
      ])
      assert.deepStrictEqual([permits.places, permits.running], [3, 0])
      permits.leave()
      assert.isTrue(permits.enter())
    }))

  it.effect("go to who comes back for another attempt before who comes for the first", () =>
    Effect.gen(function*() {
      const permits = yield* make(1, 10)
      const order: Array<string> = []
      const running = yield* attempt(permits, "Tail", () => order.push("running"))
      const first = yield* attempt(permits, "Tail", () => order.push("first"))
      const again = yield* attempt(permits, "Head", () => order.push("again"))
      yield* Fiber.interrupt(running)
      yield* yields(3)
      yield* Fiber.interrupt(again)
      yield* yields(3)
      assert.deepStrictEqual(order, ["running", "again", "first"])
      yield* Fiber.interrupt(first)
      assert.deepStrictEqual([permits.running, permits.queued], [0, 0])
    }))

  it.effect("are had without a request where they are free", () =>
    Effect.gen(function*() {
      const permits = yield* make(1, 10)
      assert.isTrue(permits.take(1))
      assert.isFalse(permits.take(1))
      const waiting = yield* attempt(permits, "Tail", () => {})
      permits.release(1)
      // It is the waiter's, though that has not gone on yet.
      assert.isFalse(permits.take(1))
      yield* Fiber.interrupt(waiting)
      assert.isTrue(permits.take(1))
    }))

  it.effect("come back once, however often their request is settled", () =>
    Effect.gen(function*() {
      const permits = yield* make(2, 10)
      yield* Effect.suspend(() =>
        Effect.sync(() => {
          const [one, other] = [permits.request("Tail"), permits.request("Tail")]
          const waiting = permits.request("Tail")
          for (let n = 0; n < 3; n++) permits.settle(one)
          assert.deepStrictEqual([permits.running, permits.queued, waiting.state], [2, 0, "Granted"])
          for (let n = 0; n < 3; n++) permits.settle(waiting)
          assert.strictEqual(permits.running, 1)
          permits.settle(other)
          assert.strictEqual(permits.running, 0)
        })
      )
    }))

  it.effect("are waited for by who has a place, though the line is as long as it may be", () =>
    Effect.gen(function*() {
      const permits = yield* make(1, 0)
      yield* attempt(permits, "Tail", () => {})
      yield* attempt(permits, "Head", () => {})
      assert.deepStrictEqual([permits.running, permits.queued, permits.shed.Full], [1, 1, 0])
    }))

  it.effect("are waited for by each attempt for as long as the policy says, at either end of the line", () =>
    Effect.gen(function*() {
      const permits = yield* make(1, 10, 1_000)
      yield* attempt(permits, "Tail", () => {})
      const early = yield* attempt(permits, "Tail", () => {})
      yield* TestClock.adjust(400)
      const late = yield* attempt(permits, "Head", () => {})
      yield* TestClock.adjust(600)
      assert.deepStrictEqual(yield* Effect.flip(Fiber.join(early)), "MaxWait")
      assert.isUndefined(late.pollUnsafe())
      yield* TestClock.adjust(400)
      assert.deepStrictEqual(yield* Effect.flip(Fiber.join(late)), "MaxWait")
    }))

  it.effect("and places are at rest only when every place is left, also those without a permit", () =>
    Effect.gen(function*() {
      const permits = yield* make(1, 10)
      assert.isTrue(permits.enter())
      const rest = yield* Effect.forkChild(permits.rest, { startImmediately: true })
      assert.isFalse(permits.enter())
      const again = yield* attempt(permits, "Head", () => {})
      assert.strictEqual(yield* Effect.flip(Fiber.join(again)), "Draining")
      yield* yields(3)
      assert.isUndefined(rest.pollUnsafe())
      permits.leave()
      assert.isTrue(yield* Fiber.join(rest))
      permits.resume()
      assert.isTrue(permits.enter())
    }))
})
