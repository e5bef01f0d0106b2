import * as Outcome from "@sluice/core/Outcome"
import * as Quota from "@sluice/core/Quota"
import * as QuotaStore from "@sluice/core/QuotaStore"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Metric, Stream } from "effect"
import { TestClock } from "effect/testing"
import { fork, range } from "./support/effects.ts"
import { Ask, breaker, makeGpt, refusalOf, retry, withStore } from "./support/policies.ts"
import { usedOf } from "./support/quotas.ts"
import { mostInAMinute } from "./support/strictProvider.ts"

const requests = (limit: number, options?: Partial<Quota.QuotaOptions>) => ({
  limits: [Quota.requestsPerMinute(limit)],
  burst: 0,
  ...options
})

const used = (policy: { readonly quota: Quota.Quota["Service"] }, dimension = "requests", key = "gpt") =>
  usedOf(policy.quota, dimension, key)

describe("a policy with a quota", () => {
  it.effect("an attempt reserves its amounts, and a success is settled by its usage", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ quota: { limits: [Quota.tokensPerMinute(100)], burst: 0 } })
      const ask = gpt.protect({ amounts: { tokens: 80 }, usage: (answer: number) => ({ tokens: answer }) })
      assert.strictEqual(yield* ask(Effect.succeed(15)), 15)
      assert.strictEqual(yield* used(gpt, "tokens"), 15)
      yield* ask(Effect.succeed(5))
      assert.strictEqual(yield* used(gpt, "tokens"), 20)
    }).pipe(withStore))

  it.effect("a call without room waits, and holds no permit meanwhile", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ quota: requests(1), backpressure: { capacity: 4, queue: 10 } })
      yield* gpt.protect(Effect.void)
      const waits = yield* fork(gpt.protect(Effect.void))
      const { backpressure } = yield* gpt.snapshot
      assert.deepInclude(backpressure, { running: 0, queued: 1 })
      yield* TestClock.adjust("62 seconds")
      assert.isDefined(waits.pollUnsafe())
    }).pipe(withStore))

  it.effect("a tenant that is out of its quota delays no other, and holds no permit", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({
        quota: { ...requests(10_000), tenantLimits: [Quota.requestsPerMinute(30)] },
        backpressure: { capacity: 8, queue: 10_000 }
      })
      const call = (tenant: string) => fork(gpt.protect(Effect.sleep("1 second"), { tenant }))
      const ofA = yield* Effect.forEach(range(300), () => call("a"))
      const ofB = yield* Effect.forEach(range(200), () => call("b"))
      // B's 30 calls and A's 30 take turns: 60 calls, 8 at once, 1 second each.
      yield* TestClock.adjust("8 seconds")
      const done = (fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>) =>
        fibers.filter((fiber) => fiber.pollUnsafe() !== undefined).length
      assert.deepStrictEqual([done(ofA), done(ofB)], [30, 30])
      assert.strictEqual((yield* gpt.snapshot).backpressure?.running, 0)
      yield* gpt.protect(Effect.void, { tenant: "c" })
      yield* Fiber.interruptAll([...ofA, ...ofB])
      assert.strictEqual((yield* gpt.snapshot).backpressure?.queued, 0)
    }).pipe(withStore))

  it.effect("reservations do not age while permits are busy: no minute has more than the limit", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ quota: requests(30), backpressure: { capacity: 2, queue: 1_000 } })
      const starts: Array<readonly [number, number]> = []
      yield* Effect.forEach(range(2), () => fork(gpt.protect(Effect.sleep("40 seconds"))))
      const started = Effect.map(Clock.currentTimeMillis, (now) => {
        starts.push([now, 1])
      })
      yield* Effect.forEach(range(120), () => fork(gpt.protect(started)))
      yield* TestClock.adjust("6 minutes")
      assert.strictEqual(starts.length, 120)
      assert.isAtMost(mostInAMinute(starts), 30)
    }).pipe(withStore))

  it.effect("each attempt reserves anew, and after a rejected one no call of the key starts before its Retry-After", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({
        retry: retry(2),
        quota: { limits: [Quota.requestsPerMinute(10), Quota.tokensPerMinute(100)], burst: 0, adapt: false },
        classify: (exit) => Exit.isFailure(exit) ? Outcome.throttled({ retryAfter: Duration.seconds(5) }) : undefined
      })
      const fiber = yield* fork(gpt.protect(Effect.fail("429"), { amounts: { tokens: 40 } }))
      assert.deepStrictEqual([yield* used(gpt), yield* used(gpt, "tokens")], [1, 0])
      yield* TestClock.adjust("6 seconds")
      yield* Fiber.await(fiber)
      assert.deepStrictEqual([yield* used(gpt), yield* used(gpt, "tokens")], [2, 0])
      assert.strictEqual((yield* gpt.snapshot).quota?.throttled, 2)
    }).pipe(withStore))

  it.effect("a further attempt with room does not wait behind a call of its tenant without room", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({
        retry: retry(2),
        quota: { ...requests(100), limits: [Quota.requestsPerMinute(100)], tenantLimits: [Quota.tokensPerMinute(100)] }
      })
      let attempts = 0
      const fails = Effect.suspend(() => ++attempts === 1 ? Effect.fail("503") : Effect.succeed("answer"))
      const retried = yield* fork(gpt.protect(fails, { tenant: "a", amounts: { tokens: 10 } }))
      assert.strictEqual(attempts, 1)
      const large = yield* fork(gpt.protect(Effect.void, { tenant: "a", amounts: { tokens: 95 } }))
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual([retried, large].map((fiber) => fiber.pollUnsafe() !== undefined), [true, false])
      yield* Fiber.interrupt(large)
    }).pipe(withStore))

  it.effect("an attempt that its circuit refuses gives its reservation back", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ quota: requests(10), breaker: breaker(1), backpressure: { capacity: 2 } })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      const exit = yield* Effect.exit(gpt.protect(Effect.void))
      assert.strictEqual(refusalOf(exit)._tag, "CircuitOpen")
      assert.strictEqual(yield* used(gpt), 1)
    }).pipe(withStore))

  it.effect("an attempt that waits for its circuit reserves again when the circuit lets it through", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ quota: requests(10), breaker: breaker(1) })
      yield* Effect.exit(gpt.protect(Effect.fail("503")))
      const waits = yield* fork(gpt.protect(Effect.succeed("answer"), { deadline: "1 minute" }))
      assert.strictEqual(yield* used(gpt), 1)
      yield* TestClock.adjust("11 seconds")
      assert.strictEqual(yield* Fiber.join(waits), "answer")
      assert.strictEqual(yield* used(gpt), 2)
    }).pipe(withStore))

  it.effect("an attempt that times out, fails or is interrupted keeps its reservation", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({
        quota: { limits: [Quota.total("money", 1_000)] },
        attemptTimeout: "1 second"
      })
      const ask = gpt.protect({ amounts: { money: 100 }, usage: () => ({ money: 1 }) })
      const slow = yield* fork(Effect.exit(ask(Effect.never)))
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(slow)
      yield* Effect.exit(ask(Effect.fail("reset")))
      const interrupted = yield* fork(ask(Effect.never))
      yield* Fiber.interrupt(interrupted)
      const late = yield* fork(
        Effect.exit(gpt.protect(Effect.never, { amounts: { money: 100 }, deadline: "500 millis" }))
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(late)
      assert.strictEqual(yield* used(gpt, "money"), 400)
    }).pipe(withStore))

  it.effect("a deadline that passes before there is room is refused at once", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ quota: requests(1) })
      yield* gpt.protect(Effect.void)
      const reason = refusalOf(yield* Effect.exit(gpt.protect(Effect.void, { deadline: "30 seconds" })))
      assert.deepInclude(reason, { _tag: "QuotaExceeded", why: "Deadline", dimension: "requests", used: 1, limit: 1 })
    }).pipe(withStore))

  it.effect("a full queue, a drain and an unknown name are refused, and no permit leaks", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ quota: requests(1, { queue: 1 }) })
      yield* gpt.protect(Effect.void)
      const waits = yield* fork(gpt.protect(Effect.void))
      assert.deepInclude(refusalOf(yield* Effect.exit(gpt.protect(Effect.void))), {
        _tag: "QuotaExceeded",
        why: "Full"
      })
      assert.isTrue(yield* gpt.drain)
      assert.deepInclude(refusalOf(yield* Fiber.await(waits)), { _tag: "QuotaExceeded", why: "Draining" })
      assert.deepInclude(refusalOf(yield* Effect.exit(gpt.protect(Effect.void))), {
        _tag: "QuotaExceeded",
        why: "Draining"
      })
      yield* gpt.resume
      const exit = yield* Effect.exit(gpt.protect(Effect.void, { amounts: { tokens: 3 } }))
      assert.isTrue(Exit.hasDies(exit))
    }).pipe(withStore))

  it.effect("amounts that no provider can count are a defect, also as a range", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ quota: { limits: [Quota.tokensPerMinute(100)] } })
      const ask = (tokens: unknown) => Effect.exit(gpt.protect(Effect.void, { amounts: { tokens: tokens as number } }))
      for (
        const tokens of [-1, 0.5, 2 ** 60, null, "5", { known: 5, atMost: 3 }, { known: 1 }, {
          known: 1,
          atMost: 2,
          most: 3
        }]
      ) {
        assert.isTrue(Exit.hasDies(yield* ask(tokens)), JSON.stringify(tokens))
      }
      assert.isTrue(Exit.isSuccess(yield* ask({ known: 1, atMost: 2 })))
    }).pipe(withStore))

  it.effect("policies that share a quota share its limits, and one wakes the other's calls", () =>
    Effect.gen(function*() {
      const quota = yield* Effect.provide(
        Quota.make({ limits: [Quota.tokensPerMinute(100)], burst: 0 }),
        QuotaStore.layerMemory
      )
      const [first, second] = [yield* makeGpt({ quota }), yield* makeGpt({ quota })]
      const options = { key: "account", amounts: { tokens: 80 }, usage: () => ({ tokens: 10 }) }
      const running = yield* fork(first.protect(Effect.sleep("1 second"), options))
      const waits = yield* fork(second.protect(Effect.void, options))
      assert.isUndefined(waits.pollUnsafe())
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(running)
      yield* Fiber.join(waits)
      assert.strictEqual(yield* usedOf(quota, "tokens", "account"), 20)
    }).pipe(withStore))

  it.effect("calls that join a run reserve nothing", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ quota: requests(10) })
      yield* Effect.all(
        range(5).map(() => gpt.protect(Effect.as(Effect.yieldNow, "answer"), { dedupe: Ask("question") })),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(yield* used(gpt), 1)
    }).pipe(withStore))

  it.effect("a stream is settled by the last usage that a part reports, also if its reader leaves", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ quota: { limits: [Quota.tokensPerMinute(100), Quota.atOnce(1)], burst: 0 } })
      const parts = Stream.make({ tokens: 0 }, { tokens: 7 }, { tokens: 9 })
      const options = {
        amounts: { tokens: 50 },
        usage: (part: { tokens: number }) => part.tokens === 0 ? undefined : part
      }
      yield* Stream.runDrain(gpt.protectStream(parts, options))
      assert.deepStrictEqual([yield* used(gpt, "tokens"), yield* used(gpt, "atOnce")], [9, 0])
      yield* Stream.runDrain(Stream.take(gpt.protectStream(Stream.rechunk(parts, 1), options), 2))
      assert.deepStrictEqual([yield* used(gpt, "tokens"), yield* used(gpt, "atOnce")], [16, 0])
      yield* Effect.exit(Stream.runDrain(gpt.protectStream(Stream.fail("503"), { amounts: { tokens: 50 } })))
      assert.deepStrictEqual([yield* used(gpt, "tokens"), yield* used(gpt, "atOnce")], [66, 0])
    }).pipe(withStore))

  it.effect("describe, snapshot, events and metrics include the quota", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ quota: requests(100) })
      assert.include(gpt.describe, "quota: 100 requests in 1m, for each key")
      const events: Array<unknown> = []
      yield* Effect.forkScoped(Stream.runForEach(gpt.events, (event) => Effect.sync(() => events.push(event))), {
        startImmediately: true
      })
      yield* gpt.quota.observe("gpt", [{ dimension: "requests", limit: 50, sentAt: 0 }])
      yield* Effect.yieldNow
      yield* Effect.yieldNow
      const change = {
        key: "gpt",
        dimension: "requests",
        windowMillis: 60_000,
        of: "limit",
        from: 100,
        to: 50,
        why: "Header"
      }
      assert.deepStrictEqual(events, [{ _tag: "Quota", change }])
      yield* gpt.protect(Effect.void)
      assert.deepInclude((yield* gpt.snapshot).quota?.levels[0], { key: "gpt", used: 1, limit: 50, stated: 100 })
      const metrics = yield* Metric.snapshot
      const values = metrics.filter(({ id }) => id === "sluice_quota_used" || id === "sluice_quota_limit")
      assert.deepStrictEqual(values.map(({ state }) => "value" in state ? state.value : undefined), [1, 50])
      assert.isUndefined((yield* gpt.snapshot).backpressure)
    }).pipe(withStore))

  it.effect("a call that waits for its quota is told by snapshot, metrics and its report, a refusal by an event", () =>
    Effect.gen(function*() {
      const gpt = yield* makeGpt({ quota: requests(1, { queue: 1, tenantLimits: [Quota.requestsPerMinute(5)] }) })
      assert.include(gpt.describe, "quota: 1 requests in 1m, for each key; 5 requests in 1m, for each tenant")
      const events: Array<unknown> = []
      yield* Effect.forkScoped(Stream.runForEach(gpt.events, (event) => Effect.sync(() => events.push(event))), {
        startImmediately: true
      })
      const waitingNow = Effect.map(
        Metric.snapshot,
        (all) => all.flatMap(({ id, state }) => id === "sluice_quota_waiting" && "value" in state ? [state.value] : [])
      )
      yield* gpt.protect(Effect.void)
      const waits = yield* fork(Sluice.withReport(gpt.protect(Effect.void)))
      assert.deepStrictEqual([(yield* gpt.snapshot).quota?.waiting, yield* waitingNow], [1, [1]])
      yield* Effect.exit(gpt.protect(Effect.void))
      yield* TestClock.adjust("62 seconds")
      const [, report] = yield* Fiber.join(waits)
      assert.isAtLeast(report.waitedMillis, 60_000)
      assert.deepStrictEqual([(yield* gpt.snapshot).quota?.waiting, yield* waitingNow], [0, [0]])
      assert.deepStrictEqual(
        events.filter((event) => (event as { readonly _tag: string })._tag === "Rejected"),
        [{ _tag: "Rejected", key: "gpt", reason: "QuotaExceeded", at: 0 }]
      )
      assert.strictEqual((yield* gpt.snapshot).quota?.exceeded.Full, 1)
    }).pipe(withStore))

  it.effect("options are validated with the others, and a copy of a service is no quota", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(makeGpt({ quota: { limits: [], guard: "-1 seconds" }, attemptTimeout: 0 }))
      assert.deepStrictEqual(error.issues.map(({ option }) => option), [
        "attemptTimeout",
        "quota.limits",
        "quota.guard"
      ])
    }).pipe(withStore))
})
