/** The options of a resilient model. `ResilientModel` exports them. */
import type { BackpressureOptions } from "@sluice/core/Backpressure"
import type { CircuitBreakerOptions } from "@sluice/core/CircuitBreaker"
import type { Quota, QuotaOptions } from "@sluice/core/Quota"
import type { RetryPolicy } from "@sluice/core/RetryPolicy"
import type * as EmbeddingModel from "effect/ai/EmbeddingModel"
import type * as LanguageModel from "effect/ai/LanguageModel"
import type * as Duration from "effect/Duration"
import type * as Layer from "effect/Layer"
import type { TextModel } from "../../TextModel.ts"

/**
 * Options of streams. Each can be set for the layer and for a target.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamOptions {
  /**
   * From the start of a stream to its first output, including connecting and headers. Default 2 minutes, since some
   * models think that long in silence.
   */
  readonly firstTokenTimeout?: Duration.Input | undefined
  /** The longest silence after the first output of a stream. Default 1 minute. A slow consumer does not count. */
  readonly idleTimeout?: Duration.Input | undefined
  /**
   * The effect of an event that is not JSON on a stream. `"fail"` fails the attempt with `MalformedEvent`. `"skip"` ignores it, and
   * counts it in `skippedEvents` of the attempt's log. Default `"fail"`.
   *
   * A skipped event may have been a piece of the answer. After the beginning of a tool call it fails the attempt in any case,
   * since a tool must not run with half its input. Only `OpenAiCompatible` and `AnthropicMessages` can skip.
   */
  readonly malformedEvent?: "fail" | "skip" | undefined
}

/**
 * The price of a model, in a currency for a million tokens.
 *
 * @since 0.1.0
 * @category models
 */
export interface Price {
  readonly input: number
  readonly output: number
  /** Of input that is read from the provider's cache. Default: the price of input. */
  readonly cachedInput?: number | undefined
}

/**
 * Options for one target of an embedding model. The module's table has the reasons for the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface EmbeddingTargetOptions {
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
  /** The longest attempt, streamed or not. Default that of the layer. */
  readonly attemptTimeout?: Duration.Input | undefined
  /**
   * Options of its circuit breaker. `false`: none. By default the circuit opens after five failures in a row, or when half
   * of the last 20 calls failed: for 5 seconds, and while its probes fail for 10, 20, and then always 30 seconds.
   */
  readonly breaker?: Omit<CircuitBreakerOptions, "name" | "classify"> | false | undefined
  /** Caps how many calls run at once. Without a `queue`, a call over the cap is shed. Default: no cap. */
  readonly backpressure?: Omit<BackpressureOptions, "name"> | undefined
  /**
   * The limits of its account: options, or a service from `Quota.make` that several layers share. Default: none.
   *
   * The key of the quota is the account (`credential`) and the model family, or the account alone if no model is known. Targets of one
   * account with equal options share one quota. A call reserves `requests`, `tokens`, `inputTokens`, `outputTokens` and `money`, as far as the quota limits them, and
   * settles by the usage of the answer.
   */
  readonly quota?: Omit<QuotaOptions, "name" | "tenantLimits"> | Quota["Service"] | undefined
  /**
   * The model family, if the provider limits several models together. Default: the model's name in lower case without its version,
   * such as `-latest`, `-2024-08-06`, `-20250514` or `-001` at the end.
   */
  readonly family?: string | undefined
  /** The price of its model. Required if the quota limits `money`. */
  readonly price?: Price | undefined
}

/**
 * Options for one target. The module's table has the reasons for the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface TargetOptions extends EmbeddingTargetOptions, StreamOptions {
  /**
   * The models that it offers besides its own, for `ResilientModel.withModel`: a list of names, or an object from the names that
   * calls use to the provider's own names. Default: none.
   *
   * `OpenAiCompatible` and `AnthropicMessages` call the model of the call. An adapter of your own reads
   * `ResilientModel.CurrentModel`. One that does not read it must not have this option.
   */
  readonly models?: ReadonlyArray<string> | { readonly [name: string]: string } | undefined
  /**
   * Whether the target continues a partial answer that is the last message of the prompt. Default false. Only for
   * `afterOutput: "continue"`.
   *
   * Set it only for a provider and a model that you have tried. Many servers begin a new answer instead, and some refuse such a
   * prompt.
   */
  readonly prefill?: boolean | undefined
  /**
   * The most tokens of an answer, for the quota. Default: `maxTokens` of the configuration of `OpenAiCompatible` and
   * `AnthropicMessages`, or else learned from answers, starting at 4,096. Required if the quota limits `money` and the configuration
   * has no maximum.
   */
  readonly maxOutputTokens?: number | undefined
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
 * A place where an embedding model can be called: a `Target` without the options of streams.
 *
 * @since 0.1.0
 * @category models
 */
