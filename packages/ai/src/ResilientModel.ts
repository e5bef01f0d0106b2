/**
 * A resilient `LanguageModel`: retries, fallback to other targets, circuit breakers, limits, and streams that are
 * complete or fail.
 *
 * It replaces the layer of a provider. The rest of the application does not change.
 *
 * **When to use**
 *
 * - Wherever an application calls `LanguageModel.generateText`, `generateObject` or `streamText`: directly, through
 *   `Chat`, or with tools. One target is enough; several add fallback.
 * - With `layerStore`, if several processes should share what they know of a provider.
 * - With `layerEmbedding`, for an `EmbeddingModel`.
 *
 * **When not to use**
 *
 * - To improve answers. A complete answer is replaced only if it is empty or does not match its schema.
 * - For calls that do not go through `LanguageModel`. Use `Sluice`.
 * - To share identical calls or cache answers. Use `Deduplicator` around the call.
 * - Together with the retries of a provider's own client. Switch those off, or attempts multiply.
 *
 * **Details**
 *
 * A call:
 *
 * 1. Tries the first available target, by `order`. It skips a target whose circuit is open, whose Retry-After has not
 *    elapsed, or whose permits are all in use. It also skips one whose credential was refused, whose context is too
 *    small for the prompt, or that does not offer the model of `withModel`. A target whose quota is used up is skipped if
 *    another can start sooner. If only busy targets are left, it queues at the first of them, or is shed without a queue. If
 *    only used-up quotas are left, it queues at the target with the shortest wait, and holds no permit meanwhile.
 * 2. Tries the same target once more, after the backoff or a Retry-After of up to 5 seconds, if its failure is soon over: a
 *    lost connection, a 5xx or a similar status. This needs a closed circuit, and an attempt left for another target.
 *    Otherwise, as after any silence, it falls back at once to a target that has not failed in this call. Without one it
 *    backs off, and tries the target with the fewest failures. All targets share the attempts of `retry` and the deadline.
 * 3. Waits, if no target is available, for a Retry-After of up to `retry.maxRetryAfter`. With a deadline that allows
 *    it, it also waits for an open circuit. Otherwise it fails with `NoTarget`.
 * 4. Requests an answer again, up to `reasks` times, if it is empty or does not match its schema.
 *
 * `AiOutcome` has the table of what each error means: whether it is retried, counts against the circuit, or rules out a
 * target or a credential.
 *
 * A stream:
 *
 * - Holds its parts until the first output, or until the answer is complete with `answer: "whole"`. A failure before it is
 *   retried, and the consumer does not see it. After it, the answers of two attempts are never mixed.
 * - Fails with a typed error if it has an error part, ends without a finish part, is silent for too long, or is empty.
 * - Holds its permit, or its probe slot, until it is complete.
 *
 * Tools run once, outside the layer, after the attempt that called them has succeeded. A retry repeats requests, never
 * tools. All attempts of a call have the same `Idempotency-Key`, and a re-ask or a continuation has another.
 *
 * Options of the layer:
 *
 * | option | default | why this default, when to change it |
 * |---|---|---|
 * | `targets` | required | |
 * | `name` | `"model"` | names circuits, permits and metrics; layers with equal names share circuits in a store |
 * | `retry` | `RetryPolicy.exponential()` | three attempts over all targets; raise `maxAttempts` to try more targets |
 * | `retriesHere` | 1 | most short failures are over at the second attempt, and another model has other answers; 0 falls back at once |
 * | `reasks` | 1 | a second re-ask seldom helps, and costs as much |
 * | `deadline` | none | only you know how long your caller waits; set it for interactive calls |
 * | `whenAllOpen` | `"refuse"` | a provider recovers sooner without calls; `"leastBad"` calls the target whose probe is due first |
 * | `answer` | `"live"` | set `"whole"` if no consumer needs text early: then a failure in the middle of an answer is retried too |
 * | `maxWholeBytes` | 16 Mi | memory of one held answer; a larger one is emitted live from that point |
 * | `afterOutput` | `"fail"` | set `"restart"` if the consumer can discard what it has shown, see `restartOf`; `"continue"` needs targets with `prefill` |
 * | `firstTokenTimeout` | 2 minutes | some models think that long in silence; lower it for interactive calls |
 * | `idleTimeout` | 1 minute | longer than a healthy model pauses within an answer; both apply to streams, and to whole answers that are collected from a stream (`wholeFromStream`) |
 * | `attemptTimeout` | 10 minutes | as in the official clients |
 * | `credentialRest` | 5 minutes | a key is seldom replaced sooner; a provider's Retry-After takes precedence |
 * | `maxHeldParts`, `maxHeldBytes` | 64, 256 Ki | more than any provider sends before its first output |
 * | `malformedEvent` | `"fail"` | an event that is not JSON may have been text; `"skip"` ignores it, for a server that mixes other text into its streams |
 *
 * A target has these, and can override the three timeouts and `malformedEvent`:
 *
 * | option | default | why this default, when to change it |
 * |---|---|---|
 * | `name`, `layer` | required | the name is in logs, errors and answers; the layer is any provider's |
 * | `provider`, `model` | from the layer | shown in answers, metrics and traces |
 * | `credential` | the name | name the account if targets share one: they are skipped together if it is refused |
 * | `order` | its index | the list is the order of preference; equal orders share the calls |
 * | `weight` | 1 | equal shares among targets of one order |
 * | `models` | its own | the other models that `withModel` can request, by the names that callers use |
 * | `prefill` | false | whether it continues a partial answer at the end of the prompt, for `afterOutput: "continue"` |
 * | `contextTokens` | unknown | set it on all targets: a prompt that is too long goes only to a larger context |
 * | `breaker` | 5 failures in a row, or half of the last 20 calls; open for 5, 10, 20, then 30 seconds | the first notices an outage, the second a provider that still answers at times; a probe costs one call, so a short outage is over soon |
 * | `quota` | none | the limits of the account; targets of one account and model family share them |
 * | `family` | the model's name without its version | set it if the provider limits several models together |
 * | `price` | none | in a currency for a million tokens; required if the quota limits `money` |
 * | `maxOutputTokens` | `maxTokens` of the configuration, or else learned, starting at 4,096 | set it for other adapters, and for `money` |
 * | `backpressure` | no cap | set `capacity` to the account's concurrency limit, and a `queue` to wait instead of being shed |
 *
 * **Errors**
 *
 * - The service fails with `AiError`. A provider's error keeps its reason. If Sluice refused or ended the call,
 *   `rejection` returns why. `AiRejection` has the table.
 * - If no target is available, a call that has made a request fails with its last error. Otherwise it fails with
 *   `NoTarget`, which has the reason of each target. The same holds if a queue or a circuit refuses a further attempt:
 *   the refusal is then in `RetryPolicy.stopped` of the cause. A single target with an open circuit is `CircuitOpen` instead,
 *   with the evidence. Both are a `RateLimitError`, with a retryAfter if it is known. If all credentials are refused,
 *   `NoTarget` is an `AuthenticationError`.
 * - Invalid options fail the layer with `InvalidOptions`, which has all issues.
 *
 * **Gotchas**
 *
 * - A fallback uses an attempt, and so does another attempt at the same target. With the default `retry` and `retriesHere`, a
 *   call tries two targets if both fail with a 503. Raise `maxAttempts` of `retry` to try more.
 * - After a prompt that is too long for a target, the call ends unless both that target and the next have
 *   `contextTokens`.
 * - A retry around the layer multiplies attempts, except `RetryPolicy.retry`, which shares them. In an `ExecutionPlan`,
 *   let either the plan or this layer retry.
 * - Re-asks are not attempts: each attempt of an outer retry has `reasks` of its own. An empty answer that remains is a
 *   retryable `AiError`.
 * - If one such layer is a target of another, set `afterOutput: "restart"` on one of them only. Each counts restarts by
 *   itself.
 * - `answer: "whole"` costs the time to the first token: the consumer gets all parts at the end.
 * - `afterOutput: "continue"` trusts the target. A target that begins a new answer adds it to the old one. A text that begins
 *   with all text so far counts as a repetition. So after a very short output, such as `na`, a true continuation `na` is cut.
 *   The styles of the two parts may differ. You pay for both attempts.
 * - A defect of a target is not retried.
 * - `malformedEvent: "skip"` can lose a piece of the answer without an error. Only `skippedEvents`, in the log
 *   and in the target's state, shows it.
 *
 * **Example** (The second target answers)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { LanguageModel } from "effect/ai"
 * import * as ResilientModel from "@sluice/ai/ResilientModel"
 * import * as ScriptedModel from "@sluice/ai/testing/ScriptedModel"
 * import * as Turn from "@sluice/ai/testing/Turn"
 *
 * const Model = ResilientModel.layer({
 *   targets: [
 *     { name: "first", layer: ScriptedModel.layer({ turns: [Turn.status(503)] }) },
 *     { name: "second", layer: ScriptedModel.layer({ turns: [Turn.answer("Good morning")] }) }
 *   ]
 * })
 *
 * const program = Effect.gen(function*() {
 *   const response = yield* LanguageModel.generateText({ prompt: "Hello" })
 *   return `${response.text}, from ${ResilientModel.answeredBy(response)?.target}`
 * })
 *
 * console.log(await Effect.runPromise(Effect.provide(program, Model))) // => Good morning, from second
 * ```
 *
 * **Example** (Why a call failed)
 *
 * ```ts
 * import { Effect, Option, Stream } from "effect"
 * import { LanguageModel } from "effect/ai"
 * import * as RetryPolicy from "@sluice/core/RetryPolicy"
 * import * as ResilientModel from "@sluice/ai/ResilientModel"
 * import * as ScriptedModel from "@sluice/ai/testing/ScriptedModel"
 * import * as Turn from "@sluice/ai/testing/Turn"
 *
 * const Model = ResilientModel.layer({
 *   targets: [{ name: "silent", layer: ScriptedModel.layer({ turns: [Turn.hang()] }) }],
 *   firstTokenTimeout: "10 millis",
 *   retry: RetryPolicy.none
 * })
 *
 * const program = Effect.flip(Stream.runDrain(LanguageModel.streamText({ prompt: "Hello" })))
 *
 * const error = await Effect.runPromise(Effect.provide(program, Model))
 * console.log(Option.getOrThrow(ResilientModel.rejection(error)).message) // => silent: no first token within 10ms
 * ```
 *
 * @since 0.1.0
 */
