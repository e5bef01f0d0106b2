import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  Context,
  Deferred,
  type Duration,
  Effect,
  Exit,
  Fiber,
  Logger,
  Metric,
  Option,
  Schema,
  Scope,
  Stream,
  Tracer
} from "effect"
import { TestClock } from "effect/testing"
import * as Deadline from "../src/Deadline.ts"
import * as Deduplicator from "../src/Deduplicator.ts"
import { SharedDeadline } from "../src/internal/deadline/shared.ts"
import { InvalidOptions } from "../src/InvalidOptions.ts"
import { KeyHash, sha256 } from "../src/KeyHash.ts"
import * as Outcome from "../src/Outcome.ts"

// Some calls make others like themselves, whose refusal is then theirs.
const Ask = Deduplicator.operation<string, "busy" | Deduplicator.TooManyWaiters>()("ask", {
  key: (text: string) => text
})
const Kept = Deduplicator.operation<string, "busy">()("kept", { key: (text: string) => text, timeToLive: "1 minute" })
const key = Ask("a prompt")

/** A call that takes a second, and what became of each time it was run. */
const makeCall = () => {
  const runs = { started: 0, ended: 0, interrupted: 0 }
  const call = Effect.suspend(() => {
    const answer = `answer ${++runs.started}`
    return Effect.as(Effect.sleep("1 second"), answer)
  }).pipe(Effect.onExit((exit) =>
    Effect.sync(() => {
      runs.ended++
      if (Exit.hasInterrupts(exit)) runs.interrupted++
    })
  ))
  return { runs, call }
}

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })
const many = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, i) => i)

const live = Effect.map(
  Deduplicator.Deduplicator.use((deduplicator) => deduplicator.stats),
  ({ cached, flights, waiting }) => ({ cached, flights, waiting })
)
const nothing = { cached: 0, flights: 0, waiting: 0 }
const provide = (options?: Deduplicator.DeduplicatorOptions) => Effect.provide(Deduplicator.layer(options))

