/**
 * One policy out of all primitives, in the order in which they belong.
 *
 * deduplicate -> place in the queue -> retry -> per attempt: look at the circuit -> permit -> admit to the circuit ->
 * attempt timeout -> the call.
 *
 * **When to use**
 *
 * For every call of one kind to one kind of service: give it a policy as a service of its own, and protect each call with
 * it. What is left out of the options is not built.
 *
 * **Details**
 *
 * - A call that sleeps between attempts keeps its place in the queue, never a permit, and comes back at the head.
 * - The attempt timeout is raised inside the circuit, so that a service that hangs is seen to be down.
 * - An open circuit ends the call at once, unless its retryAfter fits before the call's deadline: then the call waits for it.
 * - Refusals of this policy arrive as `Rejected`, with the refusal as its `reason`: a new kind of refusal renames nobody's
 *   error type. The call's own errors keep theirs.
 *
 * **Gotchas**
 *
 * - Deduplication is off unless a call names its `dedupe` key.
 * - `attemptTimeout` without `retry` still counts: it bounds the only attempt.
 * - A stream's attempt lasts as long as the stream: `attemptTimeout` bounds the whole of it.
 *
 * **Example** (A policy as a service)
 *
 * ```ts
 * import { Effect } from "effect"
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
 *   Effect.provide(Gpt.layerMemory)
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
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Backpressure from "./Backpressure.ts"
import * as CircuitBreaker from "./CircuitBreaker.ts"
import * as CircuitBreakerStore from "./CircuitBreakerStore.ts"
import * as Deduplicator from "./Deduplicator.ts"
import { checkBreaker } from "./internal/breakerOptions.ts"
import { checkDeduplicator } from "./internal/deduplicatorOptions.ts"
import { localOf } from "./internal/guardLocally.ts"
import { merged } from "./internal/merged.ts"
import * as metrics from "./internal/metrics.ts"
import { Options } from "./internal/options.ts"
import { Policy } from "./internal/policy.ts"
import { type Collector, CurrentCollector, type Settings } from "./internal/policyCall.ts"
import { PolicyJournal } from "./internal/policyJournal.ts"
import { type AttemptTimeout, Rejected } from "./internal/rejections.ts"
import { checkRetryPolicy } from "./internal/retryOptions.ts"
import { sluiceConfig } from "./internal/sluiceConfig.ts"
import { stackless } from "./internal/stackless.ts"
import type { InvalidOptions } from "./InvalidOptions.ts"
import type { Classify } from "./Outcome.ts"
import * as RetryPolicy from "./RetryPolicy.ts"

export { AttemptTimeout, Rejected } from "./internal/rejections.ts"

/**
 * What a policy is made of. What is left out is not built.
 *
 * @since 0.1.0
 * @category models
 */
export interface SluiceOptions {
  /** Named in refusals, logs and metrics, and the key of calls that name none. Not empty. */
  readonly name: string
  /** Default `RetryPolicy.none`: whether a call may be repeated is the caller's to say. */
  readonly retry?: RetryPolicy.RetryPolicy | undefined
  readonly breaker?: Omit<CircuitBreaker.CircuitBreakerOptions, "name" | "classify"> | undefined
  readonly backpressure?: Omit<Backpressure.BackpressureOptions, "name"> | undefined
  /** How results are shared, for calls that name a key. */
  readonly deduplicator?: Omit<Deduplicator.DeduplicatorOptions, "name"> | undefined
  /** How long one attempt may take. Default none. */
  readonly attemptTimeout?: Duration.Input | undefined
  /**
   * An attempt that the deadline cuts short counts against the circuit if it had at least this long. Default 1 second: what
   * takes longer to answer than a caller has left is not thereby down.
   */
  readonly minTimeout?: Duration.Input | undefined
  /** The deadline of calls that bring none. Default none. */
  readonly deadline?: Duration.Input | undefined
  /** Asked after a call's own `classify` and before the `Classifier` reference. */
  readonly classify?: Classify<unknown, unknown> | undefined
}

/**
 * What one call may be told.
 *
 * @since 0.1.0
 * @category models
 */
