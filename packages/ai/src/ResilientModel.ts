/**
 * A `LanguageModel` that survives its providers: over one target or several, with retries, fallback, circuits, limits and
 * streams that are complete or fail.
 *
 * **When to use**
 *
 * In place of the layer of a provider, in any application that calls `LanguageModel.generateText`, `generateObject` or
 * `streamText`, by itself, through `Chat`, or with tools. Nothing else in the application changes.
 *
 * **Details**
 *
 * - A call is tried at one target after another, in order, within one budget of attempts and one deadline. A target that
 *   failed a call is asked again only after those that did not.
 * - A stream's parts are held until the first that is some of the answer. Until then a failure is invisible: the next
 *   attempt begins. After it two targets are never mixed.
 * - An error within a stream, an end without a finish part, silence, and an empty answer are failures, typed: see
 *   `AiRejection`.
 * - Tools run once, after the attempt that called them has succeeded. A retry repeats requests, never side effects.
 * - What an error says about a target stands in one table: `AiOutcome`.
 * - Errors are `AiError`, as the service demands. `rejection` reads what Sluice itself had to say.
 *
 * **Gotchas**
 *
 * - Where no target can be asked, `rejection` reads `NoTarget`, which says why of each. Of a single target whose circuit is
 *   open it reads `CircuitOpen`, which has the evidence too. Both are a `RateLimitError` with the time to come back. Both mean
 *   that no request was made: a call that made one ends with what its provider said last.
 * - A target's context is compared with that of the one that refused a prompt for its length: where one of the two is not
 *   said, the call ends there.
 * - It retries. A retry around it multiplies attempts unless it is `RetryPolicy.retry`, with which it shares them. As a step
 *   of an `ExecutionPlan` let either the plan or this layer retry.
 * - Re-asks are no attempts and are shared with nobody: each attempt of a retry around it has `reasks` of its own, and an empty
 *   answer is an `AiError` that asks to be retried.
 * - Of two of these layers, one a target of the other, let one begin answers anew: what `afterOutput: "restart"` asks for is
 *   counted by each for itself.
 * - A defect of a target is nobody's answer: it is not retried.
 *
 * **Example** (Two providers, the second where the first fails)
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
 *   return `${response.text}, says ${ResilientModel.answeredBy(response)?.target}`
 * })
 *
 * console.log(await Effect.runPromise(Effect.provide(program, Model))) // => Good morning, says second
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
 * Limits of one attempt.
 *
 * @since 0.1.0
 * @category models
 */
export interface Limits {
  /**
   * From the start of a stream to the first of its answer, connecting and waiting for headers included. Default 2 minutes:
   * some models think for as long and say nothing meanwhile.
   */
  readonly firstTokenTimeout?: Duration.Input | undefined
  /** The longest silence within an answer that has begun. Default 1 minute. A consumer that takes its time trips nothing. */
  readonly idleTimeout?: Duration.Input | undefined
  /** The longest attempt, streamed or not. Default 10 minutes: what the official clients have for everything. */
  readonly attemptTimeout?: Duration.Input | undefined
}

/**
 * What is said of one target.
 *
 * @since 0.1.0
 * @category models
 */
export interface TargetOptions extends Limits {
  /** Names it in logs, errors and answers, and its circuit. Unique within the layer. */
  readonly name: string
  /** Who provides it. Default: what the layer says, or else the name. */
  readonly provider?: string | undefined
  /** Default: what the layer says. */
  readonly model?: string | undefined
  /** Names the account that pays. Targets of one account are left alone together when it is refused. Default: the name. */
  readonly credential?: string | undefined
  /** Lower is asked sooner. Default: its place in the list. Targets of one order share the calls, by weight. */
  readonly order?: number | undefined
  /** Its share among the targets of its order. Default 1. */
  readonly weight?: number | undefined
  /** How many tokens of context it has. A prompt that was too long for one target goes on to one with more, where both say it. */
  readonly contextTokens?: number | undefined
  /**
   * Its circuit; `false` for none. By default it opens for 30 seconds after five failures in a row, or when half of the last
   * 20 calls failed.
   */
  readonly breaker?: Omit<CircuitBreakerOptions, "name" | "classify"> | false | undefined
  /** Caps how many calls run there at once, as in `Sluice`. Without a `queue` a call over the cap is shed. Default: no cap. */
  readonly backpressure?: Omit<BackpressureOptions, "name"> | undefined
}

/**
 * One place where a model can be called.
 *
 * @since 0.1.0
 * @category models
 */
export interface Target<in S, out E = unknown, out R = unknown> extends TargetOptions {
  /** Provides the model: of ours, one of Effect's providers, or your own. */
  readonly layer: Layer.Layer<S, E, R>
}

/**
 * What is said of all targets together.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends Limits {
  readonly targets: ReadonlyArray<TargetOptions>
  /** Named in refusals and metrics. Default `"model"`. */
  readonly name?: string | undefined
  /**
   * How often a call is tried, over all targets, and how long it waits where there is no other target to ask. Default
   * `RetryPolicy.exponential()`: three attempts.
   */
  readonly retry?: RetryPolicy | undefined
  /**
   * How often a complete answer that is of no use (empty, not of the form that was asked for) is asked for once more. Each is
   * paid like the first, and none is an attempt of `retry`. Default 1.
   */
  readonly reasks?: number | undefined
  /** The time for a call as a whole, with all its waits and attempts. Default none. */
  readonly deadline?: Duration.Input | undefined
  /**
   * What to do when every circuit is open: refuse with the time when the first of them may be asked again (the default), or
   * ask the one that is closest to it.
   */
  readonly whenAllOpen?: "refuse" | "leastBad" | undefined
  /**
   * What to do when a stream fails after some of its answer was handed on: fail (the default), or begin the answer anew at
   * the next target. Then a part comes first for which `restartOf` answers: what was read before it is void.
   */
  readonly afterOutput?: "fail" | "restart" | undefined
  /** How long a refused credential is left alone, unless the provider says. Default 5 minutes. */
  readonly credentialRest?: Duration.Input | undefined
  /** The most parts of a stream that are held before its answer begins. Default 64. */
  readonly maxHeldParts?: number | undefined
  /** The most bytes of a stream that are held before its answer begins. Default 256 Ki. */
  readonly maxHeldBytes?: number | undefined
}