describe("dedupe", () => {
  it.effect("runs 500 identical concurrent calls once", () =>
    Effect.gen(function*() {
      const { dedupe, stats } = yield* Deduplicator.Deduplicator
      const { call, runs } = makeCall()
      const fibers = yield* Effect.forEach(many(500), () => fork(dedupe(call, key)))
      yield* TestClock.adjust("1 second")
      const answers = yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual([...new Set(answers)], ["answer 1"])
      assert.strictEqual(runs.started, 1)
      const { joined, led } = yield* stats
      assert.deepStrictEqual([led, joined, yield* live], [1, 499, nothing])
    }).pipe(provide()))

  it.effect("a leader of 500 joined callers interrupted: 499 answers, one call", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const { call, runs } = makeCall()
      const leader = yield* fork(dedupe(call, key))
      const fibers = yield* Effect.forEach(many(499), () => fork(dedupe(call, key)))
      yield* TestClock.adjust("500 millis")
      yield* Fiber.interrupt(leader)
      assert.deepStrictEqual(yield* live, { cached: 0, flights: 1, waiting: 499 })
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(yield* Fiber.joinAll(fibers), many(499).map(() => "answer 1"))
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(leader)))
      assert.deepStrictEqual([runs.started, runs.interrupted, yield* live], [1, 0, nothing])
    }).pipe(provide()))

  it.effect("500 joined callers all interrupted: the work stops with the last, and not before", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const { call, runs } = makeCall()
      const fibers = yield* Effect.forEach(many(500), () => fork(dedupe(call, key)))
      for (const fiber of fibers.slice(1)) yield* Fiber.interrupt(fiber)
      assert.strictEqual(runs.ended, 0)
      yield* Fiber.interrupt(fibers[0]!)
      assert.deepStrictEqual([runs.started, runs.interrupted, yield* live], [1, 1, nothing])
    }).pipe(provide()))

  it.effect("re-joining a cancelled flight (tailscale #18919): who comes while it stops starts anew", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const call = Effect.onInterrupt(Effect.as(Effect.sleep("1 hour"), "late"), () => Effect.sleep("5 seconds"))
      const leaver = yield* fork(dedupe(call, key))
      const leaving = yield* fork(Fiber.interrupt(leaver))
      const anew = yield* fork(dedupe(Effect.succeed("anew"), key))
      assert.strictEqual(yield* Fiber.join(anew), "anew")
      assert.isUndefined(leaving.pollUnsafe())
      assert.deepStrictEqual(yield* live, { cached: 0, flights: 1, waiting: 0 })
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(leaving)
      assert.deepStrictEqual(yield* live, nothing)
    }).pipe(provide()))

  it.effect("shares a typed failure and a defect like an answer", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      let runs = 0
      const after = (effect: Effect.Effect<string, "busy">) =>
        Effect.suspend(() => {
          runs++
          return Effect.andThen(Effect.sleep("1 second"), effect)
        })
      const failure: Exit.Exit<string, "busy"> = Exit.fail("busy")
      const failing = yield* Effect.forEach(many(3), () => fork(dedupe(after(failure), Ask("fails"))))
      const dying = yield* Effect.forEach(many(3), () => fork(dedupe(after(Effect.die("bug")), Ask("dies"))))
      yield* TestClock.adjust("1 second")
      for (const fiber of failing) assert.deepStrictEqual(yield* Fiber.await(fiber), failure)
      for (const fiber of dying) assert.deepStrictEqual(yield* Fiber.await(fiber), Exit.die("bug"))
      assert.strictEqual(runs, 2)
    }).pipe(provide()))

  it.effect("keeps keys apart", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const { call, runs } = makeCall()
      const fibers = yield* Effect.forEach(["a", "b", "a"], (text) => fork(dedupe(call, Ask(text))))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.joinAll(fibers), ["answer 1", "answer 2", "answer 1"])
      assert.strictEqual(runs.started, 2)
    }).pipe(provide()))

  it.effect("shares no answer between tenants, where the operation tells them apart", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const Tenanted = Deduplicator.operation<string>()("tenanted", {
        key: (input: { readonly tenant: string }) => "the same prompt" + input.tenant.slice(9),
        tenant: (input) => input.tenant,
        timeToLive: "1 hour"
      })
      const ask = (tenant: string) => dedupe(Effect.succeed(`for ${tenant}`), Tenanted({ tenant }))
      assert.deepStrictEqual([yield* ask("a"), yield* ask("b"), yield* ask("a")], ["for a", "for b", "for a"])
    }).pipe(provide()))

  it.effect("says how each caller is served before it waits", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const { call } = makeCall()
      const served: Array<Deduplicator.Served> = []
      const ask = call.pipe(dedupe(Kept("x"), { onServed: (how) => served.push(how) }))
      yield* fork(ask)
      yield* fork(ask)
      assert.deepStrictEqual(served, ["Led", "Joined"])
      yield* TestClock.adjust("1 second")
      yield* ask
      assert.deepStrictEqual(served, ["Led", "Joined", "Cached"])
    }).pipe(provide()))

  it.effect("releases what the effect acquired when the flight ends, whatever becomes of its caller's scope", () =>
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
    }).pipe(provide()))

  it.effect("runs with its leader's services, and without its span", () =>
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
    }).pipe(provide()))

  it.effect("is under the latest deadline of those who wait at the time", () =>
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
    }).pipe(provide()))

  it.effect("tells a timer of its deadline when the moment comes nearer, as the one who had longest leaves", () =>
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
      const told: Array<number> = []
      const stop = deadline?.watch(() => told.push(deadline?.at ?? 0))
      yield* Fiber.interrupt(endless)
      yield* Fiber.interrupt(ten!)
      yield* Fiber.interrupt(another!)
      yield* Fiber.interrupt(forty!)
      yield* Fiber.interrupt(twenty!)
      assert.deepStrictEqual(told, [40_000, 20_000, 15_000])
      stop?.()
      const more = yield* within(30)
      yield* Fiber.interrupt(more)
      assert.deepStrictEqual([told.length, deadline?.at], [3, 15_000])
    }).pipe(provide()))

  it.effect("tells that timer also of a caller who is part of another flight", () =>
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
      const told: Array<number> = []
      deadline?.watch(() => told.push(deadline?.at ?? 0))
      assert.strictEqual(deadline?.at, 20_000)
      yield* Fiber.interrupt(longer)
      assert.deepStrictEqual(told, [10_000])
    }).pipe(provide()))

  it.effect("lets each caller go at its own deadline, and stops the work with the last", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const { call, runs } = makeCall()
      const ask = dedupe(Effect.delay(call, "1 minute"), key)
      const short = yield* fork(Effect.flip(Deadline.within(ask, "2 seconds")))
      const long = yield* fork(Effect.flip(Deadline.within(ask, "4 seconds")))
      yield* TestClock.adjust("2 seconds")
      assert.instanceOf(yield* Fiber.join(short), Deadline.DeadlineExceeded)
      assert.strictEqual((yield* live).flights, 1)
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(long)
      assert.deepStrictEqual([runs.started, yield* live], [0, nothing])
    }).pipe(provide()))

  it.effect(
    "wakes 10,000 who wait, each of whom lands another flight, without a deep stack",
    () =>
      Effect.gen(function*() {
        const { dedupe } = yield* Deduplicator.Deduplicator
        // Each flight waits for the one before it: the end of the first lands all of them, one after the other.
        const { call } = makeCall()
        const fibers = yield* Effect.forEach(many(10_000), (i) => {
          const before = i === 0 ? call : dedupe(Effect.die("it runs already"), Ask(`chain ${i - 1}`))
          return fork(dedupe(before, Ask(`chain ${i}`)))
        })
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual([...new Set(yield* Fiber.joinAll(fibers))], ["answer 1"])
        const crowd = yield* Effect.forEach(many(10_000), () => fork(dedupe(call, key)))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(new Set(yield* Fiber.joinAll(crowd)).size, 1)
      }).pipe(provide()),
    20_000
  )

  it.effect("leads calls inside calls as deep as a recursion goes", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const count = (n: number): Effect.Effect<string, "busy" | Deduplicator.TooManyWaiters> =>
        dedupe(n === 0 ? Effect.succeed("bottom") : Effect.suspend(() => count(n - 1)), Ask(`level ${n}`))
      assert.strictEqual(yield* count(3000), "bottom")
    }).pipe(provide()))

  it.effect("dies instead of waiting for itself for ever", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const exit = yield* Effect.exit(dedupe(Effect.suspend(() => dedupe(Effect.succeed("inner"), key)), key))
      assert.include(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "", "operation ask asks for its own key")
      assert.deepStrictEqual(yield* live, nothing)
    }).pipe(provide()))

  it("answers a synchronous program", () => {
    const program = Deduplicator.Deduplicator.use(({ dedupe }) => dedupe(Effect.succeed("now"), key))
    assert.strictEqual(Effect.runSync(Effect.provide(program, Deduplicator.layer())), "now")
  })

  it.effect("answers when the finalizers of the run are done, and dies with one that dies", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const releasing = (release: Effect.Effect<unknown>) => Effect.as(Effect.addFinalizer(() => release), "answer")
      const slow = yield* fork(dedupe(releasing(Effect.sleep("5 seconds")), key))
      yield* TestClock.adjust("4 seconds")
      const joiner = yield* fork(dedupe(Effect.die("it runs already"), key))
      assert.deepStrictEqual([slow.pollUnsafe(), yield* live], [undefined, { cached: 0, flights: 1, waiting: 2 }])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* Fiber.join(slow), yield* Fiber.join(joiner)], ["answer", "answer"])
      const dying = dedupe(releasing(Effect.die("bug")), key)
      assert.deepStrictEqual(yield* Effect.exit(dying), Exit.die("bug"))
      assert.deepStrictEqual(yield* live, nothing)
    }).pipe(provide()))

  it.effect("lets the last one go when the finalizers of what it stops are done", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const call = Effect.andThen(Effect.addFinalizer(() => Effect.sleep("5 seconds")), Effect.never)
      const caller = yield* fork(dedupe(call, key))
      const leaving = yield* fork(Fiber.interrupt(caller))
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual([leaving.pollUnsafe(), yield* live], [undefined, { cached: 0, flights: 1, waiting: 0 }])
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(leaving)
      assert.deepStrictEqual(yield* live, nothing)
    }).pipe(provide()))

  it.effect("stops its flights when it is closed, and waits for their finalizers", () =>
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

  it.effect("does not wait for the run that closes it", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { dedupe } = yield* Scope.provide(Deduplicator.make(), scope)
      const closes = Effect.as(Effect.andThen(Effect.yieldNow, Scope.close(scope, Exit.void)), "closed")
      assert.strictEqual(yield* dedupe(closes, key), "closed")
    }))
})