export interface CallOptions<A, E> {
  /** Names the dependency, and so the circuit. Default the policy's name. */
  readonly key?: string | undefined
  /** Shares the run and its result with calls of the same key. */
  readonly dedupe?: Deduplicator.Key<A, E> | undefined
  /** The time for the call as a whole, with all its waits and attempts. */
  readonly deadline?: Duration.Input | undefined
  /** Asked first for what an exit says about the dependency. */
  readonly classify?: Classify<A, E> | undefined
}

/**
 * What one call of a stream may be told.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamCallOptions<A, E> extends Omit<CallOptions<A, E>, "classify"> {
  /** Asked first for what the end of an attempt says about the dependency. */
  readonly classify?: Classify<void, E> | undefined
  /** Knows the part that completes an answer, see `CircuitBreaker`. */
  readonly isComplete?: ((part: A) => boolean) | undefined
}

/**
 * What became of a call, also when it failed.
 *
 * @since 0.1.0
 * @category models
 */
export interface Report {
  /** Whether the call ran itself, joined a run that was under way, or was answered from what was kept. */
  readonly served: Deduplicator.Served
  /** Attempts that this call made at the dependency: 0 where it joined, was answered from what was kept, or was refused. */
  readonly attempts: number
  /** Time spent in the queue, between attempts, and waiting for the circuit. */
  readonly waitedMillis: number
  readonly elapsedMillis: number
  /** Why the retry gave up; `undefined` where it did not. */
  readonly stopped: RetryPolicy.RetryStopped["Service"]["why"] | undefined
}

/**
 * Calls that ran under a policy, by how they ended. Those that joined another one, or got a result that was kept, are in the
 * deduplicator's numbers.
 *
 * @since 0.1.0
 * @category models
 */
export interface Calls {
  readonly succeeded: number
  /** With an error of their own, or with an `AttemptTimeout`. */
  readonly failed: number
  /** By the policy, with `Rejected`. */
  readonly rejected: number
  readonly interrupted: number
}

/**
 * What happens under a policy: an attempt ended, a call was refused, a circuit moved, the permits became scarce or free.
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
  | {
    readonly _tag: "Rejected"
    /** The dependency key. */
    readonly key: string
    readonly reason: Rejected["reason"]["_tag"]
    /** Epoch milliseconds. */
    readonly at: number
  }

/**
 * Everything there is to see of a policy at one moment.
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
  /** `undefined` where the policy has none. */
  readonly backpressure: Backpressure.Snapshot | undefined
  readonly deduplicator: Deduplicator.Stats
  /** Attempts and refusals that a slow reader of `events` missed. */
  readonly missed: number
}

/**
 * A policy, ready to protect calls.
 *
 * @since 0.1.0
 * @category models
 */
export interface Sluice {
  /** Runs the effect under the policy. */
  readonly protect: {
    <A, E>(
      options?: CallOptions<A, E>
    ): <R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | Rejected | AttemptTimeout, R>
    <A, E, R>(
      self: Effect.Effect<A, E, R>,
      options?: CallOptions<A, E>
    ): Effect.Effect<A, E | Rejected | AttemptTimeout, R>
  }
  /** Runs the stream under the policy. Attempts are repeated only before its first element. */
  readonly protectStream: {
    <A, E>(
      options?: StreamCallOptions<A, E>
    ): <R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | Rejected | AttemptTimeout, R>
    <A, E, R>(
      self: Stream.Stream<A, E, R>,
      options?: StreamCallOptions<A, E>
    ): Stream.Stream<A, E | Rejected | AttemptTimeout, R>
  }
  /** The policy's breaker; one that lets everything through where it has none. */
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"]
  /** The policy's deduplicator. */
  readonly deduplicator: Deduplicator.Deduplicator["Service"]
  /**
   * From now on no call starts, and those that wait are refused; those that run go on. Waits until all are over, and succeeds
   * with `true`; with `false` if `resume` came before that. Without `backpressure` nothing is refused: `true` at once.
   */
  readonly drain: Effect.Effect<boolean>
  /** Lets calls in again after `drain`. */
  readonly resume: Effect.Effect<void>
  /** Changes how many calls run at once, see `Backpressure`. Without `backpressure` it changes nothing. */
  readonly resize: (capacity: number) => Effect.Effect<void, InvalidOptions>
  /** What is in the way of a call, outermost first. */
  readonly describe: ReadonlyArray<string>
  readonly snapshot: Effect.Effect<Snapshot>
  /**
   * What happens under the policy, from the moment of subscribing. A reader that falls 256 behind misses the oldest;
   * `snapshot` counts them. Costs nothing while nobody reads it.
   */
  readonly events: Stream.Stream<PolicyEvent>
}