import type { Snapshot as PermitsSnapshot } from "@sluice/core/Backpressure"
import type { ControlOptions, State as CircuitState, Transition } from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import type { Level as QuotaLevel } from "@sluice/core/Quota"
import * as EmbeddingModel from "effect/ai/EmbeddingModel"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import type * as Response from "effect/ai/Response"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as AiRejection from "./AiRejection.ts"
import type { CallLog } from "./CallLog.ts"
import { CurrentModel } from "./internal/kit/currentModel.ts"
import { build, reportsOf } from "./internal/resilient/build.ts"
import * as Decorate from "./internal/resilient/decorate.ts"
import * as Embedding from "./internal/resilient/embedding.ts"
import type { Engine } from "./internal/resilient/engine.ts"
import * as LastLogs from "./internal/resilient/lastLogs.ts"
import type {
  EmbeddingLayerOptions,
  EmbeddingTarget,
  LayerOptions,
  Target,
  TextLayerOptions
} from "./internal/resilient/options.ts"
import type * as Settings from "./internal/resilient/settings.ts"
import * as Text from "./internal/resilient/text.ts"
import { TextModel } from "./TextModel.ts"

export {
  /**
   * The model that a call requests. Within an attempt, the target's own name for it. For an adapter of your own, which calls that
   * model if there is one. Default none: the adapter calls its own model.
   *
   * @since 0.1.0
   * @category references
   */
  CurrentModel
} from "./internal/kit/currentModel.ts"