describe("maxWaiters", () => {
  const few = provide({ name: "chat", maxWaiters: 3, timeToLive: "1 hour" })
  const refusalOf = (exit: Exit.Exit<unknown, unknown>) => {
    const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
    assert.instanceOf(error, Deduplicator.TooManyWaiters)
    return error
  }

  it.effect("refuses who comes when so many wait for one flight, and nobody else", () =>
    Effect.gen(function*() {
      const { dedupe, stats } = yield* Deduplicator.Deduplicator
      const { call, runs } = makeCall()
      const fibers = yield* Effect.forEach(many(3), () => fork(dedupe(call, key)))
      const refused = refusalOf(yield* Effect.exit(dedupe(call, key)))
      const { maxWaiters, operation, policy, waiting } = refused
      assert.deepStrictEqual([policy, operation, waiting, maxWaiters], ["chat", "ask", 3, 3])
      assert.include(refused.message, "3 of at most 3 callers wait for one flight of operation ask")
      assert.notInclude(refused.stack ?? "", "\n    at ")
      assert.strictEqual(Outcome.fromExit(Exit.fail(refused))._tag, "Ignored")
      // Another key's callers, and one who takes the place of one who left.
      const other = yield* fork(dedupe(call, Ask("another prompt")))
      yield* Fiber.interrupt(fibers[0]!)
      const next = yield* fork(dedupe(call, key))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* Fiber.join(next), yield* Fiber.join(other)], ["answer 1", "answer 2"])
      const hits = yield* Effect.forEach(many(5), () => dedupe(call, key))
      assert.deepStrictEqual([hits.length, runs.started, (yield* stats).refused], [5, 2, 1])
    }).pipe(few))

  it.effect("refuses readers of a stream, and those who await a claim", () =>
    Effect.gen(function*() {
      const { claim, dedupeStream, stats } = yield* Deduplicator.Deduplicator
      const read = Stream.runDrain(dedupeStream(Stream.never, key))
      const readers = yield* Effect.forEach(many(3), () => fork(read))
      assert.strictEqual(refusalOf(yield* Effect.exit(read)).waiting, 3)
      yield* Fiber.interruptAll(readers)
      const claimed = yield* claim(key)
      const found = yield* claim(key)
      assert.deepStrictEqual([claimed._tag, found._tag], ["New", "InProgress"])
      if (found._tag !== "InProgress") return
      const waiters = yield* Effect.forEach(many(3), () => fork(found.await))
      assert.strictEqual(refusalOf(yield* Effect.exit(found.await)).waiting, 3)
      yield* Fiber.interruptAll(waiters)
      assert.deepInclude(yield* stats, { refused: 2, waiting: 0 })
    }).pipe(Effect.scoped, few))

  it.effect("never keeps a refusal", () =>
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
      assert.deepStrictEqual(yield* live, { cached: 0, flights: 1, waiting: 1 })
    }).pipe(provide({ maxWaiters: 1 })))
})

