/** The seed's 32 tests on our API. Each has the name of its Rust test. */
import * as Backpressure from "@sluice/core/Backpressure"
import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import * as Deduplicator from "@sluice/core/Deduplicator"
import * as Pipeline from "@sluice/core/Pipeline"
import * as RetryPolicy from "@sluice/core/RetryPolicy"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Scope } from "effect"
import { failCalls, succeedCall } from "../support/calls.ts"

describe("RetryPolicy", () => {
  const policy = (maxAttempts: number, baseMillis: number) =>
    RetryPolicy.exponential({ maxAttempts, baseDelay: baseMillis })

  const millisFor = (maxAttempts: number, baseMillis: number, attempt: number) =>
    Duration.toMillis(RetryPolicy.delayFor(policy(maxAttempts, baseMillis), attempt))

  it.effect("test_retry_policy_rejects_zero_attempts", () =>
    Effect.gen(function*() {
      const invalid = yield* Effect.flip(RetryPolicy.validate(policy(0, 100)))
      assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), ["maxAttempts"])
    }))

  it("test_retry_policy_delay_attempt_1_equals_base", () => {
    assert.strictEqual(millisFor(3, 100, 1), 100)
  })

  it("test_retry_policy_delay_doubles_each_attempt", () => {
    assert.deepStrictEqual([2, 3, 4].map((attempt) => millisFor(5, 100, attempt)), [200, 400, 800])
  })

  it("test_retry_policy_delay_capped_at_max", () => {
    assert.strictEqual(millisFor(10, 10_000, 10), 60_000)
  })

  it("test_retry_policy_delay_never_exceeds_max_for_any_attempt", () => {
    for (let attempt = 1; attempt <= 10; attempt++) assert.isAtMost(millisFor(10, 1_000, attempt), 60_000)
  })
})

describe("CircuitBreaker", () => {
  const breaker = (threshold: number, openFor: Duration.Input) =>
    CircuitBreaker.make({ trip: CircuitBreaker.consecutive(threshold), openFor })

  /** One store for each test, like the one backend of the seed's breakers. */
  const withStore = <A, E>(
    test: Effect.Effect<A, E, CircuitBreakerStore.CircuitBreakerStore | Scope.Scope>
  ): Effect.Effect<A, E> => test.pipe(Effect.scoped, Effect.provide(CircuitBreakerStore.layerMemory))

  const stateTag = (self: CircuitBreaker.CircuitBreaker["Service"]) => Effect.map(self.state("svc"), ({ _tag }) => _tag)

  it.effect("test_circuit_breaker_rejects_zero_threshold", () =>
    withStore(Effect.gen(function*() {
      assert.strictEqual((yield* Effect.flip(breaker(0, "1 second")))._tag, "InvalidOptions")
    })))

  it.effect("test_circuit_breaker_starts_closed", () =>
    withStore(Effect.gen(function*() {
      assert.strictEqual(yield* stateTag(yield* breaker(3, "60 seconds")), "Closed")
    })))

  it.effect("test_circuit_breaker_success_keeps_closed", () =>
    withStore(Effect.gen(function*() {
      const cb = yield* breaker(3, "60 seconds")
      assert.strictEqual(yield* cb.guard(Effect.succeed(42), { key: "svc" }), 42)
      assert.strictEqual(yield* stateTag(cb), "Closed")
    })))

  it.effect("test_circuit_breaker_opens_after_threshold_failures", () =>
    withStore(Effect.gen(function*() {
      const cb = yield* breaker(3, "60 seconds")
      yield* failCalls(cb, 3, "svc")
      assert.strictEqual(yield* stateTag(cb), "Open")
    })))

  it.effect("test_circuit_breaker_open_fast_fails", () =>
    withStore(Effect.gen(function*() {
      const cb = yield* breaker(1, "1 hour")
      yield* failCalls(cb, 1, "svc")
      assert.strictEqual((yield* Effect.flip(succeedCall(cb, "svc")))._tag, "CircuitOpen")
    })))

  it.effect("test_circuit_breaker_success_resets_failure_count", () =>
    withStore(Effect.gen(function*() {
      const cb = yield* breaker(5, "60 seconds")
      yield* failCalls(cb, 2, "svc")
      yield* succeedCall(cb, "svc")
      assert.strictEqual(yield* cb.failureCount("svc"), 0)
    })))

  it.effect("test_circuit_breaker_half_open_on_recovery", () =>
    withStore(Effect.gen(function*() {
      const cb = yield* breaker(1, 0)
      yield* failCalls(cb, 1, "svc")
      assert.strictEqual(yield* cb.guard(Effect.succeed(99), { key: "svc" }), 99)
      assert.strictEqual(yield* stateTag(cb), "Closed")
    })))

  it.effect("test_circuit_breaker_with_custom_backend_uses_backend_state", () =>
    withStore(Effect.gen(function*() {
      const [cb1, cb2] = [yield* breaker(2, "60 seconds"), yield* breaker(2, "60 seconds")]
      yield* failCalls(cb1, 1, "svc")
      assert.strictEqual(yield* cb2.failureCount("svc"), 1)
      yield* failCalls(cb1, 1, "svc")
      assert.strictEqual(yield* stateTag(cb2), "Open")
    })))

  it.effect("test_in_memory_backend_increments_and_resets", () =>
    withStore(Effect.gen(function*() {
      const store = yield* CircuitBreakerStore.CircuitBreakerStore
      const circuit = { key: "svc", window: { calls: 5, bucketMillis: 0, buckets: 0 } }
      const ring = Effect.map(store.read(circuit), (snapshot) => snapshot.evidence.ring)
      const control = Effect.map(store.read(circuit), (snapshot) => snapshot.control._tag)
      const transition = (by: string, to: CircuitBreakerStore.Target) =>
        Effect.flatMap(store.read(circuit), ({ generation }) => store.transition({ ...circuit, generation, by, to }))

      assert.strictEqual(yield* ring, "")
      yield* store.record({ ...circuit, generation: 0, samples: "X" })
      assert.strictEqual(yield* ring, "X")
      yield* store.record({ ...circuit, generation: 0, samples: "X" })
      assert.strictEqual(yield* ring, "XX")
      yield* transition("reset", { _tag: "Closed", rampMillis: 0, openings: 0, lastOpen: 0, reason: "" })
      assert.strictEqual(yield* ring, "")

      assert.strictEqual(yield* control, "Closed")
      const because = { calls: 2, failures: 2, slow: 0 }
      yield* transition("open", { _tag: "Open", forMillis: 60_000, openings: 1, hintMillis: 0, because })
      assert.strictEqual(yield* control, "Open")
      yield* transition("close", { _tag: "Closed", rampMillis: 0, openings: 1, lastOpen: 0, reason: "" })
      assert.strictEqual(yield* control, "Closed")
    })))
})

