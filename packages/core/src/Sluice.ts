/**
 * One policy made of all primitives, in the right order.
 *
 * deduplicate -> slot in the bounded queue -> retry -> for each attempt: check of the circuit -> permit and quota in one step ->
 * admission to the circuit -> attempt timeout -> the call.
 *
 * **When to use**
 *
 * For all calls of one kind to one kind of service. Make the policy a service of its own, and protect each call with it. Parts
 * that the options leave out are not built. For a single primitive use its module.
 *
 * **Details**
 *
 * - A call that backs off between attempts keeps its slot, but no permit, and queues again at the head.
 * - The attempt timeout is raised inside the circuit, so that a service that hangs opens it.
 * - An open circuit ends the call at once, unless its retryAfter fits before the call's deadline. Then the call waits for it.
 * - Once a request was made, the call ends with its own error. If the policy refuses the next attempt, that refusal is in
 *   `RetryPolicy.stopped` and in the report.
 * - Refusals are reasons of one `Rejected`, so that a new kind of refusal changes none of your error types. The call's own
 *   errors keep their types.
 *
 * **Gotchas**
 *
 * - Without a `dedupe` key a call is not deduplicated.
 * - Without `retry`, `attemptTimeout` still limits the only attempt.
 * - An attempt of a stream lasts as long as the stream, and so does its `attemptTimeout`.
 *
 * **Example** (A policy as a service)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import * as CircuitBreaker from "@sluice/core/CircuitBreaker"
 * import * as RetryPolicy from "@sluice/core/RetryPolicy"
 * import * as Sluice from "@sluice/core/Sluice"
 *
 * class Gpt extends Sluice.Service<Gpt>()("app/Gpt", {
 *   name: "gpt",
 *   retry: RetryPolicy.exponential({ maxAttempts: 3, baseDelay: "5 millis" }),
 *   breaker: { trip: CircuitBreaker.consecutive(5), openFor: "30 seconds" },
 *   backpressure: { capacity: 8, queue: 100 },
 *   attemptTimeout: "20 seconds"
 * }) {}
 *
 * let calls = 0
 * const ask = Effect.suspend(() => ++calls < 3 ? Effect.fail("503" as const) : Effect.succeed("an answer"))
 *
 * const program = Gpt.use((gpt) => ask.pipe(gpt.protect({ key: "openai" }), Sluice.withReport)).pipe(
 *   Effect.map(([exit, report]) => `${exit._tag} after ${report.attempts} attempts`),
 *   // The options are literals above, so invalid ones are a bug and not an error to handle.
 *   Effect.provide(Layer.orDie(Gpt.layer))
 * )
 *
 * console.log(await Effect.runPromise(program)) // => Success after 3 attempts
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import type * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Backpressure from "./Backpressure.ts"
import * as CircuitBreaker from "./CircuitBreaker.ts"
import * as CircuitBreakerStore from "./CircuitBreakerStore.ts"
import * as Deduplicator from "./Deduplicator.ts"
import { makeBreakerService } from "./internal/admission/circuitBreaker.ts"
import { FlightStore } from "./FlightStore.ts"
import { makeDeduplicator } from "./internal/dedupe/deduplicator.ts"
import { merged } from "./internal/kit/merged.ts"
import { registerMetrics } from "./internal/kit/metrics.ts"
import type { Declares } from "./internal/dedupe/requestKey.ts"
import { type Collector, CurrentCollector } from "./internal/policy/collector.ts"
import { sluiceConfig } from "./internal/policy/config.ts"
import { PolicyJournal } from "./internal/policy/journal.ts"
import { describe } from "./internal/policy/describe.ts"
import { type Limits, makeLimits } from "./internal/policy/limits.ts"
import { type CheckedPolicy, defaultMinTimeout as minTimeout, readPolicy } from "./internal/policy/options.ts"
import { Policy } from "./internal/policy/policy.ts"
import type { AttemptTimeout, Rejected } from "./internal/policy/rejections.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import { OptionsReader } from "./OptionsReader.ts"
import type { Classify } from "./Outcome.ts"
import * as Quota from "./Quota.ts"
import type { Refusal } from "./Refusal.ts"
import * as RetryPolicy from "./RetryPolicy.ts"

export { AttemptTimeout, Rejected } from "./internal/policy/rejections.ts"

/**
 * Options for `Sluice.make` and `Sluice.Service`. Parts that are left out are not built.
 *
 * @since 0.1.0
 * @category models
 */