describe("time to live", () => {
  it.effect("serves a kept result until its time is exactly over", () =>
    Effect.gen(function*() {
      const { dedupe, stats } = yield* Deduplicator.Deduplicator
      let runs = 0
      const ask = dedupe(Effect.sync(() => `answer ${++runs}`), Kept("x"))
      yield* ask
      yield* TestClock.adjust("59999 millis")
      assert.strictEqual(yield* ask, "answer 1")
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* ask, "answer 2")
      assert.strictEqual((yield* stats).hits, 1)
    }).pipe(provide()))

  it.effect("keeps nothing by default, and what the service says where the operation says nothing", () =>
    Effect.gen(function*() {
      let runs = 0
      const twice = Deduplicator.Deduplicator.use(({ dedupe }) => {
        const ask = dedupe(Effect.sync(() => `answer ${++runs}`), key)
        return Effect.andThen(ask, ask)
      })
      assert.strictEqual(yield* twice.pipe(provide()), "answer 2")
      assert.strictEqual(yield* twice.pipe(provide({ timeToLive: "1 second" })), "answer 3")
    }))

  it.effect("keeps a failure only if the operation's function says so", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const ByExit = Deduplicator.operation<string, "busy">()("by exit", {
        key: (text: string) => text,
        timeToLive: (exit) => Exit.isSuccess(exit) ? 0 : "10 seconds"
      })
      let runs = 0
      const fail = Effect.suspend(() => {
        runs++
        return Effect.fail("busy" as const)
      })
      const runsOf = (key: Deduplicator.Key<string, "busy">) =>
        Effect.gen(function*() {
          runs = 0
          yield* Effect.exit(dedupe(fail, key))
          yield* Effect.exit(dedupe(fail, key))
          return runs
        })
      assert.strictEqual(yield* runsOf(Kept("fails")), 2)
      assert.strictEqual(yield* runsOf(ByExit("fails")), 1)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* runsOf(ByExit("fails")), 1)
    }).pipe(provide({ timeToLive: "1 hour" })))

  it.effect("never keeps an interruption or a policy's refusal", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const Always = Deduplicator.operation<string, Deadline.DeadlineExceeded>()("always", {
        key: (text: string) => text,
        timeToLive: () => "1 hour"
      })
      yield* Effect.exit(dedupe(Deadline.within(Effect.never, 0), Always("refused")))
      yield* Effect.exit(dedupe(Effect.interrupt, Always("interrupted")))
      assert.deepStrictEqual(yield* live, nothing)
      yield* Effect.exit(dedupe(Effect.die("bug"), Always("died")))
      assert.deepStrictEqual(yield* live, { cached: 1, flights: 0, waiting: 0 })
    }).pipe(provide()))

  it.effect("is nothing for a result of which its function cannot tell: handed out, not kept, and warned about once", () => {
    const warnings: Array<unknown> = []
    const logger = Logger.make(({ message }) => warnings.push(message))
    return Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const boom = () => {
        throw new Error("boom")
      }
      const nonsense: ReadonlyArray<readonly [name: string, timeToLive: () => unknown]> = [
        ["throwing", boom],
        ["NaN", () => Number.NaN],
        ["below zero", () => "-1 seconds"],
        ["endless", () => "Infinity"],
        ["no duration", () => ({})],
        ["nothing", () => undefined]
      ]
      for (const [name, timeToLive] of nonsense) {
        const Untold = Deduplicator.operation<string>()(name, {
          key: (text: string) => text,
          timeToLive: timeToLive as () => Duration.Input // as a caller in JavaScript may
        })
        let runs = 0
        const call = Effect.sync(() => `answer ${++runs}`)
        assert.strictEqual(yield* dedupe(call, Untold("x")), "answer 1", name)
        assert.strictEqual(yield* dedupe(call, Untold("x")), "answer 2", name)
      }
      assert.deepStrictEqual(yield* live, nothing)
      yield* Effect.yieldNow
      assert.deepStrictEqual(
        warnings.map(String),
        nonsense.map(([name]) =>
          `deduplicator chat: timeToLive of operation ${name} threw, or returned no finite duration; such results are not cached`
        )
      )
    }).pipe(provide({ name: "chat" }), Effect.provide(Logger.layer([logger])))
  })

  it.effect("makes room by what was not used for longest, and never at the cost of a flight", () =>
    Effect.gen(function*() {
      const { dedupe, stats } = yield* Deduplicator.Deduplicator
      const runs: Array<string> = []
      const ask = (text: string) => dedupe(Effect.sync(() => (runs.push(text), text)), Kept(text))
      const { call, runs: flown } = makeCall()
      const flying = yield* fork(dedupe(call, Kept("flight")))
      yield* Effect.forEach(["a", "b", "c", "a", "d"], ask)
      assert.deepStrictEqual(yield* live, { cached: 3, flights: 1, waiting: 1 })
      yield* Effect.forEach(["a", "c", "d"], ask)
      assert.deepStrictEqual([runs, (yield* stats).evicted], [["a", "b", "c", "d"], 1])
      yield* ask("b")
      assert.deepStrictEqual([runs.at(-1), (yield* stats).evicted], ["b", 2])
      yield* Effect.forEach(many(100), (i) => ask(`more ${i}`))
      const joiner = yield* fork(dedupe(call, Kept("flight")))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* Fiber.join(flying), yield* Fiber.join(joiner)], ["answer 1", "answer 1"])
      assert.strictEqual(flown.started, 1)
    }).pipe(provide({ capacity: 3 })))

  it.effect("lets go what has expired as new results come, without a call for it", () =>
    Effect.gen(function*() {
      const { dedupe, stats } = yield* Deduplicator.Deduplicator
      const ask = (text: string) => dedupe(Effect.succeed(text), Kept(text))
      yield* Effect.forEach(many(100), (i) => ask(`old ${i}`))
      yield* TestClock.adjust("1 minute")
      yield* Effect.forEach(many(100), (i) => ask(`new ${i}`))
      assert.deepStrictEqual([yield* live, (yield* stats).evicted], [{ cached: 100, flights: 0, waiting: 0 }, 0])
    }).pipe(provide()))

  it.effect("ends early for all keys of an operation, those of its flights included, and for no other's", () =>
    Effect.gen(function*() {
      const { dedupe, dedupeStream, invalidateOperation, stats } = yield* Deduplicator.Deduplicator
      const { call, runs } = makeCall()
      for (const text of ["a", "b", "c"]) yield* dedupe(Effect.succeed("old"), Kept(text))
      const Other = Deduplicator.operation<string>()("other", { key: (text: string) => text, timeToLive: "1 minute" })
      yield* dedupe(Effect.succeed("other"), Other("a"))
      const before = yield* fork(dedupe(call, Kept("flying")))
      yield* fork(Stream.runDrain(dedupeStream(Stream.never, Kept("flying"))))
      yield* invalidateOperation(Kept)
      assert.deepStrictEqual(yield* live, { cached: 1, flights: 2, waiting: 2 })
      const after = yield* fork(dedupe(call, Kept("flying")))
      yield* fork(Stream.runDrain(dedupeStream(Stream.never, Kept("flying"))))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* Fiber.join(before), yield* Fiber.join(after)], ["answer 1", "answer 2"])
      assert.strictEqual(yield* dedupe(call, Kept("flying")), "answer 2")
      assert.strictEqual(yield* dedupe(Effect.die("it was kept"), Other("a")), "other")
      assert.deepStrictEqual([runs.started, (yield* stats).led], [2, 8])
    }).pipe(provide()))

  it.effect("ends early by invalidation, which what runs does not undo", () =>
    Effect.gen(function*() {
      const { dedupe, invalidate } = yield* Deduplicator.Deduplicator
      const { call } = makeCall()
      yield* dedupe(Effect.succeed("old"), Kept("x"))
      yield* invalidate(Kept("x"))
      const before = yield* fork(dedupe(call, Kept("x")))
      yield* invalidate(Kept("x"))
      const after = yield* fork(dedupe(Effect.delay(call, "1 second"), Kept("x")))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(before), "answer 1")
      assert.deepStrictEqual(yield* live, { cached: 0, flights: 1, waiting: 1 })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(after), "answer 2")
      assert.strictEqual(yield* dedupe(call, Kept("x")), "answer 2")
    }).pipe(provide()))
})

