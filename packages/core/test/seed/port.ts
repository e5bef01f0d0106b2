/**
 * A port of the seed's algorithms with their faults, so that tests can show each fault beside our behaviour.
 *
 * Rust features are modelled: a `Result` is a value, `preempt` runs where another thread can come between two locks, an
 * `Instant` is read from the given clock, and a log line is a word in `log`.
 */
import { type Clock, Effect } from "effect"

export type SeedError =
  | { readonly _tag: "Orchestration"; readonly message: string }
  | { readonly _tag: "CircuitOpen"; readonly service: string }
  | { readonly _tag: "BackpressureShed"; readonly depth: number; readonly capacity: number }

export type SeedResult<A> = { readonly ok: true; readonly value: A } | { readonly ok: false; readonly error: SeedError }

const ok = <A>(value: A): SeedResult<A> => ({ ok: true, value })
const err = (error: SeedError): SeedResult<never> => ({ ok: false, error })
const orchestration = (message: string): SeedResult<never> => err({ _tag: "Orchestration", message })

/** The value of a result, or a throw. */
export const unwrap = <A>(result: SeedResult<A>): A => {
  if (!result.ok) throw new Error(`unwrap on ${result.error._tag}`)
  return result.value
}

const maxRetryDelayMillis = 60_000

export class SeedRetryPolicy {
  maxAttempts: number
  baseMillis: number

  constructor(maxAttempts: number, baseMillis: number) {
    this.maxAttempts = maxAttempts
    this.baseMillis = baseMillis
  }

  static exponential(maxAttempts: number, baseMillis: number): SeedResult<SeedRetryPolicy> {
    return maxAttempts === 0
      ? orchestration("max_attempts must be >= 1")
      : ok(new SeedRetryPolicy(maxAttempts, baseMillis))
  }

  delayFor(attempt: number): number {
    const exponent = Math.min(Math.max(attempt - 1, 0), 63)
    return Math.min(this.baseMillis * 2 ** exponent, maxRetryDelayMillis)
  }
}

/** The retry loop that users of the seed write: every error, after the plain delay, until the attempts are used. */
export const seedRetryLoop = <A, E>(policy: SeedRetryPolicy, call: Effect.Effect<A, E>): Effect.Effect<A, E> => {
  const from = (attempt: number): Effect.Effect<A, E> =>
    call.pipe(Effect.catch((error) =>
      attempt < policy.maxAttempts
        ? Effect.andThen(Effect.sleep(policy.delayFor(attempt)), from(attempt + 1))
        : Effect.fail(error)
    ))
  return from(1)
}

export interface SeedBackend {
  incrementFailures(service: string): number
  resetFailures(service: string): void
  getFailures(service: string): number
  setOpenAt(service: string, at: number): void
  clearOpenAt(service: string): void
  getOpenAt(service: string): number | undefined
}

export class SeedMemoryBackend implements SeedBackend {
  consecutiveFailures = 0
  openAt: number | undefined

  incrementFailures(_service: string): number {
    // `u32 += 1` in a release build.
    this.consecutiveFailures = (this.consecutiveFailures + 1) % 2 ** 32
    return this.consecutiveFailures
  }
  resetFailures(_service: string): void {
    this.consecutiveFailures = 0
  }
  getFailures(_service: string): number {
    return this.consecutiveFailures
  }
  setOpenAt(_service: string, at: number): void {
    this.openAt = at
  }
  clearOpenAt(_service: string): void {
    this.openAt = undefined
  }
  getOpenAt(_service: string): number | undefined {
    return this.openAt
  }
}

export type SeedCircuitState =
  | { readonly _tag: "Closed" }
  | { readonly _tag: "Open"; readonly openedAt: number }
  | { readonly _tag: "HalfOpen" }

export class SeedCircuitBreaker {
  readonly log: Array<string> = []
  /** Runs between two locks. */
  preempt: Effect.Effect<void> = Effect.void
  private readonly service: string
  private readonly threshold: number
  private readonly recoveryMillis: number
  private readonly clock: Clock.Clock
  private backend: SeedBackend = new SeedMemoryBackend()

