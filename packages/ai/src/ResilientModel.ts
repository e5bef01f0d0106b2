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
 *    elapsed, or whose permits are all in use. It also skips one whose credential was refused, or whose context is too
 *    small for the prompt. If only busy targets are left, it queues at the first of them, or is shed without a queue.
 * 2. Falls back at once, after a failure, to a target that has not failed in this call. Without one it backs off, and
 *    tries the target with the fewest failures. All targets share the attempts of `retry` and the deadline.
 * 3. Waits, if no target is available, for a Retry-After of up to `retry.maxRetryAfter`. With a deadline that allows
 *    it, it also waits for an open circuit. Otherwise it fails with `NoTarget`.
 * 4. Requests an answer again, up to `reasks` times, if it is empty or does not match its schema.
 *
 * `AiOutcome` has the table of what each error means: whether it is retried, counts against the circuit, or rules out a
 * target or a credential.
 *
 * A stream:
 *
 * - Holds its parts until the first output. A failure before it is retried, and the consumer does not see it. After it,
 *   the answers of two attempts are never mixed.
 * - Fails with a typed error if it has an error part, ends without a finish part, is silent for too long, or is empty.
 * - Holds its permit, or its probe slot, until it is complete.
 *
 * Tools run once, outside the layer, after the attempt that called them has succeeded. A retry repeats requests, never
 * tools. All attempts of a call have the same `Idempotency-Key`, and a re-ask has another.
 *
 * Options of the layer:
 *
 * | option | default | why this default, when to change it |
 * |---|---|---|
 * | `targets` | required | |
 * | `name` | `"model"` | names circuits, permits and metrics; layers with equal names share circuits in a store |
 * | `retry` | `RetryPolicy.exponential()` | three attempts over all targets; raise `maxAttempts` to try more targets |
 * | `reasks` | 1 | a second re-ask seldom helps, and costs as much |
 * | `deadline` | none | only you know how long your caller waits; set it for interactive calls |
 * | `whenAllOpen` | `"refuse"` | a provider recovers sooner without calls; `"leastBad"` calls the target whose probe is due first |
 * | `afterOutput` | `"fail"` | set `"restart"` if the consumer can discard what it has shown, see `restartOf` |
 * | `firstTokenTimeout` | 2 minutes | some models think that long in silence; lower it for interactive calls |
 * | `idleTimeout` | 1 minute | longer than a healthy model pauses within an answer |
 * | `attemptTimeout` | 10 minutes | as in the official clients |
 * | `credentialRest` | 5 minutes | a key is seldom replaced sooner; a provider's Retry-After takes precedence |
 * | `maxHeldParts`, `maxHeldBytes` | 64, 256 Ki | more than any provider sends before its first output |
 *
 * A target has these, and can override the three timeouts:
 *
 * | option | default | why this default, when to change it |
 * |---|---|---|
 * | `name`, `layer` | required | the name is in logs, errors and answers; the layer is any provider's |
 * | `provider`, `model` | from the layer | shown in answers, metrics and traces |
 * | `credential` | the name | name the account if targets share one: they are skipped together if it is refused |
 * | `order` | its index | the list is the order of preference; equal orders share the calls |
 * | `weight` | 1 | equal shares among targets of one order |
 * | `contextTokens` | unknown | set it on all targets: a prompt that is too long goes only to a larger context |
 * | `breaker` | 5 failures in a row, or half of the last 20 calls; open for 30 seconds | the first notices an outage, the second a provider that still answers at times |
 * | `backpressure` | no cap | set `capacity` to the account's concurrency limit, and a `queue` to wait instead of being shed |
 *
 * **Errors**
 *
 * - The service fails with `AiError`. A provider's error keeps its reason. If Sluice refused or ended the call,
 *   `rejection` returns why. `AiRejection` has the table.
 * - If no target is available, a call that has made a request fails with its last error. Otherwise it fails with
 *   `NoTarget`, which has the reason of each target. A single target with an open circuit is `CircuitOpen` instead,
 *   with the evidence. Both are a `RateLimitError`, with a retryAfter if it is known. If all credentials are refused,
 *   `NoTarget` is an `AuthenticationError`.
 * - Invalid options fail the layer with `InvalidOptions`, which has all issues.
 *
 * **Gotchas**
 *
 * - A fallback uses an attempt. With the default `retry`, a call tries at most three targets.
 * - After a prompt that is too long for a target, the call ends unless both that target and the next have
 *   `contextTokens`.
 * - A retry around the layer multiplies attempts, except `RetryPolicy.retry`, which shares them. In an `ExecutionPlan`,
 *   let either the plan or this layer retry.
 * - Re-asks are not attempts: each attempt of an outer retry has `reasks` of its own. An empty answer that remains is a
 *   retryable `AiError`.
 * - If one such layer is a target of another, set `afterOutput: "restart"` on one of them only. Each counts restarts by
 *   itself.
 * - A defect of a target is not retried.
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
import type { BackpressureOptions, Snapshot as PermitsSnapshot } from "@sluice/core/Backpressure"
import type { CircuitBreakerOptions, State as CircuitState, Transition } from "@sluice/core/CircuitBreaker"
import * as CircuitBreakerStore from "@sluice/core/CircuitBreakerStore"
import { Hub } from "@sluice/core/Hub"
import type { InvalidOptions } from "@sluice/core/InvalidOptions"
import type { RetryPolicy } from "@sluice/core/RetryPolicy"
import * as EmbeddingModel from "effect/ai/EmbeddingModel"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import type * as Response from "effect/ai/Response"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as AiRejection from "./AiRejection.ts"
import type { CallLog } from "./CallLog.ts"
import * as Decorate from "./internal/resilient/decorate.ts"
import * as Embedding from "./internal/resilient/embedding.ts"
import { CurrentLogs, Engine } from "./internal/resilient/engine.ts"
import * as Settings from "./internal/resilient/settings.ts"
import type { AnyTarget, Rest } from "./internal/resilient/target.ts"