describe("dump and restore", () => {
  const Dated = Deduplicator.operation<Date, "busy">()("dated", {
    key: (text: string) => text,
    success: Schema.DateFromString,
    error: Schema.Literal("busy"),
    timeToLive: () => "1 minute"
  })
  const throughJson = (dump: unknown): ReadonlyArray<unknown> => JSON.parse(JSON.stringify(dump))
  const date = (day: number) => new Date(Date.UTC(2026, 0, day))
  const neverRun = Effect.die("it was kept")

  it.effect("carry what is kept into the next process, for the rest of its time", () =>
    Effect.gen(function*() {
      const first = yield* Deduplicator.make({ name: "first" })
      yield* first.dedupe(Effect.succeed(date(1)), Dated("a"))
      yield* Effect.exit(first.dedupe(Effect.fail("busy" as const), Dated("b")))
      yield* Effect.exit(first.dedupe(Effect.die("bug"), Dated("c")))
      yield* first.dedupe(Effect.succeed("another operation's"), Kept("d"))
      yield* fork(first.dedupe(Effect.never, Dated("e")))
      yield* TestClock.adjust("30 seconds")
      const dump = throughJson(yield* first.dump(Dated))
      assert.deepStrictEqual(dump, [
        {
          operation: "dated",
          key: Dated("a").id,
          expiresAt: 60_000,
          exit: { _tag: "Success", value: date(1).toISOString() }
        },
        {
          operation: "dated",
          key: Dated("b").id,
          expiresAt: 60_000,
          exit: { _tag: "Failure", cause: [{ _tag: "Fail", error: "busy" }] }
        }
      ])

      const second = yield* Deduplicator.make({ name: "second" })
      assert.deepStrictEqual(yield* second.restore(Dated, dump), {
        restored: 2,
        present: 0,
        expired: 0,
        undecodable: 0
      })
      assert.deepStrictEqual(yield* second.dedupe(neverRun, Dated("a")), date(1))
      assert.strictEqual(yield* Effect.flip(second.dedupe(neverRun, Dated("b"))), "busy")
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* second.dedupe(Effect.succeed(date(2)), Dated("a")), date(2))
    }).pipe(Effect.scoped))

  it.effect("leave out what is older than what is there, what is over, and what cannot be read", () =>
    Effect.gen(function*() {
      const { dedupe, dump, restore, stats } = yield* Deduplicator.Deduplicator
      yield* dedupe(Effect.succeed(date(1)), Dated("kept"))
      yield* fork(dedupe(Effect.never, Dated("flying")))
      const [good] = yield* dump(Dated)
      const of = (text: string, overrides?: object) => ({ ...good, key: Dated(text).id, ...overrides })
      const became = yield* restore(Dated, [
        of("kept"),
        of("flying"),
        of("over", { expiresAt: 0 }),
        of("another", { operation: "kept" }),
        of("wrong", { exit: { _tag: "Success", value: 7 } }),
        of("odd", { exit: { _tag: "__proto__" } }),
        of("never", { expiresAt: "soon" }),
        of("keyless", { key: undefined }),
        null,
        "junk",
        of("__proto__"),
        of("toString", { key: "toString" })
      ])
      assert.deepStrictEqual(became, { restored: 2, present: 2, expired: 1, undecodable: 7 })
      assert.deepInclude(yield* stats, { cached: 3, flights: 1, undecodable: 7 })
      for (const text of ["over", "another", "wrong", "odd"]) {
        assert.deepStrictEqual(yield* dedupe(Effect.succeed(date(9)), Dated(text)), date(9))
      }
      assert.deepStrictEqual(yield* dedupe(neverRun, Dated("__proto__")), date(1))
      // What is there, and is over, is in nobody's way.
      yield* TestClock.adjust("1 minute")
      const later = of("kept", { expiresAt: 120_000 })
      assert.deepInclude(yield* restore(Dated, [later, later]), { restored: 1, present: 1 })
      assert.deepStrictEqual(yield* dedupe(neverRun, Dated("kept")), date(1))
    }).pipe(provide()))

  it.effect("keep the order of use, and to the capacity", () =>
    Effect.gen(function*() {
      const { dedupe, dump } = yield* Deduplicator.Deduplicator
      for (const text of ["a", "b", "c", "a"]) yield* dedupe(Effect.succeed(date(1)), Dated(text))
      const written = yield* dump(Dated)
      assert.deepStrictEqual(written.map(({ key }) => key), ["b", "c", "a"].map((text) => Dated(text).id))
      const smaller = yield* Deduplicator.make({ capacity: 2 })
      yield* smaller.restore(Dated, written)
      assert.deepStrictEqual((yield* smaller.dump(Dated)).map(({ key }) => key), [Dated("c").id, Dated("a").id])
    }).pipe(Effect.scoped, provide()))

  it.effect("carry keys of any hash", () =>
    Effect.gen(function*() {
      const hashes: ReadonlyArray<(bytes: Uint8Array) => string> = [
        sha256,
        (bytes) => `v1:${bytes.length}:${sha256(bytes)}`,
        (bytes) => sha256(bytes).slice(0, 31),
        (bytes) => sha256(bytes).slice(0, 32),
        (bytes) => sha256(bytes).slice(0, 33),
        (bytes) => sha256(bytes).toUpperCase()
      ]
      for (const hash of hashes) {
        const key = yield* Effect.sync(() => Dated("a")).pipe(Effect.provideService(KeyHash, hash))
        const first = yield* Deduplicator.make()
        const second = yield* Deduplicator.make()
        yield* first.dedupe(Effect.succeed(date(1)), key)
        const dump = yield* first.dump(Dated)
        assert.deepStrictEqual(dump.map((dumped) => dumped.key), [key.id])
        yield* second.restore(Dated, throughJson(dump))
        assert.deepStrictEqual(yield* second.dedupe(neverRun, key), date(1))
      }
    }).pipe(Effect.scoped))

  it.effect("leave failures out where the operation has no codec for them", () =>
    Effect.gen(function*() {
      const { dedupe, dump } = yield* Deduplicator.Deduplicator
      const Texts = Deduplicator.operation<string, "busy">()("texts", {
        key: (text: string) => text,
        success: Schema.String,
        timeToLive: () => "1 minute"
      })
      yield* Effect.exit(dedupe(Effect.fail("busy" as const), Texts("a")))
      yield* dedupe(Effect.succeed("an answer"), Texts("b"))
      assert.deepStrictEqual((yield* dump(Texts)).map(({ key }) => key), [Texts("b").id])
    }).pipe(provide()))
})

