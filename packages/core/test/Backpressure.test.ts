import * as Backpressure from "@sluice/core/Backpressure"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, References, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { inspect } from "node:util"
import { fork } from "./support/effects.ts"
import { hold, isShed, load, makeGuard, whyShed } from "./support/permits.ts"

describe("Backpressure", () => {
  describe("at capacity", () => {
    it.effect("a call at capacity is refused without running, and the refusal shows the load", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ name: "model", capacity: 2 })
        yield* hold(guard)
        yield* hold(guard)
        let ran = false
        const shed = yield* Effect.flip(guard.withPermit(Effect.sync(() => {
          ran = true
        })))
        assert.isFalse(ran)
        assert.strictEqual(shed._tag, "BackpressureShed")
        assert.deepStrictEqual([shed.policy, shed.running, shed.queued, shed.capacity], ["model", 2, 0, 2])
        assert.deepStrictEqual(yield* load(guard), [2, 0])
      }))

    it.effect("calls queue up to the size of the queue, and the next one is refused", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 2 })
        yield* hold(guard)
        const first = yield* fork(guard.withPermit(Effect.void))
        const second = yield* fork(guard.withPermit(Effect.void))
        assert.deepStrictEqual(yield* load(guard), [1, 2])
        assert.isTrue(isShed(yield* Effect.exit(guard.withPermit(Effect.void))))
        assert.isUndefined(first.pollUnsafe() ?? second.pollUnsafe())
      }))

    it.effect("a released permit admits the next call", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        const held = yield* hold(guard)
        yield* held.release
        assert.strictEqual(yield* guard.withPermit(Effect.succeed("answer")), "answer")
      }))
  })

  describe("release of a permit", () => {
    const ends: ReadonlyArray<readonly [how: string, body: Effect.Effect<unknown, string>]> = [
      ["a success", Effect.succeed("answer")],
      ["a failure", Effect.fail("busy")],
      ["a defect", Effect.die("bug")],
      ["an interruption by the call itself", Effect.interrupt]
    ]
    for (const [how, body] of ends) {
      it.effect(`a permit is released once after ${how}, and the exit is unchanged`, () =>
        Effect.gen(function*() {
          const guard = yield* makeGuard({ capacity: 2 })
          const held = yield* hold(guard)
          const bare = yield* Effect.exit(body)
          for (let n = 0; n < 5; n++) {
            const exit = yield* Effect.exit(guard.withPermit(body))
            assert.strictEqual(exit._tag, bare._tag)
            assert.strictEqual(Exit.hasDies(exit), Exit.hasDies(bare))
            assert.strictEqual(Exit.hasInterrupts(exit), Exit.hasInterrupts(bare))
            assert.deepStrictEqual(yield* load(guard), [1, 0])
          }
          yield* held.release
          assert.deepStrictEqual(yield* load(guard), [0, 0])
        }))
    }

    it.effect("a call interrupted while it runs releases its permit after its finalizers", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        const body = Effect.onInterrupt(Effect.never, () => Effect.sleep("1 second"))
        // The first sleep of a TestClock can be interrupted even in an uninterruptible region.
        yield* TestClock.adjust(0)
        const fiber = yield* fork(guard.withPermit(body))
        const interrupting = yield* fork(Fiber.interrupt(fiber))
        assert.deepStrictEqual(yield* load(guard), [1, 0])
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(interrupting)
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("a call interrupted while queued leaves the queue and never runs", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 1 })
        const held = yield* hold(guard)
        let ran = false
        const waiter = yield* fork(guard.withPermit(Effect.sync(() => {
          ran = true
        })))
        yield* Fiber.interrupt(waiter)
        assert.deepStrictEqual(yield* load(guard), [1, 0])
        yield* held.release
        assert.isFalse(ran)
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("a permit granted to a call that is interrupted before it runs goes to the next in the queue", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 2 })
        const held = yield* hold(guard)
        const granted = yield* fork(guard.withPermit(Effect.never))
        const next = yield* fork(guard.withPermit(Effect.succeed("next")))
        yield* Effect.all([held.interrupt, Fiber.interrupt(granted)], { concurrency: "unbounded" })
        assert.strictEqual(yield* Fiber.join(next), "next")
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("every queued call runs, however often fibers yield", () =>
      Effect.gen(function*() {
        for (let opsBeforeYield = 3; opsBeforeYield <= 9; opsBeforeYield++) {
          const guard = yield* makeGuard({ capacity: 2, queue: 50 })
          let done = 0
          yield* Effect.all(
            Array.from({ length: 50 }, () =>
              guard.withPermit(Effect.sync(() => {
                done++
              }))),
            { concurrency: "unbounded" }
          ).pipe(Effect.provideService(References.MaxOpsBeforeYield, opsBeforeYield))
          assert.strictEqual(done, 50)
          assert.deepStrictEqual(yield* load(guard), [0, 0])
        }
      }))
  })

  describe("tryAcquire", () => {
    it.effect("tryAcquire holds a permit until its scope closes", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        yield* Effect.scoped(Effect.gen(function*() {
          yield* guard.tryAcquire
          assert.deepStrictEqual(yield* load(guard), [1, 0])
        }))
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("tryAcquire releases the permit when its holder fails or is interrupted", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        yield* Effect.exit(Effect.scoped(Effect.andThen(guard.tryAcquire, Effect.fail("busy"))))
        assert.deepStrictEqual(yield* load(guard), [0, 0])
        const fiber = yield* fork(Effect.scoped(Effect.andThen(guard.tryAcquire, Effect.never)))
        assert.deepStrictEqual(yield* load(guard), [1, 0])
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("tryAcquire never queues, even with room in the queue", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 5 })
        yield* hold(guard)
        assert.isTrue(isShed(yield* Effect.exit(Effect.scoped(guard.tryAcquire))))
        assert.deepStrictEqual(yield* load(guard), [1, 0])
      }))

    it.effect("closing the scope of tryAcquire hands the permit to a queued call", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 1 })
        const scope = yield* Scope.make()
        yield* Scope.provide(guard.tryAcquire, scope)
        const waiter = yield* fork(guard.withPermit(Effect.succeed("next")))
        assert.deepStrictEqual(yield* load(guard), [1, 1])
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* Fiber.join(waiter), "next")
      }))

    it.effect("closing the scope of tryAcquire twice releases the permit once", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 2 })
        yield* hold(guard)
        const scope = yield* Scope.make()
        yield* Scope.provide(guard.tryAcquire, scope)
        yield* Scope.close(scope, Exit.void)
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(yield* load(guard), [1, 0])
      }))

    it.effect("tryAcquire in a closed scope keeps no permit", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        const scope = yield* Scope.make()
        yield* Scope.close(scope, Exit.void)
        yield* Effect.exit(Scope.provide(guard.tryAcquire, scope))
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))
  })

  describe("streams", () => {
    it.effect("a stream holds its permit until it ends", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        const seen: Array<readonly [number, number]> = []
        yield* Stream.range(1, 3).pipe(
          Stream.rechunk(1),
          guard.withPermitStream,
          Stream.runForEach((n) =>
            Effect.map(guard.running, (running) => {
              seen.push([n, running])
            })
          )
        )
        assert.deepStrictEqual(seen, [[1, 1], [2, 1], [3, 1]])
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("a stream takes no permit until it runs, and a new one for each run", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        const stream = guard.withPermitStream(Stream.make(1))
        assert.deepStrictEqual(yield* load(guard), [0, 0])
        assert.deepStrictEqual(yield* Stream.runCollect(stream), [1])
        assert.deepStrictEqual(yield* Stream.runCollect(stream), [1])
      }))

    it.effect("a stream releases its permit when its consumer stops early", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        const endless = guard.withPermitStream(Stream.concat(Stream.make(1), Stream.never))
        assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(endless, 1)), [1])
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    for (const [how, end] of [["fails", Stream.fail("cut")], ["dies", Stream.die("bug")]] as const) {
      it.effect(`a stream that ${how} midway releases its permit`, () =>
        Effect.gen(function*() {
          const guard = yield* makeGuard({ capacity: 1 })
          const exit = yield* Effect.exit(
            Stream.runDrain(
              guard.withPermitStream(Stream.concat<number, never, never, never, string, never>(Stream.make(1), end))
            )
          )
          assert.isTrue(Exit.isFailure(exit) && !isShed(exit))
          assert.deepStrictEqual(yield* load(guard), [0, 0])
        }))
    }

    it.effect("a stream releases its permit when its consumer fails or is interrupted", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        const stream = guard.withPermitStream(Stream.concat(Stream.make(1), Stream.never))
        yield* Effect.exit(Stream.runForEach(stream, () => Effect.fail("enough")))
        assert.deepStrictEqual(yield* load(guard), [0, 0])
        const fiber = yield* fork(Stream.runDrain(stream))
        assert.deepStrictEqual(yield* load(guard), [1, 0])
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("a stream is refused at capacity without a queue, and queues with one", () =>
      Effect.gen(function*() {
        const refusing = yield* makeGuard({ capacity: 1 })
        yield* hold(refusing)
        assert.isTrue(isShed(yield* Effect.exit(Stream.runDrain(refusing.withPermitStream(Stream.make(1))))))

        const queueing = yield* makeGuard({ capacity: 1, queue: 1 })
        const held = yield* hold(queueing)
        const fiber = yield* fork(Stream.runCollect(queueing.withPermitStream(Stream.make(1))))
        assert.deepStrictEqual(yield* load(queueing), [1, 1])
        yield* held.release
        assert.deepStrictEqual(yield* Fiber.join(fiber), [1])
        assert.deepStrictEqual(yield* load(queueing), [0, 0])
      }))

    it.effect("a stream interrupted while queued leaves the queue", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 1 })
        yield* hold(guard)
        const fiber = yield* fork(Stream.runDrain(guard.withPermitStream(Stream.make(1))))
        assert.deepStrictEqual(yield* load(guard), [1, 1])
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* load(guard), [1, 0])
      }))
  })

  describe("resize", () => {
    it.effect("a larger capacity admits queued calls at once", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 5 })
        yield* hold(guard)
        const waiters = yield* Effect.forEach([1, 2, 3], () => hold(guard))
        assert.deepStrictEqual(yield* load(guard), [1, 3])
        yield* guard.resize(3)
        assert.deepStrictEqual(yield* load(guard), [3, 1])
        yield* Effect.forEach(waiters, (waiter) => waiter.interrupt)
        assert.deepStrictEqual(yield* load(guard), [1, 0])
      }))

    it.effect("a smaller capacity leaves running calls alone and admits none until they fit", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 3 })
        const held = yield* Effect.forEach([1, 2, 3], () => hold(guard))
        yield* guard.resize(1)
        assert.deepStrictEqual(yield* load(guard), [3, 0])
        for (const one of held.slice(0, 2)) {
          yield* one.release
          const shed = yield* Effect.flip(guard.withPermit(Effect.void))
          assert.strictEqual(shed.capacity, 1)
        }
        yield* Effect.forEach(held, (one) => one.release)
        yield* guard.withPermit(Effect.void)
      }))

    it.effect("a capacity below a queued request refuses that request, and those behind it move up", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 4, queue: 5 })
        const held = yield* hold(guard, 2)
        const heavy = yield* fork(guard.withPermits(Effect.void, { permits: 3 }))
        const light = yield* fork(guard.withPermits(Effect.succeed("light"), { permits: 2 }))
        yield* guard.resize(2)
        assert.strictEqual(yield* whyShed(heavy), "TooLarge")
        yield* held.release
        assert.strictEqual(yield* Fiber.join(light), "light")
      }))

    it.effect("resize refuses an invalid capacity and keeps the old one", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        for (const capacity of [0, -1, 1.5, NaN, Infinity, "2", null, undefined]) {
          // A value from a configuration file can have any type.
          const invalid = yield* Effect.flip(guard.resize(capacity as number))
          assert.deepStrictEqual([invalid._tag, invalid.issues[0].option], ["InvalidOptions", "capacity"])
        }
        yield* hold(guard)
        assert.isTrue(isShed(yield* Effect.exit(guard.withPermit(Effect.void))))
      }))
  })

  describe("options", () => {
    const refused: ReadonlyArray<readonly [options: unknown, issues: ReadonlyArray<string>]> = [
      [{ capacity: 0 }, ["capacity"]],
      [{ capacity: 1.5 }, ["capacity"]],
      [{ capacity: NaN }, ["capacity"]],
      [{ capacity: "5" }, ["capacity"]],
      [{ capacity: null }, ["capacity"]],
      [{ queue: -1 }, ["queue"]],
      [{ queue: Infinity }, ["queue"]],
      [{ queue: [1] }, ["queue"]],
      [{ maxWait: -1 }, ["maxWait"]],
      [{ maxWait: Infinity }, ["maxWait"]],
      [{ maxWait: "a while" }, ["maxWait"]],
      [{ maxWait: null }, ["maxWait"]],
      [{ capacity: 5, softLimit: 0 }, ["softLimit"]],
      [{ capacity: 5, softLimit: 5 }, ["softLimit"]],
      [{ capacity: 5, softLimit: 6 }, ["softLimit"]],
      [{ capacity: 5, softLimit: 1.5 }, ["softLimit"]],
      [{ capacity: 5, softLimit: "3" }, ["softLimit"]],
      [{ capacity: 5, softLimit: null }, ["softLimit"]],
      [{ softLimit: 4, softRelease: 4 }, ["softRelease"]],
      [{ softLimit: 4, softRelease: -1 }, ["softRelease"]],
      [{ softLimit: 4, softRelease: "1" }, ["softRelease"]],
      [{ softRelease: 1 }, ["softRelease"]],
      [{ name: 7 }, ["name"]],
      [{ name: null }, ["name"]],
      [{ capacity: 0, queue: -1, softLimit: 0 }, ["capacity", "queue", "softLimit"]],
      [
        { name: {}, capacity: Symbol("c"), queue: 1n, maxWait: Symbol("m"), softLimit: Symbol("s"), softRelease: 1n },
        ["name", "capacity", "queue", "maxWait", "softLimit", "softRelease"]
      ],
      [null, ["options"]],
      ["5", ["options"]],
      [5, ["options"]]
    ]
    for (const [options, issues] of refused) {
      it.effect(`invalid options are refused, all at once: ${inspect(options)}`, () =>
        Effect.gen(function*() {
          // A value from a configuration file can have any type.
          const given = options as Backpressure.BackpressureOptions
          const invalid = yield* Effect.flip(Effect.scoped(Backpressure.make(given)))
          assert.strictEqual(invalid._tag, "InvalidOptions")
          assert.strictEqual(invalid.module, "Backpressure")
          assert.deepStrictEqual(invalid.issues.map((issue) => issue.option).toSorted(), issues.toSorted())
          assert.notStrictEqual(invalid.message, "")
        }))
    }

    it.effect("the default is a capacity of 16 and no queue", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard()
        yield* Effect.forEach(Array.from({ length: 16 }), () => hold(guard))
        const shed = yield* Effect.flip(guard.withPermit(Effect.void))
        assert.deepStrictEqual([shed.running, shed.queued, shed.capacity, shed.policy], [16, 0, 16, "backpressure"])
      }))
  })

  describe("layers", () => {
    it.effect("each layer has its own permits", () =>
      Effect.gen(function*() {
        const guard = yield* Backpressure.Backpressure
        yield* hold(guard)
        assert.isTrue(isShed(yield* Effect.exit(guard.withPermit(Effect.void))))
        yield* Backpressure.Backpressure.use((other) => other.withPermit(Effect.void)).pipe(
          Effect.provide(Backpressure.layer({ capacity: 1 }))
        )
      }).pipe(Effect.provide(Backpressure.layer({ capacity: 1 }))))

    it.effect("layerNoop admits every call at once", () =>
      Effect.gen(function*() {
        const guard = yield* Backpressure.Backpressure
        for (let n = 0; n < 100; n++) yield* hold(guard, 5)
        yield* Effect.scoped(guard.tryAcquire)
        assert.strictEqual(yield* guard.withPermits(Effect.succeed(1), { permits: 5 }), 1)
        assert.deepStrictEqual(yield* Stream.runCollect(guard.withPermitStream(Stream.make(1))), [1])
        assert.deepStrictEqual(
          yield* Stream.runCollect(Stream.make(1).pipe(guard.withPermitsStream({ permits: 5 }))),
          [1]
        )
        assert.isTrue(yield* guard.drain)
        yield* guard.resume
        yield* guard.resize(1)
        assert.strictEqual(yield* guard.withPermit(Effect.succeed("in")), "in")
        assert.deepStrictEqual(yield* Stream.runCollect(guard.pressure), [])
        assert.deepInclude(yield* guard.snapshot, { running: 0, queued: 0, level: "Normal", draining: false })
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }).pipe(Effect.provide(Backpressure.layerNoop)))
  })
})
