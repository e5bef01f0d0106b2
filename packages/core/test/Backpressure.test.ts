import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Effect, Exit, Fiber, Latch, References, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Backpressure from "../src/Backpressure.ts"
import { interruptEverywhere, yields } from "./support/probe.ts"

const make = (options?: Backpressure.BackpressureOptions) => Effect.orDie(Backpressure.make(options))

type Service = Backpressure.Backpressure["Service"]

/** How many run and how many wait. */
const load = (self: Service) => Effect.all([self.depth, self.queued])

/** Runs an effect in a fiber, up to where it first waits. */
const start = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

/** Holds a permit until it is let go. */
const hold = (self: Service) =>
  Effect.gen(function*() {
    const latch = yield* Latch.make()
    const fiber = yield* start(self.withPermit(latch.await))
    return { release: Effect.andThen(latch.open, Fiber.await(fiber)), interrupt: Fiber.interrupt(fiber) }
  })

const isShed = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) &&
  exit.cause.reasons.some((reason) =>
    Cause.isFailReason(reason) && reason.error instanceof Backpressure.BackpressureShed
  )

describe("Backpressure", () => {
  describe("at capacity", () => {
    it.effect("sheds a call without running it, and says how full it is", () =>
      Effect.gen(function*() {
        const guard = yield* make({ name: "model", capacity: 2 })
        yield* hold(guard)
        yield* hold(guard)
        let ran = false
        const shed = yield* Effect.flip(guard.withPermit(Effect.sync(() => {
          ran = true
        })))
        assert.isFalse(ran)
        assert.strictEqual(shed._tag, "BackpressureShed")
        assert.deepStrictEqual([shed.policy, shed.depth, shed.queued, shed.capacity], ["model", 2, 0, 2])
        assert.strictEqual(shed.message, "shed: 2 of 2 running, 0 waiting")
        assert.deepStrictEqual(yield* load(guard), [2, 0])
      }))

    it.effect("keeps as many as its queue has room for, and sheds the next", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 2 })
        yield* hold(guard)
        const first = yield* start(guard.withPermit(Effect.void))
        const second = yield* start(guard.withPermit(Effect.void))
        assert.deepStrictEqual(yield* load(guard), [1, 2])
        assert.isTrue(isShed(yield* Effect.exit(guard.withPermit(Effect.void))))
        assert.isUndefined(first.pollUnsafe() ?? second.pollUnsafe())
      }))

    it.effect("lets the next call in as soon as one has left", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        const held = yield* hold(guard)
        yield* held.release
        assert.strictEqual(yield* guard.withPermit(Effect.succeed("answer")), "answer")
      }))

    it.effect("carries a refusal across a wire", () =>
      Effect.gen(function*() {
        const shed = new Backpressure.BackpressureShed({ policy: "p", depth: 2, queued: 1, capacity: 2 })
        const json = yield* Schema.encodeEffect(Backpressure.BackpressureShed)(shed)
        assert.deepStrictEqual(json, { _tag: "BackpressureShed", policy: "p", depth: 2, queued: 1, capacity: 2 })
        assert.strictEqual((yield* Schema.decodeEffect(Backpressure.BackpressureShed)(json)).message, shed.message)
      }))
  })

  describe("the line", () => {
    it.effect("is served first come, first served", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 100 })
        const order: Array<number> = []
        const held = yield* hold(guard)
        const fibers = yield* Effect.forEach(
          Array.from({ length: 100 }, (_, index) => index),
          (index) => start(guard.withPermit(Effect.sync(() => order.push(index))))
        )
        yield* held.release
        yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual(order, Array.from({ length: 100 }, (_, index) => index))
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("closes up when those in front, in the middle and at the end leave it", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 5 })
        const order: Array<number> = []
        const held = yield* hold(guard)
        const fibers = yield* Effect.forEach(
          [0, 1, 2, 3, 4],
          (index) => start(guard.withPermit(Effect.sync(() => order.push(index))))
        )
        for (const index of [0, 2, 4]) {
          const fiber = fibers[index]
          if (fiber !== undefined) yield* Fiber.interrupt(fiber)
        }
        assert.deepStrictEqual(yield* load(guard), [1, 2])
        yield* held.release
        yield* Effect.forEach(fibers, Fiber.await)
        assert.deepStrictEqual(order, [1, 3])
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("does not let a newcomer overtake who waits", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 2 })
        const order: Array<string> = []
        const held = yield* hold(guard)
        const waiter = yield* start(guard.withPermit(Effect.sync(() => order.push("waiter"))))
        yield* held.release
        // The permit is the waiter's by now, though it has not run yet.
        yield* guard.withPermit(Effect.sync(() => order.push("newcomer")))
        yield* Fiber.join(waiter)
        assert.deepStrictEqual(order, ["waiter", "newcomer"])
      }))

    it.effect("of ten thousand synchronous jobs behind one permit is worked off without recursion", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 10_000 })
        let done = 0
        let running = 0
        let deepest = 0
        const job = Effect.sync(() => {
          deepest = Math.max(deepest, ++running)
          done++
          running--
        })
        const held = yield* hold(guard)
        const fibers = yield* Effect.forEach(Array.from({ length: 10_000 }), () => start(guard.withPermit(job)))
        assert.deepStrictEqual(yield* load(guard), [1, 10_000])
        yield* held.release
        yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual([done, deepest], [10_000, 1])
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("never has more running than the capacity, whatever comes and goes", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 3, queue: 1_000 })
        let running = 0
        let most = 0
        const job = (index: number) =>
          Effect.acquireUseRelease(
            Effect.sync(() => {
              most = Math.max(most, ++running)
            }),
            () => index % 3 === 0 ? Effect.fail("busy") : Effect.sleep(index % 7),
            () =>
              Effect.sync(() => {
                running--
              })
          )
        const fibers = yield* Effect.forEach(
          Array.from({ length: 500 }, (_, index) => index),
          (index) => start(Effect.exit(guard.withPermit(job(index))))
        )
        yield* Effect.forEach(fibers.filter((_, index) => index % 5 === 0), Fiber.interrupt)
        yield* TestClock.adjust("10 seconds")
        yield* Effect.forEach(fibers, Fiber.await)
        assert.deepStrictEqual([most, running], [3, 0])
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))
  })

  describe("a permit is given back exactly once", () => {
    const ends: ReadonlyArray<readonly [how: string, body: Effect.Effect<unknown, string>]> = [
      ["a success", Effect.succeed("answer")],
      ["a failure", Effect.fail("busy")],
      ["a defect", Effect.die("bug")],
      ["an interruption of its own", Effect.interrupt]
    ]
    for (const [how, body] of ends) {
      it.effect(`after ${how}, which is handed on as it is`, () =>
        Effect.gen(function*() {
          const guard = yield* make({ capacity: 2 })
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

    it.effect("after an interruption while it runs, once its finalizers are done", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        const body = Effect.onInterrupt(Effect.never, () => Effect.sleep("1 second"))
        // The first sleep of a TestClock can be interrupted even where nothing else can.
        yield* TestClock.adjust(0)
        const fiber = yield* start(guard.withPermit(body))
        const interrupting = yield* start(Fiber.interrupt(fiber))
        assert.deepStrictEqual(yield* load(guard), [1, 0])
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(interrupting)
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("after an interruption while it waits, which gives back the place in the line only", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 1 })
        const held = yield* hold(guard)
        let ran = false
        const waiter = yield* start(guard.withPermit(Effect.sync(() => {
          ran = true
        })))
        yield* Fiber.interrupt(waiter)
        assert.deepStrictEqual(yield* load(guard), [1, 0])
        yield* held.release
        assert.isFalse(ran)
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("after an interruption between the grant and the run: the next in line gets it", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 2 })
        const held = yield* hold(guard)
        const granted = yield* start(guard.withPermit(Effect.never))
        const next = yield* start(guard.withPermit(Effect.succeed("next")))
        yield* Effect.all([held.interrupt, Fiber.interrupt(granted)], { concurrency: "unbounded" })
        assert.strictEqual(yield* Fiber.join(next), "next")
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("wherever it is interrupted, while running", () =>
      interruptEverywhere({
        make: make({ capacity: 1, queue: 1 }),
        run: (guard) => guard.withPermit(yields(20)),
        after: (guard, at) => Effect.map(load(guard), (left) => assert.deepStrictEqual(left, [0, 0], at))
      }))

    it.effect("wherever it is interrupted, while waiting and when its turn comes", () =>
      interruptEverywhere({
        make: Effect.gen(function*() {
          const guard = yield* make({ capacity: 1, queue: 1 })
          // Leaves after some turns, so that the probe meets the line, the grant and the run.
          const ahead = yield* Effect.forkChild(guard.withPermit(yields(10)), { startImmediately: true })
          return { guard, ahead }
        }),
        run: ({ guard }) => guard.withPermit(yields(20)),
        after: ({ ahead, guard }, at) =>
          Effect.gen(function*() {
            yield* Fiber.join(ahead)
            assert.deepStrictEqual(yield* load(guard), [0, 0], at)
            assert.strictEqual(yield* guard.withPermit(Effect.succeed("free")), "free", at)
          })
      }))

    it.effect("and nobody in the line is forgotten, however often fibers give way", () =>
      Effect.gen(function*() {
        for (let opsBeforeYield = 3; opsBeforeYield <= 9; opsBeforeYield++) {
          const guard = yield* make({ capacity: 2, queue: 50 })
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
    it.effect("takes a permit for as long as its scope lives", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        yield* Effect.scoped(Effect.gen(function*() {
          yield* guard.tryAcquire
          assert.deepStrictEqual(yield* load(guard), [1, 0])
        }))
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("gives the permit back when what holds it fails or is interrupted", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        yield* Effect.exit(Effect.scoped(Effect.andThen(guard.tryAcquire, Effect.fail("busy"))))
        assert.deepStrictEqual(yield* load(guard), [0, 0])
        const fiber = yield* start(Effect.scoped(Effect.andThen(guard.tryAcquire, Effect.never)))
        assert.deepStrictEqual(yield* load(guard), [1, 0])
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("never waits, though there is room in the line", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 5 })
        yield* hold(guard)
        assert.isTrue(isShed(yield* Effect.exit(Effect.scoped(guard.tryAcquire))))
        assert.deepStrictEqual(yield* load(guard), [1, 0])
      }))

    it.effect("hands the permit to who waits when its scope closes", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 1 })
        const scope = yield* Scope.make()
        yield* Scope.provide(guard.tryAcquire, scope)
        const waiter = yield* start(guard.withPermit(Effect.succeed("next")))
        assert.deepStrictEqual(yield* load(guard), [1, 1])
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* Fiber.join(waiter), "next")
      }))

    it.effect("gives a permit back once, however often the scope is closed", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 2 })
        yield* hold(guard)
        const scope = yield* Scope.make()
        yield* Scope.provide(guard.tryAcquire, scope)
        yield* Scope.close(scope, Exit.void)
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(yield* load(guard), [1, 0])
      }))

    it.effect("takes no permit for good when its scope is closed already", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        const scope = yield* Scope.make()
        yield* Scope.close(scope, Exit.void)
        yield* Effect.exit(Scope.provide(guard.tryAcquire, scope))
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("leaves nothing behind wherever it is interrupted", () =>
      interruptEverywhere({
        make: make({ capacity: 1 }),
        run: (guard) => Effect.scoped(Effect.andThen(guard.tryAcquire, yields(20))),
        after: (guard, at) => Effect.map(load(guard), (left) => assert.deepStrictEqual(left, [0, 0], at))
      }))
  })

  describe("a stream", () => {
    it.effect("holds its permit to its end, not only until it is opened", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        const seen: Array<readonly [number, number]> = []
        yield* Stream.range(1, 3).pipe(
          Stream.rechunk(1),
          guard.withPermitStream,
          Stream.runForEach((n) =>
            Effect.map(guard.depth, (depth) => {
              seen.push([n, depth])
            })
          )
        )
        assert.deepStrictEqual(seen, [[1, 1], [2, 1], [3, 1]])
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("takes no permit until it is run, and a new one for each run", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        const stream = guard.withPermitStream(Stream.make(1))
        assert.deepStrictEqual(yield* load(guard), [0, 0])
        assert.deepStrictEqual(yield* Stream.runCollect(stream), [1])
        assert.deepStrictEqual(yield* Stream.runCollect(stream), [1])
      }))

    it.effect("gives its permit back when its consumer has enough", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        const endless = guard.withPermitStream(Stream.concat(Stream.make(1), Stream.never))
        assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(endless, 1)), [1])
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    for (const [how, end] of [["fails", Stream.fail("cut")], ["dies", Stream.die("bug")]] as const) {
      it.effect(`gives its permit back when it ${how} in the middle`, () =>
        Effect.gen(function*() {
          const guard = yield* make({ capacity: 1 })
          const exit = yield* Effect.exit(
            Stream.runDrain(
              guard.withPermitStream(Stream.concat<number, never, never, never, string, never>(Stream.make(1), end))
            )
          )
          assert.isTrue(Exit.isFailure(exit) && !isShed(exit))
          assert.deepStrictEqual(yield* load(guard), [0, 0])
        }))
    }

    it.effect("gives its permit back when its consumer fails or is interrupted", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        const stream = guard.withPermitStream(Stream.concat(Stream.make(1), Stream.never))
        yield* Effect.exit(Stream.runForEach(stream, () => Effect.fail("enough")))
        assert.deepStrictEqual(yield* load(guard), [0, 0])
        const fiber = yield* start(Stream.runDrain(stream))
        assert.deepStrictEqual(yield* load(guard), [1, 0])
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("is shed at capacity, and waits its turn where there is a line", () =>
      Effect.gen(function*() {
        const strict = yield* make({ capacity: 1 })
        yield* hold(strict)
        assert.isTrue(isShed(yield* Effect.exit(Stream.runDrain(strict.withPermitStream(Stream.make(1))))))

        const patient = yield* make({ capacity: 1, queue: 1 })
        const held = yield* hold(patient)
        const fiber = yield* start(Stream.runCollect(patient.withPermitStream(Stream.make(1))))
        assert.deepStrictEqual(yield* load(patient), [1, 1])
        yield* held.release
        assert.deepStrictEqual(yield* Fiber.join(fiber), [1])
        assert.deepStrictEqual(yield* load(patient), [0, 0])
      }))

    it.effect("gives back its place in the line when it is interrupted there", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 1 })
        yield* hold(guard)
        const fiber = yield* start(Stream.runDrain(guard.withPermitStream(Stream.make(1))))
        assert.deepStrictEqual(yield* load(guard), [1, 1])
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* load(guard), [1, 0])
      }))

    it.effect("leaves nothing behind wherever it is interrupted", () =>
      interruptEverywhere({
        make: Effect.gen(function*() {
          const guard = yield* make({ capacity: 1, queue: 1 })
          const ahead = yield* Effect.forkChild(guard.withPermit(yields(10)), { startImmediately: true })
          return { guard, ahead }
        }),
        run: ({ guard }) => Stream.runDrain(guard.withPermitStream(Stream.fromEffect(yields(20)))),
        after: ({ ahead, guard }, at) =>
          Effect.gen(function*() {
            yield* Fiber.join(ahead)
            assert.deepStrictEqual(yield* load(guard), [0, 0], at)
          })
      }))
  })

  describe("resize", () => {
    it.effect("to a larger capacity lets who waits in at once", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 5 })
        yield* hold(guard)
        const waiters = yield* Effect.forEach([1, 2, 3], () => hold(guard))
        assert.deepStrictEqual(yield* load(guard), [1, 3])
        yield* guard.resize(3)
        assert.deepStrictEqual(yield* load(guard), [3, 1])
        yield* Effect.forEach(waiters, (waiter) => waiter.interrupt)
        assert.deepStrictEqual(yield* load(guard), [1, 0])
      }))

    it.effect("to a smaller capacity lets what runs go on, and admits nobody until it fits", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 3 })
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

    it.effect("refuses a capacity that makes no sense, and keeps the one it has", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        for (const capacity of [0, -1, 1.5, NaN, Infinity]) {
          const invalid = yield* Effect.flip(guard.resize(capacity))
          assert.deepStrictEqual([invalid._tag, invalid.issues[0].option], ["InvalidOptions", "capacity"])
        }
        yield* hold(guard)
        assert.isTrue(isShed(yield* Effect.exit(guard.withPermit(Effect.void))))
      }))
  })

  describe("pressure", () => {
    const watch = (guard: Service) =>
      Effect.gen(function*() {
        const seen: Array<Backpressure.Pressure> = []
        yield* Effect.forkChild(
          Stream.runForEach(guard.pressure, (pressure) => Effect.sync(() => seen.push(pressure))),
          { startImmediately: true }
        )
        yield* yields(5)
        return Effect.map(yields(20), () => seen.map(({ depth, level }) => `${level} ${depth}`))
      })

    it.effect("tells each crossing of the limits once, on the way up and on the way down", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 4, softLimit: 2 })
        const seen = yield* watch(guard)
        const held = yield* Effect.forEach([1, 2, 3, 4], () => hold(guard))
        assert.deepStrictEqual(yield* seen, ["Soft 2", "Full 4"])
        yield* Effect.forEach(held, (one) => one.release)
        assert.deepStrictEqual(yield* seen, ["Soft 2", "Full 4", "Soft 3", "Normal 1"])
      }))

    it.effect("is silent about calls that cross no limit, and about those it sheds", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 4, softLimit: 2 })
        const held = yield* Effect.forEach([1, 2, 3], () => hold(guard))
        const seen = yield* watch(guard)
        yield* Effect.forEach(held.slice(2), (one) => one.release)
        for (let n = 0; n < 10; n++) yield* guard.withPermit(Effect.void)
        assert.deepStrictEqual(yield* seen, [])
        yield* Effect.forEach([1, 2], () => hold(guard))
        assert.deepStrictEqual(yield* seen, ["Full 4"])
        for (let n = 0; n < 10; n++) assert.isTrue(isShed(yield* Effect.exit(guard.withPermit(Effect.void))))
        assert.deepStrictEqual(yield* seen, ["Full 4"])
      }))

    it.effect("stays full while permits pass from call to call in the line", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 10 })
        const seen = yield* watch(guard)
        const held = yield* hold(guard)
        const fibers = yield* Effect.forEach(Array.from({ length: 10 }), () => start(guard.withPermit(Effect.void)))
        yield* held.release
        yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual(yield* seen, ["Full 1", "Normal 0"])
      }))

    it.effect("has no soft level without a soft limit", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 2 })
        const seen = yield* watch(guard)
        const held = yield* Effect.forEach([1, 2], () => hold(guard))
        yield* Effect.forEach(held, (one) => one.release)
        assert.deepStrictEqual(yield* seen, ["Full 2", "Normal 1"])
        assert.strictEqual(yield* guard.softDepthRatio, 0)
      }))

    it.effect("tells of a resize that crosses a limit, with its time", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 2 })
        yield* hold(guard)
        const first = yield* start(Stream.runHead(guard.pressure))
        yield* yields(5)
        yield* TestClock.adjust("3 seconds")
        yield* guard.resize(1)
        const pressure = yield* Effect.flatMap(Fiber.join(first), Effect.fromOption)
        assert.deepStrictEqual(pressure, { level: "Full", depth: 1, at: yield* Clock.currentTimeMillis })
      }))

    it.effect("is over soft limit as a ratio: 1 at it, more above", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 4, softLimit: 2 })
        const ratios: Array<number> = [yield* guard.softDepthRatio]
        for (let n = 0; n < 3; n++) {
          yield* hold(guard)
          ratios.push(yield* guard.softDepthRatio)
        }
        assert.deepStrictEqual(ratios, [0, 0.5, 1, 1.5])
      }))
  })

  describe("options", () => {
    const refused: ReadonlyArray<readonly [options: Backpressure.BackpressureOptions, issues: ReadonlyArray<string>]> =
      [
        [{ capacity: 0 }, ["capacity"]],
        [{ capacity: 1.5 }, ["capacity"]],
        [{ capacity: NaN }, ["capacity"]],
        [{ queue: -1 }, ["queue"]],
        [{ queue: Infinity }, ["queue"]],
        [{ capacity: 5, softLimit: 0 }, ["softLimit"]],
        [{ capacity: 5, softLimit: 5 }, ["softLimit"]],
        [{ capacity: 5, softLimit: 6 }, ["softLimit"]],
        [{ capacity: 5, softLimit: 1.5 }, ["softLimit"]],
        [{ capacity: 0, queue: -1, softLimit: 0 }, ["capacity", "queue", "softLimit"]]
      ]
    for (const [options, issues] of refused) {
      it.effect(`are refused, all at once: ${JSON.stringify(options)}`, () =>
        Effect.gen(function*() {
          const invalid = yield* Effect.flip(Effect.scoped(Backpressure.make(options)))
          assert.strictEqual(invalid._tag, "InvalidOptions")
          assert.strictEqual(invalid.module, "Backpressure")
          assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), issues)
        }))
    }

    it.effect("default to 16 at once and nobody waiting", () =>
      Effect.gen(function*() {
        const guard = yield* make()
        yield* Effect.forEach(Array.from({ length: 16 }), () => hold(guard))
        const shed = yield* Effect.flip(guard.withPermit(Effect.void))
        assert.deepStrictEqual([shed.depth, shed.queued, shed.capacity, shed.policy], [16, 0, 16, "backpressure"])
      }))
  })

  describe("layers", () => {
    it.effect("layer provides a guard with a state of its own", () =>
      Effect.gen(function*() {
        const guard = yield* Backpressure.Backpressure
        yield* hold(guard)
        assert.isTrue(isShed(yield* Effect.exit(guard.withPermit(Effect.void))))
        yield* Backpressure.Backpressure.use((other) => other.withPermit(Effect.void)).pipe(
          Effect.provide(Backpressure.layer({ capacity: 1 }))
        )
      }).pipe(Effect.provide(Backpressure.layer({ capacity: 1 }))))

    it.effect("layerNoop lets everything run at once", () =>
      Effect.gen(function*() {
        const guard = yield* Backpressure.Backpressure
        for (let n = 0; n < 100; n++) yield* hold(guard)
        yield* Effect.scoped(guard.tryAcquire)
        assert.deepStrictEqual(yield* Stream.runCollect(guard.withPermitStream(Stream.make(1))), [1])
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }).pipe(Effect.provide(Backpressure.layerNoop)))
  })
})