/**
 * Timeouts of one attempt. Each can be set for the layer and for a target.
 *
 * @since 0.1.0
 * @category models
 */
export interface Limits {
  /**
   * From the start of a stream to its first output, including connecting and headers. Default 2 minutes, since some
   * models think that long in silence.
   */
  readonly firstTokenTimeout?: Duration.Input | undefined
  /** The longest silence after the first output of a stream. Default 1 minute. A slow consumer does not count. */
  readonly idleTimeout?: Duration.Input | undefined
  /** The longest attempt, streamed or not. Default 10 minutes, as in the official clients. */
  readonly attemptTimeout?: Duration.Input | undefined
}

/**
 * Options for one target. The module's table has the reasons for the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface TargetOptions extends Limits {
  /** Used in logs, errors and answers, and for its circuit. Unique within the layer. */
  readonly name: string
  /** The provider, for metrics and traces. Default: `Model.ProviderName` of its layer, or else the name. */
  readonly provider?: string | undefined
  /** The model, for metrics and traces. Default: `Model.ModelName` of its layer, or else `"unknown"`. */
  readonly model?: string | undefined
  /** Names the account. If it is refused or its quota is used up, all its targets are skipped. Default: the name. */
  readonly credential?: string | undefined
  /** Lower is tried first. Default: its index in the list. Targets of one order share the calls by weight. */
  readonly order?: number | undefined
  /** Its share of the calls among the targets of its order. Above 0. Default 1. */
  readonly weight?: number | undefined
  /**
   * The size of its context. After a prompt that is too long for a target, only targets with a larger one are tried.
   */
  readonly contextTokens?: number | undefined
  /**
   * Options of its circuit breaker. `false`: none. By default the circuit opens for 30 seconds after five failures in a
   * row, or when half of the last 20 calls failed.
   */
  readonly breaker?: Omit<CircuitBreakerOptions, "name" | "classify"> | false | undefined
  /** Caps how many calls run at once. Without a `queue`, a call over the cap is shed. Default: no cap. */
  readonly backpressure?: Omit<BackpressureOptions, "name"> | undefined
}

/**
 * A place where a model can be called.
 *
 * @since 0.1.0
 * @category models
 */
export interface Target<in S, out E = unknown, out R = unknown> extends TargetOptions {
  /** Provides the model: from `OpenAiCompatible` or `AnthropicMessages`, from Effect's packages, or your own. */
  readonly layer: Layer.Layer<S, E, R>
}