export type {
  CallOptions,
  EmbeddingLayerOptions,
  EmbeddingTarget,
  EmbeddingTargetOptions,
  LayerOptions,
  Price,
  StreamOptions,
  Target,
  TargetOptions,
  TextLayerOptions
} from "./internal/resilient/options.ts"

/**
 * The state of one target.
 *
 * @since 0.1.0
 * @category models
 */
export interface TargetState {
  readonly name: string
  readonly provider: string
  readonly model: string
  /** The models that calls can request with `withModel`. */
  readonly models: ReadonlyArray<string>
  readonly credential: string
  /** `undefined` if it has none, or its store is unavailable. */
  readonly circuit: CircuitState | undefined
  /** `undefined` without a cap. */
  readonly permits: PermitsSnapshot | undefined
  /** The limits of the account and the family of its own model. `undefined` without a quota, empty before the first call. */
  readonly quota: ReadonlyArray<QuotaLevel> | undefined
  /** Time until its Retry-After has elapsed. */
  readonly coolsFor: Duration.Duration | undefined
  /** Time until its credential is used again. */
  readonly credentialRestsFor: Duration.Duration | undefined
  /** Attempts that run. An attempt that streams runs until its stream ends. */
  readonly running: number
  /** How many events of its streams were skipped so far, with `malformedEvent: "skip"`. */
  readonly skippedEvents: number
}