/** What there is for streams alone. */
type StreamLimits = "firstTokenTimeout" | "idleTimeout"

/**
 * One place where an embedding model can be called: a `Target` without the limits of streams.
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
 * What is said of all targets of an embedding model together: `Options` without what there is for streams.
 *
 * @since 0.1.0
 * @category models
 */
export type EmbeddingOptions = Omit<Options, StreamLimits | "afterOutput" | "maxHeldParts" | "maxHeldBytes">

/**
 * How one target stands.
 *
 * @since 0.1.0
 * @category models
 */
export interface TargetState {
  readonly name: string
  readonly provider: string
  readonly model: string
  readonly credential: string
  /** `undefined` where it has none, or its store does not answer. */
  readonly circuit: CircuitState | undefined
  /** `undefined` where as many calls run as come. */
  readonly permits: PermitsSnapshot | undefined
  /** Time for which it asked to be left alone. */
  readonly coolsFor: Duration.Duration | undefined
  /** Time for which its credential is not used. */
  readonly credentialRestsFor: Duration.Duration | undefined
}

/**
 * What there is to see of a resilient model.
 *
 * @since 0.1.0
 * @category services
 */
export class ResilientModel extends Context.Service<ResilientModel, {
  /** How every target stands, in order. */
  readonly targets: Effect.Effect<ReadonlyArray<TargetState>>
  /** The log of every call as it ends, from the moment of subscribing. A reader that falls 256 behind misses the oldest. */
  readonly calls: Stream.Stream<CallLog>
  /** Every move of a target's circuit, by the target's name, from the moment of subscribing. */
  readonly transitions: Stream.Stream<{ readonly target: string; readonly transition: Transition }>
}>()("@sluice/ai/ResilientModel") {}

type LayerOf<Services, Targets extends ReadonlyArray<Pick<Target<never>, "layer">>, Needs = never> = Layer.Layer<
  Services | ResilientModel | Model.ProviderName | Model.ModelName,
  InvalidOptions | Layer.Error<Targets[number]["layer"]>,
  Layer.Services<Targets[number]["layer"]> | Needs
>

/**
 * Provides a `LanguageModel` from its targets, each with a circuit in this process.
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = <const Targets extends ReadonlyArray<Target<LanguageModel.LanguageModel>>>(
  options: Omit<Options, "targets"> & { readonly targets: Targets }
): LayerOf<LanguageModel.LanguageModel, Targets> => Layer.provide(layerStore(options), CircuitBreakerStore.layerMemory)

/**
 * As `layer`, with circuits in the store that is there, so that several processes share what they know of a provider.
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
 * Provides an `EmbeddingModel` from its targets, each with a circuit in this process.
 *
 * **Gotchas**
 *
 * Vectors of two models cannot be compared. Fall back to the same model at another place, not to another model.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerEmbedding = <const Targets extends ReadonlyArray<EmbeddingTarget>>(
  options: Omit<EmbeddingOptions, "targets"> & { readonly targets: Targets }
): LayerOf<EmbeddingModel.EmbeddingModel, Targets> =>
  Layer.provide(layerEmbeddingStore(options), CircuitBreakerStore.layerMemory)

/**
 * As `layerEmbedding`, with circuits in the store that is there.
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

/** Builds every target's own layer, and what stands around it. */
const build = Effect.fnUntraced(function*<S>(
  options: Options,
  given: ReadonlyArray<Target<S>>,
  tag: Context.Key<S, S>
): Effect.fn.Return<Engine<S>, unknown, CircuitBreakerStore.CircuitBreakerStore | Scope.Scope> {
  const { plans, settings } = yield* Settings.read(options, given)
  const members = yield* Effect.forEach(given, (target) =>
    Effect.map(
      // What the layer asks for stands in the type of the layer that is built here.
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
 * The exit of an effect, and the logs of the calls that it made, in the order in which they ended.
 *
 * **Gotchas**
 *
 * A stream's call is over when the stream is: run it within the effect.
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
 * What Sluice itself had to say, where a call was refused, cut short, silent or empty; none for an error of a provider.
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
  /** Whether the provider did not count, and these are about four characters to a token. */
  estimated: Schema.Boolean
})

/**
 * Who answered, at which attempt, and for how many tokens.
 *
 * @since 0.1.0
 * @category models
 */
export type Answer = typeof Answer.Type

const decodeAnswer = Schema.decodeUnknownOption(Schema.Struct({ answer: Answer }))

/**
 * Where an answer came from: of a whole response, or of the finish part of a stream.
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
 * Whether the answer begins anew with this part, at which target, and whose answer is void: with `afterOutput: "restart"`.
 *
 * @since 0.1.0
 * @category getters
 */
export const restartOf = (part: Response.AnyPart): { readonly from: string; readonly to: string } | undefined =>
  part.type === "response-metadata"
    ? Option.getOrUndefined(decodeRestart(part.metadata["sluice"]))?.restart
    : undefined
