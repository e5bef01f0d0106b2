import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { Hub } from "@sluice/core/Hub"

describe("Hub", () => {
  it.effect("dropped counts the events that slow readers lost, and cannot be set", () =>
    Effect.gen(function*() {
      const hub = new Hub<number>(2)
      yield* Effect.forkChild(Stream.runForEach(hub.stream, () => Effect.never), { startImmediately: true })
      for (let event = 0; event < 10; event++) hub.publish(event)
      const { dropped } = hub
      assert.isAbove(dropped, 0)
      // @ts-expect-error only the hub counts
      assert.throws(() => hub.dropped = 0, TypeError)
      assert.strictEqual(hub.dropped, dropped)
    }))
})

describe("Hub.merge", () => {
  it.effect("a reader of merged hubs gets the events of all of them from the moment of subscribing", () =>
    Effect.gen(function*() {
      const hubs = [new Hub<string>(), new Hub<string>(), new Hub<string>()]
      const merged = Hub.merge(hubs.map((hub, index) => Stream.map(hub.stream, (event) => `${index} ${event}`)))
      const reader = yield* Effect.forkChild(Stream.runCollect(merged), { startImmediately: true })
      // At once, without a turn of the scheduler in between.
      for (const hub of hubs) hub.publish("first")
      yield* Effect.forEach(hubs, (hub) => hub.close)
      assert.deepStrictEqual((yield* Fiber.join(reader)).toSorted(), ["0 first", "1 first", "2 first"])
    }))

  it.effect("it ends when all of its streams have ended, and at once without streams", () =>
    Effect.gen(function*() {
      const hubs = [new Hub<number>(), new Hub<number>()] as const
      const reader = yield* Effect.forkChild(Stream.runCollect(Hub.merge(hubs.map((hub) => hub.stream))), {
        startImmediately: true
      })
      yield* hubs[0].close
      yield* Effect.yieldNow
      hubs[1].publish(2)
      yield* hubs[1].close
      assert.deepStrictEqual(yield* Fiber.join(reader), [2])
      assert.deepStrictEqual(yield* Stream.runCollect(Hub.merge<number>([])), [])
    }))
})