describe("Deduplicator", () => {
  const keyed = (timeToLive: Duration.Input) =>
    Deduplicator.operation<string>()("seed", { key: (key: string) => key, timeToLive })

  const cached = keyed("60 seconds")

  const withDeduplicator = <A, E>(
    test: (deduplicator: Deduplicator.Deduplicator["Service"]) => Effect.Effect<A, E, Scope.Scope>
  ) => Deduplicator.Deduplicator.use(test).pipe(Effect.scoped, Effect.provide(Deduplicator.layer()))

  it.effect("test_deduplicator_new_key_is_new", () =>
    withDeduplicator(({ claim }) =>
      Effect.gen(function*() {
        assert.strictEqual((yield* claim(cached("key-1")))._tag, "New")
      })
    ))

  it.effect("test_deduplicator_second_check_is_in_progress", () =>
    withDeduplicator(({ claim }) =>
      Effect.gen(function*() {
        yield* claim(cached("key-1"))
        assert.strictEqual((yield* claim(cached("key-1")))._tag, "InProgress")
      })
    ))

  it.effect("test_deduplicator_complete_makes_cached", () =>
    withDeduplicator(({ claim }) =>
      Effect.gen(function*() {
        yield* completeNew(yield* claim(cached("key-1")), "result-value")
        assert.deepStrictEqual(yield* claim(cached("key-1")), { _tag: "Cached", exit: Exit.succeed("result-value") })
      })
    ))

  it.effect("test_deduplicator_different_keys_are_independent", () =>
    withDeduplicator(({ claim }) =>
      Effect.gen(function*() {
        yield* claim(cached("key-a"))
        assert.strictEqual((yield* claim(cached("key-b")))._tag, "New")
      })
    ))

  it.effect("test_deduplicator_expired_entry_is_new", () =>
    withDeduplicator(({ claim }) =>
      Effect.gen(function*() {
        const notCached = keyed(0)
        yield* completeNew(yield* claim(notCached("key-1")), "old")
        assert.strictEqual((yield* claim(notCached("key-1")))._tag, "New")
      })
    ))
})