/**
 * The exit of a protected call, and what became of it.
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
      (exit) =>
        [exit, {
          ...collector,
          elapsedMillis: clock.currentTimeMillisUnsafe() - startedAt,
          stopped: stoppedOf(exit)
        }] as const
    )
  })

const stoppedOf = (exit: Exit.Exit<unknown, unknown>): Report["stopped"] =>
  Exit.isSuccess(exit)
    ? undefined
    : Option.getOrUndefined(Option.map(RetryPolicy.stopped(exit.cause), (stopped) => stopped.why))

interface Checked {
  readonly settings: Settings
  readonly breaker: CircuitBreaker.CircuitBreakerOptions | undefined
  readonly backpressure: Backpressure.Settings | undefined
  readonly deduplicator: Deduplicator.DeduplicatorOptions
}

const readOptions = (input: SluiceOptions): Effect.Effect<Checked, InvalidOptions> => {
  const options = new Options("Sluice")
  if (typeof input !== "object" || input === null) {
    options.refuse("options", input, "an object")
    return Effect.flatMap(options.check(input), readOptions)
  }
  const retry = input.retry === undefined ? RetryPolicy.none : input.retry
  const {
    attemptTimeout,
    backpressure,
    breaker,
    classify,
    deadline,
    deduplicator,
    minTimeout = Duration.seconds(1),
    name
  } = input
  if (typeof name !== "string" || name === "") options.refuse("name", name, "a text that is not empty")
  if (classify !== undefined && typeof classify !== "function") options.refuse("classify", classify, "a function")
  checkRetryPolicy(options, retry, "retry.")
  if (breaker !== undefined) checkBreaker(options, breaker, "breaker.")
  if (deduplicator !== undefined) checkDeduplicator(options, deduplicator, "deduplicator.")
  if (deadline !== undefined) options.millis("deadline", deadline, 1)
  return options.check({
    settings: {
      name,
      retry,
      attemptTimeoutMillis: attemptTimeout === undefined
        ? undefined
        : options.millis("attemptTimeout", attemptTimeout, 1),
      minTimeoutMillis: options.millis("minTimeout", minTimeout, 0),
      deadline,
      classify
    },
    breaker: breaker === undefined ? undefined : { ...breaker, name },
    backpressure: backpressure === undefined
      ? undefined
      : { ...Backpressure.check(options, backpressure, "backpressure."), name },
    deduplicator: { ...deduplicator, name }
  })
}

const describe = ({ backpressure, breaker, deduplicator, settings }: Checked): ReadonlyArray<string> => {
  const { attemptTimeoutMillis, deadline, retry } = settings
  const lines: Array<string> = []
  if (deadline !== undefined) lines.push(`deadline: ${inWords(deadline)}, for calls that bring none`)
  const kept = inWords(deduplicator.timeToLive ?? 0)
  lines.push(`share runs of the same key${kept === "0" ? "" : `, keep results for ${kept}`}`)
  if (backpressure !== undefined) {
    lines.push(`place: ${backpressure.capacity} running and ${backpressure.queue} waiting`)
  }
  if (retry.maxAttempts > 1) lines.push(`retry: ${retry.maxAttempts} attempts, ${delaysOf(retry)}`)
  if (backpressure !== undefined) lines.push(`permit: ${backpressure.capacity} at once`)
  if (breaker !== undefined) lines.push(`circuit: one for each key, ${openingsOf(breaker)}`)
  if (attemptTimeoutMillis !== undefined) lines.push(`attempt timeout: ${inWords(attemptTimeoutMillis)}`)
  return lines
}

const inWords = (duration: Duration.Input): string => Duration.format(Duration.fromInputUnsafe(duration))

const delaysOf = ({ baseDelay, factor, jitter, maxDelay }: RetryPolicy.RetryPolicy): string => {
  const growth = factor === 1 ? "" : `, then times ${factor}, at most ${inWords(maxDelay)}`
  return `first wait ${inWords(baseDelay)}${growth}, jitter ${jitter}`
}

const openingsOf = (breaker: CircuitBreaker.CircuitBreakerOptions): string => {
  const { openFor = "30 seconds", trip = CircuitBreaker.consecutive(5) } = breaker
  const trips = isList(trip) ? trip : [trip]
  const time = Schedule.isSchedule(openFor) ? "a time by its schedule" : inWords(openFor)
  return `opens for ${time} once ${trips.map(tripInWords).join(", or ")}`
}

const tripInWords = (trip: CircuitBreaker.TripPolicy): string => {
  if (trip._tag === "Consecutive") return `${trip.failures} failed in a row`
  const what = trip._tag === "FailureRate" ? "failed" : "were slow"
  const last = trip.within === undefined ? `last ${trip.calls} calls` : `calls of the last ${inWords(trip.within)}`
  return `${trip.rate} of the ${last} ${what} (of at least ${trip.minimum})`
}

const isList = <A>(one: A | ReadonlyArray<A>): one is ReadonlyArray<A> => Array.isArray(one)

/**
 * Builds a policy with state of its own; its circuits are kept in the store that is there.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: (
  options: SluiceOptions
) => Effect.Effect<Sluice, InvalidOptions, CircuitBreakerStore.CircuitBreakerStore | Scope.Scope> = Effect.fnUntraced(
  function*(options: SluiceOptions) {
    const checked = yield* readOptions(options)
    const { settings } = checked
    const clock = yield* Clock.Clock
    const journal = new PolicyJournal(clock)
    yield* Effect.addFinalizer(() => journal.events.close)
    yield* metrics.show(journal.sources(settings.name))
    const breaker = checked.breaker === undefined ? undefined : yield* CircuitBreaker.make(checked.breaker)
    const limiter = checked.backpressure === undefined
      ? undefined
      : yield* Backpressure.limit(
        checked.backpressure,
        (reason) => journal.shed(stackless(() => new Rejected({ reason })))
      )
    const deduplicator = yield* Deduplicator.make(checked.deduplicator)
    const local = breaker === undefined ? undefined : localOf(breaker)
    const policy = new Policy({ settings, journal, clock, breaker, local, limiter, deduplicator })
    return sluiceOf(policy, checked, {
      breaker: breaker ?? CircuitBreaker.noop,
      limiter,
      deduplicator,
      journal
    })
  }
)

interface Parts {
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"]
  readonly limiter: Backpressure.Limiter<Rejected> | undefined
  readonly deduplicator: Deduplicator.Deduplicator["Service"]
  readonly journal: PolicyJournal
}

const sluiceOf = (
  policy: Policy,
  checked: Checked,
  { breaker, deduplicator, journal, limiter }: Parts
): Sluice => ({
  protect: protectBy(policy),
  protectStream: dual(
    (args) => Stream.isStream(args[0]),
    <A, E, R>(self: Stream.Stream<A, E, R>, options?: StreamCallOptions<A, E>) =>
      policy.protectStream(self, options ?? noOptions)
  ),
  breaker,
  deduplicator,
  drain: limiter?.drain ?? Effect.succeed(true),
  resume: limiter?.resume ?? Effect.void,
  resize: (capacity) => limiter?.resize(capacity) ?? Effect.void,
  describe: describe(checked),
  snapshot: Effect.gen(function*() {
    return {
      name: checked.settings.name,
      calls: { ...journal.calls },
      attempts: journal.attempts,
      breaker: yield* breaker.stats,
      backpressure: limiter === undefined ? undefined : yield* limiter.snapshot,
      deduplicator: yield* deduplicator.stats,
      missed: journal.events.dropped
    }
  }),
  events: merged<PolicyEvent>([
    journal.events.stream,
    Stream.map(breaker.transitions, (transition) => ({ _tag: "Circuit", transition })),
    Stream.map(limiter?.pressure ?? Stream.empty, (pressure) => ({ _tag: "Pressure", pressure }))
  ])
})

// Not by `dual`, as in `RetryPolicy.retry`: it costs 70 ns where a predicate has to tell the two apart.
const protectBy = (policy: Policy): Sluice["protect"] => {
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
 * Options from the configuration, over those that are given: what is set there wins, one by one.
 *
 * **When to use**
 *
 * So that an operator can change a policy without a build. Hand it to a policy's `layerConfig`.
 *
 * **Details**
 *
 * Every option that is data has a key: the prefix, the part and the option, as in `GPT_RETRY_MAX_ATTEMPTS`,
 * `GPT_BREAKER_OPEN_FOR`, `GPT_BACKPRESSURE_CAPACITY`, `GPT_DEDUPLICATOR_TIME_TO_LIVE` and `GPT_ATTEMPT_TIMEOUT`. Times are written as
 * in `"30 seconds"`, `"500 millis"` or `"1 hour"`. A part that neither the options nor the configuration name is not built.
 *
 * When a circuit opens is set by these, each over the first policy of its kind among the options; the other policies stay.
 *
 * | key | |
 * |---|---|
 * | `GPT_BREAKER_CONSECUTIVE` | failures in a row, as in `consecutive` |
 * | `GPT_BREAKER_FAILURE_RATE`, `GPT_BREAKER_SLOW_RATE` | the rate of `failureRate` or `slowCallRate`, above 0, up to 1 |
 * | `..._CALLS` in place of `_RATE` | of the last so many calls, in place of a time; default 20 |
 * | `..._WITHIN` in place of `_RATE` | of the calls of that time, in place of a number |
 * | `..._MINIMUM` in place of `_RATE` | so many calls at least; default half of `_CALLS`, or 10 of a time |
 *
 * - What is not set stays as it is in the options. A minimum that is the default there is so again for a new `_CALLS` or `_WITHIN`.
 * - Where the options have no policy of the kind, `_RATE` or `_CONSECUTIVE` adds one; the others without `_RATE` are refused.
 * - Where the options have no `trip` at all, what is set stands in place of the default `consecutive(5)`.
 *
 * **Gotchas**
 *
 * - A value of the wrong form is a `ConfigError` that names its key; one that makes no sense is `InvalidOptions`, which
 *   names its option.
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
 * console.log(await Effect.runPromise(program)) // => retry: 5 attempts, first wait 500ms, then times 2, at most 1m, jitter full
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const config = (prefix: string, options: SluiceOptions): Config.Config<SluiceOptions> =>
  sluiceConfig(prefix, options)

/**
 * Every store that a policy may ask for, kept in this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStoresMemory: Layer.Layer<CircuitBreakerStore.CircuitBreakerStore> = CircuitBreakerStore.layerMemory

/**
 * A policy that lets everything through as it is.
 *
 * @since 0.1.0
 * @category constructors
 */
