import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deadline from "@sluice/core/Deadline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import * as Sluice from "@sluice/core/Sluice"
import { assert, describe } from "@effect/vitest"
import { Clock, Effect, Exit, Option, Random } from "effect"
import { failureOf, timed } from "../support/effects.ts"
import { countRuns, fault, HttpError } from "./fault.ts"
import { seedRetryLoop, SeedRetryPolicy, unwrap } from "./port.ts"

describe("faults of the seed: RetryPolicy", () => {
  const policy = (options?: RetryPolicy.RetryOptions) =>
    RetryPolicy.exponential({ maxAttempts: 3, baseDelay: 100, jitter: "none", ...options })
  const seedPolicy = unwrap(SeedRetryPolicy.exponential(3, 100))

  /** The times at which the attempts of a failing call begin. */
  const attemptTimes = (
    run: (call: Effect.Effect<never, HttpError>) => Effect.Effect<unknown, unknown>,
    status = 503
  ) =>
    Effect.gen(function*() {
      const times: Array<number> = []
      const startedAt = yield* Clock.currentTimeMillis
      const call = Effect.flatMap(Clock.currentTimeMillis, (now) => {
        times.push(now - startedAt)
        return Effect.fail(new HttpError({ status }))
      })
      yield* timed(run(call))
      return times
    })

  /** Counts the attempts until there is no delay, a hundred at most. */
  const attemptsUntilNoDelay = (delayAfter: (attempt: number) => number | undefined) => {
    let attempt = 1
    while (attempt < 100 && delayAfter(attempt) !== undefined) attempt++
    return attempt
  }

  fault("R1", "the policy runs the attempts, stops, and says why", {
    wanted: { attempts: 3, stopped: "Attempts" },
    ours: Effect.gen(function*() {
      const { counting, runs } = countRuns()
      const [exit] = yield* timed(counting(Effect.fail("503")).pipe(RetryPolicy.retry(policy())))
      const stopped = Exit.isFailure(exit) ? Option.getOrUndefined(RetryPolicy.stopped(exit.cause)) : undefined
      return { attempts: runs(), stopped: stopped?.why }
    }),
    faulty: { attempts: 100, stopped: undefined },
    seed: Effect.sync(() => ({
      attempts: attemptsUntilNoDelay((attempt) => seedPolicy.delayFor(attempt)),
      stopped: undefined
    }))
  })

  const distinctRetryTimes = (run: (call: Effect.Effect<never, HttpError>) => Effect.Effect<unknown, unknown>) =>
    Effect.map(
      Effect.forEach(Array.from({ length: 20 }), () => attemptTimes(run)),
      (times) => new Set(times.map(([_, second]) => second)).size
    )

  fault("R2", "twenty callers that failed together retry at twenty different times", {
    wanted: 20,
    ours: distinctRetryTimes(RetryPolicy.retry(policy({ jitter: "full", maxAttempts: 2, baseDelay: "10 seconds" })))
      .pipe(
        Random.withSeed("R2")
      ),
    faulty: 1,
    seed: distinctRetryTimes((call) => seedRetryLoop(unwrap(SeedRetryPolicy.exponential(2, 10_000)), call))
  })

  fault("R3", "a final error is tried once", {
    wanted: 1,
    ours: Effect.map(attemptTimes(RetryPolicy.retry(policy()), 400), (times) => times.length),
    faulty: 3,
    seed: Effect.map(attemptTimes((call) => seedRetryLoop(seedPolicy, call), 400), (times) => times.length)
  })

  fault("R4", "retry waits for a Retry-After", {
    wanted: [0, 5_000, 10_000],
    ours: attemptTimes(RetryPolicy.retry(policy()), 429),
    faulty: [0, 100, 300],
    seed: attemptTimes((call) => seedRetryLoop(seedPolicy, call), 429)
  })

  fault("R5", "no backoff begins that would end after the deadline (a retry budget for all calls comes later)", {
    wanted: { endedAfterMillis: 0, attempts: 1 },
    ours: Effect.gen(function*() {
      const { counting, runs } = countRuns()
      const call = counting(Effect.fail("503")).pipe(
        RetryPolicy.retry(policy({ baseDelay: "10 seconds" })),
        Deadline.within("5 seconds")
      )
      const [_, endedAfterMillis] = yield* timed(call)
      return { endedAfterMillis, attempts: runs() }
    }),
    faulty: { endedAfterMillis: 30_000, attempts: 3 },
    seed: Effect.gen(function*() {
      const { counting, runs } = countRuns()
      const slow = unwrap(SeedRetryPolicy.exponential(3, 10_000))
      const [_, endedAfterMillis] = yield* timed(seedRetryLoop(slow, counting(Effect.fail("503"))))
      return { endedAfterMillis, attempts: runs() }
    })
  })

  fault("R6", "with a base delay of 0 the retry ends when its circuit opens, instead of a busy loop", {
    wanted: { requests: 5, error: "503" },
    ours: Effect.gen(function*() {
      const { counting, runs } = countRuns()
      const gpt = yield* Sluice.make({ name: "gpt", retry: policy({ baseDelay: 0, maxAttempts: 100 }), breaker: {} })
      const [exit] = yield* timed(gpt.protect(counting(Effect.fail("503"))))
      return { requests: runs(), error: failureOf(exit) }
    }).pipe(Effect.scoped, Effect.provide(CircuitBreakerStore.layerMemory)),
    faulty: { requests: 100, error: "503" },
    seed: Effect.gen(function*() {
      const { counting, runs } = countRuns()
      const [exit] = yield* timed(
        seedRetryLoop(unwrap(SeedRetryPolicy.exponential(100, 0)), counting(Effect.fail("503")))
      )
      return { requests: runs(), error: failureOf(exit) }
    })
  })

  fault("R7", "a policy with hand-written fields is checked where it is used", {
    wanted: ["retry.maxAttempts", "retry.factor"],
    ours: Effect.map(
      Effect.flip(Sluice.make({ name: "gpt", retry: { ...policy(), maxAttempts: 0, factor: 0 } })).pipe(
        Effect.provide(CircuitBreakerStore.layerMemory)
      ),
      (invalid) => invalid.issues.map((issue) => issue.option)
    ),
    faulty: [],
    seed: Effect.gen(function*() {
      const changed = unwrap(SeedRetryPolicy.exponential(3, 100))
      changed.maxAttempts = 0
      // The policy is not checked again: the call is made, although no attempt is allowed.
      assert.strictEqual((yield* attemptTimes((call) => seedRetryLoop(changed, call))).length, 1)
      return []
    })
  })

  fault("R8", "`delayFor(n)` is the delay after attempt n, and the first attempt begins at once", {
    wanted: [0, 100, 300],
    ours: attemptTimes(RetryPolicy.retry(policy())),
    faulty: [100, 300, 700],
    // By its documentation: the delay before attempt n, counted from 1.
    seed: attemptTimes((call) => {
      const attempt = (n: number): Effect.Effect<never, HttpError> =>
        Effect.andThen(
          Effect.sleep(seedPolicy.delayFor(n)),
          call.pipe(Effect.catch((error) => n < seedPolicy.maxAttempts ? attempt(n + 1) : Effect.fail(error)))
        )
      return attempt(1)
    })
  })
})