  private constructor(service: string, threshold: number, recoveryMillis: number, clock: Clock.Clock) {
    this.service = service
    this.threshold = threshold
    this.recoveryMillis = recoveryMillis
    this.clock = clock
  }

  static make(
    service: string,
    threshold: number,
    recoveryMillis: number,
    clock: Clock.Clock
  ): SeedResult<SeedCircuitBreaker> {
    return threshold === 0
      ? orchestration("circuit breaker threshold must be >= 1")
      : ok(new SeedCircuitBreaker(service, threshold, recoveryMillis, clock))
  }

  withBackend(backend: SeedBackend): this {
    this.backend = backend
    return this
  }

  call<A, E>(operation: Effect.Effect<A, E>): Effect.Effect<A, SeedError> {
    return Effect.gen({ self: this }, function*() {
      const effective = yield* this.effectiveState()
      if (effective === "Open") return yield* Effect.fail<SeedError>({ _tag: "CircuitOpen", service: this.service })
      // As in Rust, a panic or a cancelled task skips the code below.
      const result = yield* Effect.result(operation)
      if (result._tag === "Success") {
        yield* this.locked(() => this.backend.resetFailures(this.service))
        yield* this.locked(() => this.backend.clearOpenAt(this.service))
        this.log.push("closed")
        return result.success
      }
      const failures = yield* this.locked(() => this.backend.incrementFailures(this.service))
      if (failures >= this.threshold) {
        yield* this.locked(() => this.backend.setOpenAt(this.service, this.clock.currentTimeMillisUnsafe()))
        this.log.push("opened")
      }
      return yield* Effect.fail<SeedError>({ _tag: "Orchestration", message: String(result.failure) })
    })
  }

  state(): SeedCircuitState {
    const openedAt = this.backend.getOpenAt(this.service)
    if (openedAt !== undefined && !this.isOver(openedAt)) return { _tag: "Open", openedAt }
    return this.backend.getFailures(this.service) >= this.threshold ? { _tag: "HalfOpen" } : { _tag: "Closed" }
  }

  failureCount(): number {
    return this.backend.getFailures(this.service)
  }

  private effectiveState(): Effect.Effect<SeedCircuitState["_tag"]> {
    return Effect.gen({ self: this }, function*() {
      const openedAt = yield* this.locked(() => this.backend.getOpenAt(this.service))
      if (openedAt === undefined) {
        const failures = yield* this.locked(() => this.backend.getFailures(this.service))
        return failures >= this.threshold ? "HalfOpen" : "Closed"
      }
      if (!this.isOver(openedAt)) return "Open"
      yield* this.locked(() => this.backend.clearOpenAt(this.service))
      this.log.push("half-open")
      return "HalfOpen"
    })
  }

  private isOver(openedAt: number): boolean {
    return this.clock.currentTimeMillisUnsafe() - openedAt >= this.recoveryMillis
  }

  private locked<A>(step: () => A): Effect.Effect<A> {
    return Effect.andThen(this.preempt, Effect.sync(step))
  }
}

export type SeedDeduplication =
  | { readonly _tag: "New" }
  | { readonly _tag: "Cached"; readonly result: string }
  | { readonly _tag: "InProgress" }

export class SeedDeduplicator {
  readonly cache = new Map<string, { readonly result: string; readonly at: number }>()
  readonly inFlight = new Map<string, number>()
  private readonly ttlMillis: number
  private readonly clock: Clock.Clock

  constructor(ttlMillis: number, clock: Clock.Clock) {
    this.ttlMillis = ttlMillis
    this.clock = clock
  }

  checkAndRegister(key: string): SeedDeduplication {
    const now = this.clock.currentTimeMillisUnsafe()
    for (const [cachedKey, { at }] of this.cache) if (now - at >= this.ttlMillis) this.cache.delete(cachedKey)
    for (const [runningKey, at] of this.inFlight) if (now - at >= this.ttlMillis) this.inFlight.delete(runningKey)
    const cached = this.cache.get(key)
    if (cached !== undefined) return { _tag: "Cached", result: cached.result }
    if (this.inFlight.has(key)) return { _tag: "InProgress" }
    this.inFlight.set(key, now)
    return { _tag: "New" }
  }

