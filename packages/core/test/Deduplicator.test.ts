import * as Deadline from "@sluice/core/Deadline"
import * as Deduplicator from "@sluice/core/Deduplicator"
import { InvalidOptions } from "@sluice/core/InvalidOptions"
import * as Outcome from "@sluice/core/Outcome"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, Option, Schema, Scope, Stream, Tracer } from "effect"
import { TestClock } from "effect/testing"
import { SharedDeadline } from "../src/internal/deadline/shared.ts"
import { fork, range } from "./support/effects.ts"
import { Ask, Cached, counts, key, makeCall, withDeduplicator, zeroCounts } from "./support/flights.ts"

describe("Deduplicator", () => {
  describe("dedupe", () => {
    it.effect("500 identical concurrent calls make one run", () =>
      Effect.gen(function*() {
        const { dedupe, stats } = yield* Deduplicator.Deduplicator
        const { call, runs } = makeCall()
        const fibers = yield* Effect.forEach(range(500), () => fork(dedupe(call, key)))
        yield* TestClock.adjust("1 second")
        const answers = yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual([...new Set(answers)], ["answer 1"])
        assert.strictEqual(runs.started, 1)
        const { joined, led } = yield* stats
        assert.deepStrictEqual([led, joined, yield* counts], [1, 499, zeroCounts])
      }).pipe(withDeduplicator()))

    it.effect("interrupting the leader of 500 callers leaves 499 results from one run", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const { call, runs } = makeCall()
        const leader = yield* fork(dedupe(call, key))
        const fibers = yield* Effect.forEach(range(499), () => fork(dedupe(call, key)))
        yield* TestClock.adjust("500 millis")
        yield* Fiber.interrupt(leader)
        assert.deepStrictEqual(yield* counts, { cached: 0, flights: 1, waiting: 499 })
        yield* TestClock.adjust("500 millis")
        assert.deepStrictEqual(yield* Fiber.joinAll(fibers), range(499).map(() => "answer 1"))
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(leader)))
        assert.deepStrictEqual([runs.started, runs.interrupted, yield* counts], [1, 0, zeroCounts])
      }).pipe(withDeduplicator()))

    it.effect("when all 500 callers are interrupted, the run stops with the last and not before", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const { call, runs } = makeCall()
        const fibers = yield* Effect.forEach(range(500), () => fork(dedupe(call, key)))
        for (const fiber of fibers.slice(1)) yield* Fiber.interrupt(fiber)
        assert.strictEqual(runs.ended, 0)
        yield* Fiber.interrupt(fibers[0]!)
        assert.deepStrictEqual([runs.started, runs.interrupted, yield* counts], [1, 1, zeroCounts])
      }).pipe(withDeduplicator()))

    it.effect("re-joining a cancelled flight (tailscale #18919): a call during the stop starts a new run", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const call = Effect.onInterrupt(Effect.as(Effect.sleep("1 hour"), "late"), () => Effect.sleep("5 seconds"))
        const leaver = yield* fork(dedupe(call, key))
        const leaving = yield* fork(Fiber.interrupt(leaver))
        const anew = yield* fork(dedupe(Effect.succeed("anew"), key))
        assert.strictEqual(yield* Fiber.join(anew), "anew")
        assert.isUndefined(leaving.pollUnsafe())
        assert.deepStrictEqual(yield* counts, { cached: 0, flights: 1, waiting: 0 })
        yield* TestClock.adjust("5 seconds")
        yield* Fiber.join(leaving)
        assert.deepStrictEqual(yield* counts, zeroCounts)
      }).pipe(withDeduplicator()))

    it.effect("callers share a typed failure and a defect like a result", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        let runs = 0
        const after = (effect: Effect.Effect<string, "busy">) =>
          Effect.suspend(() => {
            runs++
            return Effect.andThen(Effect.sleep("1 second"), effect)
          })
        const failure: Exit.Exit<string, "busy"> = Exit.fail("busy")
        const failing = yield* Effect.forEach(range(3), () => fork(dedupe(after(failure), Ask("fails"))))
        const dying = yield* Effect.forEach(range(3), () => fork(dedupe(after(Effect.die("bug")), Ask("dies"))))
        yield* TestClock.adjust("1 second")
        for (const fiber of failing) assert.deepStrictEqual(yield* Fiber.await(fiber), failure)
        for (const fiber of dying) assert.deepStrictEqual(yield* Fiber.await(fiber), Exit.die("bug"))
        assert.strictEqual(runs, 2)
      }).pipe(withDeduplicator()))

    it.effect("calls with different keys do not share a run", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const { call, runs } = makeCall()
        const fibers = yield* Effect.forEach(["a", "b", "a"], (text) => fork(dedupe(call, Ask(text))))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* Fiber.joinAll(fibers), ["answer 1", "answer 2", "answer 1"])
        assert.strictEqual(runs.started, 2)
      }).pipe(withDeduplicator()))

    it.effect("tenants do not share a result when the operation names the tenant", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const Tenanted = Deduplicator.operation<string>()("tenanted", {
          key: (input: { readonly tenant: string }) => "the same prompt" + input.tenant.slice(9),
          tenant: (input) => input.tenant,
          timeToLive: "1 hour"
        })
        const ask = (tenant: string) => dedupe(Effect.succeed(`for ${tenant}`), Tenanted({ tenant }))
        assert.deepStrictEqual([yield* ask("a"), yield* ask("b"), yield* ask("a")], ["for a", "for b", "for a"])
      }).pipe(withDeduplicator()))

    it.effect("onServed reports how a caller is served before the caller waits", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const { call } = makeCall()
        const served: Array<Deduplicator.Served> = []
        const ask = call.pipe(dedupe(Cached("x"), { onServed: (how) => served.push(how) }))
        yield* fork(ask)
        yield* fork(ask)
        assert.deepStrictEqual(served, ["Led", "Joined"])
        yield* TestClock.adjust("1 second")
        yield* ask
        assert.deepStrictEqual(served, ["Led", "Joined", "Cached"])
      }).pipe(withDeduplicator()))

    it.effect("resources of a run are released when the flight ends, not when a caller's scope closes", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const log: Array<string> = []
        const call = Effect.acquireRelease(Effect.succeed("a"), () => Effect.sync(() => log.push("released"))).pipe(
          Effect.tap(Effect.sleep("1 second"))
        )
        const inner: Effect.Effect<string, "busy" | Deduplicator.TooManyWaiters> = dedupe(call, key)
        const leader = yield* fork(Effect.scoped(inner))
        const joiner = yield* fork(Effect.scoped(inner))
        yield* Fiber.interrupt(leader)
        assert.deepStrictEqual(log, [])
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(joiner)
        assert.deepStrictEqual(log, ["released"])
      }).pipe(withDeduplicator()))

    it.effect("a run has the services of its leader, and no parent span", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        class Model extends Context.Service<Model, string>()("Model") {}
        const call = Effect.gen(function*() {
          const span = yield* Effect.serviceOption(Tracer.ParentSpan)
          return `${yield* Model}, ${Option.isSome(span) ? "span" : "no span"}`
        })
        const answer = yield* dedupe(call, key).pipe(
          Effect.provideService(Model, "gpt"),
          Effect.withSpan("caller")
        )
        assert.strictEqual(answer, "gpt, no span")
      }).pipe(withDeduplicator()))

    it.effect("a run has the latest deadline of its current callers", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const seen: Array<number | undefined> = []
        const look = Effect.withFiber((fiber) => Effect.sync(() => seen.push(fiber.getRef(Deadline.Deadline)?.at)))
        const call = Effect.as(Effect.repeat(Effect.delay(look, "1 second"), { times: 3 }), "late")
        const ask = dedupe(call, key)
        yield* fork(Effect.exit(Deadline.within(ask, "10 seconds")))
        yield* TestClock.adjust("1 second")
        const longer = yield* fork(Deadline.within(ask, "29 seconds"))
        yield* TestClock.adjust("1 second")
        const endless = yield* fork(ask)
        yield* TestClock.adjust("1 second")
        yield* Fiber.interrupt(endless)
        yield* Fiber.interrupt(longer)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(seen, [10_000, 30_000, Number.POSITIVE_INFINITY, 10_000])
      }).pipe(withDeduplicator()))

    it.effect("watchers of the deadline are called when the caller with the latest deadline leaves", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        let deadline: SharedDeadline | undefined
        const call = Effect.withFiber((fiber) => {
          const current = fiber.getRef(Deadline.Deadline)
          if (current instanceof SharedDeadline) deadline = current
          return Effect.as(Effect.sleep("1 hour"), "late")
        })
        const ask = dedupe(call, key)
        const within = (seconds: number) => fork(Effect.exit(Deadline.within(ask, `${seconds} seconds`)))
        const [, ten, twenty, forty, another] = yield* Effect.forEach([15, 10, 20, 40, 40], within)
        const endless = yield* fork(ask)
        const reported: Array<number> = []
        const stop = deadline?.watch(() => reported.push(deadline?.at ?? 0))
        yield* Fiber.interrupt(endless)
        yield* Fiber.interrupt(ten!)
        yield* Fiber.interrupt(another!)
        yield* Fiber.interrupt(forty!)
        yield* Fiber.interrupt(twenty!)
        assert.deepStrictEqual(reported, [40_000, 20_000, 15_000])
        stop?.()
        const more = yield* within(30)
        yield* Fiber.interrupt(more)
        assert.deepStrictEqual([reported.length, deadline?.at], [3, 15_000])
      }).pipe(withDeduplicator()))

    it.effect("watchers of the deadline are called when a caller of an outer flight leaves", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        let deadline: SharedDeadline | undefined
        const inner = dedupe(
          Effect.withFiber((fiber) => {
            const current = fiber.getRef(Deadline.Deadline)
            if (current instanceof SharedDeadline) deadline = current
            return Effect.as(Effect.sleep("1 hour"), "late")
          }),
          Ask("inner")
        )
        const outer = dedupe(inner, Ask("outer"))
        yield* fork(Effect.exit(Deadline.within(outer, "10 seconds")))
        const longer = yield* fork(Effect.exit(Deadline.within(outer, "20 seconds")))
        const reported: Array<number> = []
        deadline?.watch(() => reported.push(deadline?.at ?? 0))
        assert.strictEqual(deadline?.at, 20_000)
        yield* Fiber.interrupt(longer)
        assert.deepStrictEqual(reported, [10_000])
      }).pipe(withDeduplicator()))

    it.effect("each caller leaves at its own deadline, and the run stops with the last", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const { call, runs } = makeCall()
        const ask = dedupe(Effect.delay(call, "1 minute"), key)
        const short = yield* fork(Effect.flip(Deadline.within(ask, "2 seconds")))
        const long = yield* fork(Effect.flip(Deadline.within(ask, "4 seconds")))
        yield* TestClock.adjust("2 seconds")
        assert.instanceOf(yield* Fiber.join(short), Deadline.DeadlineExceeded)
        assert.strictEqual((yield* counts).flights, 1)
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.join(long)
        assert.deepStrictEqual([runs.started, yield* counts], [0, zeroCounts])
      }).pipe(withDeduplicator()))

    it.effect(
      "waking 10,000 callers, each of which ends another flight, does not overflow the stack",
      () =>
        Effect.gen(function*() {
          const { dedupe } = yield* Deduplicator.Deduplicator
          // Each flight waits for the one before it, so the end of the first ends all of them in turn.
          const { call } = makeCall()
          const fibers = yield* Effect.forEach(range(10_000), (i) => {
            const before = i === 0 ? call : dedupe(Effect.die("it runs already"), Ask(`chain ${i - 1}`))
            return fork(dedupe(before, Ask(`chain ${i}`)))
          })
          yield* TestClock.adjust("1 second")
          assert.deepStrictEqual([...new Set(yield* Fiber.joinAll(fibers))], ["answer 1"])
          const crowd = yield* Effect.forEach(range(10_000), () => fork(dedupe(call, key)))
          yield* TestClock.adjust("1 second")
          assert.strictEqual(new Set(yield* Fiber.joinAll(crowd)).size, 1)
        }).pipe(withDeduplicator()),
      40_000
    )

    it.effect("flights nest 3,000 levels deep", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const count = (n: number): Effect.Effect<string, "busy" | Deduplicator.TooManyWaiters> =>
          dedupe(n === 0 ? Effect.succeed("bottom") : Effect.suspend(() => count(n - 1)), Ask(`level ${n}`))
        assert.strictEqual(yield* count(3000), "bottom")
      }).pipe(withDeduplicator()))

    it.effect("a run that calls its own key dies instead of waiting for itself", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const exit = yield* Effect.exit(dedupe(Effect.suspend(() => dedupe(Effect.succeed("inner"), key)), key))
        assert.include(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", "operation ask requests its own key")
        assert.deepStrictEqual(yield* counts, zeroCounts)
      }).pipe(withDeduplicator()))

    it("dedupe works in a synchronous program", () => {
      const program = Deduplicator.Deduplicator.use(({ dedupe }) => dedupe(Effect.succeed("now"), key))
      assert.strictEqual(Effect.runSync(Effect.provide(program, Deduplicator.layer())), "now")
    })

    it.effect("callers get the result after the run's finalizers, and a finalizer that dies is a defect", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const releasing = (release: Effect.Effect<unknown>) => Effect.as(Effect.addFinalizer(() => release), "answer")
        const slow = yield* fork(dedupe(releasing(Effect.sleep("5 seconds")), key))
        yield* TestClock.adjust("4 seconds")
        const joiner = yield* fork(dedupe(Effect.die("it runs already"), key))
        assert.deepStrictEqual([slow.pollUnsafe(), yield* counts], [undefined, { cached: 0, flights: 1, waiting: 2 }])
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual([yield* Fiber.join(slow), yield* Fiber.join(joiner)], ["answer", "answer"])
        const dying = dedupe(releasing(Effect.die("bug")), key)
        assert.deepStrictEqual(yield* Effect.exit(dying), Exit.die("bug"))
        assert.deepStrictEqual(yield* counts, zeroCounts)
      }).pipe(withDeduplicator()))

    it.effect("the last caller to leave waits for the finalizers of the run", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const call = Effect.andThen(Effect.addFinalizer(() => Effect.sleep("5 seconds")), Effect.never)
        const caller = yield* fork(dedupe(call, key))
        const leaving = yield* fork(Fiber.interrupt(caller))
        yield* TestClock.adjust("4 seconds")
        assert.deepStrictEqual([leaving.pollUnsafe(), yield* counts], [undefined, {
          cached: 0,
          flights: 1,
          waiting: 0
        }])
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(leaving)
        assert.deepStrictEqual(yield* counts, zeroCounts)
      }).pipe(withDeduplicator()))

    it.effect("closing the scope of the service stops the flights and waits for their finalizers", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const { dedupe } = yield* Scope.provide(Deduplicator.make(), scope)
        const { call, runs } = makeCall()
        const caller = yield* fork(Effect.exit(dedupe(Effect.ensuring(call, Effect.sleep("5 seconds")), key)))
        const closing = yield* fork(Scope.close(scope, Exit.void))
        yield* TestClock.adjust("4 seconds")
        assert.deepStrictEqual([runs.interrupted, closing.pollUnsafe()], [1, undefined])
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(closing)
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.join(caller)))
        const late = yield* Effect.exit(dedupe(call, key))
        assert.isTrue(Exit.hasInterrupts(late))
      }))

    it.effect("a run that closes the scope of the service does not wait for itself", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const { dedupe } = yield* Scope.provide(Deduplicator.make(), scope)
        const closes = Effect.as(Effect.andThen(Effect.yieldNow, Scope.close(scope, Exit.void)), "closed")
        assert.strictEqual(yield* dedupe(closes, key), "closed")
      }))
  })

  describe("maxWaiters", () => {
    const few = withDeduplicator({ name: "chat", maxWaiters: 3, timeToLive: "1 hour" })
    const refusalOf = (exit: Exit.Exit<unknown, unknown>) => {
      const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
      assert.instanceOf(error, Deduplicator.TooManyWaiters)
      return error
    }

    it.effect("maxWaiters limits the callers of one flight, and not those of other keys", () =>
      Effect.gen(function*() {
        const { dedupe, stats } = yield* Deduplicator.Deduplicator
        const { call, runs } = makeCall()
        const fibers = yield* Effect.forEach(range(3), () => fork(dedupe(call, key)))
        const refused = refusalOf(yield* Effect.exit(dedupe(call, key)))
        const { maxWaiters, operation, policy, waiting } = refused
        assert.deepStrictEqual([policy, operation, waiting, maxWaiters], ["chat", "ask", 3, 3])
        assert.include(refused.message, "3 of at most 3 callers wait for one flight of operation ask")
        assert.notInclude(refused.stack ?? "", "\n    at ")
        assert.strictEqual(Outcome.fromExit(Exit.fail(refused))._tag, "Ignored")
        // A caller of another key is admitted, and so is one that replaces a caller that left.
        const other = yield* fork(dedupe(call, Ask("another prompt")))
        yield* Fiber.interrupt(fibers[0]!)
        const next = yield* fork(dedupe(call, key))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual([yield* Fiber.join(next), yield* Fiber.join(other)], ["answer 1", "answer 2"])
        const hits = yield* Effect.forEach(range(5), () => dedupe(call, key))
        assert.deepStrictEqual([hits.length, runs.started, (yield* stats).refused], [5, 2, 1])
      }).pipe(few))

    it.effect("maxWaiters also limits readers of a stream and callers that await a claim", () =>
      Effect.gen(function*() {
        const { claim, dedupeStream, stats } = yield* Deduplicator.Deduplicator
        const read = Stream.runDrain(dedupeStream(Stream.never, key))
        const readers = yield* Effect.forEach(range(3), () => fork(read))
        assert.strictEqual(refusalOf(yield* Effect.exit(read)).waiting, 3)
        yield* Fiber.interruptAll(readers)
        const claimed = yield* claim(key)
        const found = yield* claim(key)
        assert.deepStrictEqual([claimed._tag, found._tag], ["New", "InProgress"])
        if (found._tag !== "InProgress") return
        const waiters = yield* Effect.forEach(range(3), () => fork(found.await))
        assert.strictEqual(refusalOf(yield* Effect.exit(found.await)).waiting, 3)
        yield* Fiber.interruptAll(waiters)
        assert.deepInclude(yield* stats, { refused: 2, waiting: 0 })
      }).pipe(Effect.scoped, few))

    it.effect("a refusal by maxWaiters is never cached", () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        const Always = Deduplicator.operation<string, Deduplicator.TooManyWaiters>()("always", {
          key: (text: string) => text,
          timeToLive: () => "1 hour"
        })
        const Crowded = Deduplicator.operation<string>()("crowded", { key: (text: string) => text })
        yield* fork(dedupe(Effect.never, Crowded("x")))
        const joining = dedupe(Effect.never, Crowded("x"))
        refusalOf(yield* Effect.exit(dedupe(joining, Always("x"))))
        assert.deepStrictEqual(yield* counts, { cached: 0, flights: 1, waiting: 1 })
      }).pipe(withDeduplicator({ maxWaiters: 1 })))
  })

  describe("options", () => {
    it.effect("invalid options are refused all at once", () =>
      Effect.gen(function*() {
        const invalid = yield* Effect.flip(
          Effect.scoped(Deduplicator.make({ capacity: 0, timeToLive: "Infinity", maxWaiters: 0, maxReplay: 0.5 }))
        )
        assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), [
          "capacity",
          "timeToLive",
          "maxWaiters",
          "maxReplay"
        ])
      }))

    const wrong: ReadonlyArray<readonly [option: string, options: unknown]> = [
      ["options", null],
      ["options", "many"],
      ["name", { name: 7 }],
      ["name", { name: null }],
      ["capacity", { capacity: "10" }],
      ["capacity", { capacity: null }],
      ["capacity", { capacity: Number.NaN }],
      ["timeToLive", { timeToLive: "soon" }],
      ["timeToLive", { timeToLive: {} }],
      ["timeToLive", { timeToLive: null }],
      ["timeToLive", { timeToLive: -1 }],
      ["maxWaiters", { maxWaiters: "all" }],
      ["maxReplay", { maxReplay: [] }]
    ]
    it.effect.each(wrong)("an option of a wrong type is refused: %s", ([option, options]) =>
      Effect.gen(function*() {
        const given = options as Deduplicator.DeduplicatorOptions // as a JavaScript caller can
        const invalid = yield* Effect.flip(Effect.scoped(Deduplicator.make(given)))
        assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), [option])
      }))

    const wrongOperations: ReadonlyArray<readonly [option: string, name: unknown, options: unknown]> = [
      ["options", "x", undefined],
      ["options", "x", null],
      ["options", "x", "text"],
      ["name", "", { key: String }],
      ["name", undefined, { key: String }],
      ["key", "x", {}],
      ["key", "x", { key: "text" }],
      ["tenant", "x", { key: String, tenant: "a" }],
      ["timeToLive", "x", { key: String, timeToLive: "soon" }],
      ["timeToLive", "x", { key: String, timeToLive: null }],
      ["timeToLive", "x", { key: String, timeToLive: "-1 seconds" }],
      ["timeToLive", "x", { key: String, timeToLive: -5 }],
      ["timeToLive", "x", { key: String, timeToLive: Number.NaN }],
      ["timeToLive", "x", { key: String, timeToLive: "Infinity" }],
      ["timeToLive", "x", { key: String, timeToLive: {} }],
      ["success", "x", { key: String, success: "text" }],
      ["error", "x", { key: String, success: Schema.String, error: {} }]
    ]
    it.effect.each(wrongOperations)(
      "an invalid option of an operation is a defect where the operation is used: %s",
      (wrong) =>
        Effect.gen(function*() {
          const [option, name, options] = wrong
          const { claim, dedupe, dedupeStream } = yield* Deduplicator.Deduplicator
          // As a JavaScript caller can.
          const Wrong = Deduplicator.operation<string>()(
            name as string,
            options as { readonly key: (text: string) => string }
          )
          let runs = 0
          const call = Effect.sync(() => `answer ${++runs}`)
          const uses = [dedupe(call, Wrong("x")), Stream.runDrain(dedupeStream(Stream.fromEffect(call), Wrong("x")))]
          for (const use of [...uses, claim(Wrong("x"))]) {
            const exit: Exit.Exit<unknown, unknown> = yield* Effect.exit(Effect.scoped(use))
            const defect = Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? Cause.squash(exit.cause) : undefined
            assert.instanceOf(defect, InvalidOptions)
            assert.deepStrictEqual(defect.issues.map((issue) => issue.option), [option])
          }
          assert.strictEqual(runs, 0)
        }).pipe(withDeduplicator())
    )

    it.effect("layerNoop runs every call separately", () =>
      Effect.gen(function*() {
        const { claim, dedupe, dedupeStream } = yield* Deduplicator.Deduplicator
        let runs = 0
        const call = Effect.delay(Effect.sync(() => `answer ${++runs}`), "1 second")
        const fibers = yield* Effect.forEach(range(2), () => fork(dedupe(call, Cached("x"))))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* Fiber.joinAll(fibers), ["answer 1", "answer 2"])
        assert.deepStrictEqual(yield* Stream.runCollect(dedupeStream(Stream.make("a", "b"), key)), ["a", "b"])
        const claimed = yield* claim(key)
        const answered = claimed._tag === "New"
          ? [yield* claimed.lease.complete("a"), yield* claimed.lease.fail("busy")]
          : []
        assert.deepStrictEqual(answered, [true, false])
      }).pipe(Effect.scoped, Effect.provide(Deduplicator.layerNoop)))
  })
})
