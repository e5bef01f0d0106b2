import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  Context,
  Duration,
  Effect,
  Exit,
  Fiber,
  Latch,
  Metric,
  Option,
  References,
  Scheduler,
  Schema,
  Scope,
  Stream
} from "effect"
import { TestClock } from "effect/testing"
import { inspect } from "node:util"
import * as Backpressure from "../src/Backpressure.ts"
import { yields } from "./support/probe.ts"

const make = (options?: Backpressure.BackpressureOptions) => Effect.orDie(Backpressure.make(options))

type Service = Backpressure.Backpressure["Service"]

/** How many run and how many wait. */
const load = (self: Service) => Effect.all([self.depth, self.queued])

/** Runs an effect in a fiber, up to where it first waits. */
const start = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

/** Holds permits until they are let go. */
const hold = (self: Service, permits = 1) =>
  Effect.gen(function*() {
    const latch = yield* Latch.make()
    const fiber = yield* start(self.withPermits(latch.await, { permits }))
    return { release: Effect.andThen(latch.open, Fiber.await(fiber)), interrupt: Fiber.interrupt(fiber) }
  })

const shedIn = (exit: Exit.Exit<unknown, unknown>): Backpressure.BackpressureShed | undefined => {
  const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
  return error instanceof Backpressure.BackpressureShed ? error : undefined
}

const isShed = (exit: Exit.Exit<unknown, unknown>) => shedIn(exit) !== undefined

/** The refusal of a call. */
const shedOf = <R>(self: Effect.Effect<unknown, unknown, R>) => Effect.map(Effect.exit(self), shedIn)

