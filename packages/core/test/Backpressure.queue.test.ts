import type * as Backpressure from "@sluice/core/Backpressure"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Duration, Effect, Fiber, Latch, Scheduler, Stream } from "effect"
import { TestClock } from "effect/testing"
import { inspect } from "node:util"
import { fork } from "./support/effects.ts"
import { hold, isShed, load, makeGuard, shedOf, whyShed } from "./support/permits.ts"
import { yields } from "./support/probe.ts"

describe("Backpressure", () => {
  describe("the queue", () => {
    it.effect("queued calls run in the order in which they came", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 100 })
        const order: Array<number> = []
        const held = yield* hold(guard)
        const fibers = yield* Effect.forEach(
          Array.from({ length: 100 }, (_, index) => index),
          (index) => fork(guard.withPermit(Effect.sync(() => order.push(index))))
        )
        yield* held.release
        yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual(order, Array.from({ length: 100 }, (_, index) => index))
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("interrupted calls leave the queue at any position, and the others keep their order", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 5 })
        const order: Array<number> = []
        const held = yield* hold(guard)
        const fibers = yield* Effect.forEach(
          [0, 1, 2, 3, 4],
          (index) => fork(guard.withPermit(Effect.sync(() => order.push(index))))
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

    it.effect("a new call does not overtake a queued one", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 2 })
        const order: Array<string> = []
        const held = yield* hold(guard)
        const waiter = yield* fork(guard.withPermit(Effect.sync(() => order.push("waiter"))))
        yield* held.release
        // The queued call has the permit by now, though its fiber has not resumed.
        yield* guard.withPermit(Effect.sync(() => order.push("newcomer")))
        yield* Fiber.join(waiter)
        assert.deepStrictEqual(order, ["waiter", "newcomer"])
      }))

    it.effect("ten thousand synchronous calls queued behind one permit run without recursion", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 10_000 })
        let done = 0
        let running = 0
        let deepest = 0
        const job = Effect.sync(() => {
          deepest = Math.max(deepest, ++running)
          done++
          running--
        })
        const held = yield* hold(guard)
        const fibers = yield* Effect.forEach(Array.from({ length: 10_000 }), () => fork(guard.withPermit(job)))
        assert.deepStrictEqual(yield* load(guard), [1, 10_000])
        yield* held.release
        yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual([done, deepest], [10_000, 1])
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("no more calls run than the capacity, while calls end, fail and are interrupted", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 3, queue: 1_000 })
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
          (index) => fork(Effect.exit(guard.withPermit(job(index))))
        )
        yield* Effect.forEach(fibers.filter((_, index) => index % 5 === 0), Fiber.interrupt)
        yield* TestClock.adjust("10 seconds")
        yield* Effect.forEach(fibers, Fiber.await)
        assert.deepStrictEqual([most, running], [3, 0])
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))
  })

  describe("several permits", () => {
    it.effect("several permits are taken and released together", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 5 })
        const heavy = yield* hold(guard, 3)
        assert.deepStrictEqual(yield* load(guard), [3, 0])
        assert.isTrue(isShed(yield* Effect.exit(guard.withPermits(Effect.void, { permits: 3 }))))
        yield* guard.withPermits(Effect.void, { permits: 2 })
        yield* heavy.release
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("a request for fewer permits does not overtake a queued request for more", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 3, queue: 10 })
        const order: Array<string> = []
        const note = (name: string) => Effect.sync(() => order.push(name))
        const held = yield* hold(guard, 2)
        const heavy = yield* fork(guard.withPermits(note("heavy"), { permits: 3 }))
        const light = yield* fork(guard.withPermit(note("light")))
        yield* yields(5)
        // The free permit is reserved for the request for three.
        assert.deepStrictEqual([...order, ...(yield* load(guard))], [2, 2])
        yield* held.release
        yield* Fiber.joinAll([heavy, light])
        assert.deepStrictEqual(order, ["heavy", "light"])
      }))

    it.effect("interrupting the head of the queue admits those behind it", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 3, queue: 10 })
        yield* hold(guard, 2)
        const heavy = yield* fork(guard.withPermits(Effect.void, { permits: 3 }))
        const light = yield* fork(guard.withPermit(Effect.succeed("light")))
        yield* Fiber.interrupt(heavy)
        assert.strictEqual(yield* Fiber.join(light), "light")
        assert.deepStrictEqual(yield* load(guard), [2, 0])
      }))

    it.effect("a request above the capacity is refused at once, even with room in the queue", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 3, queue: 10 })
        const shed = yield* shedOf(guard.withPermits(Effect.void, { permits: 4 }))
        assert.strictEqual(shed?.why, "TooLarge")
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("withPermits works data-first and data-last, and takes one permit by default", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 5 })
        const runningCounts = yield* Effect.all([
          guard.withPermits(guard.running, { permits: 2 }),
          guard.running.pipe(guard.withPermits({ permits: 3 })),
          guard.running.pipe(guard.withPermits({}))
        ])
        assert.deepStrictEqual(runningCounts, [2, 3, 1])
      }))

    it.effect("a stream holds several permits until it ends", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 5, queue: 1 })
        const runningCounts = Stream.mapEffect(Stream.range(1, 2), () => guard.running)
        assert.deepStrictEqual(
          yield* Stream.runCollect(runningCounts.pipe(guard.withPermitsStream({ permits: 4 }))),
          [4, 4]
        )
        const held = yield* hold(guard, 4)
        const waiting = yield* fork(Stream.runCollect(guard.withPermitsStream(runningCounts, { permits: 2 })))
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
      it.effect(`invalid permit options are refused before the call runs: ${inspect(options)}`, () =>
        Effect.gen(function*() {
          const guard = yield* makeGuard({ capacity: 5 })
          // A value from a configuration file can have any type.
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
    it.effect("a call leaves the queue after maxWait, not before, and the others stay queued", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 10, maxWait: "5 seconds" })
        const held = yield* hold(guard)
        const first = yield* fork(guard.withPermit(Effect.void))
        yield* TestClock.adjust("2 seconds")
        const second = yield* fork(guard.withPermit(Effect.succeed("served")))
        yield* TestClock.adjust(2_999)
        assert.deepStrictEqual(yield* load(guard), [1, 2])
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* whyShed(first), "MaxWait")
        assert.deepStrictEqual(yield* load(guard), [1, 1])
        yield* TestClock.adjust(1_999)
        yield* held.release
        assert.strictEqual(yield* Fiber.join(second), "served")
      }))

    it.effect("maxWait does not limit the run", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 1, maxWait: "1 second" })
        const fiber = yield* fork(guard.withPermit(Effect.as(Effect.sleep("1 hour"), "done")))
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(yield* Fiber.join(fiber), "done")
      }))

    it.effect("a call's maxWait replaces the policy's, shorter or longer", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 10, maxWait: "5 seconds" })
        yield* hold(guard)
        const longer = yield* fork(guard.withPermits(Effect.void, { maxWait: "10 seconds" }))
        const standard = yield* fork(guard.withPermit(Effect.void))
        const shorter = yield* fork(guard.withPermits(Effect.void, { maxWait: "1 second" }))
        const ended = () => [longer, standard, shorter].map((fiber) => fiber.pollUnsafe() !== undefined)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(ended(), [false, false, true])
        yield* TestClock.adjust("4 seconds")
        assert.deepStrictEqual(ended(), [false, true, true])
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(ended(), [true, true, true])
      }))

    it.effect("with a maxWait of 0 a call runs at once or is refused", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 10, maxWait: 0 })
        assert.strictEqual(yield* guard.withPermit(Effect.succeed("free")), "free")
        yield* hold(guard)
        assert.strictEqual((yield* Effect.flip(guard.withPermit(Effect.void))).why, "Full")
      }))

    it.effect("a call at the head of the queue that reaches its maxWait admits those behind it", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 3, queue: 10 })
        yield* hold(guard, 2)
        const heavy = yield* fork(guard.withPermits(Effect.void, { permits: 2, maxWait: "1 second" }))
        const light = yield* fork(guard.withPermit(Effect.succeed("light")))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* whyShed(heavy), "MaxWait")
        assert.strictEqual(yield* Fiber.join(light), "light")
      }))

    it.effect("a maxWait of 30 days lasts 30 days", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 1, maxWait: "30 days" })
        yield* hold(guard)
        const fiber = yield* fork(guard.withPermit(Effect.void))
        yield* TestClock.adjust(Duration.millis(Duration.toMillis("30 days") - 1))
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* whyShed(fiber), "MaxWait")
      }))

    /** A clock that counts its sleeps, begun and pending, and that can be set back. */
    const watchedClock = Effect.map(Clock.Clock, (clock) => {
      const seen = { begun: 0, pending: 0, setBackMillis: 0 }
      const watched: Clock.Clock = {
        ...clock,
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() - seen.setBackMillis,
        sleep: (duration) =>
          Effect.suspend(() => {
            seen.begun++
            seen.pending++
            return Effect.onExit(clock.sleep(duration), () => Effect.sync(() => seen.pending--))
          })
      }
      return [watched, seen] as const
    })

    it.effect("all queued calls share one timer, and there is none without maxWait or with an empty queue", () =>
      Effect.gen(function*() {
        const [clock, seen] = yield* watchedClock
        const bounded = yield* Effect.provideService(
          makeGuard({ capacity: 1, queue: 1_000, maxWait: "5 seconds" }),
          Clock.Clock,
          clock
        )
        const unbounded = yield* Effect.provideService(makeGuard({ capacity: 1, queue: 1_000 }), Clock.Clock, clock)
        const held = yield* hold(bounded)
        yield* hold(unbounded)
        yield* Effect.forEach(Array.from({ length: 500 }), () => fork(unbounded.withPermit(Effect.void)))
        assert.strictEqual(seen.begun, 0)
        const fibers = yield* Effect.forEach(
          Array.from({ length: 500 }),
          () => fork(bounded.withPermit(Effect.void))
        )
        assert.deepStrictEqual([seen.begun, seen.pending], [1, 1])
        yield* held.release
        yield* Effect.forEach(fibers, Fiber.await)
        assert.deepStrictEqual([seen.begun, seen.pending], [1, 0])
      }))

    it.effect("maxWait keeps its length when the clock is set back", () =>
      Effect.gen(function*() {
        const [clock, seen] = yield* watchedClock
        const guard = yield* Effect.provideService(
          makeGuard({ capacity: 1, queue: 10, maxWait: "5 seconds" }),
          Clock.Clock,
          clock
        )
        yield* hold(guard)
        const fiber = yield* fork(guard.withPermit(Effect.void))
        seen.setBackMillis = 3_600_000
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(yield* whyShed(fiber), "MaxWait")
      }))
  })

  describe("resumption of queued calls", () => {
    it.effect("a queued call never resumes inside the call that released the permit", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 1 })
        const order: Array<string> = []
        const latch = yield* Latch.make()
        const first = yield* fork(Effect.andThen(
          guard.withPermit(latch.await),
          Effect.sync(() => order.push("what follows the first call"))
        ))
        const second = yield* fork(guard.withPermit(Effect.sync(() => order.push("the second call"))))
        yield* latch.open
        yield* Fiber.joinAll([first, second])
        assert.deepStrictEqual(order, ["what follows the first call", "the second call"])
      }))

    it.effect("other tasks get their turns while a long queue of synchronous calls runs", () =>
      Effect.gen(function*() {
        for (const capacity of [1, 10, 1_000]) {
          const guard = yield* makeGuard({ capacity, queue: 10_000 })
          const held = yield* Effect.forEach(Array.from({ length: capacity }), () => hold(guard))
          let done = 0
          const fibers = yield* Effect.forEach(
            Array.from({ length: 5_000 }),
            () => fork(guard.withPermit(Effect.sync(() => done++)))
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

    /** A scheduler whose tasks the test runs. */
    const manualScheduler = () => {
      const tasks: Array<() => void> = []
      const scheduler: Scheduler.Scheduler = {
        executionMode: "async",
        shouldYield: () => false,
        makeDispatcher: () => ({ scheduleTask: (task) => tasks.push(task), flush: () => {} })
      }
      return { tasks, run: Effect.runForkWith(Context.make(Scheduler.Scheduler, scheduler)) }
    }

    it.effect("a queued call resumes on its own scheduler", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 10 })
        const held = yield* hold(guard)
        const { run, tasks } = manualScheduler()
        const byTest = run(guard.withPermit(Effect.succeed("by the test")))
        yield* held.release
        yield* yields(5)
        assert.isUndefined(byTest.pollUnsafe())
        for (const task of tasks) task()
        assert.strictEqual(yield* Fiber.join(byTest), "by the test")
        const again = yield* hold(guard)
        const byItself = yield* fork(guard.withPermit(Effect.succeed("by itself")))
        yield* again.release
        assert.strictEqual(yield* Fiber.join(byItself), "by itself")
      }))

    it.effect("an observer that throws into the scheduler does not delay other queued calls", () =>
      Effect.gen(function*() {
        const { run, tasks } = manualScheduler()
        const guard = yield* makeGuard({ capacity: 2, queue: 10 })
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

  describe("traps of other libraries", () => {
    it.effect("abort leaves a dead waiter holding the slot (cockatiel #112)", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 1 })
        const held = yield* hold(guard)
        const aborted = yield* fork(guard.withPermit(Effect.never))
        yield* Fiber.interrupt(aborted)
        // Its queue slot is free for the next call, and the permit skips it.
        const next = yield* fork(guard.withPermit(Effect.succeed("next")))
        assert.deepStrictEqual(yield* load(guard), [1, 1])
        yield* held.release
        assert.strictEqual(yield* Fiber.join(next), "next")
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))

    it.effect("queued waiters slipping past a pause (effect-smol #2311)", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 2, queue: 10 })
        const held = yield* Effect.all([hold(guard), hold(guard)])
        let started = 0
        const waiters = yield* Effect.forEach(
          Array.from({ length: 5 }),
          () => fork(guard.withPermit(Effect.sync(() => started++)))
        )
        // A smaller capacity: permits are released, and no call starts before they fit.
        yield* guard.resize(1)
        yield* held[0].release
        yield* yields(5)
        assert.deepStrictEqual([started, ...(yield* load(guard))], [0, 1, 5])
        // A drain: no call starts.
        yield* fork(guard.drain)
        yield* guard.resize(10)
        yield* held[1].release
        yield* Effect.forEach(waiters, Fiber.await)
        assert.strictEqual(started, 0)
        // After resume: calls that were refused do not start.
        yield* guard.resume
        yield* yields(5)
        assert.deepStrictEqual([started, ...(yield* load(guard))], [0, 0, 0])
      }))

    it.effect("requests counted only at completion (go-zero #5011)", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 2 })
        yield* hold(guard)
        yield* hold(guard)
        const { admitted, level, running } = yield* guard.snapshot
        assert.deepStrictEqual([admitted, running, level], [2, 2, "Full"])
        assert.isTrue(isShed(yield* Effect.exit(guard.withPermit(Effect.void))))
      }))
  })
})