export interface SluiceOptions {
  /** Used in refusals, logs and metrics, and as the key of calls that name none. Not empty. */
  readonly name: string
  /** Default `RetryPolicy.none`: only the developer knows whether a call may be repeated. */
  readonly retry?: RetryPolicy.RetryPolicy | undefined
  /** One circuit for each key. Default none. */
  readonly breaker?: Omit<CircuitBreaker.CircuitBreakerOptions, "name" | "classify"> | undefined
  /** Caps the attempts that run at once, and the calls that wait. Default none. */
  readonly backpressure?: Omit<Backpressure.BackpressureOptions, "name"> | undefined
  /**
   * Limits over time of a provider or a budget: options, or a service that `Quota` made, to share it with other policies. With
   * options, the sums are kept in the `QuotaStore` in the context, or in this process if there is none. Default none.
   */
  readonly quota?: Omit<Quota.QuotaOptions, "name"> | Quota.Quota["Service"] | undefined
  /**
   * For calls with a `dedupe` key. Default: flights are shared within the process, nothing is cached. With `shared`, processes share
   * them through the `FlightStore` in the context.
   */
  readonly deduplicator?: Omit<Deduplicator.DeduplicatorOptions, "name"> | undefined
  /**
   * How long one attempt may take. Default none, since response times depend on the service. Without it, only a deadline ends
   * an attempt that hangs.
   */
  readonly attemptTimeout?: Duration.Input | undefined
  /**
   * An attempt that the deadline ends counts against the circuit if it had at least this long. Default 1 second,
   * `defaultMinTimeout`: a caller with less time left says nothing about the service.
   */
  readonly minTimeout?: Duration.Input | undefined
  /** The deadline of calls that set none. Default none: only the caller knows how long a result is useful. */
  readonly deadline?: Duration.Input | undefined
  /** The second classifier of the chain: after a call's own, before the `Classifier` reference. */
  readonly classify?: Classify<unknown, unknown> | undefined
}

/**
 * The default of `minTimeout`.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultMinTimeout: Duration.Duration = minTimeout

/**
 * Options for `protect`.
 *
 * @since 0.1.0
 * @category models
 */
export interface CallOptions<A, E> {
  /** Names the dependency, and so the circuit. Default: the policy's name. */
  readonly key?: string | undefined
  /** Shares the run and its result with calls of the same key. */
  readonly dedupe?: Deduplicator.Key<A, E> | undefined
  /** The time limit of the whole call, with all waits and attempts. */
  readonly deadline?: Duration.Input | undefined
  /** The first classifier of the chain. */
  readonly classify?: Classify<A, E> | undefined
  /** The tenant of the call, for the quota's `tenantLimits`. Default none. */
  readonly tenant?: string | undefined
  /** The amounts that each attempt reserves of the quota. Default: one request, and one call at once. */
  readonly amounts?: Quota.Amounts | undefined
  /** The amounts that a result has used of the quota. Amounts that it does not name stay as reserved. Default: all of them. */
  readonly usage?: ((value: A) => Quota.Used) | undefined
}

/**
 * Options for `protectStream`.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamCallOptions<A, E> extends Omit<CallOptions<A, E>, "classify" | "usage"> {
  /** The first classifier of the chain, for how an attempt ended. */
  readonly classify?: Classify<void, E> | undefined
  /** Recognises the part that completes an answer. See `CircuitBreaker`. */
  readonly isComplete?: ((part: A) => boolean) | undefined
  /** The amounts that the stream has used of the quota, if the part has them. Those of the last such part count. */
  readonly usage?: ((part: A) => Quota.Used | undefined) | undefined
}

/**
 * What happened in a call, whether it succeeded or not.
 *
 * @since 0.1.0
 * @category models
 */
export interface Report {
  /** Whether the call ran itself, joined a run, or got a cached result. */
  readonly served: Deduplicator.Served
  /** Attempts at the dependency. 0 if the call joined, got a cached result, or was refused. */
  readonly attempts: number
  /** Time in the queue, in back-offs, and waiting for the circuit. */
  readonly waitedMillis: number
  readonly elapsedMillis: number
  /** Why the retry stopped. `undefined` if it did not. */
  readonly stopped: RetryPolicy.RetryStopped["Service"]["why"] | undefined
  /** The refusal of the next attempt, if the call failed with its own error. `undefined` if no attempt was refused. */
  readonly refusal: Refusal | undefined
}

