import * as Backpressure from "@sluice/core/Backpressure"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Latch, Metric, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { fork } from "./support/effects.ts"
import { type Guard, hold, isShed, load, makeGuard, shedIn, shedOf, whyShed } from "./support/permits.ts"
import { yields } from "./support/probe.ts"

describe("Backpressure", () => {
  describe("pressure", () => {
    const watch = (guard: Guard) =>
      Effect.gen(function*() {
        const seen: Array<Backpressure.Pressure> = []
        yield* Effect.forkChild(
          Stream.runForEach(guard.pressure, (pressure) => Effect.sync(() => seen.push(pressure))),
          { startImmediately: true }
        )
        yield* yields(5)
        return Effect.map(yields(20), () => seen.map(({ level, running }) => `${level} ${running}`))
      })

    it.effect("each limit is reported once when it is crossed, on the way up and on the way down", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 4, softLimit: 2 })
        const seen = yield* watch(guard)
        const held = yield* Effect.forEach([1, 2, 3, 4], () => hold(guard))
        assert.deepStrictEqual(yield* seen, ["Soft 2", "Full 4"])
        yield* Effect.forEach(held, (one) => one.release)
        assert.deepStrictEqual(yield* seen, ["Soft 2", "Full 4", "Soft 3", "Normal 1"])
      }))

    it.effect("a level ends below its limit, so that calls that come and go at the limit cross it once", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 16, softLimit: 8 })
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

    it.effect("the soft level ends at softRelease", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 16, softLimit: 8, softRelease: 1 })
        const seen = yield* watch(guard)
        const held = yield* Effect.forEach(Array.from({ length: 8 }), () => hold(guard))
        yield* Effect.forEach(held.slice(0, 6), (one) => one.release)
        assert.deepStrictEqual(yield* seen, ["Soft 8"])
        yield* Effect.forEach(held, (one) => one.release)
        assert.deepStrictEqual(yield* seen, ["Soft 8", "Normal 1"])
      }))

    it.effect("the level is full while a call is queued, though some permits are free", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 8, queue: 1 })
        const seen = yield* watch(guard)
        yield* hold(guard, 4)
        const waiting = yield* fork(guard.withPermits(Effect.void, { permits: 5 }))
        assert.deepStrictEqual(yield* seen, ["Full 4"])
        yield* Fiber.interrupt(waiting)
        assert.deepStrictEqual(yield* seen, ["Full 4", "Normal 4"])
      }))

    it.effect("a slow reader loses the oldest levels, and the snapshot counts them", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        const gate = yield* Latch.make()
        const seen: Array<Backpressure.Pressure> = []
        yield* fork(Stream.runForEach(
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

    it.effect("the pressure stream ends when the scope of the service closes", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const guard = yield* Scope.provide(makeGuard({ capacity: 1 }), scope)
        const reader = yield* fork(Stream.runCollect(guard.pressure))
        yield* yields(5)
        yield* Scope.close(scope, Exit.void)
        yield* Fiber.await(reader)
        assert.deepStrictEqual(yield* Effect.exit(Stream.runCollect(guard.pressure)), Exit.succeed([]))
      }))

    it.effect("calls that cross no limit and refused calls are not reported", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 4, softLimit: 2 })
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

    it.effect("the level stays full while permits pass from call to call in the queue", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 10 })
        const seen = yield* watch(guard)
        const held = yield* hold(guard)
        const fibers = yield* Effect.forEach(Array.from({ length: 10 }), () => fork(guard.withPermit(Effect.void)))
        yield* held.release
        yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual(yield* seen, ["Full 1", "Normal 0"])
      }))

    it.effect("there is no soft level without a soft limit", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 2 })
        const seen = yield* watch(guard)
        const held = yield* Effect.forEach([1, 2], () => hold(guard))
        yield* Effect.forEach(held, (one) => one.release)
        assert.deepStrictEqual(yield* seen, ["Full 2", "Normal 1"])
        assert.strictEqual(yield* guard.softLimitRatio, 0)
      }))

    it.effect("a resize that crosses a limit is reported with its time", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 2 })
        yield* hold(guard)
        const first = yield* fork(Stream.runHead(guard.pressure))
        yield* yields(5)
        yield* TestClock.adjust("3 seconds")
        yield* guard.resize(1)
        const pressure = yield* Effect.flatMap(Fiber.join(first), Effect.fromOption)
        assert.deepStrictEqual(pressure, { level: "Full", running: 1, at: yield* Clock.currentTimeMillis })
      }))

    it.effect("softLimitRatio is permits in use over the soft limit: 1 at the limit, more above it", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 4, softLimit: 2 })
        const ratios: Array<number> = [yield* guard.softLimitRatio]
        for (let n = 0; n < 3; n++) {
          yield* hold(guard)
          ratios.push(yield* guard.softLimitRatio)
        }
        assert.deepStrictEqual(ratios, [0, 0.5, 1, 1.5])
      }))
  })

  describe("refusals", () => {
    const seconds = Duration.seconds

    it.effect("a refusal names its reason, its policy and the load", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ name: "gpt", capacity: 4, queue: 1, maxWait: "2 seconds" })
        yield* hold(guard, 3)
        const tooLarge = yield* shedOf(guard.withPermits(Effect.void, { permits: 5 }))
        const maxWait = yield* fork(guard.withPermits(Effect.void, { permits: 2 }))
        const full = yield* Effect.flip(guard.withPermit(Effect.void))
        yield* TestClock.adjust("2 seconds")
        yield* fork(guard.drain)
        const draining = yield* Effect.flip(guard.withPermit(Effect.void))
        const given = { _tag: "BackpressureShed", policy: "gpt", running: 3, capacity: 4 }
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

    const given = { policy: "gpt", permits: 1, running: 3, queued: 7, capacity: 4 }
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
      it.effect(`the message of a ${shed.why} refusal says what to change, and survives encoding`, () =>
        Effect.gen(function*() {
          assert.strictEqual(shed.message, message)
          const json = JSON.stringify(yield* Schema.encodeEffect(Backpressure.BackpressureShed)(shed))
          const back = yield* Schema.decodeUnknownEffect(Backpressure.BackpressureShed)(JSON.parse(json))
          assert.deepStrictEqual(back, shed)
          assert.strictEqual(back.message, message)
        }))
    }

    it.effect("a refusal has a retryAfter once every permit was released, and none before", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 2, queue: 10 })
        const call = fork(guard.withPermit(Effect.sleep("3 seconds")))
        const retryAfter = Effect.map(
          shedOf(guard.withPermits(Effect.void, { maxWait: 0 })),
          (shed) => shed?.retryAfter
        )
        for (let n = 0; n < 8; n++) yield* call
        // Two run and six are queued: two more start every three seconds.
        assert.isUndefined(yield* retryAfter)
        yield* TestClock.adjust("3 seconds")
        // Four are queued, and the refused call is the fifth: five permits, two released every three seconds.
        assert.deepStrictEqual(yield* retryAfter, Duration.millis(7500))
        yield* TestClock.adjust("3 seconds")
        assert.deepStrictEqual(yield* retryAfter, Duration.millis(4500))
      }))

    it.effect("retryAfter is unknown before every permit was released, and after an idle hour", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 2, queue: 10 })
        const retryAfter = Effect.map(
          shedOf(guard.withPermits(Effect.void, { maxWait: 0 })),
          (shed) => shed?.retryAfter
        )
        const call = (millis: number) => fork(guard.withPermit(Effect.sleep(millis)))
        for (const millis of [100, 1_000, 1_000, 1_000]) yield* call(millis)
        assert.isUndefined(yield* retryAfter)
        yield* TestClock.adjust(100)
        assert.isUndefined(yield* retryAfter)
        yield* TestClock.adjust(900)
        // Two run and none is queued: one permit is needed, and two were released in a second.
        assert.deepStrictEqual(yield* retryAfter, Duration.millis(500))
        yield* TestClock.adjust("1 hour")
        for (const millis of [100, 100]) yield* call(millis)
        assert.isUndefined(yield* retryAfter)
      }))

    it.effect("retryAfter is unknown after a resize, until every permit of the new capacity was released", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 2, queue: 20 })
        const retryAfter = Effect.map(
          shedOf(guard.withPermits(Effect.void, { maxWait: 0 })),
          (shed) => shed?.retryAfter
        )
        for (let n = 0; n < 12; n++) yield* fork(guard.withPermit(Effect.sleep("3 seconds")))
        yield* retryAfter
        yield* TestClock.adjust("3 seconds")
        assert.isDefined(yield* retryAfter)
        yield* guard.resize(1)
        assert.isUndefined(yield* retryAfter)
      }))

    it.effect("retryAfter follows the latest releases, and grows while the service hangs", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 2, queue: 100 })
        const call = (millis: number) => fork(guard.withPermit(Effect.sleep(millis)))
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
        // Three are queued, and the refused call is the fourth: four permits, two released every 100 milliseconds.
        assert.strictEqual(yield* retryAfterMillis, 200)
        yield* TestClock.adjust(30_000)
        // One is queued behind two that hang, and the refused call is the second. Two releases took 30 s.
        assert.strictEqual(yield* retryAfterMillis, 30_000)
      }))

    it.effect("a request above the capacity and a refusal while draining have no retryAfter", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 10 })
        for (let n = 0; n < 5; n++) yield* fork(guard.withPermit(Effect.sleep("1 second")))
        for (let n = 0; n < 3; n++) {
          yield* Effect.flip(guard.withPermits(Effect.void, { maxWait: 0 }))
          yield* TestClock.adjust("1 second")
        }
        assert.isDefined((yield* shedOf(guard.withPermits(Effect.void, { maxWait: 0 })))?.retryAfter)
        const tooLarge = yield* shedOf(guard.withPermits(Effect.void, { permits: 2 }))
        yield* fork(guard.drain)
        const draining = yield* shedOf(guard.withPermit(Effect.void))
        assert.deepStrictEqual([tooLarge?.why, draining?.why], ["TooLarge", "Draining"])
        assert.deepStrictEqual([tooLarge?.retryAfter, draining?.retryAfter], [undefined, undefined])
      }))
  })

  describe("drain", () => {
    it.effect("a drain refuses new and queued calls, and ends when no call runs", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 2, queue: 10 })
        const [one, other] = yield* Effect.all([hold(guard), hold(guard)])
        const waiting = yield* fork(guard.withPermit(Effect.void))
        const drain = yield* fork(guard.drain)
        assert.strictEqual((yield* Effect.flip(guard.withPermit(Effect.void))).why, "Draining")
        assert.strictEqual((yield* Effect.flip(Effect.scoped(guard.tryAcquire))).why, "Draining")
        const shed = shedIn(yield* Fiber.await(waiting))
        assert.deepStrictEqual([shed?.why, shed?.waited], ["Draining", Duration.zero])
        yield* one.release
        yield* yields(5)
        assert.isUndefined(drain.pollUnsafe())
        yield* other.release
        assert.isTrue(yield* Fiber.join(drain))
        // It stays drained.
        assert.strictEqual((yield* Effect.flip(guard.withPermit(Effect.void))).why, "Draining")
        assert.isTrue((yield* guard.snapshot).draining)
      }))

    it.effect("a drain ends at once when no call runs", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        assert.isTrue(yield* guard.drain)
      }))

    it.effect("a drain waits for permits held by a scope, and for streams", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 2 })
        const scope = yield* Scope.make()
        yield* Scope.provide(guard.tryAcquire, scope)
        const stream = yield* fork(Stream.runDrain(guard.withPermitStream(Stream.never)))
        const drain = yield* fork(guard.drain)
        yield* Fiber.interrupt(stream)
        yield* yields(5)
        assert.isUndefined(drain.pollUnsafe())
        yield* Scope.close(scope, Exit.void)
        assert.isTrue(yield* Fiber.join(drain))
      }))

    it.effect("resume cancels a drain, which returns false", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1, queue: 1 })
        const held = yield* hold(guard)
        const drain = yield* fork(guard.drain)
        yield* guard.resume
        assert.isFalse(yield* Fiber.join(drain))
        const next = yield* fork(guard.withPermit(Effect.succeed("next")))
        yield* held.release
        assert.strictEqual(yield* Fiber.join(next), "next")
        assert.isFalse((yield* guard.snapshot).draining)
      }))

    it.effect("a drain continues when one of its callers is interrupted, and returns to the others", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 1 })
        const held = yield* hold(guard)
        const drains = yield* Effect.forEach([1, 2, 3], () => fork(guard.drain))
        yield* Fiber.interrupt(drains[0]!)
        assert.strictEqual((yield* Effect.flip(guard.withPermit(Effect.void))).why, "Draining")
        yield* held.release
        assert.deepStrictEqual(yield* Fiber.joinAll(drains.slice(1)), [true, true])
      }))

    it.effect("closing the scope of the service drains it and refuses queued calls", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const guard = yield* Scope.provide(makeGuard({ capacity: 1, queue: 1, maxWait: "1 hour" }), scope)
        const held = yield* hold(guard)
        const waiting = yield* fork(guard.withPermit(Effect.void))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* whyShed(waiting), "Draining")
        assert.deepStrictEqual(yield* load(guard), [1, 0])
        yield* held.release
        assert.deepStrictEqual(yield* load(guard), [0, 0])
      }))
  })

  describe("snapshot", () => {
    it.effect("a snapshot has the load, the level and the counters", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 4, queue: 2, softLimit: 2 })
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
        const waiting = yield* fork(guard.withPermits(Effect.void, { permits: 2, maxWait: "1 second" }))
        const leaving = yield* fork(guard.withPermit(Effect.void))
        yield* Effect.exit(guard.withPermit(Effect.void))
        yield* Effect.exit(guard.withPermits(Effect.void, { permits: 5 }))
        const full = { ...soft, queued: 2, slots: 3, level: "Full", shed: { ...empty.shed, Full: 1, TooLarge: 1 } }
        assert.deepStrictEqual(yield* guard.snapshot, full)
        yield* Fiber.interrupt(leaving)
        yield* TestClock.adjust("1 second")
        yield* Fiber.await(waiting)
        const after = { ...soft, shed: { ...full.shed, MaxWait: 1 }, abandoned: 1 }
        assert.deepStrictEqual(yield* guard.snapshot, after)
        const drain = yield* fork(guard.drain)
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

    it.effect("every call is counted once, as admitted, refused or abandoned", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ capacity: 3, queue: 10, maxWait: 40 })
        const total = 200
        let over = 0
        const fibers = yield* Effect.forEach(
          Array.from({ length: total }, (_, index) => index),
          (index) =>
            Effect.andThen(
              TestClock.adjust(3),
              fork(Effect.exit(guard.withPermits(
                Effect.andThen(Effect.sleep(index % 30), Effect.sync(() => over++)),
                { permits: 1 + index % 4 }
              )))
            )
        )
        yield* Fiber.interruptAll(fibers.filter((_, index) => index % 7 === 0))
        yield* TestClock.adjust(10_000)
        yield* Effect.forEach(fibers, Fiber.await)
        const { abandoned, admitted, slots, shed } = yield* guard.snapshot
        assert.strictEqual(admitted + abandoned + shed.Full + shed.MaxWait + shed.TooLarge, total)
        assert.isAtMost(over, admitted)
        assert.isAbove(Math.min(over, shed.Full, shed.MaxWait, shed.TooLarge), 0)
        assert.strictEqual(slots, 0)
      }))
  })

  describe("metrics", () => {
    /** Every series of a registry, as `id{labels} value`. */
    const series = Effect.map(
      Metric.snapshot,
      (all) =>
        all.map(({ attributes, id, state }) => {
          const labels = Object.entries({ ...attributes }).map(([key, value]) => `${key}=${value}`).toSorted().join(",")
          return `${id}{${labels}} ${"count" in state ? state.count : "value" in state ? state.value : "?"}`
        }).toSorted()
    )

    it.effect("the metrics show load and counts, labelled with the policy's name", () =>
      Effect.gen(function*() {
        const guard = yield* makeGuard({ name: "gpt", capacity: 2, queue: 1, softLimit: 1 })
        yield* hold(guard)
        yield* hold(guard)
        const waiting = yield* fork(guard.withPermit(Effect.void))
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

    it.effect("the metrics are removed when the scope of the service closes", () =>
      Effect.gen(function*() {
        yield* Effect.scoped(makeGuard({ name: "gpt" }))
        assert.deepStrictEqual(yield* series, [])
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))
  })
})