/** Why the call was refused, once it has been. */
const whyShed = (fiber: Fiber.Fiber<unknown, unknown>) => Effect.map(Fiber.await(fiber), (exit) => shedIn(exit)?.why)

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

    it.effect("to a capacity below what somebody waits for refuses that one, and nobody behind it waits for it", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 4, queue: 5 })
        const held = yield* hold(guard, 2)
        const heavy = yield* start(guard.withPermits(Effect.void, { permits: 3 }))
        const light = yield* start(guard.withPermits(Effect.succeed("light"), { permits: 2 }))
        yield* guard.resize(2)
        assert.strictEqual(yield* whyShed(heavy), "TooLarge")
        yield* held.release
        assert.strictEqual(yield* Fiber.join(light), "light")
      }))

    it.effect("refuses a capacity that makes no sense, and keeps the one it has", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        for (const capacity of [0, -1, 1.5, NaN, Infinity, "2", null, undefined]) {
          // What is read from a file has any type at all.
          const invalid = yield* Effect.flip(guard.resize(capacity as number))
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

    it.effect("is left lower than it is reached: what comes and goes at a limit crosses it once", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 16, softLimit: 8 })
        const seen = yield* watch(guard)
        const held = [...(yield* Effect.forEach(Array.from({ length: 7 }), () => hold(guard)))]
        for (let n = 0; n < 5; n++) yield* guard.withPermit(Effect.void)
        assert.deepStrictEqual(yield* seen, ["Soft 8"])
        yield* held.pop()!.release
        assert.deepStrictEqual(yield* seen, ["Soft 8", "Normal 6"])
        held.push(...(yield* Effect.forEach(Array.from({ length: 9 }), () => hold(guard))))
        for (let n = 0; n < 5; n++) yield* guard.withPermit(Effect.void)
        assert.deepStrictEqual((yield* seen).slice(2), ["Soft 8", "Full 16"])
        yield* Effect.forEach(held.splice(0, 3), (one) => one.release)
        assert.deepStrictEqual((yield* seen).slice(4), ["Soft 12"])
      }))

    it.effect("is left where softRelease says", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 16, softLimit: 8, softRelease: 1 })
        const seen = yield* watch(guard)
        const held = yield* Effect.forEach(Array.from({ length: 8 }), () => hold(guard))
        yield* Effect.forEach(held.slice(0, 6), (one) => one.release)
        assert.deepStrictEqual(yield* seen, ["Soft 8"])
        yield* Effect.forEach(held, (one) => one.release)
        assert.deepStrictEqual(yield* seen, ["Soft 8", "Normal 1"])
      }))

    it.effect("is full while somebody waits, though some permits are free", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 8, queue: 1 })
        const seen = yield* watch(guard)
        yield* hold(guard, 4)
        const waiting = yield* start(guard.withPermits(Effect.void, { permits: 5 }))
        assert.deepStrictEqual(yield* seen, ["Full 4"])
        yield* Fiber.interrupt(waiting)
        assert.deepStrictEqual(yield* seen, ["Full 4", "Normal 4"])
      }))

    it.effect("counts what a slow reader missed, and keeps the newest for it", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        const gate = yield* Latch.make()
        const seen: Array<Backpressure.Pressure> = []
        yield* start(Stream.runForEach(
          Stream.rechunk(guard.pressure, 1),
          (pressure) => Effect.andThen(gate.await, Effect.sync(() => seen.push(pressure)))
        ))
        yield* yields(5)
        for (let n = 0; n < 500; n++) yield* guard.withPermit(Effect.void)
        const held = yield* hold(guard)
        const { dropped } = yield* guard.snapshot
        assert.isAbove(dropped, 0)
        yield* gate.open
        yield* yields(2_000)
        assert.strictEqual(seen.length + dropped, 1_001)
        assert.strictEqual(seen.at(-1)?.level, "Full")
        yield* held.release
      }))

    it.effect("ends with the scope of the service", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const guard = yield* Scope.provide(make({ capacity: 1 }), scope)
        const reader = yield* start(Stream.runCollect(guard.pressure))
        yield* yields(5)
        yield* Scope.close(scope, Exit.void)
        yield* Fiber.await(reader)
        assert.deepStrictEqual(yield* Effect.exit(Stream.runCollect(guard.pressure)), Exit.succeed([]))
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

  describe("a refusal", () => {
    const seconds = Duration.seconds

    it.effect("says why, of what, and on which evidence", () =>
      Effect.gen(function*() {
        const guard = yield* make({ name: "gpt", capacity: 4, queue: 1, maxWait: "2 seconds" })
        yield* hold(guard, 3)
        const tooLarge = yield* shedOf(guard.withPermits(Effect.void, { permits: 5 }))
        const maxWait = yield* start(guard.withPermits(Effect.void, { permits: 2 }))
        const full = yield* Effect.flip(guard.withPermit(Effect.void))
        yield* TestClock.adjust("2 seconds")
        yield* start(guard.drain)
        const draining = yield* Effect.flip(guard.withPermit(Effect.void))
        const given = { _tag: "BackpressureShed", policy: "gpt", depth: 3, capacity: 4 }
        assert.deepStrictEqual({ ...tooLarge }, { ...given, why: "TooLarge", permits: 5, queued: 0 })
        assert.deepStrictEqual({ ...full }, { ...given, why: "Full", permits: 1, queued: 1 })
        assert.deepStrictEqual({ ...shedIn(yield* Fiber.await(maxWait)) }, {
          ...given,
          why: "MaxWait",
          permits: 2,
          queued: 0,
          waited: seconds(2)
        })
        assert.deepStrictEqual({ ...draining }, { ...given, why: "Draining", permits: 1, queued: 0 })
      }))

    const given = { policy: "gpt", permits: 1, depth: 3, queued: 7, capacity: 4 }
    const messages: ReadonlyArray<readonly [shed: Backpressure.BackpressureShed, message: string]> = [
      [
        new Backpressure.BackpressureShed({ ...given, why: "Full" }),
        "gpt: queue is full (3 of 4 permits in use, 7 queued). Raise capacity or queue, or send fewer calls at once"
      ],
      [
        new Backpressure.BackpressureShed({ ...given, why: "Full", permits: 2, retryAfter: seconds(3) }),
        "gpt: queue is full (3 of 4 permits in use, 7 queued, 2 permits requested); retry in 3s. " +
        "Raise capacity or queue, or send fewer calls at once"
      ],
      [
        new Backpressure.BackpressureShed({ ...given, why: "MaxWait", waited: seconds(2) }),
        "gpt: no permit after 2s (3 of 4 permits in use, 7 queued). Raise capacity or maxWait, or send fewer calls at once"
      ],
      [
        new Backpressure.BackpressureShed({ ...given, why: "Draining" }),
        "gpt: draining, no call starts (3 of 4 permits in use, 7 queued). Send it elsewhere, or retry after resume"
      ],
      [
        new Backpressure.BackpressureShed({ ...given, why: "TooLarge", permits: 5 }),
        "gpt: 5 of 4 permits requested. Request fewer, or raise capacity"
      ]
    ]
    for (const [shed, message] of messages) {
      it.effect(`${shed.why} says what to change, here and behind a wire`, () =>
        Effect.gen(function*() {
          assert.strictEqual(shed.message, message)
          const json = JSON.stringify(yield* Schema.encodeEffect(Backpressure.BackpressureShed)(shed))
          const back = yield* Schema.decodeUnknownEffect(Backpressure.BackpressureShed)(JSON.parse(json))
          assert.deepStrictEqual(back, shed)
          assert.strictEqual(back.message, message)
        }))
    }

    it.effect("says when to come back once every permit has come back, and nothing before that", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 2, queue: 10 })
        const call = start(guard.withPermit(Effect.sleep("3 seconds")))
        const retryAfter = Effect.map(
          shedOf(guard.withPermits(Effect.void, { maxWait: 0 })),
          (shed) => shed?.retryAfter
        )
        for (let n = 0; n < 8; n++) yield* call
        // Two that run, and six that wait: two more come to run every three seconds.
        assert.isUndefined(yield* retryAfter)
        yield* TestClock.adjust("3 seconds")
        // Four wait, and one more: five permits at two in three seconds.
        assert.deepStrictEqual(yield* retryAfter, Duration.millis(7500))
        yield* TestClock.adjust("3 seconds")
        assert.deepStrictEqual(yield* retryAfter, Duration.millis(4500))
      }))

    it.effect("knows no pace before every permit has come back, and none of a time before", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 2, queue: 10 })
        const retryAfter = Effect.map(
          shedOf(guard.withPermits(Effect.void, { maxWait: 0 })),
          (shed) => shed?.retryAfter
        )
        const call = (millis: number) => start(guard.withPermit(Effect.sleep(millis)))
        for (const millis of [100, 1_000, 1_000, 1_000]) yield* call(millis)
        assert.isUndefined(yield* retryAfter)
        yield* TestClock.adjust(100)
        assert.isUndefined(yield* retryAfter)
        yield* TestClock.adjust(900)
        // Two run, and nobody waits: one permit, and two came back in a second.
        assert.deepStrictEqual(yield* retryAfter, Duration.millis(500))
        yield* TestClock.adjust("1 hour")
        for (const millis of [100, 100]) yield* call(millis)
        assert.isUndefined(yield* retryAfter)
      }))

    it.effect("follows the pace of the last turns of all permits, and a service that hangs is no pace", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 2, queue: 100 })
        const call = (millis: number) => start(guard.withPermit(Effect.sleep(millis)))
        const retryAfterMillis = Effect.map(
          shedOf(guard.withPermits(Effect.void, { maxWait: 0 })),
          (shed) => shed?.retryAfter && Duration.toMillis(shed.retryAfter)
        )
        for (let n = 0; n < 18; n++) yield* call(100)
        for (let n = 0; n < 3; n++) yield* call(60_000)
        for (let n = 0; n < 8; n++) {
          yield* retryAfterMillis
          yield* TestClock.adjust(100)
        }
        // Three wait, and one more: four permits, and two came back every 100 milliseconds.
        assert.strictEqual(yield* retryAfterMillis, 200)
        yield* TestClock.adjust(30_000)
        // One waits behind two that hang, and one more: two permits, and the last two took half a minute.
        assert.strictEqual(yield* retryAfterMillis, 30_000)
      }))

    it.effect("says nothing about coming back to who asks for too much, or while it drains", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 10 })
        for (let n = 0; n < 5; n++) yield* start(guard.withPermit(Effect.sleep("1 second")))
        for (let n = 0; n < 3; n++) {
          yield* Effect.flip(guard.withPermits(Effect.void, { maxWait: 0 }))
          yield* TestClock.adjust("1 second")
        }
        assert.isDefined((yield* shedOf(guard.withPermits(Effect.void, { maxWait: 0 })))?.retryAfter)
        const tooLarge = yield* shedOf(guard.withPermits(Effect.void, { permits: 2 }))
        yield* start(guard.drain)
        const draining = yield* shedOf(guard.withPermit(Effect.void))
        assert.deepStrictEqual([tooLarge?.why, draining?.why], ["TooLarge", "Draining"])
        assert.deepStrictEqual([tooLarge?.retryAfter, draining?.retryAfter], [undefined, undefined])
      }))
  })

  describe("several permits", () => {
    it.effect("are taken together, and given back together", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 5 })
        const heavy = yield* hold(guard, 3)
        assert.deepStrictEqual(yield* load(guard), [3, 0])
        assert.isTrue(isShed(yield* Effect.exit(guard.withPermits(Effect.void, { permits: 3 }))))
        yield* guard.withPermits(Effect.void, { permits: 2 })
        yield* heavy.release
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("are waited for in turn: nobody who needs fewer overtakes", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 3, queue: 10 })
        const order: Array<string> = []
        const note = (name: string) => Effect.sync(() => order.push(name))
        const held = yield* hold(guard, 2)
        const heavy = yield* start(guard.withPermits(note("heavy"), { permits: 3 }))
        const light = yield* start(guard.withPermit(note("light")))
        yield* yields(5)
        // One permit is free, and nobody has it: it is for who needs three.
        assert.deepStrictEqual([...order, ...(yield* load(guard))], [2, 2])
        yield* held.release
        yield* Fiber.joinAll([heavy, light])
        assert.deepStrictEqual(order, ["heavy", "light"])
      }))

    it.effect("that the first in line gives up let those behind it in", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 3, queue: 10 })
        yield* hold(guard, 2)
        const heavy = yield* start(guard.withPermits(Effect.void, { permits: 3 }))
        const light = yield* start(guard.withPermit(Effect.succeed("light")))
        yield* Fiber.interrupt(heavy)
        assert.strictEqual(yield* Fiber.join(light), "light")
        assert.deepStrictEqual(yield* load(guard), [2, 0])
      }))

    it.effect("of which there are too few are refused at once, though there is room in the line", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 3, queue: 10 })
        const shed = yield* shedOf(guard.withPermits(Effect.void, { permits: 4 }))
        assert.strictEqual(shed?.why, "TooLarge")
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("are asked for as data-first or as data-last, and the default is one", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 5 })
        const depths = yield* Effect.all([
          guard.withPermits(guard.depth, { permits: 2 }),
          guard.depth.pipe(guard.withPermits({ permits: 3 })),
          guard.depth.pipe(guard.withPermits({}))
        ])
        assert.deepStrictEqual(depths, [2, 3, 1])
      }))

    it.effect("are held by a stream to its end", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 5, queue: 1 })
        const depths = Stream.mapEffect(Stream.range(1, 2), () => guard.depth)
        assert.deepStrictEqual(
          yield* Stream.runCollect(depths.pipe(guard.withPermitsStream({ permits: 4 }))),
          [4, 4]
        )
        const held = yield* hold(guard, 4)
        const waiting = yield* start(Stream.runCollect(guard.withPermitsStream(depths, { permits: 2 })))
        assert.deepStrictEqual(yield* load(guard), [4, 1])
        yield* held.release
        assert.deepStrictEqual(yield* Fiber.join(waiting), [2, 2])
        const shed = yield* shedOf(Stream.runDrain(guard.withPermitsStream(Stream.make(1), { permits: 6 })))
        assert.strictEqual(shed?.why, "TooLarge")
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    const wrong: ReadonlyArray<readonly [options: unknown, issues: ReadonlyArray<string>]> = [
      [{ permits: 0 }, ["permits"]],
      [{ permits: -1 }, ["permits"]],
      [{ permits: 1.5 }, ["permits"]],
      [{ permits: NaN }, ["permits"]],
      [{ permits: "2" }, ["permits"]],
      [{ permits: null }, ["permits"]],
      [{ maxWait: -1 }, ["maxWait"]],
      [{ maxWait: "soon" }, ["maxWait"]],
      [{ maxWait: null }, ["maxWait"]],
      [{ maxWait: Infinity }, ["maxWait"]],
      [{ permits: {}, maxWait: Symbol("s") }, ["permits", "maxWait"]],
      [null, ["options"]],
      ["2", ["options"]],
      [undefined, ["options"]]
    ]
    for (const [options, issues] of wrong) {
      it.effect(`are refused without a run where they make no sense: ${inspect(options)}`, () =>
        Effect.gen(function*() {
          const guard = yield* make({ capacity: 5 })
          // What is read from a file has any type at all.
          const given = options as Backpressure.PermitOptions
          let ran = false
          const body = Effect.sync(() => {
            ran = true
          })
          const invalid = yield* Effect.all([
            Effect.flip(guard.withPermits(body, given)),
            Effect.flip(body.pipe(guard.withPermits(given))),
            Effect.flip(Stream.runDrain(guard.withPermitsStream(Stream.fromEffect(body), given)))
          ])
          for (const error of invalid) {
            assert.strictEqual(error._tag, "InvalidOptions")
            if (error._tag === "InvalidOptions") {
              assert.deepStrictEqual(error.issues.map(({ option }) => option), issues)
            }
          }
          assert.isFalse(ran)
          assert.deepStrictEqual(yield* load(guard), [0, 0])
        }))
    }
  })

  describe("maxWait", () => {
    it.effect("ends a wait when it is over, not before, and leaves the others their place", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 10, maxWait: "5 seconds" })
        const held = yield* hold(guard)
        const first = yield* start(guard.withPermit(Effect.void))
        yield* TestClock.adjust("2 seconds")
        const second = yield* start(guard.withPermit(Effect.succeed("served")))
        yield* TestClock.adjust(2_999)
        assert.deepStrictEqual(yield* load(guard), [1, 2])
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* whyShed(first), "MaxWait")
        assert.deepStrictEqual(yield* load(guard), [1, 1])
        yield* TestClock.adjust(1_999)
        yield* held.release
        assert.strictEqual(yield* Fiber.join(second), "served")
      }))

    it.effect("does not bound the run", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 1, maxWait: "1 second" })
        const fiber = yield* start(guard.withPermit(Effect.as(Effect.sleep("1 hour"), "done")))
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(yield* Fiber.join(fiber), "done")
      }))

    it.effect("of a call stands instead of the policy's, shorter or longer", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 10, maxWait: "5 seconds" })
        yield* hold(guard)
        const patient = yield* start(guard.withPermits(Effect.void, { maxWait: "10 seconds" }))
        const plain = yield* start(guard.withPermit(Effect.void))
        const hasty = yield* start(guard.withPermits(Effect.void, { maxWait: "1 second" }))
        const ended = () => [patient, plain, hasty].map((fiber) => fiber.pollUnsafe() !== undefined)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(ended(), [false, false, true])
        yield* TestClock.adjust("4 seconds")
        assert.deepStrictEqual(ended(), [false, true, true])
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(ended(), [true, true, true])
      }))

    it.effect("of 0 runs at once or not at all", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 10, maxWait: 0 })
        assert.strictEqual(yield* guard.withPermit(Effect.succeed("free")), "free")
        yield* hold(guard)
        assert.strictEqual((yield* Effect.flip(guard.withPermit(Effect.void))).why, "Full")
      }))

    it.effect("that is over for the first in line lets those behind it in", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 3, queue: 10 })
        yield* hold(guard, 2)
        const heavy = yield* start(guard.withPermits(Effect.void, { permits: 2, maxWait: "1 second" }))
        const light = yield* start(guard.withPermit(Effect.succeed("light")))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* whyShed(heavy), "MaxWait")
        assert.strictEqual(yield* Fiber.join(light), "light")
      }))

    it.effect("of a month is a month", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 1, maxWait: "30 days" })
        yield* hold(guard)
        const fiber = yield* start(guard.withPermit(Effect.void))
        yield* TestClock.adjust(Duration.millis(Duration.toMillis("30 days") - 1))
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* whyShed(fiber), "MaxWait")
      }))

    /** A clock that counts the sleeps that began and did not end, and that can be put back. */
    const watchedClock = Effect.map(Clock.Clock, (clock) => {
      const seen = { began: 0, under: 0, putBackMillis: 0 }
      const watched: Clock.Clock = {
        ...clock,
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() - seen.putBackMillis,
        sleep: (duration) =>
          Effect.suspend(() => {
            seen.began++
            seen.under++
            return Effect.onExit(clock.sleep(duration), () => Effect.sync(() => seen.under--))
          })
      }
      return [watched, seen] as const
    })

    it.effect("sets one timer for all who wait, none without it, and none when nobody waits any more", () =>
      Effect.gen(function*() {
        const [clock, seen] = yield* watchedClock
        const bounded = yield* Effect.provideService(
          make({ capacity: 1, queue: 1_000, maxWait: "5 seconds" }),
          Clock.Clock,
          clock
        )
        const unbounded = yield* Effect.provideService(make({ capacity: 1, queue: 1_000 }), Clock.Clock, clock)
        const held = yield* hold(bounded)
        yield* hold(unbounded)
        yield* Effect.forEach(Array.from({ length: 500 }), () => start(unbounded.withPermit(Effect.void)))
        assert.strictEqual(seen.began, 0)
        const fibers = yield* Effect.forEach(
          Array.from({ length: 500 }),
          () => start(bounded.withPermit(Effect.void))
        )
        assert.deepStrictEqual([seen.began, seen.under], [1, 1])
        yield* held.release
        yield* Effect.forEach(fibers, Fiber.await)
        assert.deepStrictEqual([seen.began, seen.under], [1, 0])
      }))

    it.effect("is as long as it is, though the clock was put back meanwhile", () =>
      Effect.gen(function*() {
        const [clock, seen] = yield* watchedClock
        const guard = yield* Effect.provideService(
          make({ capacity: 1, queue: 10, maxWait: "5 seconds" }),
          Clock.Clock,
          clock
        )
        yield* hold(guard)
        const fiber = yield* start(guard.withPermit(Effect.void))
        seen.putBackMillis = 3_600_000
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(yield* whyShed(fiber), "MaxWait")
      }))
  })

  describe("drain", () => {
    it.effect("refuses who comes and who waits, and is over when nobody runs any more", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 2, queue: 10 })
        const [one, other] = yield* Effect.all([hold(guard), hold(guard)])
        const waiting = yield* start(guard.withPermit(Effect.void))
        const drain = yield* start(guard.drain)
        assert.strictEqual((yield* Effect.flip(guard.withPermit(Effect.void))).why, "Draining")
        assert.strictEqual((yield* Effect.flip(Effect.scoped(guard.tryAcquire))).why, "Draining")
        const shed = shedIn(yield* Fiber.await(waiting))
        assert.deepStrictEqual([shed?.why, shed?.waited], ["Draining", Duration.zero])
        yield* one.release
        yield* yields(5)
        assert.isUndefined(drain.pollUnsafe())
        yield* other.release
        assert.isTrue(yield* Fiber.join(drain))
        // And it stays so.
        assert.strictEqual((yield* Effect.flip(guard.withPermit(Effect.void))).why, "Draining")
        assert.isTrue((yield* guard.snapshot).draining)
      }))

    it.effect("is over at once where nobody runs", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        assert.isTrue(yield* guard.drain)
      }))

    it.effect("waits for permits that a scope holds, and for streams", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 2 })
        const scope = yield* Scope.make()
        yield* Scope.provide(guard.tryAcquire, scope)
        const stream = yield* start(Stream.runDrain(guard.withPermitStream(Stream.never)))
        const drain = yield* start(guard.drain)
        yield* Fiber.interrupt(stream)
        yield* yields(5)
        assert.isUndefined(drain.pollUnsafe())
        yield* Scope.close(scope, Exit.void)
        assert.isTrue(yield* Fiber.join(drain))
      }))

    it.effect("is taken back by resume, which it tells to who waits for it", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 1 })
        const held = yield* hold(guard)
        const drain = yield* start(guard.drain)
        yield* guard.resume
        assert.isFalse(yield* Fiber.join(drain))
        const next = yield* start(guard.withPermit(Effect.succeed("next")))
        yield* held.release
        assert.strictEqual(yield* Fiber.join(next), "next")
        assert.isFalse((yield* guard.snapshot).draining)
      }))

    it.effect("goes on when its caller is interrupted, and is heard by all who wait for it", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1 })
        const held = yield* hold(guard)
        const drains = yield* Effect.forEach([1, 2, 3], () => start(guard.drain))
        yield* Fiber.interrupt(drains[0]!)
        assert.strictEqual((yield* Effect.flip(guard.withPermit(Effect.void))).why, "Draining")
        yield* held.release
        assert.deepStrictEqual(yield* Fiber.joinAll(drains.slice(1)), [true, true])
      }))

    it.effect("happens when the scope of the service closes: nobody waits for what nobody minds any more", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const guard = yield* Scope.provide(make({ capacity: 1, queue: 1, maxWait: "1 hour" }), scope)
        const held = yield* hold(guard)
        const waiting = yield* start(guard.withPermit(Effect.void))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* whyShed(waiting), "Draining")
        assert.deepStrictEqual(yield* load(guard), [1, 0])
        yield* held.release
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))
  })

  describe("who waits goes on in a turn of the scheduler", () => {
    it.effect("never inside the call that gave the permit back", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 1 })
        const order: Array<string> = []
        const latch = yield* Latch.make()
        const first = yield* start(Effect.andThen(
          guard.withPermit(latch.await),
          Effect.sync(() => order.push("what follows the first call"))
        ))
        const second = yield* start(guard.withPermit(Effect.sync(() => order.push("the second call"))))
        yield* latch.open
        yield* Fiber.joinAll([first, second])
        assert.deepStrictEqual(order, ["what follows the first call", "the second call"])
      }))

    it.effect("and others have their turns while a long line of synchronous jobs is worked off", () =>
      Effect.gen(function*() {
        for (const capacity of [1, 10, 1_000]) {
          const guard = yield* make({ capacity, queue: 10_000 })
          const held = yield* Effect.forEach(Array.from({ length: capacity }), () => hold(guard))
          let done = 0
          const fibers = yield* Effect.forEach(
            Array.from({ length: 5_000 }),
            () => start(guard.withPermit(Effect.sync(() => done++)))
          )
          yield* Effect.forEach(held, (one) => one.release)
          let most = 0
          let last = done
          while (last < 5_000) {
            yield* Effect.callback<void>((resume) => {
              setImmediate(() => resume(Effect.void))
            })
            most = Math.max(most, done - last)
            last = done
          }
          assert.isAtMost(most, 600, `capacity ${capacity}`)
          yield* Fiber.joinAll(fibers)
        }
      }))

    /** Runs fibers whose turns come when the test takes their tasks. */
    const byHand = () => {
      const tasks: Array<() => void> = []
      const scheduler: Scheduler.Scheduler = {
        executionMode: "async",
        shouldYield: () => false,
        makeDispatcher: () => ({ scheduleTask: (task) => tasks.push(task), flush: () => {} })
      }
      return { tasks, run: Effect.runForkWith(Context.make(Scheduler.Scheduler, scheduler)) }
    }

    it.effect("of its own scheduler", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 10 })
        const held = yield* hold(guard)
        const { run, tasks } = byHand()
        const byTest = run(guard.withPermit(Effect.succeed("by the test")))
        yield* held.release
        yield* yields(5)
        assert.isUndefined(byTest.pollUnsafe())
        for (const task of tasks) task()
        assert.strictEqual(yield* Fiber.join(byTest), "by the test")
        const again = yield* hold(guard)
        const byItself = yield* start(guard.withPermit(Effect.succeed("by itself")))
        yield* again.release
        assert.strictEqual(yield* Fiber.join(byItself), "by itself")
      }))

    it.effect("and one that throws into the scheduler does not keep the others waiting", () =>
      Effect.gen(function*() {
        const { run, tasks } = byHand()
        const guard = yield* make({ capacity: 2, queue: 10 })
        const held = yield* Effect.all([hold(guard), hold(guard)])
        const thrower = run(guard.withPermit(Effect.void))
        thrower.addObserver(() => {
          throw new Error("an observer's own")
        })
        const others = [1, 2, 3].map(() => run(guard.withPermit(Effect.void)))
        yield* Effect.forEach(held, (one) => one.release)
        let thrown = 0
        for (let task = tasks.shift(); task !== undefined; task = tasks.shift()) {
          try {
            task()
          } catch {
            thrown++
          }
        }
        assert.strictEqual(thrown, 1)
        assert.deepStrictEqual(others.map((fiber) => fiber.pollUnsafe()?._tag), ["Success", "Success", "Success"])
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))
  })

  describe("snapshot", () => {
    it.effect("is everything there is to see, and what passes through it", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 4, queue: 2, softLimit: 2 })
        const empty = {
          capacity: 4,
          running: 0,
          queued: 0,
          queue: 2,
          slots: 0,
          level: "Normal",
          draining: false,
          admitted: 0,
          shed: { Full: 0, MaxWait: 0, Draining: 0, TooLarge: 0 },
          abandoned: 0,
          dropped: 0
        }
        assert.deepStrictEqual(yield* guard.snapshot, empty)
        const held = yield* hold(guard, 3)
        const soft = { ...empty, running: 3, slots: 1, level: "Soft", admitted: 1 }
        assert.deepStrictEqual(yield* guard.snapshot, soft)
        const waiting = yield* start(guard.withPermits(Effect.void, { permits: 2, maxWait: "1 second" }))
        const leaving = yield* start(guard.withPermit(Effect.void))
        yield* Effect.exit(guard.withPermit(Effect.void))
        yield* Effect.exit(guard.withPermits(Effect.void, { permits: 5 }))
        const full = { ...soft, queued: 2, slots: 3, level: "Full", shed: { ...empty.shed, Full: 1, TooLarge: 1 } }
        assert.deepStrictEqual(yield* guard.snapshot, full)
        yield* Fiber.interrupt(leaving)
        yield* TestClock.adjust("1 second")
        yield* Fiber.await(waiting)
        const after = { ...soft, shed: { ...full.shed, MaxWait: 1 }, abandoned: 1 }
        assert.deepStrictEqual(yield* guard.snapshot, after)
        const drain = yield* start(guard.drain)
        yield* Effect.exit(guard.withPermit(Effect.void))
        yield* held.release
        yield* Fiber.join(drain)
        assert.deepStrictEqual(yield* guard.snapshot, {
          ...after,
          running: 0,
          slots: 0,
          level: "Normal",
          draining: true,
          shed: { ...after.shed, Draining: 1 }
        })
      }))

    it.effect("counts every call once, as running, waiting, over, shed or abandoned", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 3, queue: 10, maxWait: 40 })
        const asked = 200
        let over = 0
        const fibers = yield* Effect.forEach(
          Array.from({ length: asked }, (_, index) => index),
          (index) =>
            Effect.andThen(
              TestClock.adjust(3),
              start(Effect.exit(guard.withPermits(
                Effect.andThen(Effect.sleep(index % 30), Effect.sync(() => over++)),
                { permits: 1 + index % 4 }
              )))
            )
        )
        yield* Fiber.interruptAll(fibers.filter((_, index) => index % 7 === 0))
        yield* TestClock.adjust(10_000)
        yield* Effect.forEach(fibers, Fiber.await)
        const { abandoned, admitted, slots, shed } = yield* guard.snapshot
        assert.strictEqual(admitted + abandoned + shed.Full + shed.MaxWait + shed.TooLarge, asked)
        assert.isAtMost(over, admitted)
        assert.isAbove(Math.min(over, shed.Full, shed.MaxWait, shed.TooLarge), 0)
        assert.strictEqual(slots, 0)
      }))
  })

  describe("metrics", () => {
    /** Every series of a registry, as `id{words} value`. */
    const series = Effect.map(
      Metric.snapshot,
      (all) =>
        all.map(({ attributes, id, state }) => {
          const words = Object.entries({ ...attributes }).map(([key, value]) => `${key}=${value}`).toSorted().join(",")
          return `${id}{${words}} ${"count" in state ? state.count : "value" in state ? state.value : "?"}`
        }).toSorted()
    )

    it.effect("show load and counts, with the policy's name and words of ours for labels", () =>
      Effect.gen(function*() {
        const guard = yield* make({ name: "gpt", capacity: 2, queue: 1, softLimit: 1 })
        yield* hold(guard)
        yield* hold(guard)
        const waiting = yield* start(guard.withPermit(Effect.void))
        yield* Effect.exit(guard.withPermit(Effect.void))
        yield* Fiber.interrupt(waiting)
        assert.deepStrictEqual(yield* series, [
          "sluice_backpressure_abandoned_total{policy=gpt} 1",
          "sluice_backpressure_admitted_total{policy=gpt} 2",
          "sluice_backpressure_capacity{policy=gpt} 2",
          "sluice_backpressure_levels_total{level=Full,policy=gpt} 1",
          "sluice_backpressure_levels_total{level=Normal,policy=gpt} 0",
          "sluice_backpressure_levels_total{level=Soft,policy=gpt} 1",
          "sluice_backpressure_queued{policy=gpt} 0",
          "sluice_backpressure_running{policy=gpt} 2",
          "sluice_backpressure_shed_total{policy=gpt,why=Draining} 0",
          "sluice_backpressure_shed_total{policy=gpt,why=Full} 1",
          "sluice_backpressure_shed_total{policy=gpt,why=MaxWait} 0",
          "sluice_backpressure_shed_total{policy=gpt,why=TooLarge} 0"
        ])
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))

    it.effect("are gone when the service is", () =>
      Effect.gen(function*() {
        yield* Effect.scoped(make({ name: "gpt" }))
        assert.deepStrictEqual(yield* series, [])
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))
  })

  describe("traps that others fell into", () => {
    it.effect("abort leaves a dead waiter holding the slot (cockatiel #112)", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 1, queue: 1 })
        const held = yield* hold(guard)
        const aborted = yield* start(guard.withPermit(Effect.never))
        yield* Fiber.interrupt(aborted)
        // Its room in the line is free for the next one, and the permit passes it by.
        const next = yield* start(guard.withPermit(Effect.succeed("next")))
        assert.deepStrictEqual(yield* load(guard), [1, 1])
        yield* held.release
        assert.strictEqual(yield* Fiber.join(next), "next")
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("queued waiters slipping past a pause (effect-smol #2311)", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 2, queue: 10 })
        const held = yield* Effect.all([hold(guard), hold(guard)])
        let started = 0
        const waiters = yield* Effect.forEach(
          Array.from({ length: 5 }),
          () => start(guard.withPermit(Effect.sync(() => started++)))
        )
        // A smaller capacity: permits come back, and nobody starts before it fits.
        yield* guard.resize(1)
        yield* held[0].release
        yield* yields(5)
        assert.deepStrictEqual([started, ...(yield* load(guard))], [0, 1, 5])
        // A drain: nobody starts at all.
        yield* start(guard.drain)
        yield* guard.resize(10)
        yield* held[1].release
        yield* Effect.forEach(waiters, Fiber.await)
        assert.strictEqual(started, 0)
        // Nor when it is over: who was refused is not let in after all.
        yield* guard.resume
        yield* yields(5)
        assert.deepStrictEqual([started, ...(yield* load(guard))], [0, 0, 0])
      }))

    it.effect("requests counted only at completion (go-zero #5011)", () =>
      Effect.gen(function*() {
        const guard = yield* make({ capacity: 2 })
        yield* hold(guard)
        yield* hold(guard)
        const { admitted, level, running } = yield* guard.snapshot
        assert.deepStrictEqual([admitted, running, level], [2, 2, "Full"])
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
      it.effect(`are refused, all at once: ${inspect(options)}`, () =>
        Effect.gen(function*() {
          // What is read from a file has any type at all.
          const given = options as Backpressure.BackpressureOptions
          const invalid = yield* Effect.flip(Effect.scoped(Backpressure.make(given)))
          assert.strictEqual(invalid._tag, "InvalidOptions")
          assert.strictEqual(invalid.module, "Backpressure")
          assert.deepStrictEqual(invalid.issues.map((issue) => issue.option).toSorted(), issues.toSorted())
          assert.notStrictEqual(invalid.message, "")
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