/**
 * Calls that ran under a policy, by result. Calls that joined another, or got a cached result, are in the deduplicator's stats.
 *
 * @since 0.1.0
 * @category models
 */
export interface Calls {
  readonly succeeded: number
  /** With an error of their own, or with an `AttemptTimeout`. */
  readonly failed: number
  /** With `Rejected`. */
  readonly rejected: number
  readonly interrupted: number
}

/**
 * An event of a policy: an attempt ended, a call or its next attempt was refused, a circuit changed its state, or the level of
 * pressure or a limit of the quota changed.
 *
 * @since 0.1.0
 * @category models
 */
export type PolicyEvent =
  | (
    & {
      readonly _tag: "Attempt"
      /** The dependency key. */
      readonly key: string
      /** Epoch milliseconds. */
      readonly at: number
    }
    & RetryPolicy.AttemptEvent
  )
  | { readonly _tag: "Circuit"; readonly transition: CircuitBreaker.Transition }
  | { readonly _tag: "Pressure"; readonly pressure: Backpressure.Pressure }
  | { readonly _tag: "Quota"; readonly change: Quota.Change }
  | {
    readonly _tag: "Rejected"
    /** The dependency key. */
    readonly key: string
    readonly reason: Rejected["reason"]["_tag"]
    /** Epoch milliseconds. */
    readonly at: number
  }

/**
 * The state and the counters of a policy at one moment.
 *
 * @since 0.1.0
 * @category models
 */
export interface Snapshot {
  readonly name: string
  readonly calls: Calls
  /** Attempts at the dependency, of all calls. */
  readonly attempts: number
  readonly breaker: CircuitBreaker.Stats
  /** `undefined` without backpressure. */
  readonly backpressure: Backpressure.Snapshot | undefined
  /** `undefined` without a quota. */
  readonly quota: Quota.Snapshot | undefined
  readonly deduplicator: Deduplicator.Stats
  /** Attempts and refusals that slow readers of `events` have lost. */
  readonly dropped: number
}

/**
 * A policy that protects calls.
 *
 * @since 0.1.0
 * @category models
 */
export interface Sluice {
  /** Runs the effect under the policy. */
  readonly protect: {
    <A, E>(
      options: CallOptions<A, E> & { readonly dedupe: Deduplicator.Key<A, E> }
    ): <E2, R>(
      self: Effect.Effect<A, E2, R> & Declares<E, E2>
    ) => Effect.Effect<A, E | Rejected | AttemptTimeout, R>
    <A, E>(
      options?: CallOptions<A, E>
    ): <R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | Rejected | AttemptTimeout, R>
    <A, E, R>(
      self: Effect.Effect<A, E, R>,
      options?: CallOptions<A, E>
    ): Effect.Effect<A, E | Rejected | AttemptTimeout, R>
  }
  /** Runs the stream under the policy. It is retried only before its first element. */
  readonly protectStream: {
    <A, E>(
      options: StreamCallOptions<A, E> & { readonly dedupe: Deduplicator.Key<A, E> }
    ): <E2, R>(
      self: Stream.Stream<A, E2, R> & Declares<E, E2>
    ) => Stream.Stream<A, E | Rejected | AttemptTimeout, R>
    <A, E>(
      options?: StreamCallOptions<A, E>
    ): <R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | Rejected | AttemptTimeout, R>
    <A, E, R>(
      self: Stream.Stream<A, E, R>,
      options?: StreamCallOptions<A, E>
    ): Stream.Stream<A, E | Rejected | AttemptTimeout, R>
  }
  /** The policy's breaker. Without one, a breaker that admits every call. */
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"]
  /** The policy's quota. Without one, a quota that admits every call. */
  readonly quota: Quota.Quota["Service"]
  /** The policy's deduplicator. */
  readonly deduplicator: Deduplicator.Deduplicator["Service"]
  /**
   * Refuses new and queued calls, and calls that back off or wait for a circuit. Waits until running calls have ended, and returns
   * `true`, or `false` if `resume` was called before. Without `backpressure` and `quota` it refuses no call, and returns `true`
   * at once.
   */
  readonly drain: Effect.Effect<boolean>
  /** Admits calls again after `drain`. */
  readonly resume: Effect.Effect<void>
  /** Changes the capacity of `backpressure`. Without it nothing changes. */
  readonly resize: (capacity: number) => Effect.Effect<void, InvalidOptions>
  /** What a call goes through, outermost first. */
  readonly describe: ReadonlyArray<string>
  readonly snapshot: Effect.Effect<Snapshot>
  /**
   * The events of the policy, from now on. A reader that falls 256 behind loses the oldest; `snapshot` counts them. Costs
   * nothing without a reader.
   */
  readonly events: Stream.Stream<PolicyEvent>
}

