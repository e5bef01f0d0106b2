import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { assert, describe, it as unit } from "@effect/vitest"
import { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import * as Sluice from "@sluice/core/Sluice"
import * as RedisStores from "@sluice/redis/RedisStores"
import { Config, ConfigProvider, Data, Effect, Exit, Fiber, Layer, Logger, Scope } from "effect"
import { Redis } from "effect/persistence"
import { TestClock } from "effect/testing"
import { circuitOf } from "./support/circuit.ts"
import { describeWithRedis, Namespace } from "./support/redis.ts"

class Unusable extends Data.TaggedError("Unusable")<{ readonly url: string }> {}

const quiet = Logger.layer([])
const down = new Redis.RedisError({ cause: Object.assign(new Error("down"), { code: "ECONNREFUSED" }) })

/** Fails to connect this often, then is `connection`. */
const connectingAfter = (failures: number, connection: Layer.Layer<Redis.Redis, Redis.RedisError>) => {
  let tries = 0
  return Layer.unwrap(Effect.suspend(() => tries++ < failures ? Effect.fail(down) : Effect.succeed(connection)))
}

const replyingWith = (reply: Effect.Effect<never, Redis.RedisError>): Redis.Redis["Service"] => ({
  send: () => reply,
  eval: () => () => reply,
  subscribe: () => Effect.never,
  reserve: Effect.never
})

const busy = new Redis.RedisError({ cause: new Error("BUSY") })

const errorOfRead = Effect.gen(function*() {
  const store = yield* CircuitBreakerStore
  return (yield* Effect.flip(circuitOf(store, "a").read)).description
})

describe("RedisStores.layerInBackground", () => {
  unit.live("a policy starts and makes its calls although Redis cannot be reached", () =>
    Effect.gen(function*() {
      class Gpt extends Sluice.Service<Gpt>()("test/Gpt", { name: "gpt", breaker: {} }) {}
      const connection = NodeRedis.layer({ url: "redis://127.0.0.1:1", disableOfflineQueue: true })
      const layer = Gpt.layerStore.pipe(Layer.provide(RedisStores.layerInBackground(connection)))
      const answer = yield* Gpt.use((gpt) => gpt.protect(Effect.succeed("an answer"))).pipe(
        Effect.provide(layer),
        Effect.provide(quiet)
      )
      assert.strictEqual(answer, "an answer")
    }))

  unit.effect("the store fails with the last error until Redis is connected", () =>
    Effect.gen(function*() {
      const logged: Array<unknown> = []
      const log = Logger.layer([Logger.make(({ message }) => void logged.push(message))])
      const connection = connectingAfter(2, Layer.succeed(Redis.Redis, Redis.Redis.of(replyingWith(Effect.fail(busy)))))
      yield* Effect.gen(function*() {
        assert.strictEqual(yield* errorOfRead, "Redis request failed (ECONNREFUSED)")
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(yield* errorOfRead, "Redis request failed (ECONNREFUSED)")
        yield* TestClock.adjust("200 millis")
        assert.strictEqual(yield* errorOfRead, "Redis answered BUSY")
      }).pipe(Effect.provide(RedisStores.layerInBackground(connection)), Effect.provide(log))
      assert.deepStrictEqual(logged.flat(), [
        "Redis request failed (ECONNREFUSED); starting without Redis and retrying in the background",
        "Redis is connected"
      ])
    }))

  unit.effect("an error that is not a RedisError fails the start and is not retried", () =>
    Effect.gen(function*() {
      const connection = NodeRedis.layerConfig({ url: Config.String("REDIS_URL") })
      const exit = yield* Effect.exit(errorOfRead.pipe(
        Effect.provide(RedisStores.layerInBackground(connection)),
        Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown({}))
      ))
      assert.isTrue(Exit.isFailure(exit))
    }))

  unit.effect("an error after the start is logged by its name, without its fields", () =>
    Effect.gen(function*() {
      const logged: Array<unknown> = []
      const log = Logger.layer([Logger.make(({ message }) => void logged.push(message))])
      const late = Effect.andThen(
        Effect.sleep("2 seconds"),
        Effect.fail(new Unusable({ url: "redis://me:password@10.1.2.3" }))
      )
      const connection = Layer.effect(Redis.Redis, late)
      yield* Effect.gen(function*() {
        assert.strictEqual(yield* errorOfRead, "Redis request failed (ENOTCONN)")
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(logged.flat(), ["Redis stays disconnected: its layer failed with Unusable"])
      }).pipe(
        Effect.provide(RedisStores.layerInBackground(connection)),
        Effect.provide(log),
        Effect.forkChild,
        Effect.tap(() => TestClock.adjust("1 second")),
        Effect.flatMap(Fiber.join)
      )
    }))

  unit.effect(
    "a connection that hangs delays the start by one second, and the end not at all",
    () =>
      Effect.gen(function*() {
        let closed = 0
        const hanging = Layer.effect(
          Redis.Redis,
          Effect.andThen(
            Effect.addFinalizer(() => Effect.andThen(Effect.sync(() => closed++), Effect.never)),
            Effect.never
          )
        )
        const scope = yield* Scope.make()
        const starting = yield* Effect.forkChild(
          Layer.buildWithScope(RedisStores.layerInBackground(hanging), scope)
        )
        yield* TestClock.adjust("999 millis")
        assert.isUndefined(starting.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.isDefined(starting.pollUnsafe())
        yield* Scope.close(scope, Exit.void)
        yield* Effect.yieldNow
        assert.strictEqual(closed, 1)
      })
  )

  unit.effect("failed attempts are closed at once, and the connection with the layer", () =>
    Effect.gen(function*() {
      let opened = 0
      let closed = 0
      let failures = 1
      const connection = Layer.effect(
        Redis.Redis,
        Effect.gen(function*() {
          opened++
          yield* Effect.addFinalizer(() => Effect.sync(() => closed++))
          if (failures-- > 0) return yield* down
          return Redis.Redis.of(replyingWith(Effect.fail(busy)))
        })
      )
      yield* Effect.gen(function*() {
        yield* TestClock.adjust("100 millis")
        assert.deepStrictEqual([opened, closed], [2, 1])
      }).pipe(Effect.provide(RedisStores.layerInBackground(connection)), Effect.provide(quiet))
      assert.deepStrictEqual([opened, closed], [2, 2])
    }))
})

await describeWithRedis("a Redis that is connected after the start", (it) => {
  it.effect("circuits are shared from then on", () =>
    Effect.gen(function*() {
      const { prefix, url } = yield* Namespace
      const connection = connectingAfter(1, NodeRedis.layer({ url, disableOfflineQueue: true }))
      yield* Effect.gen(function*() {
        const late = circuitOf(yield* CircuitBreakerStore, "late")
        assert.isTrue(Exit.isFailure(yield* Effect.exit(late.record(0, "X"))))
        for (let tries = 0; tries < 2_000 && (yield* Effect.result(late.read))._tag === "Failure"; tries++) {
          yield* Effect.sleep(10)
        }
        yield* late.record(0, "X")
      }).pipe(Effect.provide(RedisStores.layerInBackground(connection, { prefix })), Effect.provide(quiet))
      assert.strictEqual((yield* circuitOf(yield* CircuitBreakerStore, "late").read).evidence.ring, "X")
    }))
})