describe("metrics", () => {
  const seriesAfter = (keys: number) =>
    Effect.gen(function*() {
      const { dedupe, dedupeStream } = yield* Deduplicator.make({ name: "chat", timeToLive: "1 hour", maxWaiters: 2 })
      for (let i = 0; i < keys; i++) yield* dedupe(Effect.succeed("answer"), Ask(`prompt ${i}`))
      yield* dedupe(Effect.die("it was kept"), Ask("prompt 0"))
      for (const _ of many(3)) yield* fork(Effect.exit(dedupe(Effect.never, Ask("flying"))))
      yield* fork(Stream.runDrain(dedupeStream(Stream.never, Ask("flying"))))
      const snapshot = yield* Metric.snapshot
      return snapshot.map(({ attributes, id, state }) => ({
        id,
        attributes,
        value: "count" in state ? Number(state.count) : "value" in state ? Number(state.value) : undefined
      }))
    }).pipe(Effect.scoped, Effect.provideService(Metric.MetricRegistry, new Map()))

  it.effect("show what is counted, under the policy's name", () =>
    Effect.gen(function*() {
      const series = yield* seriesAfter(10)
      assert.deepStrictEqual(
        Object.fromEntries(series.map(({ id, value }) => [id.replace("sluice_deduplicator_", ""), value])),
        {
          flights: 2,
          waiting: 3,
          cached: 10,
          led_total: 12,
          joined_total: 1,
          hits_total: 1,
          evicted_total: 0,
          refused_total: 1,
          undecodable_total: 0
        }
      )
      for (const { attributes } of series) assert.deepStrictEqual(attributes, { policy: "chat" })
    }))

  it.effect("are as many for 10,000 keys as for 10", () =>
    Effect.gen(function*() {
      const ids = (series: ReadonlyArray<{ readonly id: string }>) => series.map(({ id }) => id)
      assert.deepStrictEqual(ids(yield* seriesAfter(10_000)), ids(yield* seriesAfter(10)))
    }))
})

describe("claim", () => {
  const claimIn = <A, E>(key: Deduplicator.Key<A, E>) => Deduplicator.Deduplicator.use(({ claim }) => claim(key))
  const leaseOf = <A, E>(claimed: Deduplicator.Claim<A, E>): Deduplicator.Lease<A, E> => {
    assert.strictEqual(claimed._tag, "New")
    if (claimed._tag !== "New") throw new Error(claimed._tag)
    return claimed.lease
  }
  const awaitOf = <A, E>(claimed: Deduplicator.Claim<A, E>) => {
    if (claimed._tag !== "InProgress") throw new Error(claimed._tag)
    return claimed.await
  }

  it.effect("finds a key new, then in progress, then kept", () =>
    Effect.gen(function*() {
      const lease = leaseOf(yield* claimIn(Kept("x")))
      const waiting = yield* fork(awaitOf(yield* claimIn(Kept("x"))))
      assert.isTrue(yield* lease.complete("answer"))
      assert.strictEqual(yield* Fiber.join(waiting), "answer")
      assert.deepStrictEqual(yield* claimIn(Kept("x")), { _tag: "Cached", exit: Exit.succeed("answer") })
    }).pipe(Effect.scoped, provide()))

  it.effect("does not expire by the time to live of results, however long its holder takes", () =>
    Effect.gen(function*() {
      const lease = leaseOf(yield* claimIn(Kept("x")))
      yield* TestClock.adjust("1 day")
      assert.strictEqual((yield* claimIn(Kept("x")))._tag, "InProgress")
      assert.isTrue(yield* lease.complete("answer"))
    }).pipe(Effect.scoped, provide()))

  it.effect("fails those who wait by its lease, and is new at once", () =>
    Effect.gen(function*() {
      const lease = leaseOf(yield* claimIn(Kept("x")))
      const waiting = yield* fork(Effect.flip(awaitOf(yield* claimIn(Kept("x")))))
      assert.isTrue(yield* lease.fail("busy"))
      assert.strictEqual(yield* Fiber.join(waiting), "busy")
      assert.strictEqual((yield* claimIn(Kept("x")))._tag, "New")
    }).pipe(Effect.scoped, provide()))

  it.effect("is answered once, and only by the lease that stands", () =>
    Effect.gen(function*() {
      const { invalidate } = yield* Deduplicator.Deduplicator
      const used = leaseOf(yield* claimIn(Kept("x")))
      assert.isTrue(yield* used.complete("first"))
      assert.isFalse(yield* used.complete("second"))
      assert.isFalse(yield* used.fail("busy"))
      const lapsed = leaseOf(yield* Effect.scoped(claimIn(Kept("y"))))
      const standing = leaseOf(yield* claimIn(Kept("y")))
      assert.isFalse(yield* lapsed.complete("late"))
      assert.isTrue(yield* standing.complete("mine"))
      const invalidated = leaseOf(yield* claimIn(Kept("z")))
      yield* invalidate(Kept("z"))
      assert.isFalse(yield* invalidated.complete("old"))
      assert.strictEqual((yield* claimIn(Kept("z")))._tag, "New")
      assert.deepStrictEqual(yield* claimIn(Kept("y")), { _tag: "Cached", exit: Exit.succeed("mine") })
    }).pipe(Effect.scoped, provide()))

  it.effect("tells those who wait when its holder goes away without an answer", () =>
    Effect.gen(function*() {
      const holder = yield* fork(Effect.scoped(Effect.andThen(claimIn(Kept("x")), Effect.never)))
      const waiting = yield* fork(Effect.flip(awaitOf(yield* claimIn(Kept("x")))))
      yield* Fiber.interrupt(holder)
      const abandoned = yield* Fiber.join(waiting)
      assert.isTrue(abandoned instanceof Deduplicator.FlightAbandoned && abandoned.operation === "kept")
      assert.deepStrictEqual(yield* live, nothing)
    }).pipe(Effect.scoped, provide()))

  it.effect("lets callers of dedupe wait for it, and one of them run when it is abandoned", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const holder = yield* fork(Effect.scoped(Effect.andThen(claimIn(Kept("x")), Effect.never)))
      const { call, runs } = makeCall()
      const served: Array<Deduplicator.Served> = []
      const ask = dedupe(call, Kept("x"), { onServed: (how) => served.push(how) })
      const fibers = yield* Effect.forEach(many(3), () => fork(ask))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(runs.started, 0)
      yield* Fiber.interrupt(holder)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.joinAll(fibers), ["answer 1", "answer 1", "answer 1"])
      assert.deepStrictEqual(served, ["Joined", "Joined", "Joined", "Led", "Joined", "Joined"])
    }).pipe(provide()))

  it.effect("waits for a flight of dedupe, and keeps it going as long as it waits", () =>
    Effect.gen(function*() {
      const { dedupe } = yield* Deduplicator.Deduplicator
      const { call } = makeCall()
      const leader = yield* fork(dedupe(call, key))
      const claimed = awaitOf(yield* claimIn(key))
      const late = awaitOf(yield* claimIn(key))
      const waiting = yield* fork(claimed)
      yield* Fiber.interrupt(leader)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(waiting), "answer 1")
      assert.strictEqual(yield* late, "answer 1")
      const alone = yield* fork(dedupe(call, key))
      const abandoned = awaitOf(yield* claimIn(key))
      yield* Fiber.interrupt(alone)
      assert.instanceOf(yield* Effect.flip(abandoned), Deduplicator.FlightAbandoned)
    }).pipe(Effect.scoped, provide()))
})