/**
 * Returns the exit of a protected call, with a report: attempts, waits, how it was served, why its retry stopped.
 *
 * @since 0.1.0
 * @category combinators
 */
export const withReport = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<readonly [exit: Exit.Exit<A, E>, report: Report], never, R> =>
  Effect.withFiber((fiber) => {
    const clock = fiber.getRef(Clock.Clock)
    const startedAt = clock.currentTimeMillisUnsafe()
    const collector: Collector = { served: "Led", attempts: 0, waitedMillis: 0 }
    return Effect.map(
      Effect.exit(Effect.provideService(self, CurrentCollector, collector)),
      (exit) => {
        const elapsedMillis = clock.currentTimeMillisUnsafe() - startedAt
        const stopped = stoppedOf(exit)
        return [exit, { ...collector, elapsedMillis, stopped: stopped?.why, refusal: stopped?.refusal }] as const
      }
    )
  })

const stoppedOf = (exit: Exit.Exit<unknown, unknown>): RetryPolicy.RetryStopped["Service"] | undefined =>
  Exit.isSuccess(exit) ? undefined : Option.getOrUndefined(RetryPolicy.stopped(exit.cause))

/**
 * Builds a policy with its own state. Its circuits are kept in the store in the context.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (
  options: SluiceOptions
) => Effect.Effect<Sluice, InvalidOptions, CircuitBreakerStore.CircuitBreakerStore | Scope.Scope> = Effect.fnUntraced(
  function*(input: SluiceOptions) {
    const options = new OptionsReader("Sluice")
    const checked = yield* options.check(readPolicy(options, input))
    const { settings } = checked
    const clock = yield* Clock.Clock
    const journal = new PolicyJournal(clock)
    yield* Effect.addFinalizer(() => journal.events.close)
    yield* registerMetrics(journal.metrics(settings.name))
    const store = yield* CircuitBreakerStore.CircuitBreakerStore
    const breaker = checked.breaker === undefined
      ? undefined
      : yield* makeBreakerService(checked.breaker, undefined, store)
    const limits = yield* makeLimits(checked, journal)
    const flights = yield* Effect.serviceOption(FlightStore)
    const deduplicator = yield* makeDeduplicator(checked.deduplicator, Option.getOrUndefined(flights))
    const policy = new Policy({ settings, journal, clock, breaker, limits, deduplicator })
    return sluiceOf(policy, checked, breaker ?? CircuitBreaker.noop, deduplicator.service, limits)
  }
)

const sluiceOf = (
  policy: Policy,
  checked: CheckedPolicy,
  breaker: CircuitBreaker.CircuitBreaker["Service"],
  deduplicator: Deduplicator.Deduplicator["Service"],
  { limiter, quota }: Limits
): Sluice => {
  const { journal, settings: { name } } = policy
  const reported = checked.backpressure === undefined ? undefined : limiter
  return {
    protect: protectWith(policy),
    protectStream: dual(
      (args) => Stream.isStream(args[0]),
      <A, E, R>(self: Stream.Stream<A, E, R>, options?: StreamCallOptions<A, E>) =>
        policy.protectStream(self, options ?? noOptions)
    ),
    breaker,
    quota: quota ?? Quota.noop,
    deduplicator,
    drain: limiter?.drain ?? Effect.succeed(true),
    resume: limiter?.resume ?? Effect.void,
    resize: (capacity) => reported?.resize(capacity) ?? Effect.void,
    describe: describe(checked),
    snapshot: Effect.gen(function*() {
      return {
        name,
        calls: { ...journal.calls },
        attempts: journal.attempts,
        breaker: yield* breaker.stats,
        backpressure: reported === undefined ? undefined : yield* reported.snapshot,
        quota: quota === undefined ? undefined : yield* quota.snapshot(),
        deduplicator: yield* deduplicator.stats,
        dropped: journal.events.dropped
      }
    }),
    events: merged<PolicyEvent>([
      journal.events.stream,
      Stream.map(breaker.transitions, (transition) => ({ _tag: "Circuit", transition })),
      Stream.map(reported?.pressure ?? Stream.empty, (pressure) => ({ _tag: "Pressure", pressure })),
      Stream.map(quota?.changes ?? Stream.empty, (change) => ({ _tag: "Quota", change }))
    ])
  }
}

// Not by `dual`, whose predicate costs 70 ns of every call.
const protectWith = (policy: Policy): Sluice["protect"] => {
  function protect<A, E>(
    options?: CallOptions<A, E>
  ): <R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | Rejected | AttemptTimeout, R>
  function protect<A, E, R>(
    self: Effect.Effect<A, E, R>,
    options?: CallOptions<A, E>
  ): Effect.Effect<A, E | Rejected | AttemptTimeout, R>
  function protect<A, E, R>(
    first?: Effect.Effect<A, E, R> | CallOptions<A, E>,
    second?: CallOptions<A, E>
  ) {
    return Effect.isEffect(first)
      ? policy.protect(first, second ?? noOptions)
      : <R>(self: Effect.Effect<A, E, R>) => policy.protect(self, first ?? noOptions)
  }
  return protect
}

const noOptions = {}

/**
 * Reads options from the configuration. Each that is set there replaces the given one.
 *
 * **When to use**
 *
 * To let an operator change a policy without a build. Pass it to a policy's `layerConfig`.
 *
 * **Details**
 *
 * Every option that is data has a key: the prefix, the part and the option, as in `GPT_RETRY_MAX_ATTEMPTS`,
 * `GPT_BREAKER_OPEN_FOR`, `GPT_BACKPRESSURE_CAPACITY`, `GPT_DEDUPLICATOR_TIME_TO_LIVE` and `GPT_ATTEMPT_TIMEOUT`. Times look like
 * `"30 seconds"`, `"500 millis"` or `"1 hour"`. A part that neither the options nor the configuration name is not built.
 *
 * `GPT_QUOTA_REQUESTS_PER_MINUTE`, `..._TOKENS_PER_MINUTE`, `..._INPUT_TOKENS_PER_MINUTE`, `..._OUTPUT_TOKENS_PER_MINUTE` and
 * `..._AT_ONCE` change the limit of that kind in the options, or add it. A quota that is shared as a service stays as it is.
 *
 * These set when the circuit opens. Each changes the first trip policy of its kind in the options, and keeps the others:
 *
 * | key | meaning |
 * |---|---|
 * | `GPT_BREAKER_CONSECUTIVE` | failures in a row, as in `consecutive` |
 * | `GPT_BREAKER_FAILURE_RATE`, `GPT_BREAKER_SLOW_RATE` | the rate of `failureRate` or `slowCallRate`, above 0, at most 1 |
 * | `..._CALLS` instead of `_RATE` | the window is this many last calls; default 20 |
 * | `..._WITHIN` instead of `_RATE` | the window is this much time, instead of `_CALLS` |
 * | `..._MINIMUM` instead of `_RATE` | calls below which no rate is computed; default half of `_CALLS`, or 10 of a time |
 *
 * - What is not set stays as in the options. A minimum that is the default is computed again for a new `_CALLS` or `_WITHIN`.
 * - If the options have no policy of the kind, `_RATE` and `_CONSECUTIVE` add one. The others without `_RATE` are refused.
 * - If the options have no `trip` at all, what is set replaces the default `consecutive(5)`.
 *
 * **Gotchas**
 *
 * - A value of the wrong form is a `ConfigError` that names its key. A value out of range is `InvalidOptions`, which names its
 *   option.
 *
 * **Example** (An operator allows more attempts)
 *
 * ```ts
 * import { ConfigProvider, Effect } from "effect"
 * import * as RetryPolicy from "@sluice/core/RetryPolicy"
 * import * as Sluice from "@sluice/core/Sluice"
 *
 * class Gpt extends Sluice.Service<Gpt>()("app/Gpt", { name: "gpt", retry: RetryPolicy.exponential({ maxAttempts: 3 }) }) {}
 *
 * const layer = Gpt.layerConfig((options) => Sluice.config("GPT", options))
 *
 * const program = Gpt.use((gpt) => Effect.succeed(gpt.describe[1])).pipe(
 *   Effect.provide(layer),
 *   Effect.provide(Sluice.layerStoresMemory),
 *   Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown({ GPT_RETRY_MAX_ATTEMPTS: "5" }))
 * )
 *
 * console.log(await Effect.runPromise(program))
 * // => retry: 5 attempts, first delay 500ms, then times 2, at most 1m, jitter full
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const config = (prefix: string, options: SluiceOptions): Config.Config<SluiceOptions> =>
  sluiceConfig(prefix, options)

/**
 * Provides every store that a policy can need, kept in this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStoresMemory: Layer.Layer<CircuitBreakerStore.CircuitBreakerStore> = CircuitBreakerStore.layerMemory

/**
 * A policy that runs every call as it is.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noop: Sluice = {
  protect: dual((args) => Effect.isEffect(args[0]), <A, E, R>(self: Effect.Effect<A, E, R>) => self),
  protectStream: dual((args) => Stream.isStream(args[0]), <A, E, R>(self: Stream.Stream<A, E, R>) => self),
  breaker: CircuitBreaker.noop,
  quota: Quota.noop,
  deduplicator: Deduplicator.noop,
  drain: Effect.succeed(true),
  resume: Effect.void,
  resize: () => Effect.void,
  describe: [],
  snapshot: Effect.gen(function*() {
    return {
      name: "noop",
      calls: { succeeded: 0, failed: 0, rejected: 0, interrupted: 0 },
      attempts: 0,
      breaker: yield* CircuitBreaker.noop.stats,
      backpressure: undefined,
      quota: undefined,
      deduplicator: yield* Deduplicator.noop.stats,
      dropped: 0
    }
  }),
  events: Stream.empty
}

/**
 * The class of a policy that is a service of its own, with its layers. See `Service`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ServiceClass<in out Self, Id extends string> extends Context.ServiceClass<Self, Id, Sluice> {
  readonly layer: Layer.Layer<Self, InvalidOptions>
  readonly layerStore: Layer.Layer<Self, InvalidOptions, CircuitBreakerStore.CircuitBreakerStore>
  readonly layerConfig: (
    config: (options: SluiceOptions) => Config.Config<SluiceOptions>
  ) => Layer.Layer<Self, InvalidOptions | Config.ConfigError, CircuitBreakerStore.CircuitBreakerStore>
  readonly layerNoop: Layer.Layer<Self>
}

/**
 * Defines a policy as a service of its own. Each policy has its own tag, so that no two are mixed up.
 *
 * **Details**
 *
 * - `layer` is complete: its circuits are kept in this process.
 * - `layerStore` keeps its circuits in the `CircuitBreakerStore` in the context, which others can share.
 * - `layerConfig` is `layerStore` with options from a `Config`. See `config`.
 * - `layerNoop` runs every call as it is, for tests and to switch the policy off.
 *
 * All but `layerNoop` can fail with `InvalidOptions`. For options that are literals in your code use `Layer.orDie`.
 *
 * @since 0.1.0
 * @category services
 */
export function Service<Self>(): <const Id extends string>(id: Id, options: SluiceOptions) => ServiceClass<Self, Id>
// Never used: its type is the compiler's message about forgotten parentheses.
export function Service<Self>(
  id: "Write Service<Self>()(id, options), with empty parentheses first",
  options: SluiceOptions
): ServiceClass<Self, never>
export function Service<Self>(): unknown {
  return <const Id extends string>(id: Id, options: SluiceOptions) => makeService<Self, Id>(id, options)
}

const makeService = <Self, const Id extends string>(id: Id, options: SluiceOptions): ServiceClass<Self, Id> => {
  const Tag = Context.Service<Self, Sluice>()(id)
  const layerStore = Layer.effect(Tag, make(options))
  return Object.assign(Tag, {
    layer: Layer.provide(layerStore, Layer.fresh(layerStoresMemory)),
    layerStore,
    layerConfig: (config: (options: SluiceOptions) => Config.Config<SluiceOptions>) =>
      Layer.effect(Tag, Effect.flatMap(config(options), make)),
    layerNoop: Layer.succeed(Tag, noop)
  })
}