export const noop: Sluice = {
  protect: dual((args) => Effect.isEffect(args[0]), <A, E, R>(self: Effect.Effect<A, E, R>) => self),
  protectStream: dual((args) => Stream.isStream(args[0]), <A, E, R>(self: Stream.Stream<A, E, R>) => self),
  breaker: CircuitBreaker.noop,
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
      deduplicator: yield* Deduplicator.noop.stats,
      missed: 0
    }
  }),
  events: Stream.empty
}

/**
 * The class of a policy that is a service of its own: one tag for each policy, so that no two are mixed up.
 *
 * **Details**
 *
 * - `layer` keeps its circuits in the `CircuitBreakerStore` that is there, which others may share.
 * - `layerMemory` is complete.
 * - `layerConfig` is `layer` with options that a `Config` makes of these, see `config`.
 * - `layerNoop` lets everything through, for tests and for switching the policy off.
 *
 * @since 0.1.0
 * @category services
 */
export const Service = <Self>() =>
<const Id extends string>(
  id: Id,
  options: SluiceOptions
): Context.ServiceClass<Self, Id, Sluice> & {
  readonly layer: Layer.Layer<Self, InvalidOptions, CircuitBreakerStore.CircuitBreakerStore>
  readonly layerMemory: Layer.Layer<Self, InvalidOptions>
  readonly layerConfig: (
    config: (options: SluiceOptions) => Config.Config<SluiceOptions>
  ) => Layer.Layer<Self, InvalidOptions | Config.ConfigError, CircuitBreakerStore.CircuitBreakerStore>
  readonly layerNoop: Layer.Layer<Self>
} => {
  const Tag = Context.Service<Self, Sluice>()(id)
  const layer = Layer.effect(Tag, make(options))
  return Object.assign(Tag, {
    layer,
    layerMemory: Layer.provide(layer, Layer.fresh(layerStoresMemory)),
    layerConfig: (config: (options: SluiceOptions) => Config.Config<SluiceOptions>) =>
      Layer.effect(Tag, Effect.flatMap(config(options), make)),
    layerNoop: Layer.succeed(Tag, noop)
  })
}