/**
 * Options for `control`: those of `CircuitBreaker`, with the name of a target instead of a key.
 *
 * @since 0.1.0
 * @category models
 */
export interface TargetControl extends Omit<ControlOptions, "key"> {
  readonly target: string
}

/**
 * The state and the events of a resilient model.
 *
 * @since 0.1.0
 * @category services
 */
export class ResilientModel extends Context.Service<ResilientModel, {
  /** The state of every target, in order. */
  readonly targets: Effect.Effect<ReadonlyArray<TargetState>>
  /**
   * The log of every call when it ends, from the moment of subscribing. A reader that is 256 logs behind loses the
   * oldest.
   */
  readonly calls: Stream.Stream<CallLog>
  /** The transitions of all circuits, from the moment of subscribing. */
  readonly transitions: Stream.Stream<{ readonly target: string; readonly transition: Transition }>
  /**
   * Forces the circuit of a target open or closed, switches it off, or lifts that, as `control` of `CircuitBreaker`. Attempts that
   * run continue.
   */
  readonly control: (options: TargetControl) => Effect.Effect<void, CircuitBreakerStore.StoreError | InvalidOptions>
  /** Closes the circuit of a target and drops its evidence. It also lifts a forced mode. */
  readonly reset: (
    options: Pick<TargetControl, "reason" | "target">
  ) => Effect.Effect<void, CircuitBreakerStore.StoreError | InvalidOptions>
}>()("@sluice/ai/ResilientModel") {}

type ErrorOf<Targets extends ReadonlyArray<Pick<Target<never>, "layer">>> = Layer.Error<Targets[number]["layer"]>
type NeedsOf<Targets extends ReadonlyArray<Pick<Target<never>, "layer">>> = Layer.Services<Targets[number]["layer"]>

type LayerOf<S, E, R> = Layer.Layer<
  S | ResilientModel | Model.ProviderName | Model.ModelName,
  InvalidOptions | E,
  R
>

