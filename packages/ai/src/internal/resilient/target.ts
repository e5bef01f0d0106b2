import * as Admission from "@sluice/core/Admission"
import type { Backpressure } from "@sluice/core/Backpressure"
import type { CircuitBreaker } from "@sluice/core/CircuitBreaker"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Mark from "../telemetry/mark.ts"
import type { Place } from "../telemetry/operation.ts"
import { Rest } from "./rest.ts"
import type { TargetQuota } from "./targetQuota.ts"

/** An account at a provider. If it is refused or used up, that holds for all its targets. */
export class Credential {
  readonly name: string
  readonly rest = new Rest()

  constructor(name: string) {
    this.name = name
  }
}

export interface Limits {
  readonly firstTokenMillis: number
  readonly idleMillis: number
  readonly attemptMillis: number
  readonly attemptTimeout: Duration.Duration
}

/** One place where a model can be called. */
export interface Target<out S> {
  readonly name: string
  /** Of its circuit. */
  readonly key: string
  readonly provider: string
  readonly model: string
  /** The offered models, by the names that calls use. The value is the target's own name, `undefined` for `model`. */
  readonly models: ReadonlyMap<string, string | undefined>
  readonly service: S
  readonly order: number
  readonly weight: number
  readonly contextTokens: number | undefined
  readonly credential: Credential
  readonly breaker: CircuitBreaker["Service"] | undefined
  readonly permits: Backpressure["Service"] | undefined
  /** The quota of its account and model family. */
  readonly quota: TargetQuota | undefined
  /** How long a call may queue for a permit. `undefined`: without a limit. */
  readonly maxWaitMillis: number | undefined
  /** Quota, permits and circuit. */
  readonly admission: Admission.Admission
  /** Quota and permits alone, for a target that is asked although its circuit is open. */
  readonly forced: Admission.Admission
  readonly limits: Limits
  /** Whether the target continues a partial answer at the end of the prompt. */
  readonly prefill: boolean
  /** Whether events that are not JSON are skipped. */
  readonly skipsMalformedEvents: boolean
  /** How many events were skipped. */
  readonly skipped: { events: number }
  /** How many attempts run. */
  readonly running: { attempts: number }
  /** Its labels in metrics and traces, by its own name for a model. */
  readonly placeOf: (model: string) => Place
  /** Whether the service has telemetry of its own. */
  readonly isWatched: boolean
  /** How long the provider asked for no calls. */
  readonly rest: Rest
}

export type AnyTarget = Target<unknown>

export const make = <S>(
  fields: Omit<Target<S>, "admission" | "forced" | "isWatched" | "placeOf" | "rest" | "running" | "skipped">
): Effect.Effect<Target<S>> => {
  const { breaker, key, model, models, name, permits, provider, service } = fields
  const quota = fields.quota?.service
  const place: Place = { provider, model, target: name }
  // One object for each model: metrics are kept by it.
  const places = new Map([...models.values()].map((own = model) => [own, { ...place, model: own }]))
  // Its breaker, permits and quota were made by core, which is all that these refuse.
  return Effect.zipWith(
    Effect.orDie(Admission.make({ breaker, permits, quota, key })),
    Effect.orDie(Admission.make({ permits, quota })),
    (admission, forced): Target<S> => ({
      ...fields,
      admission,
      forced,
      placeOf: (model) => places.get(model) ?? place,
      isWatched: typeof service === "object" && service !== null && Mark.isMarked(service),
      rest: new Rest(),
      skipped: { events: 0 },
      running: { attempts: 0 }
    })
  )
}