describe("Backpressure", () => {
  const withGuard = <A, E>(
    options: Backpressure.BackpressureOptions,
    test: (guard: Backpressure.Backpressure["Service"]) => Effect.Effect<A, E, Scope.Scope>
  ) => Backpressure.Backpressure.use(test).pipe(Effect.scoped, Effect.provide(Backpressure.layer(options)))

  it.effect("test_backpressure_guard_rejects_zero_capacity", () =>
    Effect.gen(function*() {
      const invalid = yield* Effect.flip(withGuard({ capacity: 0 }, () => Effect.void))
      assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), ["capacity"])
    }))

  it.effect("test_backpressure_guard_acquire_within_capacity", () =>
    withGuard({ capacity: 5 }, (guard) =>
      Effect.gen(function*() {
        yield* guard.tryAcquire
        assert.strictEqual(yield* guard.running, 1)
      })))

  it.effect("test_backpressure_guard_sheds_when_full", () =>
    withGuard({ capacity: 2 }, (guard) =>
      Effect.gen(function*() {
        yield* guard.tryAcquire
        yield* guard.tryAcquire
        assert.strictEqual((yield* Effect.flip(guard.tryAcquire))._tag, "BackpressureShed")
      })))

  it.effect("test_backpressure_guard_release_decrements_depth", () =>
    withGuard({ capacity: 3 }, (guard) =>
      Effect.gen(function*() {
        yield* guard.tryAcquire
        // A permit is released with its scope; there is no release to call.
        yield* Effect.scoped(guard.tryAcquire)
        assert.strictEqual(yield* guard.running, 1)
      })))

  it.effect("test_backpressure_guard_release_on_empty_is_noop", () =>
    withGuard({ capacity: 3 }, (guard) =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        yield* Scope.provide(guard.tryAcquire, scope)
        yield* Scope.close(scope, Exit.void)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* guard.running, 0)
      })))

  it.effect("test_backpressure_soft_limit_rejects_invalid_config", () =>
    Effect.gen(function*() {
      for (const softLimit of [5, 6]) {
        const invalid = yield* Effect.flip(withGuard({ capacity: 5, softLimit }, () => Effect.void))
        assert.deepStrictEqual(invalid.issues.map((issue) => issue.option), ["softLimit"])
      }
    }))

  it.effect("test_backpressure_soft_limit_accepts_requests_below_soft", () =>
    withGuard({ capacity: 5, softLimit: 2 }, (guard) =>
      Effect.gen(function*() {
        yield* guard.tryAcquire
        yield* guard.tryAcquire
        assert.strictEqual(yield* guard.running, 2)
      })))

  it.effect("test_backpressure_with_soft_limit_still_sheds_at_hard_capacity", () =>
    withGuard({ capacity: 3, softLimit: 2 }, (guard) =>
      Effect.gen(function*() {
        for (let i = 0; i < 3; i++) yield* guard.tryAcquire
        assert.strictEqual((yield* Effect.flip(guard.tryAcquire))._tag, "BackpressureShed")
      })))

  it.effect("test_backpressure_concurrent_acquires_are_consistent", () =>
    withGuard({ capacity: 100 }, (guard) =>
      Effect.gen(function*() {
        yield* Effect.all(Array.from({ length: 10 }, () => guard.tryAcquire), { concurrency: "unbounded" })
        assert.strictEqual(yield* guard.running, 10)
      })))
})

describe("Pipeline", () => {
  it.effect("test_pipeline_runs_stages_in_order", () =>
    Effect.gen(function*() {
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("upper", (s) => Effect.succeed(s.toUpperCase())),
        Pipeline.stage("append", (s) => Effect.succeed(`${s}!`))
      )
      assert.strictEqual(yield* pipeline("hello"), "HELLO!")
    }))

  it.effect("test_pipeline_empty_pipeline_returns_input", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* Pipeline.make<string>("p")("test"), "test")
    }))

  it.effect("test_pipeline_stage_failure_short_circuits", () =>
    Effect.gen(function*() {
      let reached = false
      const pipeline = Pipeline.make<string>("p").pipe(
        Pipeline.stage("fail", () => Effect.fail("boom")),
        Pipeline.stage("never", (s) =>
          Effect.sync(() => {
            reached = true
            return s
          }))
      )
      assert.strictEqual(yield* Effect.flip(pipeline("input")), "boom")
      assert.isFalse(reached)
    }))

  it("test_pipeline_stage_count", () => {
    const pipeline = Pipeline.make<string>("p").pipe(
      Pipeline.stage("s1", (s) => Effect.succeed(s)),
      Pipeline.stage("s2", (s) => Effect.succeed(s))
    )
    assert.strictEqual(Pipeline.stageCount(pipeline), 2)
  })
})

const completeNew = (claim: Deduplicator.Claim<string, never>, value: string) =>
  claim._tag === "New" ? claim.lease.complete(value) : Effect.die(`the key is ${claim._tag}`)