  complete(key: string, result: string): void {
    this.inFlight.delete(key)
    this.cache.set(key, { result, at: this.clock.currentTimeMillisUnsafe() })
  }
}

/** The deduplication that users of the seed write: a duplicate in flight is dropped, a failed run is not completed. */
export const seedDedupe = <E>(
  deduplicator: SeedDeduplicator,
  key: string,
  run: Effect.Effect<string, E>
): Effect.Effect<string | undefined, E> =>
  Effect.suspend((): Effect.Effect<string | undefined, E> => {
    const found = deduplicator.checkAndRegister(key)
    if (found._tag === "Cached") return Effect.succeed(found.result)
    if (found._tag === "InProgress") return Effect.undefined
    return Effect.tap(run, (result) => Effect.sync(() => deduplicator.complete(key, result)))
  })

export class SeedBackpressureGuard {
  readonly log: Array<string>
  private readonly capacity: number
  private readonly softCapacity: number | undefined
  private readonly inner: { depth: number }

  private constructor(
    capacity: number,
    softCapacity: number | undefined,
    inner: { depth: number },
    log: Array<string>
  ) {
    this.capacity = capacity
    this.softCapacity = softCapacity
    this.inner = inner
    this.log = log
  }

  static make(capacity: number): SeedResult<SeedBackpressureGuard> {
    return capacity === 0
      ? orchestration("BackpressureGuard capacity must be > 0")
      : ok(new SeedBackpressureGuard(capacity, undefined, { depth: 0 }, []))
  }

  /** `self` moves into the result. An earlier clone shares the depth, and not the limit. */
  withSoftLimit(soft: number): SeedResult<SeedBackpressureGuard> {
    return soft >= this.capacity
      ? orchestration("soft_capacity must be less than hard capacity")
      : ok(new SeedBackpressureGuard(this.capacity, soft, this.inner, this.log))
  }

  tryAcquire(): SeedResult<void> {
    if (this.inner.depth >= this.capacity) {
      return err({ _tag: "BackpressureShed", depth: this.inner.depth, capacity: this.capacity })
    }
    this.inner.depth++
    if (this.softCapacity !== undefined && this.inner.depth >= this.softCapacity) {
      this.log.push("approaching hard limit")
    }
    return ok(undefined)
  }

  release(): void {
    this.inner.depth = Math.max(0, this.inner.depth - 1)
  }

  depth(): number {
    return this.inner.depth
  }

  softDepthRatio(): number {
    return this.softCapacity === undefined ? 0 : this.inner.depth / this.softCapacity
  }
}

/** The use of a permit that users of the seed write: an error returns early, before the release. */
export const seedGuarded = <A, E>(
  guard: SeedBackpressureGuard,
  run: Effect.Effect<A, E>
): Effect.Effect<A, E | SeedError> =>
  Effect.suspend((): Effect.Effect<A, E | SeedError> => {
    const acquired = guard.tryAcquire()
    return acquired.ok ? Effect.tap(run, () => Effect.sync(() => guard.release())) : Effect.fail(acquired.error)
  })

interface SeedStage {
  readonly name: string
  readonly handler: (input: string) => SeedResult<string>
}

export class SeedPipeline {
  readonly stages: ReadonlyArray<SeedStage>
  readonly log: Array<string> = []

  constructor(stages: ReadonlyArray<SeedStage> = []) {
    this.stages = stages
  }

  addStage(name: string, handler: SeedStage["handler"]): SeedPipeline {
    return new SeedPipeline([...this.stages, { name, handler }])
  }

  run(input: string): SeedResult<string> {
    let current = input
    for (const stage of this.stages) {
      const result = stage.handler(current)
      if (!result.ok) {
        this.log.push(`pipeline stage failed: ${stage.name}`)
        return result
      }
      current = result.value
    }
    return ok(current)
  }

  /** `run` as the seed instruments it: every argument except `self` becomes an attribute of the span. */
  runTraced(input: string): Effect.Effect<SeedResult<string>> {
    return Effect.withSpan(Effect.sync(() => this.run(input)), "run", { attributes: { input } })
  }

  stageCount(): number {
    return this.stages.length
  }
}

export const seedOk = ok
export const seedFailure = orchestration
