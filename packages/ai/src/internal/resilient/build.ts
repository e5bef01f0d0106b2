import type { CircuitBreaker } from "@sluice/core/CircuitBreaker"
import type { CircuitBreakerStore } from "@sluice/core/CircuitBreakerStore"
import { Hub } from "@sluice/core/Hub"
import { InvalidOptions } from "@sluice/core/InvalidOptions"
import { EmbeddingModel } from "effect/ai/EmbeddingModel"
import * as Model from "effect/ai/Model"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { CallLog } from "../../CallLog.ts"
import type { ResilientModel, TargetState } from "../../ResilientModel.ts"
import { Engine } from "./engine.ts"
import type { Target as TargetWithLayer } from "./options.ts"
import * as Settings from "./settings.ts"
import type { Rest } from "./rest.ts"
import type { AnyTarget } from "./target.ts"

/** Builds the layers of all targets, and their engine. */
export const build = Effect.fnUntraced(function*<S, E, R>(
  options: Settings.Options,
  given: ReadonlyArray<TargetWithLayer<S, E, R>>,
  tag: Context.Key<S, S>,
  module = "ResilientModel"
): Effect.fn.Return<Engine<S>, InvalidOptions | E, CircuitBreakerStore | Scope.Scope | R> {
  const { plans, settings } = yield* Settings.read(options, given, module)
  const members = yield* Effect.forEach(given, (target) =>
    Effect.map(
      Layer.build(target.layer),
      (context): Settings.Member<S> => ({
        service: Context.get(context, tag),
        provider: Option.getOrUndefined(Context.getOption(context, Model.ProviderName)),
        model: Option.getOrUndefined(Context.getOption(context, Model.ModelName))
      })
    ))
  const targets = yield* Settings.targets(settings, plans, members, tag.key !== EmbeddingModel.key)
  const logs = new Hub<CallLog>()
  yield* Effect.addFinalizer(() => logs.close)
  return new Engine(settings, targets, logs)
})

/** Returns the service that reports the state and the events of an engine. */
export const reportsOf = <S>({ logs, targets }: Engine<S>): ResilientModel["Service"] => ({
  targets: Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.forEach(targets, (target) => stateOf(target, now))),
  calls: logs.stream,
  transitions: Hub.merge(
    targets.flatMap(({ breaker, name }) =>
      breaker === undefined
        ? []
        : [Stream.map(breaker.transitions, (transition) => ({ target: name, transition }))]
    )
  ),
  control: ({ target, ...options }) =>
    Effect.flatMap(circuitOf(targets, target), ({ breaker, key }) => breaker.control({ ...options, key })),
  reset: ({ reason, target }) =>
    Effect.flatMap(circuitOf(targets, target), ({ breaker, key }) => breaker.reset(key, reason))
})

const circuitOf = (
  targets: ReadonlyArray<AnyTarget>,
  name: string
): Effect.Effect<{ readonly breaker: CircuitBreaker["Service"]; readonly key: string }, InvalidOptions> => {
  const target = targets.find((target) => target.name === name)
  if (target?.breaker !== undefined) return Effect.succeed({ breaker: target.breaker, key: target.key })
  const names = targets.filter(({ breaker }) => breaker !== undefined).map(({ name }) => name)
  const requirement = `must be a target with a circuit: ${names.join(", ") || "there is none"}`
  return Effect.fail(
    new InvalidOptions({ module: "ResilientModel", issues: [{ option: "target", actual: name, requirement }] })
  )
}

const stateOf = (target: AnyTarget, now: number): Effect.Effect<TargetState> =>
  Effect.gen(function*() {
    const left = (rest: Rest, other?: Rest) => {
      const millis = Math.max(rest.left(now), other?.left(now) ?? 0)
      return millis > 0 ? Duration.millis(millis) : undefined
    }
    return {
      name: target.name,
      provider: target.provider,
      model: target.model,
      models: [...target.models.keys()],
      credential: target.credential.name,
      circuit: target.breaker === undefined
        ? undefined
        : Option.getOrUndefined(yield* Effect.option(target.breaker.state(target.key))),
      permits: target.permits === undefined ? undefined : yield* target.permits.snapshot,
      quota: target.quota === undefined ? undefined : yield* target.quota.levels(target.model),
      coolsFor: left(target.rest, target.quota?.restOf(target.model)),
      credentialRestsFor: left(target.credential.rest),
      running: target.running.attempts,
      skippedEvents: target.skipped.events
    }
  })