/**
 * Options for `layer` and `layerStore`. The module's table has the reasons for the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends Limits {
  readonly targets: ReadonlyArray<TargetOptions>
  /** Used in refusals and metrics, and as the name of the model. Default `"model"`. */
  readonly name?: string | undefined
  /**
   * The attempts of a call, over all targets, and the backoff if there is no other target to try. Default
   * `RetryPolicy.exponential()`: three attempts.
   */
  readonly retry?: RetryPolicy | undefined
  /**
   * How often a complete but unusable answer, which is empty or does not match its schema, is requested again. Each
   * costs as much as the first. Re-asks are not attempts of `retry`. Default 1.
   */
  readonly reasks?: number | undefined
  /** The time limit of the whole call, with all waits and attempts. Default none. */
  readonly deadline?: Duration.Input | undefined
  /**
   * If every circuit is open: `"refuse"` fails with the time to retry after, `"leastBad"` calls the target whose
   * circuit is half-open first. Default `"refuse"`.
   */
  readonly whenAllOpen?: "refuse" | "leastBad" | undefined
  /**
   * If a stream fails with partial output: `"fail"` fails, `"restart"` starts the answer over at another target. Then a
   * part for which `restartOf` returns a value comes first, and all output before it is void. Default `"fail"`.
   */
  readonly afterOutput?: "fail" | "restart" | undefined
  /** How long a refused credential is not used, unless the provider sends a Retry-After. Default 5 minutes. */
  readonly credentialRest?: Duration.Input | undefined
  /** After this many parts a stream is emitted even without output. Default 64. */
  readonly maxHeldParts?: number | undefined
  /** After this many bytes a stream is emitted even without output. Default 256 Ki. */
  readonly maxHeldBytes?: number | undefined
}

/** Options that are only for streams. */
type StreamLimits = "firstTokenTimeout" | "idleTimeout"

/**
 * A place where an embedding model can be called: a `Target` without the timeouts of streams.
 *
 * @since 0.1.0
 * @category models
 */
export interface EmbeddingTarget<out E = unknown, out R = unknown>
  extends Omit<Target<EmbeddingModel.EmbeddingModel, E, R>, StreamLimits>
{
  readonly firstTokenTimeout?: never
  readonly idleTimeout?: never
}

/**
 * Options for `layerEmbedding` and `layerEmbeddingStore`: `Options` without those for streams.
 *
 * @since 0.1.0
 * @category models
 */
export type EmbeddingOptions = Omit<Options, StreamLimits | "afterOutput" | "maxHeldParts" | "maxHeldBytes">

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
  readonly credential: string
  /** `undefined` if it has none, or its store is unavailable. */
  readonly circuit: CircuitState | undefined
  /** `undefined` without a cap. */
  readonly permits: PermitsSnapshot | undefined
  /** Time until its Retry-After has elapsed. */
  readonly coolsFor: Duration.Duration | undefined
  /** Time until its credential is used again. */
  readonly credentialRestsFor: Duration.Duration | undefined
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
}>()("@sluice/ai/ResilientModel") {}

type LayerOf<Services, Targets extends ReadonlyArray<Pick<Target<never>, "layer">>, Needs = never> = Layer.Layer<
  Services | ResilientModel | Model.ProviderName | Model.ModelName,
  InvalidOptions | Layer.Error<Targets[number]["layer"]>,
  Layer.Services<Targets[number]["layer"]> | Needs
>