describe("options", () => {
  it.effect("are refused all at once", () =>
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
  it.effect.each(wrong)("that are of a wrong type are refused: %s", ([option, options]) =>
    Effect.gen(function*() {
      const given = options as Deduplicator.DeduplicatorOptions // as a caller in JavaScript may
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
    "of an operation that make no sense are a defect where it is used: %s",
    (wrong) =>
      Effect.gen(function*() {
        const [option, name, options] = wrong
        const { claim, dedupe, dedupeStream } = yield* Deduplicator.Deduplicator
        // As a caller in JavaScript may.
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
      }).pipe(provide())
  )

  it.effect("are left out by layerNoop, which runs every call by itself", () =>
    Effect.gen(function*() {
      const { claim, dedupe, dedupeStream } = yield* Deduplicator.Deduplicator
      let runs = 0
      const call = Effect.delay(Effect.sync(() => `answer ${++runs}`), "1 second")
      const fibers = yield* Effect.forEach(many(2), () => fork(dedupe(call, Kept("x"))))
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

describe("dedupeStream", () => {
  /** Parts that come one a second, and how often they were asked for. */
  const makeStream = (count: number) => {
    const runs = { opened: 0, closed: 0, produced: 0 }
    const stream = Stream.unwrap(Effect.acquireRelease(
      Effect.sync(() => {
        runs.opened++
        return Stream.range(1, count).pipe(
          Stream.rechunk(1),
          Stream.mapEffect((n) => Effect.as(Effect.sleep("1 second"), `part ${n}`)),
          Stream.tap(() => Effect.sync(() => runs.produced++))
        )
      }),
      () => Effect.sync(() => runs.closed++)
    ))
    return { runs, stream }
  }
  const parts = (count: number) => many(count).map((n) => `part ${n + 1}`)

  it.effect("has one upstream for all, and gives who comes late everything from the beginning", () =>
    Effect.gen(function*() {
      const { dedupeStream, stats } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(10)
      const read = Stream.runCollect(dedupeStream(stream, key))
      const early = yield* Effect.forEach(many(3), () => fork(read))
      yield* TestClock.adjust("5500 millis")
      const late = yield* fork(read)
      yield* TestClock.adjust("5 seconds")
      for (const fiber of [...early, late]) assert.deepStrictEqual(yield* Fiber.join(fiber), parts(10))
      const { joined, led } = yield* stats
      assert.deepStrictEqual([runs.opened, runs.closed, led, joined, yield* live], [1, 1, 1, 3, nothing])
    }).pipe(provide()))

  it.effect("starts anew for who comes after its end: the parts of a stream are not kept", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(2)
      for (const _ of many(2)) {
        const reader = yield* fork(Stream.runCollect(dedupeStream(stream, Kept("x"))))
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(yield* Fiber.join(reader), parts(2))
      }
      assert.strictEqual(runs.opened, 2)
    }).pipe(provide()))

  it.effect("goes on when the reader who came first leaves, and ends upstream before the last one's end is handed on", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(10)
      const slowClose = Stream.ensuring(stream, Effect.sleep("5 seconds"))
      const leader = yield* fork(Stream.runCollect(dedupeStream(slowClose, key)))
      const taker = yield* fork(Stream.runCollect(Stream.take(dedupeStream(slowClose, key), 3)))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(leader)
      yield* TestClock.adjust("2 seconds")
      assert.isUndefined(taker.pollUnsafe())
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* Fiber.join(taker), parts(3))
      assert.deepStrictEqual([runs.opened, runs.closed, yield* live], [1, 1, nothing])
    }).pipe(provide()))

  it.effect("gives every reader what came before a failure, then the failure", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { stream } = makeStream(3)
      const seen: Array<string> = []
      const failing = dedupeStream(Stream.concat(stream, Stream.fail("busy" as const)), key).pipe(
        Stream.tap((part) => Effect.sync(() => seen.push(part)))
      )
      const fibers = yield* Effect.forEach(many(3), () => fork(Effect.flip(Stream.runDrain(failing))))
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* Fiber.joinAll(fibers), ["busy", "busy", "busy"])
      assert.strictEqual(seen.length, 9)
      assert.deepStrictEqual(yield* live, nothing)
    }).pipe(provide()))

  it.effect("shares its end and its failure when nothing came before", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      assert.deepStrictEqual(yield* Stream.runCollect(dedupeStream(Stream.empty, key)), [])
      assert.strictEqual(yield* Effect.flip(Stream.runDrain(dedupeStream(Stream.fail("busy" as const), key))), "busy")
      assert.deepStrictEqual(yield* live, nothing)
    }).pipe(provide()))

  it.effect("is joined by nobody once its beginning is no longer kept", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(8)
      const served: Array<Deduplicator.Served> = []
      const read = Stream.runCollect(dedupeStream(stream, key, { onServed: (how) => served.push(how) }))
      const first = yield* fork(read)
      yield* TestClock.adjust("4500 millis")
      const second = yield* fork(read)
      yield* TestClock.adjust("1 second")
      const third = yield* fork(read)
      yield* TestClock.adjust("20 seconds")
      for (const fiber of [first, second, third]) assert.deepStrictEqual(yield* Fiber.join(fiber), parts(8))
      assert.deepStrictEqual([served, runs.opened], [["Led", "Joined", "Led"], 2])
    }).pipe(provide({ maxReplay: 4 })))

  it.effect("is never ahead of its fastest reader, and not too far ahead of its slowest", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(20)
      const gate = yield* Deferred.make<void>()
      const shared = dedupeStream(stream, key)
      const slow = yield* fork(Stream.runCollect(Stream.tap(shared, () => Deferred.await(gate))))
      const halted = yield* fork(Stream.runDrain(Stream.tap(shared, () => Effect.never)))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(runs.produced, 1)
      const fast = yield* fork(Stream.runCollect(shared))
      yield* TestClock.adjust("1 minute")
      // Both slow readers took the first part: upstream stops when they are four behind.
      assert.strictEqual(runs.produced, 5)
      yield* Deferred.succeed(gate, undefined)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(runs.produced, 5)
      yield* Fiber.interrupt(halted)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* Fiber.join(fast), parts(20))
      assert.deepStrictEqual(yield* Fiber.join(slow), parts(20))
      assert.deepStrictEqual([runs.opened, runs.produced], [1, 20])
    }).pipe(provide({ maxReplay: 4 })))

  it.effect("waits for who joined and has not begun to read, and keeps the beginning for him", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(20)
      const shared = dedupeStream(stream, key)
      const halting = Stream.tap(shared, (part) => part === "part 3" ? Effect.never : Effect.void)
      const halted = yield* fork(Stream.runDrain(halting))
      const fast = yield* fork(Stream.runCollect(shared))
      yield* TestClock.adjust("3500 millis")
      const pull = yield* Stream.toPull(shared)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(runs.produced, 5)
      yield* Fiber.interrupt(halted)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([runs.produced, yield* pull], [5, parts(5)])
      const rest = yield* fork(Effect.exit(Effect.forever(pull)))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(rest)
      assert.deepStrictEqual(yield* Fiber.join(fast), parts(20))
    }).pipe(Effect.scoped, provide({ maxReplay: 4 })))

  it.effect("carries chunks that are larger than what is kept", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const stream = Stream.concat(Stream.fromArray(many(1000)), Stream.fromArray(many(1000)))
      const Numbers = Deduplicator.operation<number>()("numbers", { key: (n: number) => n })
      const collected = yield* Effect.forEach(
        many(3),
        () => Stream.runCollect(dedupeStream(stream, Numbers(1))),
        { concurrency: "unbounded" }
      )
      for (const read of collected) assert.deepStrictEqual(read, [...many(1000), ...many(1000)])
    }).pipe(provide({ maxReplay: 4 })))

  it.effect("does not mix with an effect of the same key", () =>
    Effect.gen(function*() {
      const { dedupe, dedupeStream } = yield* Deduplicator.Deduplicator
      const { stream } = makeStream(1)
      const reader = yield* fork(Stream.runCollect(dedupeStream(stream, key)))
      assert.strictEqual(yield* dedupe(Effect.succeed("effect"), key), "effect")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(reader), parts(1))
    }).pipe(provide()))

  it.effect("is under the latest deadline of its readers", () =>
    Effect.gen(function*() {
      const { dedupeStream } = yield* Deduplicator.Deduplicator
      const { runs, stream } = makeStream(60)
      const until = Deadline.remaining.pipe(Effect.map((left) => left === undefined ? "none" : String(left)))
      const seen: Array<string> = []
      const shared = dedupeStream(Stream.tap(stream, () => Effect.map(until, (left) => seen.push(left))), key)
      const short = yield* fork(Effect.exit(Stream.runDrain(Deadline.withinStream(shared, "2500 millis"))))
      const long = yield* fork(Effect.exit(Stream.runDrain(Deadline.withinStream(shared, "5500 millis"))))
      yield* TestClock.adjust("3 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(short)))
      assert.strictEqual(runs.closed, 0)
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(long)
      assert.strictEqual(seen.length, 5)
      assert.deepStrictEqual([runs.closed, yield* live], [1, nothing])
      assert.strictEqual(yield* Clock.currentTimeMillis, 6000)
    }).pipe(provide()))
})