/**
 * Provides a resilient `LanguageModel`, with `ResilientModel`, `Model.ProviderName` and `Model.ModelName`. Circuits are
 * kept in this process, and each layer has its own.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = <const Targets extends ReadonlyArray<Target<LanguageModel.LanguageModel>>>(
  options: LayerOptions<Targets>
): LayerOf<LanguageModel.LanguageModel, ErrorOf<Targets>, NeedsOf<Targets>> =>
  Layer.provide(layerStore(options), ownStore)

/**
 * `layer` with circuits in the `CircuitBreakerStore` of the context, which several processes can share.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStore = <const Targets extends ReadonlyArray<Target<LanguageModel.LanguageModel>>>(
  options: LayerOptions<Targets>
): LayerOf<
  LanguageModel.LanguageModel,
  ErrorOf<Targets>,
  NeedsOf<Targets> | CircuitBreakerStore.CircuitBreakerStore
> =>
  over(
    options,
    typed<LanguageModel.LanguageModel, Targets>(options.targets),
    LanguageModel.LanguageModel,
    Decorate.make
  )

/**
 * Provides a resilient `EmbeddingModel`. Circuits are kept in this process, and each layer has its own.
 *
 * **Gotchas**
 *
 * - Vectors of two models cannot be compared. Fall back to the same model at another provider, not to another model.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerEmbedding = <const Targets extends ReadonlyArray<EmbeddingTarget>>(
  options: EmbeddingLayerOptions<Targets>
): LayerOf<EmbeddingModel.EmbeddingModel, ErrorOf<Targets>, NeedsOf<Targets>> =>
  Layer.provide(layerEmbeddingStore(options), ownStore)

/**
 * `layerEmbedding` with circuits in the `CircuitBreakerStore` of the context.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerEmbeddingStore = <const Targets extends ReadonlyArray<EmbeddingTarget>>(
  options: EmbeddingLayerOptions<Targets>
): LayerOf<
  EmbeddingModel.EmbeddingModel,
  ErrorOf<Targets>,
  NeedsOf<Targets> | CircuitBreakerStore.CircuitBreakerStore
> =>
  over(
    options,
    typed<EmbeddingModel.EmbeddingModel, Targets>(options.targets),
    EmbeddingModel.EmbeddingModel,
    Embedding.make
  )

/**
 * Provides a resilient `TextModel`. Circuits are kept in this process, and each layer has its own.
 *
 * **Details**
 *
 * Each answer is complete, so a failure after partial output is retried like any other. `firstTokenTimeout` and `idleTimeout`
 * apply as to streams.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerText = <const Targets extends ReadonlyArray<Target<TextModel>>>(
  options: TextLayerOptions<Targets>
): LayerOf<TextModel, ErrorOf<Targets>, NeedsOf<Targets>> => Layer.provide(layerTextStore(options), ownStore)

/**
 * `layerText` with circuits in the `CircuitBreakerStore` of the context.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerTextStore = <const Targets extends ReadonlyArray<Target<TextModel>>>(
  options: TextLayerOptions<Targets>
): LayerOf<TextModel, ErrorOf<Targets>, NeedsOf<Targets> | CircuitBreakerStore.CircuitBreakerStore> =>
  over(
    options,
    typed<TextModel, Targets>(options.targets),
    TextModel,
    (engine) => Effect.succeed(Text.make(engine))
  )

// Effect builds a layer once per program. `fresh` builds this store once for each layer that uses it.
const ownStore = Layer.fresh(CircuitBreakerStore.layerMemory)

// Each target has the errors and services of the whole list. The compiler cannot infer that for a generic list.
const typed = <S, Targets extends ReadonlyArray<Target<S>>>(
  targets: Targets
): ReadonlyArray<Target<S, ErrorOf<Targets>, NeedsOf<Targets>>> =>
  targets as unknown as ReadonlyArray<Target<S, ErrorOf<Targets>, NeedsOf<Targets>>>

/** Provides a model over the targets, with its state and its names. */
const over = <S, E, R>(
  options: Settings.Options,
  targets: ReadonlyArray<Target<S, E, R>>,
  tag: Context.Key<S, S>,
  make: (engine: Engine<S>) => Effect.Effect<S>
): LayerOf<S, E, R | CircuitBreakerStore.CircuitBreakerStore> =>
  Layer.effectContext(Effect.gen(function*() {
    const engine = yield* build(options, targets, tag)
    return Context.make(ResilientModel, reportsOf(engine)).pipe(
      Context.add(Model.ProviderName, "sluice"),
      Context.add(Model.ModelName, engine.settings.name),
      Context.add(tag, yield* make(engine))
    )
  }))

/**
 * Sets the model of the calls of an effect, for one layer with several models.
 *
 * **Details**
 *
 * Only targets that offer the model are called. A target offers its own model, `Model.ModelName` of its layer or its option
 * `model`, and those of its option `models`. `answeredBy` and telemetry have the target's own name for the model.
 *
 * **Errors**
 *
 * - If no target offers the model, a call fails with an `AiError` whose `rejection` is `ModelNotOffered`. It names all models that
 *   are offered. `AiRejection.toHttp` gives it status 404.
 *
 * **Gotchas**
 *
 * - `OpenAiCompatible` and `AnthropicMessages` call this model also without a resilient layer, and rather than the one of their
 *   own configuration. Other adapters have to read `CurrentModel`.
 * - Embeddings ignore it: vectors of two models cannot be compared.
 * - The models of one target share its circuit and its permits. Make a model that fails alone a target of its own.
 *
 * **Example** (Two models of one target)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { LanguageModel } from "effect/ai"
 * import * as ResilientModel from "@sluice/ai/ResilientModel"
 * import * as ScriptedModel from "@sluice/ai/testing/ScriptedModel"
 *
 * const Model = ResilientModel.layer({
 *   targets: [{ name: "main", model: "large", models: { fast: "small-2" }, layer: ScriptedModel.layer() }]
 * })
 *
 * const program = Effect.gen(function*() {
 *   const call = LanguageModel.generateText({ prompt: "Hello" })
 *   for (const model of ["large", "fast"]) {
 *     const response = yield* ResilientModel.withModel(call, model)
 *     console.log(ResilientModel.answeredBy(response)?.model)
 *   }
 *   const error = yield* Effect.flip(ResilientModel.withModel(call, "huge"))
 *   console.log(ResilientModel.rejection(error).pipe((rejection) => rejection._tag === "Some" && rejection.value.message))
 * })
 *
 * await Effect.runPromise(Effect.provide(program, Model))
 * // => large
 * // => small-2
 * // => no target offers the model "huge"; offered: large, fast
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const withModel: {
  (model: string): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, model: string): Effect.Effect<A, E, R>
} = dual(
  2,
  <A, E, R>(self: Effect.Effect<A, E, R>, model: string): Effect.Effect<A, E, R> =>
    Effect.provideService(self, CurrentModel, model)
)

/**
 * `withModel` for a stream.
 *
 * @since 0.1.0
 * @category combinators
 */
