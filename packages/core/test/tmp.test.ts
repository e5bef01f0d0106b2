import { it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Backpressure from "../src/Backpressure.ts"
it.effect("x", () => Effect.gen(function*() {
  const guard = yield* Backpressure.make({ capacity: 1 })
  const plain = <A, E, R>(s: Effect.Effect<A, E, R>) => Effect.onExit(s, () => Effect.void)
  for (const [n, g] of [["plain", plain], ["plain", plain], ["guard", guard.withPermit], ["plain", plain], ["guard", guard.withPermit]] as const) {
  const log: string[] = [n]
  const fiber = yield* Effect.forkChild(Effect.onExit(g(Effect.onInterrupt(Effect.never, () => Effect.andThen(Effect.sync(() => log.push("start")), Effect.andThen(Effect.sleep("1 second"), Effect.sync(() => log.push("end")))))), (exit) => Effect.sync(() => log.push("out " + exit))), { startImmediately: true })
  log.push("d" + (yield* guard.depth))
  const i = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
  log.push("d" + (yield* guard.depth))
  yield* Effect.yieldNow
  log.push("d" + (yield* guard.depth))
  yield* TestClock.adjust("1 second")
  log.push("d" + (yield* guard.depth))
  yield* Fiber.join(i)
  console.log(log.join(", "))
  }
}))