/**
 * Provides a resilient `LanguageModel`, with `ResilientModel`, `Model.ProviderName` and `Model.ModelName`. Circuits are
 * kept in this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = <const Targets extends ReadonlyArray<Target<LanguageModel.LanguageModel>>>(
  options: Omit<Options, "targets"> & { readonly targets: Targets }
): LayerOf<LanguageModel.LanguageModel, Targets> => Layer.provide(layerStore(options), CircuitBreakerStore.layerMemory)

/**
 * `layer` with circuits in the `CircuitBreakerStore` of the context, which several processes can share.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerStore = <const Targets extends ReadonlyArray<Target<LanguageModel.LanguageModel>>>(
  options: Omit<Options, "targets"> & { readonly targets: Targets }
): LayerOf<LanguageModel.LanguageModel, Targets, CircuitBreakerStore.CircuitBreakerStore> =>
  Layer.effectContext(Effect.gen(function*() {
    const engine = yield* build(options, options.targets, LanguageModel.LanguageModel)
    return Context.add(named(engine), LanguageModel.LanguageModel, yield* Decorate.make(engine))
  })) as LayerOf<LanguageModel.LanguageModel, Targets, CircuitBreakerStore.CircuitBreakerStore>

/**
 * Provides a resilient `EmbeddingModel`. Circuits are kept in this process.
 *
 * **Gotchas**
 *
 * - Vectors of two models cannot be compared. Fall back to the same model at another provider, not to another model.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerEmbedding = <const Targets extends ReadonlyArray<EmbeddingTarget>>(
  options: Omit<EmbeddingOptions, "targets"> & { readonly targets: Targets }
): LayerOf<EmbeddingModel.EmbeddingModel, Targets> =>
  Layer.provide(layerEmbeddingStore(options), CircuitBreakerStore.layerMemory)

/**
 * `layerEmbedding` with circuits in the `CircuitBreakerStore` of the context.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerEmbeddingStore = <const Targets extends ReadonlyArray<EmbeddingTarget>>(
  options: Omit<EmbeddingOptions, "targets"> & { readonly targets: Targets }
): LayerOf<EmbeddingModel.EmbeddingModel, Targets, CircuitBreakerStore.CircuitBreakerStore> =>
  Layer.effectContext(Effect.gen(function*() {
    const engine = yield* build(options, options.targets, EmbeddingModel.EmbeddingModel)
    return Context.add(named(engine), EmbeddingModel.EmbeddingModel, yield* Embedding.make(engine))
  })) as LayerOf<EmbeddingModel.EmbeddingModel, Targets, CircuitBreakerStore.CircuitBreakerStore>

/** Builds the layers of all targets, and their engine. */
const build = Effect.fnUntraced(function*<S>(
  options: Options,
  given: ReadonlyArray<Target<S>>,
  tag: Context.Key<S, S>
): Effect.fn.Return<Engine<S>, unknown, CircuitBreakerStore.CircuitBreakerStore | Scope.Scope> {
  const { plans, settings } = yield* Settings.read(options, given)
  const members = yield* Effect.forEach(given, (target) =>
    Effect.map(
      // `LayerOf` has the services that the target's layer requires.
      Layer.build(target.layer) as Effect.Effect<Context.Context<S>, unknown, Scope.Scope>,
      (context): Settings.Member<S> => ({
        service: Context.get(context, tag),
        provider: Option.getOrUndefined(Context.getOption(context, Model.ProviderName)),
        model: Option.getOrUndefined(Context.getOption(context, Model.ModelName))
      })
    ))
  const targets = yield* Settings.targets(settings, plans, members)
  const logs = new Hub<CallLog>()
  yield* Effect.addFinalizer(() => logs.close)
  return new Engine(settings, targets, logs)
})

const named = <S>(engine: Engine<S>) =>
  Context.make(
    ResilientModel,
    ResilientModel.of({
      targets: Effect.flatMap(Clock.currentTimeMillis, (now) =>
        Effect.forEach(engine.targets, (target) => stateOf(target, now))),
      calls: engine.logs.stream,
      transitions: Stream.mergeAll(
        engine.targets.flatMap(({ breaker, name }) =>
          breaker === undefined
            ? []
            : [Stream.map(breaker.transitions, (transition) => ({ target: name, transition }))]
        ),
        { concurrency: "unbounded" }
      )
    })
  ).pipe(
    Context.add(Model.ProviderName, "sluice"),
    Context.add(Model.ModelName, engine.settings.name)
  )

const stateOf = (target: AnyTarget, now: number): Effect.Effect<TargetState> =>
  Effect.gen(function*() {
    const left = (rest: Rest) => {
      const millis = rest.left(now)
      return millis > 0 ? Duration.millis(millis) : undefined
    }
    return {
      name: target.name,
      provider: target.provider,
      model: target.model,
      credential: target.credential.name,
      circuit: target.breaker === undefined
        ? undefined
        : Option.getOrUndefined(yield* Effect.option(target.breaker.state(target.key))),
      permits: target.permits === undefined ? undefined : yield* target.permits.snapshot,
      coolsFor: left(target.rest),
      credentialRestsFor: left(target.credential.rest)
    }
  })

/**
 * Returns the exit of an effect, and the logs of its calls in the order in which they ended.
 *
 * **Gotchas**
 *
 * - The call of a stream ends with the stream. Run the stream within the effect.
 *
 * @since 0.1.0
 * @category combinators
 */
export const withLogs = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<readonly [exit: Exit.Exit<A, E>, logs: ReadonlyArray<CallLog>], never, R> =>
  Effect.suspend(() => {
    const logs: Array<CallLog> = []
    return Effect.map(
      Effect.exit(Effect.provideService(self, CurrentLogs, logs)),
      (exit) => [exit, logs] as const
    )
  })

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