export const withModelStream: {
  (model: string): <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E, R>
  <A, E, R>(self: Stream.Stream<A, E, R>, model: string): Stream.Stream<A, E, R>
} = dual(
  2,
  <A, E, R>(self: Stream.Stream<A, E, R>, model: string): Stream.Stream<A, E, R> =>
    Stream.provideService(self, CurrentModel, model)
)

/**
 * Options for `withLogs`.
 *
 * @since 0.1.0
 * @category models
 */
export interface LogOptions {
  /** How many logs are kept: the last ones. Default 256. */
  readonly capacity?: number | undefined
}

/**
 * Returns the exit of an effect, the logs of its calls in the order in which they ended, and how many older logs were dropped.
 *
 * **Details**
 *
 * It keeps the last 256 logs, or `capacity` of them, so that an effect which runs for days can be given to it. For all logs of a
 * layer use `calls` of `ResilientModel`. A `capacity` that is not an integer from 1 is a defect.
 *
 * **Gotchas**
 *
 * - The call of a stream ends with the stream. Run the stream within the effect.
 *
 * @since 0.1.0
 * @category combinators
 */
export const withLogs: {
  (options?: LogOptions): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<Logged<A, E>, never, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, options?: LogOptions): Effect.Effect<Logged<A, E>, never, R>
} = dual(
  (args) => Effect.isEffect(args[0]),
  <A, E, R>(self: Effect.Effect<A, E, R>, options: LogOptions = {}): Effect.Effect<Logged<A, E>, never, R> =>
    Effect.flatMap(LastLogs.make(options.capacity), (logs) =>
      Effect.map(
        Effect.exit(Effect.provideService(self, LastLogs.CurrentLogs, logs)),
        (exit): Logged<A, E> => [exit, logs.all, logs.dropped]
      ))
)

/**
 * The result of `withLogs`.
 *
 * @since 0.1.0
 * @category models
 */
export type Logged<A, E> = readonly [exit: Exit.Exit<A, E>, logs: ReadonlyArray<CallLog>, dropped: number]

/**
 * Returns why Sluice refused or ended a call. None for an error of a provider.
 *
 * @since 0.1.0
 * @category getters
 */
export const rejection: (error: unknown) => Option.Option<AiRejection.Rejection> = AiRejection.fromAiError

const Answer = Schema.Struct({
  call: Schema.String,
  target: Schema.String,
  provider: Schema.String,
  model: Schema.String,
  attempts: Schema.Int,
  inputTokens: Schema.Finite,
  outputTokens: Schema.Finite,
  /** Whether the provider did not report all counts. Then four characters count as one token. */
  estimated: Schema.Boolean
})

/**
 * Which target answered, after how many attempts, and for how many tokens.
 *
 * @since 0.1.0
 * @category models
 */
export type Answer = typeof Answer.Type

const decodeAnswer = Schema.decodeUnknownOption(Schema.Struct({ answer: Answer }))

/**
 * Returns which target answered, from a whole response or from the finish part of a stream.
 *
 * @since 0.1.0
 * @category getters
 */
export const answeredBy = (
  answer: { readonly content: ReadonlyArray<Response.AnyPart> } | Response.AnyPart
): Answer | undefined => {
  const finish = "content" in answer ? answer.content.find(({ type }) => type === "finish") : answer
  return Option.getOrUndefined(decodeAnswer(finish?.metadata["sluice"]))?.answer
}

const decodeRestart = Schema.decodeUnknownOption(
  Schema.Struct({ restart: Schema.Struct({ from: Schema.String, to: Schema.String }) })
)

/**
 * Returns the targets of a restart, if the answer starts over with this part. All output before it is void. Only with
 * `afterOutput: "restart"`.
 *
 * @since 0.1.0
 * @category getters
 */
export const restartOf = (part: Response.AnyPart): { readonly from: string; readonly to: string } | undefined =>
  part.type === "response-metadata"
    ? Option.getOrUndefined(decodeRestart(part.metadata["sluice"]))?.restart
    : undefined