export interface EmbeddingTarget<out E = unknown, out R = unknown> extends EmbeddingTargetOptions {
  /** Provides the model. */
  readonly layer: Layer.Layer<EmbeddingModel.EmbeddingModel, E, R>
  // The compiler lets unknown options through within the list of targets.
  readonly firstTokenTimeout?: never
  readonly idleTimeout?: never
  readonly models?: never
  readonly prefill?: never
  readonly maxOutputTokens?: never
  readonly malformedEvent?: never
}

/**
 * Options of the calls of a layer. The module's table has the reasons for the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface CallOptions {
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
  /**
   * How often a call tries the same target again before it moves to another, after a failure that is soon over: a lost
   * connection, a 5xx or a similar status, a Retry-After of at most 5 seconds. Default 1.
   *
   * The call waits for the backoff or the Retry-After. It moves on at once if that wait is longer than 5 seconds or passes the
   * deadline, if the target's circuit has opened, or if only one attempt of `retry` is left. After silence it always moves on
   * at once.
   */
  readonly retriesHere?: number | undefined
  /** The time limit of the whole call, with all waits and attempts. Default none. */
  readonly deadline?: Duration.Input | undefined
  /** The longest attempt, streamed or not. Default 10 minutes, as in the official clients. */
  readonly attemptTimeout?: Duration.Input | undefined
  /**
   * If every circuit is open: `"refuse"` fails with the time to retry after, `"leastBad"` calls the target whose
   * circuit is half-open first. Default `"refuse"`.
   */
  readonly whenAllOpen?: "refuse" | "leastBad" | undefined
  /** How long a refused credential is not used, unless the provider sends a Retry-After. Default 5 minutes. */
  readonly credentialRest?: Duration.Input | undefined
}

/**
 * Options for `layer` and `layerStore`. The module's table has the reasons for the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface LayerOptions<
  Targets extends ReadonlyArray<Target<LanguageModel.LanguageModel>> = ReadonlyArray<
    Target<LanguageModel.LanguageModel, unknown, never>
  >
> extends CallOptions, StreamOptions {
  /** At least one, each with a `name` and a `layer`. */
  readonly targets: Targets
  /**
   * When the parts of a stream are emitted. `"live"`: from the first output. `"whole"`: once the answer is complete, so that a
   * failure in its middle is retried, and the consumer sees one whole answer. Default `"live"`.
   */
  readonly answer?: "live" | "whole" | undefined
  /**
   * With `answer: "whole"`: an answer that takes more memory than this many bytes is emitted live from that point. A failure
   * after that follows `afterOutput`. Default 16 Mi.
   */
  readonly maxWholeBytes?: number | undefined
  /**
   * If a stream fails with partial output: `"fail"` fails, `"restart"` starts the answer over at another target. Then a
   * part for which `restartOf` returns a value comes first, and all output before it is void. Default `"fail"`.
   *
   * `"continue"`: a target with `prefill: true` gets the text so far as the beginning of its answer, and the consumer gets
   * only the continuation. Only text is continued: after other output, such as a tool call or a thought, the stream fails. See
   * the module's Gotchas for the risks.
   */
  readonly afterOutput?: "fail" | "restart" | "continue" | undefined
  /** After this many parts a stream is emitted even without output. Default 64. */
  readonly maxHeldParts?: number | undefined
  /** After this many bytes a stream is emitted even without output. Default 256 Ki. */
  readonly maxHeldBytes?: number | undefined
}

/**
 * Options for `layerEmbedding` and `layerEmbeddingStore`. The module's table has the reasons for the defaults.
 *
 * @since 0.1.0
 * @category models
 */
export interface EmbeddingLayerOptions<
  Targets extends ReadonlyArray<EmbeddingTarget> = ReadonlyArray<EmbeddingTarget<unknown, never>>
> extends CallOptions {
  /** At least one, each with a `name` and a `layer`. */
  readonly targets: Targets
}

/**
 * Options for `layerText` and `layerTextStore`. Targets have all options but `prefill`.
 *
 * @since 0.1.0
 * @category models
 */
export interface TextLayerOptions<
  Targets extends ReadonlyArray<Target<TextModel>> = ReadonlyArray<Target<TextModel, unknown, never>>
> extends CallOptions, StreamOptions {
  /** At least one, each with a `name` and a `layer`. */
  readonly targets: Targets
}
